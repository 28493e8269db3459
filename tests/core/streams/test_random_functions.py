"""Every random function of torch: served row by row, drawn for the whole batch and noted, or refused by name."""

import inspect

import pytest
import torch
from torch import distributions, nn
from torch.nn import functional, init

from gencls.core import GenclsError, keyed, stream_seed
from gencls.core.streams.torch_functions import _SERVED

N, SHAPE = 6, (4, 3, 6, 6)


def images(count=N):
    return torch.rand(count, *SHAPE[1:], generator=torch.Generator().manual_seed(1))


def seeds(count=N):
    return [stream_seed("sample", i) for i in range(count)]


def filled(name, *args):
    return lambda x: getattr(torch.empty_like(x), name)(*args)


def attention(x, **settings):
    q = x.flatten(2)
    return functional.scaled_dot_product_attention(q, q + 0.1, q, dropout_p=0.5, **settings)


def built(make, *shape):
    """A layer in training mode, the same one at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = make().train()
    return lambda x: layer(x.reshape(len(x), *shape))


class Attends(nn.Module):
    """Attention that asks for its weights, which torch computes in another way."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=True)[0]


class Recurrent(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.transpose(0, 1))[0].transpose(0, 1)


# name of a random operation of torch (the tag "nondeterministic_seeded") -> calls whose rows must not depend on the batch
ROWS = {
    "rand": [lambda x: torch.rand(len(x), 9), lambda x: torch.rand(len(x), 9, out=torch.empty(0))],
    "rand_like": [torch.rand_like],
    "randn": [lambda x: torch.randn(len(x), 9)],
    "randn_like": [torch.randn_like],
    "randint": [lambda x: torch.randint(3, 90, (len(x), 9)), lambda x: torch.randint(90, (len(x), 9), dtype=torch.int32)],
    "randint_like": [lambda x: torch.randint_like(x, 90), lambda x: torch.randint_like(x, low=3, high=90, dtype=torch.long)],
    "normal": [
        lambda x: torch.normal(x, 1.0),
        lambda x: torch.normal(mean=x, std=x + 1),
        lambda x: torch.normal(x, 1.0, out=torch.empty(0)),
        lambda x: torch.normal(0.0, 2.0, (len(x), 9)),
    ],
    "bernoulli": [torch.bernoulli, lambda x: torch.bernoulli(x, out=torch.empty(0)), lambda x: x.bernoulli(0.3)],
    "multinomial": [lambda x: torch.multinomial(input=x[:, 0, 0], num_samples=4), lambda x: x[:, 0, 0].multinomial(3)],
    "poisson": [lambda x: torch.poisson(9 * x), lambda x: torch.poisson(input=90 * x[:, 0, 0, 0])],
    "binomial": [lambda x: torch.binomial(torch.full_like(x, 90.0), x), lambda x: torch.binomial(torch.tensor(90.0), x)],
    "_standard_gamma": [torch._standard_gamma, lambda x: torch._standard_gamma(x[:, 0, 0, 0])],
    "_sample_dirichlet": [lambda x: torch._sample_dirichlet(x), lambda x: torch._sample_dirichlet(x[:, 0, 0])],
    "normal_": [filled("normal_"), filled("normal_", 1.0, 2.0)],
    "uniform_": [filled("uniform_")],
    "bernoulli_": [filled("bernoulli_"), lambda x: torch.empty_like(x).bernoulli_(x)],
    "exponential_": [filled("exponential_", 2.0)],
    "random_": [filled("random_", 90), filled("random_", 3, 90)],
    "cauchy_": [filled("cauchy_")],
    "log_normal_": [filled("log_normal_")],
    "geometric_": [filled("geometric_", 0.1)],
    "dropout": [lambda x: functional.dropout(x), lambda x: torch.dropout(x, 0.5, True), nn.Dropout()],
    "dropout_": [lambda x: torch.dropout_(x.clone(), 0.5, True), lambda x: nn.Dropout(inplace=True)(x.clone())],
    "feature_dropout": [
        lambda x: torch.feature_dropout(x, 0.5, True),
        lambda x: functional.dropout1d(x.flatten(2)),
        nn.Dropout2d(),
        lambda x: functional.dropout3d(x.unsqueeze(2)),
    ],
    "feature_dropout_": [lambda x: torch.feature_dropout_(x.clone(), 0.5, True)],
    "scaled_dot_product_attention": [
        attention,
        lambda x: attention(x, is_causal=True, scale=0.5),
        lambda x: attention(x, attn_mask=torch.zeros(3, 3)),
        lambda x: functional.scaled_dot_product_attention(
            x[:, [0, 1, 0, 1]], x[:, :2], x[:, :2], dropout_p=0.5, enable_gqa=True
        ),
        built(Attends, 18, 6),
        built(lambda: nn.TransformerEncoderLayer(6, 2, 12, dropout=0.5, batch_first=True), 18, 6),
    ],
    # made of other functions in Python
    "gumbel_softmax": [lambda x: functional.gumbel_softmax(x), lambda x: functional.gumbel_softmax(x, hard=True, dim=1)],
    "fractional_max_pool": [
        lambda x: nn.FractionalMaxPool2d(2, output_size=7)(x.repeat(1, 1, 3, 3)),
        lambda x: functional.fractional_max_pool2d(x.repeat(1, 1, 3, 3), 2, output_ratio=(0.4, 0.4), return_indices=True)[1],
        lambda x: functional.fractional_max_pool3d(x.unsqueeze(2).repeat(1, 1, 18, 3, 3), 2, output_size=7),
    ],
}


# drawn from one stream of the whole batch
WHOLE = {
    "randperm": [lambda x: torch.randperm(N), lambda x: x[torch.randperm(N)]],
    "native_dropout": [lambda x: torch.native_dropout(x, 0.5, True)[0]],
    "lstm": [built(lambda: Recurrent(nn.LSTM(6, 5, 2, dropout=0.5)), 18, 6)],
    "gru": [built(lambda: Recurrent(nn.GRU(6, 5, 2, dropout=0.5)), 18, 6)],
    "rnn_tanh": [built(lambda: Recurrent(nn.RNN(6, 5, 2, dropout=0.5)), 18, 6)],
    "rnn_relu": [built(lambda: Recurrent(nn.RNN(6, 5, 2, dropout=0.5, nonlinearity="relu")), 18, 6)],
    # of 108 rows, a multiple of the batch's by chance; three numbers for each draw of a batch of three
    "low rank": [lambda x: torch.svd_lowrank(x.flatten(1), 2)[1], lambda x: torch.pca_lowrank(x.flatten(1), 2)[1]],
    "orthogonal_": [lambda x: init.orthogonal_(torch.empty(N, 2))],
    "VonMises": [lambda x: distributions.VonMises(x[:3, 0, 0, 0], 1.0).sample()],
    "initial weights": [
        lambda x: nn.Linear(4, 7).weight,
        lambda x: init.normal_(torch.empty(N, 2)),
        lambda x: nn.LazyLinear(3)(x),
    ],
}


REFUSED = {
    "rrelu": [lambda x: functional.rrelu(x - 0.5, training=True), lambda x: torch.rrelu(x, 0.1, 0.3, True), nn.RReLU()],
    "rrelu_": [lambda x: torch.rrelu_(x.clone(), 0.1, 0.3, True), nn.RReLU(inplace=True)],
    "alpha_dropout": [lambda x: functional.alpha_dropout(x, training=True), nn.AlphaDropout()],
    "alpha_dropout_": [lambda x: torch.alpha_dropout_(x.clone(), 0.5, True)],
    "feature_alpha_dropout": [lambda x: functional.feature_alpha_dropout(x, training=True), nn.FeatureAlphaDropout()],
    "feature_alpha_dropout_": [lambda x: torch.feature_alpha_dropout_(x.clone(), 0.5, True)],
}

UNREACHABLE = {
    "inside attention, which is served": "_attention|_flash|_efficient|_sdp|_scaled_dot|_mem_eff|_softmax_with_shape",
    "inside recurrent networks and dropout of one kind of device": "_rnn|_lstm_mps|_dropout_state|_fused_dropout",
    "without a Python function of its own": "_functional$|^(cauchy|exponential|geometric|log_normal|random|uniform)$",
    "inside rrelu, which is refused": "rrelu_with_noise",
}


def cases(table):
    return [pytest.param(call, id=f"{name} {i}") for name, calls in table.items() for i, call in enumerate(calls)]


@pytest.mark.parametrize("call", cases(ROWS))
def test_a_row_alone_draws_what_it_draws_in_a_batch(call):
    x, before = images(), torch.get_rng_state()
    with keyed(seeds()) as streams:
        first, second = call(x), call(x)
    assert not streams.shared
    assert streams.used
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    for i in range(N):
        with keyed(seeds()[i : i + 1]):
            for drawn in (first, second):
                torch.testing.assert_close(
                    call(x[i : i + 1])[0], drawn[i], rtol=1e-5, atol=1e-6
                )  # products round by batch size


@pytest.mark.parametrize("call", cases(WHOLE))
def test_what_belongs_to_no_row_comes_from_the_stream_of_the_batch_and_is_noted(call):
    with keyed(seeds()) as streams:
        first = call(images())
    assert streams.shared
    torch.manual_seed(3)
    torch.rand(5)
    before = torch.get_rng_state()
    with keyed(seeds()):
        assert torch.equal(call(images()), first)
        assert not torch.equal(call(images()), first)
    assert torch.equal(torch.get_rng_state(), before)
    with keyed(seeds(N + 1)[1:]):
        assert not torch.equal(call(images()), first)


@pytest.mark.parametrize("call", cases(REFUSED))
def test_the_rest_is_refused_by_name(call):
    with keyed(seeds()), pytest.raises(GenclsError, match=r"(rrelu|alpha_dropout)_? draws in a way that cannot be keyed"):
        call(images())


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks_without_dropout_note_nothing(make):
    x, networks = torch.rand(4, 2, 3), [make(3, 5, 2), make(3, 5, 2, dropout=0.5).eval()]
    with keyed(range(2)) as streams:
        for network in networks:
            network(x)
    assert not streams.shared
    assert not streams.used


def test_no_random_operation_of_torch_is_left_out():
    """Torch marks its random operations; each is in a table above, or is only reached through one that is."""
    import re

    found = set()
    for name in torch._C._dispatch_get_all_op_names():
        space, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None) if space == "aten" else None
        if operation is not None and torch.Tag.nondeterministic_seeded in operation.tags:
            found.add(packet)
    assert len(found) > 60
    tested = {**ROWS, **WHOLE, **REFUSED}
    left = [name for name in found - tested.keys() if not any(re.search(rule, name) for rule in UNREACHABLE.values())]
    assert left == []


def test_no_python_function_of_torch_that_draws_is_left_out():
    """Torch shows the whole of these and hides what they draw inside."""
    drawing = ("rand(", "randn(", "exponential_(", "dropout(", "uniform_(", "normal_(", "dropout_p", "random_samples is None")
    missing = []
    for module in (functional, init, torch.functional):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            shown = {function, getattr(functional, name.lstrip("_"), None), getattr(torch, name, None)}
            if function.__module__ != module.__name__ or shown & _SERVED.keys():
                continue
            source = inspect.getsource(function)
            if "handle_torch_function" in source and any(
                word in source.split("handle_torch_function", 1)[1] for word in drawing
            ):
                missing.append(name)
    assert missing == []


def test_gradients_go_through_what_is_drawn():
    x = images().double().requires_grad_()
    with keyed(seeds()):
        soft = functional.gumbel_softmax(x, tau=0.7)
        gamma = torch._standard_gamma(x + 1)
    for drawn in (soft, gamma):
        (gradient,) = torch.autograd.grad((drawn * torch.arange(6)).sum(), x)
        assert bool(gradient.isfinite().all())
        assert bool((gradient != 0).any())


def test_attention_has_the_gradient_and_the_mean_of_its_dropout():
    q, v = torch.rand(2, 3, 5), torch.rand(2, 3, 4)
    whole = functional.scaled_dot_product_attention(q, q, v)
    with keyed(range(2)):
        drawn = torch.stack([functional.scaled_dot_product_attention(q, q, v, dropout_p=0.4) for _ in range(3000)])
    torch.testing.assert_close(drawn.mean(0), whole, rtol=0, atol=0.05)  # 5 standard errors
    leaf = v.clone().requires_grad_()
    with keyed(range(2)):
        functional.scaled_dot_product_attention(q, q, leaf, dropout_p=0.4).sum().backward()
    assert bool((leaf.grad != 0).any())


def test_out_is_filled():
    x, given = images(), torch.empty(0)
    with keyed(seeds()):
        expected = torch.normal(x, 1.0)
    with keyed(seeds()):
        assert torch.normal(x, 1.0, out=given) is given
    assert torch.equal(given, expected)


def test_moments():
    count = 40_000
    with keyed(range(4)):
        drawn = {
            (4.0, 2**0.5): torch.randint_like(torch.empty(4, count // 4), 2, 7),
            (27.0, 18.9**0.5): torch.binomial(torch.full((4, count // 4), 90.0), torch.tensor(0.3)),
            (3.0, 3**0.5): torch._standard_gamma(torch.full((4, count // 4), 3.0)),
        }
    for (mean, std), values in drawn.items():
        assert abs(values.double().mean() - mean) < 0.025 * std  # 5 standard errors
        assert abs(values.double().std() - std) < 0.05 * std


P = torch.linspace(0.2, 0.8, N)
ROW_WISE = {
    "Bernoulli": lambda p: distributions.Bernoulli(p),
    "Beta": lambda p: distributions.Beta(p, p + 1),
    "Binomial": lambda p: distributions.Binomial(90, p),
    "Categorical": lambda p: distributions.Categorical(torch.stack([p, 1 - p, p / 3], -1)),
    "Cauchy": lambda p: distributions.Cauchy(p, p),
    "Chi2": lambda p: distributions.Chi2(p),
    "ContinuousBernoulli": lambda p: distributions.ContinuousBernoulli(p),
    "Dirichlet": lambda p: distributions.Dirichlet(torch.stack([p, 1 - p], -1)),
    "Exponential": lambda p: distributions.Exponential(p),
    "FisherSnedecor": lambda p: distributions.FisherSnedecor(p, p + 1),
    "Gamma": lambda p: distributions.Gamma(p, p),
    "GeneralizedPareto": lambda p: distributions.GeneralizedPareto(p, p, p),
    "Geometric": lambda p: distributions.Geometric(p / 9),
    "Gumbel": lambda p: distributions.Gumbel(p, p),
    "HalfCauchy": lambda p: distributions.HalfCauchy(p),
    "HalfNormal": lambda p: distributions.HalfNormal(p),
    "Independent": lambda p: distributions.Independent(distributions.Normal(p.unsqueeze(1).expand(-1, 3), 1.0), 1),
    "InverseGamma": lambda p: distributions.InverseGamma(p, p),
    "Kumaraswamy": lambda p: distributions.Kumaraswamy(p, p),
    "LKJCholesky": lambda p: distributions.LKJCholesky(3, p),
    "Laplace": lambda p: distributions.Laplace(p, p),
    "LogNormal": lambda p: distributions.LogNormal(p, p),
    "LogisticNormal": lambda p: distributions.LogisticNormal(torch.stack([p, p], -1), torch.ones(len(p), 2)),
    "LowRankMultivariateNormal": lambda p: distributions.LowRankMultivariateNormal(
        torch.stack([p, p], -1), torch.stack([p, p], -1).unsqueeze(-1), torch.ones(len(p), 2)
    ),
    "MixtureSameFamily": lambda p: distributions.MixtureSameFamily(
        distributions.Categorical(torch.stack([p, 1 - p], -1)), distributions.Normal(torch.stack([p, -p], -1), 1.0)
    ),
    "Multinomial": lambda p: distributions.Multinomial(90, torch.stack([p, 1 - p], -1)),
    "MultivariateNormal": lambda p: distributions.MultivariateNormal(torch.stack([p, p], -1), torch.eye(2)),
    "NegativeBinomial": lambda p: distributions.NegativeBinomial(90, p),
    "Normal": lambda p: distributions.Normal(p, p),
    "OneHotCategorical": lambda p: distributions.OneHotCategorical(p.unsqueeze(-1).expand(-1, 90)),
    "OneHotCategoricalStraightThrough": lambda p: distributions.OneHotCategoricalStraightThrough(
        p.unsqueeze(-1).expand(-1, 90)
    ),
    "Pareto": lambda p: distributions.Pareto(p, p),
    "Poisson": lambda p: distributions.Poisson(90 * p),
    "RelaxedBernoulli": lambda p: distributions.RelaxedBernoulli(torch.tensor(0.5), p),
    "RelaxedOneHotCategorical": lambda p: distributions.RelaxedOneHotCategorical(
        torch.tensor(0.5), torch.stack([p, 1 - p], -1)
    ),
    "StudentT": lambda p: distributions.StudentT(p),
    "TransformedDistribution": lambda p: distributions.TransformedDistribution(
        distributions.Normal(p, 1.0), [distributions.ExpTransform()]
    ),
    "Uniform": lambda p: distributions.Uniform(p, p + 1),
    "Weibull": lambda p: distributions.Weibull(p, p),
}
NOT_ROW_WISE = {
    "Wishart": lambda p: distributions.Wishart(p + 3, torch.eye(2)),
    "VonMises": lambda p: distributions.VonMises(p, p),  # tries again for all rows until the last one is accepted
}
ABSTRACT = {"Distribution", "ExponentialFamily"}


@pytest.mark.parametrize("name", ROW_WISE)
def test_a_distribution_per_row_draws_row_by_row(name):
    make = ROW_WISE[name]
    with keyed(seeds()) as streams:
        first, second = make(P).sample(), make(P).sample()
        drawn = first if name != "Multinomial" else torch.stack([first, second], -1)
    assert not streams.shared
    assert not torch.equal(first, second) or name in ("Bernoulli", "Categorical")
    for i in range(N):
        with keyed(seeds()[i : i + 1]):
            alone = make(P[i : i + 1])
            again = alone.sample() if name != "Multinomial" else torch.stack([alone.sample(), alone.sample()], -1)
            torch.testing.assert_close(again[0], drawn[i], rtol=1e-5, atol=1e-6)


def test_every_distribution_is_tested():
    kinds = {name for name in distributions.__all__ if isinstance(getattr(distributions, name), type)}
    kinds = {name for name in kinds if issubclass(getattr(distributions, name), distributions.Distribution)}
    assert kinds - ABSTRACT == ROW_WISE.keys() | NOT_ROW_WISE.keys()


@pytest.mark.filterwarnings("ignore:Singular sample detected")
@pytest.mark.parametrize("name", NOT_ROW_WISE)
def test_a_distribution_that_cannot_draw_row_by_row_is_noted(name):
    for count in (1, 3, 7):
        with keyed(range(count)) as streams:
            NOT_ROW_WISE[name](torch.linspace(0.2, 0.8, count)).sample()
        assert f"{name} in a batch of {count}" in streams.shared


def test_random_bases_are_noted_by_name():
    with keyed(seeds()) as streams:
        torch.svd_lowrank(images().flatten(1), 2)
    assert streams.shared == {"svd_lowrank or pca_lowrank in a batch of 6"}
