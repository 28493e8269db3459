"""Attacks on one defense in one gradient mode: the run, the judgement and the records."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_images, check_labels, checked, evaluated, frozen, seeded
from gencls.core.devices import device_of
from gencls.core.images import sample_hashes
from gencls.core.memory import Result, peak_memory, rows_that_fit, with_fewer_rows, work_off
from gencls.eval.attacks import Attack
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.attacks.parts.base import check_attacks
from gencls.eval.judgement.eight_bit import is_eight_bit
from gencls.eval.judgement.gradient_modes import asked_by
from gencls.eval.judgement.judge import Decisions, Verdict, confirm, decide, predict, received, verdict_of
from gencls.eval.judgement.roles import Roles, understood
from gencls.eval.judgement.trial import Batch, Found, Protocol, Trial, named
from gencls.eval.measures.records import NO_GRADIENT
from gencls.eval.scores.forward import scores_of
from gencls.eval.scores.probe import Probe, probe_defense
from gencls.eval.threats.answers import check_threat
from gencls.eval.threats.protocol import TOLERANCE

_ZERO_GRADIENTS = 0.01
"""Share of exactly zero gradients above which a row carries a warning."""

_FEW_DRAWS = 8
"""With fewer draws, a majority is clear by two standard errors only if all agree, and in many looks luck makes them agree."""

_QUICK = 0.2
"""A pass shorter than these seconds is timed three times."""


class Runner:
    """Runs and judges attacks on a defense in one gradient mode; it measures once how many rows fit, and remembers."""

    def __init__(self, defense: nn.Module, mode: str, protocol: Protocol, probe: Probe) -> None:
        self.defense, self.mode, self.protocol, self.probe = defense, str(mode), protocol, probe
        self._rows: dict[tuple[object, ...], int] = {}

    def know(self, images: Tensor, rows: int) -> None:
        """Take how many rows of such images fit from who has measured it."""
        self._rows[_kind(images)] = rows

    def run(
        self,
        attack: Attack,
        images: Tensor,
        labels: Tensor,
        *,
        clean: Decisions | None = None,
        hashes: list[str] | None = None,
        seed: int | None = None,
    ) -> Trial:
        """Attack a batch of checked samples and judge it, see :func:`run_cell`; without a seed the protocol's counts."""
        check_attacks({type(attack).__name__: attack}, "attack")
        attack.threat.check_reach(images.shape)
        if attack.threat.targeted:
            raise GenclsError("evaluate: expected untargeted attacks, got a targeted one; call it directly with target classes")
        device = device_of(self.defense) or images.device
        images, labels = images.to(device), labels.to(device)
        seed = self.protocol.seed if seed is None else seed
        hashes = hashes or sample_hashes(images, labels)
        known = [clean]  # counts in the first attempt only, because the decisions of an earlier trial may be misjudged, too

        def attempt() -> Trial:
            batch = Batch(images, labels, Roles(self.probe, hashes, seed, self.protocol.streams))
            return self._attempt(attack, batch, known.pop() if known else None)

        return understood(self.probe, attempt)

    def _attempt(self, attack: Attack, batch: Batch, clean: Decisions | None) -> Trial:
        began = time.perf_counter()
        with frozen(self.defense), peak_memory(batch.images.device) as peak:
            clean = self.clean(batch) if clean is None else clean
            found = self.attack(batch, attack, clean)
            verdict = self.judge(batch, attack, found)
        asked = sum(int((part.predictions >= 0).sum()) for part in (verdict.decisions, verdict.unrounded) if part)
        return Trial(
            labels=batch.labels.cpu(),
            hashes=batch.roles.hashes,
            clean=clean,
            verdict=verdict,
            claimed=found.claimed,
            forwards=(found.spent["forwards"] + asked) / len(batch.images),
            backwards=found.spent["backwards"] / len(batch.images),
            seconds=time.perf_counter() - began,
            peak_memory=peak.mib,
            warnings=tuple(sorted(batch.roles.noted | set(self._doubts(attack, batch.images, found.spent)))),
            attack=attack,
            attack_draws=self.samples,
            mode=self.mode,
            seed=batch.roles.seed,
            eight_bit=self.protocol.eight_bit,
        )

    def clean(self, batch: Batch) -> Decisions:
        """Decisions of the defense on the clean images."""
        judged, (draws, most) = self.probe.behaviour.judged(self.defense), self._judge_draws

        def ask(max_rows: int) -> Decisions:
            with batch.roles.unsurprised():
                self.probe.check_batch(batch.images[:max_rows])
            with batch.roles.judge("clean"):
                found = decide(judged, batch.images, batch.labels, draws, most, max_rows=max_rows).cpu()
            confirm(batch.roles, judged, found, batch.images, "clean", max_rows=max_rows)
            return found

        return self._with_fewer_rows(batch.images, ask)

    def attack(self, batch: Batch, attack: Attack, clean: Decisions) -> Found:
        """Run the attack, part by part.

        Samples that a deterministic defense already gets wrong are not attacked. If memory runs out, the part begins again in
        smaller pieces, with a new model that knows nothing of the failed attempt.
        """
        images, labels, roles, path = batch.images, batch.labels, batch.roles, (named(attack), self.mode)
        rows, found = self.rows(images), Found(images.clone(), torch.ones(len(images), dtype=torch.bool), Counter())
        worth = torch.arange(len(images))
        if not self.probe.stochastic:
            worth = (clean.predictions[:, 0] == labels.cpu()).nonzero().squeeze(1)

        def assault(part: Tensor, pieces: int) -> None:
            chosen = worth[part]
            draws = max(1, self._draws_per_pass(rows) // pieces)
            model = self.model(draws, max(1, len(part) * draws if pieces > 1 else rows))
            try:
                with roles.attack(chosen.tolist(), model.meter, *path):
                    made = attack(model, images[chosen], labels[chosen])
                    found.images[chosen] = received(made, images[chosen])
                    if torch.finfo(made.dtype).eps > TOLERANCE:
                        roles.noted.add(f"adversarials came in {made.dtype}, whose rounding may carry them out of the ball")
                    with torch.no_grad():  # if the clamp changes much, the claim does not count
                        asked = found.images[chosen].nan_to_num(0.0).clamp(0, 1)
                        found.claimed[chosen] = (model(asked).argmax(dim=1) != labels[chosen]).cpu()
            finally:
                found.spent.update(model.meter.spent)

        at_first = max(1, rows // self.samples)
        size, pieces = work_off(len(worth), at_first, assault)
        if (size, pieces) != (at_first, 1):
            self._rows[_kind(images)] = max(1, size * min(self.samples, rows) // pieces)
        return found

    def judge(self, batch: Batch, attack: Attack, found: Found) -> Verdict:
        """Judge the attack's images on the real defense, in fresh draws."""
        judged, (draws, most) = self.probe.behaviour.judged(self.defense), self._judge_draws
        images, labels, roles, path = batch.images, batch.labels, batch.roles, (named(attack), self.mode)

        def sentence(max_rows: int) -> Verdict:
            rules = partial(verdict_of, labels=labels, count=draws, most=most, eight_bit=self.protocol.eight_bit)
            with roles.judge(*path):
                verdict = rules(judged, images, found.images, attack.threat, max_rows=max_rows)
            surprise = verdict.valid.cpu() & (found.claimed != ~verdict.decisions.majority_correct(labels).cpu())
            doubtful = bool(surprise.any())  # the attack asked the same function and saw another decision
            confirm(roles, judged, verdict.decisions, verdict.lawful(images), *path, max_rows=max_rows, doubtful=doubtful)
            return verdict.cpu()

        return self._with_fewer_rows(images, sentence)

    @property
    def samples(self) -> int:
        """EoT draws per gradient."""
        return self.protocol.eot_samples if self.probe.stochastic else 1

    @property
    def _judge_draws(self) -> tuple[int, int]:
        """Draws of every sample, and most draws of a sample with an open majority."""
        draws = self.protocol.judge_draws
        return (draws, self.protocol.most_draws or 8 * draws) if self.probe.stochastic else (1, 1)

    def _draws_per_pass(self, rows: int) -> int:
        return max(1, min(self.probe.behaviour.draws_per_pass(self.samples), rows))

    def _surrogate(self) -> nn.Module:
        """A new surrogate for an attack, because a surrogate may remember earlier looks."""
        return evaluated(self.probe.behaviour.attacked(asked_by(self.mode, self.defense)), self.defense)

    def model(self, draws: int, rows: int) -> AttackModel:
        """The attack's model, with ``draws`` draws per forward pass and at most ``rows`` rows (images x draws)."""
        return AttackModel(
            self._surrogate(),
            samples=self.samples,
            reduce=self.protocol.reduce,
            chunk=draws,
            max_rows=rows,
            common_draws=self.protocol.common_draws,
            stochastic=self.probe.stochastic,
            shared_draws=self.probe.behaviour.shared_draws,
            classes=self.probe.behaviour.classes,
        )

    def rows(self, images: Tensor) -> int:
        """Rows (images x draws) of such images that may be differentiated at once; measured at the first call."""
        if (kind := _kind(images)) not in self._rows:
            with frozen(self.defense):
                self._rows[kind] = rows_that_fit(partial(scores_of, self._surrogate()), images[:1], self.protocol.memory)
        return self._rows[kind]

    def _with_fewer_rows(self, images: Tensor, work: Callable[[int], Result]) -> Result:
        """Do the work with as many rows as fit; later trials begin with this number."""
        result, self._rows[_kind(images)] = with_fewer_rows(self.rows(images), work)
        return result

    def seconds_per_image(self, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
        """Seconds of a forward pass, a judgement, and a forward and backward pass of the attack model, with all draws."""
        device = device_of(self.defense) or images.device
        images, labels = images.to(device), labels.to(device)
        judged, rows = self.probe.behaviour.judged(self.defense), self.rows(images)
        model = self.model(self._draws_per_pass(rows), rows)
        forward = torch.no_grad()(partial(model, images))
        with seeded(0), frozen(self.defense):
            forward()  # warm-up; decodes a bank of starts if the defense has one
            draws, _ = self._judge_draws
            once = _time(forward) / len(images)
            judging = once * draws / self.samples
            if judged is not self.defense:  # a forward pass for each image and draw
                judging = draws * _time(lambda: predict(judged, images, 1)) / len(images)
            looked = 0.0 if self.mode == NO_GRADIENT else _time(lambda: model.look(images, labels, model.cross_entropy))
            return once, 2 * judging, looked / len(images)

    def _doubts(self, attack: Attack, images: Tensor, spent: Counter[str]) -> list[str]:
        """Reasons to distrust a trial, apart from its draws."""
        doubts = []
        if self.probe.stochastic and attack.threat.epsilon is None and self.samples < _FEW_DRAWS:
            doubts.append(f"{self.samples} draws per look are too few for an attack that looks for the smallest distance")
        if spent["zero_gradients"] > _ZERO_GRADIENTS * spent["gradients"]:
            share = spent["zero_gradients"] / spent["gradients"]
            doubts.append(f"{100 * share:.0f} % of the gradients were exactly zero: the attack was blind there")
        if self.protocol.eight_bit and not is_eight_bit(images):
            doubts.append("clean images are not of 8 bits: rounding moves adversarials also where the attack did not")
        return doubts


@checked
def run_cell(
    defense: nn.Module,
    attack: Attack,
    mode: str,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    *,
    clean: Decisions | None = None,
    hashes: list[str] | None = None,
    probe: Probe | None = None,
) -> Trial:
    """Attack a batch in one gradient mode and judge it.

    Samples that a deterministic defense already gets wrong are not attacked: their adversarial is the clean image.

    Args:
        defense: the defense, in eval mode.
        attack: the attack.
        mode: gradient mode, one of :func:`gradient_modes`.
        images: (N, C, H, W) in [0, 1]; moved to the defense's device.
        labels: true classes, int64 (N,).
        protocol: draws and seed.
        clean: decisions on the clean images from an earlier cell; None asks the defense.
        hashes: N keys of the samples; None makes them.
        probe: probe of the defense from an earlier cell; None makes one with these images.

    Returns:
        The verdict, the attack's claim and the cost.

    Raises:
        GenclsError: for bad input, a defense in training mode, or one that does not behave as it declares.
    """
    check_images(images)
    check_labels(labels, num_classes=None, count=len(images))
    check_attacks({type(attack).__name__: attack}, "attack")
    probe = probe or probe_defense(defense, images, labels, seed=protocol.seed, gradients=attack.uses_gradients)
    check_threat(attack.threat, images.to(device_of(defense) or images.device))
    return Runner(defense, mode, protocol, probe).run(attack, images, labels, clean=clean, hashes=hashes)


def _kind(images: Tensor) -> tuple[object, ...]:
    """The properties of images that decide how much memory a row takes."""
    return images.shape[1:], images.dtype, images.device


def _time(call: Callable[[], object]) -> float:
    """Seconds of a call; for a quick one the median of three, because the first call has more to do."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < 3 and seconds[-1] < _QUICK):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[len(seconds) // 2]
