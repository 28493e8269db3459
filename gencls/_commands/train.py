"""``gencls train``: weights from data."""

import argparse
import sys

__all__ = ["run_train"]


def run_train(options: argparse.Namespace) -> None:
    """Train, and print the path of the weights."""
    from gencls.zoo.training import train

    path = train(
        options.preset,
        data=options.data,
        data_root=options.data_root,
        epochs=options.epochs,
        limit=options.limit,
        seed=options.seed,
        pretrained=options.pretrained,
        out=options.out,
        resume=options.resume,
        progress=sys.stderr.isatty(),
    )
    print(path)
