"""What the tests of several trainings share."""

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gencls.zoo.training import train
from gencls.zoo.training.base import Preset
from gencls.zoo.training.lightning import LightningTraining


def logged(folder: Path, tag: str) -> list[float]:
    """What a run has logged under a name, in the order of its steps."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def resumed(settings: str | Preset, *, at: int, out: Path, **arguments: Any) -> Path:
    """The weights of a training that dies at the beginning of step ``at``, counted from 1, and is resumed."""
    original = LightningTraining.on_train_batch_start
    steps = 0

    def interrupted(self: LightningTraining, *args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            raise InterruptedError
        original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LightningTraining, "on_train_batch_start", interrupted)
        with pytest.raises(InterruptedError):
            train(settings, **arguments, out=out)
    return train(settings, **arguments, out=out, resume=True)
