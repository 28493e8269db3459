import random

import numpy
import pytest
import torch
from torch.nn import functional

from gencls.core import EoT, GenclsError, branch, draws, keyed, seeded, select, stream_seed
from gencls.core.rows import present_rows
from gencls.core.streams.keyed import alone
from gencls.core.streams.seeds import GlobalStates

SHAPE = (3, 5)


def in_batch(draw):
    """A draw that fills a new tensor with N rows."""
    return lambda values: draw(torch.zeros_like(values))


# name -> images (N, 3, 5) -> draws (N, ...)
DRAWS = {
    "randn": lambda x: torch.randn(len(x), 4),
    "randn(size)": lambda x: torch.randn(size=(len(x), 4), dtype=torch.float64),
    "randn(tuple)": lambda x: torch.randn((len(x), 4)),
    "randn(out)": lambda x: torch.randn(len(x), 4, out=torch.empty(len(x), 4)),
    "rand": lambda x: torch.rand(len(x), 20),
    "randn_like": torch.randn_like,
    "rand_like": lambda x: torch.rand_like(x, dtype=torch.float64),
    "randint(high)": lambda x: torch.randint(7, (len(x), 30)),
    "randint": lambda x: torch.randint(2, 7, (len(x), 30)),
    "normal(tensor)": lambda x: torch.normal(x, 0.5),
    "normal(tensors)": lambda x: torch.normal(x, x + 0.1),
    "normal(std)": lambda x: torch.normal(2.0, x + 0.1),
    "normal(size)": lambda x: torch.normal(2.0, 3.0, (len(x), 4)),
    "bernoulli": torch.bernoulli,
    "Tensor.bernoulli": lambda x: x.bernoulli(),
    "bernoulli_(p)": in_batch(lambda t: t.bernoulli_(0.3)),
    "bernoulli_(one p)": in_batch(lambda t: t.bernoulli_(torch.tensor(0.5))),
    "bernoulli_(ps)": lambda x: torch.zeros_like(x).bernoulli_(x),
    "dropout": lambda x: functional.dropout(x, 0.4),
    "torch.dropout": lambda x: torch.dropout(x, 0.4, True),
    "nn.Dropout": lambda x: torch.nn.Dropout(0.4)(x),
    "nn.Dropout(inplace)": lambda x: torch.nn.Dropout(0.4, inplace=True)(x.clone()),
    "dropout2d": lambda x: functional.dropout2d(x.unsqueeze(3), 0.4),
    "nn.Dropout2d": lambda x: torch.nn.Dropout2d(0.4)(x.unsqueeze(3)),
    "normal_": in_batch(lambda t: t.normal_(1.0, 2.0)),
    "uniform_": in_batch(lambda t: t.uniform_(-1.0, 1.0)),
    "exponential_": in_batch(lambda t: t.exponential_(2.0)),
    "random_": in_batch(lambda t: t.random_(0, 100)),
    "cauchy_": in_batch(lambda t: t.cauchy_()),
    "log_normal_": in_batch(lambda t: t.log_normal_()),
    "geometric_": in_batch(lambda t: t.geometric_(0.2)),
    "multinomial": lambda x: torch.multinomial(x[:, 0], 3),
    "Tensor.multinomial": lambda x: x[:, 0].multinomial(4, replacement=True),
    "poisson": lambda x: torch.poisson(5 * x),
}


def images(count):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def seeds(count):
    return [stream_seed("sample", i) for i in range(count)]


@pytest.mark.parametrize("name", DRAWS)
def test_a_row_does_not_depend_on_its_batch(name):
    draw, x, keys = DRAWS[name], images(7), seeds(7)
    before = torch.get_rng_state()
    with keyed(keys) as streams:
        first, second = draw(x), draw(x)
    assert not streams.shared
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, second)  # a stream moves on
    for i in range(7):
        with keyed([keys[i]]):
            assert torch.equal(draw(x[i : i + 1])[0], first[i])
            assert torch.equal(draw(x[i : i + 1])[0], second[i])
    order = [3, 0, 6, 1, 5, 2, 4]
    with keyed([keys[i] for i in order]):
        assert torch.equal(draw(x[order]), first[order])


@pytest.mark.parametrize("name", DRAWS)
def test_rows_and_seeds_differ(name):
    x = images(1).expand(2, *SHAPE)
    with keyed(seeds(2)):
        rows = torch.stack([DRAWS[name](x) for _ in range(5)], dim=1)
    assert not torch.equal(rows[0], rows[1])


COUNT = 40_000  # numbers per draw; the standard error of a mean is 0.005 standard deviations


@pytest.mark.parametrize(
    ("draw", "mean", "std"),
    [
        (lambda x: torch.randn_like(x), 0.0, 1.0),
        (lambda x: torch.rand_like(x), 0.5, 12**-0.5),
        (lambda x: torch.randint(2, 7, x.shape).float(), 4.0, 2**0.5),
        (lambda x: torch.normal(3.0 + 0 * x, 2.0), 3.0, 2.0),
        (lambda x: torch.normal(1.0, 0.5, tuple(x.shape)), 1.0, 0.5),
        (lambda x: torch.bernoulli(0.3 + 0 * x), 0.3, 0.21**0.5),
        (lambda x: x.clone().bernoulli_(torch.tensor(0.3)), 0.3, 0.21**0.5),
        (lambda x: functional.dropout(torch.ones_like(x), 0.2), 1.0, 0.5),
        (lambda x: functional.dropout2d(torch.ones_like(x).view(4, -1, 1, 1), 0.2), 1.0, 0.5),
        (lambda x: x.clone().normal_(-1.0, 3.0), -1.0, 3.0),
        (lambda x: x.clone().uniform_(-1.0, 1.0), 0.0, 3**-0.5),
        (lambda x: x.clone().exponential_(2.0), 0.5, 0.5),
        (lambda x: torch.multinomial(torch.tensor([[0.1, 0.2, 0.7]] * 4), COUNT // 4, True).float(), 1.6, 0.44**0.5),
        (lambda x: torch.poisson(4 + 0 * x), 4.0, 2.0),
    ],
)
def test_moments(draw, mean, std):
    with keyed(seeds(4)):
        values = draw(torch.zeros(4, COUNT // 4)).double()
    assert abs(values.mean().item() - mean) < 0.025 * std  # 5 standard errors
    assert abs(values.std().item() - std) < 0.05 * std


def test_dropout_of_channels_drops_whole_channels():
    with keyed(seeds(2)):
        kept = functional.dropout2d(torch.ones(2, 50, 4, 4), 0.5)
    assert set(kept.flatten(2).mean(2).flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amax((2, 3)), kept.amin((2, 3)))


def test_dropout_in_eval_mode_draws_nothing():
    x = images(2)
    with keyed(seeds(2)):
        assert torch.equal(torch.nn.Dropout(0.5).eval()(x), x)
        assert torch.equal(torch.nn.RReLU().eval()(x), functional.rrelu(x))
        assert torch.equal(torch.nn.AlphaDropout().eval()(x), x)


def test_dropout_has_the_gradient_of_its_mask():
    x = images(2).requires_grad_()
    with keyed(seeds(2)):
        dropped = torch.nn.Dropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, (dropped != 0) * 2.0)


def test_an_explicit_generator_is_left_alone():
    own = torch.Generator().manual_seed(3)
    expected = torch.randn(4, 2, generator=torch.Generator().manual_seed(3))
    with keyed(seeds(4)) as streams:
        drawn = torch.randn(4, 2, generator=own)
        filled = torch.empty(4, 2).normal_(generator=own.manual_seed(3))
    assert torch.equal(drawn, expected)
    assert torch.equal(filled, expected)
    assert not streams.shared


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.randn(3, 2), lambda: torch.rand(()), lambda: torch.multinomial(torch.ones(4), 2)],
    ids=["other first dimension", "scalar", "multinomial of one distribution"],
)
def test_draws_without_a_row_per_sample_are_noted(draw):
    with keyed(seeds(4)) as streams:
        first = draw()
    with keyed(seeds(4)):
        assert torch.equal(draw(), first)
    assert len(streams.shared) == 1
    assert "in a batch of 4" in next(iter(streams.shared))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: functional.rrelu(x, training=True),
        lambda x: torch.nn.RReLU()(x),
        lambda x: torch.rrelu(x, 0.1, 0.3, True),
        lambda x: functional.alpha_dropout(x, 0.5, training=True),
        lambda x: torch.nn.FeatureAlphaDropout()(x),
    ],
)
def test_functions_that_cannot_be_keyed_raise(draw):
    with keyed(seeds(2)), pytest.raises(GenclsError, match="cannot be keyed by sample"):
        draw(images(2))


def test_outside_the_block_torch_draws_as_ever():
    with seeded(1):
        expected = torch.randn(3)
    with keyed(seeds(3)):
        pass
    with seeded(1):
        assert torch.equal(torch.randn(3), expected)


def test_consecutive_rows_belong_to_a_sample():
    with keyed(seeds(3)) as streams:
        six = torch.randn(6, 4)
    assert not streams.shared
    with keyed(seeds(3)[1:2]):
        assert torch.equal(torch.randn(2, 4), six[2:4])


def test_select():
    keys = seeds(5)
    with keyed(keys), select(torch.tensor([3, 1])):
        chosen = torch.randn(2, 4)
        with select(torch.tensor([1])):
            nested = torch.randn(1, 4)
    with keyed([keys[3]]):
        assert torch.equal(torch.randn(1, 4), chosen[:1])
    with keyed([keys[1]]):
        assert torch.equal(torch.randn(1, 4), chosen[1:])
        assert torch.equal(torch.randn(1, 4), nested)


def test_draws_have_streams_of_their_own():
    keys = seeds(2)
    with keyed(keys), draws(range(3)):
        together = torch.randn(6, 4)
    assert len({tuple(row) for row in together.tolist()}) == 6
    for sample in range(2):
        for number in range(3):
            with keyed([keys[sample]]), draws(range(number, number + 1)):
                assert torch.equal(torch.randn(1, 4)[0], together[3 * sample + number])


def test_a_draw_of_nothing_is_not_shared():
    with keyed([1, 2]) as streams, select(torch.tensor([], dtype=torch.int64)):
        assert torch.rand(0, 3).shape == (0, 3)
    assert not streams.shared
    assert not streams.used


def test_select_among_many_rows_per_stream():
    with keyed([1, 2]), select(torch.tensor([2, 3]), 4):
        later = torch.rand(2, 3)
    with keyed([2]):
        torch.testing.assert_close(later, torch.rand(2, 3))
    with keyed([1, 2]) as streams, select(torch.tensor([0, 1]), 3):  # three rows belong to no two samples
        torch.rand(3, 3)
    assert streams.shared


def test_rows_that_were_alone_leave_the_global_generators_as_they_were():
    with keyed([1, 2]):
        before = GlobalStates()
        with alone(2) as turn:
            for row in (0, 1):
                turn(row)
                numpy.random.rand(), random.random(), torch.rand(())
        assert GlobalStates() == before


def test_select_and_draws_do_nothing_without_streams():
    with seeded(0):
        expected = torch.randn(2)
    with seeded(0), select(torch.tensor([7])), draws(range(5)):
        assert torch.equal(torch.randn(2), expected)


def test_rows_are_restored_after_an_error():
    with keyed(seeds(3)) as streams:
        with pytest.raises(RuntimeError, match="inside"), draws(range(2)):
            raise RuntimeError("inside")
        assert len(streams.rows) == 3
    torch.randn(2, 2)  # served by torch again


@pytest.mark.parametrize("reduce", ["logits", "probs", "loss"])
def test_chunks_of_draws_do_not_change_eot(noisy_cnn, digits, reduce):
    images = digits[0][:3]

    def scores(chunk):
        x = images.clone().requires_grad_()
        with keyed(seeds(3)):
            mean = EoT(noisy_cnn, 6, reduce=reduce, chunk=chunk)(x)
        return mean, torch.autograd.grad(mean[:, 0].sum(), x)[0]

    whole, gradient = scores(None)
    for chunk in (1, 4, 6):
        mean, its_gradient = scores(chunk)
        torch.testing.assert_close(mean, whole, rtol=0, atol=1e-5)  # the noise is equal; convolutions round by batch size
        torch.testing.assert_close(its_gradient, gradient, rtol=0, atol=1e-5)


def test_chunks_of_draws_are_bit_exact_where_the_model_is():
    class Noisy(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1) + torch.randn(len(images), 15)

    x, results = images(4), []
    for chunk in (None, 1, 2, 3):
        with keyed(seeds(4)):
            model = EoT(Noisy(), 5, chunk=chunk)
            results.append(torch.stack([model(x), model(x)]))
    assert all(torch.equal(result, results[0]) for result in results)


def test_seeded_restores_the_state_and_repeats():
    state = torch.get_rng_state()
    with seeded(11):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    with seeded(11):
        assert torch.equal(torch.rand(3), first)
    with pytest.raises(KeyError), seeded(12):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


def test_stream_seeds_are_stable_and_distinct():
    assert stream_seed(0, "abc", "judge") == 6_328_396_956_059_786_169
    many = {stream_seed(i, role) for i in range(1000) for role in ("attack", "judge")}
    assert len(many) == 2000
    assert all(0 <= seed < 2**63 for seed in many)


def test_bernoulli_with_a_probability():
    values = torch.empty(4, 1000)
    with keyed([1, 2, 3, 4]):
        drawn = torch.bernoulli(values, 0.25)
        assert values.bernoulli(0.5).mean() == pytest.approx(0.5, abs=0.05)  # 4000 draws: standard deviation 0.008
    assert drawn.mean() == pytest.approx(0.25, abs=0.05)
    with keyed([3]):
        assert torch.equal(torch.bernoulli(values[:1], 0.25)[0], drawn[2])


def test_present_rows_tell_samples_draws_and_tries_apart():
    assert present_rows() is None
    with keyed([7, 8, 9]):
        assert present_rows() == [(7,), (8,), (9,)]
        with select(torch.tensor([2, 0])), draws(range(3, 5)):
            assert present_rows() == [(9, 3), (9, 4), (7, 3), (7, 4)]
        with branch(torch.tensor([1, 1]), [0, 1]):
            first, second = present_rows()
            assert first[0] == second[0] == 8
            assert first != second
    assert present_rows() is None
