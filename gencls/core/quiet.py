"""Silences what third parties say about themselves when they are imported."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_import"]


@contextmanager
def quiet_import() -> Iterator[None]:
    """Silence, in the block, the warning that torchmetrics's imports still use ``pkg_resources``; others are heard."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        yield
