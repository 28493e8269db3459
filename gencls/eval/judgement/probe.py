"""A defense is what it declares: it is asked before anything is measured, and again after each attack.

What a defense declares of itself decides how it is attacked and judged. A wrong declaration would end in a wrong number.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, check_labels, declared, seeded
from gencls.core.fingerprint.samples import device_of
from gencls.core.modules.called import check_called
from gencls.eval.scores.behaviour import ROUNDING, Behaviour, Examination, differ, handful, observe, observe_batch
from gencls.eval.scores.forward import scores_of

__all__ = ["Probe", "check_defense", "probe_defense", "undeclared"]


class Probe:
    """A defense whose behaviour is what it declares, and stays so.

    Attributes:
        behaviour: how it must be asked.
        watched: whether draws for a whole batch were seen, so that each forward pass is watched for whose they are.
    """

    def __init__(self, defense: nn.Module, images: Tensor, *, seed: int = 0, behaviour: Behaviour | None = None) -> None:
        """Observe a defense and hold what was seen against what it declares.

        Args:
            defense: see :func:`observe`. It may declare ``stochastic = True`` and ``batch_dependent = True``.
            images: (N, C, H, W) in [0, 1], on the defense's device.
            seed: of the random streams.
            behaviour: what :func:`observe` has seen already; None looks.

        Raises:
            GenclsError: for randomness or dependence on the batch that is not declared.
        """
        self.name = type(defense).__name__
        self.stochastic = declared(defense, "stochastic")
        self.behaviour = behaviour or observe(defense, images, seed=seed)
        self.watched = False
        self._defense, self._seed, self._largest = defense, seed, 0
        self._again = Examination(self.behaviour.judged(defense), handful(images)[:1], seed)
        self._first = self._again.ask("later")
        self._check_declared()

    def _check_declared(self) -> None:
        if self.behaviour.random and not self.stochastic:
            raise undeclared(self.name, repeatable=self.behaviour.repeatable)
        if self.behaviour.batch_dependent and not declared(self._defense, "batch_dependent"):
            raise GenclsError(
                f"{self.name}: expected scores that depend on one image only, got other scores of the same image when the rest "
                "of the batch changed (batch statistics, attention or sorting across the batch); mend that, or declare "
                "batch_dependent = True (for a network: PlainClassifier(network, num_classes, batch_dependent=True)), and each "
                "image is judged alone"
            )

    def check_batch(self, images: Tensor) -> None:
        """Observe a whole batch if it is larger than those before, see :func:`observe_batch`.

        Args:
            images: (N, C, H, W) in [0, 1], on the defense's device, of one forward pass.

        Raises:
            GenclsError: if that shows what is not declared.
        """
        if len(images) > self._largest:
            self.behaviour = observe_batch(self._defense, images, self.behaviour, seed=self._seed)
            self._largest = len(images)
            self._check_declared()

    def draws_are_shared(self) -> None:
        """Take note that a draw was shared by the batch, which the handful of images had not shown."""
        self.behaviour = replace(self.behaviour, shared_draws=True)

    def check_again(self) -> bool:
        """Ask the first image again, with the same random numbers.

        Returns:
            Whether the scores are the same, or this was never expected. If not, the defense is known to have random numbers of
            its own from now on, and is asked image by image.

        Raises:
            GenclsError: if the scores of a defense that declares no randomness are others now: it counts calls, learns, or
                looks at the clock.
        """
        if not self.behaviour.repeatable or not differ(self._first, self._again.ask("later"), ROUNDING):
            return True
        if self.stochastic:
            self.behaviour = replace(self.behaviour, random=True, repeatable=False, shared_draws=True)
            return False
        raise GenclsError(
            f"{self.name}: expected the same scores of the same images with the same random numbers, before an attack and "
            "after it, got others: the defense keeps a state (a counter, a cache, learning, time); a number would depend "
            "on what was asked before"
        )


def undeclared(name: str, *, repeatable: bool = True) -> GenclsError:
    """The error for a defense that draws and does not say so."""
    source = "" if repeatable else ", also with the same random numbers (a generator of its own, a counter, time)"
    return GenclsError(
        f"{name}: expected the same scores at each forward, because stochastic is not set, got others{source}; set "
        "stochastic = True, or wrap it as PlainClassifier(network, num_classes, stochastic=True)"
    )


def check_defense(defense: nn.Module, image: Tensor, labels: Tensor, *, gradients: bool = True) -> None:
    """Check that a defense takes such images and knows these labels.

    Args:
        defense: the module.
        image: (1, C, H, W) in [0, 1].
        labels: int64 (N,).
        gradients: whether an attack will use them, so that no gradient mode may be hidden.

    Raises:
        GenclsError: for training mode, images of another shape, scores that are not (1, K), labels
            beyond K, or a defense with a gradient mode that is called from within and would be hidden.
    """
    name = type(defense).__name__
    check_eval_mode(defense, name=name)
    image = image.to(device_of(defense) or image.device)
    with torch.no_grad(), seeded(0):
        scores: Tensor = check_called(defense, lambda: scores_of(defense, image)) if gradients else scores_of(defense, image)
    check_labels(labels, num_classes=scores.shape[1])


def probe_defense(
    defense: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    behaviour: Behaviour | None = None,
    gradients: bool = True,
) -> Probe:
    """Check a defense, see :func:`check_defense`, and observe how it behaves, see :class:`~gencls.eval.judgement.probe.Probe`.

    Args:
        defense: the module.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        seed: of the random streams.
        behaviour: what :func:`observe` has seen of it already; None looks.
        gradients: whether an attack will use them, so that no gradient mode may be hidden.

    Raises:
        GenclsError: see there.
    """
    if not isinstance(defense, nn.Module):
        name = type(defense).__name__
        raise GenclsError(f"defense: expected a torch.nn.Module, images (N, C, H, W) -> scores (N, K), got {name}")
    images = images[:8].to(device_of(defense) or images.device)
    check_defense(defense, images[:1], labels, gradients=gradients)
    return Probe(defense, images, seed=seed, behaviour=behaviour)
