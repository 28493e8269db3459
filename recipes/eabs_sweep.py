"""What the thesis leaves open of E-ABS, swept once: dropout, the discriminator's rate, inference steps and step size.

    python recipes/eabs_sweep.py train --data-root DATA          # 5 trainings on GTSRB-10, about 10 minutes each on a CPU core
    python recipes/eabs_sweep.py infer --data-root DATA          # inference settings on the committed weights

Both print a Markdown table; docs/reproduction/eabs-settings.md holds them. Robust accuracy is that of a short attack, good for
comparing settings and for nothing else.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import cast

import pandas
import torch

from gencls import zoo
from gencls.core import Defense, GenclsError, seeded
from gencls.eval import PGD, ThreatModel, evaluate
from gencls.zoo.data import ImageData
from gencls.zoo.training import train
from gencls.zoo.training.presets import AutoencoderPreset, preset

TRAININGS = ((0.0, 1.0), (0.1, 1.0), (0.3, 1.0), (0.0, 0.3), (0.0, 3.0))
"""(dropout, rate of the discriminator as a multiple of the autoencoder's)."""

INFERENCES = (*product((10, 25, 50, 100), (0.05,)), *product((50,), (0.02, 0.1)))
"""(steps, step size) of Adam."""

ATTACK_STEPS = 10


def measure(defense: Defense, data: ImageData, *, attacked: int, seed: int) -> dict[str, float]:
    """Clean accuracy and mean loss of the true class on all images, accuracy under a short L2 PGD on some.

    Args:
        defense: to be measured.
        data: test images.
        attacked: how many of them are attacked.
        seed: of all draws.
    """
    with seeded(seed), torch.no_grad():
        scores = torch.cat([defense(images) for images in data.images.split(50)])
    row = {
        "clean accuracy": float((scores.argmax(1) == data.labels).float().mean()),
        "loss of the true class": float(-scores.gather(1, data.labels[:, None]).mean()),
    }
    if attacked:
        attack = PGD(ThreatModel("l2", 1.5), steps=ATTACK_STEPS)
        batches = [(data.images[:attacked], data.labels[:attacked])]
        records = evaluate(defense, {"pgd": attack}, batches, eot_samples=5, judge_draws=8, seed=seed).records
        row["accuracy under PGD"] = float(records.groupby("sample_hash")["correct"].min().mean())
    return row


def trainings(root: Path | None, *, epochs: int, seed: int, out: Path) -> Iterator[tuple[str, Path]]:
    """Train E-ABS on GTSRB-10 with each setting; those that are there already are not trained again.

    Args:
        root: of the data.
        epochs: passes over the training set.
        seed: of the trainings.
        out: where they go.
    """
    standard = cast(AutoencoderPreset, preset("eabs-gtsrb10"))
    for dropout, rate in TRAININGS:
        name = f"eabs-gtsrb10-dropout{dropout}-rate{rate}"
        path = out / name / f"{name}.safetensors"
        if not path.is_file():
            settings = replace(standard, name=name, dropout=dropout, discriminator_rate=rate, epochs=epochs)
            train(settings, data_root=root, measured=100, seed=seed, out=out, resume=(out / name / "last.ckpt").is_file())
        yield f"dropout {dropout}, discriminator rate x{rate}", path


def main(what: str, *, data_root: Path | None, count: int, attacked: int, epochs: int, seed: int, out: Path) -> None:
    """Sweep, and print the table.

    Args:
        what: "train" or "infer".
        data_root: where GTSRB-10 lies.
        count: test images.
        attacked: how many of them are attacked.
        epochs: of each training.
        seed: of trainings, draws and attacks.
        out: folder of the trainings.
    """
    data = zoo.load_data("gtsrb10", "test", root=data_root, limit=count)
    rows = {}
    if what == "train":
        for setting, path in trainings(data_root, epochs=epochs, seed=seed, out=out):
            rows[setting] = measure(zoo.load("eabs-gtsrb10", weights=path), data, attacked=attacked, seed=seed)
    else:
        for steps, lr in INFERENCES:
            rows[f"{steps} steps of {lr}"] = measure(
                zoo.load("eabs-gtsrb10", steps=steps, lr=lr), data, attacked=attacked, seed=seed
            )
    table = pandas.DataFrame(rows).T
    lines = [f"| setting | {' | '.join(table.columns)} |", "|---" * (1 + len(table.columns)) + "|"]
    for setting, row in table.iterrows():
        lines.append(f"| {setting} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "infer"))
    parser.add_argument("--data-root", type=Path, help="folder that holds GTSRB/ (default: GENCLS_DATA)")
    parser.add_argument("--count", type=int, default=300, help="test images (default 300)")
    parser.add_argument("--attacked", type=int, default=50, help="how many of them are attacked (default 50)")
    parser.add_argument("--epochs", type=int, default=20, help="of each training (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder of the trainings")
    options = vars(parser.parse_args())
    try:
        main(options.pop("what"), **options)
    except GenclsError as error:
        print(f"eabs_sweep: error: {error}", file=sys.stderr)
        sys.exit(2)
