"""Variational smoothing (thesis, chapter 4): its tables, ours beside the thesis's, and randomized smoothing's certified curve.

    python -m recipes.variational_smoothing --profile smoke                              # real digits, everything once
    python -m recipes.variational_smoothing --profile fashion --data-root DATA --parts main     # a part; further ones join it
    python -m recipes.variational_smoothing --profile cifar10 --data-root DATA --weights FOLDER --budget paper --device cuda

Base models as they are and with inference around them (Algorithm 5) meet AutoAttack as published, AutoAttack for random
defenses, PGD and Square, through both gradients of the inference and EoT over its starts and noise; per image the worst
counts, and what only the inference keeps is attacked harder. Then the attacks grow (Table 4.2), the inner optimisation takes
more steps, what the thesis leaves open is switched, and randomized smoothing is certified and attacked. ``--budget reduced``
attacks with less, which every table says. The folder of the run holds the page, the tables as Markdown and LaTeX, and one study
per defense; killed, the same command goes on.
"""

import sys
from pathlib import Path

from recipes.harness.recipe import Recipe
from recipes.variational_smoothing.experiments import PARTS
from recipes.variational_smoothing.page import sections
from recipes.variational_smoothing.runs import Run
from recipes.variational_smoothing.settings import BUDGETS, PROFILES

recipe = Recipe(
    name="variational_smoothing",
    text=__doc__,
    title="Variational smoothing",
    run=Run,
    profiles=PROFILES,
    budgets=BUDGETS,
    parts=PARTS,
    sections=sections,
    out=Path("runs/smoothing"),
)

if __name__ == "__main__":
    sys.exit(recipe.command())
