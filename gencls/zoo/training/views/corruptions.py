"""Common corruptions of small images: noise, blur, weather, light and digital artefacts, each with a severity per image.

The families are those of Hendrycks and Dietterich 2019, arXiv:1903.12261, whose code is for photos of 224 and 32 pixels. The
kinds here are our own, for images of some 28 pixels, also grey ones, as operations on whole batches. A severity in [0, 1] takes
the place of their five levels, 0.2 to 1; at 0 an image stays as it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean
from gencls.core.settings import check_settings

_SMALLEST = 1e-4  # a severity that divides
_TAPS = 7  # images in a motion
_SIDE = 8  # pixels of a block of JPEG

# Luminance table of JPEG's standard (ITU-T T.81, Table K.1): steps of quality 50, in 8-bit units.
_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def _of_images(severity: Tensor) -> Tensor:
    return severity.view(-1, 1, 1, 1)


def _gaussian_noise(images: Tensor, severity: Tensor) -> Tensor:
    return images + 0.3 * _of_images(severity) * torch.randn_like(images)


def _shot_noise(images: Tensor, severity: Tensor) -> Tensor:
    photons = 5 / _of_images(severity).clamp(min=_SMALLEST).square()
    return torch.poisson(images * photons) / photons


def _impulse_noise(images: Tensor, severity: Tensor) -> Tensor:
    drawn, half = torch.rand_like(images), 0.15 * _of_images(severity)
    return torch.where(drawn < half, 0.0, torch.where(drawn < 2 * half, 1.0, images))


def _along(matrices: Tensor, images: Tensor) -> Tensor:
    """Mix the rows and the columns of images (N, C, S, S) by matrices (N, S, S), one for each image."""
    matrices = matrices.unsqueeze(1)
    return matrices @ images @ matrices.mT


def _gaussian_blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur images by Gaussians of width sigma in pixels, (N,). Next to the border the weights of the pixels that exist grow."""
    places = torch.arange(images.shape[2], device=images.device, dtype=images.dtype)
    distances = (places - places.unsqueeze(1)).square()
    weights = torch.exp(-distances / (2 * sigma.clamp(min=0.05).square().view(-1, 1, 1)))
    return _along(weights / weights.sum(2, keepdim=True), images)


def _gaussian_blur(images: Tensor, severity: Tensor) -> Tensor:
    return _gaussian_blurred(images, 1.8 * severity)


def _moved(images: Tensor, flow: Tensor) -> Tensor:
    """Read images at other places: each pixel's is moved by flow (N, H, W, 2), right and down, in pixels."""
    count, _, height, width = images.shape
    still = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(count, 2, 3)
    grid = F.affine_grid(still, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + 2 * flow / flow.new_tensor((width, height)), "bilinear", "border", align_corners=False)


def _motion_blur(images: Tensor, severity: Tensor) -> Tensor:
    angle = 2 * math.pi * torch.rand_like(severity)
    line = 8 * severity.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], 1)
    shares = torch.linspace(-0.5, 0.5, _TAPS, device=images.device, dtype=images.dtype)
    flows = (line.view(-1, 1, 1, 2) * share for share in shares)
    return torch.stack([_moved(images, flow) for flow in flows]).mean(0)


def _glass_blur(images: Tensor, severity: Tensor) -> Tensor:
    flow = 2 * torch.rand(len(images), *images.shape[2:], 2, device=images.device, dtype=images.dtype) - 1
    return _gaussian_blurred(_moved(images, 2.0 * _of_images(severity) * flow), 0.5 * severity)


def _fog(images: Tensor, severity: Tensor) -> Tensor:
    coarse = torch.rand(len(images), 1, 4, 4, device=images.device, dtype=images.dtype)
    cloud = F.interpolate(coarse, size=images.shape[2:], mode="bicubic", align_corners=True).clamp(0.0, 1.0)
    return torch.lerp(images, cloud, 0.7 * _of_images(severity))


def _brightness(images: Tensor, severity: Tensor) -> Tensor:
    sign = torch.rand_like(severity).sub(0.5).sign()  # darker or lighter
    return images + 0.5 * _of_images(severity * sign)


def _contrast(images: Tensor, severity: Tensor) -> Tensor:
    return torch.lerp(images, images.mean((1, 2, 3), keepdim=True), 0.85 * _of_images(severity))


def _elastic(images: Tensor, severity: Tensor) -> Tensor:
    coarse = 2 * torch.rand(len(images), 2, 6, 6, device=images.device, dtype=images.dtype) - 1
    flow = F.interpolate(coarse, size=images.shape[2:], mode="bicubic", align_corners=True)
    return _moved(images, 3.0 * _of_images(severity) * flow.permute(0, 2, 3, 1))


def _pixelate(images: Tensor, severity: Tensor) -> Tensor:
    side = images.shape[2]
    cells = (side * (1 - 0.75 * severity)).round().clamp(min=1).view(-1, 1)
    cell = (torch.arange(side, device=images.device) * cells / side).floor()
    same = (cell.unsqueeze(1) == cell.unsqueeze(2)).to(images.dtype)
    return _along(same / same.sum(2, keepdim=True), images)


def _jpeg(images: Tensor, severity: Tensor) -> Tensor:
    """Round the cosine transforms of blocks of 8 x 8 pixels, each channel alone."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (0, -width % _SIDE, 0, -height % _SIDE), mode="replicate")
    blocks = padded.unfold(2, _SIDE, _SIDE).unfold(3, _SIDE, _SIDE)  # (N, C, rows, columns, 8, 8)
    place = torch.arange(_SIDE, device=images.device, dtype=images.dtype)
    basis = torch.cos(math.pi / _SIDE * (place + 0.5) * place.unsqueeze(1)) * math.sqrt(2 / _SIDE)
    basis[0] /= math.sqrt(2)  # orthonormal
    steps = 12.0 * severity.clamp(min=_SMALLEST).view(-1, 1, 1, 1, 1, 1) * images.new_tensor(_STEPS) / 255
    rounded = (basis @ (blocks - 0.5) @ basis.mT / steps).round() * steps
    whole = (basis.mT @ rounded @ basis + 0.5).permute(0, 1, 2, 4, 3, 5).reshape(count, channels, *padded.shape[2:])
    return whole[:, :, :height, :width]


CORRUPTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gaussian-noise": _gaussian_noise,
    "shot-noise": _shot_noise,
    "impulse-noise": _impulse_noise,
    "gaussian-blur": _gaussian_blur,
    "motion-blur": _motion_blur,
    "glass-blur": _glass_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic": _elastic,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
"""All kinds by name."""

HELD_OUT = ("impulse-noise", "pixelate")
"""The kinds that no training of ours sees, of two families."""

TRAINED_ON = tuple(kind for kind in CORRUPTIONS if kind not in HELD_OUT)
"""The kinds that a training sees."""


def corrupted(images: Tensor, kind: str, severity: Tensor) -> Tensor:
    """Corrupt images in one way.

    Args:
        images: square images, (N, C, S, S) in [0, 1].
        kind: a key of ``CORRUPTIONS``.
        severity: how strong it is for each image, (N,) in [0, 1]; at 0 an image stays as it is.

    Returns:
        Images (N, C, S, S) in [0, 1].

    Raises:
        GenclsError: for an unknown kind, images that are not square, or a severity of another shape or range.
    """
    _check_kinds((kind,))
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise GenclsError(f"corruptions: expected square images (N, C, S, S), got {tuple(images.shape)}")
    if severity.shape != (len(images),):
        raise GenclsError(f"corruptions: expected a severity per image, ({len(images)},), got {tuple(severity.shape)}")
    if not bool(((severity >= 0) & (severity <= 1)).all()):
        raise GenclsError(f"corruptions: expected severities in [0, 1], got {float(severity.min())} to {float(severity.max())}")
    return CORRUPTIONS[kind](images, severity.to(images.dtype)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Corruptions:
    """Each image is corrupted in one way, drawn uniformly, with a severity uniform in [0, 1]; some images stay clean.

    Attributes:
        kinds: names of the kinds that are drawn, of ``CORRUPTIONS``.
        clean: share of images that stay as they are, in [0, 1].
    """

    kinds: tuple[str, ...] = TRAINED_ON
    clean: float = 0.2

    def __post_init__(self) -> None:
        check_settings(self)
        _check_kinds(self.kinds)
        if not self.kinds or not 0 <= self.clean <= 1:
            raise GenclsError(f"Corruptions: expected at least one kind and clean in [0, 1], got {self.kinds} and {self.clean}")

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`gencls.zoo.training.views.perturbations.Perturbation`; images are square, and end in [0, 1]."""
        chosen = torch.randint(len(self.kinds), (len(images),), device=images.device)
        severity = torch.rand(len(images), device=images.device, dtype=images.dtype)
        chosen = torch.where(torch.rand(len(images), device=images.device) < self.clean, -1, chosen)
        changed = images.clone()
        for number, kind in enumerate(self.kinds):
            (rows,) = torch.nonzero(chosen == number, as_tuple=True)
            if len(rows):
                changed[rows] = corrupted(images[rows], kind, severity[rows])
        return changed


def _check_kinds(kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        if kind not in CORRUPTIONS:
            known = ", ".join(CORRUPTIONS)
            raise GenclsError(f"unknown corruption {kind!r}; {did_you_mean(kind, CORRUPTIONS)}expected one of {known}")
