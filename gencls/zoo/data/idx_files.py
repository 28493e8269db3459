"""Idx files where people have them: under several names, packed or not. What counts is their content."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gencls.core.errors import GenclsError

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class IdxFile:
    """One idx file of MNIST's format.

    Attributes:
        name: Without .gz; has idx3 for images (28, 28) and idx1 for labels.
        size: Of its uncompressed content, in bytes.
        sha256: Of its uncompressed content; None where its makers publish none: then its header is checked.
    """

    name: str
    size: int
    sha256: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the entries: (N, 28, 28) or (N,)."""
        return ((self.size - 16) // 784, 28, 28) if "idx3" in self.name else (self.size - 8,)

    @property
    def header(self) -> bytes:
        """What it begins with: two zeros, 8 for bytes, the number of axes, and the length of each axis, big-endian."""
        return struct.pack(f">4B{len(self.shape)}I", 0, 0, 8, len(self.shape), *self.shape)


def idx_paths(file: IdxFile, folders: Sequence[Path]) -> list[Path]:
    """The files in these folders that have one of the usual names of `file`, the usual ones first."""
    dotted = file.name.replace("-idx", ".idx")
    names = [name + suffix for name in (file.name, dotted) for suffix in ("", ".gz")]
    # Kaggle's archive of MNIST has a folder of the same name around each file.
    places = [path for folder in folders for name in names for path in (folder / name, folder / name / name)]
    return [path for path in places if path.is_file()]


def read_first(paths: Sequence[Path], file: IdxFile) -> bytes:
    """Content of the first of these files, at least one, that is what it has to be.

    Raises:
        GenclsError: None is; empty files are named only where there are no others.
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

    Checked by size and SHA-256, or by size and header where no SHA-256 is known.

    Raises:
        GenclsError: It cannot be read, is truncated, is too long, or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GenclsError(f"{path}: expected a file that can be read; got: {error.strerror}") from error
    packed = content.startswith(_GZIP)
    if packed:
        content = _unpacked(content, path, file)
    elif path.suffix == ".gz" and len(content) != file.size:
        raise GenclsError(f"{path}: expected a gzip file that holds {file.name}; got something else, {len(content)} bytes")
    if len(content) != file.size:
        problem, more = ("is truncated", "") if len(content) < file.size else ("is too long", " or more" if packed else "")
        unit = "uncompressed bytes" if packed else "bytes"
        raise GenclsError(f"{path} {problem}: expected {file.size} {unit}; got {len(content)}{more}")
    if file.sha256 is None:
        if not content.startswith(file.header):
            raise GenclsError(f"{path}: expected an idx file of {file.shape} bytes; got a file with another header")
        return content
    digest = sha256(content).hexdigest()
    if digest != file.sha256:
        raise GenclsError(f"{path}: expected the original {file.name}, SHA-256 {file.sha256}; got SHA-256 {digest}")
    return content


def _unpacked(packed: bytes, path: Path, file: IdxFile) -> bytes:
    """Content of all members of a gzip file, at most one byte more than `file` has; what follows the last is no content."""
    content, ended = b"", True
    while packed.startswith(_GZIP) and len(content) <= file.size:
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            content += stream.decompress(packed, file.size + 1 - len(content))
        except zlib.error as error:
            raise GenclsError(f"{path}: expected a gzip file that holds {file.name}; got something else: {error}") from None
        packed, ended = stream.unused_data, stream.eof
    if len(content) == file.size and not ended:
        raise GenclsError(f"{path} is truncated: expected a complete gzip file; its end is missing")
    return content
