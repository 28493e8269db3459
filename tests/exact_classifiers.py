"""Bayes classifiers whose inference is a closed form."""

import torch

from gencls import zoo
from gencls.defenses import AnalysisBySynthesis, GaussianKL, robustness_bound
from gencls.perceptual import SquaredL2
from tests.toys import LinearGaussian

SEARCHED = "exact inference; minima are the smallest of the starts and ends of {} x 300 Adam steps, first rate 0.05"


class Affine(LinearGaussian):
    """G_k(z) = A_k z + b_k from given matrices (K, P, d) and offsets (K, P)."""

    def __init__(self, matrix, offset, image_shape):
        super().__init__(len(matrix), image_shape, matrix.shape[2], dtype=matrix.dtype)
        self.matrix.copy_(matrix)
        self.offset.copy_(offset)

    def decode_all(self, latents):
        # As the default, but without a copy of the matrix for each row.
        flat = torch.einsum("kpd,nkd->nkp", self.matrix, latents[0]) + self.offset
        return flat.view(*flat.shape[:2], *self.image_shape)


class ClosedForm(torch.nn.Module):
    """argmin_z ||x - A_k z - b_k||^2 + weight ||z||^2 / 2 = (A^T A + weight / 2)^-1 A^T (x - b), differentiable in x."""

    def __init__(self, generator, weight):
        super().__init__()
        matrix = generator.matrix.double()
        gram = matrix.mT @ matrix + 0.5 * weight * torch.eye(matrix.shape[2], dtype=torch.float64)
        inverse = torch.linalg.pinv(gram) @ matrix.mT  # (K, d, P)
        self.register_buffer("inverse", inverse.to(generator.matrix.dtype))
        self.register_buffer("shift", torch.einsum("kdp,kp->kd", inverse, generator.offset.double()).to(inverse.dtype))
        self.shift = self.shift.to(self.inverse.dtype)

    def forward(self, images):
        return (torch.einsum("kdp,np->nkd", self.inverse, images.flatten(1)) - self.shift,)


def exact_classifier(generator, weight=1.0, *, kind=AnalysisBySynthesis, **parts):
    """A Bayes classifier whose inference is a closed form, unless other parts are given: no step is needed."""
    settings = {"distance": SquaredL2(), "regularizer": GaussianKL(), "weight": weight, "steps": 0, "lr": 0.1, **parts}
    if "start" not in settings:
        settings["start"] = ClosedForm(generator, weight)
    return kind(generator, **settings).eval()


def exact_bound(defense, images, labels):
    """The bounds from closed forms only."""
    nearest = ClosedForm(defense.generator, 0.0)
    return robustness_bound(defense, images, labels, steps=0, starts=0, nearest=nearest, exact=True)


def digits(split, pool, limit=None):
    """Real digits, (28 / pool) pixels wide, each the mean of pool x pool."""
    data = zoo.load_data("mnist-embedded", split, limit=limit)
    return torch.nn.functional.avg_pool2d(data.images, pool), data.labels


def principal_components(pool):
    """A classifier by the principal components of each class of digits, eight of them, scaled by their standard deviations."""
    images, labels = digits("train", pool)
    matrices, offsets = [], []
    for k in range(10):
        flat = images[labels == k].flatten(1).double()
        _, sizes, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        matrices.append(axes[:8].T * sizes[:8] / len(flat) ** 0.5)
        offsets.append(flat.mean(0))
    # The weight is in the unit of squared pixels, of which there are fewer.
    generator = Affine(torch.stack(matrices).float(), torch.stack(offsets).float(), images.shape[1:])
    return exact_classifier(generator, weight=1.0 / pool**2)
