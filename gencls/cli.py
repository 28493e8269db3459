"""The command ``gencls``: data, weights, training, attacks, diagnoses and reports from a shell.

Exit codes: 0 done; 1 a diagnosis with a failed check, the report of an unfinished study, or a failure of the program; 2 bad
input, with one line ``gencls: error: ...`` on the standard error, or no command, with the help there.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gencls import __version__
from gencls._commands.arguments import Parser, count, dry_run_flag, size
from gencls._commands.attack import run_attack, run_report
from gencls._commands.catalogue import run_data, run_names, run_weights
from gencls._commands.doctor import run_doctor
from gencls._commands.failures import exit_code_of
from gencls._commands.train import run_train

__all__ = ["main", "parser"]

_Run = Callable[[argparse.Namespace], int | None]
"""Does the work; returns an exit code, or None for 0."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: the words after ``gencls``; None takes the words of the process.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    made = parser()
    if not words:
        made.exit(2, made.format_help())
    options = made.parse_args(words, argparse.Namespace(command=shlex.join(["gencls", *words])))

    run: _Run = options.run
    return exit_code_of("gencls", lambda: run(options), out=getattr(options, "out", None), file=run is run_doctor)


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; ``run`` of a parsed namespace is the function that does the work."""
    root = Parser(prog="gencls", description="Generative classifiers and defenses, all attacked alike.")
    root.add_argument("--version", action="version", version=f"gencls {__version__}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: _Run, summary: str, *examples: str) -> argparse.ArgumentParser:
        epilog = "\n".join(["examples:", *(f"  gencls {name} {example}".rstrip() for example in examples)])
        raw = argparse.RawDescriptionHelpFormatter
        added = commands.add_parser(name, help=summary, description=summary, epilog=epilog, formatter_class=raw)
        added.set_defaults(run=run)
        return added

    command("names", run_names, "List defenses, trainings, attacks and data sets by name.", "")

    data = command("data", run_data, "Show which data sets are found.", "", "mnist --data-root ~/data", "svhn --download")
    data.add_argument("name", nargs="?", help="only this data set; if it is not found, that is an error")
    data.add_argument("--download", action="store_true", help="fetch the named data set if it is missing")
    _data_root(data)

    weights = command(
        "weights", run_weights, "List or verify weights files and their cards.", "list", "verify", "verify my.safetensors"
    )
    weights.add_argument("action", choices=["list", "verify"])
    weights.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: those that come with the package")

    train = command(
        "train",
        run_train,
        "Train one of the package's networks and save its weights with a card.",
        "cnn-mnist --data-root ~/data",
        "cnn-mnist --data mnist-embedded --epochs 3",
        "adv-linf-mnist --data-root ~/data --resume",
    )
    train.add_argument("preset", help="name of a training, see `gencls names`")
    train.add_argument("--data", help="train on another data set of the same shape, for instance mnist-embedded")
    train.add_argument("--epochs", type=count, help="passes over the training set; default: the preset's")
    train.add_argument("--limit", type=count, help="train and test on at most this many images")
    train.add_argument("--seed", type=int, default=0, help="of initial weights, order and noise (default 0)")
    train.add_argument(
        "--pretrained",
        type=Path,
        metavar="PATH",
        help="torchvision's ImageNet weights to start a torchvision network from (default random ones), or for encoders and "
        "contrastive distances the folder of the other networks' weights (default the committed ones)",
    )
    train.add_argument("--out", type=Path, default=Path("runs"), help="parent of the run's folder (default runs)")
    train.add_argument("--resume", action="store_true", help="go on from the last finished epoch")
    _data_root(train)
    dry_run_flag(train)

    attack = command(
        "attack",
        run_attack,
        "Attack defenses on real images, judge the outcome, write a report. The same command resumes a stopped run.",
        "--defense cnn-mnist --attack default-linf --epsilon 0.3 --limit 50",
        "--defense cnn-mnist abs-mnist --attack pgd-l2 noise-l2 --epsilon 1.5 --limit 20 --out runs/l2",
        "--defense mypackage.models:build --attack pgd-linf --epsilon 0.3 --data cifar10 --data-root ~/data",
        "--defense cnn-mnist --weights runs --attack pgd-linf --epsilon 0.3",
        "--defense cnn-mnist runs/cnn-mnist/cnn-mnist.safetensors --attack pgd-linf --epsilon 0.3",
    )
    attack.add_argument(
        "--defense",
        nargs="+",
        action="extend",
        required=True,
        metavar="DEFENSE",
        help="a name of `gencls names`; a weights file of `gencls train`, which ends with .safetensors; or "
        "package.module:attribute, where the attribute is a torch.nn.Module (images in [0, 1] to scores) or a function without "
        "arguments that returns one",
    )
    attack.add_argument(
        "--attack",
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME",
        help="one or more of `gencls names`, of one norm, which ends the name: linf, l2, l1 or l0",
    )
    attack.add_argument(
        "--epsilon",
        type=size,
        help="radius of the ball, in [0, 1] pixel units, such as 8/255, in L0 a number of values; not for minimal-norm attacks",
    )
    attack.add_argument("--steps", type=count, help="gradient steps, or queries, of every attack; default: each attack's own")
    attack.add_argument("--restarts", type=count, help="random starts, or draws, of every attack; default: each attack's own")
    _shared(attack)
    attack.add_argument("--limit", type=count, help="attack a class-balanced subset of this size; default: all images")
    # No defaults here: each given flag must act, and only random defenses have draws.
    attack.add_argument("--draws", type=count, help="draws of the judge, for a random defense (default 32)")
    attack.add_argument("--reduce", choices=["logits", "probs", "loss"], help="what EoT averages (default logits)")
    attack.add_argument("--common-draws", action="store_true", help="the same draws for all looks of an attack")
    attack.add_argument(
        "--eight-bit", action="store_true", help="round adversarial images to k/255, as if saved, before they are judged"
    )
    attack.add_argument(
        "--streams",
        choices=["rows", "device"],
        default="rows",
        help="where random numbers come from: a stream of each sample (default), or the device's generator for whole batches; "
        "that is faster on a GPU, but results depend on the batch",
    )
    attack.add_argument("--memory", type=float, help="MiB for the graphs of an attack (default: 1024, or a share of the GPU)")
    attack.add_argument(
        "--seed",
        nargs="+",
        type=int,
        default=[0],
        help="of all random streams, one run of everything each; the first of a study also chooses the subset (default 0)",
    )
    attack.add_argument(
        "--doctor", action="store_true", help="first diagnose each defense, see `gencls doctor`; it goes into the report"
    )
    attack.add_argument(
        "--out",
        type=Path,
        help="folder of the study, to which a later call may add attacks, defenses, seeds, sizes or images; default: below "
        "runs/, named by defense and attack",
    )

    doctor = command(
        "doctor",
        run_doctor,
        "Diagnose whether a defense's robustness can be measured: exit code 1 where a number would be meaningless.",
        "cnn-mnist",
        "abs-mnist --limit 20 --budget 600",
        "mypackage.models:build --data cifar10 --data-root ~/data --epsilon 0.0314 --out doctor.json",
    )
    doctor.add_argument("defense", metavar="DEFENSE", help="as of `gencls attack`")
    _shared(doctor)
    doctor.add_argument("--limit", type=count, help="images at most; fewer if a pass is slow (default 50)")
    doctor.add_argument("--epsilon", type=size, default=0.3, help="radius of the ball, as of `gencls attack` (default 0.3)")
    doctor.add_argument("--norm", default="linf", help="of the ball: linf, l2, l1 or l0 (default linf)")
    doctor.add_argument(
        "--transfer-from",
        metavar="DEFENSE",
        help="another model whose adversarial images are tried, or none; default: cnn-mnist if the images are of its shape",
    )
    doctor.add_argument("--budget", type=float, default=240.0, help="seconds, by which images and steps are chosen (240)")
    doctor.add_argument("--seed", type=int, default=0, help="of all random streams and of the subset (default 0)")
    doctor.add_argument("--out", type=Path, metavar="FILE", help="write the diagnosis to this file, as JSON")

    report = command("report", run_report, "Write the report of a study folder again.", "runs/quickstart")
    report.add_argument("folder", type=Path)
    return root


def _shared(command: argparse.ArgumentParser) -> None:
    """Add the flags that an attack and a diagnosis share."""
    command.add_argument(
        "--weights",
        type=Path,
        metavar="FOLDER",
        help="the --out of `gencls train`: each defense by name takes its weights from there; default: those of the package",
    )

    command.add_argument(
        "--data",
        default="mnist-embedded",
        metavar="NAME_OR_PATH",
        help="a data set of `gencls names`, a folder of images by class, an .npz with images and labels, or "
        "package.module:attribute, where the attribute is a Dataset, a DataLoader or a pair (default mnist-embedded)",
    )
    command.add_argument(
        "--split", help="of the data set (default test), or a folder in your folder (default: the folder itself)"
    )
    command.add_argument("--size", type=count, help="scale the shorter side to so many pixels and cut out the centre square")
    command.add_argument("--eot", type=count, help="draws per gradient of a random defense (default 16)")
    command.add_argument("--device", default="cpu", help="where defenses run: cpu (default), cuda, cuda:1 ...")
    _data_root(command)
    dry_run_flag(command)


def _data_root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-root", type=Path, help="folder of the data sets; default: environment variable GENCLS_DATA")


if __name__ == "__main__":
    sys.exit(main())
