"""One call of the recipe: its base models, and the inference around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gencls import zoo
from gencls.core import Defense, GenclsError, key_of
from gencls.defenses import PlainClassifier, RandomizedSmoothing, VariationalPosteriorSmoothing, VariationalSmoothing
from gencls.eval import DDN, PGD, Attack, AutoAttack, Square, ThreatModel
from gencls.zoo.networks.classifiers.published import load_robustbench
from gencls.zoo.rows import AUTOATTACK
from recipes.harness import run
from recipes.harness.folders import claim, require_weights
from recipes.harness.settings import flag
from recipes.variational_smoothing.settings import BASES, WONG, Budget, Profile

READINGS: Mapping[str, Mapping[str, Any]] = {
    "Algorithm 5": {},
    "eq. 4.9 as printed": {"objective": "minimize"},
    "KL term subtracted after the search": {"kl": True},
    "hard labels": {"hard": True},
    "full ELBO": {},
}
"""Reading, where the thesis is open or prints otherwise -> settings of the inference. The last one is another class."""


@dataclass(frozen=True, kw_only=True)
class Run(run.Run[Profile, Budget]):
    """One call of the recipe of variational smoothing.

    Attributes:
        kinds: kinds of base models to attack; empty for all.
    """

    kinds: Sequence[str] = flag(
        "--bases",
        default=(),
        nargs="+",
        action="extend",
        choices=BASES,
        help="kinds of base models; default all that the profile has",
    )

    weights_hint = f", and of {WONG}.pt"

    @property
    def facts(self) -> Mapping[str, str]:
        """Base models and budget."""
        return {"Base models": ", ".join(self.bases.values()), **super().facts}

    @property
    def bases(self) -> Mapping[str, str]:
        """Kind -> name, for the base models to attack."""
        return {kind: name for kind, name in self.profile.bases.items() if kind in (self.kinds or self.profile.bases)}

    @property
    def swept(self) -> str:
        """The kind of base model whose settings vary: the thesis's, if it is there."""
        return "gaussian" if "gaussian" in self.bases else next(iter(self.bases))

    def path(self, name: str) -> Path:
        """Where weights lie or should lie."""
        return (self.weights or Path()) / f"{name}.pt" if name == WONG else super().path(name)

    def check(self, parts: Sequence[str] | None) -> None:
        """Check that the profile has these base models."""
        if absent := [kind for kind in self.kinds if kind not in self.profile.bases]:
            raise GenclsError(f"--bases: expected some of {', '.join(self.profile.bases)}, got {', '.join(absent)}")

    def require(self, parts: Sequence[str] = ()) -> None:
        """Check that the weights are there: those of the base models, and those of the classifier to certify."""
        paths = {name: self.path(name) for name in self.bases.values() if name not in (AUTOATTACK, WONG)}
        require_weights(paths, self.weights, hint=", or leave base models out with --bases")
        if WONG in self.bases.values() and not self.path(WONG).is_file():
            raise GenclsError(
                f"expected RobustBench's checkpoint of {WONG} at {self.path(WONG)}, got no such file; pass its folder with "
                "--weights, or leave the base model out with --bases"
            )
        if "certified" in parts:
            self.smoothed()

    def claim(self) -> None:
        """Make the folder of the run, or check that it belongs to this run, with these weights of the base models."""
        super().claim()
        for kind in self.bases:
            claim(self.out / "bases" / kind, {"weights": key_of(self.base(kind), kind).content})

    def load(self, name: str) -> Defense:
        """Load a classifier; AutoAttack's comes with its package."""
        return _loaded(name, None if name == AUTOATTACK else self.path(name), self.device)

    def base(self, kind: str) -> Defense:
        """Load a base model without inference."""
        return self.load(self.profile.bases[kind])

    def inference(self, kind: str, *, reading: str = "Algorithm 5", epsilon: float | None = None, steps: int = 1) -> Defense:
        """Variational smoothing around a base model.

        Args:
            kind: kind of base model.
            reading: a key of :data:`READINGS`.
            epsilon: Linf radius, in [0, 1] pixel units; None takes the size of the attacks.
            steps: steps of the inner optimisation.
        """
        radius = self.profile.size(kind) if epsilon is None else epsilon
        base, classes, sigma = self.base(kind), self.data.num_classes, self.profile.sigma
        if reading == "full ELBO":
            return VariationalPosteriorSmoothing(base, classes, sigma=sigma).eval()
        return VariationalSmoothing(base, classes, radius=radius, sigma=sigma, steps=steps, **READINGS[reading]).eval()

    def smoothed(self) -> RandomizedSmoothing:
        """Randomized smoothing of a classifier that was trained with noise.

        Raises:
            GenclsError: if its weights are missing; the message gives the command that makes them.
        """
        name = self.profile.smoothed
        if name != AUTOATTACK:
            require_weights({name: self.path(name)}, self.weights, hint=", or choose other --parts")
        return RandomizedSmoothing(self.load(name), self.data.num_classes, sigma=self.profile.certified_sigma).eval()

    def attacks(self, defense: Defense, epsilon: float) -> Mapping[str, Attack]:
        """All attacks of Tables 4.1 to 4.3 at one size: the published one, adaptive ones, and one without gradients."""
        threat, budget = ThreatModel("linf", epsilon), self.budget
        standard = AutoAttack(threat, steps=budget.autoattack, queries=budget.queries, targets=budget.targets)
        if not defense.stochastic:
            return {"autoattack": standard, **self.pgd(epsilon)}
        return {
            "autoattack": standard,
            "autoattack-rand": AutoAttack(threat, "rand", steps=budget.autoattack),
            **self.pgd(epsilon),
            "square": Square(threat, queries=budget.queries),
        }

    def pgd(self, epsilon: float) -> Mapping[str, PGD]:
        """The attacks of the sweeps: PGD on margins, and PGD against one other class after the other.

        They leave out the cross-entropy. If every class has found noise that speaks for it, scores lie close together, and the
        gradient of the cross-entropy pulls at all classes at once.
        """
        threat, budget = ThreatModel("linf", epsilon), self.budget
        return {
            "pgd": PGD(threat, steps=budget.pgd, restarts=budget.restarts, loss="margin"),
            "pgd-targeted": PGD(threat, steps=budget.pgd, restarts=budget.targets, loss="multi-targeted"),
        }

    def minimal(self, *, smoothing: tuple[float, ...] = (0.0,)) -> DDN:
        """The attack on randomized smoothing, along gradients that these deviations smooth once more."""
        return DDN(ThreatModel("l2"), steps=self.budget.minimal, smoothing=smoothing)


@cache
def _loaded(name: str, path: Path | None, device: str) -> Defense:
    if path is None:
        return zoo.load(name).to(device)
    if name == WONG:
        return PlainClassifier(load_robustbench(path, name), 10).eval().to(device)
    return zoo.load(name, weights=path).to(device)
