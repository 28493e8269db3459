"""A forecast of how long a training will take, from a few of its steps."""

import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from gencls.core.memory import store_channels_last
from gencls.core.streams.seeds import seeded
from gencls.zoo.data import ImageData
from gencls.zoo.training.lightning import batch_loader, trainer_of, without_advice
from gencls.zoo.training.run import Plan

_PLACES = 8
"""Number of steps that are timed. They spread over the epochs, because some trainings begin with cheaper ones."""


def seconds_per_epoch(plan: Plan, data: ImageData) -> float:
    """Mean seconds per epoch of a training, without the measurement at the end. Nothing is written."""
    clock = _Clock(plan.settings.epochs)
    with seeded(plan.seed), without_advice():
        module = plan.module(data)
        if module.learner.channels_last:
            store_channels_last(module)
        batches = batch_loader(data.images, data.labels, batch_size=plan.settings.batch_size, seed=plan.seed)
        trainer = trainer_of(
            max(plan.settings.epochs, _PLACES + 1),  # an epoch may have a single step
            logger=False,
            callbacks=[clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, batches)
    return len(batches) * sum(clock.seconds) / len(clock.seconds)


class _Clock(Callback):
    """Times steps, each as if its share of the epochs had passed. The first step warms up."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seconds: list[float] = []
        self._count = 0
        self._began = 0.0

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        epoch = self.epochs * (max(self._count, 1) - 0.5) / _PLACES
        module.epochs_passed = lambda batch_index: epoch
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self._count:
            self.seconds.append(time.perf_counter() - self._began)
        self._count += 1
        trainer.should_stop = self._count > _PLACES
