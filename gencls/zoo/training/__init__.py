"""Training on Lightning: presets by name, and :func:`train`."""

from typing import TYPE_CHECKING, Any

from gencls.zoo.training.presets import PRESETS

if TYPE_CHECKING:
    from gencls.zoo.training.run import train

__all__ = ["PRESETS", "train"]


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import; whoever only lists the presets does without.
    if name == "train":
        from gencls.zoo.training.run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
