"""The maps of features that a network makes of images, for all distances with a network."""

import copy
import reprlib
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, checked, did_you_mean
from gencls.core.words import counted

__all__ = ["FeatureMaps", "as_channels", "check_dtype", "frozen_copy"]

_OWNER = "FeatureDistance"

_RUNNING: ContextVar["_Run | None"] = ContextVar("_RUNNING", default=None)
"""The run whose maps are kept, in this thread: hooks of other runs on the same network stay silent."""

_HOOKS = threading.Lock()
"""Torch counts its hooks without a lock."""


class FeatureMaps:
    """Images to the maps of a network's layers; parts behind the last layer do not run.

    Hooks are on the network only while it runs, and only for the thread that runs it.

    Args:
        network: images (N, C, H, W) to anything.
        layers: names of parts of the network; None: the network returns its maps.
        channels: the C that the network takes; None reads it from its first convolution.
        grey_as_rgb: whether images with one channel are repeated for a network that takes three.

    Raises:
        GenclsError: the network has no such layers.
    """

    @checked
    def __init__(self, network: nn.Module, layers: Sequence[str] | None, *, channels: int | None, grey_as_rgb: bool) -> None:
        self.network = network
        self.layers = layers
        self.channels = channels if channels is not None else _first_channels(network)
        self.grey_as_rgb = grey_as_rgb
        if self.channels is not None and self.channels < 1:
            raise GenclsError(f"{_OWNER}: expected channels >= 1, got {self.channels}")
        if layers is not None:
            _check_layers(network, layers)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (N, c, h, w) by the names of their layers."""
        images = as_channels(images, self.channels, grey_as_rgb=self.grey_as_rgb, owner=_OWNER)
        check_dtype(self.network, images, owner=_OWNER)
        found = _returned(self.network(images)) if self.layers is None else _Run(self.network, self.layers).maps(images)
        return {name: _as_map(name, part, len(images)) for name, part in found.items()}


def frozen_copy(network: nn.Module) -> nn.Module:
    """Copy a network, in eval mode, without gradients of its parameters and without activations that write in place."""
    try:
        made = copy.deepcopy(network)
    except RuntimeError as error:
        raise GenclsError(
            f"{_OWNER}: expected a network that copy.deepcopy can copy, got {type(network).__name__} ({error}); remove "
            "spectral or weight normalisation of the old style first"
        ) from error
    for part in made.modules():
        if vars(part).get("inplace") is True:
            vars(part)["inplace"] = False
    return made.eval().requires_grad_(False)


def as_channels(images: Tensor, channels: int | None, *, grey_as_rgb: bool, owner: str) -> Tensor:
    """Images (N, C, H, W) with the number of channels that a network takes: grey ones are repeated if that is asked for.

    Raises:
        GenclsError: images have another shape or another number of channels.
    """
    if images.ndim != 4 or not images.is_floating_point():
        got = f"{images.dtype} of shape {tuple(images.shape)}"
        raise GenclsError(f"{owner}: expected floating-point images of shape (N, C, H, W), got {got}")
    if channels is None or images.shape[1] == channels:
        return images
    if images.shape[1] == 1 and channels == 3:
        if grey_as_rgb:
            return images.expand(-1, 3, -1, -1)
        raise GenclsError(
            f"{owner}: expected images with 3 channels, which the network takes, got 1 channel; set grey_as_rgb=True to "
            "show it grey images as three equal channels"
        )
    raise GenclsError(
        f"{owner}: expected images with {counted(channels, 'channel')}, which the network takes, got "
        f"{counted(images.shape[1], 'channel')}"
    )


class _Run:
    """One run of a network; it ends as soon as all layers have been seen."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        self.network, self.layers = network, layers
        self._found: dict[str, tuple[Any, int]] = {}

    def maps(self, images: Tensor) -> dict[str, Any]:
        with _HOOKS:
            hooks = [self.network.get_submodule(name).register_forward_hook(self._keeper(name)) for name in self.layers]
        before = _RUNNING.set(self)
        try:
            self.network(images)
        except _AllSeenError:
            pass
        finally:
            _RUNNING.reset(before)
            with _HOOKS:
                for hook in hooks:
                    hook.remove()
        missing = [name for name in self.layers if name not in self._found]
        if missing:
            raise GenclsError(
                f"{_OWNER}: expected layers that run when the network sees images, got {', '.join(missing)}, which does not run"
            )
        for name, (part, version) in self._found.items():
            if _version(part) != version:
                raise GenclsError(
                    f"{_OWNER}: expected a layer whose map stays as it is, got {name}, whose map the network overwrites in "
                    "place; name the part that writes into it instead"
                )
        return {name: self._found[name][0] for name in self.layers}

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if _RUNNING.get() is not self or name in self._found:
                return
            if isinstance(output, Tensor) and output.is_inference():  # has no version: what is written later would not show
                output = output.clone()
            self._found[name] = output, _version(output)
            if len(self._found) == len(self.layers):
                raise _AllSeenError

        return keep


class _AllSeenError(Exception):
    """All layers of a run have been seen: nothing is wrong, and the run ends."""


def _version(part: Any) -> int:
    return part._version if isinstance(part, Tensor) and not part.is_inference() else 0


def _check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    known = [name for name, _ in network.named_modules() if name]
    kind = type(network).__name__
    if not layers:
        raise GenclsError(f"{_OWNER}: expected at least one layer of {kind}, got none")
    for name in layers:
        if name not in known:
            shown = ", ".join(known) if len(known) <= 30 else ", ".join(known[:30]) + ", ..."
            raise GenclsError(
                f"{_OWNER}: {kind} has no layer {name!r}; {did_you_mean(name, known)}expected names among {shown}"
            )
    twice = sorted({name for name in layers if list(layers).count(name) > 1})
    if twice:
        raise GenclsError(f"{_OWNER}: expected each layer once, got {', '.join(twice)} more than once")


def check_dtype(network: nn.Module, images: Tensor, *, owner: str) -> None:
    """Refuse images of another dtype than the network, unless autocast takes care of it.

    Raises:
        GenclsError: the dtypes differ.
    """
    held = next((one.dtype for one in network.parameters() if one.is_floating_point()), images.dtype)
    if held != images.dtype and not torch.is_autocast_enabled(images.device.type):
        raise GenclsError(
            f"{owner}: expected images of the network's dtype, {held}, got {images.dtype}; convert the images, or the "
            f"distance with .to({images.dtype})"
        )


def _first_channels(network: nn.Module) -> int | None:
    return next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d)), None)


def _returned(found: Any) -> dict[str, Any]:
    if isinstance(found, Tensor):
        return {"0": found}
    if isinstance(found, Mapping) and found:
        return {str(name): part for name, part in found.items()}
    if isinstance(found, Sequence) and not isinstance(found, str) and found:
        return {str(index): part for index, part in enumerate(found)}
    raise GenclsError(f"{_OWNER}: expected a network that returns its maps, got {reprlib.repr(found)}; or give layers")


def _as_map(name: str, part: Any, count: int) -> Tensor:
    if isinstance(part, Tensor) and part.ndim in (2, 4) and len(part) == count and part.is_floating_point():
        return part if part.ndim == 4 else part[:, :, None, None]
    got = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
    raise GenclsError(f"{_OWNER}: expected a map (N, c, h, w) or (N, c) for {count} images from layer {name}, got {got}")
