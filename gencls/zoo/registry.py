"""Trained models and ready-made defenses by name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from gencls.core import Defense, GenclsError, Transform, TransformedClassifier, checked, did_you_mean
from gencls.defenses import ABS, EABS, AVAEPurification, GaussianBlur, GaussianNoise, NDVAEPurification, PlainClassifier
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.checkpoint import SAFETENSORS, restore
from gencls.zoo.checkpoints.reading import check_file
from gencls.zoo.networks import (
    AVAE,
    CNN,
    NDVAE,
    CifarResNet,
    ClassConditionalAutoencoder,
    ClassDecoders,
    GroupedDecoders,
    HeadedClassifier,
)
from gencls.zoo.networks.abs.published import official_abs
from gencls.zoo.networks.classifiers.published import load_autoattack_resnet18
from gencls.zoo.trained import ARCHITECTURES, WEIGHTS, trained_network, weights_places

__all__ = ["AUTOATTACK", "WEIGHTS", "find_weights", "is_weights_file", "load", "names", "trained_network"]


def names() -> tuple[str, ...]:
    """The names that :func:`load` builds from committed weights or a dependency's; other trainings' names need ``weights``."""
    return tuple(
        name for name in _BUILDERS if name == AUTOATTACK or (WEIGHTS / f"{_TRAINED.get(name, name)}.safetensors").is_file()
    )


@checked
def load(name: str | Path, **overrides: Any) -> Defense:
    """Build a defense from trained weights: by name, or of a weights file.

    The file is one that ``gencls train`` made, ``runs/cnn-mnist/cnn-mnist.safetensors``, with its card beside it. The name on
    the card says which defense it is; a classifier of another name stands alone.

    Names are ``METHOD-DATA``: ``cnn`` is trained plainly (MNIST) or with the noise of the thesis (the others), ``adv-linf`` and
    ``adv-l2`` adversarially, ``trades`` by TRADES; ``abs`` is analysis by synthesis, ``eabs`` its extension, ``a-abs`` and
    ``d-abs`` lie between (thesis, Table 2.6). ``cnn-gaussian-mnist`` is trained with noise; ``cnn-noise-mnist`` puts noise in
    front of it, ``cnn-blur-mnist`` Gaussian blur in front of ``cnn-mnist``. ``a-vae`` and ``nd-vae`` purify in front of
    ``cnn-mnist`` and ``cnn-plain-fashion``. ``cnn-gaussian-fashion`` and ``adv-linf-gaussian-fashion`` are trained with the
    noise of smoothing (thesis, section 4.3). ``resnet18-autoattack-cifar10`` has weights that come with pyautoattack.

    Args:
        name: one of :func:`names`, or of the trainings of ``gencls names`` together with ``weights``; or the path of a weights
            file, which ends with .safetensors.
        **overrides: ``weights`` for every name but ``resnet18-autoattack-cifar10`` (path of a file that ``gencls train``
            made; for the published networks, their folder); ``sigma`` for noise (in [0, 1] pixel units; that of ND-VAE
            included) and blur (in pixels); ``realisations`` and ``temperature`` for A-VAE; for ABS the keyword arguments of
            :func:`gencls.defenses.ABS`, for the published networks those of
            :func:`gencls.zoo.networks.abs.published.official_abs`; for the other autoencoders those of
            :func:`gencls.defenses.EABS` (``variational=False`` switches extension V off).

    Returns:
        The defense in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown name (listing the known ones), an override that the model does not have, or
            weights that are missing (naming the command that makes them) or damaged; a file whose card names no defense.
    """
    if is_weights_file(name):
        return _load_file(Path(name), **overrides)
    name = str(name)
    _check_name(name)
    builder = _BUILDERS[name]
    for key in overrides:
        if key not in _overrides(builder):
            known = ", ".join(_overrides(builder))
            raise GenclsError(f"{name}: expected {f'overrides among {known}' if known else 'no overrides'}; got {key!r}")
    return builder(**overrides).eval().requires_grad_(False)


def is_weights_file(name: str | Path) -> bool:
    """Whether :func:`load` takes this for the path of a weights file."""
    return str(name).endswith(SAFETENSORS)


def _load_file(path: Path, **overrides: Any) -> Defense:
    if "weights" in overrides:
        raise GenclsError(f"{path}: expected no weights beside a weights file; got {overrides['weights']}")
    check_file(path)
    card = read_card(path)
    if card.name in _BUILDERS and card.name not in (AUTOATTACK, *_OFFICIAL):
        return load(card.name, weights=path, **overrides)
    network, _ = restore(path, ARCHITECTURES)
    if not isinstance(network, (CNN, CifarResNet, HeadedClassifier)):
        raise GenclsError(
            f"{path}: expected weights of a defense or of a classifier; got {card.name!r:.100}, a {card.architecture}"
        )
    if overrides:
        raise GenclsError(f"{path}: expected no overrides for a classifier; got {', '.join(map(repr, overrides))}")
    return PlainClassifier(network, network.num_classes).eval().requires_grad_(False)


def find_weights(name: str, folder: Path) -> Path | None:
    """The weights of a defense in a folder, as :func:`load` takes them.

    Args:
        name: of the defense.
        folder: the ``--out`` of ``gencls train``, or one that holds weights files.

    Returns:
        Their path; None for ``resnet18-autoattack-cifar10``, which has none of its own.

    Raises:
        GenclsError: for an unknown name; a folder that is not there or does not have them.
    """
    _check_name(name)
    if not folder.is_dir():
        raise GenclsError(f"weights: expected a folder, got {folder}, which is none")
    if name == AUTOATTACK:
        return None
    trained = _TRAINED.get(name, name)
    places = weights_places(trained, folder)
    if name in _OFFICIAL:
        places = (folder / name / _OFFICIAL_FILE, folder / _OFFICIAL_FILE)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise GenclsError(f"{name}: expected its weights at {places[0]} or {places[1]}; got no such file")
    return found.parent if name in _OFFICIAL else found


def _check_name(name: str) -> None:
    if name not in _BUILDERS:
        others = ", ".join(other for other in _BUILDERS if other not in names())
        raise GenclsError(
            f"unknown model {name!r}; {did_you_mean(name, _BUILDERS)}expected one of {', '.join(names())}; or, with "
            f"weights=PATH, one of {others}; or the path of a weights file with a card, which ends with {SAFETENSORS}"
        )


def _overrides(builder: Callable[..., Defense]) -> list[str]:
    function = builder.func if isinstance(builder, partial) else builder
    methods: list[tuple[object, Callable[..., Defense]]] = [(_abs, ABS), (_eabs, EABS), (_official, official_abs)]
    method = next((method for own, method in methods if own is function), None)
    own = [key for key in inspect.signature(builder).parameters if key != "settings"]
    if method is None:
        return own
    networks = ("generator", "encoder", "discriminator", "source", "variant")  # they come from weights and name
    return [*own, *(key for key in inspect.signature(method).parameters if key not in networks)]


def _classifier(trained: str, *, weights: str | Path | None = None) -> Defense:
    network = trained_network(CNN, trained, weights)
    return PlainClassifier(network, network.num_classes)


def _headed(trained: str, *, weights: str | Path | None = None) -> Defense:
    network = trained_network(HeadedClassifier, trained, weights)
    return PlainClassifier(network, network.num_classes)


def _resnet(trained: str, *, weights: str | Path | None = None) -> Defense:
    network = trained_network(CifarResNet, trained, weights)
    return PlainClassifier(network, network.num_classes)


def _autoattack() -> Defense:
    network = load_autoattack_resnet18()
    return PlainClassifier(network, network.num_classes)


def _behind(trained: str, transform: Transform, weights: str | Path | None) -> Defense:
    network = trained_network(CNN, trained, weights)
    return TransformedClassifier(transform, network, network.num_classes)


def _noise(*, sigma: float = 0.2, weights: str | Path | None = None) -> Defense:
    return _behind("cnn-gaussian-mnist", GaussianNoise(sigma), weights)


def _blur(*, sigma: float = 1.0, weights: str | Path | None = None) -> Defense:
    return _behind("cnn-mnist", GaussianBlur(sigma), weights)


def _avae(
    trained: str,
    classifier: str,
    *,
    weights: str | Path | None = None,
    realisations: int = 128,
    temperature: float = 1.0,
) -> Defense:
    network = trained_network(AVAE, trained, weights)
    return _behind(classifier, AVAEPurification(network, realisations=realisations, temperature=temperature), None)


def _ndvae(trained: str, classifier: str, *, weights: str | Path | None = None, sigma: float = 0.1) -> Defense:
    return _behind(classifier, NDVAEPurification(trained_network(NDVAE, trained, weights), sigma=sigma), None)


def _abs(trained: str, *, weights: str | Path | None = None, **settings: Any) -> Defense:
    return abs_of(trained_network(ClassDecoders, trained, weights), **settings)


def abs_of(decoders: ClassDecoders, **settings: Any) -> Defense:
    """ABS of trained decoders.

    Args:
        decoders: in eval mode.
        **settings: keyword arguments of :func:`gencls.defenses.ABS`.
    """
    return ABS(GroupedDecoders.from_decoders(decoders), **settings)


def _official(variant: Literal["plain", "binary"], *, weights: str | Path | None = None, **settings: Any) -> Defense:
    if weights is None:
        raise GenclsError("official ABS: expected weights=FOLDER with the published ABS_0.net to ABS_9.net; got none")
    return official_abs(weights, variant=variant, **settings)


def _eabs(trained: str, *, weights: str | Path | None = None, **settings: Any) -> Defense:
    network = trained_network(ClassConditionalAutoencoder, trained, weights)
    return eabs_of(network, **settings)


def eabs_of(network: ClassConditionalAutoencoder, **settings: Any) -> Defense:
    """E-ABS, or what Table 2.6 puts between it and ABS, of a trained autoencoder.

    Args:
        network: in eval mode.
        **settings: keyword arguments of :func:`gencls.defenses.EABS`.
    """
    return EABS(
        GroupedDecoders.from_decoders(network.decoders),
        encoder=network.class_encoders,
        discriminator=network.class_discriminators,
        **settings,
    )


_CLASSIFIERS = ("cnn", "adv-linf", "adv-l2", "trades")
_DATA = ("mnist", "fashion", "gtsrb10", "supertraffic10", "svhn")

# What purifiers stand in front of: as in their papers, a classifier that is trained plainly.
_PLAIN = (("cnn", "mnist"), ("cnn-plain", "fashion"))

AUTOATTACK = "resnet18-autoattack-cifar10"
"""Its weights come with a dependency."""

_BUILDERS: Mapping[str, Callable[..., Defense]] = MappingProxyType(
    {
        "cnn-gaussian-mnist": partial(_classifier, "cnn-gaussian-mnist"),
        "cnn-plain-fashion": partial(_classifier, "cnn-plain-fashion"),
        "cnn-gaussian-fashion": partial(_classifier, "cnn-gaussian-fashion"),
        "adv-linf-gaussian-fashion": partial(_classifier, "adv-linf-gaussian-fashion"),
        "cnn-noise-mnist": _noise,
        "cnn-blur-mnist": _blur,
        **{name: partial(_classifier, name) for data in _DATA for name in (f"{kind}-{data}" for kind in _CLASSIFIERS)},
        **{f"abs-{data}": partial(_abs, f"abs-{data}") for data in _DATA},
        "official-abs-mnist": partial(_official, "plain"),
        "official-abs-binary-mnist": partial(_official, "binary"),
        **{f"{kind}-{data}": partial(_eabs, f"{kind}-{data}") for data in _DATA for kind in ("eabs", "a-abs", "d-abs")},
        **{f"a-vae-{data}": partial(_avae, f"a-vae-{data}", f"{plain}-{data}") for plain, data in _PLAIN},
        **{f"nd-vae-{data}": partial(_ndvae, f"nd-vae-{data}", f"{plain}-{data}") for plain, data in _PLAIN},
        **{name: partial(_classifier, name) for name in ("cnn-gender", "cnn-identities", "cnn-cars")},
        **{name: partial(_headed, name) for name in ("resnet50-gender", "vgg11-identities", "resnext50-cars")},
        AUTOATTACK: _autoattack,
        **{name: partial(_resnet, name) for name in ("resnet18-cifar10", "resnet18-gaussian-cifar10")},
    }
)

# Whose weights a defense is built on, where the names differ.
_TRAINED = {"cnn-noise-mnist": "cnn-gaussian-mnist", "cnn-blur-mnist": "cnn-mnist"}

# Networks of others: ten files in a folder.
_OFFICIAL = ("official-abs-mnist", "official-abs-binary-mnist")
_OFFICIAL_FILE = "ABS_0.net"
