"""What the system refuses when a file is written, as an error of ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gencls.core.errors import GenclsError

__all__ = ["DISK_FULL", "WriteError", "writing"]

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a file system answers that has no room: for anybody, for this user, or for so large a file."""


class WriteError(GenclsError, OSError):
    """The system refuses to write a file; an OSError, too, with its number."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell what the system refuses inside the block, which writes a file.

    Raises:
        WriteError: if the disk is full, or the folder is gone or not to be written to.
        FileExistsError: as it comes: it tells that another process was faster.
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
