"""One call of the recipe: its generator, classifier and defenses, and the folder of what it has found."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

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
from gencls.eval import PGD, Attack, AutoAttack, DeepFool, Protocol, RestartedCarliniWagner, Study, ThreatModel
from gencls.zoo.data import count_images
from gencls.zoo.training.presets import preset
from recipes.harness.folders import claim, read_measured, require_weights, weights_path
from recipes.mlvgm.settings import Budget, Profile

__all__ = ["ALPHAS", "PREPROCESSING", "STANDALONE", "Run", "load_at_most"]

ALPHAS = ("learned", "linear", "cosine")
"""Figures 3 to 5 (c)."""
PREPROCESSING = {"": "", "noise": " + noise", "blur": " + blur"}
"""Key -> what follows the name of the alphas: figures 11 to 13."""
STANDALONE = ("noise", "blur")
"""Preprocessing alone, the dotted lines of these figures."""

_PUBLISHED = ("e4e", "NVAE", "Style Transformer")


@dataclass(frozen=True)
class Run:
    """What every experiment needs.

    Attributes:
        profile: the task.
        budget: what is spent.
        out: folder of all that is found.
        data: test images; the first ``budget.count`` are attacked.
        root: folder of the data sets.
        seed: of all random streams.
        as_: whose word counts where the paper and its public code disagree.
        weights: folder of further weights, the --out of `gencls train`.
        device: where the defenses are.
        command: that repeats the run.
    """

    profile: Profile
    budget: Budget
    out: Path
    data: zoo.ImageData
    root: Path | None = None
    seed: int = 0
    as_: Literal["paper", "code"] = "code"
    weights: Path | None = None
    device: str = "cpu"
    command: str = ""

    def path(self, name: str) -> Path:
        """Where the weights of a training lie, or should: as `gencls train --out` leaves them, or committed."""
        return weights_path(name, self.weights)

    def require(self) -> None:
        """Check before the first measurement that all weights are there and fit.

        Raises:
            GenclsError: for a name of no training; naming the commands that make what is missing; for a training whose images
                have another shape.
        """
        if self.profile.task and self.profile.generator not in _PUBLISHED:
            raise GenclsError(
                f"--generator: expected none for the paper's own tasks, whose generators are published checkpoints; got "
                f"{self.profile.generator}"
            )
        if self.profile.task and not self.checkpoint.is_file():
            raise GenclsError(
                f"expected the published checkpoint of {self.profile.generator} at {self.checkpoint}, got no such file; "
                "docs/weights.md says where it comes from; pass its folder with --weights"
            )
        ours = () if self.profile.task else (self.profile.generator,)
        needed = (*ours, self.profile.classifier, *self.profile.baselines.values())
        made_for = {name: preset(name).image_shape for name in needed}
        require_weights({name: self.path(name) for name in needed}, self.weights)
        shape = tuple(self.data.images.shape[1:])
        for name, other in () if self.profile.task else made_for.items():
            if other != shape:
                raise GenclsError(f"{name}: expected a training for images {shape}, as those of {self.data.name}, got {other}")

    def claim(self) -> None:
        """Make the folder of the run, or check that it is this run's.

        Raises:
            GenclsError: if it holds a run with other settings or weights.
        """
        modules = {"generator": self.generator, **{name: self.defense(name) for name in self.baselines}}
        settings = {"profile": asdict(self.profile), "budget": asdict(self.budget), "seed": self.seed, "as": self.as_}
        claim(self.out, {**settings, "weights": {name: key_of(module, name).content for name, module in modules.items()}})

    @property
    def baselines(self) -> tuple[str, ...]:
        """What stands beside ours in figures 6 to 8."""
        return ("no defense", *self.profile.baselines)

    @cached_property
    def generator(self) -> MultiLatentModel:
        """The generator of the profile."""
        name = self.profile.generator
        if self.profile.task:
            return self._published().to(self.device)
        model = zoo.load_generator(name, weights=self.path(name)).to(self.device)
        # On a CPU gradients through our NVAE take 0.7 times as long (docs/performance.md).
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
        """Where the published checkpoint of the task lies, or should."""
        return (self.weights or Path()) / f"{self.profile.task}.pt"

    @cached_property
    def classifier(self) -> Defense:
        """The classifier that is protected."""
        name = self.profile.classifier
        return zoo.load(name, weights=self.path(name)).to(self.device)

    @cached_property
    def accuracy(self) -> PurifiedAccuracy:
        """What alphas are learned on: FGSM images of the base model, from the training images."""
        return self._accuracy(self.budget.learned_on, self.budget.samples)

    @cached_property
    def random_accuracy(self) -> PurifiedAccuracy:
        """The same for the study of random alphas."""
        return self._accuracy(self.budget.random_images, self.budget.random_samples)

    def _accuracy(self, count: int, samples: int) -> PurifiedAccuracy:
        drawn = load_at_most(self.profile, self.profile.splits[0], self.budget.drawn, root=self.root, seed=self.seed)
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
        """The alphas that the search has found, before ``highest``; None while there are none.

        Of the paper's tasks as the public code has them they are those that it found.
        """
        if self.published_alphas:
            return PAPER_TASKS[self.profile.task].learned
        path = self.out / "learned.json"
        return tuple(read_measured(path)["alphas"]) if path.is_file() else None

    @property
    def published_alphas(self) -> bool:
        """Whether there is nothing to be learned."""
        return bool(self.profile.task) and self.as_ == "code"

    def purification(self, alphas: str, preprocessing: str = "") -> MLVGMPurification:
        """Ours.

        Args:
            alphas: of :data:`ALPHAS`.
            preprocessing: "noise", "blur" or "".

        Raises:
            GenclsError: for learned alphas that are not learned yet.
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
        """A defense by its name in the figures: "linear", "linear + noise", "noise", "no defense", "TRADES" and so on."""
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
        """What a measurement of a defense belongs to: its weights and settings, and the code of both."""
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
        """What stands in front of the classifier; None for defenses without."""
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

    def attacks(self, defense: Defense) -> Mapping[str, Attack]:
        """DeepFool, C&W and AutoAttack with the budget's steps (section 4, tables 2 and 3 of the supplement)."""
        profile, budget, minimal = self.profile, self.budget, ThreatModel("l2")
        version: Literal["rand", "standard"] = "rand" if defense.stochastic else "standard"
        return {
            "deepfool": DeepFool(
                minimal,
                steps=budget.deepfool or profile.deepfool,
                overshoot=profile.overshoot,
                candidates=min(profile.candidates, self.data.num_classes),
            ),
            "cw": RestartedCarliniWagner(
                minimal,
                restarts=budget.cw_restarts,
                steps=budget.cw_steps,
                learning_rate=profile.rate * budget.cw_rate,
                confidence=profile.confidence,
                regularisation=profile.constant,
                start_norm=profile.start_norm,
                window=profile.window,
            ),
            **{
                f"autoattack-{size:g}": AutoAttack(
                    ThreatModel("l2", size), version, steps=budget.autoattack, queries=budget.queries
                )
                for size in budget.attacked(profile)
            },
        }

    def smoothed(self) -> Mapping[str, Attack]:
        """PGD along smoothed gradients, which the paper does not have, at the sizes of AutoAttack."""
        budget, sizes = self.budget, self.budget.attacked(self.profile)
        return {
            f"smoothed-{size:g}": PGD(ThreatModel("l2", size), steps=budget.smoothed, smoothing=budget.smoothing)
            for size in sizes
        }

    def study(self, folder: str, name: str, *, smoothed: bool = False) -> Study:
        """The study of one defense: under the paper's attacks, or along smoothed gradients."""
        defense, count = self.defense(name), self.budget.count
        return Study(
            self.out / folder,
            defenses={name: defense},
            attacks=self.smoothed() if smoothed else self.attacks(defense),
            images=self.data.images[:count],
            labels=self.data.labels[:count],
            protocol=Protocol(eot_samples=self.budget.eot, judge_draws=self.budget.judge, most_draws=self.budget.judge_most),
            seeds=(self.seed,),
            shard_size=self.budget.together,
            about={"data": f"{self.data.name}, {self.data.split}", "command": self.command},
        )


def load_at_most(profile: Profile, split: str, limit: int, *, root: Path | None, seed: int) -> zoo.ImageData:
    """So many images of a split of the profile's data set, or all of them."""
    limit = min(limit, count_images(profile.data, split, root=root))
    return zoo.load_data(profile.data, split, root=root, limit=limit, seed=seed)
