"""Every ready-made defense and generator by name. A row says how to put it together from the network of a training."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from gencls.core import Defense, MultiLatentModel, TransformedClassifier
from gencls.defenses import (
    ABS,
    EABS,
    AVAEPurification,
    GaussianBlur,
    GaussianNoise,
    MLVGMPurification,
    NDVAEPurification,
    PlainClassifier,
)
from gencls.zoo import networks
from gencls.zoo.distances import DISTANCES, TRAINED_FOR_DISTANCES
from gencls.zoo.inversions import INVERSIONS
from gencls.zoo.networks.abs.published import official_abs
from gencls.zoo.networks.classifiers.published import load_autoattack_resnet18
from gencls.zoo.ready_made import ReadyMade, purifier

AUTOATTACK = "resnet18-autoattack-cifar10"
"""The defense whose weights come with a dependency."""


def plain(network: Any) -> Defense:
    """Wrap a classifier that stands alone."""
    return PlainClassifier(network, network.num_classes)


def _noise(network: networks.CNN, *, sigma: float = 0.2) -> Defense:
    return TransformedClassifier(GaussianNoise(sigma), network, network.num_classes)


def _blur(network: networks.CNN, *, sigma: float = 1.0) -> Defense:
    return TransformedClassifier(GaussianBlur(sigma), network, network.num_classes)


def abs_of(decoders: networks.ClassDecoders, **settings: Any) -> Defense:
    """Build ABS from trained decoders in eval mode; settings are the keyword arguments of :func:`gencls.defenses.ABS`."""
    return ABS(networks.GroupedDecoders.from_decoders(decoders), **settings)


def eabs_of(network: networks.ClassConditionalAutoencoder, **settings: Any) -> Defense:
    """Build E-ABS, or a part of it (Table 2.6), from a trained autoencoder in eval mode by :func:`gencls.defenses.EABS`."""
    return EABS(
        networks.GroupedDecoders.from_decoders(network.decoders),
        encoder=network.class_encoders,
        discriminator=network.class_discriminators,
        **settings,
    )


def _autoencoded(network: networks.GenerativeAutoencoder, *, alpha: float = 0.0) -> MLVGMPurification:
    """Purify by an autoencoder with one level of codes, of which a share alpha is drawn anew."""
    return MLVGMPurification(networks.SingleLevel(network), (alpha,))


_DATA = ("mnist", "fashion", "gtsrb10", "supertraffic10", "svhn")

_FEATURE_DATA = ("mnist", "fashion", "cifar10")
# Purifiers stand in front of a plainly trained classifier, as in their papers.
_PLAIN = (("cnn-mnist", "mnist"), ("cnn-plain-fashion", "fashion"))

_CODED = ("mnist", "fashion", "faces")
_AUTOENCODERS = ("vae", "mmd-vae", "swt-vae", "mmd-dae", "swt-dae", "tc-vae", "aae", "latent-adv-vae")

_CNN = ReadyMade(plain, networks.CNN)
_ABS = ReadyMade(abs_of, networks.ClassDecoders, settings=ABS)
_EABS = ReadyMade(eabs_of, networks.ClassConditionalAutoencoder, settings=EABS)
_HEADED = ReadyMade(plain, networks.HeadedClassifier)
_RESNET = ReadyMade(plain, networks.CifarResNet)
_FEATURES = ReadyMade(plain, networks.CifarPreActResNet)

ROWS: Mapping[str, ReadyMade] = MappingProxyType(
    {
        "cnn-gaussian-mnist": _CNN,
        "cnn-plain-fashion": _CNN,
        "cnn-gaussian-fashion": _CNN,
        "adv-linf-gaussian-fashion": _CNN,
        "cnn-noise-mnist": ReadyMade(_noise, networks.CNN, trained="cnn-gaussian-mnist"),
        "cnn-blur-mnist": ReadyMade(_blur, networks.CNN, trained="cnn-mnist"),
        **{f"{kind}-{data}": _CNN for data in _DATA for kind in ("cnn", "adv-linf", "adv-l2", "trades")},
        **{f"abs-{data}": _ABS for data in _DATA},
        "official-abs-mnist": ReadyMade(partial(official_abs, variant="plain"), files="ABS_0.net"),
        "official-abs-binary-mnist": ReadyMade(partial(official_abs, variant="binary"), files="ABS_0.net"),
        **{f"{kind}-{data}": _EABS for data in _DATA for kind in ("eabs", "a-abs", "d-abs")},
        **{f"a-vae-{data}": purifier(AVAEPurification, networks.AVAE, classifier=plain) for plain, data in _PLAIN},
        **{f"nd-vae-{data}": purifier(NDVAEPurification, networks.NDVAE, classifier=plain) for plain, data in _PLAIN},
        **{
            f"mlvgm-{kind}-{data}": purifier(
                _autoencoded, networks.GenerativeAutoencoder, classifier=plain, trained=f"{kind}-{data}"
            )
            for plain, data in (*_PLAIN, ("cnn-gender", "faces"))
            for kind in _AUTOENCODERS
        },
        **dict.fromkeys(("cnn-gender", "cnn-identities", "cnn-cars"), _CNN),
        **dict.fromkeys(("resnet50-gender", "vgg11-identities", "resnext50-cars"), _HEADED),
        AUTOATTACK: ReadyMade(lambda: plain(load_autoattack_resnet18())),
        **dict.fromkeys(("resnet18-cifar10", "resnet18-gaussian-cifar10"), _RESNET),
        **INVERSIONS,
        **{f"{kind}-{data}": _FEATURES for data in _FEATURE_DATA for kind in ("features", "features-corruptions")},
    }
)
"""Every defense by name."""


GENERATORS: Mapping[str, type[MultiLatentModel]] = MappingProxyType(
    {
        "nvae-fashion": networks.NVAE,
        "nvae-mnist": networks.NVAE,
        "nvae-large-fashion": networks.NVAE,
        "stylegan2-fashion": networks.SmallStyleAutoencoder,
        "stylegan2-large-fashion": networks.SmallStyleAutoencoder,
        "nvae-faces": networks.NVAE,
        "nvae-large-faces": networks.NVAE,
        "nvae-cars": networks.NVAE,
        "stylegan2-cars": networks.SmallStyleAutoencoder,
    }
)
"""The network of each training of a generator."""


PARTS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        **{f"cgan-{data}": networks.SelfModulatedGenerator for data in ("fashion", "mnist", "cifar10")},
        # encoders for published generators, whose files are the user's
        **dict.fromkeys(("enc-imagenette", "enc-d-imagenette", "enc-d-fqgan-cifar10"), networks.ResNetEncoder),
        **TRAINED_FOR_DISTANCES,
        **{f"{kind}-{data}": networks.GenerativeAutoencoder for data in _CODED for kind in _AUTOENCODERS},
    }
)
"""The network of each training that makes a part of a defense and neither a defense nor a generator of several levels."""


TRAINED: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        **{row.trained or name: row.network for name, row in ROWS.items() if row.network is not None},
        **GENERATORS,
        **PARTS,
    }
)
"""The network of each training."""


def training_of(name: str) -> str | None:
    """The training of a card's name: of that name, or of its beginning for a variant or companion; None for any other name."""
    known = [training for training in TRAINED if f"{name}-".startswith(f"{training}-")]
    return max(known, key=len, default=None)


def calls_that_load(training: str) -> list[str]:
    """The calls, in words, that load a training's weights under a name of their own; FILE stands for the weights."""
    rows = [name for name, row in ROWS.items() if row.network is not None and (row.trained or name) == training]
    distances = [name for name, row in DISTANCES.items() if row.trained == training]
    named = {"load": rows, "load_generator": [training] if training in GENERATORS else [], "load_distance": distances}
    calls = [f"zoo.{function}({name!r}, weights=FILE)" for function, names in named.items() for name in names]
    return calls or [f"gencls.zoo.trained.trained_network({TRAINED[training].__name__}, {training!r}, FILE)"]
