"""Content keys: what a result belongs to.

A result may be used again only if nothing that can change it has changed. So a key is made of everything that a value holds,
and of the code behind it.
"""

from torch import nn

from gencls.core.keys import functions  # noqa: F401  (registers what functions consist of)
from gencls.core.keys.walk import Key, key_of

__all__ = ["Key", "fingerprint", "key_of"]


def fingerprint(module: nn.Module) -> str:
    """A key of a module: it covers all that can change an output or a gradient, and is the same in every process.

    - **Values**: tensors of every kind, and settings of every kind that ``pickle`` knows, in public and private attributes, in
      lists, dicts and objects, in what functions close over, and in hooks. Where tensors lie, and whether they ask for
      gradients, does not count.
    - **Structure**: the order of layers, and whether one is used twice; training mode, part by part.
    - **Code**: of the user and of gencls the source of classes and functions, with all that they name: other functions,
      base classes, constants. Comments, docstrings, layout, and functions that are not named do not count. Where there is no
      source the bytecode counts. Of libraries (what is installed in ``site-packages``) the name and the version count.

    A class that defines ``__getstate__``, as for ``pickle``, leaves caches out of its key. Any object may have a key of its
    own instead: ``fingerprint_key``, a string or a method that returns one, stands for the object and all that it holds.

    What ``functools.cached_property`` keeps does not count: it is computed from the rest, and a key must not change with use.
    Nor does a value that was put in its place from outside (``network.threshold = 0.7``), which looks the same. What is to be
    set needs a plain attribute.

    The state of the process does not count: environment variables, files that are read later, torch's global settings, and
    random generators, but for those that a module holds.

    Args:
        module: of any kind; nothing is run but ``fingerprint_key`` and what ``pickle`` would call to save it.

    Raises:
        GenclsError: for something that cannot be seen into, such as an open file, with the way to it.
    """
    return key_of(module, type(module).__name__).whole
