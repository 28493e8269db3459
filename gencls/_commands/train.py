"""``gencls train``: weights from data."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencls._commands.arguments import check_out

if TYPE_CHECKING:
    from gencls.zoo.training.run import Plan

__all__ = ["run_train"]


def run_train(options: argparse.Namespace) -> None:
    """Train, and print the measures and the path of the weights. A dry run prints only what the training would cost."""
    from gencls.zoo.checkpoints.cards import read_card
    from gencls.zoo.training import train
    from gencls.zoo.training.resume import checkpoint_to_start_from, epochs_in
    from gencls.zoo.training.run import plan_training

    chosen: dict[str, Any] = {
        name: getattr(options, name) for name in ("data", "data_root", "epochs", "limit", "seed", "pretrained")
    }
    plan = plan_training(options.preset, **chosen)
    check_out(options.out / options.preset)
    start = checkpoint_to_start_from(options.out / options.preset, resume=options.resume)
    done = 0 if start is None else epochs_in(start)
    if options.dry_run:
        print(_predicted(plan, start, done))
        return
    path = train(options.preset, **chosen, out=options.out, resume=options.resume, progress=sys.stderr.isatty())
    if done:
        print(f"went on after epoch {done}")
    for what, value in read_card(path).metrics.items():
        print(f"{what}: {value:.4g}" if isinstance(value, float) else f"{what}: {value}")
    print(path)


def _predicted(plan: "Plan", start: Path | None, done: int) -> str:
    from gencls.core.words import counted
    from gencls.eval.study.cost import duration
    from gencls.zoo.training.forecast import seconds_per_epoch
    from gencls.zoo.training.resume import check_resumable

    data, settings = plan.load(), plan.settings
    if start is not None:
        check_resumable(start, plan.module(data), settings.epochs, plan.descriptions)
    left = max(0, settings.epochs - done)
    epochs, images = counted(settings.epochs, "epoch"), counted(len(data), "image")
    return (
        f"predicted: about {duration(left * seconds_per_epoch(plan, data))} for {left} of {epochs} of {settings.name} on "
        f"{images} of {plan.data}, and the measurement of the weights after them"
    )
