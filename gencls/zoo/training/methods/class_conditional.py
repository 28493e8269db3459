"""Training of class-conditional autoencoders: ABS, E-ABS and what lies between (thesis, Algorithm 1 and Table 2.6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.streams.seeds import seeded
from gencls.zoo.data import ImageData
from gencls.zoo.networks import ClassConditionalAutoencoder, CodePosterior
from gencls.zoo.networks.parts.gaussians import divergence
from gencls.zoo.rows import abs_of, eabs_of
from gencls.zoo.training.base import Moment, NetworkTraining, Steps, TablePreset
from gencls.zoo.training.functional import squared_error
from gencls.zoo.training.measure import accuracy, measured_part
from gencls.zoo.training.thesis import DATA_SETS, ThesisData
from gencls.zoo.training.views.perturbations import AddedNoise, Plain
from gencls.zoo.training.views.random_views import RandomViews


class ClassConditionalTraining(NetworkTraining):
    """Algorithm 1 of the thesis; each of its extensions to ABS is a switch.

    The decoder of its class decodes an encoded image. Encoders and decoders descend on (eq. 2.5)

        c(x, G_y(z)) + beta prior(z) - gamma log [exp -c(x, G_y(z)) / sum_k exp -c(x, G_k(z))],        z ~ Q(z | x),

    with c the squared error. The prior term is -log D(z) if the network has discriminators (extension A), else
    KL[Q(z | x) || N(0, 1)] (ABS). Extension D is gamma > 0 with a shared encoder. Discriminators descend on
    -beta [log D(z~) + log(1 - D(z))] with z~ from the prior. Algorithm 1 updates them after the others but on the same z, and
    neither loss has gradients of the other's weights. So one optimiser step on the sum of both losses is the same.

    Before that, the shared encoder may learn as the CNN of Table 2.1, with a linear layer that is dropped afterwards. Algorithm
    1 leaves open how parameters are initialised. docs/reproduction/eabs-settings.md says what is known of the effect.

    Args:
        network: the autoencoder. It encodes the perturbed image, and reconstructs the same perturbed image.
        beta: weight of the prior term.
        gamma: weight of the discriminative loss; 0 leaves it out, and an image is then decoded by its own class only.
        classifier_epochs: epochs at the start in which only the encoder learns, as a classifier.
        generative_epochs: epochs after these without the discriminative loss. The thesis has none. With one decoder per image
            such an epoch costs a fifth to an eighth, and generative quality takes the most epochs.
        discriminator_rate: learning rate of the discriminators as a multiple of the others'; the thesis does not give it.

    Raises:
        GenclsError: for gamma > 0 without a shared encoder, because the prior term would not cancel in eq. 2.4; for
            classifier_epochs > 0 without one, because an encoder of one class has nothing to tell apart.
    """

    network: ClassConditionalAutoencoder

    def __init__(
        self,
        network: ClassConditionalAutoencoder,
        *,
        beta: float = 1.0,
        gamma: float = 0.0,
        classifier_epochs: float = 0.0,
        generative_epochs: float = 0.0,
        discriminator_rate: float = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        for what, needed in (("a discriminative loss", gamma > 0), ("classifier epochs", classifier_epochs > 0)):
            if needed and not network.shared_encoder:
                raise GenclsError(f"{what}: expected one encoder for all classes, got {len(network.encoders)}")
        self.network = network
        self.classifier_epochs = classifier_epochs
        self.generative_epochs = generative_epochs
        if classifier_epochs > 0:
            self.head = nn.Linear(network.features.out_features, network.num_classes)
        self.beta = beta
        self.gamma = gamma
        self.discriminator_rate = discriminator_rate

    @property
    def product(self) -> nn.Module:
        """The autoencoder, whose encoder also gives variational inference its starts; for plain ABS the decoders alone."""
        extended = self.network.shared_encoder or self.network.adversarial
        return self.network if extended else self.network.decoders

    @property
    def restart_epochs(self) -> float:
        """The epochs of the classifier have their own cosine."""
        return self.classifier_epochs

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The discriminators learn at their own rate."""
        learned_apart = list(self.network.discriminators.parameters())
        apart = {id(parameter) for parameter in learned_apart}
        groups: list[dict[str, Any]] = [{"params": [each for each in self.parameters() if id(each) not in apart]}]
        if learned_apart:
            groups.append({"params": learned_apart, "lr": self.learning_rate * self.discriminator_rate})
        return groups

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        if not self.network.shared_encoder:  # batch norm cannot learn from a single image of a class
            several = labels.bincount()[labels] > 1
            images, labels = images[several], labels[several]
        images = self.perturbation(self.network, images, labels, epoch=at.epoch)
        if at.epoch < self.classifier_epochs:
            loss = F.cross_entropy(self.head(self.network.features(images)), labels)
            yield loss, {"loss": loss}
            return
        mean, log_variance, others = self._encode(images, labels)
        latents = CodePosterior(mean, log_variance).sample()
        if self.gamma > 0 and at.epoch >= self.classifier_epochs + self.generative_epochs:
            errors = squared_error(images.unsqueeze(1), self.network.decode_all(latents))
            error = errors.gather(1, labels.unsqueeze(1)).squeeze(1)
            discriminative = F.cross_entropy(errors.neg(), labels)
        else:
            error = squared_error(images, self.network.decode(latents, labels))
            discriminative = error.new_zeros(())
        if self.network.adversarial:
            prior = -F.logsigmoid(self.network.discriminate(latents, labels, frozen=True))
        else:
            prior = divergence(mean, log_variance)
        figures = {"error": error.mean(), "prior": prior.mean(), "discriminative": discriminative}
        loss = figures["error"] + self.beta * figures["prior"] + self.gamma * discriminative
        figures["loss"] = loss
        if self.network.adversarial:
            figures["discriminator"] = self._discriminator_loss(latents, labels, others)
            loss = loss + self.beta * figures["discriminator"]
        yield loss, figures

    def _encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Q(z | x) by the encoder of each image's class; and latents of the images by an encoder of another class.

        "Training discriminators with both in-distribution samples and out-of-distribution samples improves the model's
        performance" (thesis, section 2.3, on A-ABS). The labels of the batch in another order choose these encoders.
        """
        if self.network.shared_encoder or not self.network.adversarial:
            return *self.network.encode(images, labels), None
        other = labels[torch.randperm(len(labels), device=labels.device)]
        # One pass for both: batch norm then sees images of all classes, as each encoder does at test time.
        mean, log_variance = self.network.encode(images.repeat(2, 1, 1, 1), torch.cat([labels, other]))
        count = len(labels)
        others = CodePosterior(mean[count:], log_variance[count:]).sample().detach(), other
        return mean[:count], log_variance[:count], others

    def _discriminator_loss(self, latents: Tensor, labels: Tensor, others: tuple[Tensor, Tensor] | None) -> Tensor:
        """-log D(z~) - log(1 - D(z)), where log(1 - D) = log sigmoid(-logit)."""
        encoded = latents.detach()
        if others is not None:
            encoded, labels = torch.cat([encoded, others[0]]), torch.cat([labels, others[1]])
        real = self.network.discriminate(torch.randn_like(encoded), labels, frozen=False)
        fake = self.network.discriminate(encoded, labels, frozen=False)
        return -(F.logsigmoid(real) + F.logsigmoid(-fake)).mean()


@dataclass(frozen=True, kw_only=True)
class ClassConditionalPreset(TablePreset):
    """Training of class-conditional autoencoders (Algorithm 1): ABS, E-ABS and what lies between (Table 2.6).

    Attributes:
        adversarial: extension A, latent discriminators instead of the KL divergence.
        discriminative: extension D, a shared encoder and the discriminative loss.
        beta: weight of the prior term, see :class:`ClassConditionalTraining`; 1 in the thesis.
        gamma: weight of the discriminative loss, if the training has it; 10 in the thesis.
        classifier_share: share of the epochs, at the start, in which only the shared encoder learns, as a classifier.
        generative_share: share of the epochs, after those, without the discriminative loss; 0 in the thesis.
        discriminator_rate: learning rate of the discriminators as a multiple of the others'.
    """

    adversarial: bool
    discriminative: bool
    beta: float = 1.0
    gamma: float = 10.0
    classifier_share: float = 0.0
    generative_share: float = 0.0
    discriminator_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = self.classifier_share, self.generative_share
        if min(shares) < 0 or sum(shares) > 1 or self.classifier_share == 1:
            raise GenclsError(
                f"{self.name}: expected shares of the epochs, classifier_share < 1, together at most 1, got {shares}"
            )

    @property
    def recipe(self) -> str:
        prior = f"beta {self.beta}"
        if self.adversarial:
            prior += f" on latent discriminators that learn at {self.discriminator_rate} times the rate"
        loss = ""
        if self.discriminative:
            begins = self.classifier_share + self.generative_share
            loss = f", a shared encoder, gamma {self.gamma}" + (f" after {begins:.0%} of the epochs" if begins else "")
            if self.classifier_share:
                loss += f"; in the first {self.classifier_share:.0%} of the epochs the encoder learns as a classifier"
        return f"{super().recipe}, {prior}{loss}"

    @property
    def extended(self) -> bool:
        """Whether there is more than one VAE per class. Then the autoencoder is saved, else its decoders alone."""
        return self.adversarial or self.discriminative

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        extensions = {"shared_encoder": self.discriminative, "adversarial": self.adversarial}
        return super().card_arguments(num_classes) | (extensions if self.extended else {})

    def training(self, num_classes: int) -> ClassConditionalTraining:
        return ClassConditionalTraining(
            ClassConditionalAutoencoder.from_architecture(**self.card_arguments(num_classes)),
            beta=self.beta,
            gamma=self.gamma if self.discriminative else 0.0,
            classifier_epochs=self.classifier_share * self.epochs,
            generative_epochs=self.generative_share * self.epochs,
            discriminator_rate=self.discriminator_rate,
            **self.shared,
        )

    def measure(self, network: Any, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure the clean accuracy of ABS or E-ABS with the network and default settings, on a part of the last test set."""
        images, labels, where = measured_part(tests[-1], few)
        kind, defense = ("variational", eabs_of(network)) if self.extended else ("point", abs_of(network))
        with seeded(0):
            return {f"clean accuracy by {kind} inference, {where}": accuracy(defense, images, labels)}


# Table 2.6: (A, D). Extension V changes the inference, not the training.
_EXTENSIONS = {"abs": (False, False), "a-abs": (True, False), "d-abs": (False, True), "eabs": (True, True)}

_WITHOUT_NOISE = (
    ", without the noise of the thesis: on 300 MNIST test digits ABS had, after 3 epochs, 87 % with noise 0.2 and 89 % without"
)


def _preset(name: str, data: ThesisData) -> ClassConditionalPreset:
    adversarial, discriminative = _EXTENSIONS[name]
    parts = ["a latent discriminator"] * adversarial + ["a shared encoder with the discriminative loss"] * discriminative
    what = f"ABS with {' and '.join(parts)} (thesis, section 2.2)" if parts else "ABS: one VAE per class (thesis, section 2.1)"
    signs = data.long > 1
    schedule: dict[str, Any] = {"epochs": round(15 * data.long), "batch_size": 64 if signs else 256, "learning_rate": 5e-3}
    if discriminative and signs:
        schedule = {"epochs": 50, "batch_size": 64, "learning_rate": 1.5e-3, "classifier_share": 1 / 5}
    elif discriminative:
        schedule = {"epochs": 15, "batch_size": 128, "learning_rate": 3e-3, "generative_share": 0.75}
    noise = RandomViews(sigma=data.noise) if signs else AddedNoise(sigma=data.noise, clip=False)
    plain = (name, data.name) == ("abs", "mnist")
    return ClassConditionalPreset(
        name=f"{name}-{data.name}",
        what=what + _WITHOUT_NOISE * plain,
        data=data.data,
        architecture=data.architecture,
        perturbation=Plain() if plain else noise,
        dropout=0.1 if discriminative else 0.0,
        adversarial=adversarial,
        discriminative=discriminative,
        discriminator_rate=0.1 if signs else 1.0,
        **schedule,
    )


PRESETS = tuple(_preset(name, data) for data in DATA_SETS for name in _EXTENSIONS)
