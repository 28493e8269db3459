"""The judge for adversarial images of any origin."""

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_images, check_labels, checked, frozen
from gencls.core.devices import device_of
from gencls.core.images import sample_hashes
from gencls.eval.judgement.judge import ROWS, Verdict, confirm, verdict_of
from gencls.eval.judgement.roles import Roles, understood
from gencls.eval.scores.probe import probe_defense
from gencls.eval.threats.answers import check_distance
from gencls.eval.threats.protocol import Threat, check_threats


@checked
def judge(
    defense: nn.Module,
    clean: Tensor,
    adversarial: Tensor,
    threat: Threat,
    *,
    count: int,
    labels: Tensor | None = None,
    most: int | None = None,
    max_rows: int = ROWS,
    eight_bit: bool = False,
    seed: int = 0,
) -> Verdict:
    """Measure adversarial images on a defense, as :func:`gencls.eval.evaluate` does.

    The judge first asks the defense about the clean images, see :class:`gencls.eval.scores.probe.Probe`. If one draw serves
    a whole batch, or the defense declares that it depends on the batch, every image and draw gets a forward pass of its own.

    Args:
        defense: the real defense, never its surrogate, in eval mode.
        clean: (N, C, H, W) in [0, 1].
        adversarial: the attack's images (N, C, H, W). Those outside [0, 1] or the ball, beyond 1e-6, are not judged.
        threat: norm and ball that the images must keep to.
        count: draws S, >= 1; 1 for a deterministic defense.
        labels: true classes (N,), needed for ``most``.
        most: most draws of a sample with an open majority; None stops at ``count``.
        max_rows: rows of one forward pass, >= 1.
        eight_bit: True rounds the images to k/255 and judges both, with equal draws.
        seed: seed of the draws.

    Returns:
        The verdict, on the device of the defense.

    Raises:
        GenclsError: for bad images, labels or numbers, images of another shape, ``most`` without labels, or a defense that
            behaves otherwise than it declares.
    """
    check_images(clean)
    if count < 1 or max_rows < 1 or (most is not None and most < count):
        raise GenclsError(
            f"judge: expected count >= 1, most >= count and max_rows >= 1, got count={count}, most={most}, max_rows={max_rows}"
        )
    if labels is not None:
        check_labels(labels, num_classes=None, count=len(clean))
        labels = labels.to(device_of(defense) or clean.device)
    clean = clean.to(device_of(defense) or clean.device)
    check_threats({"judge": threat}, "judge")
    check_distance(threat, clean)
    known = torch.zeros(len(clean), dtype=torch.long) if labels is None else labels
    probe = probe_defense(defense, clean, known, seed=seed, gradients=False)
    hashes = sample_hashes(clean, known)

    def attempt() -> Verdict:
        roles, judged = Roles(probe, hashes, seed), probe.behaviour.judged(defense)
        with roles.unsurprised():
            probe.check_batch(clean[:max_rows])
        with roles.judge(threat):
            settings = {"count": count, "most": most, "max_rows": max_rows, "eight_bit": eight_bit}
            found = verdict_of(judged, clean, adversarial, threat, labels=labels, **settings)  # type: ignore[arg-type]
        confirm(roles, judged, found.decisions, found.lawful(clean), threat, max_rows=max_rows)
        return found

    with frozen(defense):
        return understood(probe, attempt)
