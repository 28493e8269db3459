"""Recipes at the smallest size: what looks twice at random defenses costs more there than the attacks themselves."""

import os

import pytest

from gencls.eval.attacks.parts import attack_model
from gencls.eval.scores import probe


@pytest.fixture(scope="module", autouse=True)
def little():
    """Candidates of attacks on random defenses are compared on 4 draws, not 64; defenses are looked at briefly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attack_model, "SURE_DRAWS", 4)
        for tries in ("_TRIES", "_REPEATS", "_MIXES"):
            patch.setattr(probe, tries, 1)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """The same for all processes of a test run, which share the cells of a study as any processes do."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
