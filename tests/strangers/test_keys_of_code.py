"""An edit of code that a result passes through gives another key; any other edit gives the same."""

import json
import os
import shutil
import sys
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, key_of
from gencls.core.keys import closures
from gencls.eval import APGD, FGSM, NES, PGD, Boundary, GaussianNoiseAttack, Protocol, Study, ThreatModel, Transfer
from gencls.eval.judgement.runner import run_cell
from tests.strangers.key_parts import Colour
from tests.strangers.test_keys import ROOT
from tests.toys import small_cnn

LINF = ThreatModel("linf", 0.1)


ATTACKS = {
    "pgd": lambda: PGD(LINF, steps=1),
    "nes": lambda: NES(LINF, steps=1, samples=2),
    "noise": lambda: GaussianNoiseAttack(LINF),
    "apgd": lambda: APGD(LINF, steps=1),
    "transfer": lambda: Transfer(small_cnn(seed=1), GaussianNoiseAttack(LINF)),
}
JUDGE = (run_cell, Protocol)

CHANGES = {
    "pgd": ("gencls.eval.attacks.pgd", "rows.step = rows.step + 1", "rows.step = 1 + rows.step", {"pgd", "nes"}),
    "a constant of some": (
        "gencls.eval.attacks.parts.attack_model",
        "SURE_DRAWS = 64",
        "SURE_DRAWS = 65",
        {"pgd", "nes", "apgd"},
    ),
    "a docstring of pgd": ("gencls.eval.attacks.pgd", '"""One call of the attack."""', '"""A call."""', set()),
    "noise": (
        "gencls.eval.attacks.noise",
        "class GaussianNoiseAttack:\n",
        "class GaussianNoiseAttack:\n    new = 1\n",
        {"noise", "transfer"},
    ),
    "what is imported late": (
        "gencls.eval.attacks.parts.pyautoattack_attacks",
        "best, _, _, wrong = attack",
        "best, _, _, wrong, *_ = attack",
        {"apgd"},
    ),
    "transfer": (
        "gencls.eval.attacks.transfer",
        "return self.attack.threat",
        "return (self.attack).threat or None",
        {"transfer"},
    ),
    "judge": ("gencls.eval.judgement.judge", "return 2 * right > made", "return 2 * right >= made", {"judge"}),
    "runner": ("gencls.eval.judgement.runner", "_ZERO_GRADIENTS = 0.01", "_ZERO_GRADIENTS = 0.02", {"judge"}),
    "what all share": (
        "gencls.core.settings",
        "    made: Any = type(owner)",
        "    made: object = type(owner)",
        {*ATTACKS, "judge"},
    ),
    "tries": ("gencls.core.rows", "_TRY = -2", "_TRY = -3", {"pgd", "nes"}),
    "what the judge sets up": ("gencls.core.streams.generators", "_WHOLE = -1", "_WHOLE = -3", {"transfer", "judge"}),
    "summary": ("gencls.eval.measures.summary", "import", "_NEW = 1\nimport", set()),
    "another attack": ("gencls.eval.attacks.square", "import", "_NEW = 1\nimport", set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_code_of_gencls(change, tmp_path, monkeypatch):
    """Which keys change with an edit: of attacks by name, and of what judges all of them."""
    module, old, new, changed = CHANGES[change]
    subjects = {name: make() for name, make in ATTACKS.items()} | {"judge": JUDGE}
    before = {name: key_of(subject, name) for name, subject in subjects.items()}
    original = closures.file_of
    text = Path(original(module)).read_text()
    assert old in text
    copied = tmp_path / "edited.py"
    copied.write_text(text.replace(old, new, 1))
    monkeypatch.setattr(closures, "file_of", lambda name: str(copied) if name == module else original(name))
    closures._named_by.cache_clear()
    after = {name: key_of(subject, name) for name, subject in subjects.items()}
    assert {name for name in before if before[name].whole != after[name].whole} == changed
    assert all(before[name].content == after[name].content for name in before)


def test_a_file_of_gencls_that_was_changed_after_it_was_imported(monkeypatch):
    """What runs is not what stands there now, so that the key is neither the old nor the new one."""
    before = key_of(PGD(LINF), "pgd"), key_of(FGSM(LINF), "fgsm")
    path = str(ROOT / "gencls" / "eval" / "attacks" / "pgd.py")
    monkeypatch.setitem(closures._AT_IMPORT, path, (1, 1))
    assert key_of(PGD(LINF), "pgd").whole != before[0].whole
    assert key_of(PGD(LINF), "pgd").content == before[0].content
    assert key_of(FGSM(LINF), "fgsm") == before[1]


def test_settings_and_content_of_attacks():
    pools = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 1e-4), None
    keys = [key_of(Boundary(ThreatModel("l2"), starts=pool), "boundary").content for pool in pools]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    keys = [key_of(Transfer(small_cnn(seed=seed), PGD(LINF)), "transfer").content for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert key_of(PGD(LINF, steps=5), "pgd").content != key_of(PGD(LINF), "pgd").content


def in_new_process(task, *arguments):
    """What a function returns in a child of this process, in which it may import what it likes."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = {"returned": task(*arguments)}
        except BaseException:
            answer = {"raised": traceback.format_exc()}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.load(pipe)
    os.waitpid(child, 0)
    assert "returned" in answer, answer["raised"]
    return answer["returned"]


def key_of_package(folder):
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    from mine import network

    return key_of(network.Net(), "net").content


FILES = {  # without __init__.py: a folder is a package as well
    "parts.py": "FACTOR = 2\n\ndef scale(x):\n    return x * FACTOR\n\ndef other(x):\n    return x\n",
    "late.py": "from .parts import scale\n\ndef shift(x):\n    return scale(x) + 1\n\ndef other(x):\n    return x\n",
    "network.py": "from torch import nn\nfrom mine import parts\n\nclass Net(nn.Module):\n    def forward(self, x):\n"
    "        from mine.late import shift\n        return shift(parts.scale(x))\n",
}


@pytest.mark.parametrize(
    ("file", "old", "new", "differs"),
    [
        ("network.py", "shift(parts.scale(x))", "parts.scale(shift(x))", True),
        ("parts.py", "x * FACTOR", "x / FACTOR", True),
        ("parts.py", "FACTOR = 2", "FACTOR = 3", True),
        ("parts.py", "    return x\n", "    return -x\n", False),
        ("late.py", "+ 1", "+ 2", True),
        ("late.py", "    return x\n", "    return -x\n", False),
        ("late.py", "def shift", "# what is imported late\ndef shift", False),
    ],
)
def test_a_package_that_is_edited_between_two_runs(file, old, new, differs, tmp_path):
    (tmp_path / "mine").mkdir()
    for name, text in FILES.items():
        (tmp_path / "mine" / name).write_text(text)
    before = in_new_process(key_of_package, tmp_path)
    assert in_new_process(key_of_package, tmp_path) == before
    assert old in FILES[file]
    (tmp_path / "mine" / file).write_text(FILES[file].replace(old, new))
    assert (in_new_process(key_of_package, tmp_path) != before) == differs


def computed_with(package, folder):
    """Run a study with another copy of gencls; the attacks of the cells that were computed, and the cells of the table."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("gencls", "tests")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(package))
    from gencls.eval import FGSM, NES, PGD, Study, ThreatModel, read_study
    from tests.toys import small_cnn

    threat, source, computed = ThreatModel("linf", 0.1), torch.Generator().manual_seed(0), []

    @contextmanager
    def progress(cells):
        yield lambda cell: computed.append(cell.attack)

    study = Study(
        folder,
        defenses={"net": small_cnn()},
        attacks={"pgd": PGD(threat, steps=1), "nes": NES(threat, steps=1, samples=2), "fgsm": FGSM(threat)},
        images=torch.rand(4, 1, 8, 8, generator=source),
        labels=torch.arange(4),
        shard_size=2,
    )
    table = study.run(progress=progress)
    assert read_study(folder)["cells"] == [vars(cell) for cell in study.cells()]
    assert set(table["n"]) == {4}
    return Counter(computed)


def test_a_study_after_edits(tmp_path):
    """In the same folder it computes the cells whose code has changed, and makes its table of the present ones."""
    study(tmp_path / "warm", small_cnn(), fgsm=FGSM(LINF)).run()  # the children need not import what this has imported
    package, folder = tmp_path / "package", tmp_path / "study"
    shutil.copytree(ROOT / "gencls", package / "gencls", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    assert in_new_process(computed_with, package, folder) == {"pgd": 2, "nes": 2, "fgsm": 2}
    for file, old, new, again in (
        ("eval/attacks/pgd.py", "rows.step = rows.step + 1", "rows.step = 1 + rows.step", {"pgd": 2, "nes": 2}),
        ("eval/judgement/judge.py", "return 2 * right > made", "return right > made - right", {"pgd": 2, "nes": 2, "fgsm": 2}),
        ("eval/report/study/page.py", "import json", "import json\n\n_NEW = 1\nimport json", {}),
    ):
        path = package / "gencls" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        assert in_new_process(computed_with, package, folder) == again
        path.write_text(text)
    assert in_new_process(computed_with, package, folder) == {}


def study(folder, defense, **attacks):
    source = torch.Generator().manual_seed(0)
    return Study(
        folder,
        defenses={"net": defense},
        attacks=attacks or {"fgsm": FGSM(LINF)},
        images=torch.rand(4, 1, 8, 8, generator=source),
        labels=torch.arange(4),
        shard_size=2,
    )


class Counting(nn.Module):
    """Remembers that it was asked."""

    def __init__(self):
        super().__init__()
        self.network = small_cnn()
        self._asked = 0

    def forward(self, images):
        self._asked += 1
        return self.network(images)


def test_a_study_takes_the_key_before_it_asks(tmp_path):
    first = study(tmp_path / "study", Counting().eval())
    assert first.missing() == study(tmp_path / "study", Counting().eval()).missing()


class Own:
    """An attack that is no dataclass."""

    threat = LINF
    uses_gradients = False
    passes = (0, 0)

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, model, images, labels):
        return images


def test_an_attack_of_another_kind(tmp_path):
    first = study(tmp_path / "study", small_cnn(), own=Own(Colour.RED))
    assert first.cells() == study(tmp_path / "study", small_cnn(), own=Own(Colour.RED)).cells()
    with pytest.raises(GenclsError, match="holds another study: attack own has other code, or holds something else"):
        study(tmp_path / "study", small_cnn(), own=Own(Colour.BLUE))


def test_an_edited_network_is_another_study(tmp_path):
    study(tmp_path / "study", small_cnn())
    with pytest.raises(GenclsError, match="holds another study: defense net has other layers"):
        study(tmp_path / "study", nn.Sequential(small_cnn(), nn.Identity()).eval())
