"""What the families of NVAE share: passes with given draws, and all that is known about a pass."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch import Tensor, nn

from gencls.zoo.networks.nvae.hierarchical_vae import DiagonalGaussian, HierarchicalVAE
from tests.golden.vectors import Vectors


class Inputs:
    """Names of the arrays that go in: images, weights of the mixing, and the draws of any number of levels."""

    def __contains__(self, name: object) -> bool:
        return name in ("image", "alphas") or str(name).startswith("eps.")


@contextmanager
def given_draws(network: HierarchicalVAE, vectors: Vectors, prefix: str) -> Iterator[None]:
    """The draws of level i are the array prefix + i."""
    draws = (vectors.arrays[f"{prefix}{level}"] for level in range(network.num_levels))
    with patch.object(network, "noise", lambda like: next(draws)):
        yield


@contextmanager
def recorded(network: HierarchicalVAE, head: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Gaussians of all levels as z{level}_{q,p}_{mu,sigma}, and what the decoder's last module gives, as logits."""
    found: dict[str, Tensor] = {}

    def spy(letter: str, method: Callable[..., DiagonalGaussian]) -> Callable[..., DiagonalGaussian]:
        def call(level: int, *rest: object) -> DiagonalGaussian:
            gaussian = method(level, *rest)
            found[f"z{level}_{letter}_mu"], found[f"z{level}_{letter}_sigma"] = gaussian.mean, gaussian.scale
            return gaussian

        return call

    hook = head.register_forward_hook(lambda *call: found.__setitem__("logits", call[2]))
    with patch.multiple(network, prior=spy("p", network.prior), posterior=spy("q", network.posterior)):
        yield found
    hook.remove()


def encoded_only(level: int, encoded: Tensor, sampled: Tensor) -> Tensor:
    return encoded


def prior_samples(network: HierarchicalVAE, head: nn.Module, vectors: Vectors) -> dict[str, Tensor]:
    """prior_sample_t{T}_* at every temperature T that the file has, written 0p6."""
    found = {}
    for written in {match[1] for match in map(re.compile(r"prior_sample_t(\d+p\d+)_").match, vectors.names) if match}:
        network.temperature = float(written.replace("p", "."))
        with given_draws(network, vectors, "eps.prior."), recorded(network, head) as seen:
            mixture = network.sample(len(vectors.arrays["eps.prior.0"]))
        found |= {f"prior_sample_t{written}_logits": seen["logits"], f"prior_sample_t{written}_mixture_mean": mixture.mean()}
    return found


def tolerance(name: str, expected: Tensor) -> float:
    return 1e-4 * max(1.0, float(expected.abs().max()))  # convolutions of other backends differ by 1e-6 of the largest value


def prefixed(prefix: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in found.items()}
