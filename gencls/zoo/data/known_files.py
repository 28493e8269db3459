"""Files of a data set that are known byte by byte, and archives of them."""

import csv
import io
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gencls.core.errors import GenclsError


@dataclass(frozen=True)
class KnownFile:
    """One file of a set: its path under the data root, size in bytes and SHA-256."""

    path: str
    size: int
    sha256: str


def needed_root(name: str, root: Path | None) -> Path:
    """The data root of a set that needs one.

    Raises:
        GenclsError: There is no data root.
    """
    if root is None:
        raise GenclsError(f"{name} is read from a data root: pass root= or set GENCLS_DATA; got neither")
    return root


def read_known(name: str, root: Path | None, file: KnownFile) -> bytes:
    """Content of a file of the data set `name`.

    Raises:
        GenclsError: There is no data root; the file is missing or not the original.
    """
    path = needed_root(name, root) / file.path
    if not path.is_file():
        raise GenclsError(f"{name}: expected {file.path} under the data root {root}; got no such file. See docs/data.md")
    content = path.read_bytes()
    if len(content) != file.size:
        raise GenclsError(f"{path}: expected {file.size} bytes; got {len(content)}")
    digest = sha256(content).hexdigest()
    if digest != file.sha256:
        raise GenclsError(f"{path}: expected SHA-256 {file.sha256}; got {digest}")
    return content


def read_archive(name: str, root: Path | None, file: KnownFile) -> dict[str, bytes]:
    """Content of each file of a tar archive by its name there, in the order of the archive; nothing is written.

    Raises:
        GenclsError: As `read_known`.
    """
    with tarfile.open(fileobj=io.BytesIO(read_known(name, root, file))) as tar:
        return {member.name: found.read() for member in tar if (found := tar.extractfile(member)) is not None}


def table_rows(content: bytes) -> list[dict[str, str]]:
    """Rows of a CSV table with a header."""
    return list(csv.DictReader(io.StringIO(content.decode())))
