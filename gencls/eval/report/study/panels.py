"""Image panels: clean images, adversarial images and their amplified difference, with labels and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.eval.measures.names import file_name, isolated
from gencls.eval.measures.records import PLAIN_MODES
from gencls.eval.report.study.estimates import ThreatKey
from gencls.eval.report.style import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GOOD, _BAD, _NEUTRAL = "#1b6e3c", "#b3261e", "#3b4252"
_TILE, _GAP, _CAPTION, _MARGIN = 0.62, 0.05, 0.2, 0.4  # inches; eight small images fill half a page


@dataclass(frozen=True)
class ImagePanel:
    """A few images of one cell of a study, for the report.

    Args:
        defense: name of the defense.
        attack: name of the attack.
        gradient: name of the attack's gradient mode.
        clean: (n, C, H, W) clean images in [0, 1], C = 1 or 3.
        adversarial: (n, C, H, W) adversarial images in [0, 1].
        labels: (n,) int64 true classes.
        predictions: (n,) or (n, S) classes that the defense predicts on the adversarial images, S draws; -1 fills up the rows
            of images with fewer draws. In a row of only -1 the image broke the rules and was not judged.
        clean_predictions: (n,) or (n, S) the same on the clean images, if known.
        norm: norm of the threat; None if it has none.
        epsilon: budget of the threat in the norm's unit; None for minimal perturbations.
        eight_bit: whether the adversarial images were rounded to k/255.
        class_names: names to print in place of class numbers.

    Raises:
        GenclsError: the shapes do not fit together.
    """

    defense: str
    attack: str
    gradient: str
    clean: Tensor
    adversarial: Tensor
    labels: Tensor
    predictions: Tensor
    clean_predictions: Tensor | None = None
    norm: str | None = None
    epsilon: float | None = None
    eight_bit: bool = False
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.clean.shape)
        if len(shape) != 4 or not shape[0] or shape[1] not in (1, 3):
            raise GenclsError(f"expected panel images of shape (n, 1 or 3, H, W), n >= 1, got {shape}")
        if tuple(self.adversarial.shape) != shape:
            raise GenclsError(f"expected adversarial images of shape {shape}, got {tuple(self.adversarial.shape)}")
        if tuple(self.labels.shape) != shape[:1]:
            raise GenclsError(f"expected labels of shape {shape[:1]}, got {tuple(self.labels.shape)}")
        for name in ("predictions", "clean_predictions"):
            value = getattr(self, name)
            if value is not None and (value.ndim not in (1, 2) or len(value) != shape[0]):
                raise GenclsError(f"expected {name} of shape ({shape[0]},) or ({shape[0]}, S), got {tuple(value.shape)}")

    @property
    def title(self) -> str:
        """Name defense, attack, gradient mode and threat in one line."""
        mode = "" if self.gradient in PLAIN_MODES else f", {self.gradient} gradient"
        threat = "" if self.norm is None else f" ({ThreatKey(self.norm, self.epsilon, self.eight_bit).label})"
        return f"{isolated(self.defense)} under {isolated(self.attack)}{mode}{threat}"

    @property
    def slug(self) -> str:
        """Name defense, attack, gradient mode and threat for files."""
        threat = "" if self.norm is None else ThreatKey(self.norm, self.epsilon, self.eight_bit).slug
        return file_name(self.defense, self.attack, self.gradient, threat)


def image_grid(panel: ImagePanel) -> Figure:
    """Draw three rows (clean, adversarial, amplified difference), one column per image; predictions above the images."""
    from matplotlib.figure import Figure

    clean, adversarial = _pixels(panel.clean), _pixels(panel.adversarial)
    count, height, width = clean.shape[:3]
    largest = float(np.abs(adversarial - clean).max())
    gain = 0.5 / largest if largest > 0 else 1.0
    rows = (
        ("clean", clean, panel.clean_predictions),
        ("adversarial", adversarial, panel.predictions),
        (f"difference\n× {gain:.2g}", 0.5 + gain * (adversarial - clean), None),
    )
    # One axes for all images, in inches with y downwards: an axes for each image takes ten times as long to draw.
    side = min(1.5, max(_TILE, height / 96))
    tile = (side * width / height, side)
    size = (_MARGIN + count * (tile[0] + _GAP), 3 * (side + _CAPTION))
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    for i, (head, images, predictions) in enumerate(rows):
        top = _CAPTION + i * (side + _CAPTION)
        axes.text(_MARGIN / 2, top + side / 2, head, rotation=90, ha="center", va="center", fontsize=7, color=_NEUTRAL)
        for j, image in enumerate(images):
            left = _MARGIN + j * (tile[0] + _GAP)
            _draw(axes, image, (left, left + tile[0], top + side, top), diverging=i == 2)
            label = int(panel.labels[j])
            caption = ("", _NEUTRAL) if predictions is None else _caption(panel, predictions[j], label)
            if i == 0 and predictions is None:
                caption = (_name(panel, label), _NEUTRAL)
            axes.text(left + tile[0] / 2, top - 0.04, caption[0], ha="center", va="bottom", fontsize=7, color=caption[1])
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.set_axis_off()
    return figure


def _pixels(images: Tensor) -> npt.NDArray[np.float32]:
    # An image that broke the rules is shown as far as [0, 1] goes.
    return images.detach().to("cpu").float().nan_to_num(0.0).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _draw(axes: Axes, image: npt.NDArray[np.float32], extent: tuple[float, float, float, float], *, diverging: bool) -> None:
    if image.shape[-1] == 1:
        colours = "RdBu_r" if diverging else "gray"
        axes.imshow(image[..., 0], cmap=colours, vmin=0, vmax=1, extent=extent, interpolation="none", aspect="auto")
    else:
        axes.imshow(image.clip(0, 1), extent=extent, interpolation="none", aspect="auto")


def _caption(panel: ImagePanel, draws: Tensor, label: int) -> tuple[str, str]:
    """Word the most frequent prediction and its share if the draws disagree, and choose green or red for right or wrong."""
    seen = np.atleast_1d(draws.cpu().numpy())
    if not (seen >= 0).any():
        return "not valid", _NEUTRAL
    classes, counts = np.unique(seen[seen >= 0], return_counts=True)
    winner, share = int(classes[counts.argmax()]), counts.max() / counts.sum()
    words = _name(panel, label) if winner == label else f"{_name(panel, label)}→{_name(panel, winner)}"
    return words if share == 1 else f"{words} ({100 * share:.0f} %)", _GOOD if winner == label else _BAD


def _name(panel: ImagePanel, label: int) -> str:
    return drawn(panel.class_names[label], 16) if panel.class_names else str(label)
