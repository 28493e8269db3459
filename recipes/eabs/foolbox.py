"""E-ABS under Foolbox's own attacks, as the thesis ran them: what they claim beside what is verified, and ours beside both.

    python -m recipes.eabs.foolbox --data-root DATA --count 50

The thesis reports 90.4 % for E-ABS on MNIST under L2 attacks of size 1.5, we find less. If Foolbox's attacks on raw scores
claimed about 90 % of our network too, the difference would be one of attacks; docs/reproduction/eabs.md has what came out.
Both kinds of attack look at the frozen gradient (eq. 2.9) with as many draws; in our column clean errors count as broken.
They differ in calibration, and in that Foolbox's PGD makes constant steps of epsilon / 40, where ours fall from epsilon along
a cosine. In the second row neither differs: Foolbox sees calibrated scores, ours makes Foolbox's steps.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
import torch
from torch import Tensor

from gencls import zoo
from gencls._commands.arguments import reader
from gencls._commands.failures import exit_code_of
from gencls.core import Defense, seeded
from gencls.eval import DDN, PGD, Attack, DeepFool, ThreatModel, closest_distances, evaluate
from gencls.eval.adapters import as_foolbox
from gencls.eval.study.cost import duration
from gencls.eval.threats.protocol import TOLERANCE
from recipes.eabs.sweep import markdown
from recipes.harness.jobs import seconds_of
from recipes.harness.records import Share

EPSILON = 1.5
STEPS = {"PGD": 40, "DeepFool": 20, "DDN": 30}
"""Steps of each attack, as in the reduced budget of recipes.eabs."""


@dataclass(frozen=True)
class Pair:
    """One attack twice: Foolbox's, and ours.

    Attributes:
        foolbox: takes model, images, labels and epsilon; gives perturbed images, clipped ones, and whether each is broken.
        ours: the same attack in gencls.
        calibrated: whether Foolbox sees calibrated scores.
    """

    foolbox: Callable[..., tuple[Tensor, Tensor, Tensor]]
    ours: Attack
    calibrated: bool = False


def pairs() -> Mapping[str, Pair]:
    """The thesis's L2 attacks of Foolbox, with its defaults, beside ours."""
    from foolbox.attacks import DDNAttack, L2DeepFoolAttack, L2ProjectedGradientDescentAttack

    smallest, ball = ThreatModel("l2"), ThreatModel("l2", EPSILON)
    pgd, steps = L2ProjectedGradientDescentAttack(steps=STEPS["PGD"]), STEPS["PGD"]
    return {
        "PGD": Pair(pgd, PGD(ball, steps=steps)),
        "PGD, calibrated, steps of ε / 40": Pair(pgd, PGD(ball, steps=steps, step_size=EPSILON / 40), calibrated=True),
        "DeepFool": Pair(L2DeepFoolAttack(steps=STEPS["DeepFool"]), DeepFool(smallest, steps=STEPS["DeepFool"])),
        "DDN": Pair(DDNAttack(steps=STEPS["DDN"]), DDN(smallest, steps=STEPS["DDN"])),
    }


def compare(defense: Defense, data: zoo.ImageData, *, draws: int = 2, judge: int = 4, seed: int = 0) -> pandas.DataFrame:
    """A row per attack: accuracy as Foolbox claims it, as verified, and verified under our attack.

    Args:
        defense: E-ABS in eval mode.
        data: the test images.
        draws: scores that are averaged at each look.
        judge: fresh draws per decision; the majority counts.
        seed: the seed of all draws and attacks.

    Returns:
        One row per attack. Accuracies are in %, with 95 % Wilson intervals.
    """
    attacks = pairs()
    records = evaluate(
        defense,
        {name: pair.ours for name, pair in attacks.items()},
        [(data.images, data.labels)],
        eot_samples=draws,
        judge_draws=judge,
        most_draws=judge,
        modes=["frozen"],
        seed=seed,
    ).records
    rows = {}
    for name, pair in attacks.items():
        model = as_foolbox(defense, samples=draws, mode="frozen", calibrated=pair.calibrated)
        with seeded(seed):
            _, adversarials, broken = pair.foolbox(model, data.images, data.labels, epsilons=EPSILON)
            with torch.no_grad():
                votes = sum((defense(adversarials).argmax(1) == data.labels).float() for _ in range(judge)) / judge
        verified = closest_distances(records[records["attack"] == name]) > EPSILON + TOLERANCE
        robust = {"Foolbox claims": ~broken, "Foolbox, verified": votes > 0.5, "gencls, verified": verified}
        rows[name] = {what: Share(int(which.sum()), len(which)).rounded for what, which in robust.items()}
    return pandas.DataFrame(rows).T


def predict(defense: Defense, data: zoo.ImageData, *, draws: int = 2, judge: int = 4, seed: int = 0) -> float:
    """Predict the most seconds that :func:`compare` takes. Foolbox's attacks make as many passes as ours."""
    attacks = {name: pair.ours for name, pair in pairs().items()}
    settings = {"eot_samples": draws, "judge_draws": judge, "most_draws": judge, "seed": seed}
    return 2 * seconds_of(defense, attacks, data, modes=("frozen",), **settings)


def command(words: Sequence[str] | None = None) -> int:
    """Run the recipe as its command line says (None: the process's own); return the exit code."""
    parser = reader(__doc__)
    parser.add_argument("--count", type=int, default=50, help="test digits (default 50)")
    parser.add_argument("--weights", type=Path, help="of another eabs-mnist than the committed one")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets; default GENCLS_DATA")
    options = parser.parse_args(words)

    def work() -> None:
        digits = zoo.load_data("mnist", "test", root=options.data_root, limit=options.count)
        network = zoo.load("eabs-mnist", weights=options.weights, steps=20, lr=0.1, starts=2000, fast=True)
        if options.dry_run:
            seconds = predict(network, digits, seed=options.seed)
            print(f"predicted: about {duration(seconds)} at most for {len(pairs())} pairs of attacks on {len(digits)} images")
        else:
            print(markdown(compare(network, digits, seed=options.seed)))

    return exit_code_of("eabs_foolbox", work)


if __name__ == "__main__":
    sys.exit(command())
