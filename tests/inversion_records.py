"""Toy records of the recipe of GAN inversion."""

import torch

from recipes.gan_inversion import inversions


def record(folder, losses, labels, *, percept=None, pixel=None, levels=1, parts=None, networks="a"):
    """Write an inversion, in parts of these sizes, and read it."""
    losses, labels = torch.tensor(losses), torch.tensor(labels)
    shape = (*losses.shape, 2)
    code = torch.arange(losses.numel() * 2, dtype=torch.float32).view(shape)
    given = {"losses": losses, "labels": labels}
    given["percept"] = losses if percept is None else torch.tensor(percept)
    given["pixel"] = losses if pixel is None else torch.tensor(pixel)
    given |= {f"code{level}": code + 100 * level for level in range(levels)}
    first = 0
    for size in parts or [len(labels)]:
        part = {name: values[first : first + size].clone() for name, values in given.items()}
        inversions.write(folder, first, f"key {first}", networks, part, 2.0)
        first += size
    return inversions.read(folder, len(labels), networks)
