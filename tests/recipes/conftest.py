"""Recipes at the smallest size: what compares candidates on fresh draws costs more there than the attacks themselves."""

import pytest

from gencls.eval.attacks import apgd, pgd, square


@pytest.fixture(scope="module", autouse=True)
def few_draws_are_sure():
    """Candidates of attacks on random defenses are compared on 4 draws in place of 64."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (apgd, pgd, square):
            patch.setattr(module, "SURE_DRAWS", 4)
        yield
