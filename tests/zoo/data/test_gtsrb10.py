import io
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gencls.core import GenclsError, check_images
from gencls.zoo import load_data
from gencls.zoo.data import gtsrb10
from gencls.zoo.data.known_files import KnownFile

SHARED = Path(__file__).parents[4] / "shared" / "data"
REAL_DATA_ROOT = os.environ.get("GENCLS_DATA")


@pytest.fixture(autouse=True)
def _only_what_the_test_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENCLS_DATA", raising=False)


@pytest.fixture
def real() -> Path:
    for root in (SHARED, *([Path(REAL_DATA_ROOT)] if REAL_DATA_ROOT else [])):
        if (root / "GTSRB" / "gtsrb10-32-test.webp").is_file():
            return root
    pytest.skip("needs GTSRB/gtsrb10-32-*.webp and -labels.npz under ../shared/data or GENCLS_DATA")


def fake(root: Path, monkeypatch: pytest.MonkeyPatch, labels: list[int], tracks: list[int]) -> np.ndarray:
    """Both files of "train" with random tiles, registered as the originals; gives the tiles, (N, 32, 32, 3)."""
    tiles = np.random.RandomState(0).randint(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    sheet = Image.new("RGB", (3200, 32 * -(-len(labels) // 100)))
    for index, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (index % 100 * 32, index // 100 * 32))
    pixels, table = io.BytesIO(), io.BytesIO()
    sheet.save(pixels, "WEBP", lossless=True)
    np.savez(table, y=np.array(labels, np.uint8), track=np.array(tracks, np.int16))
    (root / "GTSRB").mkdir()
    files = []
    for name, content in (("train.webp", pixels.getvalue()), ("train-labels.npz", table.getvalue())):
        (root / "GTSRB" / name).write_bytes(content)
        files.append(KnownFile(f"GTSRB/{name}", len(content), sha256(content).hexdigest()))
    monkeypatch.setitem(gtsrb10.GTSRB10_FILES, "train", (files[0], files[1]))
    return tiles


def test_tiles_are_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [index % 10 for index in range(130)]
    tiles = fake(tmp_path, monkeypatch, labels, list(range(130)))

    data = load_data("gtsrb10", "train", root=tmp_path)

    assert data.labels.tolist() == labels
    assert data.indices.tolist() == list(range(130))
    np.testing.assert_array_equal((data.images * 255).round().byte().permute(0, 2, 3, 1).numpy(), tiles)
    assert load_data("gtsrb10", "train", root=tmp_path, limit=20, size=16).images.shape == (20, 3, 16, 16)


def test_validation_takes_a_tenth_of_the_tracks_of_every_class_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # class 0 has 20 tracks of 5 photos, class 1 has 3 tracks of 4: 2 and 1 tracks are held out
    labels, tracks = [0] * 100 + [1] * 12, [index // 5 for index in range(100)] + [index // 4 for index in range(12)]
    tiles = fake(tmp_path, monkeypatch, labels, tracks)

    held_out, rest = (load_data("gtsrb10", split, root=tmp_path) for split in ("validation", "train-tracks"))

    assert held_out.labels.bincount().tolist() == [10, 4]
    assert sorted([*held_out.indices.tolist(), *rest.indices.tolist()]) == list(range(112))
    signs = [{(labels[index], tracks[index]) for index in data.indices.tolist()} for data in (held_out, rest)]
    assert not signs[0] & signs[1]
    assert len(signs[0]) == 3
    np.testing.assert_array_equal((rest.images[0] * 255).round().byte().permute(1, 2, 0).numpy(), tiles[rest.indices[0]])


@pytest.mark.parametrize("name", ["gtsrb10-32-test.webp", "gtsrb10-32-test-labels.npz"])
def test_missing_and_damaged_files_are_named(name: str, real: Path, tmp_path: Path) -> None:
    (tmp_path / "GTSRB").mkdir()
    for path in (real / "GTSRB").glob("gtsrb10-32-test*"):
        (tmp_path / "GTSRB" / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "GTSRB" / name
    content = path.read_bytes()

    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(GenclsError, match=f"{name}: expected SHA-256 .*; got "):
        load_data("gtsrb10", "test", root=tmp_path)
    path.write_bytes(content[:-7])
    with pytest.raises(GenclsError, match=f"{name}: expected {len(content)} bytes; got {len(content) - 7}"):
        load_data("gtsrb10", "test", root=tmp_path)
    path.unlink()
    with pytest.raises(GenclsError, match=f"expected GTSRB/{name} under the data root {tmp_path}"):
        load_data("gtsrb10", "test", root=tmp_path)


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", [672, 602, 548, 486, 409, 544, 646, 665, 472, 561]),
        ("test", [288, 294, 247, 208, 178, 230, 271, 298, 217, 269]),
        ("train-tracks", [605, 533, 491, 439, 375, 489, 579, 600, 425, 499]),
        ("validation", [67, 69, 57, 47, 34, 55, 67, 65, 47, 62]),
    ],
)
def test_the_real_files(split: str, counts: list[int], real: Path) -> None:
    data = load_data("gtsrb10", split, root=real)

    assert data.images.shape == (sum(counts), 3, 32, 32)
    assert data.labels.bincount().tolist() == counts  # committed weights depend on the split
    check_images(data.images, channels=3)


def test_labels_are_the_classes_they_are_named_after(real: Path) -> None:
    # Mean colour of the middle of the signs: keep right is blue, priority road yellow; the others are neither.
    data = load_data("gtsrb10", "train", root=real)
    red, _, blue = data.images[:, :, 8:24, 8:24].mean(dim=(2, 3)).T
    blueness = torch.tensor([(blue - red)[data.labels == label].mean() for label in range(10)])

    assert data.class_names[int(blueness.argmax())] == "keep right"
    assert data.class_names[int(blueness.argmin())] == "priority road"
