"""One call of the recipe: its base models, the inference around them, and the folder of what it has found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gencls import zoo
from gencls.core import Defense, GenclsError, key_of
from gencls.defenses import PlainClassifier, RandomizedSmoothing, VariationalPosteriorSmoothing, VariationalSmoothing
from gencls.eval import DDN, PGD, Attack, AutoAttack, Protocol, Square, Study, ThreatModel
from gencls.zoo.networks.classifiers.published import load_robustbench
from gencls.zoo.registry import AUTOATTACK
from recipes.harness.folders import claim, require_weights, weights_path
from recipes.variational_smoothing.settings import BASES, WONG, Budget, Profile

__all__ = ["READINGS", "Run"]

READINGS: Mapping[str, Mapping[str, Any]] = {
    "Algorithm 5": {},
    "eq. 4.9 as printed": {"objective": "minimize"},
    "KL term subtracted after the search": {"kl": True},
    "hard labels": {"hard": True},
    "full ELBO": {},
}
"""What the thesis leaves open, or prints otherwise -> settings of the inference; the last one is another class."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every experiment needs.

    Attributes:
        profile: what is attacked.
        budget: what is spent.
        out: folder of all that is found.
        data: test images, enough for every table.
        seed: of all random streams.
        kinds: of base models that are attacked.
        weights: folder of further weights, the --out of `gencls train`, and of Wong2020Fast.pt.
        device: where the defenses are.
        command: that repeats the run.
    """

    profile: Profile
    budget: Budget
    out: Path
    data: zoo.ImageData
    seed: int = 0
    kinds: Sequence[str] = tuple(BASES)
    weights: Path | None = None
    device: str = "cpu"
    command: str = ""

    @property
    def bases(self) -> Mapping[str, str]:
        """Kind -> name of the base models that are attacked."""
        return {kind: name for kind, name in self.profile.bases.items() if kind in self.kinds}

    @property
    def swept(self) -> str:
        """The kind around which settings are varied: the thesis's, if it is there."""
        return "gaussian" if "gaussian" in self.bases else next(iter(self.bases))

    def path(self, name: str) -> Path | None:
        """Where the weights of a training lie, or should; None where they come with a dependency."""
        if name == WONG:
            return (self.weights or Path()) / f"{name}.pt"
        return None if name == AUTOATTACK else weights_path(name, self.weights)

    def require(self) -> None:
        """Check before the first measurement that base models and weights are there.

        Raises:
            GenclsError: for kinds that the profile does not have; naming the commands that make what is missing.
        """
        if not self.bases:
            raise GenclsError(f"--bases: expected some of {', '.join(self.profile.bases)}, got {', '.join(self.kinds)}")
        paths = {name: path for name in self.bases.values() if (path := self.path(name)) and name != WONG}
        require_weights(paths, self.weights, hint=", or leave base models out with --bases")
        published = self.path(WONG)
        if WONG in self.bases.values() and published and not published.is_file():
            raise GenclsError(
                f"expected RobustBench's checkpoint of {WONG} at {published}, got no such file; pass its folder with "
                "--weights, or leave the base model out with --bases"
            )

    def claim(self) -> None:
        """Make the folder of the run, or check that it is this run's.

        Raises:
            GenclsError: if it holds a run with other settings, or other weights of a base model.
        """
        claim(self.out, {"profile": asdict(self.profile), "budget": asdict(self.budget), "seed": self.seed})
        for kind in self.bases:
            claim(self.out / "bases" / kind, {"weights": key_of(self.base(kind), kind).content})

    def base(self, kind: str) -> Defense:
        """A base model as it is."""
        name = self.profile.bases[kind]
        return _loaded(name, self.path(name), self.device)

    def inference(self, kind: str, *, reading: str = "Algorithm 5", epsilon: float | None = None, steps: int = 1) -> Defense:
        """Variational smoothing around a base model.

        Args:
            kind: of base model.
            reading: of :data:`READINGS`.
            epsilon: radius; None takes the size of the attacks.
            steps: of the inner optimisation.
        """
        radius = self.profile.size(kind) if epsilon is None else epsilon
        base, classes, sigma = self.base(kind), self.data.num_classes, self.profile.sigma
        if reading == "full ELBO":
            return VariationalPosteriorSmoothing(base, classes, sigma=sigma).eval()
        return VariationalSmoothing(base, classes, radius=radius, sigma=sigma, steps=steps, **READINGS[reading]).eval()

    def smoothed(self) -> RandomizedSmoothing:
        """Randomized smoothing of a classifier that is trained with noise.

        Raises:
            GenclsError: naming the command that makes its weights, if they are missing.
        """
        name, profile = self.profile.smoothed, self.profile
        path = self.path(name)
        require_weights({name: path} if path else {}, self.weights, hint=", or choose other --parts")
        return RandomizedSmoothing(
            _loaded(name, path, self.device), self.data.num_classes, sigma=profile.certified_sigma
        ).eval()

    def attacks(self, defense: Defense, epsilon: float) -> Mapping[str, Attack]:
        """All attacks of Tables 4.1 to 4.3 at a size: the published one, what is adaptive, and what needs no gradient."""
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
        """The attacks of the sweeps: PGD on margins, and against one other class after the other.

        Not on the cross-entropy: where every class has found noise that speaks for it, scores lie close together, and its
        gradient pulls at all classes at once.
        """
        threat, budget = ThreatModel("linf", epsilon), self.budget
        return {
            "pgd": PGD(threat, steps=budget.pgd, restarts=budget.restarts, loss="margin"),
            "pgd-targeted": PGD(threat, steps=budget.pgd, restarts=budget.targets, loss="multi-targeted"),
        }

    def first(self, count: int) -> range:
        """Numbers of so many images, or of all."""
        return range(min(count, len(self.data.images)))

    def minimal(self, *, smoothing: tuple[float, ...] = (0.0,)) -> DDN:
        """The attack on randomized smoothing, along gradients that are smoothed once more with these deviations."""
        return DDN(ThreatModel("l2"), steps=self.budget.minimal, smoothing=smoothing)

    def study(self, folder: str, name: str, defense: Defense, attacks: Mapping[str, Attack], rows: Sequence[int]) -> Study:
        """The study of one defense, on the images with these numbers."""
        budget = self.budget
        return Study(
            self.out / folder,
            defenses={name: defense},
            attacks=attacks,
            images=self.data.images[list(rows)],
            labels=self.data.labels[list(rows)],
            protocol=Protocol(eot_samples=budget.eot, judge_draws=budget.judge, most_draws=budget.judge_most),
            seeds=(self.seed,),
            shard_size=budget.together,
            about={"data": f"{self.data.name}, {self.data.split}", "command": self.command},
        )


@cache
def _loaded(name: str, path: Path | None, device: str) -> Defense:
    if path is None:
        return zoo.load(name).to(device)
    if name == WONG:
        return PlainClassifier(load_robustbench(path, name), 10).eval().to(device)
    return zoo.load(name, weights=path).to(device)
