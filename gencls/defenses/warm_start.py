"""Attacks move an image little by little: inference that goes on from where it was at the attack's last look."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gencls.core import Latents, select
from gencls.core.rng import present_rows

if TYPE_CHECKING:
    from gencls.defenses.analysis_by_synthesis import AnalysisBySynthesis

__all__ = ["WarmStart"]

_Key = tuple[int, ...]


class WarmStart(nn.Module):
    """The classifier with the frozen gradient (eq. 2.9), whose inference is short after the first look at a sample.

    The first look at a sample infers in full. Each further one begins at the q that the look before found for this sample, in
    this draw and restart, and makes a few steps, so its scores are upper bounds on the losses that only approach those of the
    classifier. It is a surrogate for attacks; whether they succeeded is for the classifier itself to say.

    Which row is which sample is known from the random streams (:func:`gencls.core.keyed`), through draws, restarts and
    sub-batches; without them every look is a first one. A repeated look at the same image begins where its first one began, so
    that a backward pass that asks again, with the same draws, gets the same scores.
    """

    def __init__(self, defense: "AnalysisBySynthesis", steps: int) -> None:
        """Take the classifier and the number of descent steps of a look that is not the first, >= 1."""
        super().__init__()
        self.defense = defense
        self.steps = steps
        self.stochastic = defense.stochastic
        # Per row: the image last looked at, where its inference began (None: at the start), and what it found.
        self._seen: dict[_Key, tuple[Tensor, Latents | None, Latents]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> scores (N, K), differentiable with q fixed."""
        rows = present_rows()
        with torch.inference_mode(False), torch.enable_grad():
            plain = images.detach().clone()
            q = self._infer(plain, rows) if rows is not None and len(rows) == len(images) else self.defense.infer(plain)
        return self.defense.log_joint(images, q)

    def _infer(self, images: Tensor, rows: list[_Key]) -> Latents:
        begins = self._begins(images, rows)
        fresh = [i for i, begin in enumerate(begins) if begin is None]
        known = [i for i, begin in enumerate(begins) if begin is not None]
        parts = []
        if fresh:
            parts.append(self._select(fresh, images, None))
        if known:
            parts.append(self._select(known, images, _stack([begin for begin in begins if begin is not None])))
        back = torch.tensor([*fresh, *known], device=images.device).argsort()
        q = tuple(torch.cat(levels)[back] for levels in zip(*parts, strict=True))
        for i, (key, begin) in enumerate(zip(rows, begins, strict=True)):
            self._seen[key] = images[i], begin, tuple(level[i] for level in q)
        return q

    def _begins(self, images: Tensor, rows: list[_Key]) -> list[Latents | None]:
        """Where each row's inference begins; None: at the start."""
        seen = [self._seen.get(key) for key in rows]
        before = torch.stack([image if entry is None else entry[0] for entry, image in zip(seen, images, strict=True)])
        same = (before == images).flatten(1).all(dim=1).tolist()
        return [None if entry is None else entry[1] if again else entry[2] for entry, again in zip(seen, same, strict=True)]

    def _select(self, chosen: list[int], images: Tensor, begin: Latents | None) -> Latents:
        """Infer for some of the rows, each with its own random stream."""
        index = torch.tensor(chosen)
        with select(index):
            part = images[index.to(images.device)]
            return self.defense.infer(part) if begin is None else self.defense.resume(part, begin, self.steps)

    def extra_repr(self) -> str:
        """The setting."""
        return f"steps={self.steps}"


def _stack(rows: list[Latents]) -> Latents:
    return tuple(torch.stack(levels) for levels in zip(*rows, strict=True))
