"""One call of the recipe: its generator, classifier and defenses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gencls import zoo
from gencls.core import Defense, GenclsError, MultiLatentModel, Transform, TransformedClassifier, key_of
from gencls.core.memory import store_channels_last
from gencls.defenses import (
    AVAEPurification,
    FixedLengthNoise,
    GaussianBlur,
    MLVGMPurification,
    PurifiedAccuracy,
    fgsm_examples,
    paper_blur,
)
from gencls.defenses.purification.mlvgm import PAPER_TASKS
from gencls.zoo.training.presets import preset
from recipes.harness import run
from recipes.harness.folders import read_measured, require_weights
from recipes.harness.settings import flag
from recipes.mlvgm.settings import Budget, Profile

ALPHAS = ("learned", "linear", "cosine")
"""The alphas of figures 3 to 5 (c)."""
PREPROCESSING = {"": "", "noise": " + noise", "blur": " + blur"}
"""Key of a preprocessing -> what follows the name of the alphas in figures 11 to 13."""
STANDALONE = ("noise", "blur")
"""Preprocessing alone; these are the dotted lines of the figures."""

_PUBLISHED = ("e4e", "NVAE", "Style Transformer")


@dataclass(frozen=True, kw_only=True)
class Run(run.Run[Profile, Budget]):
    """One call of the recipe of MLVGM.

    Attributes:
        as_: whose word counts if the paper and its public code disagree, "paper" or "code".
    """

    as_: Literal["paper", "code"] = flag(
        "--as", default="code", mark=True, choices=("paper", "code"), help="whose word counts (default code)"
    )

    weights_hint = ", and of gender.pt, identities.pt, cars.pt"

    @property
    def facts(self) -> Mapping[str, str]:
        """Networks, budget, and whose word counts."""
        return {
            "Generator and classifier": f"{self.profile.generator}, {self.profile.classifier}",
            "Budget": self.budget.spent_on(self.profile),
            "As": f"the {self.as_}, where paper and public code disagree",
        }

    def require(self, parts: Sequence[str] = ()) -> None:
        """Check that all weights are there and fit.

        Raises:
            GenclsError: for a name of no training; for missing weights, with the commands that make them; for a training whose
                images have another shape.
        """
        profile, shape = self.profile, tuple(self.data.images.shape[1:])
        if profile.task and profile.generator not in _PUBLISHED:
            raise GenclsError(
                f"--generator: expected none for the paper's own tasks, whose generators are published checkpoints; got "
                f"{profile.generator}"
            )
        if profile.task and not self.checkpoint.is_file():
            raise GenclsError(
                f"expected the published checkpoint of {profile.generator} at {self.checkpoint}, got no such file; "
                "docs/weights.md says where it comes from; pass its folder with --weights"
            )
        needed = (*(() if profile.task else (profile.generator,)), profile.classifier, *profile.baselines.values())
        made_for = {name: preset(name).image_shape for name in needed}
        require_weights({name: self.path(name) for name in needed}, self.weights)
        for name, other in () if profile.task else made_for.items():
            if other != shape:
                raise GenclsError(f"{name}: expected a training for images {shape}, as those of {self.data.name}, got {other}")

    def settings(self) -> dict[str, Any]:
        """Weights and whose word counts also tell this run's folder from others."""
        modules = {"generator": self.generator, **{name: self.defense(name) for name in self.baselines}}
        weights = {name: key_of(module, name).content for name, module in modules.items()}
        return {**super().settings(), "as": self.as_, "weights": weights}

    @property
    def baselines(self) -> tuple[str, ...]:
        """The defenses beside ours in figures 6 to 8."""
        return ("no defense", *self.profile.baselines)

    @cached_property
    def generator(self) -> MultiLatentModel:
        """The generator of the profile."""
        name = self.profile.generator
        if self.profile.task:
            return self._published().to(self.device)
        model = zoo.load_generator(name, weights=self.path(name)).to(self.device)
        # On a CPU, gradients through our NVAE take 0.7 times as long this way (docs/performance.md).
        if self.device == "cpu":
            store_channels_last(model)
        return model

    def _published(self) -> MultiLatentModel:
        from gencls.zoo.networks.nvae.published import load_nvae
        from gencls.zoo.networks.stylegan.published import load_e4e, load_style_transformer

        path, levels = self.checkpoint, len(PAPER_TASKS[self.profile.task].learned)
        if self.profile.task == "gender":
            return load_e4e(path, num_levels=levels, image_size=self.profile.resolution)
        if self.profile.task == "cars":
            return load_style_transformer(path, num_levels=levels, image_size=self.profile.resolution)
        return load_nvae(path, image_size=self.profile.resolution)

    @property
    def checkpoint(self) -> Path:
        """Where the published checkpoint of the task lies or should lie."""
        return (self.weights or Path()) / f"{self.profile.task}.pt"

    @cached_property
    def classifier(self) -> Defense:
        """The classifier to protect."""
        name = self.profile.classifier
        return zoo.load(name, weights=self.path(name)).to(self.device)

    @cached_property
    def accuracy(self) -> PurifiedAccuracy:
        """The accuracy that the search raises: on FGSM images of the base model, made from training images."""
        return self._accuracy(self.budget.learned_on, self.budget.samples)

    @cached_property
    def random_accuracy(self) -> PurifiedAccuracy:
        """The accuracy that random alphas are measured by."""
        return self._accuracy(self.budget.random_images, self.budget.random_samples)

    def _accuracy(self, count: int, samples: int) -> PurifiedAccuracy:
        drawn = run.load_at_most(self.profile.data, self.profile.splits[0], self.budget.drawn, root=self.root, seed=self.seed)
        images, labels = fgsm_examples(
            self.purification("linear"),
            self.classifier,
            drawn.images.to(self.device),
            drawn.labels.to(self.device),
            epsilon=self.profile.fgsm,
            keep="successful" if self.as_ == "code" else "all",
        )
        return PurifiedAccuracy(
            self.purification("linear"), self.classifier, images[:count], labels[:count], samples=samples, seed=self.seed
        )

    @property
    def learned(self) -> tuple[float, ...] | None:
        """The alphas that the search has found, before ``highest``; None until then, or stand-ins for a prediction.

        For the paper's tasks as the public code has them, they are the alphas of that code.
        """
        if self.published_alphas:
            return PAPER_TASKS[self.profile.task].learned
        path = self.out / "learned.json"
        if path.is_file():
            return tuple(read_measured(path)["alphas"])
        return (0.5,) * self.generator.num_levels if self.foreseen else None

    @property
    def published_alphas(self) -> bool:
        """Whether the public code has the alphas, so that there is nothing to learn."""
        return bool(self.profile.task) and self.as_ == "code"

    def purification(self, alphas: str, preprocessing: str = "") -> MLVGMPurification:
        """Build our purification.

        Args:
            alphas: a key of :data:`ALPHAS`.
            preprocessing: "noise", "blur" or "" for none.

        Raises:
            GenclsError: for learned alphas before the search has found them.
        """
        if alphas == "learned" and self.learned is None:
            raise GenclsError(f"{self.out}: expected learned alphas, got none yet; run the part 'learn' first")
        return MLVGMPurification(
            self.generator,
            self.learned if alphas == "learned" else alphas,  # type: ignore[arg-type]
            highest=self.profile.highest,
            limit="scale" if self.as_ == "code" else "clip",
            noise=self._noise(alphas) if preprocessing == "noise" else None,
            blur=self._blur if preprocessing == "blur" else None,
        )

    def _noise(self, alphas: str = "") -> FixedLengthNoise:
        if self.published_alphas and alphas == "linear":
            return FixedLengthNoise(PAPER_TASKS[self.profile.task].code_noise_of_linear)
        return FixedLengthNoise(self.profile.noise)

    @property
    def _blur(self) -> GaussianBlur:
        return paper_blur(self.profile.resolution, as_=self.as_).to(self.device)

    def defense(self, name: str) -> Defense:
        """Build a defense from its name in the figures: "linear", "linear + noise", "noise", "no defense", "TRADES", ..."""
        known = name, self.learned
        if known not in self._defenses:
            self._defenses[known] = self._made(name)
        return self._defenses[known]

    def _made(self, name: str) -> Defense:
        transform = self.transform(name)
        if transform is not None:
            return TransformedClassifier(transform, self.classifier, self.data.num_classes).eval()
        return self._baseline(name) if name in self.profile.baselines else self.classifier

    def key(self, name: str, measured_by: Callable[..., object]) -> str:
        """The key of a measurement of a defense: it covers weights, settings and the code of defense and measurement."""
        known = name, self.learned, measured_by
        if known not in self._keys:
            self._keys[known] = key_of((self.defense(name), measured_by), name).whole
        return self._keys[known]

    @cached_property
    def _defenses(self) -> dict[tuple[object, ...], Defense]:
        return {}

    @cached_property
    def _keys(self) -> dict[tuple[object, ...], str]:
        return {}

    def transform(self, name: str) -> Transform | None:
        """The transform in front of the classifier; None for defenses without one."""
        if name in self.profile.baselines:
            made = self._baseline(name)
            transform = made.transform if isinstance(made, TransformedClassifier) else None
            if isinstance(transform, AVAEPurification):
                return AVAEPurification.of_paper(transform.network, as_="mlvgm" if self.as_ == "code" else "a-vae")
            return transform
        if name in STANDALONE:
            return self._noise() if name == "noise" else self._blur
        alphas, _, preprocessing = name.partition(" + ")
        return None if name == "no defense" else self.purification(alphas, preprocessing)

    def _baseline(self, name: str) -> Defense:
        zoo_name = self.profile.baselines[name]
        return zoo.load(zoo_name, weights=self.path(zoo_name)).to(self.device)
