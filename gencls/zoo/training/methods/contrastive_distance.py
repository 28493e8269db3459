"""Training of a feature distance on reconstructions: of the own class they become closer than of other classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import ClassConditionalGenerator, GenclsError
from gencls.core.streams.seeds import seeded
from gencls.defenses.synthesis.regularizers import SquaredNorm
from gencls.defenses.synthesis.starts import EncodedStart, RandomStarts
from gencls.perceptual import FeatureDistance
from gencls.zoo.checkpoints.places import weights_in
from gencls.zoo.data import ImageData
from gencls.zoo.distances import feature_layers
from gencls.zoo.networks import CifarPreActResNet
from gencls.zoo.trained import trained_network
from gencls.zoo.training.base import Moment, NetworkPreset, NetworkTraining, Steps
from gencls.zoo.training.measure import measured_part
from gencls.zoo.training.methods.features import PRESETS as FEATURES
from gencls.zoo.training.methods.features import under_corruptions
from gencls.zoo.training.methods.reconstructions import ShortInversion, Sources, ranked_classes
from gencls.zoo.training.views.corruptions import Corruptions

_STARTS = 300  # random codes of Direct
_INVERTED = 100  # most test images that the card's measurement inverts
_CHUNK = 20


class ContrastiveDistanceTraining(NetworkTraining):
    """A feature distance D learns which reconstruction of an image is that of its own class y.

    Each image is inverted by its class and by rivals, with the distance as it stands. As in adversarial training, the inner
    optimisation is the opponent. Then the network descends on

        -log [ exp(-r_y / t) / sum_k exp(-r_k / t) ] + class_weight CE(f(T(x)), y),     r_k = D(x, x_k) / mean_j D(x, x_j),

    with t the temperature, f the network as a classifier and T the perturbation. The mean is a constant for the gradient, so t
    needs no unit. The second term keeps what the features were. The statistics of batch norm stay those of the start, because
    a distance is asked one image at a time.

    Source: an idea of the GAN-inversion thesis, section 3.5, which has no formula and no experiment. The loss is InfoNCE (van
    den Oord et al. 2018, arXiv:1807.03748) over the reconstructions of one image.

    Args:
        network: the network of the distance, images to logits (N, K); its weights come from the sources.
        sources: makes the trained networks; it is called in the first step. A run that is resumed keeps its own weights.
        inversion: how images are inverted.
        rivals: number of other classes per image, the closest ones before inversion; None takes all.
        temperature: t, > 0.
        class_weight: weight of the classification, >= 0.

    Raises:
        GenclsError: for settings out of range; in the first step, for features or a generator of another number of classes than
            the network's, or a generator of other images.
    """

    network: nn.Module
    started: Tensor
    """Whether the network has the weights that it starts from."""

    def __init__(
        self,
        network: nn.Module,
        sources: Callable[[], Sources],
        *,
        inversion: ShortInversion | None = None,
        rivals: int | None = 3,
        temperature: float = 0.1,
        class_weight: float = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if temperature <= 0 or class_weight < 0 or (rivals is not None and rivals < 1):
            raise GenclsError(
                "contrastive distance: expected temperature > 0, class_weight >= 0 and rivals >= 1 or None, got "
                f"{temperature}, {class_weight} and {rivals}"
            )
        distance = FeatureDistance(network, feature_layers(network))
        self.network = distance.network.requires_grad_(True).train()  # the copy in the distance is the one that learns
        self._distance = (distance,)  # its network is registered above
        self.sources = sources
        self.inversion = inversion or ShortInversion()
        self.rivals = rivals
        self.temperature = temperature
        self.class_weight = class_weight
        self.register_buffer("started", torch.tensor(False))
        self._made: tuple[Sources, ...] = ()  # no part of the training's state

    @property
    def distance(self) -> FeatureDistance:
        """D, as it stands."""
        return self._distance[0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        sources = self._begun(images)
        self.network.eval()
        made = self._reconstructions(sources, images, labels)
        distances = self.distance.to_each(images, made)  # (N, M), the own class first
        relative = distances / distances.mean(1, keepdim=True).detach()
        own = torch.zeros_like(labels)
        contrast = F.cross_entropy(-relative / self.temperature, own)
        logits = self.network(self.perturbation(self.network, images, labels, epoch=at.epoch))
        loss = contrast + self.class_weight * F.cross_entropy(logits, labels)
        nearest = (distances.argmin(1) == 0).float().mean()
        yield loss, {"loss": loss, "contrast": contrast, "nearest": nearest, "in-domain": distances[:, 0].mean()}

    def _begun(self, images: Tensor) -> Sources:
        """The sources, and in the very first step their features as weights."""
        if not self._made:
            sources = self.sources()
            classes = [getattr(part, "num_classes", None) for part in (self.network, sources.features, sources.generator)]
            if len(set(classes)) > 1:
                raise GenclsError(
                    "contrastive distance: expected one number of classes, got {} of the data, {} of the features that it "
                    "starts from and {} of the generator".format(*classes)
                )
            self._made = (sources,)
            sources.generator.to(images.device)
            if isinstance(sources.start, nn.Module):
                sources.start.to(images.device)
            if not bool(self.started):
                self.network.load_state_dict(sources.features.state_dict())
                self.started.fill_(True)
        return self._made[0]

    def _reconstructions(self, sources: Sources, images: Tensor, labels: Tensor) -> Tensor:
        """Reconstructions by the own class and its rivals, (N, 1 + M, C, H, W)."""
        codes, ranked = ranked_classes(sources, images, self.distance)
        others = ranked.masked_fill(F.one_hot(labels, ranked.shape[1]).bool(), -1.0)  # the own class comes first
        count = ranked.shape[1] if self.rivals is None else min(1 + self.rivals, ranked.shape[1])
        classes = others.topk(count, dim=1, largest=False).indices
        rows = torch.arange(len(images), device=images.device).unsqueeze(1)
        chosen = tuple(level[rows, classes] for level in codes)
        return self.inversion(images, classes, chosen, sources.generator, self.distance)


def nearest_reconstructions(
    network: nn.Module, sources: Sources, images: Tensor, labels: Tensor, inversion: ShortInversion
) -> tuple[float, float]:
    """Invert images (N, C, H, W) by all classes, with the feature distance of a network in eval mode.

    Returns:
        The share of images whose nearest reconstruction is that of their label, (N,), and the mean of the distance to the
        nearest other class over that to the own class.
    """
    distance = FeatureDistance(network, feature_layers(network))
    found = []
    for part in images.split(_CHUNK):
        codes, shape = ranked_classes(sources, part, distance)
        classes = torch.arange(shape.shape[1], device=part.device).expand(len(part), -1)
        made = inversion(part, classes, codes, sources.generator, distance)
        with torch.no_grad():
            found.append(distance.to_each(part, made))
    distances = torch.cat(found)
    own = distances.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = distances.scatter(1, labels.unsqueeze(1), torch.inf).amin(1)
    return float((own < others).float().mean()), float((others / own).mean())


@dataclass(frozen=True, kw_only=True)
class ContrastiveDistancePreset(NetworkPreset):
    """Training of a feature distance on reconstructions.

    Attributes:
        features: name of the training of the network that it starts from.
        generator: name of the training of the conditional GAN.
        encoder: name of the training of the encoder whose codes inversion starts from (Enc or Enc-D); None starts from the best
            of 300 random codes (Direct).
        inversion: how images are inverted in training.
        weights: the folder of ``gencls train --out`` with the weights of these networks; what it lacks is taken from the
            committed ones, and None takes all of them.
        rivals: this and the attributes below are those of :class:`ContrastiveDistanceTraining`.
    """

    features: str
    generator: str
    encoder: str | None
    weights: Path | None = None
    inversion: ShortInversion = ShortInversion()
    rivals: int | None = 3
    temperature: float = 0.1
    class_weight: float = 1.0

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments are those of the features that it starts from."""
        return next(preset.arguments for preset in FEATURES if preset.name == self.features)

    @property
    def options(self) -> tuple[str, ...]:
        return () if self.weights is None else (f"--pretrained {self.weights.name}",)

    def starting_from(self, pretrained: Path) -> Self:
        """The same training from the networks of this folder.

        Raises:
            GenclsError: for a path that is no folder.
        """
        if not pretrained.is_dir():
            raise GenclsError(f"{self.name}: expected a folder with the weights of {self.features}, got {pretrained}")
        return replace(self, weights=pretrained)

    @property
    def recipe(self) -> str:
        start = "the best of 300 random codes" if self.encoder is None else f"the codes of {self.encoder}"
        rivals = "all other classes" if self.rivals is None else f"the {self.rivals} nearest other classes"
        return (
            f"{self.duration}, Adam from learning rate {self.learning_rate} along a cosine to 0, from the weights of "
            f"{self.features}; each image inverted by its class and {rivals} in {self.generator} from {start} with "
            f"{self.inversion}, temperature {self.temperature}; classification with weight {self.class_weight} of images: "
            f"{self.perturbation}"
        )

    def training(self, num_classes: int) -> ContrastiveDistanceTraining:
        return ContrastiveDistanceTraining(
            CifarPreActResNet(**self.card_arguments(num_classes)),
            self.sources,
            **self.chosen("inversion", "rivals", "temperature", "class_weight"),
            **self.shared,
        )

    def sources(self) -> Sources:
        """The trained networks.

        Raises:
            GenclsError: for weights that are missing, naming the command that makes them.
        """
        features = trained_network(CifarPreActResNet, self.features, weights_in(self.weights, self.features))
        kind: Any = ClassConditionalGenerator  # which is abstract
        generator = trained_network(kind, self.generator, weights_in(self.weights, self.generator))
        if self.encoder is None:
            return Sources(features, generator, RandomStarts(generator, SquaredNorm(), 0.0, count=_STARTS, seed=0))
        encoder = trained_network(nn.Module, self.encoder, weights_in(self.weights, self.encoder))
        return Sources(features, generator, EncodedStart(encoder, generator))

    def measure(self, network: nn.Module, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure the network as a classifier, and the distance on reconstructions, beside the distance it started from."""
        figures = super().measure(network, tests, few=few) | under_corruptions(network, tests[-1], few)
        images, labels, where = measured_part(tests[-1], min(few, _INVERTED))
        sources = self.sources()
        with seeded(0):
            for name, part in ((self.features, sources.features), (self.name, network)):
                for steps in (self.inversion.steps, 5 * self.inversion.steps):
                    inversion = replace(self.inversion, steps=steps)
                    right, ratio = nearest_reconstructions(part, sources, images, labels, inversion)
                    described = f"features of {name}, {steps} steps, {where}"
                    figures[f"accuracy by the nearest reconstruction, {described}"] = round(right, 6)
                    figures[f"distance to the nearest other class over that to the own, {described}"] = round(ratio, 6)
        return figures


def _preset(name: str, data: str) -> ContrastiveDistancePreset:
    start = next(preset for preset in FEATURES if preset.name == f"features-corruptions-{name}")
    return ContrastiveDistancePreset(
        name=f"contrastive-{name}",
        what="PreActResNet for feature distances, trained contrastively on reconstructions (an idea of thesis section 3.5)",
        data=data,
        perturbation=Corruptions(),
        shape=start.shape,
        epochs=1,
        batch_size=16,
        learning_rate=3e-4,
        features=start.name,
        generator=f"cgan-{name}",
        encoder=f"enc-d-{name}",
    )


PRESETS: tuple[ContrastiveDistancePreset, ...] = (
    _preset("fashion", "fashion-mnist"),
    _preset("mnist", "mnist-embedded"),
    _preset("cifar10", "cifar10"),
)
