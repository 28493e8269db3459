"""The Boundary attack: a walk along the decision boundary, from decisions alone."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.core import GenclsError, select
from gencls.core.balls import per_image
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.attacks.parts.base import require
from gencls.eval.attacks.parts.starting_images import check_shape, repr_with_starts
from gencls.eval.threats.lp_balls import ThreatModel

_SPHERE, _SOURCE = 20, 30
"""Number of steps between comparisons of a step size with its success rate."""

_CHECK = 5
"""Steps from one look at the image on the sphere to the next."""

_FACTOR = 1.5
"""Factor by which a step size changes."""

_BLOCKS = (7, 28, 4, 14, 2)
"""Blocks along each side of the noise after the first try, in black and white, with a random share of white.
Many classifiers see one class in all uniform noise (a CNN for digits sees 8), so samples of this class cannot start there."""


@dataclass(frozen=True, eq=False)
class Boundary:
    """Rejection sampling from an adversarial start: a step on the sphere around the image, then one towards the image.

    A step is kept if the decision is still wrong and the image closer; for a stochastic defense, if two looks in a row say so.
    Both step sizes follow their own success rates, sample by sample. A sample is done when its step towards the image is
    shorter than ``converged``, or its queries are used up. Without a start, the clean image is returned.

    Source: Brendel et al. 2018, arXiv:1712.04248; step sizes and rates as in foolbox. The thesis (section 2.3) makes 100,000
    iterations from a random sample that is classified as another class.

    Attributes:
        threat: L2 without epsilon; may be targeted.
        queries: most looks at the model per image; for a stochastic defense each look asks all EoT draws.
        starts: images (M, C, H, W) in [0, 1]; each sample starts from a random one. None takes noise.
        tries: most images to look at in search of a start.
        sphere_step: first step on the sphere, relative to the distance.
        source_step: first step towards the image, relative to the distance.
        converged: smallest step towards the image, relative to the distance.
    """

    threat: ThreatModel
    queries: int = 100_000
    starts: Tensor | None = None
    tries: int = 200
    sphere_step: float = 0.01
    source_step: float = 0.01
    converged: float = 1e-6
    _repr: str = field(init=False, repr=False)
    uses_gradients = False
    norms = ("l2",)

    def __post_init__(self) -> None:
        require(self, minimal=True, targeted=True, norms=self.norms)
        if self.queries < 1 or self.tries < 1 or not 0 < self.converged < min(self.sphere_step, self.source_step):
            raise GenclsError(
                "Boundary: expected queries >= 1, tries >= 1 and steps above converged > 0, got "
                f"{self.queries}, {self.tries}, {self.sphere_step}, {self.source_step} and {self.converged}"
            )
        object.__setattr__(self, "_repr", repr_with_starts(self, self.starts))

    def __repr__(self) -> str:
        """The repr with the content of the starts, because it keys the cells of a study."""
        return self._repr

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per query."""
        return self.queries, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels)
        check_shape("Boundary", self.starts, images)
        walk = _Walk(self, model, images, labels)
        walk.start()
        walk.approach()
        walk.run()
        return walk.best


class _Rate:
    """Successes of each sample since it last changed its step."""

    def __init__(self, count: int, window: int, device: torch.device) -> None:
        self.window = window
        self.hits = torch.zeros(count, device=device)
        self.trials = torch.zeros(count, device=device)

    def add(self, rows: Tensor, hit: Tensor, low: float, high: float) -> Tensor:
        """Count; returns (n,) float: -1 for a full window with too few successes, 1 for too many, else 0."""
        self.hits[rows] += hit.to(self.hits)
        self.trials[rows] += 1
        full = self.trials[rows] >= self.window
        rate = self.hits[rows] / self.trials[rows]
        self.hits[rows[full]] = 0
        self.trials[rows[full]] = 0
        return ((rate > high).to(rate) - (rate < low).to(rate)) * full


class _Walk:
    """One call of the attack."""

    def __init__(self, attack: Boundary, model: AttackModel, images: Tensor, labels: Tensor) -> None:
        self.attack, self.model, self.images, self.labels = attack, model, images, labels
        count, device = len(images), images.device
        self.best = images.clone()
        self.distance = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
        self.spent = torch.zeros(count, dtype=torch.long, device=device)
        self.sphere = torch.full((count,), attack.sphere_step, device=device)
        self.source = torch.full((count,), attack.source_step, device=device)

    def reached(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Whether the goal is reached, (n,) bool; for a stochastic defense a second look must confirm the first."""
        hit = self._look(rows, candidates)
        if self.model.stochastic and bool(hit.any()):
            hit = hit.clone()
            hit[hit.clone()] = self._look(rows[hit], candidates[hit], fresh=True)
        return hit

    def _look(self, rows: Tensor, candidates: Tensor, *, fresh: bool = False) -> Tensor:
        self.spent[rows] += 1
        targeted = self.attack.threat.targeted
        with select(rows):
            return self.model.look(candidates, self.labels[rows], targeted=targeted, fresh=fresh).reached

    def start(self) -> None:
        """Find an image with the wrong decision; the clean one is the first candidate."""
        rows = torch.arange(len(self.images), device=self.images.device)
        for number in range(self.attack.tries + 1):
            rows = rows[(self.spent[rows] < self.attack.queries)]
            if not len(rows):
                return
            candidates = self._candidates(rows, number) if number else self.images
            hit = self.reached(rows, candidates)
            found = rows[hit]
            self.best[found] = candidates[hit]
            self.distance[found] = self.attack.threat.distance(self.images[found], candidates[hit])
            rows = rows[~hit]

    def _candidates(self, rows: Tensor, number: int) -> Tensor:
        clean, pool = self.images[rows], self.attack.starts
        with select(rows):
            if pool is not None:
                return pool[torch.randint(len(pool), (len(rows),)).to(pool.device)].to(clean)
            if number == 1:
                return torch.rand_like(clean)
            size = _BLOCKS[number % len(_BLOCKS)]
            noise, share = torch.rand(len(rows), clean.shape[1], size, size), torch.rand(len(rows), 1, 1, 1)
        return functional.interpolate((noise < share).to(clean), clean.shape[2:])

    def approach(self) -> None:
        """Halve the line from the image to its start ten times."""
        rows = self._walking()
        if not len(rows):
            return
        start, low, high = self.best[rows], torch.zeros(len(rows)).to(self.best), torch.ones(len(rows)).to(self.best)
        for _ in range(10):
            middle = (low + high) / 2
            candidates = torch.lerp(self.images[rows], start, per_image(middle))
            hit = self.reached(rows, candidates)
            self._keep(rows[hit], candidates[hit])
            low, high = low.where(hit, middle), middle.where(hit, high)

    def _walking(self) -> Tensor:
        moving = self.distance.isfinite() & (self.distance > 0) & (self.source >= self.attack.converged)
        return (moving & (self.spent < self.attack.queries)).nonzero().squeeze(1)

    def _keep(self, rows: Tensor, candidates: Tensor) -> None:
        self.best[rows] = candidates
        self.distance[rows] = self.attack.threat.distance(self.images[rows], candidates)

    def run(self) -> None:
        """Walk until all samples are done."""
        sphere_rate, source_rate = (_Rate(len(self.images), window, self.images.device) for window in (_SPHERE, _SOURCE))
        step = 0
        while len(rows := self._walking()):
            step += 1
            on_sphere, candidates = self._proposals(rows)
            hit = self.reached(rows, candidates)
            hit &= self.attack.threat.distance(self.images[rows], candidates) < self.distance[rows]
            self._keep(rows[hit], candidates[hit])
            self.source[rows] *= _FACTOR ** source_rate.add(rows, hit, 0.1, 0.25)
            if step % _CHECK == 0:  # tests whether the boundary is flat on the scale of the step
                change = _FACTOR ** sphere_rate.add(rows, self._look(rows, on_sphere), 0.2, 0.5)
                self.sphere[rows] *= change
                self.source[rows] *= change

    def _proposals(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """A random step on the sphere around the image, and then one towards the image; (n, C, H, W) both."""
        clean = self.images[rows]
        away = self.best[rows] - clean
        radius = _length(away)
        sphere, source = per_image(self.sphere[rows]), per_image(self.source[rows])
        with select(rows):
            sideways = torch.randn_like(clean)
        sideways -= away * ((sideways * away).sum(dim=(1, 2, 3), keepdim=True) / radius.square())
        sideways *= sphere * radius / _length(sideways)
        on_sphere = (clean + (away + sideways) / (1 + sphere.square()).sqrt()).clamp_(0, 1)
        back = clean - on_sphere  # shorter than the radius if it was clipped; then the step is shorter as well
        length = _length(back)
        step = (source * radius + length - radius).clamp_min(0) / length
        return on_sphere, torch.lerp(on_sphere, clean, step.clamp_max(1)).clamp_(0, 1)


def _length(change: Tensor) -> Tensor:
    return per_image(change.flatten(1).norm(dim=1).clamp_min(1e-12))
