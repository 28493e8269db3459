"""NVAE in the layout of NVAE-from-scratch, the generator of the MLVGM paper's identities."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.nvae.cells import Add, Concatenate, ConstantFlow, DecoderCell, EncoderCell, WeightNormConv2d
from gencls.zoo.networks.nvae.hierarchical_vae import DiagonalGaussian, HierarchicalVAE
from gencls.zoo.networks.nvae.logistic_mixture import LogisticMixture, mixture_channels


def adaptive_groups(scales: int, groups: int, *, least: int = 1) -> tuple[int, ...]:
    """Groups per scale, coarse to fine: scale i from the finest has max(least, groups // 2^i)."""
    return tuple(max(least, groups // 2**i) for i in reversed(range(scales)))


class NVAE(HierarchicalVAE):
    """A deep hierarchical VAE with residual cells.

    Scale 0 has the smallest maps; each further scale doubles height and width and halves the channels. A scale has groups, each
    with one level of codes. Levels are ordered by (scale, group). The posterior is relative to the prior (section 3.2). Keys of
    the state dict are those of GitHub SerezD/NVAE-from-scratch.

    Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898) as in that repository. Its deviations from the paper are kept: the
    first group of a scale of the encoder, in its order of execution, belongs to the first of the decoder (the paper pairs the
    last with the first); the scale of a Gaussian has no lower bound of 0.01; flows are constant shifts.

    Args:
        image_shape: (C, H, W); H and W are multiples of 2^(blocks + number of scales - 1).
        groups: groups per scale, coarse to fine, see :func:`adaptive_groups`. The defaults are those of the MLVGM paper.
        cells: residual cells per group.
        latent_channels: channels of each code.
        channels: channels of the maps at the size of the images.
        blocks: halvings of height and width before the first and after the last scale.
        block_cells: cells of such a block, including the one that halves.
        mixtures: M, logistics per pixel.
        flows: normalizing flows per level.
        temperature: factor of the standard deviation in draws from the prior; the MLVGM paper's code has 0.6.
        upper_edge: least pixel of the highest bin, see :class:`LogisticMixture`; the published code has 0.99.

    Raises:
        GenclsError: for a number below its least value, or images that cannot be halved so often.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        groups: Sequence[int] = (8, 8, 8),
        cells: int = 2,
        latent_channels: int = 16,
        channels: int = 128,
        blocks: int = 1,
        block_cells: int = 2,
        mixtures: int = 10,
        flows: int = 0,
        temperature: float = 1.0,
        upper_edge: float = 0.999,
    ) -> None:
        colours, *size = image_shape
        scales = len(groups)
        shrink = 2 ** (blocks + scales - 1)
        counts = (*groups, scales, cells, latent_channels, channels, block_cells, mixtures, colours, *size)
        if min(counts) < 1 or min(blocks, flows) < 0 or any(side % shrink for side in size):
            raise GenclsError(
                f"NVAE: expected numbers >= 1 (blocks, flows: >= 0) and H, W that are multiples of {shrink} for {blocks} "
                f"blocks and {scales} scales, got image_shape {tuple(image_shape)}, groups {tuple(groups)}, cells {cells}, "
                f"latent_channels {latent_channels}, channels {channels}, blocks {blocks}, block_cells {block_cells}, "
                f"mixtures {mixtures}, flows {flows}"
            )
        levels = [(scale, group) for scale, count in enumerate(groups) for group in range(count)]
        sides = [[side // shrink * 2**scale for side in size] for scale in range(scales)]
        shapes = [(latent_channels, sides[scale][0], sides[scale][1]) for scale, _ in levels]
        super().__init__((colours, size[0], size[1]), shapes, temperature=temperature)
        self.levels, self.groups, self.upper_edge = levels, tuple(groups), upper_edge
        width = [channels * shrink // 2**scale for scale in range(scales)]
        names = [f"{scale}:{group}" for scale, group in levels]
        widths = [width[scale] for scale, _ in levels]
        deltas = 2 * latent_channels

        self.const_prior = nn.Parameter(torch.rand(1, width[0], *sides[0]))
        self.preprocessing_block = nn.Sequential(
            OrderedDict[str, nn.Module](
                init_conv=WeightNormConv2d(colours, channels, 3),
                **{f"block_{b}": _down_block(channels * 2**b, block_cells) for b in range(blocks)},
            )
        )
        self.encoder_tower = _named(
            (f"scale_{scale}", _encoder_scale(width[scale], groups[scale], cells, down=scale > 0)) for scale in range(scales)
        )
        self.encoder_0 = nn.Sequential(nn.ELU(), WeightNormConv2d(width[0], width[0], 1), nn.ELU())
        self.encoder_combiners = _named(
            (f"combiner_{n}", Add(WeightNormConv2d(w, w, 1))) for n, w in zip(names[1:], widths[1:], strict=True)
        )
        self.enc_sampler = _named((f"sampler_{n}", WeightNormConv2d(w, deltas, 3)) for n, w in zip(names, widths, strict=True))
        self.dec_sampler = _named(
            (f"sampler_{n}", nn.Sequential(nn.ELU(), WeightNormConv2d(w, deltas, 1)))
            for n, w in zip(names[1:], widths[1:], strict=True)
        )
        if flows:
            self.nf_cells = _named((f"nf_{n}", _flows(latent_channels, flows)) for n in names)
        self.decoder_tower = _named(
            (f"scale_{s}", _decoder_scale(width[s], range(1 if s == 0 else 0, groups[s]), cells, up=s < scales - 1))
            for s in range(scales)
        )
        self.decoder_combiners = _named(
            (f"combiner_{n}", Concatenate(WeightNormConv2d(w + latent_channels, w, 1)))
            for n, w in zip(names, widths, strict=True)
        )
        self.postprocessing_block = nn.Sequential(
            OrderedDict((f"block_{b}", _up_block(channels * 2 ** (blocks - b), block_cells)) for b in range(blocks))
        )
        self.to_logits = nn.Sequential(nn.ELU(), WeightNormConv2d(channels, mixture_channels(mixtures, colours), 3))

    def features(self, images: Tensor) -> list[Tensor]:
        state = self.preprocessing_block(2 * images - 1)
        found: dict[tuple[int, int], Tensor] = {}
        for scale in reversed(range(len(self.groups))):
            for group in range(self.groups[scale]):
                state = self.get_submodule(f"encoder_tower.scale_{scale}.group_{group}")(state)
                found[scale, group] = state
            if scale > 0:
                state = self.get_submodule(f"encoder_tower.scale_{scale}.downsampling")(state)
        found[0, 0] = self.encoder_0(state)
        return [found[level] for level in self.levels]

    def start(self, count: int) -> Tensor:
        return self.const_prior.expand(count, -1, -1, -1)

    def descend(self, level: int, state: Tensor) -> Tensor:
        scale, group = self.levels[level]
        if level > 0 and group == 0:
            state = self.get_submodule(f"decoder_tower.scale_{scale - 1}.upsampling")(state)
        return state if level == 0 else self.get_submodule(f"decoder_tower.scale_{scale}.group_{group}")(state)

    def prior(self, level: int, state: Tensor) -> DiagonalGaussian:
        """p(z_i | z_<i); p(z_0) is standard normal."""
        if level == 0:
            zeros = state.new_zeros(len(state), *self.latent_shapes[0])
            return DiagonalGaussian(zeros, zeros)
        return DiagonalGaussian(*self._at("dec_sampler.sampler", level)(state).chunk(2, dim=1))

    def posterior(self, level: int, feature: Tensor, state: Tensor, prior: DiagonalGaussian) -> DiagonalGaussian:
        """q(z_i | x, z_<i), relative to the prior."""
        seen = feature if level == 0 else self._at("encoder_combiners.combiner", level)(feature, state)
        return prior.residual(*self._at("enc_sampler.sampler", level)(seen).chunk(2, dim=1))

    def flow(self, level: int, codes: Tensor) -> Tensor:
        """Constant shifts, or nothing."""
        return self._at("nf_cells.nf", level)(codes) if hasattr(self, "nf_cells") else codes

    def combine(self, level: int, state: Tensor, codes: Tensor) -> Tensor:
        out: Tensor = self._at("decoder_combiners.combiner", level)(state, codes)
        return out

    def output(self, state: Tensor) -> LogisticMixture:
        channels = self.to_logits(self.postprocessing_block(state))
        return LogisticMixture.from_channels(channels, colours=self.image_shape[0], upper_edge=self.upper_edge)

    def _at(self, name: str, level: int) -> nn.Module:
        scale, group = self.levels[level]
        return self.get_submodule(f"{name}_{scale}:{group}")


def _named(modules: Iterable[tuple[str, nn.Module]]) -> nn.ModuleDict:
    return nn.ModuleDict(dict(modules))


def _cells(cells: Iterable[nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"cell_{i}", cell) for i, cell in enumerate(cells)))


def _down_block(channels: int, cells: int) -> nn.Sequential:
    return _cells(EncoderCell(channels, down=c == cells - 1) for c in range(cells))


def _up_block(channels: int, cells: int) -> nn.Sequential:
    return _cells(DecoderCell(channels // (1 if c == 0 else 2), expansion=3, up=c == 0) for c in range(cells))


def _encoder_scale(channels: int, groups: int, cells: int, *, down: bool) -> nn.ModuleDict:
    towers = _named((f"group_{g}", _cells(EncoderCell(channels) for _ in range(cells))) for g in range(groups))
    if down:
        towers["downsampling"] = EncoderCell(channels, down=True)
    return towers


def _decoder_scale(channels: int, groups: range, cells: int, *, up: bool) -> nn.ModuleDict:
    towers = _named((f"group_{g}", _cells(DecoderCell(channels, expansion=6) for _ in range(cells))) for g in groups)
    if up:
        towers["upsampling"] = DecoderCell(channels, expansion=6, up=True)
    return towers


def _flows(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.Sequential(OrderedDict(cell1=ConstantFlow(channels, flipped=False), cell2=ConstantFlow(channels, flipped=True)))
            for _ in range(count)
        )
    )
