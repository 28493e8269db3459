"""Idx files under their several names, packed or not. Their content counts."""

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gencls.core.errors import GenclsError

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class IdxFile:
    """One idx file of MNIST's format.

    Attributes:
        name: Without .gz; has idx3 for images (N, H, W) and idx1 for labels (N,).
        size: Bytes of its uncompressed content; None if not known: then its header says it.
        sha256: SHA-256 of its uncompressed content; None if its makers publish none: then its header is checked.
    """

    name: str
    size: int | None = None
    sha256: str | None = None

    @property
    def axes(self) -> int:
        """Number of axes: 3 for images, 1 for labels."""
        return 3 if "idx3" in self.name else 1

    @property
    def header_size(self) -> int:
        """Bytes of the header: two zeros, 8 for bytes, the number of axes, the length of each axis (4 bytes, big-endian)."""
        return 4 + 4 * self.axes


def idx_paths(file: IdxFile, folders: Sequence[Path]) -> list[Path]:
    """The files in these folders that have one of the usual names of `file`, the usual ones first."""
    dotted = file.name.replace("-idx", ".idx")
    names = [name + suffix for name in (file.name, dotted) for suffix in ("", ".gz")]
    # Kaggle's archive of MNIST has a folder of the same name around each file.
    places = [path for folder in folders for name in names for path in (folder / name, folder / name / name)]
    return [path for path in places if path.is_file()]


def idx_array(content: bytes, file: IdxFile) -> npt.NDArray[np.uint8]:
    """Images (N, H, W) or labels (N,), uint8, of content that has been checked."""
    shape = struct.unpack_from(f">{file.axes}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=file.header_size).reshape(shape)


def read_first(paths: Sequence[Path], file: IdxFile) -> bytes:
    """Read the first of these files, at least one, that has the right content.

    Raises:
        GenclsError: None has it. The message names empty files only if there are no others.
    """
    problems: list[str] = []
    for path in paths:
        try:
            return read_idx(path, file)
        except GenclsError as error:
            problems.append(str(error))
    worse = [problem for path, problem in zip(paths, problems, strict=True) if path.stat().st_size]
    raise GenclsError("; ".join(worse or problems))


def read_idx(path: Path, file: IdxFile) -> bytes:
    """Read the uncompressed content of an idx file, packed or not, whatever its name says.

    It checks size and SHA-256, or the header if these are not known.

    Raises:
        GenclsError: It cannot be read, is truncated, is too long, or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GenclsError(f"{path}: expected a file that can be read; got: {error.strerror}") from error
    packed = content.startswith(_GZIP)
    size, said = file.size, ""
    if size is None:
        start = _unpacked(content, path, file, file.header_size)[0] if packed else content
        size, said = _expected(start, path, file)
    ended = True
    if packed:
        content, ended = _unpacked(content, path, file, size + 1)
    elif path.suffix == ".gz" and len(content) != size:
        raise GenclsError(f"{path}: expected a gzip file that holds {file.name}; got something else, {len(content)} bytes")
    if len(content) != size:
        problem, more = ("is truncated", "") if len(content) < size else ("is too long", " or more" if packed else "")
        unit = "uncompressed bytes" if packed else "bytes"
        raise GenclsError(f"{path} {problem}: expected {size} {unit}{said}; got {len(content)}{more}")
    if not ended:
        raise GenclsError(f"{path} is truncated: expected a complete gzip file; its end is missing")
    if file.sha256 is not None and (digest := sha256(content).hexdigest()) != file.sha256:
        raise GenclsError(f"{path}: expected the original {file.name}, SHA-256 {file.sha256}; got SHA-256 {digest}")
    return content


def _expected(content: bytes, path: Path, file: IdxFile) -> tuple[int, str]:
    """Say how many bytes a file with this beginning has, and give the words for it."""
    what, kind = ("images", "(N, H, W)") if file.axes == 3 else ("labels", "(N,)")
    begins = bytes((0, 0, 8, file.axes))
    if not begins.startswith(content[:4]):
        raise GenclsError(
            f"{path}: expected an idx file of {what} {kind}, which begins with the bytes {' '.join(map(str, begins))}; got "
            f"{' '.join(map(str, content[:4]))}"
        )
    if len(content) < file.header_size:
        raise GenclsError(f"{path} is truncated: expected an idx header of {file.header_size} bytes; got {len(content)}")
    shape = struct.unpack_from(f">{file.axes}I", content, 4)
    if 0 in shape:
        raise GenclsError(f"{path}: expected at least one of its {what} {kind}; its header says {shape}")
    size = file.header_size + math.prod(shape)
    sides = f" of {shape[1]}x{shape[2]} pixels" if file.axes == 3 else ""
    return size, f", because its header says {shape[0]} {what}{sides}"


def _unpacked(packed: bytes, path: Path, file: IdxFile, most: int) -> tuple[bytes, bool]:
    """Unpack the first bytes of all members of a gzip file, at most ``most``. Also say whether the last one read is complete.

    Bytes after the last member are no content.
    """
    content, ended = b"", True
    while packed.startswith(_GZIP) and len(content) < most:
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            content += stream.decompress(packed, most - len(content))
        except zlib.error as error:
            raise GenclsError(f"{path}: expected a gzip file that holds {file.name}; got something else: {error}") from None
        packed, ended = stream.unused_data, stream.eof
    return content, ended
