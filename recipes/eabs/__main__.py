"""E-ABS (thesis, chapter 2): all its tables and figures, ours beside the thesis's.

    python -m recipes.eabs --profile smoke                              # real digits, everything once, minutes on two cores
    python -m recipes.eabs --profile mnist --data-root DATA --dry-run   # what it would cost
    python -m recipes.eabs --profile mnist --data-root DATA --tables main --models eabs    # a part; further ones join it
    python -m recipes.eabs --profile mnist --data-root DATA --budget paper --device cuda   # the thesis's budgets and N

Five classifiers with the same modules (a CNN trained with noise, two adversarially trained ones, ABS and E-ABS) meet all
attacks of section 2.3, with the gradient of eq. 2.9 and with what goes beyond the thesis; then come the ablation of the
three extensions, the search for the attacks' settings, and the lower bounds of eq. 2.7. The thesis's budgets are GPU work:
``--budget reduced`` takes the fast path of ABS and E-ABS and attacks them with less, which every table says. The folder of
the run holds the page, the tables as Markdown and LaTeX, and one study per defense; killed, the same command goes on.
"""

import sys
from pathlib import Path

from recipes.eabs.experiments import PARTS, usual
from recipes.eabs.page import sections
from recipes.eabs.runs import Run
from recipes.eabs.settings import BUDGETS, PROFILES
from recipes.harness.recipe import Recipe

recipe = Recipe(
    name="eabs",
    text=__doc__,
    title="E-ABS: chapter 2 of the thesis",
    run=Run,
    profiles=PROFILES,
    budgets=BUDGETS,
    parts=PARTS,
    part_flags=("--parts", "--tables"),
    usual=usual,
    sections=sections,
    out=Path("runs/eabs"),
    nested=False,
)

if __name__ == "__main__":
    sys.exit(recipe.command())
