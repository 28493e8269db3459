"""Files that `torch.save` wrote, read without running code that is in them.

torch's own reader (``weights_only=True``) makes the tensors. The other classes that a file names are neither imported nor
called; an inert object takes their place. Checkpoints have such objects beside the weights, for instance best accuracies as
numpy scalars. The file may hold objects of `_HARMLESS`; others are refused by name.
"""

import pickletools
import re
import tarfile
import warnings
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from argparse import Namespace
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from gencls.core.errors import GenclsError

_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of a file that torch before 1.6 wrote; five pickles, then the numbers."""

_TORCH = re.compile(
    r"torch\.\w+|torch\.(cuda|storage|sparse)\.\w+|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|"
    r"torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout|collections\.(OrderedDict|Counter)|"
    r"_codecs\.encode|builtins\.(set|complex)"
)
"""Names that torch's reader sees. It knows those that make tensors and plain values, and refuses the others."""

_HARMLESS = re.compile(
    r"numpy(\.\w+)*\.(scalar|_reconstruct|ndarray|dtype|\w+DType|bool_?|u?int\d+|float\d+)|"
    r"pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path|datetime\.\w+|decimal\.Decimal|types\.SimpleNamespace|"
    r"builtins\.(list|dict|tuple|frozenset|int|float|bool|str|bytes|slice|range)|collections\.deque|"
    r"(omegaconf|typing)(\.\w+)+"
)
"""Numbers, arrays, paths, dates and settings, which checkpoints have beside the weights. Such objects are left out."""

_DICTIONARIES = re.compile(r"argparse\.Namespace|collections\.defaultdict|(\w+\.)+AttributeDict")
"""Dictionaries, and attributes by name. Their entries are read. Lightning's hyperparameters are an AttributeDict."""

_READ_AS: Mapping[str, Callable[..., Any]] = {"argparse.Namespace": Namespace, "collections.defaultdict": lambda *_: {}}
"""What torch's reader takes for them; a plain dictionary for the others. No factory of defaults is kept."""

_ADVICE = "Where it was made, save the weights alone: torch.save(network.state_dict(), FILE)"


class _Inert:
    """Stands in for an object of another class; it keeps nothing and does nothing."""

    def __init__(self, *_: object) -> None:
        """Take the arguments of the class."""

    def __setstate__(self, _: object) -> None:
        """Take the state of the object."""


def load_torch_file(path: Path, size: int, *, zipped: bool) -> Any:
    """Read all that such a file of `size` bytes holds (since torch 1.6 a zip file); tensors stay tied to the file.

    Raises:
        GenclsError: The file is damaged, of another kind, or holds code or objects that are not known to be harmless.
    """
    names = (_names_in_zip if zipped else _names_in_pickles)(path, size)
    odd = [name for name in names if not any(known.fullmatch(name) for known in (_TORCH, _HARMLESS, _DICTIONARIES))]
    if "builtins.bytearray" in odd:  # torch's reader would make one of any length
        raise _code(path, odd[0])
    stand_ins: list[Any] = [_stand_in(name) for name in names if not _TORCH.fullmatch(name)]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # about pickle protocols, before an error that says the same
            # A file may hold several networks of gigabytes. What is not used is not read.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged file can fail anywhere in the readers of zip and pickle
        called = odd or re.findall(r"GLOBAL ([\w.]+)", str(error))
        raise (_code(path, called[0]) if called else _unreadable(path, size, error)) from None
    if odd:
        found = ((type(value).__name__, place) for place, value in _objects(content) if isinstance(value, _Inert))
        raise _code(path, *next((entry for entry in found if entry[0] in odd), (odd[0],)))
    if zipped:
        _check_records(path, content)
    return content


def _stand_in(name: str) -> tuple[Callable[..., Any], str]:
    """Choose what torch's reader takes for a class, and give the class's name."""
    return _READ_AS.get(name, OrderedDict) if _DICTIONARIES.fullmatch(name) else type(name, (_Inert,), {}), name


def _names_in_zip(path: Path, size: int) -> list[str]:
    """The classes and functions that a file names; this also checks its records."""
    try:
        with ZipFile(path) as archive:
            records = archive.infolist()
            files = [record.filename for record in records]
            if any(re.fullmatch(r"[^/]+/(code/.*|constants\.pkl)", file) for file in files):
                raise GenclsError(f"{path}: expected weights; got a TorchScript archive. {_ADVICE}")
            if any(record.compress_type != ZIP_STORED for record in records):
                raise GenclsError(
                    f"{path}: expected a file of torch.save, whose records are not compressed; got compressed ones"
                )
            if len(set(files)) < len(files) or sum(record.file_size for record in records) > size:
                raise GenclsError(f"{path}: expected records that lie side by side; got ones that overlap")
            pickles = [file for file in files if re.fullmatch(r"[^/]+/data\.pkl", file)]
            if len(pickles) != 1:
                raise GenclsError(
                    f"{path}: expected a file of torch.save, with one data.pkl; got a zip file of {len(files)} others"
                )
            with archive.open(pickles[0]) as file:
                return _names(path, file)
    except GenclsError:
        raise
    except (BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise _unreadable(path, size, error) from None


def _names_in_pickles(path: Path, size: int) -> list[str]:
    """The classes and functions that a file of torch before 1.6 names."""
    if tarfile.is_tarfile(path):
        raise GenclsError(
            f"{path}: expected a file of torch.save; got a tar archive, of torch before 0.2 for instance. {_ADVICE}"
        )
    names: list[str] = []
    try:
        with path.open("rb") as file:
            for code, argument, position in pickletools.genops(file):
                if position == 0 and code.name != "PROTO":
                    raise ValueError("it begins as nothing that torch writes")
                if code.name not in ("PROTO", "FRAME", "STOP") and argument != _MAGIC:
                    raise GenclsError(
                        f"{path}: expected a file of torch.save; got another pickle. Nothing in it was run. {_ADVICE}"
                    )
            for _ in range(4):
                names += _names(path, file)
    except GenclsError:
        raise
    except Exception as error:  # pickletools says little about what damaged opcodes make it raise
        raise _unreadable(path, size, error) from None
    return list(dict.fromkeys(names))


def _names(path: Path, file: IO[bytes]) -> list[str]:
    """The classes and functions that a pickle names, as Python 3 calls them, each once."""
    names, word = [], ""
    for code, argument, _ in pickletools.genops(file):
        if code.name == "BINUNICODE":
            word = str(argument)
        if code.name == "PROTO" and int(argument or 0) > 3:
            raise GenclsError(
                f"{path}: expected pickle protocol 2, that of torch.save; got {argument}, which torch's safe reader cannot "
                "read. Save the file again without pickle_protocol"
            )
        if code.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            if name == "_rebuild_sparse_tensor":  # torch's reader would look at all its numbers, and a file can claim any count
                raise GenclsError(f"{path}: expected {word:.100} as a dense tensor of ordinary numbers; got a sparse one")
            if not f"{module}{name}".isprintable():
                raise ValueError(f"a class called {name!r:.100}")
            names.append(f"{module}.{name}")
    return list(dict.fromkeys(names))


def _objects(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that lies in a file, with the keys that lead to it; what lies less deep comes first."""
    seen: set[int] = set()
    left = deque([("", content)])
    while left:
        place, value = left.popleft()
        yield place, value
        value = vars(value) if isinstance(value, Namespace) else value
        if id(value) not in seen and isinstance(value, (Mapping, list, tuple)):
            seen.add(id(value))
            entries = value.items() if isinstance(value, Mapping) else enumerate(value)
            left.extend((f"{place}[{key!r:.100}]", inner) for key, inner in entries)


def _check_records(path: Path, content: Any) -> None:
    """Check that each tensor is in a record of its own length; torch's reader would read on into the next record."""
    with ZipFile(path) as archive:
        sizes = {record.file_size for record in archive.infolist()}
    for place, value in _objects(content):
        if isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_nested):
            size = value.untyped_storage().nbytes()
            if size not in sizes:
                raise GenclsError(
                    f"{path}: expected a complete file of torch.save; got no record of {size} bytes, which {place} should have"
                )


def _code(path: Path, name: str, place: str = "") -> GenclsError:
    where = f" It lies at {place}." if place else ""
    return GenclsError(
        f"{path}: expected tensors only; got a pickle with code or other objects ({name:.200}). Nothing in it was run.{where} "
        f"{_ADVICE}"
    )


def _unreadable(path: Path, size: int, error: Exception) -> GenclsError:
    """Say why a file was not read, without torch's advice to switch the safety off."""
    reason = str(error).splitlines()[0] if str(error) and "weights_only" not in str(error) else ""
    return GenclsError(
        f"{path}: expected a complete file of torch.save; got {size} bytes that cannot be read as one "
        f"({type(error).__name__}{': ' if reason else ''}{reason})"
    )
