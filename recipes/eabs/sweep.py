"""Sweep what the thesis leaves open of E-ABS: dropout, the discriminator's rate, how the encoder begins, inference.

    python -m recipes.eabs.sweep train     # 7 trainings on the 4,000 embedded training digits, minutes each on a CPU core
    python -m recipes.eabs.sweep infer     # inference settings on the committed weights

Both print a Markdown table of measurements on embedded test digits. docs/reproduction/eabs-settings.md keeps the results.
Robust accuracy is the accuracy under a short attack: good for comparing settings and for nothing else.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import pandas
import torch

from gencls import zoo
from gencls._commands.arguments import reader
from gencls._commands.failures import exit_code_of
from gencls.core import Defense, GenclsError, key_of, seeded
from gencls.eval import PGD, ThreatModel, evaluate
from gencls.eval.study.cost import duration, shadow
from gencls.zoo.data import ImageData
from gencls.zoo.training import train
from gencls.zoo.training.forecast import seconds_per_epoch
from gencls.zoo.training.methods.class_conditional import ClassConditionalPreset
from gencls.zoo.training.presets import preset
from gencls.zoo.training.run import plan_training
from recipes.harness.folders import claim
from recipes.harness.jobs import seconds_of

TRAININGS = (
    (0.1, 1.0, 0.0, 0.5),
    (0.0, 1.0, 0.0, 0.5),
    (0.3, 1.0, 0.0, 0.5),
    (0.1, 0.1, 0.0, 0.5),
    (0.1, 3.0, 0.0, 0.5),
    (0.1, 1.0, 0.2, 0.5),
    (0.1, 1.0, 0.2, 0.0),
)
"""One training each: (dropout, rate of the discriminator as a multiple of the autoencoder's, share of the epochs at the start
in which the encoder learns as a classifier, share of the epochs after them without the discriminative loss). The first row is
near the preset, which has 0.75 as the last number."""

INFERENCES = (
    *product((10, 20, 50, 100), (0.05,), (8000,), (1.0,)),
    *product((10, 20, 50), (0.1,), (2000,), (1.0,)),
    *product((20,), (0.1,), (100, 8000), (1.0,)),
    *product((50,), (0.05,), (8000,), (0.1, 0.01)),
)
"""(Adam steps, step size, random starts, standard deviation around these). The thesis starts with unit variance."""

ATTACK = PGD(ThreatModel("l2", 1.5), steps=10)
DRAWS: dict[str, Any] = {"eot_samples": 2, "judge_draws": 4}


def measure(defense: Defense, data: ImageData, *, attacked: int, seed: int) -> dict[str, float]:
    """Measure clean accuracy and mean loss of the true class on all images, and accuracy under a short L2 PGD on some.

    Args:
        defense: the defense to measure, in eval mode.
        data: the test images.
        attacked: number of images to attack, the first ones.
        seed: the seed of all draws.
    """
    with seeded(seed), torch.no_grad():
        defense(data.images[:1])  # this call decodes the starts
        began = time.process_time()
        scores = torch.cat([defense(images) for images in data.images.split(50)])
        seconds = time.process_time() - began
    row = {
        "CPU ms per image": 1e3 * seconds / len(data.images),
        "clean accuracy": float((scores.argmax(1) == data.labels).float().mean()),
        "loss of the true class": float(-scores.gather(1, data.labels[:, None]).mean()),
    }
    if attacked:
        batches = [(data.images[:attacked], data.labels[:attacked])]
        records = evaluate(defense, {"pgd": ATTACK}, batches, **DRAWS, seed=seed).records
        row["accuracy under PGD"] = float(records.groupby("sample_hash")["correct"].min().mean())
    return row


def planned(*, epochs: int, seed: int, out: Path) -> Iterator[tuple[str, ClassConditionalPreset, Path]]:
    """Plan the trainings: yield what varies, the settings, and where the weights lie or will lie. Each claims its folder.

    Args:
        epochs: passes over the training set.
        seed: the seed of every training.
        out: the folder of all trainings.

    Raises:
        GenclsError: if ``out`` holds trainings with other settings or by other code.
    """
    standard = replace(cast(ClassConditionalPreset, preset("eabs-mnist")), epochs=epochs)
    for dropout, rate, classifier, generative in TRAININGS:
        name = f"eabs-mnist-dropout{dropout}-rate{rate}-classifier{classifier}-generative{generative}"
        path = out / name / f"{name}.safetensors"
        varied: dict[str, Any] = {"dropout": dropout, "discriminator_rate": rate, "classifier_share": classifier}
        settings = replace(standard, name=name, generative_share=generative, **varied)
        if path.is_file() and not (out / name / "run.json").is_file():
            raise GenclsError(f"{path}: expected weights with a run.json that says how they were made; take another --out")
        claim(out / name, {"settings": key_of((settings, seed), name).content, "code": key_of(train, "training").whole})
        what = f"dropout {dropout}, discriminator rate x{rate}, {classifier:.0%} as a classifier, {generative:.0%} generative"
        yield what, settings, path


def trainings(*, epochs: int, seed: int, out: Path) -> Iterator[tuple[str, Path]]:
    """Train E-ABS with each setting. A training that is there already, with these settings and this code, does not run again.

    Arguments and errors are those of :func:`planned`.
    """
    for what, settings, path in planned(epochs=epochs, seed=seed, out=out):
        if not path.is_file():
            unfinished = (path.parent / "last.ckpt").is_file()
            train(settings, data="mnist-embedded", measured=10, seed=seed, out=out, resume=unfinished, progress=False)
        yield what, path


def predict(
    what: str, *, count: int, attacked: int, seed: int, epochs: int = 15, out: Path = Path("runs/sweep")
) -> Iterator[tuple[str, float]]:
    """Predict what :func:`sweep` would do with these arguments: yield each setting, with the most seconds that are left."""
    data = _digits(count, attacked)
    if what == "infer":
        found = list(_inferences())
        per_step = _seconds(found[0][2], data, attacked, seed) / found[0][1]
        yield from ((setting, steps * per_step) for setting, steps, _ in found)
        return
    measuring = _seconds(_trained(None), data, attacked, seed)
    with shadow(out) as folder:
        for setting, settings, path in planned(epochs=epochs, seed=seed, out=folder):
            plan = plan_training(
                settings, data="mnist-embedded", data_root=None, epochs=None, limit=None, seed=seed, pretrained=None
            )
            yield setting, measuring + (0.0 if path.is_file() else epochs * seconds_per_epoch(plan, plan.load()))


def _seconds(defense: Defense, data: ImageData, attacked: int, seed: int) -> float:
    """Predict the most seconds that :func:`measure` takes."""
    few, some = data.images[:4], replace(data, images=data.images[:attacked], labels=data.labels[:attacked])
    with seeded(seed), torch.no_grad():
        defense(few)  # this call decodes the starts
        began = time.perf_counter()
        defense(few)
        clean = (time.perf_counter() - began) * len(data) / len(few)
    return clean + (seconds_of(defense, {"pgd": ATTACK}, some, **DRAWS, seed=seed) if attacked else 0.0)


def _digits(count: int, attacked: int) -> ImageData:
    data = zoo.load_data("mnist-embedded", "test", limit=count)
    if not 0 <= attacked <= count:
        raise GenclsError(f"--attacked: expected 0 to {count}, the number of test images, got {attacked}")
    return data


def _trained(path: Path | None) -> Defense:
    return zoo.load("eabs-mnist", weights=path, steps=20, lr=0.1, starts=2000, fast=True)


def _inferences() -> Iterator[tuple[str, int, Defense]]:
    """Yield what varies, the steps of the inference, and the defense."""
    for steps, lr, starts, std in INFERENCES:
        setting = f"{steps} steps of {lr}, {starts} starts" + ("" if std == 1 else f" of std {std}")
        yield setting, steps, zoo.load("eabs-mnist", steps=steps, lr=lr, starts=starts, start_std=std, fast=True)


def sweep(
    what: str, *, count: int, attacked: int, seed: int, epochs: int = 15, out: Path = Path("runs/sweep")
) -> pandas.DataFrame:
    """Measure every setting; the table has one row per setting.

    Args:
        what: "train" or "infer".
        count: number of test images.
        attacked: number of images to attack.
        seed: the seed of trainings, draws and attacks.
        epochs: passes over the training set, in each training.
        out: folder of the trainings.

    Raises:
        GenclsError: if ``attacked`` is below 0 or above ``count``; errors of data and training.
    """
    data, defenses = _digits(count, attacked), ((setting, defense) for setting, _, defense in _inferences())
    if what == "train":
        defenses = ((setting, _trained(path)) for setting, path in trainings(epochs=epochs, seed=seed, out=out))
    return pandas.DataFrame({name: measure(each, data, attacked=attacked, seed=seed) for name, each in defenses}).T


def markdown(table: pandas.DataFrame) -> str:
    """Write the table as it stands in the docs."""
    lines = [f"| setting | {' | '.join(table.columns)} |", "|---" * (1 + len(table.columns)) + "|"]
    for setting, row in table.iterrows():
        lines.append(f"| {setting} | " + " | ".join(v if isinstance(v, str) else f"{v:.3g}" for v in row) + " |")
    return "\n".join(lines)


def parse(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Read the command line (None: the process's own) into the arguments of :func:`sweep`."""
    parser = reader(__doc__)
    parser.add_argument("what", choices=("train", "infer"))
    parser.add_argument("--count", type=int, default=300, help="test images (default 300)")
    parser.add_argument("--attacked", type=int, default=30, help="how many of them are attacked (default 30)")
    parser.add_argument("--epochs", type=int, help="of each training (default 15)")
    parser.add_argument("--out", type=Path, help="folder of the trainings (default runs/sweep)")
    options = {name: value for name, value in vars(parser.parse_args(words)).items() if value is not None}
    if options["what"] == "infer" and options.keys() & {"epochs", "out"}:
        parser.error("--epochs and --out: expected only with train, got infer, which trains nothing")
    return options


def command(words: Sequence[str] | None = None) -> int:
    """Run the recipe as its command line says (None: the process's own); return the exit code."""
    chosen = parse(words)
    dry_run = chosen.pop("dry_run")

    def work() -> None:
        if not dry_run:
            print(markdown(sweep(**chosen)))
            return
        total = 0.0
        for setting, seconds in predict(**chosen):
            print(f"{setting}: {duration(seconds)}", flush=True)
            total += seconds
        print(f"predicted: about {duration(total)} at most")

    return exit_code_of("eabs_sweep", work, out=chosen.get("out"))


if __name__ == "__main__":
    sys.exit(command())
