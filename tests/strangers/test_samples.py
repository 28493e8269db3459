"""Samples in the forms in which people have them: every source gives the same images and labels, or one clear error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    TensorDataset,
)
from torchvision import tv_tensors

from gencls.core import GenclsError
from gencls.core.foreign import as_samples
from gencls.core.samples import batches_of, samples_of
from gencls.eval import FGSM, Study, ThreatModel, evaluate
from gencls.eval.doctor import diagnose
from gencls.zoo import ImageData

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 3, 8, 8), dtype=np.uint8)
CLASSES = [0, 2, 1, 0, 3, 2]
IMAGES, LABELS = torch.from_numpy(PIXELS).float() / 255, torch.tensor(CLASSES)
LAST = np.ascontiguousarray(PIXELS.transpose(0, 2, 3, 1))
ATTACKS = {"FGSM": FGSM(ThreatModel("linf", epsilon=0.1))}


class Listed(Dataset):
    """A data set of given items, as torchvision's are."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, position):
        return self.items[position]


class Cropping(Listed):
    """Keeps raw images under a usual name and makes others of them."""

    def __init__(self):
        super().__init__(CLASSES)
        self.images, self.labels = np.pad(PIXELS, ((0, 0), (0, 0), (2, 2), (2, 2))), np.array(CLASSES)

    def __getitem__(self, position):
        return torch.from_numpy(self.images[position, :, 2:-2, 2:-2] / np.float32(255)), self.labels[position]


class Shuffling(Sampler):
    """An order of somebody's own, another one each time."""

    def __iter__(self):
        return iter(torch.randperm(600).tolist())

    def __len__(self):
        return 600


class Streamed(IterableDataset):
    def __iter__(self):
        yield from zip(IMAGES, CLASSES, strict=True)


class Augmented(Listed):
    def __getitem__(self, position):
        image, label = self.items[position]
        return image + 0.01 * torch.rand(()), label


class Bare:
    """An object with both as attributes, as `ImageData`."""

    images, labels = IMAGES, LABELS


def pairs(images, labels=CLASSES):
    return list(zip(images, labels, strict=True))


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


PICTURES = [Image.fromarray(image) for image in LAST]
DATASET = TensorDataset(IMAGES, LABELS)
MANY = ConcatDataset([DATASET] * 100)
HALVES = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])]
SOURCES = {
    "pair": (IMAGES, LABELS),
    "pair in a list": [IMAGES, LABELS],
    "numpy": (PIXELS / np.float32(255), np.array(CLASSES)),
    "numpy, channels last": (LAST / np.float32(255), np.array(CLASSES)),
    "uint8": (PIXELS, np.array(CLASSES, dtype=np.uint8)),
    "uint8, channels last": (LAST, np.array(CLASSES, dtype=np.int32)),
    "uint8 tensor, channels last": (torch.from_numpy(LAST), LABELS.int()),
    "read-only": (read_only(PIXELS), read_only(np.array(CLASSES))),
    "reversed twice": (PIXELS[::-1].copy()[::-1], CLASSES),
    "other byte order": ((PIXELS / np.float32(255)).astype(">f4"), np.array(CLASSES, dtype=">i8")),
    "whole float labels": (IMAGES, LABELS.double()),
    "a column of labels": (IMAGES, LABELS.unsqueeze(1)),
    "lists": (list(IMAGES), CLASSES),
    "list of labels as tensors": (IMAGES, list(LABELS)),
    "list of labels of numpy": (IMAGES, list(np.array(CLASSES))),
    "nested lists": (IMAGES.tolist(), CLASSES),
    "pictures": (PICTURES, CLASSES),
    "Parameter": (nn.Parameter(IMAGES.clone()), LABELS),
    "tv_tensors": (tv_tensors.Image(IMAGES), LABELS),
    "ImageData": ImageData("mine", "all", IMAGES, LABELS, ("a", "b", "c", "d"), torch.arange(6)),
    "attributes": Bare(),
    "TensorDataset": DATASET,
    "Subset": Subset(ConcatDataset([DATASET, DATASET]), range(6)),
    "Dataset of pictures": Listed(pairs(PICTURES)),
    "Dataset of uint8": Listed(pairs(torch.from_numpy(PIXELS))),
    "Dataset with labels of one entry": Listed(pairs(IMAGES, [np.array([label]) for label in CLASSES])),
    "Dataset with raw images": Cropping(),
    "IterableDataset": Streamed(),
    "DataLoader": DataLoader(DATASET, batch_size=4),
    "DataLoader without batches": DataLoader(DATASET, batch_size=None),
    "list of samples": pairs(IMAGES),
    "list of two batches": HALVES,
    "tuple of two batches": tuple(HALVES),
    "list of one batch": [(IMAGES, LABELS)],
    "batches as lists": [list(half) for half in HALVES],
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_samples(name):
    state = torch.get_rng_state()
    images, labels = samples_of(SOURCES[name])
    batches = list(batches_of(SOURCES[name]))
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert not images.requires_grad
    torch.testing.assert_close(images, IMAGES, rtol=0, atol=1e-7)
    assert torch.equal(labels, LABELS)
    assert torch.equal(torch.cat([part for part, _ in batches]), images)
    assert torch.equal(torch.cat([part for _, part in batches]), labels)
    if "without" not in name and name != "DataLoader":  # reading in batches draws from torch, as any loop over a loader does
        assert torch.equal(torch.get_rng_state(), state)


def test_two_of_anything_are_not_mistaken():
    """Two samples, two batches, two images with two labels."""
    for two in (pairs(IMAGES)[:2], [(IMAGES[:1], LABELS[:1]), (IMAGES[1:2], LABELS[1:2])], (list(IMAGES[:2]), CLASSES[:2])):
        images, labels = samples_of(two)
        assert torch.equal(images, IMAGES[:2])
        assert labels.tolist() == CLASSES[:2]


def test_grey_images_need_no_channel():
    for grey in (PIXELS[:, 0], list(PIXELS[:, 0]), torch.from_numpy(PIXELS[:, 0])):
        assert torch.equal(as_samples(grey, CLASSES)[0], IMAGES[:, :1])
    picture = Listed(pairs([Image.fromarray(image) for image in PIXELS[:, 0]]))  # MNIST of torchvision, without a transform
    assert torch.equal(samples_of(picture)[0], IMAGES[:, :1])


def test_nothing_is_copied_or_cast_without_need():
    doubles = PIXELS / 255
    assert as_samples(IMAGES, LABELS) == (IMAGES, LABELS)
    images, _ = as_samples(doubles, CLASSES)
    assert images.dtype == torch.float64
    assert np.shares_memory(images.numpy(), doubles)


def test_what_was_given_is_not_changed():
    before, given = PIXELS.copy(), torch.from_numpy(PIXELS)
    images, _ = as_samples(given, CLASSES)
    images.zero_()
    assert np.array_equal(PIXELS, before)


def test_a_source_is_read_in_groups_and_put_together():
    many = Listed([(torch.full((1, 2, 2), (position % 5) / 10), position % 3) for position in range(600)])
    images, labels = samples_of(many)
    assert images.shape == (600, 1, 2, 2)
    assert labels.tolist() == [position % 3 for position in range(600)]
    assert [len(part) for part, _ in batches_of(many)] == [256, 256, 88]


ITEMS = "expected a pair (images, labels), a Dataset, a DataLoader, or pairs (image, label) one after another, got"
REFUSED = {
    "a path": ("digits.npz", "got the path 'digits.npz'; load it with gencls.zoo.load_data"),
    "a Path": (Path("photos"), "got the path 'photos'; load it with gencls.zoo.load_data"),
    "a path with labels": (("photos", CLASSES), "images: expected images, got the path 'photos'"),
    "images alone": (IMAGES, f"{ITEMS} a Tensor alone; give images and labels"),
    "images and None": ((IMAGES, None), "labels: expected a class number per image, got none"),
    "an array alone": (PIXELS, f"{ITEMS} a ndarray alone"),
    "a mapping": ({"image": IMAGES, "label": LABELS}, f"{ITEMS} a dict alone"),
    "a number": (7, f"{ITEMS} int"),
    "a function": (lambda: None, f"{ITEMS} function"),
    "items that are mappings": (Listed([{"image": 1, "label": 2}]), "got a dict with image, label as item 0"),
    "items without labels": (Listed(list(IMAGES)), "expected pairs (image, label), got Tensor as item 0"),
    "items of three": (TensorDataset(IMAGES, LABELS, LABELS), "expected pairs (image, label), got a tuple of 3 as item 0"),
    "one-hot": ((IMAGES, np.eye(4)[CLASSES]), "got shape (6, 4); of one-hot rows take labels.argmax(1)"),
    "float labels": ((IMAGES, [0.5] * 6), "labels: expected whole numbers, got 0.5 among torch.float64 labels"),
    "NaN labels": ((IMAGES, [float("nan")] * 6), "labels: expected whole numbers, got nan"),
    "infinite labels": ((IMAGES, [float("inf")] * 6), "labels: expected whole numbers, got inf"),
    "words as labels": ((IMAGES, ["cat"] * 6), "labels: expected numbers, got list of <U3"),
    "booleans as labels": ((IMAGES, [True, False] * 3), "labels: expected whole numbers of shape (N,), got torch.bool"),
    "complex labels": ((IMAGES, LABELS * 1j), "labels: expected whole numbers of shape (N,), got torch.complex64"),
    "negative labels": ((IMAGES, [-1] * 6), "labels: expected values >= 0, got values in -1..-1"),
    "ragged labels": ((IMAGES, [[0], [1, 2]] * 3), "labels: expected numbers in one regular array"),
    "too few labels": ((IMAGES, CLASSES[:5]), "labels: expected 6 labels, one per image, got 5"),
    "one label for all": ((IMAGES, 3), "labels: expected whole numbers of shape (N,), got torch.int64 of shape ()"),
    "half precision": (
        (IMAGES.half(), LABELS),
        "expected uint8 from 0 to 255, or float32 or float64 in [0, 1], got torch.float16",
    ),
    "bfloat16": ((IMAGES.bfloat16(), LABELS), "got torch.bfloat16"),
    "labels beyond int64": (
        (IMAGES, np.full(len(IMAGES), 2**64 - 1, np.uint64)),
        "expected whole numbers below 2**63, got 18446744073709551615",
    ),
    "int64 images": ((PIXELS.astype(int), LABELS), "got torch.int64"),
    "complex images": ((IMAGES * 1j, LABELS), "got torch.complex64"),
    "long double": ((PIXELS / np.longdouble(255), LABELS), "images: expected a dtype that torch has, got float128"),
    "objects": ((np.array([None] * 6), LABELS), "images: expected numbers, got ndarray of object"),
    "masked": ((np.ma.masked_greater(PIXELS, 200), LABELS), "images: expected all values, got an array with masked ones"),
    "sparse": ((IMAGES.to_sparse(), LABELS), "images: expected a dense tensor, got torch.sparse_coo"),
    "meta": ((IMAGES.to("meta"), LABELS), "images: expected a dense tensor, got torch.strided on meta"),
    "0 to 255 in floats": ((IMAGES * 255, LABELS), "images: expected values in [0, 1], got values in [0, 255]"),
    "normalised": ((IMAGES - 0.5, LABELS), "images: expected values in [0, 1], got values in [-0.5, 0.5]"),
    "one image": ((IMAGES[0], [0]), "images: expected shape (N, C, H, W), got rank 3 with shape (3, 8, 8)"),
    "no images": ((IMAGES[:0], LABELS[:0]), "images: expected at least one image"),
    "an empty list": ([], "images: expected at least one image, got an empty list"),
    "an empty Dataset": (Listed([]), "images: expected at least one image, got an empty Listed"),
    "two shapes": (([IMAGES[0], IMAGES[1, :, :4]], [0, 1]), "got 2 shapes, such as (3, 8, 8) and (3, 4, 8); scale them"),
    "two shapes of pictures": (Listed(pairs(PICTURES)[:5] + [(PICTURES[5].resize((4, 4)), 1)]), "got 2 shapes"),
    "two shapes of batches": ([HALVES[0], (IMAGES[4:, :, :4], LABELS[4:])], "got 2 shapes, such as (3, 8, 8) and (3, 4, 8)"),
    "two dtypes": (([IMAGES[0], IMAGES[1].double()], [0, 1]), "expected images of one dtype on one device"),
    "either axis may be channels": ((np.zeros((6, 3, 8, 3), np.uint8), LABELS), "both the second and the last axis could be"),
    "four channels": ((np.zeros((6, 8, 8, 4), np.uint8), LABELS), "expected 1 or 3 channels, (N, C, H, W) or (N, H, W, C)"),
    "pictures with a palette": ([(PICTURES[0].convert("P"), 1)], "expected PIL images of mode L or RGB, got P; convert them"),
    "a loader that shuffles": (DataLoader(DATASET, shuffle=True), "got a DataLoader that shuffles; leave out shuffle=True"),
    "a batch sampler that shuffles": (
        DataLoader(DATASET, batch_sampler=BatchSampler(RandomSampler(DATASET), 4, drop_last=False)),
        "got a DataLoader that shuffles",
    ),
    "a sampler of their own": (DataLoader(MANY, sampler=Shuffling()), "got a DataLoader that shuffles"),
    "uint8 of 0 and 1": ((PIXELS // 128, LABELS), "images: expected uint8 from 0 to 255, got 0 and 1 alone"),
    "random augmentation": (Augmented(pairs(IMAGES / 2)), "got another one as item 0; leave out random augmentation"),
    "augmentation in a loader": (DataLoader(Augmented(pairs(IMAGES / 2))), "leave out random augmentation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_source_is_named(name):
    source, message = REFUSED[name]
    with pytest.raises(GenclsError) as caught:
        samples_of(source)
    assert message in str(caught.value)
    assert "expected" in str(caught.value)


class Looking(nn.Module):
    """A linear network that keeps what it saw first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 4)
        self.seen = []

    def forward(self, images):
        if not self.seen:
            self.seen.append(images.detach().clone())
        return self.layer(images.flatten(1)) * torch.nan if self.layer.weight.isnan().any() else self.layer(images.flatten(1))


@pytest.mark.parametrize("name", ["pair", "uint8, channels last", "Dataset of pictures", "DataLoader", "list of two batches"])
def test_evaluate_takes_every_source(name):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    expected = evaluate(network, ATTACKS, [(IMAGES, LABELS)])
    found = evaluate(network, ATTACKS, SOURCES[name])
    assert torch.equal(found.adversarials["FGSM", "exact"], expected.adversarials["FGSM", "exact"])


def test_evaluate_takes_a_loader_that_shuffles():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    assert len(evaluate(network, ATTACKS, DataLoader(DATASET, shuffle=True, batch_size=4)).records) == 6


def test_a_study_takes_a_source_and_is_the_study_of_its_tensors(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    first = Study(tmp_path / "study", defenses={"linear": network}, attacks=ATTACKS, images=Listed(pairs(PICTURES)))
    assert torch.equal(first.images, IMAGES)
    assert torch.equal(first.labels, LABELS)
    again = Study(tmp_path / "study", defenses={"linear": network}, attacks=ATTACKS, images=LAST, labels=CLASSES)
    assert again.hashes == first.hashes


def test_labels_beyond_the_classes_are_named_before_a_study_begins(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    with pytest.raises(GenclsError, match=r"labels: expected values in 0\.\.2 for 3 classes, got values in 0\.\.3"):
        Study(tmp_path / "study", defenses={"linear": network}, attacks=ATTACKS, images=LAST, labels=CLASSES)
    assert not (tmp_path / "study").exists()


def test_the_doctor_takes_a_source():
    network = Looking().eval()
    nn.init.constant_(network.layer.weight, torch.nan)
    assert not diagnose(network, Listed(pairs(PICTURES)), epsilon=0.1).passed
    assert torch.equal(network.seen[0], IMAGES[:1])


@pytest.mark.parametrize("take", [samples_of, lambda source: list(batches_of(source))], ids=["all", "batches"])
def test_a_loader_that_drops_the_last_samples_is_refused(take):
    with pytest.raises(GenclsError, match=r"expected all samples, got a DataLoader that drops the last 2; leave out drop_last"):
        take(DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4, drop_last=True))
    take(DataLoader(TensorDataset(IMAGES, LABELS), batch_size=3, drop_last=True))  # none is left over


def test_labels_beside_a_data_set_are_refused():
    with pytest.raises(GenclsError, match="labels: expected none beside a TensorDataset, which has its own; got Tensor"):
        as_samples(TensorDataset(IMAGES, LABELS), LABELS)
