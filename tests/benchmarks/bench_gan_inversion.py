"""GAN inversion: all classes at once against a loop over them and the bare passes, and what early elimination decides.

    python tests/benchmarks/bench_gan_inversion.py speed|formulas|modes|decisions [--defense NAME] [--images N] ...

`speed` and `modes` take networks of the sizes of the trainings, with random weights unless weights are asked for: time does not
depend on them. `decisions` needs trained ones; of the recipe's best candidates it tells what elimination costs them by

    ... decisions --committed --images 200 --steps 10 --weight 10 --distance features-corruptions     # and with --steps 100

All variants run interleaved in one process; ratios are formed inside a round,
and medians over the rounds are printed. One thread: process CPU time; more, or a GPU: wall time.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # tests

from gencls.core import ImageDistance, find_device, seeded
from gencls.core.memory import store_channels_last
from gencls.defenses import AnalysisBySynthesis, CyclicalRate, Direct, DirectPlus, Elimination
from gencls.perceptual import Combined, FeatureDistance, SquaredL2
from gencls.zoo import load, load_data
from gencls.zoo.distances import feature_layers
from gencls.zoo.networks import CifarPreActResNet
from gencls.zoo.training import PRESETS
from tests.plain_generator import PlainGenerator

SHARES = (0.05, 0.1, 0.2, 0.3)
"""When the rules of elimination look: after these shares of the steps."""
MARGINS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
"""The margins of the rules."""


class PerClassLoop:
    """Algorithm 2 as one would write it: class by class, torch's Adam and scheduler, and a plain call of the distance.

    The distance embeds the fixed image at every step. ``learning``: the networks' weights get gradients too, as they do unless
    one switches them off.
    """

    def __init__(self, defense: AnalysisBySynthesis, *, learning: bool) -> None:
        """Take the parts of a classifier without codes for its blocks."""
        self.defense, self.learning = defense, learning

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> scores (N, K)."""
        self.defense.requires_grad_(self.learning)
        starts = self.defense.start(images)[0]
        scores = torch.stack([self._score(images, starts[:, k], k) for k in range(self.defense.num_classes)], dim=1)
        self.defense.requires_grad_(False)
        return scores

    def _score(self, images: Tensor, start: Tensor, label: int) -> Tensor:
        z, labels = start.clone().requires_grad_(), torch.full((len(images),), label, device=images.device)
        defense, rate, steps = self.defense, CyclicalRate(), self.defense.steps

        def losses() -> Tensor:
            return defense.distance(images, defense.generator((z,), labels)) + defense.weight * z.square().sum(1)

        adam = torch.optim.Adam([z], lr=defense.lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(adam, lambda done: rate(done + 1, steps))
        for _ in range(steps):
            adam.zero_grad()
            losses().sum().backward()
            adam.step()
            scheduler.step()
        with torch.no_grad():
            return -losses()


class BarePasses:
    """The generator's and the distance's passes that an inference contains, and nothing else: no optimiser, no penalty."""

    def __init__(self, defense: AnalysisBySynthesis) -> None:
        """Take the parts."""
        self.defense = defense

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> distances (N, K)."""
        defense, count = self.defense, len(images)
        target = tuple(part.unsqueeze(1) for part in defense.distance.embed(images))
        codes = tuple(level.clone().requires_grad_() for level in defense.start(images))
        labels = torch.arange(defense.num_classes, device=images.device).repeat(count)

        def distances() -> Tensor:
            made = defense.generator(tuple(level.flatten(0, 1) for level in codes), labels)
            parts = defense.distance.embed(made)
            return defense.distance.compare(target, tuple(p.view(count, -1, *p.shape[1:]) for p in parts))

        for _ in range(defense.steps):
            torch.autograd.grad(distances().sum(), codes)
        with torch.no_grad():
            return distances()


class Bench:
    """Settings, networks and images of one run."""

    def __init__(self, settings: argparse.Namespace) -> None:
        """Load or make the networks."""
        torch.set_num_threads(settings.threads)
        self.settings, self.device = settings, find_device(settings.device)
        cpu = self.device.type == "cpu"
        self.clock = time.process_time if settings.threads == 1 and cpu else time.perf_counter
        self.images = load_data(settings.data, "test", root=settings.data_root, limit=settings.images)
        print(f"{len(self.images.images)} images, {settings.threads} thread(s), {self.device}", flush=True)

    def defense(self, **overrides: object) -> AnalysisBySynthesis:
        """The classifier: with trained weights if there are any, otherwise Direct with random ones."""
        asked = {name: value for name in ("weight", "distance") if (value := getattr(self.settings, name)) is not None}
        settings = {"steps": self.settings.steps, "memory_budget": self.settings.memory << 20, **asked, **overrides}
        if self.settings.weights is not None or self.settings.committed:
            found = load(self.settings.defense, **({"weights": self.settings.weights} | settings))
        else:
            data = self.settings.defense.rpartition("-")[2]
            with seeded(0):
                generator = PRESETS[f"cgan-{data}"].training(10).product.eval()
                network = PRESETS[f"features-{data}"].training(10).product.eval()
            distance: ImageDistance = Combined(SquaredL2(), FeatureDistance(network, feature_layers(network)))
            method = DirectPlus if "plus" in self.settings.defense else Direct
            found = method(generator, **{**settings, "distance": distance})  # type: ignore[arg-type]
        found = found.eval().requires_grad_(False).to(self.device)
        if self.settings.channels_last:
            store_channels_last(found)
        assert isinstance(found, AnalysisBySynthesis)
        return found

    def compare(self, variants: dict[str, Callable[[], object]], count: int, what: str) -> None:
        """Interleave and print milliseconds per image and the ratio to the first variant."""
        for call in variants.values():
            call()  # warm-up
        rounds = [{name: self._seconds(call) for name, call in variants.items()} for _ in range(self.settings.rounds)]
        first = next(iter(variants))
        for name in variants:
            times = median(row[name] for row in rounds) / count * 1e3
            ratios = sorted(row[name] / row[first] for row in rounds)
            spread = f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            print(f"{what}  {name:26} {times:9.1f} ms/image  this / {first}: {spread}", flush=True)

    def _seconds(self, call: Callable[[], object]) -> float:
        self._wait()
        began = self.clock()
        call()
        self._wait()
        return self.clock() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def speed(self) -> None:
        """Whole inferences of all variants; "fast" has the rule of ``fast=True``, "best alone" one class after a tenth."""
        exact = self.defense()
        alone = self.defense(fast=Elimination(((1 + self.settings.steps // 10, 0.0),)))
        variants: dict[str, Callable[[Tensor], object]] = {"exact": exact, "bare passes": BarePasses(exact)}
        if len(exact.generator.latent_shapes) == 1:
            variants |= {
                name: PerClassLoop(exact, learning=on) for name, on in (("loop", True), ("loop, fixed weights", False))
            }
        variants |= {"fast": self.defense(fast=True), "best alone": alone}
        for count in self.settings.batch:
            images = self.images.images[:count].to(self.device)
            self.compare({name: partial(call, images) for name, call in variants.items()}, count, f"batch {count:3}")

    def formulas(self) -> None:
        """The classifier, and the same one whose networks compute the plain formulas, maps as torch lays them out."""
        fast = self.defense()
        plain = copy.deepcopy(fast)
        plain.generator = PlainGenerator(plain.generator)  # type: ignore[arg-type]
        for part in plain.distance.modules():
            if isinstance(part, CifarPreActResNet):
                part.logits = partial(plain_logits, part)  # type: ignore[method-assign]
        for count in self.settings.batch:
            images = self.images.images[:count].to(self.device)
            print(f"batch {count:3}  scores differ by at most {(fast(images) / plain(images) - 1).abs().max():.1e}", flush=True)
            self.compare({"plain formulas": partial(plain, images), "ours": partial(fast, images)}, count, f"batch {count:3}")

    def modes(self) -> None:
        """A look of an attack in the gradient modes (unrolled ones keep every step)."""
        exact, warm = self.defense(), self.defense(warm_steps=max(1, self.settings.steps // 10))
        for count in self.settings.batch:
            images = self.images.images[:count].to(self.device)
            calls: dict[str, Callable[[], object]] = {"forward": partial(exact, images)}
            calls |= {mode: partial(gradient, module, images) for mode, module in exact.surrogates().items()}
            calls |= {"warm, first look": partial(gradient, warm.surrogate("warm"), images)}
            self.compare(calls, count, f"batch {count:3}")

    def decisions(self) -> None:
        """Accuracy and steps of rules of elimination, from one exact inference.

        Who stays makes the same steps with any rule, and who is out keeps its last loss. So the losses of all steps tell what
        each rule would have decided.
        """
        labels, found = self.images.labels, []
        for part in torch.arange(len(labels)).split(self.settings.batch[-1]):
            defense, seen = self.defense(), list[Tensor]()
            record(defense, seen)
            defense(self.images.images[part].to(self.device))
            found.append(torch.stack(seen, dim=2).cpu())
        losses = torch.cat(found)  # (N, K, steps + 1)
        exact = losses[..., -1].argmin(1)
        print(f"exact: right {(exact == labels).double().mean():.4f} of {len(labels)}")
        gaps = (losses / losses.amin(1, keepdim=True) - 1).gather(1, exact[:, None, None].expand(-1, 1, losses.shape[2]))[:, 0]
        for share in SHARES:
            at = gaps[:, int(share * self.settings.steps)]
            print(f"after {share:.0%} of the steps the winner lies above the lowest by", *_quantiles(at))
        rules = [((share, margin),) for share in SHARES for margin in MARGINS]
        rules += [((first, wide), (later, margin)) for (first, wide), (later, margin) in combinations(sum(rules, ()), 2)]
        kept = [(rule, *simulated(losses, rule)) for rule in rules if list(rule) == sorted(rule) and falls(rule)]
        for rule, decided, spent in sorted(kept, key=lambda row: row[2]):
            right, same = (decided == labels).double().mean(), (decided == exact).double().mean()
            words = ", ".join(f"{margin:g} after {share:.0%}" for share, margin in rule)
            if right >= (exact == labels).double().mean() - 0.005:
                print(f"{words:28} right {right:.4f}  as exact {same:.4f}  {1 / spent:.2f} times fewer passes")


def plain_logits(network: CifarPreActResNet, images: Tensor) -> Tensor:
    """Normalised images (N, C, H, W) to logits (N, K)."""
    maps = network.conv1(images)
    for stage in range(network.num_stages):
        maps = network.get_submodule(f"layer{stage + 1}")(maps)
    logits: Tensor = network.linear(maps.mean((2, 3)))
    return logits


def falls(rule: tuple[tuple[float, float], ...]) -> bool:
    """Whether each round looks later than the one before and has a smaller margin."""
    return all(one[0] < two[0] and one[1] > two[1] for one, two in pairwise(rule))


def record(defense: AnalysisBySynthesis, seen: list[Tensor]) -> None:
    """Keep the losses (N, K) of every step, and those of the end."""
    loss = defense.loss

    def kept(*args: Any, **settings: Any) -> Tensor:
        found = loss(*args, **settings)
        seen.append(found.detach())
        return found

    defense.loss = kept  # type: ignore[method-assign]


def simulated(losses: Tensor, rule: tuple[tuple[float, float], ...]) -> tuple[Tensor, float]:
    """The decisions of a rule, (N,), and its share of the passes, from the losses of all classes and steps (N, K, T + 1)."""
    steps = losses.shape[2] - 1
    active, last, spent, before = torch.ones_like(losses[..., 0], dtype=torch.bool), losses[..., -1].clone(), 0.0, 0
    for share, margin in rule:
        step = int(share * steps)
        spent += float(active.double().mean()) * (step - before)
        lowest = losses[..., : step + 1].amin(2)
        out = active & (lowest > (1 + margin) * lowest.amin(1, keepdim=True))
        last[out], active, before = losses[..., step][out], active & ~out, step
    spent += float(active.double().mean()) * (steps - before)
    return last.argmin(1), spent / steps


def _quantiles(values: Tensor) -> list[str]:
    return [f"{share:.0%}: {float(values.quantile(share)):.3f}" for share in (0.5, 0.9, 0.95, 0.99, 1.0)]


def gradient(module: nn.Module, images: Tensor) -> Tensor:
    """What an attack asks for."""
    asked = images.clone().requires_grad_()
    return torch.autograd.grad(module(asked).sum(), asked)[0]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["speed"], help="speed, formulas, modes, decisions")
    parser.add_argument("--defense", default="enc-d-fashion", help="name of the defense; it ends with its data")
    parser.add_argument("--weights", type=Path, default=None, help="the --out of gencls train")
    parser.add_argument("--committed", action="store_true", help="take the committed weights")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--weight", type=float, default=None, help="lambda; default as the defense has it")
    parser.add_argument("--distance", default=None, help="such as features-corruptions; default as the defense has it")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--memory", type=int, default=2048, help="memory budget in MiB")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--device", default="cpu")
    settings = parser.parse_args()
    bench = Bench(settings)
    for what in settings.what:
        getattr(bench, what)()


if __name__ == "__main__":
    main()
