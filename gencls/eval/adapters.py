"""Models for foreign code: what an adaptive attacker may differentiate of a defense, in the form of other attack libraries.

A library gets the surrogate of a defense: in one gradient mode, averaged over fresh draws if the defense is stochastic,
calibrated, without gradients for parameters. The first images show how the defense must be asked. If it declares that it
depends on the batch, it is asked image by image. If it depends on the batch, or draws, without saying so, it is refused. A
library's report on the model is a claim; :func:`gencls.eval.judge` decides.
The other way round, ``gencls.defenses.PlainClassifier(network, num_classes)`` makes a defense of any foreign network.
"""

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gencls.core import Defense, EoT, GenclsError, check_eval_mode, checked, declared, evaluated, frozen
from gencls.core.devices import device_of
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.judgement.trial import Protocol
from gencls.eval.scores.behaviour import Behaviour
from gencls.eval.scores.probe import probe_defense

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier
    from foolbox import PyTorchModel

Average = Literal["logits", "probs"]


class _Exported(nn.Module):
    """Images (N, C, H, W) in [0, 1] -> scores (N, K) in the images' dtype, always in eval mode."""

    def __init__(
        self, defense: Defense, mode: str | None, samples: int, reduce: Average, calibrated: bool, positive: bool
    ) -> None:
        super().__init__()
        # Libraries take the device from the first parameter; a defense need not have any.
        self.anchor = nn.Parameter(torch.empty(0, device=device_of(defense)), requires_grad=False)
        # In a tuple, since its parameters are already those of the scores.
        self._asked = (evaluated(defense.surrogate(mode), defense), defense)
        self._kind, self.samples, self.reduce = (AttackModel if calibrated else EoT), samples, reduce
        self.scores = self._averaged(Behaviour())
        self.observed = False
        # Calibration puts the mean of all K classes 10 nats below the best, which with two classes is 20 for the other one: in
        # float32 the label's probability 1 - 2e-9 is 1 and its half of the gradient lost, and the other half as small as the
        # tolerances with which libraries divide (1e-7 in ART). So here it is the mean of the K - 1 others; one of them then has
        # at least the probability exp(-10), and float32 will do. Log probabilities need none of this: the backward pass of the
        # float64 softmax that made them puts the label's half back, and to scale them would make other ones.
        self.scale = 1.0 - 1.0 / defense.num_classes if calibrated and reduce == "logits" else 1.0
        self.positive = positive
        self.training = False

    def _averaged(self, behaviour: Behaviour) -> AttackModel | EoT:
        """The scores, asked for in the way that the defense's behaviour needs."""
        surrogate, defense = self._asked
        asked, chunk = evaluated(behaviour.attacked(surrogate), defense), behaviour.draws_per_pass(self.samples)
        return self._kind(asked, samples=self.samples, reduce=self.reduce, chunk=chunk)

    def forward(self, images: Tensor) -> Tensor:
        if not self.observed:  # the first images show how the defense must be asked, as before an evaluation
            probe = probe_defense(self._asked[1], images.detach(), torch.zeros(len(images), dtype=torch.long))
            probe.check_batch(images.detach())
            self.scores, self.observed = self._averaged(probe.behaviour), True
        with frozen(self.scores):
            scores: Tensor = self.scale * self.scores(images)
        if self.positive:
            scores = scores - scores.detach().amin(dim=1, keepdim=True) + 1.0
        return scores.to(images.dtype)  # libraries mix dtypes badly

    def train(self, mode: bool = True) -> "_Exported":
        """Ignore the mode: some libraries switch it around an attack."""
        return self


@checked
def as_module(
    defense: Defense,
    *,
    samples: int | None = None,
    mode: str | None = None,
    reduce: Average = "logits",
    calibrated: bool = True,
    positive: bool = False,
) -> nn.Module:
    """The surrogate of a defense as a plain module, for code that knows nothing of defenses.

    Args:
        defense: a defense in eval mode.
        samples: the number of EoT draws per forward; None takes those of :class:`gencls.eval.Protocol` (16) for a stochastic
            defense and 1 for a deterministic one. Asking for 1 draw of a stochastic defense leaves the averaging to the
            library.
        mode: the name of one of the defense's gradient modes; None takes the first.
        reduce: the quantity that is averaged over draws, "logits" or "probs". Losses cannot be averaged: a library computes its
            loss itself, from scores that are averaged already.
        calibrated: whether to shift and scale each sample's scores so that the best is 0 and the others are -10 on average, as
            :class:`gencls.eval.Calibrated` does: neither offset nor scale of the defense's scores then matters to a
            cross-entropy. False gives the averaged scores as they are.
        positive: whether to shift each sample's scores so that the smallest is 1, for code that multiplies them with masks.

    Returns:
        A module images (N, C, H, W) in [0, 1] -> scores (N, K) in the images' dtype, always in eval mode. Its decision is the
        defense's, up to rounding, or that of the average over draws. Gradients reach images only. If the defense declares
        ``batch_dependent``, the module asks about each image alone. At its first images it raises a GenclsError if the defense
        draws, or if its scores depend on the rest of the batch, without declaring it (:class:`gencls.eval.scores.probe.Probe`).

    Raises:
        GenclsError: this is no defense, it is in training mode, or a setting is not among the above.
    """
    if not isinstance(defense, Defense):
        raise GenclsError(
            f"adapter: expected a Defense, got {type(defense).__name__}; "
            "gencls.defenses.PlainClassifier(network, num_classes) makes one of a network"
        )
    check_eval_mode(defense, name=type(defense).__name__)
    if reduce not in ("logits", "probs"):
        raise GenclsError(f"adapter: expected reduce to be 'logits' or 'probs', got {reduce!r}")
    if samples is None:
        samples = Protocol.eot_samples if declared(defense, "stochastic") else 1
    return _Exported(defense, mode, samples, reduce, calibrated, positive)


def as_foolbox(
    defense: Defense,
    *,
    samples: int | None = None,
    mode: str | None = None,
    reduce: Average = "logits",
    calibrated: bool = True,
) -> "PyTorchModel":
    """Wrap the surrogate of a defense as a ``foolbox.PyTorchModel`` with bounds (0, 1) on the defense's device.

    :func:`as_module` explains the settings and errors. foolbox's own ``ExpectationOverTransformationWrapper`` is not needed.
    """
    import foolbox

    module = as_module(defense, samples=samples, mode=mode, reduce=reduce, calibrated=calibrated)
    return foolbox.PyTorchModel(module, bounds=(0, 1), device=device_of(module))


@checked
def as_art(
    defense: Defense,
    image_shape: tuple[int, int, int],
    *,
    samples: int | None = None,
    mode: str | None = None,
    reduce: Average = "logits",
    calibrated: bool = True,
) -> "PyTorchClassifier":
    """Wrap the surrogate of a defense as an ``art.estimators.classification.PyTorchClassifier`` with clip values (0, 1).

    The classifier is for attacks: it has no optimizer. ``image_shape`` is (C, H, W); :func:`as_module` explains the other
    settings. The function needs the package adversarial-robustness-toolbox.

    Raises:
        GenclsError: :func:`as_module` raises it, the shape is not (C, H, W), or the package is not installed.
    """
    if len(image_shape) != 3:
        raise GenclsError(f"as_art: expected image_shape (C, H, W), got {tuple(image_shape)}")
    module = as_module(defense, samples=samples, mode=mode, reduce=reduce, calibrated=calibrated)
    try:
        from art.estimators.classification import PyTorchClassifier
    except ModuleNotFoundError as error:
        raise GenclsError(
            f"as_art: expected the packages adversarial-robustness-toolbox and six, got no module {error.name}"
        ) from error
    device: Any = device_of(module)
    return PyTorchClassifier(
        module,
        # The sum: the size of the mean's gradient falls with the batch size, and ART compares it with a tolerance.
        loss=nn.CrossEntropyLoss(reduction="sum"),
        input_shape=tuple(image_shape),
        nb_classes=defense.num_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if device.type == "cpu" else "gpu",
    )


def as_torchattacks(
    defense: Defense,
    *,
    samples: int | None = None,
    mode: str | None = None,
    reduce: Average = "logits",
    calibrated: bool = True,
) -> nn.Module:
    """Wrap the surrogate of a defense as a model for torchattacks: ``torchattacks.PGD(as_torchattacks(defense))``.

    Its C&W takes the largest score *times a mask*. With negative scores it sees the zero of the mask and stands still, so this
    model makes all scores positive. torchattacks takes the device from the first parameter, so this model has one even if the
    defense has none.

    :func:`as_module` explains the settings and errors.
    """
    return as_module(defense, samples=samples, mode=mode, reduce=reduce, calibrated=calibrated, positive=True)


def as_autoattack(
    defense: Defense,
    *,
    samples: int | None = None,
    mode: str | None = None,
    reduce: Average = "logits",
    calibrated: bool = True,
) -> nn.Module:
    """Wrap the surrogate of a defense as a model for AutoAttack: ``pyautoattack.AutoAttack(as_autoattack(defense), eps=...)``.

    AutoAttack's ``standard`` version crashes with fewer than four classes, and with fewer than ten needs other numbers of
    target classes; it seeds torch's global generators. With ``version="rand"`` it averages 20 gradients itself: ask for
    ``samples=1`` then.

    :func:`as_module` explains the settings and errors.
    """
    return as_module(defense, samples=samples, mode=mode, reduce=reduce, calibrated=calibrated)


def as_robustbench(
    defense: Defense,
    *,
    samples: int | None = None,
    mode: str | None = None,
    reduce: Average = "logits",
    calibrated: bool = True,
) -> nn.Module:
    """Wrap the surrogate of a defense as a model for ``robustbench.utils.clean_accuracy`` and ``robustbench.benchmark``.

    RobustBench's rules leave randomised and optimising defenses out: its numbers belong to this surrogate and not to the
    defense. For a stochastic defense it measures the accuracy of averaged scores. The package is imported by
    ``gencls.zoo.networks.classifiers.robustbench.import_robustbench``.

    :func:`as_module` explains the settings and errors.
    """
    return as_module(defense, samples=samples, mode=mode, reduce=reduce, calibrated=calibrated)
