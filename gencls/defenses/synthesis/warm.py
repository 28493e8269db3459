"""Attacks move an image little by little: inference that goes on from where it was at the attack's last look."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gencls.core import select
from gencls.core.rows import Row, present_rows
from gencls.defenses.synthesis.posterior import Q, together

__all__ = ["WarmStart"]

WHOLE_EVERY = 10
"""Looks from one whole inference to the next: the classes that do not win are then begun anew, and may turn out better."""


class _Resumes(Protocol):
    """A classifier whose inference can go on from a q."""

    stochastic: bool
    training: bool

    def infer(self, images: Tensor) -> Q: ...
    def resume(self, images: Tensor, q: Q, steps: int) -> Q: ...
    def log_joint(self, images: Tensor, q: Q) -> Tensor: ...


class _Found(NamedTuple):
    """Of one row: the q of each class, the class of least loss, and how many looks ago inference was whole."""

    q: Q
    decision: int
    age: int


class WarmStart(nn.Module):
    """The classifier with the frozen gradient (eq. 2.9), whose inference is short after the first look at a sample.

    The first look at a sample infers in full, and so does every tenth at a new image. Each other one begins at the q that
    the look before found for this sample, in this draw and restart, and makes a few steps: its losses are upper bounds on
    the minima, and may lie above or below those of the classifier's own inference. Where its decision is not that of the
    look before, it infers in full as well, so that a decision that changes is one of whole inference; of variational
    inference, another draw may decide otherwise. The module is a surrogate for attacks; the classifier itself has the last
    word.

    Callers say which row is which sample, in draws, restarts and sub-batches, too: by :func:`gencls.core.identified`, or with
    random streams by :func:`gencls.core.keyed`. Where nobody does, every look is a first one. A repeated look at the same image
    begins where its first one began, so that a backward pass that asks again, with the same draws, gets the same scores; it has
    to come before the sample's next image.
    """

    def __init__(self, defense: _Resumes, steps: int) -> None:
        """Take the classifier and the number of descent steps of a short look, >= 1."""
        super().__init__()
        self.defense = defense
        self.steps = steps
        self.stochastic = defense.stochastic
        self.training = defense.training
        # Per row: the image last looked at, where its inference began (None: at the start), and what it found.
        self._seen: dict[Row, tuple[Tensor, _Found | None, _Found]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> scores (N, K), differentiable with q fixed."""
        rows = present_rows()
        if rows is None or len(rows) != len(images):
            return self.defense.log_joint(images, self._infer(images, None))
        begins = self._begins(images.detach(), rows)
        known = {i: begin for i, begin in enumerate(begins) if begin is not None and begin.age < WHOLE_EVERY - 1}
        looks = self._look(images, known)
        # A short inference is not believed that the decision has changed.
        whole = [i for i in range(len(rows)) if i not in looks or looks[i][1].decision != known[i].decision]
        looks |= self._look(images, dict.fromkeys(whole))
        for i, (key, begin) in enumerate(zip(rows, begins, strict=True)):
            self._seen[key] = images[i].detach().clone(), begin, looks[i][1]  # a view would keep its whole batch
        return torch.stack([looks[i][0] for i in range(len(rows))])

    def _begins(self, images: Tensor, rows: list[Row]) -> "list[_Found | None]":
        """Where each row's inference begins; None: at the start."""
        seen = [self._seen.get(key) for key in rows]
        before = torch.stack([image if entry is None else entry[0] for entry, image in zip(seen, images, strict=True)])
        same = (before == images).flatten(1).all(dim=1).tolist()
        return [None if entry is None else entry[1] if again else entry[2] for entry, again in zip(seen, same, strict=True)]

    def _look(self, images: Tensor, begins: "Mapping[int, _Found | None]") -> "dict[int, tuple[Tensor, _Found]]":
        """Scores (K,) of some of the rows, each with its own random stream: inferred from where each begins, or in full."""
        if not begins:
            return {}
        index = torch.tensor(list(begins))
        known = [begin.q for begin in begins.values() if begin is not None]
        with select(index):
            part = images[index.to(images.device)]
            q = self._infer(part, together(_stacked, *known) if known else None)
            scores = self.defense.log_joint(part, q)  # once: the decision is that of the scores that the attacker sees
        decisions = scores.argmax(dim=1).tolist()
        ages = [0 if begin is None else begin.age + 1 for begin in begins.values()]
        found = (_Found(together(lambda level, j=j: level[j].clone(), q), decisions[j], ages[j]) for j in range(len(begins)))
        return {i: (scores[j], one) for j, (i, one) in enumerate(zip(begins, found, strict=True))}

    def _infer(self, images: Tensor, begin: Q | None) -> Q:
        with torch.inference_mode(False), torch.enable_grad():
            plain = images.detach().clone()
            return self.defense.infer(plain) if begin is None else self.defense.resume(plain, begin, self.steps)

    def __getstate__(self) -> dict[str, Any]:
        """Copies, files and keys hold the classifier alone, not what was found for the samples of a batch."""
        return {**self.__dict__, "_seen": {}}

    def extra_repr(self) -> str:
        """The setting."""
        return f"steps={self.steps}"


def _stacked(*rows: Tensor) -> Tensor:
    return torch.stack(rows)
