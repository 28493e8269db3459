"""Measured values in the words of the tables."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gencls.eval.report.paper.page import Cell
from recipes.gan_inversion.inversions import Found
from recipes.harness.records import Share


def error(found: Found) -> str:
    """The error rate in percent, with a 95 % Wilson interval."""
    return Share(float((~found.right).sum()), len(found.labels)).text


def accuracy(found: Found) -> str:
    """The accuracy in percent, with a 95 % Wilson interval."""
    return Share(float(found.right.sum()), len(found.labels)).text


def mean(values: Tensor | Sequence[float]) -> str:
    """The mean with half of its 95 % interval, both with the digits that the interval leaves certain."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    if len(numbers) < 2:
        return f"{float(numbers.mean()):.3g}"
    half = 1.96 * float(numbers.std()) / len(numbers) ** 0.5
    digits = 2 if half < 1 else 1 if half < 10 else 0
    return f"{float(numbers.mean()):.{digits}f} ± {half:.{digits}f}"


def domain(found: Found, values: Tensor) -> tuple[str, str]:
    """The means of values (N, K) in and out of domain."""
    return mean(found.in_domain(values)), mean(found.out_of_domain(values))


def cells(*ours: str, theirs: Sequence[float] = ()) -> tuple[Cell, ...]:
    """Cells with the thesis's values in brackets, as far as there are any."""
    words = [f"{value:g}" for value in theirs]
    return tuple(Cell(text, words[i] if i < len(words) else "") for i, text in enumerate(ours))
