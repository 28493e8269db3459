"""Ready-made defenses, trained generators and distances by name, or from weights files."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

from gencls.core import Defense, GenclsError, MultiLatentModel, checked, did_you_mean
from gencls.core.words import with_article
from gencls.perceptual import FeatureDistance
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.checkpoint import SAFETENSORS, Architectures, restore
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.checkpoints.reading import check_file
from gencls.zoo.distances import DISTANCES, feature_distance
from gencls.zoo.ready_made import ReadyMade
from gencls.zoo.rows import GENERATORS, PARTS, ROWS, plain
from gencls.zoo.trained import PUBLIC, check_no_training, constructor, trained_network

_KINDS = {row.network for row in ROWS.values() if row.network is not None} | set(GENERATORS.values())

_CLASSIFIERS = {row.network for row in ROWS.values() if row.build is plain}
"""Networks that stand alone."""

ARCHITECTURES: Architectures = MappingProxyType({**PUBLIC, **{kind.__name__: constructor(kind) for kind in _KINDS}})
"""Constructors by the names that cards use: those of public networks, and those that rows name."""


def names() -> tuple[str, ...]:
    """The names that :func:`load` builds from committed weights or a dependency's; other trainings' names need ``weights``."""
    return tuple(name for name, row in ROWS.items() if row.is_here(name))


@checked
def load(name: str | Path, **overrides: Any) -> Defense:
    """Build a defense from trained weights, by name or by the path of a weights file.

    The file is one that ``gencls train`` made, ``runs/cnn-mnist/cnn-mnist.safetensors``, with its card beside it. The name on
    the card says which defense it is; a classifier of another name stands alone.

    Names are ``METHOD-DATA``: ``cnn`` is trained plainly (MNIST) or with the noise of the thesis (the others), ``adv-linf`` and
    ``adv-l2`` adversarially, ``trades`` by TRADES; ``abs`` is analysis by synthesis, ``eabs`` its extension, ``a-abs`` and
    ``d-abs`` lie between (thesis, Table 2.6). ``cnn-gaussian-mnist`` is trained with noise; ``cnn-noise-mnist`` puts noise in
    front of it, ``cnn-blur-mnist`` Gaussian blur in front of ``cnn-mnist``. ``a-vae`` and ``nd-vae`` purify in front of
    ``cnn-mnist`` and ``cnn-plain-fashion``, and so do ``mlvgm-vae``, ``mlvgm-swt-dae`` and the other generative autoencoders.
    ``cnn-gaussian-fashion`` and ``adv-linf-gaussian-fashion`` are trained with the noise of smoothing (thesis, section 4.3).
    ``resnet18-autoattack-cifar10`` has weights that come with pyautoattack.

    A defense of several networks takes from a folder ``weights`` the networks that are there, and the committed weights of the
    others. From a file it takes its own network alone, that of the training with its name.

    Args:
        name: one of :func:`names`, or of the trainings of ``gencls names`` together with ``weights``; or the path of a weights
            file, which ends with .safetensors.
        **overrides: ``weights`` for every name but ``resnet18-autoattack-cifar10`` (path of a file that ``gencls train``
            made, or of its folder ``--out``; for the published networks, their folder); ``sigma`` for noise (in [0, 1] pixel
            units; that of ND-VAE included) and blur (in pixels); ``alpha`` in [0, 1] for generative autoencoders; the keyword
            arguments of :class:`gencls.defenses.AVAEPurification`; for ABS those of :func:`gencls.defenses.ABS`, for
            the published networks those of :func:`gencls.zoo.networks.abs.published.official_abs`; for the other autoencoders
            those of :func:`gencls.defenses.EABS` (``variational=False`` switches extension V off).

    Returns:
        The defense in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown name (listing the known ones), an override that the model does not have, or
            weights that are missing (naming the command that makes them), damaged, or of another training than the defense
            is made of; a file whose card names no defense.
    """
    if is_weights_file(name):
        return _load_file(Path(name), **overrides)
    row = _row(str(name))
    taken = row.overrides()
    for key in overrides:
        if key not in taken:
            known = ", ".join(taken)
            raise GenclsError(f"{name}: expected {f'overrides among {known}' if known else 'no overrides'}; got {key!r}")
    return row.make(str(name), trained_network, **overrides).eval().requires_grad_(False)


def generator_names() -> tuple[str, ...]:
    """The names that :func:`load_generator` builds from committed weights; names of other trainings need ``weights``."""
    return tuple(name for name in GENERATORS if (WEIGHTS / f"{name}.safetensors").is_file())


@checked
def load_generator(name: str, *, weights: str | Path | None = None) -> MultiLatentModel:
    """Build one of our own generators, for instance for :class:`gencls.defenses.MLVGMPurification`.

    Published checkpoints have their own readers: :mod:`gencls.zoo.networks.nvae.published` and
    :mod:`gencls.zoo.networks.stylegan.published`.

    Args:
        name: one of :func:`generator_names`, or with ``weights`` the name of any training of a generator.
        weights: path of a file that ``gencls train`` made, or of its folder ``--out``; None is the committed file.

    Returns:
        The generator in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown name (listing the known ones); for weights that are missing (naming the command that makes
            them), damaged, or of something else, for instance another training.
    """
    if name not in GENERATORS:
        known = ", ".join(GENERATORS)
        raise GenclsError(f"unknown generator {name!r}; {did_you_mean(name, GENERATORS)}expected one of {known}")
    return trained_network(GENERATORS[name], name, weights)


def distance_names() -> tuple[str, ...]:
    """The names whose weights are committed or come with a dependency; the others need ``weights``."""
    return tuple(name for name, row in DISTANCES.items() if row.is_here)


@checked
def load_distance(name: str, *, weights: str | Path | None = None, normalize: bool = True) -> FeatureDistance:
    """Build a feature distance by name.

    Names are ``features-DATA``, of a network that was trained plainly, ``features-corruptions-DATA``, of the same network
    trained on corrupted images, ``contrastive-DATA``, of that network after it learned from reconstructions, and
    ``robust-linf-DATA``, of a network that was trained adversarially. The names of published networks are for CIFAR10:
    ``vgg-cifar10``, ``robust-linf-cifar10`` and ``robust-corruptions-cifar10`` are the thesis's.

    Args:
        name: a key of ``DISTANCES``.
        weights: for a network of ours, the file that ``gencls train`` made or the folder ``--out``; None takes the committed
            file. For a published network, its file.
        normalize: whether each channel is normalised, as in the thesis on CIFAR10.

    Returns:
        The squared distance of eq. 3.6 over the layers of :func:`gencls.zoo.distances.feature_layers`.

    Raises:
        GenclsError: for an unknown name; for weights that are missing (naming the command that makes them, or the file),
            damaged, of another network, or of another training.
    """
    if name not in DISTANCES:
        known = ", ".join(DISTANCES)
        raise GenclsError(f"unknown distance {name!r}; {did_you_mean(name, DISTANCES)}expected one of {known}")
    row = DISTANCES[name]
    if row.file and weights is not None:
        check_no_training(weights, name)
    return feature_distance(row.network(name, trained_network, weights), normalize=normalize)


def is_weights_file(name: str | Path) -> bool:
    """Whether :func:`load` takes this for the path of a weights file."""
    return str(name).endswith(SAFETENSORS)


def _load_file(path: Path, **overrides: Any) -> Defense:
    if "weights" in overrides:
        raise GenclsError(f"{path}: expected no weights beside a weights file; got {overrides['weights']}")
    check_file(path)
    card = read_card(path)
    if card.name in ROWS and ROWS[card.name].network is not None:
        return load(card.name, weights=path, **overrides)
    network, _ = restore(path, ARCHITECTURES)
    if type(network) not in _CLASSIFIERS:
        raise GenclsError(
            f"{path}: expected weights of a defense or of a classifier; got {card.name!r:.100}, "
            f"{with_article(card.architecture)}"
        )
    if overrides:
        raise GenclsError(f"{path}: expected no overrides for a classifier; got {', '.join(map(repr, overrides))}")
    return plain(network).eval().requires_grad_(False)


def find_weights(name: str, folder: Path) -> Path | None:
    """The weights of a defense, as :func:`load` takes them, in the ``--out`` of ``gencls train`` or beside other weights files.

    Returns:
        The path; the folder itself for a defense of several networks; None for ``resnet18-autoattack-cifar10``, which has no
        weights file of its own.

    Raises:
        GenclsError: for an unknown name, a missing folder, or a folder without the weights.
    """
    row = _row(name)
    if not folder.is_dir():
        raise GenclsError(f"weights: expected a folder, got {folder}, which is none")
    places = row.places(name, folder)
    if not places:
        return None
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise GenclsError(f"{name}: expected its weights at {places[0]} or {places[1]}; got no such file")
    if row.parts:
        return folder
    return found.parent if row.network is None else found


def _row(name: str) -> ReadyMade:
    if name not in ROWS:
        if name not in {*GENERATORS, *PARTS} and name in {path.stem for path in WEIGHTS.glob(f"*{SAFETENSORS}")}:
            raise GenclsError(f"{name} has weights but no row: add it to ROWS in gencls/zoo/rows.py")
        others = ", ".join(other for other in ROWS if other not in names())
        raise GenclsError(
            f"unknown model {name!r}; {did_you_mean(name, ROWS)}expected one of {', '.join(names())}; or, with "
            f"weights=PATH, one of {others}; or the path of a weights file with a card, which ends with {SAFETENSORS}"
        )
    return ROWS[name]
