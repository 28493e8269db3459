"""Study folders written by hand: ragged draws, minimal-norm cells, the diagnosis, older and newer formats."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from gencls.core.errors import GenclsError
from gencls.core.files import write_sealed
from gencls.core.images import sample_hashes
from gencls.eval.doctor.diagnosis import write_diagnoses
from gencls.eval.report.study.from_folder import report_study
from gencls.eval.study.files import StudyCell, write_cell
from gencls.eval.study.folder import read_records
from gencls.eval.study.settings import FORMAT, read_study
from tests.eval.measures.test_summary import broken, minimal, record

NEW = ["majority_correct", "clean_majority_correct", "undecided", "attack_draws", "peak_memory"]


def write_folder(folder: Path, *, form: int = FORMAT, drop: tuple[str, ...] = ()) -> Path:
    """Two defenses, one minimal-norm attack, two shards of three samples; the second sample took more draws."""
    cells = [
        StudyCell(defense, "ddn", "exact", 0, shard, f"{defense}{shard}") for defense in ("cnn", "abs") for shard in (0, 1)
    ]
    settings: dict[str, Any] = {"format": form, "seeds": [0], "cells": [asdict(cell) for cell in cells]}
    settings |= {"shards": [[0, 3], [3, 6]]} if form == FORMAT else {"shard_size": 3}
    (folder / "cells").mkdir(parents=True)
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(6, dtype=torch.int64)
    save_file({"images": images, "labels": labels}, folder / "samples.safetensors")
    hashes = sample_hashes(images, labels)
    if form < FORMAT:
        (folder / "study.json").write_text(json.dumps(settings))
    else:
        write_sealed(folder / "study.json", settings | {"sample_hashes": hashes})
    for cell in cells:
        names = hashes[3 * cell.shard :][:3]
        rows = [broken(names[0], 0.5), broken(names[1], 0.7, predictions=[1, 1, 0, 1]), record(names[2], distance=0.0)]
        frame = pd.DataFrame(minimal(*rows, defense=cell.defense)).drop(columns=list(drop))
        if form == 1:
            frame["epsilon"] = None  # as format 1 wrote it
        write_cell(folder, cell, frame, images[:3])
        if form < FORMAT:
            (folder / "cells" / f"{cell.key}.json").unlink()
    return folder


def test_records_of_minimal_attacks(tmp_path: Path) -> None:
    records = read_records(write_folder(tmp_path / "study"))
    assert records["sample"].to_list() == [0, 1, 2, 3, 4, 5] * 2
    assert records["epsilon"].dtype == "float64"
    assert records["epsilon"].isna().all()
    assert [len(row) for row in records["predictions"][:3]] == [1, 4, 1]


def test_the_report_of_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "study")
    checks = [{"name": "detached scores", "status": "fail", "finding": "No gradient.", "evidence": {"share": 1.0}}]
    write_diagnoses(folder / "doctor.json", {"cnn": {"passed": False, "checks": checks}})
    page = report_study(folder).read_text("utf-8")
    for section in ("diagnosis", "distance", "curves", "images", "claims", "mcnemar"):
        assert f'<section id="{section}">' in page
    assert "<b>cnn</b>: detached scores" in page
    assert "cnn under ddn (L2, minimal)" in page
    assert (folder / "curves.csv").exists()
    # Without an attacked size the defenses are compared at round sizes.
    assert "L2, ε = 0.5" in page


def test_a_malformed_diagnosis_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "study")
    (folder / "doctor.json").write_text('{"cnn": 3}')
    with pytest.raises(GenclsError, match=r'doctor.json, cnn: expected the keys "passed", "checks", got 3'):
        report_study(folder)


def test_a_folder_of_format_1(tmp_path: Path) -> None:
    new = read_records(write_folder(tmp_path / "new"))
    old = read_records(write_folder(tmp_path / "old", form=1, drop=tuple(NEW)))
    same = [name for name in new.columns if name not in NEW[2:]]
    pd.testing.assert_frame_equal(old[same], new[same])
    assert np.isnan(old[NEW[2:]].to_numpy(dtype=float)).all()
    page = report_study(tmp_path / "old").read_text("utf-8")
    assert '<section id="budget">' in page
    assert "the study has format 1, without checksums: damage to its files would not be seen" in page


@pytest.mark.parametrize("form", [0, 5, "2", None])
def test_an_unknown_format(form: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "study")
    write_sealed(folder / "study.json", json.loads((folder / "study.json").read_text()) | {"format": form})
    with pytest.raises(GenclsError, match=rf"expected a study of format \(1, 2, 3, 4\), got {form!r}"):
        read_study(folder)


def test_a_cell_that_lacks_columns(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "study", drop=("distance",))
    with pytest.raises(GenclsError, match=r"cnn0.parquet: .* missing: distance"):
        read_records(folder)


@pytest.mark.parametrize("order", [(1, 0, 2), (3, 4, 5), (0, 1)])
def test_a_whole_cell_of_other_samples(order: tuple[int, ...], tmp_path: Path) -> None:
    """Its mark fits its files, so that only the samples that study.json lists can tell."""
    folder = write_folder(tmp_path / "study")
    settings = read_study(folder)
    frame = pd.DataFrame(minimal(*(broken(settings["sample_hashes"][i], 0.5) for i in order), defense="cnn"))
    write_cell(folder, StudyCell(**settings["cells"][0]), frame, torch.rand(len(order), 1, 4, 4))
    with pytest.raises(GenclsError, match="cnn0.parquet: expected the 3 samples of its cell, got others"):
        read_records(folder)
