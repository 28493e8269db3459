"""MLVGM purification (Serez et al., WACV 2025): its figures and tables, ours beside the paper's.

    python -m recipes.mlvgm --profile smoke                              # real digits, everything once, minutes on two cores
    python -m recipes.mlvgm --profile fashion --data-root DATA --parts learn random       # a part; further ones join it
    python -m recipes.mlvgm --profile fashion --data-root DATA --budget paper --device cuda    # the paper's budgets and N

A generator with several latent levels purifies in front of a classifier. Alphas are learned and compared with linear and
cosine ones, the best are combined with noise and blur, and the best of all meets no defense, TRADES, A-VAE and ND-VAE;
DeepFool, C&W and AutoAttack see all of it, through EoT. Where the paper and its public code disagree, ``--as`` says whose
word counts. The paper's budgets are GPU work: ``--budget reduced`` attacks with less, which every table says. The folder of
the run holds the page, the tables as Markdown and LaTeX, and one study per defense; killed, the same command goes on.
"""

import sys
from pathlib import Path

from recipes.harness.recipe import Recipe
from recipes.mlvgm.experiments import PARTS
from recipes.mlvgm.page import sections
from recipes.mlvgm.runs import Run
from recipes.mlvgm.settings import BUDGETS, PROFILES

recipe = Recipe(
    name="mlvgm",
    text=__doc__,
    title="MLVGM purification",
    run=Run,
    profiles=PROFILES,
    budgets=BUDGETS,
    several={"paper": [name for name in PROFILES if name.startswith("paper-")]},
    parts=PARTS,
    sections=sections,
    out=Path("runs/mlvgm"),
)

if __name__ == "__main__":
    sys.exit(recipe.command())
