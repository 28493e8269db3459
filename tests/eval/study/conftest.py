"""The study that others are compared with."""

import pytest
import torch

from tests.eval.study.study_in_toys import small_study


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The folder of the small study, computed in one go; no test changes it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    small_study(folder).run()
    return folder
