"""Time of our attacks and of other libraries', as multiples of the bare forward and backward passes they ask for.

    python tests/benchmarks/bench_attacks.py [--threads 2] [--rounds 3] [--only eot]

Every round times the bare passes and all libraries one after the other; the table holds medians of the rounds' ratios (CPU
time with one thread, wall time with more). Foreign libraries are those of the development environment.
"""

import argparse
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gencls import zoo
from gencls.eval import DDN, PGD, AttackModel, CarliniWagner, DeepFool, ThreatModel
from gencls.eval.adapters import as_art, as_torchattacks

warnings.simplefilter("ignore")
sys.modules["visdom"] = types.ModuleType("visdom")  # adv-lib imports it for plots
sys.modules["visdom"].Visdom = None

LINF, L2 = ThreatModel("linf", 0.08), ThreatModel("l2")


def bare(model: nn.Module, images: Tensor, labels: Tensor, passes: int) -> None:
    for _ in range(passes):
        asked = images.clone().requires_grad_()
        torch.autograd.grad(nn.functional.cross_entropy(model(asked), labels), asked)


def rows(model: nn.Module, noisy: nn.Module, images: Tensor, labels: Tensor) -> dict[str, tuple[int, dict[str, Callable]]]:
    """Name -> (bare passes, library -> call); the name ends with the batch size."""
    import foolbox
    import torchattacks
    from adv_lib.attacks import carlini_wagner_l2, ddn, df, pgd_linf
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from foolbox.models import ExpectationOverTransformationWrapper
    from pyautoattack.autopgd_base import APGDAttack

    numbers = labels
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    expected = ExpectationOverTransformationWrapper(foolbox.PyTorchModel(noisy, bounds=(0, 1), device="cpu"), n_steps=20)
    art = as_art(zoo.load("cnn-mnist"), (1, 28, 28), samples=1)
    found: dict[str, tuple[int, dict[str, Callable]]] = {}

    def foolbox_run(attack, count, target=bounded, **how):
        return lambda: attack.run(target, images[:count], foolbox.Misclassification(numbers[:count]), **how)

    step = 2.5 * LINF.epsilon / 40
    for count in (1, 200):
        x, y = images[:count], labels[:count]
        pgd = foolbox.attacks.LinfPGD(steps=40, abs_stepsize=step)
        found[f"PGD-40, all steps, {count}"] = (
            40,
            {
                "gencls": lambda x=x, y=y: PGD(LINF, steps=40, to_the_end=True)(AttackModel(model), x, y),
                "gencls, active set": lambda x=x, y=y: PGD(LINF, steps=40)(AttackModel(model), x, y),
                "foolbox": foolbox_run(pgd, count, epsilon=LINF.epsilon),
                "torchattacks": lambda x=x, y=y: torchattacks.PGD(model, eps=LINF.epsilon, alpha=step, steps=40)(x, y),
                "adv-lib": lambda x=x, y=y: pgd_linf(model, x, y, ε=LINF.epsilon, steps=40, restarts=1),
                "pyautoattack": lambda x=x, y=y: APGDAttack(
                    model, n_iter=40, n_restarts=1, norm="Linf", eps=LINF.epsilon, loss="ce", device="cpu"
                ).perturb(x, y),
                "ART": lambda x=x, y=y: ProjectedGradientDescentPyTorch(
                    art, eps=LINF.epsilon, eps_step=step, max_iter=40, num_random_init=1, batch_size=200, verbose=False
                ).generate(x.numpy(), y.numpy()),
            },
        )
    x, y = images[:100], labels[:100]
    found["PGD-40 x 5 starts, 100"] = (
        200,
        {
            "gencls": lambda x=x, y=y: PGD(LINF, steps=40, restarts=5)(AttackModel(model), x, y),
            "torchattacks": lambda x=x, y=y: torchattacks.MultiAttack(
                [torchattacks.PGD(model, eps=LINF.epsilon, alpha=2.5 * LINF.epsilon / 40, steps=40) for _ in range(5)]
            )(x, y),
            "adv-lib": lambda x=x, y=y: pgd_linf(model, x, y, ε=LINF.epsilon, steps=40, restarts=5),
        },
    )
    for count in (1, 10, 100):
        x, y = images[:count], labels[:count]
        steps = 20 if count < 100 else 5
        eot = foolbox.attacks.LinfPGD(steps=steps, abs_stepsize=0.01)
        found[f"EoT-20 PGD-{steps}, {count}"] = (
            -steps,
            {
                "gencls": lambda x=x, y=y, steps=steps: PGD(LINF, steps=steps)(AttackModel(noisy, samples=20), x, y),
                "foolbox": foolbox_run(eot, count, target=expected, epsilon=LINF.epsilon),
                "torchattacks": lambda x=x, y=y, steps=steps: torchattacks.EOTPGD(
                    noisy, eps=LINF.epsilon, alpha=0.01, steps=steps, eot_iter=20
                )(x, y),
                "pyautoattack": lambda x=x, y=y, steps=steps: APGDAttack(
                    noisy, n_iter=steps, n_restarts=1, norm="Linf", eps=LINF.epsilon, loss="ce", eot_iter=20, device="cpu"
                ).perturb(x, y),
            },
        )
    x, y = images[:100], labels[:100]
    found["DDN-80, 100"] = (
        80,
        {
            "gencls": lambda: DDN(L2, steps=80)(AttackModel(model), x, y),
            "foolbox": foolbox_run(foolbox.attacks.DDNAttack(steps=80), 100),
            "adv-lib": lambda: ddn(model, x, y, steps=80),
        },
    )
    found["DeepFool-50, 100"] = (
        10,
        {
            "gencls": lambda: DeepFool(L2, steps=50)(AttackModel(model), x, y),
            "foolbox": foolbox_run(foolbox.attacks.L2DeepFoolAttack(steps=50), 100),
            "adv-lib": lambda: df(model, x, y, steps=50),
        },
    )
    found["C&W 5 x 100, 100"] = (
        500,
        {
            "gencls": lambda: CarliniWagner(L2)(AttackModel(model), x, y),
            "foolbox": foolbox_run(
                foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=100, stepsize=0.05, initial_const=1.0),
                100,
            ),
            "adv-lib": lambda: carlini_wagner_l2(
                model, x, y, binary_search_steps=5, max_iterations=100, learning_rate=0.05, initial_const=1.0
            ),
        },
    )
    return found


def quality(result: object, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Accuracy left, and for minimal attacks the median L2 distance (infinite where nothing was found)."""
    adversarial = torch.as_tensor(result)[: len(images)]
    with torch.no_grad():
        wrong = model(adversarial).argmax(1) != labels
    distance = (adversarial - images).flatten(1).norm(dim=1).where(wrong, torch.inf)
    return f"{1 - wrong.double().mean():.3f}, {distance.median():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    data = zoo.load_data("mnist-embedded", "test", limit=200)
    model, noisy = zoo.load("cnn-mnist").eval(), zoo.load("cnn-noise-mnist").eval()
    for parameter in [*model.parameters(), *noisy.parameters()]:
        parameter.requires_grad_(False)
    as_torchattacks(zoo.load("cnn-mnist"))  # the adapters' imports are not part of the times
    print("| attack, batch | library | ratio to bare passes | accuracy left, median L2 |\n| --- | --- | ---: | --- |")
    for name, (passes, calls) in rows(model, noisy, data.images, data.labels).items():
        if options.only.lower() not in name.lower():
            continue
        count = int(name.split(", ")[-1])
        images, labels = data.images[:count], data.labels[:count]
        judged, asked, numbers = model, images, labels
        if passes < 0:  # EoT: 20 draws of each image are rows of one batch
            judged, asked, numbers = noisy, images.repeat_interleave(20, 0), labels.repeat_interleave(20)
        ratios: dict[str, list[float]] = {library: [] for library in calls}
        results = {}
        bare(judged, asked, numbers, 2)
        for _ in range(options.rounds if count > 1 else 3 * options.rounds):
            began = clock()
            bare(judged, asked, numbers, abs(passes))
            unit = clock() - began
            for library, call in calls.items():
                began = clock()
                results[library] = call()
                ratios[library].append((clock() - began) / unit)
        for library, values in ratios.items():
            ratio = statistics.median(values)
            print(f"| {name} | {library} | {ratio:.2f} | {quality(results[library], judged, images, labels)} |", flush=True)


if __name__ == "__main__":
    main()
