"""Adversarial images from one model, tried on another."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, declared, evaluated, frozen, surrogates_of
from gencls.core.devices import device_of
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.attacks.parts.base import Attack
from gencls.eval.scores.probe import observe
from gencls.eval.threats.protocol import Threat


@dataclass(frozen=True)
class Transfer:
    """Runs an attack on a source model and returns its images; it never asks the model under attack.

    Source: Papernot et al. 2016, arXiv:1605.07277. Images that have just crossed the source's boundary transfer badly:
    ``PGD(threat, to_the_end=True)`` goes on for the largest loss.

    Attributes:
        source: images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode, not changed afterwards. A defense is attacked
            through its default gradient mode, a stochastic one through as many draws as the model under attack.
        attack: attack that runs on the source.
    """

    source: nn.Module = field(repr=False)
    attack: Attack
    uses_gradients = False
    """It uses no gradients of the model under attack."""

    def __post_init__(self) -> None:
        if not isinstance(self.source, nn.Module) or not isinstance(self.attack, Attack):
            raise GenclsError(
                "Transfer: expected a source (torch.nn.Module) and an attack, "
                f"got {type(self.source).__name__} and {type(self.attack).__name__}"
            )
        check_eval_mode(self.source, name="Transfer", what="a source")

    @property
    def threat(self) -> Threat:
        """The threat of the attack."""
        return self.attack.threat

    @property
    def passes(self) -> tuple[int, int]:
        """The passes of the attack, on the source."""
        return self.attack.passes

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        target = prepare(model, images, labels, self.threat)
        surrogate = next(iter(surrogates_of(self.source).values()))
        stochastic = declared(self.source, "stochastic")
        # The source has an attack model of its own, so its cost does not count for the target.
        device = device_of(self.source) or images.device
        samples = target.eot.samples if stochastic else 1
        behaviour = observe(self.source, images.to(device))
        model = AttackModel(
            behaviour.attacked(evaluated(surrogate, self.source)),
            samples=samples,
            reduce=target.eot.reduce,
            chunk=min(samples, target.eot.chunk) if target.eot.samples > 1 else None,
            shared_draws=behaviour.shared_draws,
            max_rows=target.max_rows,
            common_draws=target.common_draws,
        )
        with frozen(surrogate):
            return self.attack(model, images.to(device), labels.to(device)).to(images.device)
