"""Which run is gone on with, and how far it is."""

from collections.abc import Callable, Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from gencls.core.errors import GenclsError
from gencls.zoo.training.modules import NetworkTraining

__all__ = ["check_resumable", "checkpoint_to_start_from", "epochs_in"]


def checkpoint_to_start_from(folder: Path, *, resume: bool) -> Path | None:
    """The checkpoint of the run in a folder; None to begin one.

    Raises:
        GenclsError: if there is none to resume, or one that is not to be resumed.
    """
    checkpoint = folder / "last.ckpt"
    if resume and not checkpoint.is_file():
        raise GenclsError(f"train: expected a run to resume at {checkpoint}, found none; leave out resume to begin one")
    if not resume and checkpoint.exists():
        raise GenclsError(
            f"train: expected no earlier run in {folder}, found {checkpoint.name}; resume it, or choose another folder"
        )
    return checkpoint if resume else None


def epochs_in(checkpoint: Path) -> int:
    """How many epochs of a run are finished.

    Raises:
        GenclsError: for a damaged checkpoint.
    """
    return int(_read(checkpoint)["epoch"]) + 1


def check_resumable(
    checkpoint: Path, module: NetworkTraining, epochs: int, described: Callable[[int], Collection[str]]
) -> None:
    """Check that a training may go on with a run.

    Args:
        checkpoint: of the run.
        module: of this training.
        epochs: that are wanted, all together.
        described: number of epochs -> what a run of so many and otherwise these settings calls itself.

    Raises:
        GenclsError: for a damaged checkpoint, one of other settings, of more epochs, or of fewer ones where the first epochs of
            a long training are not those of a short one.
    """
    content = _read(checkpoint)
    found, planned = content.get("description"), content.get("planned_epochs", epochs)
    if found not in described(planned):
        raise GenclsError(f"expected to resume a run of {module.description!r}; got one of {found!r}")
    if planned != epochs and (planned > epochs or not module.extendable):
        more = "a finished epoch is not taken back" if planned > epochs else "its settings change over all epochs together"
        raise GenclsError(
            f"{checkpoint}: expected {planned} epochs, as the run was planned with, got {epochs}; {more}, so {epochs} epochs "
            "are another training; begin it in another folder"
        )


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        raise _damaged(checkpoint, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if not isinstance(content, dict) or not isinstance(content.get("epoch"), int):
        raise _damaged(checkpoint, "something else")
    return content


def _damaged(checkpoint: Path, got: str) -> GenclsError:
    return GenclsError(f"{checkpoint}: expected the checkpoint of a training, got {got}; remove it and train anew")
