"""Writes files that no crash leaves half written: atomic writes, locks that die with their process, JSON with a checksum."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such locks, see held()
    fcntl = None  # type: ignore[assignment]

from gencls.core.errors import GenclsError

__all__ = [
    "DISK_FULL",
    "WriteError",
    "atomically",
    "check_seal",
    "held",
    "read_object",
    "read_sealed",
    "remove_dead",
    "remove_leftovers",
    "sealed",
    "shortened",
    "write_sealed",
]

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers of a file system that has no room: for anybody, for this user, or for so large a file."""

LONGEST = 255
"""The number of bytes that usual file systems allow in a file's name."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY, errno.EPERM}
"""Error numbers of a file system that cannot lock."""

_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EMLINK}
"""Error numbers of a file system without hard links."""

_TRIES = 100
"""How often a locked file may turn out to be gone or replaced, before the file system counts as one that cannot lock."""


class WriteError(GenclsError, OSError):
    """The system refuses to write a file. It is an OSError, too, and keeps its number."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the path that the system refuses to write inside the block.

    Raises:
        WriteError: the disk is full, or the folder is gone or may not be written to.
        FileExistsError: passes unchanged, since it says that another process was faster.
    """
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        what = "room for it" if error.errno in DISK_FULL else "to write it"
        told = WriteError(f"{path}: expected {what}, got: {error.strerror or error}; finished work is kept, run again")
        told.errno, told.strerror = error.errno, error.strerror
        raise told from error


def shortened(name: str, longest: int = LONGEST) -> str:
    """Shorten a file's name to at most ``longest`` bytes, 14 or more, by its beginning and 12 digits of its SHA-256."""
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= longest:
        return name
    return f"{encoded[: longest - 13].decode('utf-8', 'ignore')}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _host(node: str) -> str:
    """Write a machine's name for use in file names; machines whose names differ in the letters left out stay apart."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", node)
    return shortened(plain if plain == node else f"{plain}-{hashlib.sha256(node.encode()).hexdigest()[:8]}", 64)


_HOST = _host(platform.node())

_PART = re.compile(rf"\..+~{re.escape(_HOST)}~[0-9a-f]{{32}}\.part", re.DOTALL)
"""Names of the files that a process of this machine is writing, or was writing when it died. Other machines' names differ."""


def _part(path: Path) -> Path:
    """The path of a file beside this one that nobody else writes."""
    ending = f"~{_HOST}~{uuid.uuid4().hex}.part"
    return path.with_name(f".{shortened(path.name, LONGEST - 1 - len(ending))}{ending}")


def atomically(path: Path, content: bytes | Callable[[Path], object], *, overwrite: bool = True) -> None:
    """Write a file under a name of its own, then rename it: readers see the whole file or none.

    Each process removes, once per folder, what killed processes of this machine left there. The content may be a function that
    gets a path and writes the file there.

    Raises:
        FileExistsError: the file exists and may not be replaced.
    """
    _remove_leftovers_once(path.parent)
    part = _part(path)
    with writing(path), held(part):
        part.write_bytes(content) if isinstance(content, bytes) else content(part)
        if overwrite:
            _replace(part, path)
        else:
            _link(part, path)


def _replace(part: Path, path: Path) -> None:
    try:
        os.replace(part, path)
    except OSError as error:
        if error.errno != errno.EXDEV:  # a folder of several layers
            raise
        shutil.copyfile(part, path)


def _link(part: Path, path: Path) -> None:
    """Give a file its name, unless another process was faster."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # the first one has the name
        _replace(part, path)


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, made if missing and removed at the end.

    The system releases the lock when its process dies. So whoever can take hold of a file knows that nobody works with it, and
    may remove it. A file system that cannot lock keeps nobody out and shows nobody dead: a lock counts as held only if the
    caller waits for it.

    Yields:
        Whether the lock is held; always True if the caller waits for it.
    """
    descriptor = _take(path, wait=wait) if fcntl else None
    try:
        yield wait or descriptor is not None
    finally:
        if wait or descriptor is not None:
            with suppress(OSError):  # a file system that does not let go of open files
                path.unlink(missing_ok=True)  # still locked: a process that waits for it will see that its name is gone
        if descriptor is not None:
            os.close(descriptor)


def _take(path: Path, *, wait: bool) -> int | None:
    """Open the locked file and return its descriptor; None if another process holds it."""
    for _ in range(_TRIES):
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(descriptor, wait=wait)
            if locked and _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not locked:
            return None
        # Its holder has removed the file while we waited: this lock guards no name.
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666) if wait else None


def _lock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return wait
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def remove_dead(paths: Iterable[Path]) -> None:
    """Remove files whose holders are dead by now; files that a living process holds stay."""
    for path in paths:
        with suppress(OSError), held(path, wait=False):  # another user's, for instance
            pass


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files that killed processes of this machine left in a folder.

    Files of another machine stay: a network file system may not tell whether their process lives.
    """
    with suppress(OSError):  # a folder that may be written to, but not listed
        remove_dead([path for path in folder.iterdir() if _PART.fullmatch(path.name)])


_remove_leftovers_once = cache(remove_leftovers)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add to content for a file of JSON a checksum of itself as ``checksum``."""
    return {**content, "checksum": _checksum(content)}


def check_seal(content: Mapping[str, Any], where: object, advice: str = "") -> None:
    """Check that content agrees with its ``checksum``; the message says where it comes from and what to do.

    Raises:
        GenclsError: the content disagrees with its checksum, or has none.
    """
    expected, got = _checksum(content), content.get("checksum")
    if got != expected:
        raise GenclsError(f"{where}: expected the checksum {expected}, got {got}; it was changed or damaged{advice}")


def _checksum(content: Mapping[str, Any]) -> str:
    """The checksum of the content that a reader of the JSON gets, whatever its spacing and order."""
    read = json.loads(json.dumps({key: value for key, value in content.items() if key != "checksum"}))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def write_sealed(path: Path, content: Mapping[str, Any], *, overwrite: bool = True) -> None:
    """Write content as JSON with its checksum, atomically; see :func:`atomically`."""
    text = json.dumps(sealed(content), indent=2) + "\n"
    atomically(path, text.encode(), overwrite=overwrite)


def read_sealed(path: Path, what: str, advice: str = "") -> dict[str, Any]:
    """Read what :func:`write_sealed` has written, with the checks of :func:`read_object` and :func:`check_seal`."""
    content = read_object(path, what, advice)
    check_seal(content, path, advice)
    return content


def read_object(path: Path, what: str, advice: str = "") -> dict[str, Any]:
    """Read an object from a file of JSON; the message says what the file should hold, and what to do if it is damaged.

    Raises:
        GenclsError: the file does not exist or holds something else.
    """
    try:
        content: Any = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GenclsError(f"{path}: expected {what} in JSON, got {error}{advice}") from None
    if not isinstance(content, dict):
        raise GenclsError(f"{path}: expected {what}, an object in JSON, got {type(content).__name__}{advice}")
    return content
