"""ABS inference: exact and fast path against a loop over the classes, what the fast path decides, attacks with a warm start.

    python tests/benchmarks/bench_abs.py speed|starts|decisions|warm|modes [--digits N] [--threads T] ...

All variants run interleaved in one process on digits of mnist-embedded and the weights of a model; ratios are formed inside a
round, and medians over the rounds are printed. One thread: process CPU time; more: wall time.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from gencls.core import Defense, keyed
from gencls.eval import PGD, ThreatModel
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.zoo import load, load_data
from gencls.zoo.checkpoints.checkpoint import restore
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.networks import ClassConditionalAutoencoder, ClassDecoders


class PerClassLoop:
    """The official form of ABS: K decoders with their weights' gradients, torch's Adam, a Python loop, norms made anew.

    With discriminators it is E-ABS in the same form: mean and log standard deviation, one sample a step, random starts only.
    """

    def __init__(self, network: nn.Module, codes: Tensor, *, steps: int, lr: float = 0.05, radius: float = 5.0) -> None:
        """Decode the bank of starts."""
        whole = isinstance(network, ClassConditionalAutoencoder)
        self.decoders = (network.decoders if whole else network).eval().requires_grad_()
        self.discriminators = network.class_discriminators.requires_grad_() if whole and network.adversarial else None
        self.codes, self.steps, self.lr, self.radius = codes, steps, lr, radius
        with torch.no_grad():
            self.bank = [torch.cat([decoder(z).flatten(1) for z in codes.split(64)]) for decoder in self.decoders.decoders]
            shared = codes.unsqueeze(1).expand(-1, len(self.bank), -1)
            self.prior = torch.stack([self._penalty(shared, k) for k in range(len(self.bank))])

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) -> scores (N, K)."""
        flat, best = images.flatten(1), []
        for bank, prior in zip(self.bank, self.prior, strict=True):
            distances = flat.square().sum(1, keepdim=True) + bank.square().sum(1) - 2 * flat @ bank.T
            best.append(self.codes[(distances + prior).argmin(1)])
        means = torch.stack(best, dim=1).requires_grad_()
        log_stds = torch.zeros_like(means, requires_grad=self.discriminators is not None)
        adam = torch.optim.Adam([means, log_stds] if log_stds.requires_grad else [means], lr=self.lr)
        for _ in range(self.steps):
            adam.zero_grad()
            self._losses(images, means, log_stds).sum().backward()
            adam.step()
            if self.discriminators is None:
                with torch.no_grad():
                    means *= (self.radius / means.norm(dim=2, keepdim=True)).clamp(max=1)
        with torch.no_grad():
            return -self._losses(images, means, log_stds)

    def _losses(self, images: Tensor, means: Tensor, log_stds: Tensor) -> Tensor:
        latents = means if self.discriminators is None else means + log_stds.exp() * torch.randn_like(means)
        losses = []
        for k in range(self.decoders.num_classes):
            error = (self.decoders[k](latents[:, k]) - images).square().flatten(1).sum(1)
            losses.append(error + self._penalty(latents, k))
        return torch.stack(losses, dim=1)

    def _penalty(self, latents: Tensor, k: int) -> Tensor:
        if self.discriminators is None:
            return latents[:, k].square().sum(1) / 2
        parts = self.discriminators.discriminators
        return -nn.functional.logsigmoid(parts[k if len(parts) > 1 else 0](latents[:, k]))


class Bench:
    """Settings, models and images of one run."""

    def __init__(self, settings: argparse.Namespace) -> None:
        """Load the network."""
        torch.set_num_threads(settings.threads)
        self.settings = settings
        self.clock = time.process_time if settings.threads == 1 else time.perf_counter
        self.path = settings.weights or WEIGHTS / f"{settings.model}.safetensors"
        self.digits = load_data("mnist-embedded", "test", limit=settings.digits)
        print(f"{settings.model}, {len(self.digits.images)} digits, {settings.threads} thread(s)", flush=True)

    def defense(self, **overrides: object) -> Defense:
        """The model with its weights."""
        own = {"starts": self.settings.starts, "steps": self.settings.steps}
        return load(self.settings.model, weights=self.path, **(own | overrides))

    def network(self) -> nn.Module:
        """The networks as trained."""
        kinds = {kind.__name__: kind.from_architecture for kind in (ClassDecoders, ClassConditionalAutoencoder)}
        return restore(self.path, kinds)[0]

    def compare(self, variants: dict[str, Callable[[], object]], count: int, what: str) -> None:
        """Interleave and print milliseconds per image and the ratio to the first variant."""
        for call in variants.values():
            call()  # warm-up; decodes the bank of starts
        rounds = [{name: self._seconds(call) for name, call in variants.items()} for _ in range(self.settings.rounds)]
        first = next(iter(variants))
        for name in variants:
            times = median(row[name] for row in rounds) / count * 1e3
            ratio = median(row[first] / row[name] for row in rounds)
            print(f"{what}  {name:28} {times:8.1f} ms/image  {first} / this: {ratio:.2f}", flush=True)

    def _seconds(self, call: Callable[[], object]) -> float:
        began = self.clock()
        call()
        return self.clock() - began

    def speed(self) -> None:
        """Whole inferences, with the choice of the start, of all variants."""
        exact, fast = self.defense(), self.defense(fast=True)
        loop = PerClassLoop(self.network(), exact.start.codes, steps=self.settings.steps)
        variants: dict[str, Callable[[Tensor], object]] = {"loop": loop, "exact": exact, "fast": fast}
        for count in self.settings.batch:
            images = self.digits.images[:count]
            calls = {name: partial(call, images) for name, call in variants.items()}
            self.compare(calls, count, f"batch {count:3}")

    def starts(self) -> None:
        """The choice of the starts: in float32, and in bf16 with the best four of each class scored again in float32."""
        exact = self.defense().start
        (decoded,), offsets = exact.bank()
        rough = decoded.bfloat16()

        def again(images: Tensor) -> Tensor:
            flat = images.flatten(1)
            scores = [offset - flat.bfloat16() @ bank.T for bank, offset in zip(rough, offsets, strict=True)]
            best = torch.stack([score.topk(4, dim=1, largest=False).indices for score in scores], dim=1)
            classes = torch.arange(len(decoded)).view(1, -1, 1)
            precise = offsets[classes, best] - (decoded[classes, best] * flat[:, None, None]).sum(3)
            return best.gather(2, precise.argmin(2, keepdim=True)).squeeze(2)

        for count in self.settings.batch:
            images = self.digits.images[:count]
            calls = {"float32": partial(exact, images), "bf16, float32": partial(again, images)}
            self.compare(calls, count, f"batch {count:3}")
            same = (exact.codes[again(images)] == exact(images)[0]).all(2).double().mean()
            print(f"batch {count:3}  the same start: {same:.1%} of images and classes")

    def modes(self) -> None:
        """A look of an attack in the gradient modes, with a few steps (unrolled ones keep every step)."""
        exact, fast = self.defense(starts=64), self.defense(starts=64, fast=True)
        for count in self.settings.batch:
            images = self.digits.images[:count]
            calls: dict[str, Callable[[], object]] = {"forward": partial(exact, images)}
            for name, defense in (("", exact), (", fast", fast)):
                calls |= {f"{mode}{name}": partial(gradient, module, images) for mode, module in defense.surrogates().items()}
            self.compare(calls, count, f"batch {count:3}")

    def decisions(self) -> None:
        """Whether the fast path decides as the exact one, with the same random numbers, and its bound of the true class."""
        exact, fast = self.defense(), self.defense(fast=True)
        for defense in (exact, fast):
            defense(self.digits.images[:1])  # decodes the bank of starts
        scores, seconds = {"exact": [], "fast": []}, {"exact": 0.0, "fast": 0.0}
        for first in range(0, len(self.digits.images), self.settings.batch[-1]):
            images = self.digits.images[first : first + self.settings.batch[-1]]
            for name, defense in (("exact", exact), ("fast", fast)):
                began = self.clock()
                with keyed(range(first, first + len(images))):
                    scores[name].append(defense(images).detach())
                seconds[name] += self.clock() - began
        labels = self.digits.labels
        found = {name: torch.cat(parts) for name, parts in scores.items()}
        for name, values in found.items():
            own, correct = values.gather(1, labels.unsqueeze(1)), (values.argmax(1) == labels).double().mean()
            print(f"{name:6} accuracy {correct:.4f}  mean score of the true class {own.mean():.5f}  {seconds[name]:.0f} s")
        same = found["exact"].argmax(1) == found["fast"].argmax(1)
        lower = (found["fast"] - found["exact"]).gather(1, labels.unsqueeze(1)) < -1e-2
        print(f"same decision: {int(same.sum())} of {len(same)}; true class worse by more than 0.01: {int(lower.sum())}")

    def warm(self) -> None:
        """PGD through the frozen gradient, with full inference at every look and with a warm start; the exact path verifies."""
        exact, fast = (self.defense(warm_steps=self.settings.warm_steps, fast=fast) for fast in (False, True))
        for defense in (exact, fast):
            defense(self.digits.images[:1])  # decodes the bank of starts
        ways = {"exact": (exact, None), "warm": (exact, "warm"), "fast": (fast, None), "fast, warm": (fast, "warm")}
        images, labels, size = self.digits.images, self.digits.labels, self.settings.batch[-1]
        parts = [slice(first, first + size) for first in range(0, len(images), size)]
        for norm, epsilon in (("l2", 1.5), ("linf", 0.3)):
            attack = PGD(ThreatModel(norm, epsilon), steps=self.settings.attack_steps, restarts=self.settings.restarts)
            seconds: dict[str, float] = {}
            for name in self.settings.ways or ways:
                defense, mode = ways[name]
                adversarial, began = [], self.clock()
                for part in parts:
                    model = AttackModel(defense if mode is None else defense.surrogate(mode))
                    with keyed(range(part.start, part.start + len(images[part]))):
                        adversarial.append(attack(model, images[part], labels[part]))
                seconds[name] = self.clock() - began
                with torch.no_grad():
                    decided = torch.cat([exact(found).argmax(1) for found in adversarial])
                robust, ratio = (decided == labels).double().mean(), next(iter(seconds.values())) / seconds[name]
                line = f"{seconds[name]:6.0f} s  {ratio:5.2f} times cheaper  verified robust accuracy {robust:.3f}"
                print(f"PGD {norm} {epsilon}  {name:10} {line}", flush=True)


def gradient(module: nn.Module, images: Tensor) -> Tensor:
    """What an attack asks for."""
    asked = images.clone().requires_grad_()
    return torch.autograd.grad(module(asked).sum(), asked)[0]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["speed"], help="speed, starts, decisions, warm, modes")
    parser.add_argument("--model", default="abs-mnist")
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--digits", type=int, default=100)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--starts", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warm-steps", type=int, default=3)
    parser.add_argument("--attack-steps", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=[], help="warm: some of exact, warm, fast and 'fast, warm'")
    settings = parser.parse_args()
    bench = Bench(settings)
    for what in settings.what:
        getattr(bench, what)()


if __name__ == "__main__":
    main()
