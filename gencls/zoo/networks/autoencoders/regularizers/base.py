"""The contract of penalties on codes."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.words import counted
from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior


class CodeRegularizer(nn.Module, ABC):
    """A penalty for codes that do not look like draws from the prior N(0, I).

    A training adds it to the reconstruction error, times a weight lambda. It works on codes of any floating-point type on any
    device, takes the whole batch at once, and never waits for the device: of the input it checks types and shapes only.

    Attributes:
        needs_variance: whether the penalty is made of q(z | x) and so asks for a variational encoder.
        fewest: the least number of codes that the penalty is defined for.
        most: the largest number; None without a limit.
    """

    needs_variance: ClassVar[bool] = False
    fewest: ClassVar[int] = 1
    most: ClassVar[int | None] = None

    @abstractmethod
    def penalty(self, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """Compute the penalty, (), from checked codes (N, d) and their posterior; it is differentiable in both."""

    def forward(self, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """The penalty of one batch.

        Args:
            codes: what the decoder gets, (N, d): a draw from the posterior of each image.
            posterior: what the encoder says of the same images, in the same order.

        Returns:
            A number without dimensions, (), differentiable in codes and posterior.

        Raises:
            GenclsError: the codes have another rank, are not floating point, or are too few or too many; the posterior is of
                other codes, or has no variance where the penalty needs it.
        """
        self.check_both(codes, posterior)
        return self.penalty(codes, posterior)

    def check(self, codes: Tensor) -> None:
        """Refuse what is no batch of codes, (N, d), or too small or too large a batch; no value is read.

        Raises:
            GenclsError: an expectation does not hold; the message names it and what came instead.
        """
        name = type(self).__name__
        if not isinstance(codes, Tensor) or codes.ndim != 2 or not codes.is_floating_point() or not codes.shape[1]:
            got = f"{codes.dtype} of shape {tuple(codes.shape)}" if isinstance(codes, Tensor) else type(codes).__name__
            raise GenclsError(f"{name}: expected floating-point codes of shape (N, d) with d >= 1, got {got}")
        if len(codes) < self.fewest or (self.most is not None and len(codes) > self.most):
            limits = f"at least {counted(self.fewest, 'code')}" if self.most is None else f"{self.fewest} to {self.most} codes"
            raise GenclsError(f"{name}: expected {limits} at once, got {len(codes)}")

    def check_both(self, codes: Tensor, posterior: CodePosterior) -> None:
        """Refuse bad codes, a posterior of other codes, and one without variance where the penalty needs it.

        Raises:
            GenclsError: an expectation does not hold; the message names it and what came instead.
        """
        self.check(codes)
        name = type(self).__name__
        if not isinstance(posterior, CodePosterior):
            raise GenclsError(f"{name}: expected a CodePosterior (mean, log_variance), got {type(posterior).__name__}")
        parts = [part for part in posterior if part is not None]
        if any(part.shape != codes.shape or part.dtype != codes.dtype for part in parts):
            got = " and ".join(f"{part.dtype} of shape {tuple(part.shape)}" for part in parts)
            raise GenclsError(
                f"{name}: expected a posterior of {codes.dtype} and shape {tuple(codes.shape)}, as the codes; got {got}"
            )
        if self.needs_variance:
            self.log_variance_of(posterior)

    def log_variance_of(self, posterior: CodePosterior) -> Tensor:
        """The log variance of a posterior, (N, d), which a penalty with ``needs_variance`` cannot do without.

        Raises:
            GenclsError: the posterior has none.
        """
        if posterior.log_variance is None:
            raise GenclsError(
                f"{type(self).__name__}: expected the posterior of a variational encoder, got one without a variance "
                "(log_variance is None); MMD, ShapiroWilk and Adversarial need none"
            )
        return posterior.log_variance
