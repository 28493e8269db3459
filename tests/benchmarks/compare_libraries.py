"""How many adversarials we and other libraries find at equal budget, on a plain and an adversarially trained CNN.

    python tests/benchmarks/compare_libraries.py [--digits 500] [--only pgd]

Success is judged alike for all: the decision on the returned images, clipped to [0, 1], within the ball. For minimal-norm
attacks the count is of those within a radius, with the median distance beside it.
"""

import argparse
import sys
import time
import types
import warnings
from collections.abc import Callable

import torch

from gencls import zoo
from gencls.eval import DDN, PGD, CarliniWagner, DeepFool, ThreatModel
from gencls.eval.adapters import as_art

warnings.simplefilter("ignore")
sys.modules["visdom"] = types.ModuleType("visdom")  # adv-lib imports it for plots
sys.modules["visdom"].Visdom = None

RADII = {"cnn-mnist": (0.08, 1.2), "adv-linf-mnist": (0.35, 4.0)}
"""Linf budget of PGD and L2 radius of the minimal-norm attacks, where the attacks differ."""


def calls(name: str, images: torch.Tensor, labels: torch.Tensor) -> dict[str, dict[str, Callable]]:
    """Attack -> library -> call."""
    import foolbox
    import torchattacks
    from adv_lib.attacks import carlini_wagner_l2, ddn, df, pgd_linf
    from art.attacks.evasion import CarliniL2Method, ProjectedGradientDescentPyTorch
    from art.attacks.evasion import DeepFool as ArtDeepFool
    from pyautoattack.autopgd_base import APGDAttack

    model, epsilon, l2 = zoo.load(name).eval(), RADII[name][0], ThreatModel("l2")
    bounded, goal = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), foolbox.Misclassification(labels)
    art = as_art(model, (1, 28, 28), samples=1)
    step = 2.5 * epsilon / 40
    few = slice(0, 20)  # ART and torchattacks' DeepFool go image by image, and ART's C&W takes 19 times the passes

    return {
        "PGD-40": {
            "gencls": lambda: PGD(ThreatModel("linf", epsilon), steps=40)(model, images, labels),
            "foolbox": lambda: foolbox.attacks.LinfPGD(steps=40, abs_stepsize=step).run(bounded, images, goal, epsilon=epsilon),
            "torchattacks": lambda: torchattacks.PGD(model, eps=epsilon, alpha=step, steps=40)(images, labels),
            "adv-lib": lambda: pgd_linf(model, images, labels, ε=epsilon, steps=40, restarts=1),
            "pyautoattack (APGD-CE)": lambda: APGDAttack(
                model, n_iter=40, n_restarts=1, norm="Linf", eps=epsilon, loss="ce", device="cpu", seed=0
            ).perturb(images, labels),
            "ART": lambda: torch.from_numpy(
                ProjectedGradientDescentPyTorch(
                    art, eps=epsilon, eps_step=step, max_iter=40, num_random_init=1, batch_size=500, verbose=False
                ).generate(images.numpy(), labels.numpy())
            ),
        },
        "DeepFool-50": {
            "gencls": lambda: DeepFool(l2)(model, images, labels),
            "foolbox": lambda: foolbox.attacks.L2DeepFoolAttack(steps=50).run(bounded, images, goal),
            "adv-lib": lambda: df(model, images, labels, steps=50),
            "torchattacks, first 20": lambda: torchattacks.DeepFool(model, steps=50)(images[few], labels[few]),
            "ART, first 20": lambda: torch.from_numpy(
                ArtDeepFool(art, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=50, verbose=False).generate(
                    images[few].numpy(), labels[few].numpy()
                )
            ),
        },
        "DDN-80": {
            "gencls": lambda: DDN(l2)(model, images, labels),
            "foolbox": lambda: foolbox.attacks.DDNAttack(steps=80).run(bounded, images, goal),
            "adv-lib": lambda: ddn(model, images, labels, steps=80),
        },
        "C&W 5 x 100": {
            "gencls": lambda: CarliniWagner(l2)(model, images, labels),
            "foolbox": lambda: foolbox.attacks.L2CarliniWagnerAttack(
                binary_search_steps=5, steps=100, stepsize=0.05, initial_const=1.0
            ).run(bounded, images, goal),
            "adv-lib": lambda: carlini_wagner_l2(
                model, images, labels, binary_search_steps=5, max_iterations=100, learning_rate=0.05, initial_const=1.0
            ),
            "torchattacks (c = 1, 500 steps)": lambda: torchattacks.CW(model, c=1, steps=500, lr=0.05)(images, labels),
            "ART, first 20": lambda: torch.from_numpy(
                CarliniL2Method(
                    art,
                    binary_search_steps=5,
                    max_iter=100,
                    learning_rate=0.05,
                    initial_const=1.0,
                    batch_size=50,
                    verbose=False,
                ).generate(images[few].numpy(), labels[few].numpy())
            ),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", type=int, default=500)
    parser.add_argument("--only", default="")
    parser.add_argument("--library", default="")
    parser.add_argument("--networks", nargs="+", default=list(RADII))
    options = parser.parse_args()
    data = zoo.load_data("mnist-embedded", "test", limit=options.digits)
    print("| network | attack | library | found | of these within | median L2 | ours on the same | CPU s |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in options.networks:
        model = zoo.load(name).eval()
        for attack, libraries in calls(name, data.images, data.labels).items():
            if options.only.lower() not in attack.lower():
                continue
            threat = ThreatModel("linf", RADII[name][0]) if attack.startswith("PGD") else ThreatModel("l2", RADII[name][1])
            ours: torch.Tensor | None = None
            for library, call in libraries.items():
                if options.library not in library:
                    continue
                torch.manual_seed(0)
                began = time.process_time()
                adversarial = call().clamp(0, 1).float()
                seconds = time.process_time() - began
                images, labels = data.images[: len(adversarial)], data.labels[: len(adversarial)]
                with torch.no_grad():
                    wrong = model(adversarial).argmax(1) != labels
                within = wrong & threat.allows(threat.distance(images, adversarial))
                distance = (adversarial - images).flatten(1).norm(dim=1).where(wrong, torch.inf)
                ours = within if ours is None else ours
                print(
                    f"| {name} | {attack} | {library} | {int(wrong.sum())} / {len(images)} "
                    f"| {int(within.sum())} ({threat.norm} {threat.epsilon:g}) | {distance.median():.3f} "
                    f"| {int(ours[: len(images)].sum())} | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
