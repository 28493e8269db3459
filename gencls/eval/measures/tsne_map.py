"""A t-SNE map of codes: two numbers per code, so that neighbours stay neighbours (latent-robustness paper, Figure 9)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gencls.core import GenclsError
from gencls.eval.measures.domains import as_codes, as_count, as_number

__all__ = ["tsne_map"]

Floats = npt.NDArray[np.float64]


def tsne_map(
    groups: Mapping[str, npt.ArrayLike], *, perplexity: float = 30.0, steps: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Place codes of several groups, such as those before and after an attack, on one map.

    All groups are placed together, because two maps of their own do not compare. On a map, neighbours are meant to be
    neighbours; distances between clusters and the width of a cloud mean little, see
    :func:`gencls.eval.measures.latent_statistics.spread_ratio`. Equal seeds give equal maps on one machine.

    Source: van der Maaten and Hinton 2008, "Visualizing data using t-SNE", as scikit-learn computes it, started from principal
    components.

    Args:
        groups: name -> codes (N, ...) of finite numbers, with at least two numbers each; N may differ.
        perplexity: the number of neighbours that count, at least 1 and below the number of all codes.
        steps: steps of gradient descent, at least 500; the first 250 only gather clusters.
        seed: the seed of scikit-learn's generator.

    Returns:
        name -> positions (N, 2), in the order of the codes.

    Raises:
        GenclsError: codes of two groups have different sizes, are no finite numbers, or are all equal; or a setting is out of
            range.
    """
    if not isinstance(groups, Mapping) or not groups:
        got = "none" if isinstance(groups, Mapping) else type(groups).__name__
        raise GenclsError(f"t-SNE: expected codes by name, a mapping, got {got}")
    codes = {name: as_codes(given, f"t-SNE: {name}") for name, given in groups.items()}
    sizes = {one.shape[1] for one in codes.values()}
    if len(sizes) > 1 or min(sizes) < 2:
        raise GenclsError(f"t-SNE: expected codes of one size d >= 2, got {sorted(sizes)}")
    every = np.concatenate(list(codes.values()))
    perplexity, steps = as_number(perplexity, "t-SNE: perplexity", 1, np.inf), as_count(steps, "t-SNE: steps", 500)
    if perplexity >= len(every):
        raise GenclsError(f"t-SNE: expected more codes than the perplexity, {perplexity:g}, got {len(every)}")
    if bool((every == every[0]).all()):
        raise GenclsError(f"t-SNE: expected codes that differ, got {len(every)} equal ones")
    seed = as_count(seed, "t-SNE: seed", 0)
    from sklearn.manifold import TSNE

    placed = TSNE(perplexity=perplexity, max_iter=steps, init="pca", random_state=seed).fit_transform(every)
    ends = np.cumsum([len(one) for one in codes.values()])[:-1]
    return dict(zip(codes, np.split(np.asarray(placed, dtype=np.float64), ends), strict=True))
