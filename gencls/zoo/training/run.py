"""``gencls train NAME``: from data to a weights file with its card."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from gencls.core.errors import GenclsError
from gencls.core.generators import seeded
from gencls.core.memory import store_channels_last
from gencls.core.settings import checked
from gencls.zoo.checkpoints import Card, save_checkpoint
from gencls.zoo.data import ImageData, load_data
from gencls.zoo.networks import CNN, ClassConditionalAutoencoder, ClassDecoders
from gencls.zoo.training.batches import batch_loader
from gencls.zoo.training.cifar import cifar_training
from gencls.zoo.training.cifar_presets import CifarPreset
from gencls.zoo.training.generator_presets import GeneratorPreset
from gencls.zoo.training.generators import generator_training
from gencls.zoo.training.headed import headed_training
from gencls.zoo.training.headed_presets import HeadedPreset
from gencls.zoo.training.measure import measure
from gencls.zoo.training.modules import AutoencoderTraining, ClassifierTraining, NetworkTraining
from gencls.zoo.training.presets import AutoencoderPreset, Preset, TablePreset, TradesPreset, preset
from gencls.zoo.training.purifier_presets import PurifierPreset
from gencls.zoo.training.purifiers import measure_purifier, purifier_training
from gencls.zoo.training.settings import NetworkPreset
from gencls.zoo.training.trades import TradesTraining

__all__ = ["SPLITS", "train"]

SPLITS = {
    # All embedded digits are also MNIST training digits; the split leaves out those that are tested on.
    "mnist": ("train-disjoint", "test"),
    "mnist-embedded": ("train", "test"),
    "fashion-mnist": ("train", "test"),
    "gtsrb10": ("train", "test"),
    "supertraffic10": ("train", "test"),
    "svhn": ("train", "test"),
    "celeba-hq-gender": ("train", "test"),
    "celeba-identities": ("train", "test"),
    "stanford-cars-types": ("train", "test"),
    "celeba-10k-gender": ("train", "test"),
    "celeba-100-identities": ("train", "test"),
    "stanford-cars-4": ("train", "test"),
    "cifar10": ("train", "test"),
    "cifar10-jpeg": ("train", "test"),
    "cifar10-lossless": ("train", "test"),
}
"""The training and the test split of each data set that can be trained on."""

_RESEARCH_ONLY = ("celeba", "stanford-cars")  # beginnings of names of data sets


@checked
def train(
    name: str | Preset,
    *,
    data: str | None = None,
    data_root: str | Path | None = None,
    epochs: int | None = None,
    limit: int | None = None,
    measured: int = 1000,
    seed: int = 0,
    pretrained: str | Path | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train a preset, measure it, and save its weights in half precision with a card.

    The folder ``out/name`` receives TensorBoard logs, ``last.ckpt`` after every epoch (to resume from),
    ``name.safetensors`` and ``name.json``. The weights of the last epoch are saved; nothing is selected on test
    digits. The global random state is left as it was.

    Args:
        name: of a preset, or a preset with other settings; its own name then says where results lie.
        data: a key of :data:`SPLITS` whose images have the network's shape; None takes the preset's.
        data_root: where the files of ``data`` lie; None asks GENCLS_DATA.
        epochs: passes over the training set; None takes the preset's.
        limit: train on so many images, and measure what is slow on no more than that; None takes all.
        measured: test images of the slow measurements: attacks, and inference by optimisation.
        seed: of initial weights, order, noise and attacks.
        pretrained: torchvision's weights to start a torchvision network from, as it names the file, see
            :func:`gencls.zoo.training.headed.start_from`; None starts from random ones. The card says which.
        out: parent of the run's folder.
        resume: go on from ``last.ckpt`` of the same run; the result is that of a run that was not stopped.
        progress: whether to show a progress bar.

    Returns:
        The path of the weights file.

    Raises:
        GenclsError: for an unknown preset or data set, images of another shape than the network's, fewer than one
            epoch, a folder that holds a run already (unless ``resume``), no run to resume, one with other settings, or
            ``pretrained`` weights that are damaged, of another network, or for a training that takes none.
    """
    settings = preset(name) if isinstance(name, str) else name
    settings = settings if epochs is None else replace(settings, epochs=epochs)
    settings = settings if pretrained is None else _starting_from(settings, Path(pretrained))
    data = settings.data if data is None else data
    if settings.epochs < 1:
        raise GenclsError(f"train: expected epochs >= 1, got {settings.epochs}")
    if data not in SPLITS:
        raise GenclsError(f"train: expected data to be one of {', '.join(SPLITS)}, got {data!r}")
    folder = Path(out) / settings.name
    start = _checkpoint_to_start_from(folder, resume=resume)
    train_split, test_split = SPLITS[data]
    training_set = load_data(data, train_split, root=data_root, limit=limit)
    tests = [load_data(data, test_split, root=data_root)]
    if data == "mnist":
        tests.append(load_data("mnist-embedded", "test"))
    _check_shape(training_set, settings.image_shape)
    command = _command(settings, data=data, epochs=epochs, limit=limit, seed=seed)

    with seeded(seed):
        module = _module(settings, training_set.num_classes, seed, command)
        timer = Timer()
        _fit(module, training_set, settings, folder, timer, start=start, progress=progress)
    # What is measured is what is stored: rounded to half precision.
    network = module.product.half().float().eval().requires_grad_(False)
    card = Card(
        name=settings.name,
        architecture=type(network).__name__,
        arguments=_arguments(settings, training_set.num_classes, of=network),
        what=f"{settings.what}. {settings.recipe}",
        trained_on=f"{data} {train_split}, {len(training_set)} images",
        command=command,
        metrics={
            "training seconds": round(timer.time_elapsed("train"), 1),
            **_measured(network, settings, tests, few=min(measured, limit or measured, len(tests[-1]))),
        },
        licence=_licence(data),
        seed=seed,
    )
    path = folder / f"{settings.name}.safetensors"
    save_checkpoint(network, path, card, half=True)
    return path


def _licence(data: str) -> str:
    """Of weights: the makers of some data sets ask that what is derived from them is used for research only."""
    return "Apache-2.0" + ", data for non-commercial research only" * data.startswith(_RESEARCH_ONLY)


def _starting_from(settings: Preset, pretrained: Path) -> Preset:
    if not isinstance(settings, HeadedPreset):
        raise GenclsError(
            f"train: expected pretrained weights for a torchvision network only, got {pretrained} for {settings.name}"
        )
    return replace(settings, pretrained=pretrained)


def _measured(network: nn.Module, settings: Preset, tests: Sequence[ImageData], *, few: int) -> dict[str, float]:
    if isinstance(settings, PurifierPreset):
        return measure_purifier(network, settings, tests[-1], few=few)
    return measure(network, tests, few=few)


def _checkpoint_to_start_from(folder: Path, *, resume: bool) -> Path | None:
    checkpoint = folder / "last.ckpt"
    if resume and not checkpoint.is_file():
        raise GenclsError(f"train: expected a run to resume at {checkpoint}, found none; leave out resume to begin one")
    if not resume and checkpoint.exists():
        raise GenclsError(
            f"train: expected no earlier run in {folder}, found {checkpoint.name}; resume it, or choose another folder"
        )
    return checkpoint if resume else None


def _check_shape(data: ImageData, shape: tuple[int, int, int]) -> None:
    if tuple(data.images.shape[1:]) != shape:
        raise GenclsError(f"train: expected images of shape {shape}, got {tuple(data.images.shape[1:])} from {data.name}")


def _module(settings: Preset, num_classes: int, seed: int, command: str) -> NetworkTraining:
    shared: dict[str, Any] = {
        "perturbation": settings.perturbation,
        "learning_rate": settings.learning_rate,
        "seed": seed,
        "description": f"{command}: {settings.recipe}",
    }
    if isinstance(settings, PurifierPreset):
        return purifier_training(settings, **shared)
    if isinstance(settings, GeneratorPreset):
        return generator_training(settings, **shared)
    if isinstance(settings, HeadedPreset):
        return headed_training(settings, num_classes, **shared)
    if isinstance(settings, CifarPreset):
        return cifar_training(settings, num_classes, **shared)
    arguments = _arguments(settings, num_classes)
    if isinstance(settings, AutoencoderPreset):
        return AutoencoderTraining(
            ClassConditionalAutoencoder.from_architecture(**arguments),
            beta=settings.beta,
            gamma=settings.gamma if settings.discriminative else 0.0,
            classifier_epochs=settings.classifier_share * settings.epochs,
            generative_epochs=settings.generative_share * settings.epochs,
            discriminator_rate=settings.discriminator_rate,
            **shared,
        )
    if isinstance(settings, TradesPreset):
        return TradesTraining(CNN.from_architecture(**arguments), beta=settings.beta, **shared)
    return ClassifierTraining(CNN.from_architecture(**arguments), **shared)


def _arguments(settings: Preset, num_classes: int, *, of: nn.Module | None = None) -> dict[str, Any]:
    """The constructor's arguments of the network that is trained, or of the part of it that is saved; they go on its card."""
    if isinstance(settings, HeadedPreset | CifarPreset):
        return settings.arguments | {"num_classes": num_classes}
    if isinstance(settings, NetworkPreset):
        return settings.arguments
    if not isinstance(settings, TablePreset):
        raise GenclsError(f"{settings.name}: expected a preset of a known kind, got a {type(settings).__name__}")
    arguments = {"architecture": settings.architecture, "num_classes": num_classes, "dropout": settings.dropout}
    if isinstance(settings, AutoencoderPreset) and not isinstance(of, ClassDecoders):
        return arguments | {"shared_encoder": settings.discriminative, "adversarial": settings.adversarial}
    return arguments


def _fit(
    module: NetworkTraining,
    data: ImageData,
    settings: Preset,
    folder: Path,
    timer: Timer,
    *,
    start: Path | None,
    progress: bool,
) -> None:
    callbacks: list[Callback] = [
        timer,
        ModelCheckpoint(folder, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False),
    ]
    batches = batch_loader(data.images, data.labels, batch_size=settings.batch_size, seed=module.seed)
    with _without_advice():
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            accelerator="auto",
            devices=1,
            logger=TensorBoardLogger(folder, name="", version="tensorboard"),
            callbacks=callbacks,
            log_every_n_steps=min(10, len(batches)),
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        # The loops of convolutions over channels-last tensors are a fifth faster in training on a CPU.
        store_channels_last(module)
        trainer.fit(module, batches, ckpt_path=start, weights_only=True)
        # Lightning has brought the module to the CPU.
        module.to(memory_format=torch.contiguous_format).to(trainer.strategy.root_device)
        module.finish()
        module.cpu()


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence Lightning's advice: batches are cut from tensors in memory, so worker processes would only cost."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        logger.setLevel(level)


def _command(settings: Preset, *, data: str, epochs: int | None, limit: int | None, seed: int) -> str:
    options = [f"--data {data}"] if data != settings.data else []
    options += ["--data-root DATA"] if data != "mnist-embedded" else []
    options += [f"--epochs {epochs}"] if epochs is not None else []
    options += [f"--limit {limit}"] if limit is not None else []
    options += [f"--seed {seed}"] if seed else []
    if isinstance(settings, HeadedPreset) and settings.pretrained is not None:
        options += [f"--pretrained {settings.pretrained.name}"]
    return " ".join(["gencls", "train", settings.name, *options])
