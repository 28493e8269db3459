"""Atomic writes and locks: what the living hold stays, what the dead have left goes."""

import json
import multiprocessing
import os
import platform
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gencls.core import GenclsError, files
from gencls.core.files import atomically, check_seal, held, read_sealed, remove_dead, remove_leftovers, sealed, write_sealed

FORK = multiprocessing.get_context("fork")


def part(folder, name="table.csv", host=None):
    return folder / f".{name}~{host or platform.node()}~{0:032x}.part"


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def started(target, *arguments):
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def wait_for(condition):
    """Until another process has come so far."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def killed(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def writes_slowly(path):
    atomically(path, lambda new: (new.write_text("half"), time.sleep(600)))


def holds(path, sign):
    """Hold the lock; the sign says so, since the file is there a moment before it is locked."""
    with held(path):
        sign.touch()
        time.sleep(600)


def test_a_file_appears_whole_and_nothing_beside_it(tmp_path):
    path = tmp_path / "table.csv"
    atomically(path, lambda new: (new.write_text("first"), path.exists() and pytest.fail("too early")))
    atomically(path, lambda new: new.write_text("second"))
    assert path.read_text() == "second"
    with pytest.raises(FileExistsError):
        atomically(path, lambda new: new.write_text("third"), overwrite=False)
    with pytest.raises(ZeroDivisionError):
        atomically(path, lambda new: (new.write_text("fourth"), 1 / 0))
    assert path.read_text() == "second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_what_a_living_process_writes_stays_and_what_a_killed_one_has_left_goes(tmp_path):
    process = started(writes_slowly, tmp_path / "table.csv")
    wait_for(lambda: any((tmp_path / name).stat().st_size for name in hidden(tmp_path)))
    remove_leftovers(tmp_path)
    assert len(hidden(tmp_path)) == 1
    killed(process)
    assert len(hidden(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == []


def test_the_next_process_cleans_where_it_writes(tmp_path):
    part(tmp_path).touch()
    process = started(atomically, tmp_path / "other.csv", lambda new: new.touch())
    process.join()
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


def test_what_another_machine_writes_and_what_is_not_ours_stays(tmp_path):
    kept = [part(tmp_path, host="another-machine"), tmp_path / "uv.lock", tmp_path / ".hidden", tmp_path / "model.part"]
    for path in kept:
        path.touch()
    (tmp_path / f".folder~{platform.node()}~{0:032x}.part").mkdir()
    part(tmp_path).touch()
    remove_leftovers(tmp_path)
    assert all(path.exists() for path in kept)
    assert not part(tmp_path).exists()


def test_a_lock_is_free_when_its_process_dies(tmp_path):
    path, sign = tmp_path / "cell.lock", tmp_path / "held"
    process = started(holds, path, sign)
    wait_for(sign.exists)
    with held(path, wait=False) as mine:
        assert not mine
    remove_dead([path])
    assert path.exists()
    killed(process)
    with held(path, wait=False) as mine:
        assert mine
    assert not path.exists()


def test_one_holds_at_a_time_although_each_removes_the_file(tmp_path):
    """Who waits for a file that its holder removes does not take the removed one for the lock."""
    path, inside, most = tmp_path / "cell.lock", [], []

    def work(_):
        for _ in range(40):
            with held(path) as mine:
                inside.append(mine)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    def disturb():
        while len(most) < 160:
            remove_dead([path])

    disturber = threading.Thread(target=disturb)
    disturber.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    disturber.join()
    assert len(most) == 160
    assert set(most) == {1}
    assert not path.exists()


@pytest.mark.parametrize("broken", ["no such call", "no module"])
def test_without_locks_nothing_is_known_to_be_dead(broken, tmp_path, monkeypatch):
    if broken == "no module":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(files.errno.ENOSYS, "no locks")))
    part(tmp_path).touch()
    remove_leftovers(tmp_path)
    assert part(tmp_path).exists()
    atomically(tmp_path / "table.csv", lambda new: new.write_text("whole"))
    assert (tmp_path / "table.csv").read_text() == "whole"
    with held(tmp_path / "cell.lock") as mine:
        assert mine
    assert hidden(tmp_path) == [part(tmp_path).name]


def test_other_errors_of_a_lock_are_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(files.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(files.errno.EIO, "broken disk")))
    with pytest.raises(OSError, match="broken disk"), held(tmp_path / "cell.lock"):
        pass


CONTENT = {"a": [1, 2.5, float("inf")], "b": {"c": None, "d": "ä"}, "e": (True, 0.1)}


def test_sealed_content_comes_back(tmp_path):
    path = tmp_path / "settings.json"
    write_sealed(path, CONTENT)
    found = read_sealed(path, "settings")
    assert {name: value for name, value in found.items() if name != "checksum"} == json.loads(json.dumps(CONTENT))
    path.write_text(json.dumps(found, sort_keys=True))  # neither spaces nor order count
    assert read_sealed(path, "settings") == found
    write_sealed(path, found)  # nor does an older checksum
    assert read_sealed(path, "settings") == found


@pytest.mark.parametrize(
    "change", [{"a": [1, 2.5]}, {"a": [2.5, 1, float("inf")]}, {"b": {}}, {"f": 1}, {"e": [1, 0.1]}, {"checksum": None}]
)
def test_changed_content_is_refused(change):
    with pytest.raises(GenclsError, match="^mine: expected the checksum .*, got .*; it was changed or damaged, pity$"):
        check_seal({**sealed(CONTENT), **change}, "mine", ", pity")


@pytest.mark.parametrize("text", ["", "{", "[]", '"words"', "\udcff", "[" * 100_000, "1" * 5000])
def test_what_is_no_object_is_refused(text, tmp_path):
    path = tmp_path / "settings.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(GenclsError, match=r"settings\.json: expected the settings.*; run again$"):
        read_sealed(path, "the settings", "; run again")
    with pytest.raises(GenclsError, match="No such file"):
        read_sealed(tmp_path / "none", "the settings")
