"""Inference that goes on from the attack's last look, because attacks move an image little by little."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gencls.core import checked, select
from gencls.core.rows import Row, present_rows
from gencls.defenses.synthesis.posterior import Q, together

__all__ = ["WarmStart"]

WHOLE_EVERY = 10
"""Looks from one whole inference to the next. Whole inference begins all classes anew, and a loser may turn out better."""


class _Resumes(Protocol):
    """A classifier whose inference can go on from a q."""

    stochastic: bool
    training: bool

    def infer(self, images: Tensor) -> Q: ...
    def resume(self, images: Tensor, q: Q, steps: int) -> Q: ...
    def log_joint(self, images: Tensor, q: Q) -> Tensor: ...


class _Found(NamedTuple):
    """The state of one row: the q of each class, the class of least loss, and the looks since inference was whole."""

    q: Q
    decision: int
    age: int


class WarmStart(nn.Module):
    """The classifier with the frozen gradient (eq. 2.9) and short inference after the first look at a sample.

    The first look at a sample infers in full, and so does every tenth at a new image. Other looks begin at the q of the look
    before, for this sample, draw and restart, and make a few steps. Their losses are upper bounds on the minima, and may lie
    above or below the losses of the classifier's own inference. If the decision changes, the look infers in full as well. So
    whole inference makes every change of a decision; with variational inference another draw may decide otherwise. The module
    is a surrogate for attacks. The judge asks the classifier itself. While it lives the classifier must not change: it does not
    notice other weights.

    Callers say which row is which sample, also in draws, restarts and sub-batches: by :func:`gencls.core.identified`, or with
    random streams by :func:`gencls.core.keyed`. Otherwise every look is a first one. A repeated look at the same image begins
    where its first look began. So a backward pass that asks again, with the same draws, gets the same scores. It must come
    before the sample's next image.
    """

    @checked
    def __init__(self, defense: _Resumes, steps: int) -> None:
        """Take the classifier and the number of descent steps of a short look, >= 1."""
        super().__init__()
        self.defense = defense
        self.steps = steps
        self.stochastic = defense.stochastic
        self.training = defense.training
        # Per row: the image of the last look, where inference began (None: at the start), and where it ended.
        self._seen: dict[Row, tuple[Tensor, _Found | None, _Found]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> scores (N, K), differentiable with q fixed."""
        rows = present_rows()
        if rows is None or len(rows) != len(images):
            return self.defense.log_joint(images, self._infer(images, None))
        begins = self._begins(images.detach(), rows)
        known = {i: begin for i, begin in enumerate(begins) if begin is not None and begin.age < WHOLE_EVERY - 1}
        looks = self._look(images, known)
        # A short inference may not change the decision.
        whole = [i for i in range(len(rows)) if i not in looks or looks[i][1].decision != known[i].decision]
        looks |= self._look(images, dict.fromkeys(whole))
        for i, (key, begin) in enumerate(zip(rows, begins, strict=True)):
            self._seen[key] = images[i].detach().clone(), begin, looks[i][1]  # a view would keep the whole batch
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
            scores = self.defense.log_joint(part, q)  # once: the attacker sees the scores that decide
        decisions = scores.argmax(dim=1).tolist()
        ages = [0 if begin is None else begin.age + 1 for begin in begins.values()]
        found = (_Found(together(lambda level, j=j: level[j].clone(), q), decisions[j], ages[j]) for j in range(len(begins)))
        return {i: (scores[j], one) for j, (i, one) in enumerate(zip(begins, found, strict=True))}

    def _infer(self, images: Tensor, begin: Q | None) -> Q:
        with torch.inference_mode(False), torch.enable_grad():
            plain = images.detach().clone()
            return self.defense.infer(plain) if begin is None else self.defense.resume(plain, begin, self.steps)

    def __getstate__(self) -> dict[str, Any]:
        """Copies, files and keys hold the classifier alone, not its results for the samples of a batch."""
        return {**self.__dict__, "_seen": {}}

    def extra_repr(self) -> str:
        """The setting."""
        return f"steps={self.steps}"


def _stacked(*rows: Tensor) -> Tensor:
    return torch.stack(rows)
