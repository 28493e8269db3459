"""``gencls train NAME``: from data to a weights file with its card."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger

from gencls.core.errors import GenclsError
from gencls.core.memory import store_channels_last
from gencls.core.names import did_you_mean
from gencls.core.settings import checked
from gencls.core.streams.seeds import seeded
from gencls.zoo.checkpoints.cards import Card
from gencls.zoo.checkpoints.checkpoint import save_checkpoint
from gencls.zoo.data import ImageData, load_data
from gencls.zoo.data.registry import DATA_SETS
from gencls.zoo.training.base import Preset
from gencls.zoo.training.lightning import LightningTraining, batch_loader, trainer_of, without_advice
from gencls.zoo.training.presets import preset
from gencls.zoo.training.resume import check_resumable, checkpoint_to_start_from


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
    ``name.safetensors`` and ``name.json``, and such a pair for each network that is saved beside the product. The weights of
    the last epoch are saved; nothing is selected on test digits. The global random state is left as it was.

    Args:
        name: name of a preset, or a preset with other settings; its own name then says where results lie.
        data: a data set to train on, whose images have the network's shape; None takes the preset's.
        data_root: folder of the files of ``data``; None asks GENCLS_DATA.
        epochs: passes over the training set; None takes the preset's.
        limit: number of training images, and most images of a slow measurement; None takes all.
        measured: test images of the slow measurements: attacks, and inference by optimisation.
        seed: the seed of initial weights, order, noise and attacks.
        pretrained: weights that the training begins with; the card says which. For a torchvision network a file with
            torchvision's name, see :func:`gencls.zoo.training.methods.headed.start_from`; None starts from random ones. For an
            encoder of GAN inversion and a contrastive distance a folder with the weights of the other networks; None takes the
            committed ones.
        out: parent of the run's folder.
        resume: go on from ``last.ckpt`` of the same run; the result equals that of a run without a stop. A finished run may get
            more epochs, see :func:`gencls.zoo.training.resume.check_resumable`.
        progress: whether to show a progress bar.

    Returns:
        The path of the weights file.

    Raises:
        GenclsError: for an unknown preset or data set, images of another shape than the network's, fewer than one
            epoch, a folder that holds a run already (unless ``resume``), no run to resume, a damaged one or one with other
            settings, more epochs where they would be another training, or
            ``pretrained`` weights that are damaged, of another network, or for a training that takes none.
    """
    folder = Path(out) / (name if isinstance(name, str) else name.name)
    plan = plan_training(name, data=data, data_root=data_root, epochs=epochs, limit=limit, seed=seed, pretrained=pretrained)
    start = checkpoint_to_start_from(folder, resume=resume)
    settings, training_set = plan.settings, plan.load()
    tests = plan.load_tests()

    with seeded(seed):
        module = plan.module(training_set)
        module.planned = (settings.epochs,)
        if start is not None:
            module.planned = check_resumable(start, module, settings.epochs, plan.descriptions)
        timer = Timer()
        _fit(module, training_set, settings, folder, timer, start=start, progress=progress)
    # The measurement takes the stored weights, rounded to half precision.
    network = module.learner.product.half().float().eval().requires_grad_(False)
    card = Card(
        name=settings.name,
        architecture=type(network).__name__,
        arguments=settings.card_arguments(training_set.num_classes),
        what=f"{settings.what}. {settings.recipe}",
        trained_on=f"{plan.data} {training_set.split}, {len(training_set)} images",
        command=plan.command_after(*module.planned[:-1]),
        metrics={
            "training seconds": round(timer.time_elapsed("train"), 1),
            **settings.measure(network, tests, few=min(measured, limit or measured, len(tests[-1]))),
        },
        licence=plan.licence,
        seed=seed,
    )
    for part, companion in module.learner.companions.items():
        name = f"{settings.name}-{part}"
        arguments = settings.companion_arguments(part, training_set.num_classes)
        beside = replace(
            card,
            name=name,
            architecture=type(companion).__name__,
            arguments=arguments,
            what=f"The {part} of {settings.name}. {card.what}",
            metrics={"training seconds": card.metrics["training seconds"]},
        )
        save_checkpoint(companion, folder / f"{name}.safetensors", beside, half=True)
    path = folder / f"{settings.name}.safetensors"
    save_checkpoint(network, path, card, half=True)
    return path


@dataclass(frozen=True)
class Plan:
    """A training that may run: a preset, before the number of epochs was chosen, and the arguments of :func:`train`."""

    preset: Preset
    data: str
    epochs: int | None
    limit: int | None
    seed: int
    root: str | Path | None

    @property
    def settings(self) -> Preset:
        """The preset with the chosen number of epochs."""
        return self.preset if self.epochs is None else replace(self.preset, epochs=self.epochs)

    @property
    def command(self) -> str:
        """The command that repeats the training."""
        options = [f"--data {self.data}"] if self.data != self.preset.data else []
        options += ["--data-root DATA"] if self.data != "mnist-embedded" else []
        options += [f"--epochs {self.epochs}"] if self.epochs is not None else []
        options += [f"--limit {self.limit}"] if self.limit is not None else []
        options += [f"--seed {self.seed}"] if self.seed else []
        return " ".join(["gencls", "train", self.preset.name, *options, *self.preset.options])

    def command_after(self, *epochs: int) -> str:
        """The command that repeats this training, after trainings of these numbers of epochs that it goes on from."""
        first, *further = [*(replace(self, epochs=number).command for number in epochs), self.command]
        return " && ".join([first, *(f"{command} --resume" for command in further)])

    @property
    def description(self) -> str:
        """All settings in words."""
        return f"{self.command}: {self.settings.recipe}"

    def descriptions(self, epochs: int) -> set[str]:
        """The descriptions of this training with this many epochs, which the user or the preset may have chosen."""
        asked = [epochs, None] if epochs == self.preset.epochs else [epochs]
        return {replace(self, epochs=number).description for number in asked}

    def load(self) -> ImageData:
        """Load the training images.

        Raises:
            GenclsError: for missing data, or images of another shape than the network's.
        """
        split, size = DATA_SETS[self.data].training[0], self.preset.scaled_to
        data = load_data(self.data, split, root=self.root, limit=self.limit, size=size)
        wanted, got = self.preset.image_shape, tuple(data.images.shape[1:])
        if got != wanted:
            raise GenclsError(f"train: expected images of shape {wanted}, got {got} from {data.name}")
        return data

    def load_tests(self) -> list[ImageData]:
        """Load the test images, and those of the other test sets on the row of the data set."""
        row = DATA_SETS[self.data]
        own = load_data(self.data, row.training[1], root=self.root, size=self.preset.scaled_to)
        return [own, *(load_data(name, "test") for name in row.also_tested)]

    @property
    def licence(self) -> str:
        """Licence of the weights: some makers of data sets allow only research with what is derived from them."""
        return "Apache-2.0" + ", data for non-commercial research only" * DATA_SETS[self.data].research_only

    def module(self, data: ImageData) -> LightningTraining:
        """Make the module that Lightning trains, with new weights from the global random state."""
        return LightningTraining(self.settings.training(data.num_classes), seed=self.seed, description=self.description)


def plan_training(
    name: str | Preset,
    *,
    data: str | None,
    data_root: str | Path | None,
    epochs: int | None,
    limit: int | None,
    seed: int,
    pretrained: str | Path | None,
) -> Plan:
    """Plan what :func:`train` would do with these arguments.

    Raises:
        GenclsError: for an unknown preset or data set, fewer than one epoch, or weights for a training that takes none.
    """
    settings = preset(name) if isinstance(name, str) else name
    settings = settings if pretrained is None else settings.starting_from(Path(pretrained))
    data = settings.data if data is None else data
    if (settings.epochs if epochs is None else epochs) < 1:
        raise GenclsError(f"train: expected epochs >= 1, got {settings.epochs if epochs is None else epochs}")
    known = [each for each, data_set in DATA_SETS.items() if data_set.trainable or settings.scaled_to is not None]
    if data not in known:
        raise GenclsError(f"train: {did_you_mean(data, known)}expected data to be one of {', '.join(known)}, got {data!r}")
    settings.require()
    return Plan(settings, data, epochs, limit, seed, data_root)


def _fit(
    module: LightningTraining,
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
    with without_advice():
        trainer = trainer_of(
            settings.epochs,
            logger=TensorBoardLogger(folder, name="", version="tensorboard"),
            callbacks=callbacks,
            log_every_n_steps=min(10, len(batches)),
            enable_progress_bar=progress,
        )
        # The loops of convolutions over channels-last tensors are a fifth faster in training on a CPU.
        if module.learner.channels_last:
            store_channels_last(module)
        trainer.fit(module, batches, ckpt_path=start, weights_only=True)
        # Lightning has brought the module to the CPU.
        module.to(memory_format=torch.contiguous_format).to(trainer.strategy.root_device)
        module.learner.finish(module.seed)
        module.cpu()
