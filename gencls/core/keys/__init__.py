"""Content keys: what a result belongs to.

A result may be used again only if nothing that can change it has changed. So a key is made of everything that a value holds,
and of the code behind it.
"""

from torch import nn

from gencls.core.keys import functions  # noqa: F401  (registers what functions consist of)
from gencls.core.keys.walk import Key, key_of

__all__ = ["Key", "fingerprint", "key_of"]


def fingerprint(module: nn.Module) -> str:
    """The key of a module: it covers all that can change an output or a gradient, and is the same in every process.

    - **Values**: tensors of every kind, and settings of every kind that ``pickle`` knows, in public and private attributes, in
      lists, dicts and objects, in what functions close over, and in hooks. Where tensors lie, and whether they ask for
      gradients, does not count.
    - **Structure**: the order of layers, and whether one is used twice; training mode, part by part.
    - **Code**: for the user's code and gencls, the source of classes and functions counts, with all that they name: other
      functions, base classes, constants. Comments, docstrings, layout, and functions that are not named do not count. Without a
      source the bytecode counts. For libraries (the packages in ``site-packages``) the name and the version count.

    A class that defines ``__getstate__``, as for ``pickle``, leaves caches out of its key. Any object may have a key of its
    own instead: ``fingerprint_key``, a string or a method that returns one, stands for the object and all that it holds.

    What ``functools.cached_property`` keeps does not count: it is computed from the rest, and a key must not change with use.
    Nor does a value that was put in its place from outside (``network.threshold = 0.7``), which looks the same. A value that
    users may set needs a plain attribute.

    The state of the process does not count: environment variables, files that are read later, torch's global settings, and
    random generators other than those that a module holds.

    Args:
        module: any module; only ``fingerprint_key`` runs, and whatever ``pickle`` would call to save the module.

    Raises:
        GenclsError: the module holds something opaque, such as an open file; the message says where.
    """
    return key_of(module, type(module).__name__).whole
