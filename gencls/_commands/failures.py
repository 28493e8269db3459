"""How commands and recipes end: an exit code, and one line on the standard error where something was wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

from gencls._commands.arguments import check_out

__all__ = ["exit_code_of"]


def exit_code_of(program: str, work: Callable[[], int | None], *, out: Path | None = None, file: bool = False) -> int:
    """Do the work, report an early end in one line, and return the exit code.

    Args:
        program: the name that begins the line.
        work: the function to call; it returns an exit code, or None for 0.
        out: the output path, which is checked before the work; None if there is none.
        file: whether the output is a file; otherwise it is a folder.

    Returns:
        The code of ``work``; 2 for bad input, a full disk, files that cannot be read or written, or user code that ends the
        program; 130 after an interrupt; 143 after a SIGTERM that ends a training; 1 if memory is used up or nobody reads the
        output. Other errors pass.
    """
    try:
        from gencls.core.errors import GenclsError  # brings torch, which takes seconds
    except KeyboardInterrupt:
        return _interrupted(program)
    try:
        if out is not None:
            check_out(out, file=file)
        return work() or 0
    except GenclsError as error:
        return _failed(program, str(error))
    except KeyboardInterrupt:
        return _interrupted(program)
    except BrokenPipeError:  # the reader of our output, for instance head, has enough
        sys.stderr.close()
        return 1
    except OSError as error:
        return _failed(program, _said(error))
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # so Lightning ends a training
            return _interrupted(program)
        if type(end).__name__ == "SIGTERMException":  # of Lightning, which waits for the end of a step
            return _interrupted(program, "terminated", 143)
        return _failed(program, f"expected code that returns, got one that ended the program with sys.exit({end.code!r})")
    except (MemoryError, RuntimeError) as error:
        from gencls.core.memory import is_out_of_memory

        if not isinstance(error, MemoryError) and not is_out_of_memory(error):
            raise
        return _failed(program, "expected to do with the memory there is, got none left; ask for fewer draws", code=1)


def _interrupted(program: str, how: str = "interrupted", code: int = 130) -> int:
    print(f"{program}: {how}; finished work is kept", file=sys.stderr)
    return code


def _failed(program: str, message: str, code: int = 2) -> int:
    print(f"{program}: error: {message}", file=sys.stderr)
    return code


def _said(error: OSError) -> str:
    """Say in the form of our own errors what the system refused."""
    from gencls.core.files import DISK_FULL

    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in DISK_FULL:
        return f"{where}expected room for a file, got: {error.strerror}; finished work is kept, make room and run again"
    return f"{where}expected to read or write it, got: {error.strerror or error}"
