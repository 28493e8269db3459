"""ABS inference: the grouped decoders against a loop over the classes, and the price of the gradient modes.

    python tests/benchmarks/bench_abs.py [ROUNDS]

Process CPU time per image on one thread, interleaved; medians.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from gencls.core import ClassConditionalGenerator, Latents
from gencls.defenses import ABS
from gencls.zoo.networks import ClassDecoders, GroupedDecoders

STEPS = 5


class LoopedDecoders(ClassConditionalGenerator):
    """The K decoders one by one, as trained: batch norm not folded."""

    def __init__(self, decoders: ClassDecoders, latent_dim: int) -> None:
        super().__init__()
        self.decoders, self.num_classes, self.latent_shapes = decoders.eval(), decoders.num_classes, (torch.Size([latent_dim]),)

    def decode_all(self, latents: Latents) -> Tensor:
        return torch.stack([self.decoders[k](latents[0][:, k]) for k in range(self.num_classes)], dim=1)

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        return torch.cat([self.decoders[int(k)](z.unsqueeze(0)) for z, k in zip(latents[0], labels, strict=True)])


def milliseconds(call: Callable[[], object], count: int) -> float:
    """CPU milliseconds per image."""
    began = time.process_time()
    call()
    return (time.process_time() - began) / count * 1e3


def main(rounds: int) -> None:
    """Interleave the variants for each batch size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoders = ClassDecoders.from_architecture("mnist").eval()
    grouped = ABS(GroupedDecoders.from_decoders(decoders), starts=64, steps=STEPS)
    looped = ABS(LoopedDecoders(decoders, 10), starts=64, steps=STEPS)
    for count in (1, 8, 32):
        images = torch.rand(count, 1, 28, 28)
        asked = images.clone().requires_grad_()
        variants: dict[str, Callable[[], object]] = {
            "loop over classes": lambda images=images: looped(images),
            "grouped": lambda images=images: grouped(images),
            "grouped, frozen gradient": lambda asked=asked: torch.autograd.grad(
                grouped.surrogate("frozen")(asked).sum(), asked
            ),
            "grouped, unrolled gradient": lambda asked=asked: torch.autograd.grad(
                grouped.surrogate("unrolled")(asked).sum(), asked
            ),
        }
        for call in variants.values():
            call()  # warm-up; decodes the bank of starts
        times = [{name: milliseconds(call, count) for name, call in variants.items()} for _ in range(rounds)]
        for name in variants:
            ratio = median(row[name] / row["loop over classes"] for row in times)
            print(f"batch {count:2}  {name:28} {median(row[name] for row in times):7.1f} ms/image  {ratio:.2f} of the loop")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
