"""GAN inversion (thesis, chapter 3): all its tables and figures, ours beside the thesis's, and robustness, which it lacks.

    python -m recipes.gan_inversion --profile smoke                              # real digits, everything once
    python -m recipes.gan_inversion --profile fashion --data-root DATA --dry-run # what it would cost
    python -m recipes.gan_inversion --profile fashion --data-root DATA --parts 3.1 --methods enc-d enc-d+    # a part
    python -m recipes.gan_inversion --profile cifar10 --data-root DATA --weights FOLDER --budget paper --device cuda

Six ways to invert a conditional GAN (Direct, Enc, Enc-D, and each with a code per block) classify by what they reconstruct,
under plain and robust perceptual distances, with more and less regularisation and steps; then come KID and FID in and
out of domain, lines between optimal codes, and grids of reconstructions. Each inversion is made once and kept batch by batch;
all tables are made of these. Beyond the thesis, the best setting of few steps meets attacks in every gradient mode beside other
defenses, and hopeless classes leave early. The folder of the run holds the page, the tables as Markdown and LaTeX, the
inversions and one study per defense and gradient mode; killed, the same command goes on.
"""

import sys
from pathlib import Path

from recipes.gan_inversion.page import sections
from recipes.gan_inversion.parts import PARTS, usual
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import BUDGETS, PROFILES
from recipes.harness.recipe import Recipe

recipe = Recipe(
    name="gan_inversion",
    text=__doc__,
    title="GAN inversion: chapter 3 of the thesis",
    run=Run,
    profiles=PROFILES,
    budgets=BUDGETS,
    parts=PARTS,
    usual=usual,
    sections=sections,
    out=Path("runs/gan-inversion"),
)

if __name__ == "__main__":
    sys.exit(recipe.command())
