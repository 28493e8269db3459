"""Bad input of generative autoencoders, for tests/test_bad_input.py."""

from collections.abc import Callable
from pathlib import Path

import torch

from gencls.zoo.networks import GenerativeAutoencoder, SingleLevel

SMALL = GenerativeAutoencoder((1, 8, 8), code_size=4, widths=(2,)).eval()

AUTOENCODERS: dict[str, Callable[[Path], object]] = {
    "a generative autoencoder with no number in its codes": lambda _: GenerativeAutoencoder((1, 8, 8), code_size=0),
    "images of another size than the autoencoder's": lambda _: SMALL.encode(torch.zeros(2, 1, 9, 8)),
    "codes of another size than the autoencoder's": lambda _: SMALL.decode(torch.zeros(2, 5)),
    "one image for the prior of its codes": lambda _: SingleLevel(SMALL).with_prior_of(torch.zeros(1, 1, 8, 8)),
    "a network that is no autoencoder with one level": lambda _: SingleLevel(torch.nn.Identity()),  # type: ignore[arg-type]
}
