"""One call of the recipe: its generator, encoders and distances, and the classifiers by inversion made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from gencls import zoo
from gencls.core import ClassConditionalGenerator, Defense, GenclsError, ImageDistance, key_of
from gencls.defenses import AnalysisBySynthesis, Direct, Enc
from gencls.eval import Study
from gencls.eval.measures.fid import Penultimate
from gencls.perceptual import Combined, SquaredL2
from gencls.zoo.checkpoints.checkpoint import restore
from gencls.zoo.networks.gans.published import FILE, load_imagenette_biggan
from gencls.zoo.registry import ARCHITECTURES
from gencls.zoo.rows import AUTOATTACK
from recipes.gan_inversion import distances
from recipes.gan_inversion.inversions import Found, Inversion, read, seconds_of_step
from recipes.gan_inversion.settings import DISTANCES, METHODS, Budget, Profile
from recipes.harness import run
from recipes.harness.folders import require_weights
from recipes.harness.settings import flag

BIGGAN = "biggan"
"""The published generator of ImageNet, in the user's folder of weights."""

_OF_BEST = {"selection", "attacks", "doctor"}
"""Parts that need the networks of all candidates for the best setting, whatever is chosen."""

_PROBED = 4


@dataclass(frozen=True, kw_only=True)
class Run(run.Run[Profile, Budget]):
    """One call of the recipe of GAN inversion.

    Attributes:
        methods: inference methods of the main tables; empty for all.
        chosen: distances of the main tables and of Table 3.5; empty for all.
    """

    methods: Sequence[str] = flag(
        "--methods", default=(), nargs="+", action="extend", choices=METHODS, help="of the main tables; default all"
    )
    chosen: Sequence[str] = flag(
        "--distances",
        default=(),
        nargs="+",
        action="extend",
        choices=DISTANCES,
        help="of the main tables and of Table 3.5; default all that the profile has",
    )

    weights_hint = ", and of published networks"

    @classmethod
    def load_data(cls, profile: Profile, limit: int, *, root: Path | None, seed: int) -> zoo.ImageData:
        """Load the images to invert, scaled as the profile says."""
        return _load(profile.data, profile.split, limit, root=root, seed=seed, size=profile.size)

    @property
    def facts(self) -> Mapping[str, str]:
        """Networks and budget."""
        networks = [self.profile.generator, *self.profile.encoders.values(), *self.profile.features.values()]
        return {"Networks": ", ".join(networks), **super().facts}

    def check(self, parts: Sequence[str] | None) -> None:
        """Check that the profile has these parts and distances."""
        if absent := [part for part in parts or () if part not in self.profile.tables]:
            raise GenclsError(f"--parts: expected some of {', '.join(self.profile.tables)}, got {', '.join(absent)}")
        if absent := [name for name in self.chosen if name not in self.distances]:
            raise GenclsError(f"--distances: expected some of {', '.join(self.distances)}, got {', '.join(absent)}")

    def require(self, parts: Sequence[str] = ()) -> None:
        """Check that the weights are there and fit, but for those of methods and distances that were not chosen.

        A distance that only Table 3.5 has may be missing unless the user asks for it.
        """
        published = self.profile.generator == BIGGAN
        encoders = [self.profile.encoders[kind] for kind in self.encoded(parts)]
        names = encoders if published else [self.profile.generator, *encoders]
        needed = {name: self.path(name) for name in names}
        known = {*self.main, *self.chosen, *(self.profile.main if _OF_BEST & {*parts} else ())}
        needed |= {name: self.path(name) for each in known if (name := distances.trained(self.profile, each))}
        more = "; encoders for BigGAN also take --pretrained FOLDER, with its files (docs/weights.md)" if published else ""
        require_weights(needed, self.weights, hint=f"{more}, or choose --methods and --distances")
        if published and not self.path(BIGGAN).is_file():
            raise GenclsError(
                f"expected the published generator at {self.path(BIGGAN)}, got no such file; docs/weights.md says where it "
                "comes from; pass its folder with --weights"
            )
        if (found := self.generator.num_classes) != (wanted := self.data.num_classes):
            where = self.path(self.profile.generator)
            raise GenclsError(f"{where}: expected a generator of {wanted} classes, as {self.data.name} has, got one of {found}")
        for distance in known:
            self.percept(distance)
        if "attacks" in parts:
            beside = {name: self.path(name) for name in self.profile.beside.values() if name != AUTOATTACK}
            require_weights(beside, self.weights, hint=", or choose other --parts")

    def settings(self) -> dict[str, Any]:
        """The generator's weights also tell this run's folder from others."""
        return {**super().settings(), "weights": key_of(self.generator, "generator").content}

    @property
    def distances(self) -> tuple[str, ...]:
        """The distances that the profile has, in the order of Table 3.5."""
        return tuple(name for name in DISTANCES if name in (*self.profile.features, *self.profile.options))

    @property
    def compared(self) -> tuple[str, ...]:
        """The distances of Table 3.5: those that the user chose, or all that are at hand."""
        if self.chosen:
            return tuple(name for name in self.distances if name in self.chosen)
        return tuple(name for name in self.distances if distances.is_here(self.profile, name, self.weights))

    @property
    def main(self) -> tuple[str, ...]:
        """The distances of the main tables that the user chose, or all: the standard one first."""
        return tuple(name for name in self.profile.main if name in (self.chosen or self.profile.main))

    @property
    def inverted(self) -> tuple[str, ...]:
        """The methods that the user chose, or all."""
        return tuple(name for name in METHODS if name in (self.methods or METHODS))

    def encoded(self, parts: Sequence[str]) -> tuple[str, ...]:
        """The encoders that some parts need, of which some have methods of their own."""
        methods = {*self.inverted, *(self.budget.tried_methods if _OF_BEST & {*parts} else ())}
        kinds = {name.removesuffix("+") for name in methods} | {self.profile.encoder_of(part) for part in parts}
        return tuple(kind for kind in self.profile.encoders if kind in kinds)

    def path(self, name: str) -> Path:
        """Where weights lie or should lie."""
        if name != BIGGAN:
            return super().path(name)
        if self.weights is None:
            raise GenclsError(
                f"expected --weights FOLDER with {FILE}, the published generator, got no folder; docs/weights.md says where it "
                "comes from"
            )
        return self.weights / FILE

    def network(self, name: str) -> nn.Module:
        """A trained network, in eval mode on the run's device, its parameters frozen."""
        if name not in self._networks:
            self._networks[name] = self._loaded(name).to(self.device)
        return self._networks[name]

    @cached_property
    def _networks(self) -> dict[str, nn.Module]:
        return {}

    def _loaded(self, name: str) -> nn.Module:
        if name == BIGGAN:
            return load_imagenette_biggan(self.path(name)).eval().requires_grad_(False)
        return zoo.load(name) if name == AUTOATTACK else restore(self.path(name), ARCHITECTURES)[0]

    @cached_property
    def generator(self) -> ClassConditionalGenerator:
        """The generator of the profile."""
        return cast(ClassConditionalGenerator, self.network(self.profile.generator))

    def encoder(self, kind: str) -> nn.Module:
        """The encoder "enc" or "enc-d"."""
        return self.network(self.profile.encoders[kind])

    def percept(self, distance: str) -> ImageDistance | None:
        """The perceptual distance, without pixels; None for pixels alone."""
        if distance not in self._percepts:
            made = distances.make(self.profile, distance, self.weights, self.budget.ensembled)
            self._percepts[distance] = made if made is None else made.to(self.device).eval()
        return self._percepts[distance]

    def perceptual(self, distance: str) -> ImageDistance:
        """The perceptual distance, without pixels.

        Raises:
            GenclsError: for pixels alone.
        """
        percept = self.percept(distance)
        if percept is None:
            raise GenclsError(f"{distance}: expected a perceptual distance, got none")
        return percept

    @cached_property
    def _percepts(self) -> dict[str, ImageDistance | None]:
        return {}

    def distance(self, inversion: Inversion) -> ImageDistance:
        """The D of an inversion (eq. 3.7)."""
        percept = self.percept(inversion.distance)
        return SquaredL2() if percept is None else Combined(SquaredL2(), percept, inversion.percept_weight)

    def classifier(self, inversion: Inversion, **settings: Any) -> AnalysisBySynthesis:
        """The classifier that makes an inversion.

        Args:
            inversion: method, lambda, distance and steps.
            settings: further keyword arguments of :func:`gencls.defenses.Direct` and :func:`gencls.defenses.Enc`.
        """
        base = inversion.method.removesuffix("+")
        given: dict[str, Any] = {"distance": self.distance(inversion), "weight": inversion.weight, "steps": inversion.steps}
        given |= {"blocks": None if inversion.method.endswith("+") else 0, "fast": inversion.fast}
        if base == "direct":
            made = Direct(self.generator, **given, seed=inversion.again, **settings)
        else:
            made = Enc(self.generator, self.encoder(base), **given, **settings)
        return made.to(self.device).eval().requires_grad_(False)

    def found(self, inversion: Inversion, folder: str = "inversions", count: int = 0) -> Found | None:
        """Read an inversion; None until it is finished, by the networks of this run.

        Args:
            inversion: the inversion.
            folder: parent of its folder in the folder of the run.
            count: number of images; 0 takes N.
        """
        where = self.out / folder / inversion.slug
        return read(where, count or len(self.rows), self.networks_of(inversion)) if where.is_dir() else None

    def networks_of(self, inversion: Inversion) -> str:
        """The key of the networks of an inversion: generator, encoder and perceptual distance."""
        kind = inversion.method.removesuffix("+")
        if (chosen := (kind, inversion.distance)) not in self._networks_of:
            encoder = self.encoder(kind) if kind in self.profile.encoders else None
            networks = self.generator, encoder, self.percept(inversion.distance)
            self._networks_of[chosen] = key_of(networks, "networks").content
        return self._networks_of[chosen]

    @cached_property
    def _networks_of(self) -> dict[tuple[str, str], str]:
        return {}

    def finished(self, inversion: Inversion) -> Found:
        """Read an inversion that later parts need.

        Raises:
            GenclsError: while it is not finished.
        """
        found = self.found(inversion)
        if found is None:
            where = self.out / "inversions" / inversion.slug
            raise GenclsError(f"{where}: expected a finished inversion, got none; run the parts before first")
        return found

    @property
    def rows(self) -> range:
        """Positions of the images of the tables: the first N."""
        return range(min(self.budget.count, len(self.data)))

    def seconds(self, inversion: Inversion) -> float:
        """Predict the seconds that one step takes for one image: measured in a few steps on a few images."""
        key = inversion.method, inversion.distance
        if key not in self._seconds:
            probe = Inversion(method=key[0], weight=1.0, distance=key[1], steps=2)
            classifier = self.classifier(probe, **({"starts": 1} if key[0].startswith("direct") else {}))
            self._seconds[key] = seconds_of_step(classifier, self.images(_PROBED))
        return self._seconds[key]

    @cached_property
    def _seconds(self) -> dict[tuple[str, str], float]:
        return {}

    @cached_property
    def real(self) -> zoo.ImageData:
        """Training images for KID and FID."""
        profile, limit = self.profile, self.budget.real
        return _load(profile.data, profile.splits[0], limit, root=self.root, seed=self.seed, size=profile.size)

    @cached_property
    def judge(self) -> Penultimate:
        """The features of KID and FID."""
        return Penultimate(self.network(self.profile.judge))

    @cached_property
    def real_features(self) -> Tensor:
        """Features (M, d) of the training images, on the CPU."""
        return self.judge.describe(self.real.images)

    def beside(self, name: str, **settings: Any) -> Defense:
        """A defense under the same attacks."""
        trained = self.profile.beside[name]
        weights = {} if trained == AUTOATTACK else {"weights": self.path(trained)}
        return zoo.load(trained, **weights, **settings).to(self.device)

    def plan(self, folder: str, **settings: Any) -> Study:
        """Plan a study. The part of the folder's name before the defense's is the gradient mode, if it is one."""
        mode = folder.split("/")[1]
        return Study(self.out / folder, modes=(mode,) if mode in ("warm", "frozen", "unrolled", "exact") else None, **settings)


def _load(name: str, split: str, limit: int, *, root: Path | None, seed: int, size: int | None) -> zoo.ImageData:
    limit = min(limit, zoo.data.count_images(name, split, root=root))
    return zoo.load_data(name, split, root=root, limit=limit, seed=seed, size=size)
