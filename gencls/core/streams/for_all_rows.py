"""Python code of torch that draws for all rows at once, through functions whose shapes may look like rows by chance."""

import inspect
from collections.abc import Mapping
from types import CodeType

from torch._lowrank import get_approximate_basis
from torch.distributions.von_mises import _rejection_sample
from torch.distributions.wishart import Wishart
from torch.nn import init

__all__ = ["FOR_ALL_ROWS"]

FOR_ALL_ROWS: Mapping[CodeType, str] = {
    get_approximate_basis.__code__: "svd_lowrank or pca_lowrank",  # one basis for all matrices
    inspect.unwrap(_rejection_sample).__code__: "VonMises",  # tries again for all rows until the last one is accepted
    init.orthogonal_.__code__: "orthogonal_",  # one basis, too
    Wishart._bartlett_sampling.__code__: "Wishart",  # so does this one
}
"""Names of the functions that draw, by their code. Torch does not show these functions, so the caller identifies a draw."""
