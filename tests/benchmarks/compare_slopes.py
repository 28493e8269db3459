"""How steep a classifier by inversion is over short and long distances, and what its gradients say of that.

    python tests/benchmarks/compare_slopes.py [--defense NAME] [--steps N] [--weight LAMBDA] [--images N]

For each image, the margin (the label's score minus the best other) changes along one random direction. The script prints the
derivative by each gradient mode, the cosine of its gradient with the unrolled one, and central differences over several L2
lengths, in float64. Exact gradients agree with the shortest ones. Where longer ones differ, the scores jump, and then no
gradient says what an attack of that length meets.
"""

import argparse

import torch
from torch import Tensor, nn

from gencls.core import seeded
from gencls.zoo import load, load_data

LENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-7)


def margin(module: nn.Module, image: Tensor, label: int) -> Tensor:
    """The score of the label minus the best other one, for an image (1, C, H, W)."""
    scores = module(image)[0]
    others = torch.arange(len(scores)) != label
    return scores[label] - scores[others].max()


def gradient(module: nn.Module, image: Tensor, label: int) -> Tensor:
    """The gradient of the margin, (1, C, H, W)."""
    asked = image.clone().requires_grad_()
    return torch.autograd.grad(margin(module, asked, label), asked)[0]


def main() -> None:
    """Read the command line, and print a line for each image."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--defense", default="enc-fashion", help="name of a defense by GAN inversion; it ends with its data")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--weight", type=float, default=10.0, help="lambda")
    parser.add_argument("--images", type=int, default=4)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(settings.data, "test", limit=settings.images)
    defense = load(settings.defense, steps=settings.steps, weight=settings.weight).double()
    for number, (image, label) in enumerate(zip(data.images.double().split(1), data.labels.tolist(), strict=True)):
        with seeded(number):
            direction = torch.randn_like(image)
        direction /= direction.norm()
        gradients = {mode: gradient(module, image, label) for mode, module in defense.surrogates().items()}
        for mode, found in gradients.items():
            alike = torch.cosine_similarity(found.flatten(), gradients["unrolled"].flatten(), dim=0)
            print(
                f"image {number}  {mode:10} {float((found * direction).sum()):12.4g}  cosine with unrolled {alike:.2f}",
                flush=True,
            )
        for length in LENGTHS:
            with torch.no_grad():
                rise = margin(defense, image + length * direction, label) - margin(defense, image - length * direction, label)
            print(f"image {number}  {length:<10g} {float(rise) / (2 * length):12.4g}", flush=True)


if __name__ == "__main__":
    main()
