"""One defense under several attacks: cells, their records, and the table made of them."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gencls.core import Defense, GenclsError, check_images, check_labels, keyed, seeded, select, stream_seed
from gencls.core.surrogate import Reduce
from gencls.eval.attack_model import AttackModel, frozen
from gencls.eval.attacks import Attack
from gencls.eval.fingerprint import device_of, sample_hashes
from gencls.eval.judge import Verdict, judge, predict, scores_of

if TYPE_CHECKING:
    import pandas

__all__ = ["Evaluation", "Protocol", "evaluate", "gradient_modes", "run_cell"]

_ZERO_GRADIENTS = 0.01
"""Share of exactly zero gradients above which a row carries a warning."""

NO_GRADIENT = "none"
"""The gradient mode of attacks that use none."""


@dataclass(frozen=True)
class Protocol:
    """How stochastic defenses are attacked and judged.

    Attributes:
        eot_samples: draws per gradient for a stochastic defense (the thesis uses 5, the MLVGM paper 32).
        judge_draws: fresh draws of the judge for a stochastic defense. Deterministic defenses get one of each.
        reduce: what EoT averages.
        seed: of the study; every sample's streams derive from it.
    """

    eot_samples: int = 16
    judge_draws: int = 32
    reduce: Reduce = "logits"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.eot_samples < 1 or self.judge_draws < 1:
            raise GenclsError(
                f"protocol: expected eot_samples >= 1 and judge_draws >= 1, got {self.eot_samples} and {self.judge_draws}"
            )


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes:
        records: one row per sample, attack and gradient mode; columns in :func:`run_cell`.
        adversarials: (attack, gradient mode) -> images (N, C, H, W) as judged, in the order of the samples.
    """

    records: "pandas.DataFrame"
    adversarials: Mapping[tuple[str, str], Tensor]

    def summary(self) -> "pandas.DataFrame":
        """One row per attack and gradient mode, and the worst case per threat; see :func:`gencls.eval.summarize`."""
        from gencls.eval.summary import summarize

        return summarize(self.records)


def evaluate(
    defense: nn.Module,
    attacks: Mapping[str, Attack],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    eot_samples: int = 16,
    judge_draws: int = 32,
    reduce: Reduce = "logits",
    seed: int = 0,
    name: str | None = None,
) -> Evaluation:
    """Attack one defense through every gradient mode that it declares, and judge what comes out.

    Args:
        defense: any module images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode. A :class:`~gencls.core.Defense`
            declares its gradient modes and whether it is stochastic; of any other module the exact gradient is taken.
        attacks: name -> attack.
        batches: pairs of images (N, C, H, W) and labels (N,). Results do not depend on how samples are batched.
        eot_samples: draws per gradient, for a stochastic defense.
        judge_draws: fresh draws per decision, for a stochastic defense.
        reduce: what EoT averages: "logits", "probs" or "loss".
        seed: of all random streams.
        name: what the defense is called in the table; None takes its class name.

    Returns:
        Records per sample and the adversarial images.

    Raises:
        GenclsError: for bad images or labels, no samples, no attacks, or a defense in training mode.
    """
    import pandas

    protocol = Protocol(eot_samples, judge_draws, reduce, seed)
    if not attacks:
        raise GenclsError("evaluate: expected at least one attack, got none")
    frames: list[pandas.DataFrame] = []
    images_of: dict[tuple[str, str], list[Tensor]] = {}
    seen: Counter[str] = Counter()
    for images, labels in batches:
        check_images(images)
        check_labels(labels, num_classes=None, count=len(images))
        hashes = sample_hashes(images, labels, seen)
        clean: Tensor | None = None
        for attack_name, attack in attacks.items():
            for mode in gradient_modes(defense, attack):
                cell = run_cell(defense, attack, mode, images, labels, protocol, clean=clean, hashes=hashes)
                clean = cell.clean
                frames.append(cell.frame(defense=name or type(defense).__name__, attack=attack_name))
                images_of.setdefault((attack_name, mode), []).append(cell.verdict.images)
    if not frames:
        raise GenclsError("evaluate: expected at least one batch of samples, got none")
    return Evaluation(pandas.concat(frames, ignore_index=True), {key: torch.cat(parts) for key, parts in images_of.items()})


def gradient_modes(defense: nn.Module, attack: Attack) -> tuple[str, ...]:
    """The gradient modes in which an attack is run against a defense."""
    if not attack.uses_gradients:
        return (NO_GRADIENT,)
    return tuple(defense.surrogates()) if isinstance(defense, Defense) else ("exact",)


@dataclass(frozen=True)
class Cell:
    """One attack in one gradient mode on one batch: what the judge found and what it cost."""

    labels: Tensor
    hashes: list[str]
    clean: Tensor  # (N, S) predictions on the clean images
    verdict: Verdict
    claimed: Tensor  # (N,) bool, the attack model's own decision was wrong
    forwards: float  # rows per sample
    backwards: float
    seconds: float
    warnings: tuple[str, ...]
    attack: Attack
    mode: str
    seed: int

    def frame(self, *, defense: str, attack: str) -> "pandas.DataFrame":
        """One row per sample; ``correct`` and ``clean_correct`` are fractions of the draws, forwards are rows per sample."""
        import pandas

        labels = self.labels.unsqueeze(1)
        return pandas.DataFrame(
            {
                "sample_hash": self.hashes,
                "label": self.labels.tolist(),
                "defense": defense,
                "attack": attack,
                "gradient": self.mode,
                "norm": self.attack.threat.norm,
                "epsilon": self.attack.threat.epsilon,
                "seed": self.seed,
                "clean_correct": (self.clean == labels).double().mean(dim=1).tolist(),
                "correct": (self.verdict.predictions == labels).double().mean(dim=1).tolist(),
                "claimed": self.claimed.tolist(),
                "distance": self.verdict.distances.tolist(),
                "valid": self.verdict.valid.tolist(),
                "draws": self.verdict.predictions.shape[1],
                "clean_predictions": self.clean.tolist(),
                "predictions": self.verdict.predictions.tolist(),
                "forwards": self.forwards,
                "backwards": self.backwards,
                "seconds": self.seconds / len(self.hashes),
                "warnings": "; ".join(self.warnings),
            }
        )


def run_cell(
    defense: nn.Module,
    attack: Attack,
    mode: str,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    *,
    clean: Tensor | None = None,
    hashes: list[str] | None = None,
) -> Cell:
    """Attack a batch in one gradient mode and judge it.

    Samples that a deterministic defense already gets wrong are not attacked: their adversarial is the clean image.

    Args:
        defense: the defense, in eval mode.
        attack: the attack.
        mode: one of :func:`gradient_modes`.
        images: (N, C, H, W) in [0, 1]; moved to the defense's device.
        labels: int64 (N,).
        protocol: draws and seed.
        clean: (N, S) predictions on the clean images from an earlier cell; None asks the defense.
        hashes: N keys of the samples; None makes them.

    Returns:
        The verdict, the attack's claim and the cost.

    Raises:
        GenclsError: for bad input or a defense in training mode.
    """
    check_images(images)
    device = device_of(defense) or images.device
    images, labels = images.to(device), labels.to(device)
    check_labels(labels, num_classes=None, count=len(images))
    if clean is None:
        check_defense(defense, images[:1], labels)
    stochastic = bool(getattr(defense, "stochastic", False))
    hashes = hashes or sample_hashes(images, labels)
    draws = protocol.judge_draws if stochastic else 1
    surrogate = defense.surrogate(None if mode == NO_GRADIENT else mode) if isinstance(defense, Defense) else defense
    model = AttackModel(surrogate.eval(), samples=protocol.eot_samples if stochastic else 1, reduce=protocol.reduce)
    began = time.perf_counter()
    noted: set[str] = set()

    @contextmanager
    def role(name: str, *path: object) -> Iterator[None]:
        seeds = [stream_seed(protocol.seed, sample, name, *path) for sample in hashes]
        with seeded(stream_seed(*seeds)), keyed(seeds) as streams:
            before = _rng_state(device)
            yield
            moved = not torch.equal(before, _rng_state(device))
        if name == "judge" and not stochastic and (moved or streams.used):
            raise GenclsError(
                f"{type(defense).__name__}: expected the same scores at each forward, because stochastic is not set, got "
                "random draws; set stochastic = True, or wrap it as PlainClassifier(network, num_classes, stochastic=True)"
            )
        if moved:
            noted.add("draws outside torch's keyed functions: results depend on the batch composition")
        if streams.shared:
            noted.add("random draws shared by the batch: results depend on the batch composition")

    with frozen(defense):
        if clean is None:
            with role("judge", "clean"):
                clean = predict(defense, images, draws).cpu()
        adversarial, claimed = images.clone(), torch.ones(len(images), dtype=torch.bool)
        worth = torch.arange(len(images)) if stochastic else (clean[:, 0] == labels.cpu()).nonzero().squeeze(1)
        if len(worth):
            with role("attack", attack, mode), select(worth):
                adversarial[worth] = attack(model, images[worth], labels[worth])
                with torch.no_grad():
                    claimed[worth] = (model(adversarial[worth]).argmax(dim=1) != labels[worth]).cpu()
        with role("judge", attack, mode):
            verdict = judge(defense, images, adversarial, attack.threat, count=draws)
    verdict = Verdict(verdict.images.cpu(), verdict.distances.cpu(), verdict.valid.cpu(), verdict.predictions.cpu())
    if model.meter.zero_gradients > _ZERO_GRADIENTS * model.meter.gradients:
        share = model.meter.zero_gradients / model.meter.gradients
        noted.add(f"{100 * share:.0f} % of the gradients were exactly zero: the attack was blind there")
    if not bool(verdict.valid.all()):
        broken = int((~verdict.valid).sum())
        noted.add(f"{broken} of {len(images)} adversarials left [0, 1] or the ball; their clean images were judged")
    return Cell(
        labels=labels.cpu(),
        hashes=hashes,
        clean=clean,
        verdict=verdict,
        claimed=claimed,
        forwards=(model.meter.forwards + verdict.predictions.numel()) / len(images),
        backwards=model.meter.backwards / len(images),
        seconds=time.perf_counter() - began,
        warnings=tuple(sorted(noted)),
        attack=attack,
        mode=mode,
        seed=protocol.seed,
    )


def _rng_state(device: torch.device) -> Tensor:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


def check_defense(defense: nn.Module, image: Tensor, labels: Tensor) -> None:
    """Check that a defense takes such images and knows these labels.

    Args:
        defense: the module.
        image: (1, C, H, W) in [0, 1].
        labels: int64 (N,).

    Raises:
        GenclsError: for training mode, images of another shape, scores that are not (1, K), or labels beyond K.
    """
    name = type(defense).__name__
    if defense.training:
        raise GenclsError(f"{name}: expected a defense in eval mode, got training mode; call .eval() first")
    with torch.no_grad(), seeded(0):
        scores: object = scores_of(defense, image.to(device_of(defense) or image.device))
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != 1:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise GenclsError(f"{name}: expected scores of shape (1, K) for one image, got {got}")
    check_labels(labels, num_classes=scores.shape[1])
