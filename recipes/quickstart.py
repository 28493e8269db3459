"""Quickstart: four classifiers of real handwritten digits under the same adaptive attacks, in minutes on a CPU.

    python -m recipes.quickstart                    # 50 test digits, writes runs/quickstart/report.html
    python -m recipes.quickstart --count 200        # more digits: narrower intervals
    python -m recipes.quickstart --dry-run          # what it would cost

The defenses are a plain CNN, the same network trained on noise behind fresh Gaussian noise (a stochastic transform), an
adversarially trained CNN, and ABS (a Bayes-rule classifier that optimises at test time). The threats are those of the
thesis's Table 2.2: Linf 0.3 and L2 1.5. The attacks are the default sets of both norms (docs/attacks.md), whose budget is
reduced to finish on two cores: 10 gradient steps and one start for each loss, 4 noisy images per smoothed gradient, 20 queries;
and ABS descends for 5 steps in place of 50. The study folder and the report say what was run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gencls import zoo
from gencls._commands.arguments import reader
from gencls._commands.failures import exit_code_of
from gencls.eval import Attack, DefaultBudget, Protocol, Study, default_attacks, progress_bar
from gencls.eval.study.cost import forecast, shadow

# ABS descends for 5 steps in place of 50: its clean accuracy is the same, and the attack differentiates every step.
DEFENSES: dict[str, dict[str, Any]] = {"cnn-mnist": {}, "cnn-noise-mnist": {}, "adv-linf-mnist": {}, "abs-mnist": {"steps": 5}}

THREATS: dict[str, float] = {"linf": 0.3, "l2": 1.5}  # Table 2.2 of the thesis

EOT_SAMPLES = 16  # the thesis uses 5 for E-ABS, whose noise is far smaller
JUDGE_DRAWS = 32


def attacks(steps: int) -> dict[str, Attack]:
    """The attacks of the table by name."""
    return {
        f"{name} {norm}": attack
        for norm, epsilon in THREATS.items()
        for name, attack in default_attacks(norm, epsilon, budget=DefaultBudget.quick(steps)).items()
    }


def plan(folder: Path, *, count: int, steps: int, seed: int) -> Study:
    """Plan the study in a folder, see :func:`main`."""
    digits = zoo.load_data("mnist-embedded", "test", limit=count, seed=seed)
    return Study(
        folder,
        defenses={name: zoo.load(name, **settings) for name, settings in DEFENSES.items()},
        attacks=attacks(steps),
        images=digits.images,
        labels=digits.labels,
        protocol=Protocol(eot_samples=EOT_SAMPLES, judge_draws=JUDGE_DRAWS),
        seeds=(seed,),
        shard_size=25,
        about={
            "data": f"{len(digits)} of the 1,000 embedded MNIST test digits, which no network was trained on",
            "command": f"python -m recipes.quickstart --count {count} --steps {steps} --seed {seed}",
        },
    )


def main(
    *, count: int = 50, steps: int = 10, seed: int = 0, out: Path = Path("runs/quickstart"), dry_run: bool = False
) -> Path | None:
    """Run the study, or the missing part of it.

    Args:
        count: number of test digits, equally many of each class as far as possible.
        steps: gradient steps per start; a random search makes twice as many queries.
        seed: the seed of the subset and of all random streams.
        out: the study folder.
        dry_run: only print the cost; nothing is written.

    Returns:
        The path of the report; None after a dry run.
    """
    if dry_run:
        with shadow(out) as folder:
            print(*forecast(plan(folder, count=count, steps=steps, seed=seed)), sep="\n")
        return None
    study = plan(out, count=count, steps=steps, seed=seed)
    table = study.run(progress=progress_bar(study))
    shown = ["defense", "attack", "gradient", "n", "clean_accuracy", "robust_accuracy", "ci_low", "ci_high"]
    print(table[shown].to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    return study.report()


def command(words: Sequence[str] | None = None) -> int:
    """Run the recipe as its command line says (None: the process's own); return the exit code."""
    parser = reader(__doc__)
    parser.add_argument("--count", type=int, default=50, help="test digits (default 50)")
    parser.add_argument("--steps", type=int, default=10, help="gradient steps per start (default 10)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="study folder; run again to resume")
    options = parser.parse_args(words)

    def work() -> None:
        if report := main(**vars(options)):
            print("report:", report.resolve())

    return exit_code_of("quickstart", work, out=options.out)


if __name__ == "__main__":
    sys.exit(command())
