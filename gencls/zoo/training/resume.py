"""Choice of the run that a training goes on with, and how far it is."""

from collections.abc import Callable, Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from gencls.core.errors import GenclsError
from gencls.zoo.training.lightning import LightningTraining


def checkpoint_to_start_from(folder: Path, *, resume: bool) -> Path | None:
    """The checkpoint of the run in a folder; None to begin a run.

    Raises:
        GenclsError: if there is no checkpoint to resume, or if there is one and ``resume`` is False.
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
    """The number of epochs that a run has finished.

    Raises:
        GenclsError: for a damaged checkpoint.
    """
    return int(_read(checkpoint)["epoch"]) + 1


def check_resumable(
    checkpoint: Path, module: LightningTraining, epochs: int, described: Callable[[int], Collection[str]]
) -> tuple[int, ...]:
    """Check that a training may go on with a run, up to so many epochs all together.

    It may if the run's description is one of this training's, which ``described`` gives for a number of epochs.

    Returns:
        The planned numbers of epochs, one for each time the run was begun or resumed, this time included.

    Raises:
        GenclsError: for a damaged checkpoint; one with other settings or more epochs; one with fewer epochs, if the training
            can neither be extended nor, once it is finished, go on at the rates of a longer one.
    """
    content = _read(checkpoint)
    found, plans = content.get("description"), tuple(content.get("planned_epochs") or (epochs,))
    planned = plans[-1]
    if found not in described(planned):
        raise GenclsError(f"expected to resume a run of {module.description!r}; got one of {found!r}")
    if planned == epochs:
        return plans
    if planned < epochs and module.learner.extendable:
        return (epochs,)
    finished = content["epoch"] + 1 == planned
    if planned < epochs and module.learner.replannable and finished:
        return (*plans, epochs)
    why = "its settings change over all epochs together"
    if planned > epochs:
        why = "a finished epoch is not taken back"
    elif module.learner.replannable:
        why = f"it has not come to the end of its {planned} epochs"
    raise GenclsError(
        f"{checkpoint}: expected {planned} epochs, as the run was planned with, got {epochs}; {why}, so {epochs} epochs "
        "are another training; begin it in another folder"
    )


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        raise _damaged(checkpoint, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if not isinstance(content, dict) or not isinstance(content.get("epoch"), int):
        raise _damaged(checkpoint, "something else")
    if not all(key.startswith("learner.") for key in content.get("state_dict", ())):
        raise _damaged(checkpoint, "one of an earlier version of gencls")
    return content


def _damaged(checkpoint: Path, got: str) -> GenclsError:
    return GenclsError(f"{checkpoint}: expected the checkpoint of a training, got {got}; remove it and train anew")
