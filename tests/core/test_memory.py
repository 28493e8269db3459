import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from gencls.core import memory
from gencls.core.memory import peak_memory, rows_that_fit, saved_bytes, store_channels_last, with_fewer_rows, work_off
from tests.toys import small_cnn


def test_channels_last_also_beside_weights_of_five_dimensions():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module.register_parameter("modulated", nn.Parameter(torch.randn(1, 4, 3, 3, 3)))
    images = torch.rand(2, 3, 8, 8)
    expected, before = module(images), {key: value.clone() for key, value in module.state_dict().items()}
    store_channels_last(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    torch.testing.assert_close(module(images), expected)


def test_other_errors_are_not_swallowed():
    def work(part, pieces):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        work_off(4, 2, work)


def test_every_sample_is_worked_off_once():
    done = []

    def work(part, pieces):
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(part.tolist())

    assert work_off(11, 8, work) == (2, 1)
    assert done == list(range(11))


def test_rows_are_halved_until_they_fit_and_told():
    asked = []

    def work(rows):
        asked.append(rows)
        if rows > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert with_fewer_rows(16, work) == ("done", 2)
    assert asked == [16, 8, 4, 2]


def test_rows_follow_the_budget():
    model, image = small_cnn(), torch.rand(1, 1, 8, 8)
    few, many = rows_that_fit(model, image, 0.1), rows_that_fit(model, image, 1.0)
    assert 1 <= few < many
    assert many == pytest.approx(10 * few, rel=0.2)


def test_the_peak_is_measured():
    gc.collect()  # what is freed inside the block would count against it
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(32 * 2**20 // 4 * 2).sum()
    if peak.mib != peak.mib:
        pytest.skip("this system does not say how much memory a process uses")
    assert 60 <= peak.mib <= 100  # 64 MiB and what else the process does


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_graphs_that_are_let_go_count_as_long_as_they_live(rounds, backward):
    """An inner descent builds a graph a step. Its addresses come back, or not, as the allocator likes."""
    image = torch.rand(1000)

    def descend() -> Tensor:
        held = []
        for _ in range(rounds):
            leaf = image.clone().requires_grad_()
            result = leaf.exp().exp().sum()  # exp saves its result: two tensors
            if backward:
                torch.autograd.grad(result, leaf)
            del result
            held.append(torch.empty(1000))  # takes an address that was freed
        return image.clone().requires_grad_().exp()  # one tensor

    assert saved_bytes(descend) == 2 * 4 * 1000


def test_a_tensor_that_is_saved_twice_counts_once():
    leaf = torch.rand(1000, requires_grad=True)
    assert saved_bytes(lambda: (leaf * leaf, leaf * leaf)) == 4 * 1000


@pytest.mark.parametrize("rounds", [1, 10])
def test_views_of_a_storage_count_at_most_what_it_has(rounds):
    """A gated unit saves its input and half of it; both begin at one address."""
    leaf = torch.rand(1000, requires_grad=True)

    def gated() -> None:
        for _ in range(rounds):
            whole = leaf + 1
            torch.autograd.grad((whole[:500] * whole[500:]).sum() + (whole * whole).sum(), leaf)

    assert saved_bytes(gated) == 4 * 1000


def test_an_expanded_tensor_counts_as_what_it_stores():
    leaf, one = torch.rand(1000, requires_grad=True), torch.rand(1)
    assert saved_bytes(lambda: leaf * one.expand(1000)) == 4


def test_a_part_of_a_large_storage_counts_as_itself():
    leaf, large = torch.rand(10, requires_grad=True), torch.rand(10**6)
    assert saved_bytes(lambda: leaf * large[:10]) == 4 * 10


def test_nothing_that_was_measured_stays(monkeypatch):
    """A saved result that knew its graph would keep the graph that saved it, out of the sight of Python's collector."""
    leaf, saved = torch.rand(1000, requires_grad=True), []

    class Watched(memory._Saved):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            saved.append(weakref.ref(self))

    monkeypatch.setattr(memory, "_Saved", Watched)
    saved_bytes(lambda: leaf.exp().tanh())
    assert len(saved) == 2
    assert all(one() is None for one in saved)


def test_second_derivatives_are_right_while_memory_is_measured():
    leaf, seconds = torch.rand(5, requires_grad=True), []

    def build() -> None:
        (first,) = torch.autograd.grad(leaf.exp().tanh().sum(), leaf, create_graph=True)
        seconds.extend(torch.autograd.grad(first.sum(), leaf))

    saved_bytes(build)
    t, e = leaf.detach().exp().tanh(), leaf.detach().exp()
    expected = (1 - t**2) * e - 2 * t * (1 - t**2) * e**2
    torch.testing.assert_close(seconds[0], expected)  # float32, a handful of operations


@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls some layouts beta
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc], ids=str)
def test_a_sparse_tensor_counts_as_its_indices_and_values(layout):
    """A network of a graph saves its sparse weights. A dense copy of these would be a hundred times as large."""
    leaf, weights = torch.rand(100, 3, requires_grad=True), torch.eye(100).to_sparse(layout=layout)
    number, index, value = 100, 8, 4
    pointers = number * index if layout == torch.sparse_coo else (number + 1) * index
    assert saved_bytes(lambda: weights @ leaf) == number * (index + value) + pointers
