"""The decoders of the public ABS code."""

from collections.abc import Mapping

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.grouped_decoders import DecoderStage, GroupedDecoders

__all__ = ["official_abs_decoders"]

_STRIDES = (1, 2, 2, 1)


def official_abs_decoders(state: Mapping[str, Tensor]) -> GroupedDecoders:
    """Build the decoders of a checkpoint of bethgelab/AnalysisBySynthesis (Schott et al. 2019, arXiv:1805.09190).

    Each decoder has four transposed convolutions of strides 1, 2, 2, 1 without padding; batch norm and ELU follow the
    first three, a sigmoid the last.

    Args:
        state: the K networks of the repository in one mapping, with keys ``VAE_k.Decoder.conv_i.*`` and
            ``VAE_k.Decoder.bn_i.*``, k in 0 .. K - 1. Other keys are left out: inference uses no encoder.

    Raises:
        GenclsError: if there is no such key, or one is missing or of an unexpected shape.
    """
    count = len({key.split(".")[0] for key in state if key.startswith("VAE_") and ".Decoder." in key})
    if count == 0:
        found = ", ".join(list(state)[:3]) or "nothing"
        raise GenclsError(f"official ABS checkpoint: expected keys VAE_0.Decoder.conv_0.weight, ...; got {found}, ...")
    return GroupedDecoders([_decoder(state, f"VAE_{k}.Decoder.") for k in range(count)])


def _decoder(state: Mapping[str, Tensor], prefix: str) -> list[DecoderStage]:
    last = len(_STRIDES) - 1
    stages = []
    for index, stride in enumerate(_STRIDES):
        weight = _part(state, f"{prefix}conv_{index}.").get("weight")
        if weight is None or weight.ndim != 4:
            shape = "nothing" if weight is None else f"shape {tuple(weight.shape)}"
            raise GenclsError(f"official ABS checkpoint: expected {prefix}conv_{index}.weight of rank 4, got {shape}")
        depth, channels, height, width = weight.shape
        conv = nn.ConvTranspose2d(depth, channels, (height, width), stride)
        norm = nn.BatchNorm2d(channels) if index < last else None
        _fill(conv, state, f"{prefix}conv_{index}.")
        if norm is not None:
            _fill(norm, state, f"{prefix}bn_{index}.")
        stages.append(DecoderStage(conv, norm, "sigmoid" if norm is None else "elu"))
    return stages


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _fill(module: nn.Module, state: Mapping[str, Tensor], prefix: str) -> None:
    try:
        module.load_state_dict(_part(state, prefix))
    except RuntimeError as error:
        raise GenclsError(f"official ABS checkpoint: expected other tensors under {prefix}: {error}") from None
