"""The copies of CIFAR10: from made-up files in the layout of the originals; the real ones where they are there."""

import io
import os
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gencls.core import GenclsError, check_images
from gencls.zoo import load_data
from gencls.zoo.data import cifar10_jpeg, cifar10_lossless, count_images
from gencls.zoo.data.cifar10_jpeg import CIFAR10_CLASSES
from gencls.zoo.data.known_files import KnownFile

ROOTS = (Path(__file__).parents[4] / "shared" / "data", Path(os.environ.get("GENCLS_DATA") or "none"))


@pytest.fixture(autouse=True)
def _only_what_the_test_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENCLS_DATA", raising=False)


def real(file: KnownFile) -> Path:
    for root in ROOTS:
        if (root / file.path).is_file():
            return root
    pytest.skip(f"needs {file.path} under ../shared/data or GENCLS_DATA")


def put(root: Path, file: KnownFile, content: bytes) -> KnownFile:
    """A made-up file in the place of a known one."""
    (root / file.path).parent.mkdir(parents=True, exist_ok=True)
    (root / file.path).write_bytes(content)
    return KnownFile(file.path, len(content), sha256(content).hexdigest())


def archive(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as tar:
        for name, member in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(member)
            tar.addfile(entry, io.BytesIO(member))
    return content.getvalue()


def jpeg(shade: int, side: int = 32) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), (shade, shade, shade)).save(content, "JPEG", quality=95)
    return content.getvalue()


@pytest.fixture
def tiny_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four test images of each of three classes, whose shade tells the class, sorted by class."""
    members = {f"test/{name}/{i:04d}.jpg": jpeg(80 * (k + 1)) for k, name in enumerate(CIFAR10_CLASSES[:3]) for i in range(4)}
    file = put(tmp_path, cifar10_jpeg.CIFAR10_JPEG_FILES["test"], archive(members))
    monkeypatch.setitem(cifar10_jpeg.CIFAR10_JPEG_FILES, "test", file)
    return tmp_path


def test_the_archive_is_read_in_its_order_and_a_part_is_balanced(tiny_jpeg: Path) -> None:
    data = load_data("cifar10-jpeg", "test", root=tiny_jpeg)

    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.indices.tolist() == list(range(12))
    assert (data.num_classes, data.class_names[9]) == (10, "truck")
    assert (data.images.mean(dim=(1, 2, 3)) * 255 / 80).round().long().sub(1).tolist() == data.labels.tolist()
    part = load_data("cifar10-jpeg", "test", root=tiny_jpeg, limit=6, seed=1, size=16)
    assert part.images.shape == (6, 3, 16, 16)
    assert part.labels.bincount().tolist() == [2, 2, 2]
    assert part.labels.tolist() == data.labels[part.indices].tolist()
    assert count_images("cifar10-jpeg", "test", root=tiny_jpeg) == 12


def test_what_is_wrong_with_the_archive_is_said(tiny_jpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = (
        f"cifar10-jpeg: expected CIFAR10-jpeg/cifar10-jpeg-train.tar.xz under the data root {tmp_path}; got no such file. See"
    )
    with pytest.raises(GenclsError, match=missing):
        load_data("cifar10-jpeg", "train", root=tmp_path)
    path = tiny_jpeg / cifar10_jpeg.CIFAR10_JPEG_FILES["test"].path
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(GenclsError, match=f"test.tar.xz: expected {len(content)} bytes; got {len(content) - 7}"):
        load_data("cifar10-jpeg", "test", root=tmp_path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(GenclsError, match=r"test.tar.xz: expected SHA-256 .*; got "):
        load_data("cifar10-jpeg", "test", root=tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_tiles_are_those_of_the_sheet(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = np.random.RandomState(0).randint(0, 256, (130, 32, 32, 3), dtype=np.uint8)
    sheet = Image.new("RGB", (3200, 64))
    for index, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (index % 100 * 32, index // 100 * 32))
    pixels, table = io.BytesIO(), io.BytesIO()
    sheet.save(pixels, "WEBP", lossless=True)
    np.savez(table, **{f"y_{split}": np.arange(130, dtype=np.uint8) % 10})
    sheets = cifar10_lossless.CIFAR10_LOSSLESS_SHEETS
    with pytest.raises(GenclsError, match=f"cifar10-lossless: expected {sheets[split].path} under the data root {tmp_path}"):
        load_data("cifar10-lossless", split, root=tmp_path)
    monkeypatch.setitem(sheets, split, put(tmp_path, sheets[split], pixels.getvalue()))
    with pytest.raises(GenclsError, match="expected CIFAR10-lossless-subset/cifar10-lossless-labels.npz under the data root"):
        load_data("cifar10-lossless", split, root=tmp_path)
    labels = put(tmp_path, cifar10_lossless.CIFAR10_LOSSLESS_LABELS, table.getvalue())
    monkeypatch.setattr(cifar10_lossless, "CIFAR10_LOSSLESS_LABELS", labels)

    data = load_data("cifar10-lossless", split, root=tmp_path)

    assert data.labels.tolist() == [index % 10 for index in range(130)]
    np.testing.assert_array_equal((data.images * 255).round().byte().permute(0, 2, 3, 1).numpy(), tiles)
    part = load_data("cifar10-lossless", split, root=tmp_path, limit=20)
    assert part.labels.bincount().tolist() == [2] * 10
    assert torch.equal(part.images, data.images[part.indices])


@pytest.mark.parametrize(("split", "count"), [pytest.param("train", 50_000, marks=pytest.mark.slow), ("test", 10_000)])
def test_the_real_archives(split: str, count: int) -> None:
    root = real(cifar10_jpeg.CIFAR10_JPEG_FILES[split])
    data = load_data("cifar10-jpeg", split, root=root, limit=50)

    assert count_images("cifar10-jpeg", split, root=root) == count
    assert data.images.shape == (50, 3, 32, 32)
    assert data.labels.bincount().tolist() == [5] * 10
    assert (data.indices // (count // 10)).tolist() == data.labels.tolist()
    check_images(data.images, channels=3)


@pytest.mark.parametrize(
    ("split", "counts"),
    [("train", [396, 366, 420, 384, 422, 393, 414, 385, 407, 413]), ("test", [29, 20, 20, 17, 18, 24, 27, 15, 16, 14])],
)
def test_the_real_sheets_are_the_jpegs_without_loss(split: str, counts: list[int]) -> None:
    root = real(cifar10_lossless.CIFAR10_LOSSLESS_LABELS)
    data = load_data("cifar10-lossless", split, root=root)

    assert data.images.shape == (sum(counts), 3, 32, 32)
    assert data.labels.bincount().tolist() == counts
    check_images(data.images, channels=3)
    if split == "test":
        jpegs = load_data("cifar10-jpeg", "test", root=real(cifar10_jpeg.CIFAR10_JPEG_FILES["test"]))
        with np.load(root / cifar10_lossless.CIFAR10_LOSSLESS_LABELS.path) as table:
            same = torch.from_numpy(table["jpeg_index_test"].astype(np.int64))
        assert torch.equal(jpegs.labels[same], data.labels)
        assert (jpegs.images[same] - data.images).square().mean(dim=(1, 2, 3)).sqrt().max() < 20 / 255
