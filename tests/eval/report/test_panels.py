"""Panels of images in a study's report."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gencls.core.errors import GenclsError
from gencls.eval.report import formats
from gencls.eval.report.study.panels import ImagePanel, image_grid


def test_panels_of_images_with_different_numbers_of_draws() -> None:
    images = torch.zeros(2, 1, 4, 4)
    draws = torch.tensor([[3, -1, -1, -1], [3, 5, 5, 5]])
    panel = ImagePanel("cnn", "pgd", "exact", images, images, torch.tensor([3, 3]), draws)
    shown = [text.get_text() for text in image_grid(panel).axes[0].texts]
    assert "3" in shown
    assert "3→5 (75 %)" in shown


def test_warnings_come_as_text_or_list() -> None:
    assert formats.warning_list("a; b;") == ["a", "b"]
    assert formats.warning_list(["a; b"]) == ["a; b"]
    assert formats.warning_list(None) == formats.warning_list(float("nan")) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean": torch.zeros(2, 28, 28)}, r"shape \(n, 1 or 3, H, W\), n >= 1, got \(2, 28, 28\)"),
        ({"adversarial": torch.zeros(3, 1, 28, 28)}, r"adversarial images of shape \(2, 1, 28, 28\), got"),
        ({"labels": torch.zeros(3)}, r"labels of shape \(2,\), got \(3,\)"),
        ({"predictions": torch.zeros(1, 5)}, r"predictions of shape \(2,\) or \(2, S\), got \(1, 5\)"),
    ],
)
def test_panels_refuse(change: dict[str, Any], words: str) -> None:
    images = torch.zeros(2, 1, 28, 28)
    arguments: dict[str, Any] = {
        "clean": images,
        "adversarial": images,
        "labels": torch.zeros(2),
        "predictions": torch.zeros(2),
    }
    with pytest.raises(GenclsError, match=words):
        ImagePanel("cnn", "pgd", "exact", **(arguments | change))
