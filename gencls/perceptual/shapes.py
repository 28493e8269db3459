"""Which embeddings fit each other."""

from typing import Literal

from gencls.core import Embedding, GenclsError, ImageDistance

__all__ = ["check_one_shape"]


def check_one_shape(
    distance: ImageDistance, first: Embedding, second: Embedding, what: Literal["images (C, H, W)", "maps (c, h, w)"]
) -> None:
    """Check two embeddings (..., c, h, w): leading dimensions broadcast, channels and sizes do not. No value is read.

    Raises:
        GenclsError: for another number of parts, two shapes (c, h, w), or leading dimensions that do not broadcast. The
            message names the distance and calls the parts ``what``.
    """
    owner, (parts, shape) = type(distance).__name__, what.split(maxsplit=1)
    if len(first) != len(second):
        raise GenclsError(f"{owner}: expected as many {parts} of both sides to compare, got {len(first)} and {len(second)}")
    for a, b in zip(first, second, strict=True):
        if a.shape[-3:] != b.shape[-3:]:
            one, other = tuple(a.shape[-3:]), tuple(b.shape[-3:])
            raise GenclsError(f"{owner}: expected {parts} of one shape {shape} to compare, got {one} and {other}")
        # from the last to the first; a side with fewer dimensions broadcasts over the others'
        leading = zip(reversed(a.shape[:-3]), reversed(b.shape[:-3]), strict=False)
        if any(one != other and 1 not in (one, other) for one, other in leading):
            raise GenclsError(
                f"{owner}: expected {parts} whose leading dimensions broadcast, as (N, 1, ...) and (N, K, ...) do, got "
                f"{tuple(a.shape)} and {tuple(b.shape)}"
            )
