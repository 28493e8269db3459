"""Train all networks that a profile of GAN inversion needs, in their order, within one budget of time.

    python -m recipes.gan_inversion.networks --profile cifar10 --data-root DATA --weights FOLDER --minutes 10
    python -m recipes.gan_inversion.networks --profile imagenette --data-root DATA --weights FOLDER --minutes 600
    python -m recipes.gan_inversion --profile cifar10 --data-root DATA --weights FOLDER --budget paper --device cuda

Each network is one training of `gencls train`, with its settings. Those whose weights lie in the folder are left out. Every
other one gets a share of the time that is left. A few timed steps say how many epochs fit into it: at least one, at most those
of the training. The rate falls over these epochs, so a short training is a whole one. The measurements of the cards come
on top. Killed, the same command goes on with the last finished epoch; it keeps the number of epochs of what had begun.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gencls._commands.arguments import reader
from gencls._commands.failures import exit_code_of
from gencls.core import GenclsError, find_device
from gencls.core.files import atomically, read_object
from gencls.zoo.checkpoints.places import weights_in
from gencls.zoo.distances import TRAINED_FOR_DISTANCES
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.forecast import seconds_per_epoch
from gencls.zoo.training.methods.contrastive_distance import ContrastiveDistancePreset
from gencls.zoo.training.methods.gan_encoder import GANEncoderPreset
from gencls.zoo.training.run import Plan, plan_training
from recipes.gan_inversion import distances
from recipes.gan_inversion.runs import BIGGAN
from recipes.gan_inversion.settings import PROFILES, Profile

__all__ = ["Training", "command", "make", "networks"]

_SHARES = {"cgan": 4.0, "enc": 2.0, "enc-d": 2.0, "contrastive": 1.0}
"""Kind of a training -> its share of the time beside the others; features have 1."""


def networks(profile: Profile) -> tuple[str, ...]:
    """The trainings whose weights a profile needs, each behind those that it begins with."""
    found = [name for word in profile.features if (name := distances.trained(profile, word))]
    late = [name for name in found if name in TRAINED_FOR_DISTANCES]
    generator = () if profile.generator == BIGGAN else (profile.generator,)
    return (*(name for name in found if name not in late), *generator, *profile.encoders.values(), *late)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How all networks are trained.

    Attributes:
        weights: the folder that has the weights of the others and gets the new ones.
        data: name of the data set; None takes that of each training.
        data_root: folder of the data sets; None asks GENCLS_DATA.
        limit: number of training images; None takes all.
        measured: test images of the slow measurements of the cards.
        seed: the seed of every training.
    """

    weights: Path
    data: str | None = None
    data_root: Path | None = None
    limit: int | None = None
    measured: int = 200
    seed: int = 0

    def plan(self, name: str, epochs: int | None = None) -> Plan:
        """Plan a training; errors are those of :func:`gencls.zoo.training.run.plan_training`."""
        return plan_training(
            name,
            data=self.data,
            data_root=self.data_root,
            epochs=epochs,
            limit=self.limit,
            seed=self.seed,
            pretrained=self._pretrained(name),
        )

    def run(self, name: str, epochs: int, *, progress: bool) -> Path:
        """Train a network, or go on with its training, and return the path of the weights."""
        return train(
            name,
            data=self.data,
            data_root=self.data_root,
            epochs=epochs,
            limit=self.limit,
            measured=self.measured,
            seed=self.seed,
            pretrained=self._pretrained(name),
            out=self.weights,
            resume=(self.weights / name / "last.ckpt").is_file(),
            progress=progress,
        )

    def _pretrained(self, name: str) -> Path | None:
        """The folder, for the trainings that begin with other networks."""
        return self.weights if isinstance(PRESETS[name], (GANEncoderPreset, ContrastiveDistancePreset)) else None

    @property
    def _file(self) -> Path:
        return self.weights / "networks.json"

    def begun(self) -> dict[str, int]:
        """The number of epochs of each training that has begun."""
        return read_object(self._file, "numbers of epochs by training") if self._file.is_file() else {}

    def note(self, name: str, epochs: int) -> None:
        """Keep the number of epochs of a training that begins."""
        self.weights.mkdir(parents=True, exist_ok=True)
        atomically(self._file, (json.dumps({**self.begun(), name: epochs}, indent=2) + "\n").encode())


def make(
    training: Training,
    names: Sequence[str],
    seconds: float,
    *,
    progress: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Train the networks whose weights the folder lacks, one after the other.

    Args:
        training: how they are trained, and where their weights lie.
        names: their names, in this order.
        seconds: the time that all of them share.
        progress: whether to show progress bars.
        clock: tells the time in seconds.

    Returns:
        The names for which no time was left.

    Raises:
        GenclsError: as :func:`gencls.zoo.training.run.train`.
    """
    end = clock() + seconds
    missing = [name for name in names if weights_in(training.weights, name) is None]
    for position, name in enumerate(missing):
        left = end - clock()
        if left <= 0:
            return missing[position:]
        epochs = training.begun().get(name)
        if epochs is None:
            share = _share(name) / sum(map(_share, missing[position:]))
            epochs = _fitting(training.plan(name), share * left)
            training.note(name, epochs)
        print(f"{name}: {epochs} of {PRESETS[name].epochs} epochs", flush=True)
        print(f"{name}: {training.run(name, epochs, progress=progress)}, {end - clock():.0f} s left", flush=True)
    return []


def _share(name: str) -> float:
    return _SHARES.get(name.rpartition("-")[0], 1.0)


def _fitting(plan: Plan, seconds: float) -> int:
    """How many epochs fit into so many seconds, by a few timed steps."""
    return max(1, min(plan.settings.epochs, int(seconds / seconds_per_epoch(plan, plan.load()))))


def _see_only(device: str) -> None:
    """Show this device alone to the trainings, which take a GPU if they see one.

    Raises:
        GenclsError: if this machine has no such device.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu" or index:
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if kind == "cpu" else index
    find_device(kind)


def command(words: Sequence[str] | None = None) -> int:
    """Run the command line (None: the process's own); return the exit code."""
    parser = reader(__doc__)
    parser.prog = "python -m recipes.gan_inversion.networks"
    parser.add_argument("--profile", choices=PROFILES, default="cifar10", help="whose networks (default cifar10)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="trainings by name; default all of the profile")
    parser.add_argument("--minutes", type=float, default=10.0, help="time that all trainings share (default 10)")
    parser.add_argument("--weights", type=Path, required=True, help="folder of all weights, and of published files")
    parser.add_argument("--data", help="data set; default that of each training")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets; default GENCLS_DATA")
    parser.add_argument("--limit", type=int, help="training images; default all")
    parser.add_argument("--measured", type=int, default=200, help="test images of slow measurements (default 200)")
    parser.add_argument("--device", help="such as cuda or cpu; default a GPU if there is one")
    options = parser.parse_args(words)
    return exit_code_of("gan_inversion.networks", lambda: _work(options), out=options.weights)


def _work(options: argparse.Namespace) -> int:
    profile: Profile = PROFILES[options.profile]
    known = networks(profile)
    if absent := [name for name in options.only or () if name not in known]:
        raise GenclsError(f"--only: expected some of {', '.join(known)}, got {', '.join(absent)}")
    if options.minutes <= 0:
        raise GenclsError(f"--minutes: expected more than 0, got {options.minutes}")
    if options.device:
        _see_only(options.device)
    names = [name for name in known if name in (options.only or known)]
    own = {name: getattr(options, name) for name in ("weights", "data", "data_root", "limit", "measured", "seed")}
    training = Training(**own)
    if options.dry_run:
        for name in names:
            if training.weights.is_dir():
                training.plan(name)  # which checks what it begins with
            print(f"{name}: {weights_in(training.weights, name) or f'at most {PRESETS[name].epochs} epochs'}")
        return 0
    late = make(training, names, 60 * options.minutes, progress=sys.stderr.isatty())
    for word in profile.features:
        if not distances.is_here(profile, word, training.weights):
            print(f"{word}: not here; docs/distances.md says where the files of others come from")
    if late:
        print(f"no time was left for {', '.join(late)}; the same command goes on with them")
    return 0


if __name__ == "__main__":
    sys.exit(command())
