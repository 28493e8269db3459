"""Several processes on one folder, killed at any moment: nothing is lost, nothing is computed twice."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gencls.eval import read_study
from tests.eval.study.study_in_toys import small_study
from tests.eval.study.test_study import counting, table

ROOT = Path(__file__).parents[3]


def start(folder, pause=0.0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.eval.study.study_in_toys", str(folder), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow  # two processes at once are among the fast tests, a hundred kills among the slow ones
def test_a_killed_process(undisturbed, tmp_path):
    """kill -9 after a few cells; the same command goes on from there."""
    folder = tmp_path / "study"
    process = start(folder, pause=0.05)
    seen = [process.stdout.readline().strip() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    seen += process.communicate()[0].split()
    assert process.returncode == -signal.SIGKILL
    assert 20 <= len(seen) < 44
    computed = []
    small_study(folder).run(progress=counting(computed))
    assert not set(seen) & set(computed)
    assert len(seen) + len(computed) in (43, 44)  # one may be finished without having been told
    assert table(folder) == table(undisturbed)


@pytest.mark.slow
def test_four_processes_at_once_killed_at_a_hundred_random_moments(undisturbed, tmp_path):
    """Forked, so that they begin at once. Between the kills some cells are lost or damaged, so that there is always work."""
    folder, chance, fork = tmp_path / "study", random.Random(), multiprocessing.get_context("fork")
    small_study(folder)
    kills, left = 0, 0

    def fork_four():
        processes = [fork.Process(target=run_quietly, args=(folder,)) for _ in range(4)]
        for process in processes:
            process.start()
        return processes

    while kills < 100:
        for process in (processes := fork_four()):
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
        for process in processes:
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            assert process.exitcode in (0, -signal.SIGKILL)
        left += len([path for path in (folder / "cells").iterdir() if path.suffix in (".lock", ".part")])
        marks = sorted((folder / "cells").glob("*.json"))
        for path in chance.sample(marks, len(marks) // 8):
            path.unlink()
        for path in chance.sample(marks, len(marks) // 20):
            path.with_suffix(".parquet").write_bytes(b"damaged")
    print(f"{kills} kills left {left} locks and half-written files")
    for process in (processes := fork_four()):
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert table(folder) == table(undisturbed)
    assert len(list((folder / "cells").iterdir())) == 3 * 44
    assert {path.name for path in folder.iterdir()} == {path.name for path in undisturbed.iterdir()}


def run_quietly(folder):
    """Run the study in a forked process, in which the warnings about damaged cells are expected."""
    warnings.simplefilter("ignore")
    small_study(folder).run()


def test_two_processes_at_once(undisturbed, tmp_path):
    """They share the work and make one table."""
    folder = tmp_path / "study"
    other, computed = start(folder, pause=0.02), []
    seen = [other.stdout.readline().strip()]
    with ThreadPoolExecutor() as pool:
        rest = pool.submit(lambda: other.communicate()[0])
        small_study(folder).run(progress=counting(computed))
        mine = table(folder)
        seen += rest.result().split()
    assert other.returncode == 0
    assert len(computed) > 5
    assert len(seen) > 5
    assert Counter(seen + computed) == Counter(cell.key for cell in small_study(folder).cells())  # no cell twice
    assert mine == table(folder) == table(undisturbed)
    assert len(list((folder / "cells").iterdir())) == 3 * 44


def test_a_claim_that_was_interrupted(tmp_path):
    """Killed, or still at work, between making the folder and writing the settings."""
    folder = tmp_path / "study"
    small_study(folder)
    (folder / "study.json").unlink()
    for name in ("study.json", "samples.safetensors"):
        (folder / f".{name}~another-machine~{0:032x}.part").touch()
    assert len(small_study(folder).missing()) == 44
    assert read_study(folder)["n"] == 30


@pytest.mark.slow
def test_many_claims_at_once(tmp_path):
    for attempt in range(5):
        studies = [small_study(tmp_path / f"model {i}") for i in range(4)]
        ready, folder = threading.Barrier(4), tmp_path / str(attempt)

        def claim(study, ready=ready, folder=folder):
            study.folder = folder
            ready.wait()
            study._claim_folder()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(claim, studies))
        assert len(small_study(folder).missing()) == 44
