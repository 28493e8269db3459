"""Every data set by its name. A row says how one is read."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from gencls.zoo.data import (
    celeba_10k_gender,
    celeba_100_identities,
    celeba_hq_gender,
    celeba_identities,
    cifar10_jpeg,
    cifar10_lossless,
    gtsrb10,
    stanford_cars_4,
    stanford_cars_types,
    supertraffic,
)
from gencls.zoo.data.idx import open_embedded, open_idx
from gencls.zoo.data.image_data import DataSet
from gencls.zoo.data.torchvision_sets import TORCHVISION

DATA_SETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "mnist-embedded": DataSet(open=open_embedded, embedded=True),
        "mnist": DataSet(
            open=partial(open_idx, "mnist"),
            fetch=partial(open_idx, "mnist", download=True),
            splits=("train", "train-disjoint", "test"),
            # All embedded digits are also MNIST training digits; the split leaves out those that are tested on.
            training=("train-disjoint", "test"),
            also_tested=("mnist-embedded",),
        ),
        "fashion-mnist": DataSet(
            open=partial(open_idx, "fashion-mnist"), fetch=partial(open_idx, "fashion-mnist", download=True)
        ),
        "gtsrb10": gtsrb10.DATA_SET,
        "supertraffic10": supertraffic.DATA_SET,
        "celeba-hq-gender": celeba_hq_gender.DATA_SET,
        "celeba-identities": celeba_identities.DATA_SET,
        "stanford-cars-types": stanford_cars_types.DATA_SET,
        "celeba-10k-gender": celeba_10k_gender.DATA_SET,
        "celeba-100-identities": celeba_100_identities.DATA_SET,
        "stanford-cars-4": stanford_cars_4.DATA_SET,
        "cifar10-jpeg": cifar10_jpeg.DATA_SET,
        "cifar10-lossless": cifar10_lossless.DATA_SET,
        **TORCHVISION,
    }
)
