"""The files with the samples and the cells of a study, and the proof that a cell's files have not changed.

samples.safetensors    images, labels, bounds of the shards
cells/KEY.parquet      records of a finished cell
cells/KEY.safetensors  its adversarial images
cells/KEY.json         its mark, written last: KEY, the number of rows, the SHA-256 of both files, and a checksum of itself
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gencls.core import GenclsError
from gencls.core.files import atomically, read_sealed, write_sealed

if TYPE_CHECKING:
    import pandas

SAMPLES, CELLS = "samples.safetensors", "cells"

RUN_AGAIN = "run the study again, it makes damaged files anew"

Kind = Literal["json", "parquet", "safetensors", "lock"]


@dataclass(frozen=True)
class StudyCell:
    """One unit of work: an attack in one gradient mode on one shard of samples, by name and content key.

    Attributes:
        defense: name of the defense.
        attack: name of the attack.
        mode: gradient mode.
        seed: seed of the random streams.
        shard: number of the shard within the folder.
        key: name of the files; empty if samples were added and no call has asked for this cell since.
        epsilon: bound of the attack's threat; None for a minimal-norm attack, and in folders before format 4.
        code: digest of the code of gencls and libraries that made the cell; empty without a key, and before format 4.
    """

    defense: str
    attack: str
    mode: str
    seed: int
    shard: int
    key: str
    epsilon: float | None = None
    code: str = ""


def write_samples(folder: Path, settings: Mapping[str, Any], images: Tensor, labels: Tensor, hashes: Sequence[str]) -> None:
    """Write the samples that the study's settings list, in their order, with the bounds of the shards.

    Args:
        folder: folder of the study.
        settings: list the keys of some of the samples, or of all.
        images: (N, C, H, W).
        labels: (N,).
        hashes: N keys.
    """
    place = {key: place for place, key in enumerate(hashes)}
    places = [place[key] for key in settings["sample_hashes"]]
    tensors = {"images": images[places].cpu().contiguous(), "labels": labels[places].cpu().contiguous()}
    atomically(folder / SAMPLES, save(tensors, metadata={"shards": json.dumps(settings["shards"])}))


def cell_path(folder: Path, cell: StudyCell, kind: Kind) -> Path:
    """The path of a file of a cell; "json" is the mark of a finished cell."""
    return folder / CELLS / f"{cell.key}.{kind}"


def write_cell(folder: Path, cell: StudyCell, records: "pandas.DataFrame", adversarial: Tensor) -> None:
    """Write the files of a finished cell, n records and adversarial images (n, C, H, W), its mark last."""
    buffer = io.BytesIO()
    records.to_parquet(buffer, index=False)
    contents: dict[Kind, bytes] = {"safetensors": save({"adversarial": adversarial.contiguous()}), "parquet": buffer.getvalue()}
    for kind, content in contents.items():
        atomically(cell_path(folder, cell, kind), content)
    sums: dict[str, str] = {kind: hashlib.sha256(content).hexdigest() for kind, content in contents.items()}
    write_sealed(cell_path(folder, cell, "json"), {"key": cell.key, "rows": len(records), **sums})


def is_marked(folder: Path, cell: StudyCell) -> bool:
    """Whether a cell has the mark of a finished one."""
    return cell_path(folder, cell, "json").exists()


def damage(folder: Path, cell: StudyCell) -> str | None:
    """The damage in the files of a marked cell; None if they have not changed."""
    try:
        _verified(folder, cell, "parquet")
        _verified(folder, cell, "safetensors")
    except GenclsError as error:
        return str(error)
    return None


def read_frame(folder: Path, cell: StudyCell, *, marked: bool = True) -> "pandas.DataFrame":
    """The records of a finished cell, parsed from verified bytes; studies of formats 1 and 2 have no marks.

    Raises:
        GenclsError: for a file that is missing or damaged.
    """
    import pandas

    content, rows = _verified(folder, cell, "parquet") if marked else (_bytes(cell_path(folder, cell, "parquet")), None)
    try:
        frame = pandas.read_parquet(io.BytesIO(content))
    except (OSError, ValueError, KeyError, NotImplementedError) as error:  # Arrow's errors derive from these
        raise _damaged(folder, cell, "parquet", "the records of a cell", error) from error
    if rows is not None and len(frame) != rows:
        raise _damaged(folder, cell, "parquet", f"{rows} rows", len(frame))
    return frame


def read_images(folder: Path, cell: StudyCell, *, marked: bool = True) -> Tensor:
    """The adversarial images (n, C, H, W) of a finished cell, from verified bytes; see :func:`read_frame`."""
    path = cell_path(folder, cell, "safetensors")
    content = _verified(folder, cell, "safetensors")[0] if marked else _bytes(path)
    return _tensors(content, path, "adversarial")["adversarial"]


def read_tensors(path: Path, *names: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        GenclsError: if it cannot be read, or holds tensors of other names.
    """
    return _tensors(_bytes(path), path, *names)


def _tensors(content: bytes, path: Path, *names: str) -> dict[str, Tensor]:
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise GenclsError(f"{path}: expected a safetensors file, got {error}; {RUN_AGAIN}") from error
    if tensors.keys() != set(names):
        raise GenclsError(f"{path}: expected the tensors {', '.join(names)}, got {', '.join(tensors)}; {RUN_AGAIN}")
    return tensors


def _verified(folder: Path, cell: StudyCell, kind: Kind) -> tuple[bytes, int]:
    """The bytes of a file, checked against the cell's mark, and the cell's number of rows."""
    mark = read_sealed(cell_path(folder, cell, "json"), "the mark of a finished cell", f"; {RUN_AGAIN}")
    if mark.get("key") != cell.key:
        raise _damaged(folder, cell, "json", f"the mark of cell {cell.key}", mark.get("key"))
    content = _bytes(cell_path(folder, cell, kind))
    found = hashlib.sha256(content).hexdigest()
    if found != mark[kind]:
        raise _damaged(folder, cell, kind, f"the SHA-256 {mark[kind]} of its mark", found)
    return content, mark["rows"]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GenclsError(f"{path}: expected a file of the study, got {error}; {RUN_AGAIN}") from None


def _damaged(folder: Path, cell: StudyCell, kind: Kind, expected: str, got: object) -> GenclsError:
    return GenclsError(f"{cell_path(folder, cell, kind)}: expected {expected}, got {got}; {RUN_AGAIN}")
