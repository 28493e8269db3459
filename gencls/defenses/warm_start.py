"""Attacks move an image little by little: inference that goes on from where it was at the attack's last look."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from gencls.core import Latents, select
from gencls.core.rng import present_rows

if TYPE_CHECKING:
    from gencls.defenses.analysis_by_synthesis import AnalysisBySynthesis

__all__ = ["WarmStart"]

WHOLE_EVERY = 10
"""Looks from one whole inference to the next: the classes that do not win are then begun anew, and may turn out better."""

_Key = tuple[int, ...]


class _Found(NamedTuple):
    """Of one row: the q of each class, the class of least loss, and how many looks ago inference was whole."""

    q: Latents
    decision: int
    age: int


class WarmStart(nn.Module):
    """The classifier with the frozen gradient (eq. 2.9), whose inference is short after the first look at a sample.

    The first look at a sample infers in full, and so does every tenth. Each other one begins at the q that the look before
    found for this sample, in this draw and restart, and makes a few steps: its losses are upper bounds on the minima, and
    may lie above or below those of the classifier's own inference. Where its decision is not that of the look before, it
    infers in full as well: of point inference without EoT, what is taken for an adversarial then is one. Of variational
    inference another draw may decide otherwise. The module is a surrogate for attacks; the classifier itself has the last
    word.

    Which row is which sample is known from the random streams (:func:`gencls.core.keyed`), through draws, restarts and
    sub-batches; without them every look is a first one. A repeated look at the same image begins where its first one began, so
    that a backward pass that asks again, with the same draws, gets the same scores.
    """

    def __init__(self, defense: "AnalysisBySynthesis", steps: int) -> None:
        """Take the classifier and the number of descent steps of a short look, >= 1."""
        super().__init__()
        self.defense = defense
        self.steps = steps
        self.stochastic = defense.stochastic
        # Per row: the image last looked at, where its inference began (None: at the start), and what it found.
        self._seen: dict[_Key, tuple[Tensor, _Found | None, _Found]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> scores (N, K), differentiable with q fixed."""
        rows = present_rows()
        with torch.inference_mode(False), torch.enable_grad():
            plain = images.detach().clone()
            q = self._infer(plain, rows) if rows is not None and len(rows) == len(images) else self.defense.infer(plain)
        return self.defense.log_joint(images, q)

    def _infer(self, images: Tensor, rows: list[_Key]) -> Latents:
        begins = self._begins(images, rows)
        known = {i: begin for i, begin in enumerate(begins) if begin is not None and begin.age < WHOLE_EVERY - 1}
        found = self._select(images, known)
        # A short inference is not believed that the decision has changed.
        whole = [i for i in range(len(rows)) if i not in found or found[i].decision != known[i].decision]
        found |= self._select(images, dict.fromkeys(whole))
        for i, (key, begin) in enumerate(zip(rows, begins, strict=True)):
            self._seen[key] = images[i].clone(), begin, found[i]  # a view would keep its whole batch
        return _stack([found[i].q for i in range(len(rows))])

    def _begins(self, images: Tensor, rows: list[_Key]) -> "list[_Found | None]":
        """Where each row's inference begins; None: at the start."""
        seen = [self._seen.get(key) for key in rows]
        before = torch.stack([image if entry is None else entry[0] for entry, image in zip(seen, images, strict=True)])
        same = (before == images).flatten(1).all(dim=1).tolist()
        return [None if entry is None else entry[1] if again else entry[2] for entry, again in zip(seen, same, strict=True)]

    def _select(self, images: Tensor, begins: "Mapping[int, _Found | None]") -> "dict[int, _Found]":
        """Infer for some of the rows, each with its own random stream: in short from where each begins, or in full."""
        if not begins:
            return {}
        index = torch.tensor(list(begins))
        known = [begin.q for begin in begins.values() if begin is not None]
        with select(index):
            part = images[index.to(images.device)]
            q = self.defense.resume(part, _stack(known), self.steps) if known else self.defense.infer(part)
            with torch.no_grad():
                decisions = self.defense.log_joint(part, q).argmax(dim=1).tolist()
        ages = [0 if begin is None else begin.age + 1 for begin in begins.values()]
        return {i: _Found(tuple(level[j].clone() for level in q), decisions[j], ages[j]) for j, i in enumerate(begins)}

    def extra_repr(self) -> str:
        """The setting."""
        return f"steps={self.steps}"


def _stack(rows: list[Latents]) -> Latents:
    return tuple(torch.stack(levels) for levels in zip(*rows, strict=True))
