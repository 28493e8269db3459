import atexit
import gc

import pytest
import torch

from gencls.eval.report.study import figures
from tests.toys import LinearGaussian, NoisyLogits, small_cnn


def pytest_collection_modifyitems(items):
    """Recipes come first: they share what takes longest, and workers take tests from each other at the end."""
    items.sort(key=lambda item: "tests/recipes/" not in item.nodeid)


def pytest_collection_finish():
    """What is imported by now stays: searching it for garbage again and again takes a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 50)  # and all that tests have imported since a fifth as often
    atexit.register(gc.unfreeze)  # or libraries complain of what they think is leaked


@pytest.fixture(autouse=True)
def _reproducible():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _coarse_figures():
    """Drawing for print takes seconds for a page. Most of it goes into embedding the font, which few tests ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(figures.STYLE, "savefig.dpi", 50)
        patch.setitem(figures.STYLE, "pdf.fonttype", 3)
        yield


@pytest.fixture(scope="session")
def generator():
    """Linear, float64, 3 classes, images (1, 3, 4), latents of 4 numbers; the distances have closed-form minima."""
    return LinearGaussian(num_classes=3, image_shape=(1, 3, 4), latent_size=4)


@pytest.fixture(scope="session")
def cnn():
    """A deterministic classifier: images (N, 1, 8, 8), 4 classes."""
    return small_cnn()


@pytest.fixture(scope="session")
def noisy_cnn():
    """The same classifier with noise on its scores."""
    return NoisyLogits(small_cnn(), sigma=0.2)


@pytest.fixture
def digits():
    """64 random images (1, 8, 8) and random labels of 4 classes."""
    source = torch.Generator().manual_seed(5)
    return torch.rand(64, 1, 8, 8, generator=source), torch.randint(0, 4, (64,), generator=source)
