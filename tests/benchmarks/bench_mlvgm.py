"""What an EoT gradient through a purifier costs when an image is encoded once, when each draw is, and what its passes cost.

    python tests/benchmarks/bench_mlvgm.py [ROUNDS]
    python tests/benchmarks/bench_mlvgm.py order [ROUNDS]    the NVAE for FashionMNIST with weights in either order in memory
    python tests/benchmarks/bench_mlvgm.py gpu [ROUNDS]      it on a GPU: batches of images beside one image at a time

Convolutional encoder and style-like decoder of equal depth at 64 x 64 pixels, and a small NVAE of six levels at 32 x 32; EoT
with 32 draws, forward and backward, keyed streams. Beside them the bare passes of "once", without streams. Process CPU time,
interleaved; the medians are the figures to quote, ratios are formed within each round. On the GPU it is wall time.
"""

import sys
import time
from contextlib import nullcontext
from statistics import median

import torch
from torch import Tensor, nn

from gencls import zoo
from gencls.core import EoT, Latents, Mix, MultiLatentModel, TransformedClassifier, keyed
from gencls.defenses import FixedLengthNoise, MLVGMPurification
from gencls.zoo.networks import NVAE

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


def bare_passes(model: MultiLatentModel, network: nn.Module, images: Tensor, *, once: bool) -> float:
    """CPU seconds of the passes that a gradient contains, each by itself; the encoder's once per image or once per draw."""
    purified = images.repeat_interleave(DRAWS, dim=0).requires_grad_()
    rows = [part.detach().requires_grad_() for part in model.encode_once(purified)]
    images = images.clone().requires_grad_() if once else purified
    began = time.process_time()
    encoded = model.encode_once(images)
    torch.autograd.grad(encoded, images, [torch.ones_like(part) for part in encoded])
    decoded = model.decode_mixed(tuple(rows), lambda level, code, sampled: code)
    torch.autograd.grad(decoded, rows, torch.ones_like(decoded))
    scores = network(purified)
    torch.autograd.grad(scores, purified, torch.ones_like(scores))
    return time.process_time() - began


def main(rounds: int) -> None:
    """Interleave the variants."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = classifier().eval().requires_grad_(False)
    nvae = NVAE((3, 32, 32), groups=(2, 4), cells=1, latent_channels=8, channels=16, mixtures=5)
    for title, model, size in (("convolutions", Pyramid(), 64), ("NVAE", nvae, 32)):
        model = model.eval().requires_grad_(False)
        for noise in (None, FixedLengthNoise(2.0)):
            variants = {
                name: EoT(
                    TransformedClassifier(MLVGMPurification(part, "linear", highest=0.7, noise=noise), network, 10), DRAWS
                )
                for name, part in (("every draw", EncodesEveryDraw(model)), ("once", model))
            }
            for count in (1, 4):
                images = torch.rand(count, 3, size, size)
                found = {name: gradient(eot, images)[1] for name, eot in variants.items()}  # warm-up
                bare_passes(model, network, images, once=noise is None)
                difference = float((found["once"] - found["every draw"]).abs().max() / found["every draw"].abs().max())
                seconds: dict[str, list[float]] = {name: [] for name in (*variants, "bare passes")}
                for _ in range(rounds):
                    for name, eot in variants.items():
                        seconds[name].append(gradient(eot, images)[0])
                    seconds["bare passes"].append(bare_passes(model, network, images, once=noise is None))
                times = ", ".join(f"{name} {1000 * median(taken) / count / DRAWS:.2f}" for name, taken in seconds.items())
                kind = "no noise" if noise is None else "noise before the encoder"
                print(
                    f"{title}, {count} images, {kind}: ms per draw: {times}; once / every draw "
                    f"{ratio(seconds['once'], seconds['every draw']):.2f}, once / bare "
                    f"{ratio(seconds['once'], seconds['bare passes']):.2f}; relative difference {difference:.0e}",
                    flush=True,
                )


def order(rounds: int) -> None:
    """Weights with channels first, as loaded, and last."""
    torch.set_num_threads(1)
    network = zoo.load("cnn-fashion")
    variants = {}
    for name in ("channels first", "channels last"):
        model = zoo.load_generator("nvae-fashion")
        if name == "channels last":
            model = model.to(memory_format=torch.channels_last)
        variants[name] = EoT(TransformedClassifier(MLVGMPurification(model, "linear", highest=0.7), network, 10), DRAWS)
    for count in (1, 4):
        images = torch.rand(count, 1, 28, 28)
        first, last = (gradient(eot, images)[1] for eot in variants.values())  # warm-up
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, eot in variants.items():
                seconds[name].append(gradient(eot, images)[0])
        times = ", ".join(f"{name} {1000 * median(taken) / count / DRAWS:.2f}" for name, taken in seconds.items())
        print(
            f"{count} images: ms per draw: {times}; last / first {ratio(*reversed(seconds.values())):.2f}; relative "
            f"difference {float((first - last).abs().max() / first.abs().max()):.0e}",
            flush=True,
        )


def gpu(rounds: int) -> None:
    """Images per second in batches, with keyed streams as in an evaluation and without."""
    network = zoo.load("cnn-plain-fashion").cuda()
    model = zoo.load_generator("nvae-fashion").cuda()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")

    def seconds(eot: EoT, images: Tensor, streams: bool) -> float:
        images = images.clone().requires_grad_()
        torch.cuda.synchronize()
        began = time.perf_counter()
        with keyed(range(len(images))) if streams else nullcontext():
            torch.autograd.grad(eot(images)[:, 0].sum(), images)
        torch.cuda.synchronize()
        return time.perf_counter() - began

    for noise in (None, FixedLengthNoise(1.0)):
        eot = EoT(TransformedClassifier(MLVGMPurification(model, "linear", noise=noise), network, 10), DRAWS)
        cases = [(count, streams) for streams in (True, False) for count in (1, 4, 16, 64)]
        taken: dict[tuple[int, bool], list[float]] = {case: [] for case in cases}
        for _ in range(rounds + 1):
            for count, streams in cases:
                taken[count, streams].append(seconds(eot, torch.rand(count, 1, 28, 28, device="cuda"), streams))
        title = "no noise" if noise is None else "noise before the encoder"
        for streams in (True, False):
            one = taken[1, streams][1:]  # the first round warms up
            for count in (1, 4, 16, 64):
                every = taken[count, streams][1:]
                print(
                    f"{title}, {'keyed' if streams else 'global'} streams, "
                    f"{count} images: {1000 * median(every):.0f} ms, {1000 * median(every) / count:.1f} ms per image, "
                    f"{count / ratio(every, one):.1f} times one at a time",
                    flush=True,
                )


def ratio(first: list[float], second: list[float]) -> float:
    return median(one / other for one, other in zip(first, second, strict=True))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    chosen = {"order": order, "gpu": gpu}.get(arguments[0] if arguments else "", main)
    numbers = arguments if chosen is main else arguments[1:]
    chosen(int(numbers[0]) if numbers else 7)
