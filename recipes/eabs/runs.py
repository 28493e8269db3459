"""One call of the recipe: its defenses, its studies, what they cost, and how they are computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gencls import zoo
from gencls.core import Defense
from gencls.defenses import EABS
from gencls.eval import PGD, Attack, Protocol, Study, StudyCell, ThreatModel
from gencls.zoo.checkpoints.checkpoint import restore
from gencls.zoo.networks import ClassDecoders, GroupedDecoders
from recipes.eabs.printed import MODELS
from recipes.eabs.settings import Budget, Profile
from recipes.harness.folders import claim, require_weights, weights_path

__all__ = ["PartialStudy", "Run"]


class PartialStudy(Study):
    """A study in chosen gradient modes, of which one call may compute a part."""

    def __init__(self, folder: Path, *, gradients: Mapping[str, str], only: Callable[[str], bool], **settings: Any) -> None:
        """Take for each attack the gradient mode of Bayes classifiers, and which attacks to run now."""
        self._gradients, self._only = gradients, only
        super().__init__(folder, **settings)

    def cells(self) -> list[StudyCell]:
        """The cells in the chosen modes, and those that have no choice."""
        return [cell for cell in super().cells() if cell.mode in ("exact", "none", self._gradients[cell.attack])]

    def missing(self) -> list[StudyCell]:
        """What is left of the part."""
        return [cell for cell in super().missing() if self._only(cell.attack)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every experiment needs.

    Attributes:
        profile: what is attacked.
        budget: what is spent.
        out: folder of all studies.
        data: test images, enough for every table.
        seed: of all random streams.
        models: of Tables 2.2 to 2.5 and of the figures.
        only: attacks of Tables 2.2 to 2.5 to run, with or without their norm; empty for all.
        weights: folder of further weights, the --out of `gencls train`.
        device: where the defenses are.
        command: that repeats the run.
    """

    profile: Profile
    budget: Budget
    out: Path
    data: zoo.ImageData
    seed: int = 0
    models: Sequence[str] = tuple(MODELS)
    only: Sequence[str] = ()
    weights: Path | None = None
    device: str = "cpu"
    command: str = ""

    def path(self, kind: str) -> Path:
        """Where the weights of a network lie, or should: as `gencls train --out` leaves them, or committed."""
        return weights_path(self.profile.network(kind), self.weights)

    def require(self, kinds: Sequence[str]) -> None:
        """Check before the first study that the weights of these networks are there.

        Raises:
            GenclsError: naming the commands that make what is missing; for a folder of weights that is not there.
        """
        paths = {self.profile.network(kind): self.path(kind) for kind in kinds}
        require_weights(paths, self.weights, hint=", or leave models out with --models")

    def claim(self) -> None:
        """Make the folder of the run, or check that it is this run's: tables join what several calls have computed.

        Raises:
            GenclsError: if it holds a run with another profile, budget or seed.
        """
        claim(self.out, {"profile": asdict(self.profile), "budget": asdict(self.budget), "seed": self.seed})

    def load(self, kind: str, *, variational: bool | None = None, warm: bool = True) -> Defense:
        """A defense.

        Args:
            kind: of network.
            variational: switches extension V of those that have a choice.
            warm: with the budget's warm gradient mode.
        """
        settings: dict[str, Any] = {} if kind in ("cnn", "adv-linf", "adv-l2") else self.budget.synthesis
        if settings and not warm:
            settings["warm_steps"] = None
        if kind == "abs" and variational:
            return _variational_abs(self.path(kind), settings).to(self.device)
        if kind != "abs" and variational is not None:
            settings["variational"] = variational
        return zoo.load(self.profile.network(kind), weights=self.path(kind), **settings).to(self.device)

    def study(
        self,
        folder: str,
        name: str,
        defense: Defense,
        attacks: Mapping[str, Attack],
        count: int,
        *,
        eot: int | None = None,
        gradients: Mapping[str, str] | None = None,
    ) -> PartialStudy:
        """The study of one defense.

        Args:
            folder: within that of the run.
            name: of the defense.
            defense: what is attacked.
            attacks: name -> attack.
            count: N.
            eot: draws per gradient; None takes the budget's.
            gradients: attack -> gradient mode, where it is not the defense's first.
        """
        usual = next(iter(defense.surrogates()))
        chosen = self.only if folder.startswith(("main/", "minimal/", "smoothed/", "black-box/")) else ()
        return PartialStudy(
            self.out / folder,
            gradients={attack: (gradients or {}).get(attack, usual) for attack in attacks},
            only=lambda attack: not chosen or any(f"{attack}-".startswith(f"{word}-") for word in chosen),
            defenses={name: defense},
            attacks=attacks,
            images=self.data.images[:count],
            labels=self.data.labels[:count],
            protocol=Protocol(
                eot_samples=eot or self.budget.eot, judge_draws=self.budget.judge, most_draws=self.budget.judge_most
            ),
            seeds=(self.seed,),
            shard_size=25,
            about={"data": f"{self.data.name}, {self.data.split}", "command": self.command},
        )

    def ladder(self, folder: str, name: str, defense: Defense, count: int) -> PartialStudy:
        """PGD at growing sizes in both norms: what finds the closest adversarials of Table 2.6 and of the figures."""
        sizes = {"linf": self.profile.linf_sizes, "l2": self.profile.l2_sizes}
        attacks: dict[str, Attack] = {
            f"pgd-{norm}-{size:.4g}": PGD(ThreatModel(norm, size), steps=self.budget.ladder)
            for norm, _ in self.profile.threats
            for size in sizes[norm][self.budget.every - 1 :: self.budget.every]
        }
        return self.study(folder, name, defense, attacks, count)


def _variational_abs(path: Path, settings: Mapping[str, Any]) -> Defense:
    """V-ABS: variational inference with the decoders of ABS; their weights keep no encoders to start from."""
    decoders, _ = restore(path, {"ClassDecoders": ClassDecoders.from_architecture})
    return EABS(GroupedDecoders.from_decoders(decoders), **settings).eval().requires_grad_(False)
