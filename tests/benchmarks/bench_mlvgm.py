"""What an EoT gradient through a purifier costs when an image is encoded once, and when each draw is encoded anew.

    python tests/benchmarks/bench_mlvgm.py [ROUNDS]

Convolutional encoder and style-like decoder of equal depth at 64 x 64 pixels, EoT with 32 draws, forward and backward.
Process CPU time, interleaved; the medians are the figures to quote, the ratio is formed within each round.
"""

import sys
import time
from statistics import median

import torch
from torch import Tensor, nn

from gencls.core import EoT, Latents, Mix, MultiLatentModel, TransformedClassifier, keyed
from gencls.defenses import FixedLengthNoise, MLVGMPurification

DRAWS = 32


class Pyramid(MultiLatentModel):
    """Codes from every scale of an encoder; each is added to the decoder's features at its scale."""

    num_levels = 4

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3 if i == 0 else width, width, 4, 2, 1) for i in range(self.num_levels)])
        self.same = nn.ModuleList([nn.Conv2d(width, width, 3, 1, 1) for _ in range(self.num_levels)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(width, width, 4, 2, 1) for _ in range(self.num_levels)])
        self.image = nn.Conv2d(width, 3, 3, 1, 1)

    def encode_once(self, images: Tensor) -> Latents:
        codes, features = [], images
        for down, same in zip(self.down, self.same, strict=True):
            features = nn.functional.silu(down(features))
            codes.append(same(features))
        return tuple(reversed(codes))

    def decode_mixed(self, encoded: Latents, mix: Mix) -> Tensor:
        features = torch.zeros_like(encoded[0])
        for level, (code, up) in enumerate(zip(encoded, self.up, strict=True)):
            features = nn.functional.silu(up(features + mix(level, code, torch.randn_like(code))))
        return self.image(features).sigmoid()


class EncodesEveryDraw(MultiLatentModel):
    """The same network, nothing of which is shared by the draws of an image."""

    def __init__(self, model: MultiLatentModel) -> None:
        super().__init__()
        self.model = model
        self.num_levels = model.num_levels

    def encode_once(self, images: Tensor) -> Latents:
        return (images,)

    def decode_mixed(self, encoded: Latents, mix: Mix) -> Tensor:
        return self.model.autoencode(*encoded, mix)


def classifier() -> nn.Module:
    layers = [nn.Conv2d(3, 32, 4, 4), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def gradient(eot: EoT, images: Tensor) -> tuple[float, Tensor]:
    """CPU seconds and the gradient of a score."""
    images = images.clone().requires_grad_()
    began = time.process_time()
    with keyed(range(len(images))):
        (found,) = torch.autograd.grad(eot(images)[:, 0].sum(), images)
    return time.process_time() - began, found


def main(rounds: int) -> None:
    """Interleave the variants."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, network = Pyramid().eval().requires_grad_(False), classifier().eval().requires_grad_(False)
    for noise in (None, FixedLengthNoise(2.0)):
        variants = {
            name: EoT(TransformedClassifier(MLVGMPurification(part, "linear", highest=0.7, noise=noise), network, 10), DRAWS)
            for name, part in (("every draw", EncodesEveryDraw(model)), ("once", model))
        }
        for count in (1, 4):
            images = torch.rand(count, 3, 64, 64)
            found = {name: gradient(eot, images)[1] for name, eot in variants.items()}  # warm-up
            difference = float((found["once"] - found["every draw"]).abs().max() / found["every draw"].abs().max())
            seconds: dict[str, list[float]] = {name: [] for name in variants}
            for _ in range(rounds):
                for name, eot in variants.items():
                    seconds[name].append(gradient(eot, images)[0])
            ratio = median(once / every for once, every in zip(seconds["once"], seconds["every draw"], strict=True))
            times = ", ".join(f"{name} {1000 * median(taken) / count / DRAWS:.2f}" for name, taken in seconds.items())
            kind = "no noise" if noise is None else "noise before the encoder"
            print(f"{count} images, {kind}: ms per draw: {times}; ratio {ratio:.2f}; relative difference {difference:.0e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
