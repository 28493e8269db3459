"""One call of the recipe: its defenses, and studies that several calls may compute together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gencls import zoo
from gencls.core import Defense, GenclsError
from gencls.defenses import EABS
from gencls.eval import PGD, Attack, Study, StudyCell, ThreatModel
from gencls.zoo.checkpoints.checkpoint import restore
from gencls.zoo.networks import ClassDecoders, GroupedDecoders
from recipes.eabs.printed import MODELS
from recipes.eabs.settings import ATTACKS, FOLDERS, L2_ONLY, NORMS, Budget, Profile
from recipes.harness import run
from recipes.harness.folders import require_weights
from recipes.harness.settings import flag

MODEL_PARTS = {"main", "examples"}
"""The parts whose models can be chosen."""
OF_EABS = {"2.7", "2.8", "2.9"}
"""The parts that use E-ABS alone."""


class PartialStudy(Study):
    """A study of one defense, in its first gradient mode or, for the attack "unrolled", in the mode "unrolled".

    One call may compute a part of it.
    """

    only: Sequence[str] = ()

    def cells(self) -> list[StudyCell]:
        """The cells in these modes, and the cells of attacks that have no choice of mode."""
        (defense,) = self.defenses.values()
        usual = next(iter(cast(Defense, defense).surrogates()))
        chosen = {name: "unrolled" if name.startswith("unrolled") else usual for name in self.attacks}
        return [cell for cell in super().cells() if cell.mode in ("exact", "none", chosen[cell.attack])]

    def missing(self) -> list[StudyCell]:
        """The missing cells of the chosen attacks, named with or without their norm, or of all if none is chosen."""

        def asked(attack: str) -> bool:
            return not self.only or any(f"{attack}-".startswith(f"{word}-") for word in self.only)

        return [cell for cell in super().missing() if asked(cell.attack)]


@dataclass(frozen=True, kw_only=True)
class Run(run.Run[Profile, Budget]):
    """One call of the recipe of E-ABS.

    Attributes:
        models: the models of Tables 2.2 to 2.5 and of the figures.
        only: the attacks of Tables 2.2 to 2.5 to run, with or without their norm; empty for all.
    """

    models: Sequence[str] = flag(
        "--models", default=(), nargs="+", action="extend", choices=MODELS, help="of main and examples; default all"
    )
    only: Sequence[str] = flag(
        "--attacks",
        default=(),
        nargs="+",
        action="extend",
        choices=[*ATTACKS, *(f"{name}-{norm}" for name in ATTACKS for norm in NORMS if norm == "l2" or name not in L2_ONLY)],
        metavar="NAME",
        help=f"of Tables 2.2 to 2.5: {', '.join(ATTACKS)}, with -linf or -l2 for one norm; default all",
    )

    weights_hint = ", beside the committed ones"

    @classmethod
    def load_data(cls, profile: Profile, limit: int, *, root: Path | None, seed: int) -> zoo.ImageData:
        """Load this many images; fewer are an error."""
        return zoo.load_data(profile.data, profile.split, root=root, limit=limit, seed=seed)

    def check(self, parts: Sequence[str] | None) -> None:
        """Check that the chosen models and attacks belong to parts that the user asked for."""
        for flagged, given, where in (("--models", self.models, MODEL_PARTS), ("--attacks", self.only, {"main"})):
            if given and parts and not where & set(parts):
                raise GenclsError(
                    f"{flagged}: expected only with --tables {' or '.join(sorted(where))}, got --tables {' '.join(parts)}"
                )

    def path(self, name: str) -> Path:
        """Where the weights of a kind of network lie, or should."""
        return super().path(self.profile.network(name))

    def require(self, parts: Sequence[str] = ()) -> None:
        """Check that the weights of the models are there, and those of E-ABS if a part uses it alone."""
        kinds = [*(self.models or MODELS if MODEL_PARTS & set(parts) else ()), *(["eabs"] if OF_EABS & set(parts) else ())]
        paths = {self.profile.network(kind): self.path(kind) for kind in kinds}
        require_weights(paths, self.weights, hint=", or leave models out with --models")

    def load(self, kind: str, *, variational: bool | None = None, warm: bool = True) -> Defense:
        """Load a defense.

        Args:
            kind: the kind of network, "cnn", "abs", "eabs" and so on.
            variational: switches extension V on or off, for networks that have the choice; None leaves the default.
            warm: whether to add the budget's warm gradient mode.
        """
        settings: dict[str, Any] = {} if kind in ("cnn", "adv-linf", "adv-l2") else self.budget.synthesis
        if settings and not warm:
            settings["warm_steps"] = None
        if kind == "abs" and variational:  # the weights of ABS keep no encoders to start from
            decoders, _ = restore(self.path(kind), {"ClassDecoders": ClassDecoders.from_architecture})
            network = GroupedDecoders.from_decoders(cast(ClassDecoders, decoders))
            return EABS(network, **settings).eval().requires_grad_(False).to(self.device)
        if kind != "abs" and variational is not None:
            settings["variational"] = variational
        return zoo.load(self.profile.network(kind), weights=self.path(kind), **settings).to(self.device)

    def plan(self, folder: str, **settings: Any) -> Study:
        """Plan a study in chosen gradient modes. One call may compute a part of the table of accuracies."""
        study = PartialStudy(self.out / folder, **settings)
        study.only = self.only if folder.split("/")[0] in FOLDERS else ()
        return study

    def ladder(self) -> dict[str, Attack]:
        """PGD at growing sizes in both norms. It finds the closest adversarials of Table 2.6 and of the figures."""
        sizes, every = {"linf": self.profile.linf_sizes, "l2": self.profile.l2_sizes}, self.budget.every
        return {
            f"pgd-{norm}-{size:.4g}": PGD(ThreatModel(norm, size), steps=self.budget.ladder)
            for norm, _ in self.profile.threats
            for size in sizes[norm][every - 1 :: every]
        }
