"""Lightning modules: a classifier and class-conditional autoencoders."""

import math
from abc import ABC, abstractmethod
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.streams.seeds import stream_seed
from gencls.zoo.networks import ClassConditionalAutoencoder
from gencls.zoo.training.views.perturbations import Perturbation

__all__ = ["AutoencoderTraining", "ClassifierTraining", "NetworkTraining", "divergence", "squared_error"]


class NetworkTraining(lightning.LightningModule, ABC):
    """What all trainings share: Adam, a learning rate that falls to zero along a cosine, and one random stream per step.

    Each step begins with a seed of its own, so that a training that was stopped and resumed ends with the same weights
    as one that was not.

    Args:
        perturbation: of the training images.
        learning_rate: of Adam, at the start.
        seed: of the training.
        description: of all settings; a checkpoint with another one is refused.

    Attributes:
        extendable: whether the first epochs of a long training are those of a short one, so that it can go on.
        replannable: whether it can go on after its last epoch at the rates of a longer training. The result is that of neither
            training alone, so its card names both commands.
        planned: numbers of epochs that it was planned with, one after the other; the last one is that of this run.
    """

    extendable = False
    replannable = False
    planned: tuple[int, ...] = ()

    def __init__(self, *, perturbation: Perturbation, learning_rate: float, seed: int, description: str = "") -> None:
        super().__init__()
        self.perturbation = perturbation
        self.learning_rate = learning_rate
        self.seed = seed
        self.description = description

    @property
    @abstractmethod
    def product(self) -> nn.Module:
        """The network that is saved."""

    @property
    def restart_epochs(self) -> float:
        """After so many epochs the learning rate has fallen to zero and starts once more."""
        return 0.0

    def configure_optimizers(self) -> Any:
        """Adam with a cosine schedule over all steps."""
        optimizer = self.new_optimizer()
        total = self.trainer.estimated_stepping_batches
        restart = self._restart_step(total / (self.trainer.max_epochs or 1))

        def factor(step: int) -> float:
            share = step / restart if step < restart else (step - restart) / (total - restart)
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameter_groups(), lr=self.learning_rate)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser learns, and at which rates."""
        return [{"params": list(self.parameters())}]

    def finish(self) -> None:  # noqa: B027 (most trainings have nothing to do)
        """What remains to be done with the network after the last step."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the settings, see :func:`gencls.zoo.training.resume.check_resumable`."""
        checkpoint["description"] = self.description
        checkpoint["planned_epochs"] = list(self.planned)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin the random stream of this step; where the rate starts once more, Adam forgets the gradients of another loss."""
        torch.manual_seed(stream_seed(self.seed, "step", self.global_step))
        if self.restart_epochs > 0 and self.global_step == self._restart_step(self.trainer.num_training_batches):
            self.optimizers(use_pl_optimizer=False).state.clear()  # type: ignore[union-attr]

    def _restart_step(self, steps_per_epoch: float) -> int:
        """The first step after ``restart_epochs``; rounded before, because a share of the epochs is no exact number."""
        return math.ceil(round(self.restart_epochs * steps_per_epoch, 6))

    def epochs_passed(self, batch_index: int) -> float:
        """Epochs since the start, with the fraction of the current one."""
        return self.current_epoch + batch_index / self.trainer.num_training_batches


class ClassifierTraining(NetworkTraining):
    """Cross-entropy on perturbed images.

    Args:
        network: images to logits (N, K).
        perturbation: see :class:`NetworkTraining`; the others likewise.
        learning_rate: there.
        seed: there.
        description: there.
    """

    replannable = True

    def __init__(
        self, network: nn.Module, *, perturbation: Perturbation, learning_rate: float, seed: int, description: str = ""
    ) -> None:
        super().__init__(perturbation=perturbation, learning_rate=learning_rate, seed=seed, description=description)
        self.network = network

    @property
    def product(self) -> nn.Module:
        """The network that is saved."""
        return self.network

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1] and labels (N,)."""
        images, labels = batch
        images = self.perturbation(self.network, images, labels, epoch=self.epochs_passed(batch_index))
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({"loss": loss, "accuracy": accuracy}, prog_bar=True, batch_size=len(labels))
        return loss


class AutoencoderTraining(NetworkTraining):
    """Algorithm 1 of the thesis, with each of its extensions to ABS as a switch.

    An encoded image is decoded by its class; encoders and decoders descend on (eq. 2.5)

        c(x, G_y(z)) + beta prior(z) - gamma log [exp -c(x, G_y(z)) / sum_k exp -c(x, G_k(z))],        z ~ Q(z | x),

    with c the squared error. The prior term is -log D(z) where the network has discriminators (extension A), and
    KL[Q(z | x) || N(0, 1)] where it has none (ABS). Extension D is gamma > 0 with a shared encoder. Discriminators descend on
    -beta [log D(z~) + log(1 - D(z))] with z~ from the prior. Algorithm 1 does so after the other update but on the same z, and
    neither loss has gradients of the other's weights: one optimiser step on their sum is the same.

    Before all this the shared encoder may learn as the CNN of Table 2.1, with a linear layer that is dropped afterwards:
    Algorithm 1 leaves open how parameters are initialised. docs/reproduction/eabs-settings.md has what is known of its effect.

    Args:
        network: the perturbed image is both what it encodes and what it reconstructs.
        beta: weight of the prior term.
        gamma: weight of the discriminative loss; 0 leaves it out, and an image is then decoded by its own class only.
        classifier_epochs: epochs at the start in which only the encoder learns, as a classifier.
        generative_epochs: epochs after them without the discriminative loss. They are not in the thesis: with one decoder
            per image such an epoch costs a fifth to an eighth, and generative quality is what takes the most epochs.
        discriminator_rate: learning rate of the discriminators as a multiple of the others'; not given in the thesis.
        perturbation: see :class:`NetworkTraining`; the others likewise.
        learning_rate: there.
        seed: there.
        description: there.

    Raises:
        GenclsError: for gamma > 0 without a shared encoder: the prior term would not cancel in eq. 2.4; for classifier_epochs
            > 0 without one: an encoder of one class has nothing to tell apart.
    """

    def __init__(
        self,
        network: ClassConditionalAutoencoder,
        *,
        perturbation: Perturbation,
        learning_rate: float,
        seed: int,
        description: str = "",
        beta: float = 1.0,
        gamma: float = 0.0,
        classifier_epochs: float = 0.0,
        generative_epochs: float = 0.0,
        discriminator_rate: float = 1.0,
    ) -> None:
        super().__init__(perturbation=perturbation, learning_rate=learning_rate, seed=seed, description=description)
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
        """The autoencoder, whose encoder variational inference also starts from; of plain ABS its decoders."""
        extended = self.network.shared_encoder or self.network.adversarial
        return self.network if extended else self.network.decoders

    @property
    def restart_epochs(self) -> float:
        """The classifier's epochs have a cosine of their own."""
        return self.classifier_epochs

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The discriminators learn at a rate of their own."""
        learned_apart = {id(parameter) for parameter in self.network.discriminators.parameters()}
        others = [parameter for parameter in self.parameters() if id(parameter) not in learned_apart]
        groups: list[dict[str, Any]] = [{"params": others}]
        if learned_apart:
            rate = self.learning_rate * self.discriminator_rate
            groups.append({"params": list(self.network.discriminators.parameters()), "lr": rate})
        return groups

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1] and labels (N,)."""
        images, labels = batch
        if not self.network.shared_encoder:  # batch norm cannot learn from a single image of a class
            several = labels.bincount()[labels] > 1
            images, labels = images[several], labels[several]
        epoch = self.epochs_passed(batch_index)
        images = self.perturbation(self.network, images, labels, epoch=epoch)
        if epoch < self.classifier_epochs:
            loss = F.cross_entropy(self.head(self.network.features(images)), labels)
            self.log_dict({"loss": loss}, prog_bar=True, batch_size=len(labels))
            return loss
        mean, log_variance, others = self._encode(images, labels)
        latents = _sample(mean, log_variance)
        if self.gamma > 0 and epoch >= self.classifier_epochs + self.generative_epochs:
            errors = squared_error(images.unsqueeze(1), self.network.decode_all(latents))
            error = errors.gather(1, labels.unsqueeze(1)).squeeze(1)
            discriminative = F.cross_entropy(errors.neg(), labels)
        else:
            error = squared_error(images, self.network.decode(latents, labels))
            discriminative = error.new_zeros(())
        prior = self._prior(mean, log_variance, latents, labels)
        figures = {"error": error.mean(), "prior": prior.mean(), "discriminative": discriminative}
        loss = figures["error"] + self.beta * figures["prior"] + self.gamma * discriminative
        if self.network.adversarial:
            figures["discriminator"] = self._discriminator_loss(latents, labels, others)
        self.log_dict({"loss": loss, **figures}, prog_bar=True, batch_size=len(labels))
        return loss + self.beta * figures["discriminator"] if self.network.adversarial else loss

    def _encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Q(z | x) by the encoder of each image's class; and latents of the images by an encoder of another class.

        "Training discriminators with both in-distribution samples and out-of-distribution samples improves the model's
        performance" (thesis, section 2.3, of A-ABS). The labels of the batch in another order say which encoder.
        """
        if self.network.shared_encoder or not self.network.adversarial:
            return *self.network.encode(images, labels), None
        other = labels[torch.randperm(len(labels), device=labels.device)]
        # In one pass: batch norm then sees what each encoder is asked for at test time, images of all classes.
        mean, log_variance = self.network.encode(images.repeat(2, 1, 1, 1), torch.cat([labels, other]))
        count = len(labels)
        others = _sample(mean[count:], log_variance[count:]).detach(), other
        return mean[:count], log_variance[:count], others

    def _prior(self, mean: Tensor, log_variance: Tensor, latents: Tensor, labels: Tensor) -> Tensor:
        """The prior term, (N,)."""
        if not self.network.adversarial:
            return divergence(mean, log_variance)
        return -F.logsigmoid(self.network.discriminate(latents, labels, frozen=True))

    def _discriminator_loss(self, latents: Tensor, labels: Tensor, others: tuple[Tensor, Tensor] | None) -> Tensor:
        """-log D(z~) - log(1 - D(z)), where log(1 - D) = log sigmoid(-logit)."""
        encoded = latents.detach()
        if others is not None:
            encoded, labels = torch.cat([encoded, others[0]]), torch.cat([labels, others[1]])
        real = self.network.discriminate(torch.randn_like(encoded), labels, frozen=False)
        fake = self.network.discriminate(encoded, labels, frozen=False)
        return -(F.logsigmoid(real) + F.logsigmoid(-fake)).mean()


def _sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One latent per distribution, by reparameterisation."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


def squared_error(images: Tensor, reconstructions: Tensor) -> Tensor:
    """c(x, G(z)) = ||x - G(z)||_2^2, summed over channels and pixels: (..., C, H, W) to (...), broadcasting."""
    return (images - reconstructions).square().sum(dim=(-3, -2, -1))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL[N(mean, variance) || N(0, 1)] of diagonal Gaussians: (N, d) to (N,)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1)
