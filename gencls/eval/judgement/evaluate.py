"""One defense under several attacks: cells, their records, and the table made of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, checked
from gencls.core.devices import device_of
from gencls.core.eot import Reduce
from gencls.core.images import sample_hashes
from gencls.core.samples import batches_of
from gencls.core.streams.keyed import Source
from gencls.eval.attacks import Attack
from gencls.eval.attacks.parts.base import check_attacks
from gencls.eval.judgement.gradient_modes import gradient_modes
from gencls.eval.judgement.judge import Decisions
from gencls.eval.judgement.runner import Runner
from gencls.eval.judgement.trial import Protocol
from gencls.eval.measures.names import check_names
from gencls.eval.scores.probe import Probe, probe_defense
from gencls.eval.threats.answers import check_threat

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes:
        records: one row per sample, attack and gradient mode; columns in :meth:`gencls.eval.judgement.trial.Trial.frame`.
        adversarials: images (N, C, H, W) by (attack, gradient mode), in the order of the samples: as judged, or as the attack
            returned them if they broke the rules.
    """

    records: "pandas.DataFrame"
    adversarials: Mapping[tuple[str, str], Tensor]

    def summary(self) -> "pandas.DataFrame":
        """One row per attack and gradient mode, and the worst case per threat; see :func:`gencls.eval.summarize`."""
        from gencls.eval.measures.summary import summarize

        return summarize(self.records)


@checked
def evaluate(
    defense: nn.Module,
    attacks: Mapping[str, Attack],
    batches: object,
    *,
    eot_samples: int = 16,
    judge_draws: int = 32,
    most_draws: int | None = None,
    reduce: Reduce = "logits",
    common_draws: bool = False,
    memory: float | None = None,
    modes: Sequence[str] | None = None,
    seed: int = 0,
    name: str | None = None,
    eight_bit: bool = False,
    streams: Source = "rows",
) -> Evaluation:
    """Attack one defense through every gradient mode that it declares, and judge the results.

    Args:
        defense: any module images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode. A :class:`~gencls.core.Defense`
            declares its gradient modes and whether it is stochastic; any other module is attacked through its exact gradient.
        attacks: attacks by name.
        batches: pairs of images (N, C, H, W) in [0, 1] and labels (N,), or any source of samples, see
            :mod:`gencls.core.samples`. Only with ``streams="device"`` results depend on the batches.
        eot_samples: draws per gradient, for a stochastic defense, >= 1.
        judge_draws: fresh draws per decision, for a stochastic defense, >= 1.
        most_draws: most draws of a sample with an open majority; None takes eight times judge_draws.
        reduce: "logits", "probs" or "loss": the mean of EoT.
        common_draws: True gives all looks of an attack the same draws, False fresh ones.
        memory: MiB for the graphs of an attack; None takes 1024 on a CPU and a share of the free memory on a GPU.
        modes: the gradient modes to attack through; None takes all that the defense declares.
        seed: seed of all random streams.
        name: name of the defense in the table; None takes its class name.
        eight_bit: True rounds adversarial images to k/255 before they are judged, as if they were saved.
        streams: "rows" gives each sample its own random streams, "device" one generator to a whole batch.

    Returns:
        Records per sample and the adversarial images.

    Raises:
        GenclsError: for bad images or labels, no samples, no attacks, modes that the defense does not declare, or hides, a
            defense in training mode, a threat that answers with something else than it should, a ball that no image can leave,
            or a name that tables reserve.
    """
    import pandas

    protocol = Protocol(
        eot_samples=eot_samples,
        judge_draws=judge_draws,
        most_draws=most_draws,
        reduce=reduce,
        common_draws=common_draws,
        memory=memory,
        seed=seed,
        eight_bit=eight_bit,
        streams=streams,
    )
    if not isinstance(attacks, Mapping):
        raise GenclsError(f"evaluate: expected attacks by name, a mapping, got {type(attacks).__name__}")
    if not attacks:
        raise GenclsError("evaluate: expected at least one attack, got none")
    name = type(defense).__name__ if name is None else name
    check_names([name, *attacks], "evaluate")
    check_attacks(attacks, "evaluate")
    frames: list[pandas.DataFrame] = []
    images_of: dict[tuple[str, str], list[Tensor]] = {}
    seen: Counter[str] = Counter()
    probe: Probe | None = None
    runners: dict[str, Runner] = {}
    for images, labels in batches_of(batches):
        hashes = sample_hashes(images, labels, seen)
        clean: Decisions | None = None
        if probe is None:
            gradients = any(attack.uses_gradients for attack in attacks.values())
            probe = probe_defense(defense, images, labels, seed=seed, gradients=gradients)
            for attack in attacks.values():
                check_threat(attack.threat, images.to(device_of(defense) or images.device))
        for attack_name, attack in attacks.items():
            for mode in gradient_modes(defense, attack, modes):
                if mode not in runners:
                    runners[mode] = Runner(defense, mode, protocol, probe)
                trial = runners[mode].run(attack, images, labels, clean=clean, hashes=hashes)
                clean = trial.clean
                frames.append(trial.frame(defense=name, attack=attack_name))
                images_of.setdefault((attack_name, mode), []).append(trial.verdict.images)
    if not frames:
        raise GenclsError("evaluate: expected at least one batch of samples, got none")
    return Evaluation(pandas.concat(frames, ignore_index=True), {key: torch.cat(parts) for key, parts in images_of.items()})
