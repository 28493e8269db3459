"""``study.json``: the settings of a study and the list of its cells, and what follows from them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gencls.core import GenclsError, checked
from gencls.core.files import check_seal, read_object
from gencls.eval.study.cell_files import StudyCell
from gencls.eval.study.settings_check import check_study_settings

__all__ = ["FORMAT", "SETTINGS", "first_sample", "has_checksums", "is_outdated", "made_by", "planned", "read_study"]

SETTINGS = "study.json"

FORMAT = 4
"""2: the judge draws sequentially, so records hold different numbers of draws, and majorities of their own. 3: checksums.
4: a folder grows, so the bounds of its shards are listed, and each row has its epsilon."""
_READABLE = (1, 2, 3, 4)  # to report; only a study of the present format is continued
_CHECKSUMS = 3
"""The first format with checksums."""


@checked
def read_study(folder: str | Path) -> dict[str, Any]:
    """The settings of the study in a folder.

    Raises:
        GenclsError: if the folder holds no study, one of a format that is not known here, or one whose settings were changed.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise GenclsError(f"{folder}: expected a study folder with {SETTINGS}, got none")
    advice = "; remove it and run the study again, all calls of it: finished cells are kept"
    settings = read_object(path, "the settings of a study", advice)
    if not {"format", "cells", "seeds"} <= settings.keys() or not {"shard_size", "shards"} & settings.keys():
        raise GenclsError(f"{path}: expected the settings of a study, got JSON of another kind")
    if "checksum" in settings:  # one flipped bit makes a 5 of a 4
        check_seal(settings, path, advice)
    if settings["format"] not in _READABLE:
        raise GenclsError(f"{path}: expected a study of format {_READABLE}, got {settings['format']!r}; update gencls")
    check_study_settings(settings, path, advice)
    if has_checksums(settings):
        check_seal(settings, path, advice)
    return settings


def has_checksums(settings: Mapping[str, Any]) -> bool:
    """Whether the files of a study carry checksums; those of formats 1 and 2 do not."""
    return bool(settings["format"] >= _CHECKSUMS)


def planned(settings: Mapping[str, Any]) -> list[StudyCell]:
    """All cells of a study, in order: its rows x its shards."""
    return [StudyCell(**cell) for cell in settings["cells"]]


def first_sample(settings: Mapping[str, Any], cell: StudyCell) -> int:
    """The number of a cell's first sample among those of the folder."""
    return int(settings["shards"][cell.shard][0] if "shards" in settings else cell.shard * settings["shard_size"])


def made_by(code: str, defense: str, attack: str) -> str:
    """Digest of the code of a row, from those of what attacks and judges, of its defense and of its attack."""
    return hashlib.sha256("\n".join((code, defense, attack)).encode()).hexdigest()[:12]


def is_outdated(settings: Mapping[str, Any], cell: StudyCell) -> bool:
    """Whether a later call has brought other code, but has not named the row of this cell."""
    if not cell.code:
        return False
    parts = (settings["defenses"][cell.defense]["code"], settings["attacks"][cell.attack]["code"])
    return cell.code != made_by(settings["code"], *parts)
