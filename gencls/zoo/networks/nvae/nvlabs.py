"""NVAE in the layout of its authors' code."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.nvae.cells import Add, Concatenate
from gencls.zoo.networks.nvae.hierarchical_vae import DiagonalGaussian, HierarchicalVAE
from gencls.zoo.networks.nvae.logistic_mixture import LogisticMixture, mixture_channels
from gencls.zoo.networks.nvae.nvlabs_cells import AutoregressiveFlow, NormedConv2d, ResidualCell

_LEAST_SCALE = 0.01


class NVlabsNVAE(HierarchicalVAE):
    """A deep hierarchical VAE with residual cells; scales, groups and levels are those of :class:`NVAE`.

    It differs from :class:`NVAE` in four points. It pairs the encoder's last group with the decoder's first. Its flows are
    autoregressive. Its Gaussians have 0.01 added to the scale; p(z_0) has scale 1.01. It halves maps in another way.
    Keys of the state dict are those of GitHub NVlabs/NVAE with the cells "res_mbconv".

    Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898) and that repository. Not built: other cells, a single level without
    towers, decoders of Bernoulli or Gaussian pixels.

    Args:
        image_shape: (C, H, W), see :class:`NVAE`, which also describes the arguments that are not named here.
        groups: groups per scale, coarse to fine; at least two in all. The defaults are those of CelebA 64.
        cells: residual cells per group, in the encoder and in the decoder.
        channels: channels of the maps at the size of the images, in the encoder and in the decoder.
        block_cells: cells of a block in the encoder and in the decoder, including the one that halves or doubles.
        flows: pairs of normalizing flows per level.
        squeeze: whether cells end with squeeze and excitation.
        residual: whether the posterior is relative to the prior (section 3.2).

    Raises:
        GenclsError: for a number below its least value, or images that cannot be halved so often.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        groups: Sequence[int] = (5, 10, 20),
        cells: tuple[int, int] = (2, 2),
        latent_channels: int = 20,
        channels: tuple[int, int] = (64, 64),
        blocks: int = 1,
        block_cells: tuple[int, int] = (2, 2),
        mixtures: int = 10,
        flows: int = 1,
        squeeze: bool = True,
        residual: bool = True,
        temperature: float = 1.0,
        upper_edge: float = 0.999,
    ) -> None:
        colours, *size = image_shape
        scales = len(groups)
        shrink = 2 ** (blocks + scales - 1)
        counts = (*groups, *cells, latent_channels, *channels, *block_cells, mixtures, colours, *size)
        if min(counts) < 1 or sum(groups) < 2 or min(blocks, flows) < 0 or any(side % shrink for side in size):
            raise GenclsError(
                f"NVlabsNVAE: expected numbers >= 1 (blocks, flows: >= 0), two groups in all and H, W that are multiples of "
                f"{shrink} for {blocks} blocks and {scales} scales, got image_shape {tuple(image_shape)}, "
                f"groups {tuple(groups)}, cells {cells}, latent_channels {latent_channels}, channels {channels}, "
                f"blocks {blocks}, block_cells {block_cells}, mixtures {mixtures}, flows {flows}"
            )
        scale_of = [scale for scale, count in enumerate(groups) for _ in range(count)]
        sides = [[side // shrink * 2**scale for side in size] for scale in range(scales)]
        shapes = [(latent_channels, sides[scale][0], sides[scale][1]) for scale in scale_of]
        super().__init__((colours, size[0], size[1]), shapes, temperature=temperature)
        self.flows, self.residual, self.upper_edge = flows, residual, upper_edge
        encoder_width, decoder_width = ([base * shrink // 2**scale for scale in scale_of] for base in channels)
        deltas = 2 * latent_channels

        def encoder_cell(width: int, *, down: bool = False) -> ResidualCell:
            return ResidualCell(width, expansion=None, scale="down" if down else "same", squeeze=squeeze)

        def decoder_cell(width: int, *, expansion: int = 6, up: bool = False) -> ResidualCell:
            return ResidualCell(width, expansion=expansion, scale="up" if up else "same", squeeze=squeeze)

        self.prior_ftr0 = nn.Parameter(torch.rand(decoder_width[0], *sides[0]))
        self.stem = NormedConv2d(colours, channels[0], 3)
        last = block_cells[0] - 1
        self.pre_process = nn.Sequential(
            *(encoder_cell(channels[0] * 2**b, down=c == last) for b in range(blocks) for c in range(block_cells[0]))
        )
        self.enc_tower = nn.ModuleList()
        self._adder_at: dict[int, int] = {}  # level -> place in the tower
        for level in reversed(range(self.num_levels)):
            self.enc_tower.extend(encoder_cell(encoder_width[level]) for _ in range(cells[0]))
            if level > 0:
                self._adder_at[level] = len(self.enc_tower)
                self.enc_tower.append(Add(NormedConv2d(decoder_width[level], encoder_width[level], 1)))
                if scale_of[level - 1] != scale_of[level]:
                    self.enc_tower.append(encoder_cell(encoder_width[level], down=True))
        self.enc0 = nn.Sequential(nn.ELU(), NormedConv2d(encoder_width[0], encoder_width[0], 1), nn.ELU())
        self.enc_sampler = nn.ModuleList(NormedConv2d(width, deltas, 3) for width in encoder_width)
        self.dec_sampler = nn.ModuleList(nn.Sequential(nn.ELU(), NormedConv2d(w, deltas, 1)) for w in decoder_width[1:])
        self.nf_cells = nn.ModuleList(_flow_pair(latent_channels) for _ in range(self.num_levels * flows))
        self.dec_tower = nn.ModuleList()
        self._combiner_at: list[int] = []
        for level in range(self.num_levels):
            if level > 0:
                if scale_of[level - 1] != scale_of[level]:
                    self.dec_tower.append(decoder_cell(decoder_width[level - 1], up=True))
                self.dec_tower.extend(decoder_cell(decoder_width[level]) for _ in range(cells[1]))
            self._combiner_at.append(len(self.dec_tower))
            self.dec_tower.append(Concatenate(NormedConv2d(decoder_width[level] + latent_channels, decoder_width[level], 1)))
        self.post_process = nn.Sequential(
            *(
                decoder_cell(channels[1] * 2 ** (b if c == 0 else b - 1), expansion=3, up=c == 0)
                for b in range(blocks, 0, -1)
                for c in range(block_cells[1])
            )
        )
        self.image_conditional = nn.Sequential(nn.ELU(), NormedConv2d(channels[1], mixture_channels(mixtures, colours), 3))

    def features(self, images: Tensor) -> list[Tensor]:
        state = self.pre_process(self.stem(2 * images - 1))
        found: list[Tensor] = []
        for module in self.enc_tower:
            if isinstance(module, Add):
                found.append(state)
            else:
                state = module(state)
        return [self.enc0(state), *reversed(found)]

    def start(self, count: int) -> Tensor:
        return self.prior_ftr0.expand(count, -1, -1, -1)

    def descend(self, level: int, state: Tensor) -> Tensor:
        first = self._combiner_at[level - 1] + 1 if level > 0 else 0
        for module in self.dec_tower[first : self._combiner_at[level]]:
            state = module(state)
        return state

    def prior(self, level: int, state: Tensor) -> DiagonalGaussian:
        """p(z_i | z_<i); p(z_0) is N(0, 1.01^2)."""
        if level == 0:
            zeros = state.new_zeros(len(state), *self.latent_shapes[0])
            return DiagonalGaussian(zeros, zeros, floor=_LEAST_SCALE)
        return DiagonalGaussian(*self.dec_sampler[level - 1](state).chunk(2, dim=1), floor=_LEAST_SCALE)

    def posterior(self, level: int, feature: Tensor, state: Tensor, prior: DiagonalGaussian) -> DiagonalGaussian:
        """q(z_i | x, z_<i), relative to the prior or not."""
        seen = feature if level == 0 else self.enc_tower[self._adder_at[level]](feature, state)
        mu, log_sigma = self.enc_sampler[level](seen).chunk(2, dim=1)
        return prior.residual(mu, log_sigma) if self.residual else DiagonalGaussian(mu, log_sigma, floor=_LEAST_SCALE)

    def flow(self, level: int, codes: Tensor) -> Tensor:
        """Autoregressive flows in both directions, or nothing."""
        for pair in self.nf_cells[level * self.flows : (level + 1) * self.flows]:
            codes = pair(codes)
        return codes

    def combine(self, level: int, state: Tensor, codes: Tensor) -> Tensor:
        out: Tensor = self.dec_tower[self._combiner_at[level]](state, codes)
        return out

    def output(self, state: Tensor) -> LogisticMixture:
        channels = self.image_conditional(self.post_process(state))
        colours = self.image_shape[0]
        return LogisticMixture.from_channels(channels, colours=colours, order="colour", upper_edge=self.upper_edge)


def _flow_pair(channels: int) -> nn.Sequential:
    first, second = (AutoregressiveFlow(channels, mirrored=mirrored) for mirrored in (False, True))
    return nn.Sequential(OrderedDict(cell1=first, cell2=second))
