"""Functions whose backward pass keeps no graph: their second derivative is an error, and never zero in silence."""

import pytest
import torch
from torch import nn

from gencls.core import EoT, GenclsError
from gencls.defenses import ABS, DefenseGAN, VariationalPosteriorSmoothing, VariationalSmoothing
from gencls.zoo.networks.abs.decoder_layers import ColumnPairs
from tests.toys import LinearGaussian, SigmoidGenerator, small_cnn


def by_synthesis(memory_budget):
    generator = LinearGaussian(3, (1, 3, 4), 4)
    return ABS(generator, starts=8, steps=3, memory_budget=memory_budget).eval().surrogate("unrolled")


def projected():
    defense = DefenseGAN(SigmoidGenerator().double(), (3,), restarts=2, steps=4, lr=0.01, optimizer="gradient")
    return nn.Sequential(defense.eval().surrogate("unrolled"), nn.Flatten())


def smoothed(kind, mode, **settings):
    return kind(small_cnn(4).double(), 4, sigma=0.2, steps=1, draws=3, **settings).eval().surrogate(mode)


SQUARED = nn.Sequential(nn.Flatten(), nn.Linear(12, 3).double(), nn.Softplus())

SMALL, LARGE = (1, 3, 4), (1, 8, 8)

SLOPES = ("variational smoothing", "they come from the forward pass, which keeps no graph")

CASES = {
    "chunks of images": (lambda: by_synthesis(1), SMALL, ("Unrolled", "the images are split .* a larger memory_budget")),
    "chunks of draws": (lambda: EoT(SQUARED, 4, chunk=2), SMALL, ("EoT", "the draws come in chunks: set chunk=None")),
    "Defense-GAN": (projected, LARGE, ("DefenseGAN", "its backward pass keeps no graph")),
    "smoothing, frozen": (lambda: smoothed(VariationalSmoothing, "frozen", radius=0.1), LARGE, SLOPES),
    "smoothing, unrolled": (lambda: smoothed(VariationalSmoothing, "unrolled", radius=0.1, norm="l2"), LARGE, SLOPES),
    "posterior": (lambda: smoothed(VariationalPosteriorSmoothing, "frozen"), LARGE, SLOPES),
}


@pytest.mark.parametrize(("make", "shape", "message"), CASES.values(), ids=CASES)
def test_a_second_derivative_is_refused_and_the_first_is_as_without_a_graph(make, shape, message):
    model, (owner, instead) = make(), message
    images = torch.rand(2, *shape, dtype=torch.float64).requires_grad_()

    def gradient(**settings):
        torch.manual_seed(0)
        # A plain sum: the incoming gradient does not require grad, and torch's once_differentiable would return a constant.
        return torch.autograd.grad(model(images)[:, 0].sum(), images, **settings)[0]

    expected = gradient()
    found = gradient(create_graph=True)
    assert torch.equal(found.detach(), expected)
    assert not expected.requires_grad
    torch.autograd.grad(model(images)[:, 0].sum() + found.detach().square().sum(), images)  # a constant is nobody's mistake
    expectation = "expected first derivatives only, got a request for a second one"
    with pytest.raises(GenclsError, match=f"{owner}: {expectation}; {instead}"):
        torch.autograd.grad(model(images)[:, 0].sum() + found.square().sum(), images)


def test_a_second_derivative_without_chunks_is_that_of_finite_differences():
    images = torch.rand(2, *SMALL, dtype=torch.float64)
    model = by_synthesis(2**30)

    def penalised(x):
        scores = model(x)[:, 0].sum()
        return scores + torch.autograd.grad(scores, x, create_graph=True)[0].square().sum()

    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(penalised(leaf), leaf)
    step = 1e-5
    for i in (0, 7, 23):
        moved = torch.zeros(24, dtype=torch.float64)
        moved[i] = step
        up, down = (penalised((images + sign * moved.view_as(images)).requires_grad_()).item() for sign in (1, -1))
        assert found.flatten()[i].item() == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-6)


def test_column_pairs_are_twice_differentiable():
    torch.manual_seed(0)
    layer = ColumnPairs(torch.randn(2, 2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64), (1, 1))
    maps = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (maps,))
    assert torch.autograd.gradgradcheck(layer, (maps,))
