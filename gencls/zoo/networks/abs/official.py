"""The decoders of the public ABS code."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.weights import check_state
from gencls.zoo.checkpoints.tensors import fitted
from gencls.zoo.networks.abs.grouped_decoders import DecoderStage, GroupedDecoders

_CHECKPOINT = "official ABS checkpoint"
_STRIDES = (1, 2, 2, 1)
_KEY = re.compile(
    r"VAE_(?P<number>\d+)\.(?P<part>Encoder|Decoder)\."
    r"(conv_[0-3]\.(weight|bias)|bn_[0-2]\.(weight|bias|running_mean|running_var|num_batches_tracked))"
)


def official_abs_decoders(state: Mapping[str, Tensor]) -> GroupedDecoders:
    """Build the decoders of a checkpoint of bethgelab/AnalysisBySynthesis (Schott et al. 2019, arXiv:1805.09190).

    Each decoder has four transposed convolutions of strides 1, 2, 2, 1 without padding; batch norm and ELU follow the
    first three, a sigmoid the last. Widths, kernels, and the length of the latent are those of the weights.

    Args:
        state: the K networks of the repository in one mapping, with keys ``VAE_k.Decoder.conv_i.*`` and
            ``VAE_k.Decoder.bn_i.*``, k in 0 .. K - 1. ``num_batches_tracked`` may be missing, as in the published files. The
            mapping may hold encoders; inference does not use them, see :func:`unused_official_abs_keys`.

    Raises:
        GenclsError: if no key is of this kind, or one is missing, unknown or of an unexpected shape; for integers as weights or
            a tensor that no network has, see :func:`~gencls.core.weights.check_state`.
    """
    unused_official_abs_keys(state)
    check_state(_CHECKPOINT, state)
    count = len({key.split(".")[0] for key in state})
    return GroupedDecoders([_decoder(state, f"VAE_{k}.Decoder.") for k in range(count)])


def unused_official_abs_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """The keys of such a checkpoint that inference does not use: the keys of the encoders, which served training.

    Raises:
        GenclsError: if there is no key of a decoder, or one that the layout does not have.
    """
    matches = {key: _KEY.fullmatch(key) for key in keys}
    unknown = [key for key, match in matches.items() if match is None]
    parts = {key: match["part"] for key, match in matches.items() if match is not None}
    if "Decoder" not in parts.values() or unknown:
        found = ", ".join((unknown or list(parts))[:3]) or "nothing"
        raise GenclsError(f"{_CHECKPOINT}: expected keys VAE_0.Decoder.conv_0.weight, ...; got {found}, ...")
    return tuple(key for key, part in parts.items() if part == "Encoder")


def _decoder(state: Mapping[str, Tensor], prefix: str) -> list[DecoderStage]:
    last = len(_STRIDES) - 1
    stages: list[DecoderStage] = []
    for index, stride in enumerate(_STRIDES):
        name = f"{prefix}conv_{index}.weight"
        weight = state.get(name)
        if weight is None or weight.ndim != 4:
            shape = "nothing" if weight is None else f"shape {tuple(weight.shape)}"
            raise GenclsError(f"{_CHECKPOINT}: expected {name} of rank 4, got {shape}")
        depth, channels, height, width = weight.shape
        if stages and depth != stages[-1].conv.out_channels:
            before = stages[-1].conv.out_channels
            raise GenclsError(f"{_CHECKPOINT}: expected {name} with {before} input channels, got {depth}")
        conv = nn.ConvTranspose2d(depth, channels, (height, width), stride)
        norm = nn.BatchNorm2d(channels) if index < last else None
        _fill(conv, state, f"{prefix}conv_{index}.")
        if norm is not None:
            _fill(norm, state, f"{prefix}bn_{index}.")
        stages.append(DecoderStage(conv, norm, "sigmoid" if norm is None else "elu"))
    return stages


def _fill(module: nn.Module, state: Mapping[str, Tensor], prefix: str) -> None:
    given = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    layout = {key: value for key, value in module.state_dict().items() if key in given or key != "num_batches_tracked"}
    fitting = fitted(given, layout, lambda expected: GenclsError(f"{_CHECKPOINT}: expected {prefix}{expected}"))
    module.load_state_dict(fitting, strict=False)
