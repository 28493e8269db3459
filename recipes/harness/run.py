"""One call of a recipe: its data, budget and folder, its weights and its studies."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from gencls import zoo
from gencls.core import Defense
from gencls.eval import Attack, Protocol, Study
from gencls.zoo.data import count_images
from recipes.harness.folders import claim, weights_path
from recipes.harness.jobs import StudyJob
from recipes.harness.settings import Budget, Profile

__all__ = ["Run", "load_at_most"]

P = TypeVar("P", bound=Profile)
B = TypeVar("B", bound=Budget)


@dataclass(frozen=True, kw_only=True)
class Run(ABC, Generic[P, B]):
    """One call of a recipe. A paper adds its defenses and its attacks.

    Attributes:
        profile: what is attacked.
        budget: how much may be spent.
        out: folder of all results.
        data: test images, enough for every table; the first ones are attacked.
        root: folder of the data sets; None asks GENCLS_DATA.
        seed: the seed of all random streams.
        weights: folder of further weights, the --out of `gencls train`.
        device: where the defenses run.
        level: name of the budget.
        command: the command that repeats the run.
        foreseen: whether a stand-in replaces each result that is not known yet, to predict the cost.
    """

    profile: P
    budget: B
    out: Path
    data: zoo.ImageData
    root: Path | None = None
    seed: int = 0
    weights: Path | None = None
    device: str = "cpu"
    level: str = ""
    command: str = ""
    foreseen: bool = False

    weights_hint: ClassVar[str] = ""
    """For the help: what else the folder of weights may hold."""

    @classmethod
    def load_data(cls, profile: P, limit: int, *, root: Path | None, seed: int) -> zoo.ImageData:
        """Load the images to attack: this many, or all of them."""
        return load_at_most(profile.data, profile.split, limit, root=root, seed=seed)

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts that the page states about the run."""
        return {"Budget": self.budget.spent}

    def check(self, parts: Sequence[str] | None) -> None:
        """Check that the choices fit together.

        Args:
            parts: the chosen parts; None for the usual ones.

        Raises:
            GenclsError: if the choices do not fit together.
        """

    @abstractmethod
    def require(self, parts: Sequence[str] = ()) -> None:
        """Check before the first measurement that these parts find what they need.

        Raises:
            GenclsError: if something is missing; the message gives the commands that make it.
        """

    def settings(self) -> dict[str, Any]:
        """Settings that tell this run's folder from others."""
        return {"profile": asdict(self.profile), "budget": asdict(self.budget), "seed": self.seed}

    def claim(self) -> None:
        """Claim the folder of the run with these settings, see :func:`recipes.harness.folders.claim`."""
        claim(self.out, self.settings())

    def path(self, name: str) -> Path:
        """Where the weights of a training lie or should lie: in the folder of `gencls train --out`, or committed."""
        return weights_path(name, self.weights)

    def images(self, count: int) -> Tensor:
        """The first ``count`` test images, on the device of the defenses."""
        return self.data.images[:count].to(self.device)

    def study(
        self, folder: str, name: str, defense: Defense, attacks: Mapping[str, Attack], rows: int | Sequence[int], eot: int = 0
    ) -> Study:
        """Plan the study of one defense.

        Args:
            folder: the study's folder within the folder of the run.
            name: name of the defense.
            defense: the defense, in eval mode.
            attacks: name -> attack.
            rows: positions of the images to attack, or how many of the first ones.
            eot: draws per gradient; 0 takes the budget's number.
        """
        chosen, budget = slice(rows) if isinstance(rows, int) else list(rows), self.budget
        return self.plan(
            folder,
            defenses={name: defense},
            attacks=attacks,
            images=self.data.images[chosen],
            labels=self.data.labels[chosen],
            protocol=Protocol(eot_samples=eot or budget.eot, judge_draws=budget.judge, most_draws=budget.judge_most),
            seeds=(self.seed,),
            shard_size=budget.together,
            about={"data": f"{self.data.name}, {self.data.split}", "command": self.command},
        )

    def plan(self, folder: str, **settings: Any) -> Study:
        """Plan the paper's kind of study, in a folder of the run."""
        return Study(self.out / folder, **settings)

    def job(
        self,
        folder: str,
        name: str,
        defense: Callable[[], Defense],
        attacks: Mapping[str, Attack] | Callable[[Defense], Mapping[str, Attack]],
        rows: int | Sequence[int],
        eot: int = 0,
        then: Callable[[Study], None] | None = None,
    ) -> StudyJob:
        """Plan a study as a job: the defense is loaded when its turn comes, and may choose the attacks."""

        def build() -> Study:
            loaded = defense()
            return self.study(folder, name, loaded, attacks(loaded) if callable(attacks) else attacks, rows, eot)

        return StudyJob(folder, build, then)


def load_at_most(name: str, split: str, limit: int, *, root: Path | None, seed: int) -> zoo.ImageData:
    """Load this many images of a split of a data set, or all of them if there are fewer."""
    limit = min(limit, count_images(name, split, root=root))
    return zoo.load_data(name, split, root=root, limit=limit, seed=seed)
