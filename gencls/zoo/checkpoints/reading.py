"""Read weights files, also other people's, without running their code. The content of a file decides, not its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import torch as safetensors
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.settings import checked
from gencls.zoo.checkpoints.tensors import tensors_by_name
from gencls.zoo.checkpoints.torch_files import load_torch_file


@checked
def load_state_dict(path: str | Path, *, key: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of any weights file, never running code that is in it.

    Args:
        path: A safetensors file, or one that `torch.save` wrote, whatever its name. The weights may lie within a dictionary, as
            the only entry that is tensors by name; if there are several, under ``state_dict``.
        key: The entry with the weights, needed only if there are several and none is ``state_dict``.

    Returns:
        The state dict on the CPU, half precision turned into float32; keys without ``module.`` and ``_orig_mod.`` if all
        begin with it.

    Raises:
        GenclsError: The file is missing, empty, truncated, an HTML page, of an unknown kind, or holds code or anything
            else than tensors by name; a tensor is sparse, quantized, without values, expanded, complex, in 8 bit floating point
            or not finite. Nothing is copied before that is known.
    """
    content = load_content(path)
    return tensors_by_name(path, _chosen(path, content, key), size=Path(path).stat().st_size)


def _chosen(path: str | Path, content: Any, key: str | None) -> Any:
    """The entry with the weights, or the whole content if the weights stand alone."""
    if not isinstance(content, Mapping):
        return content
    if key is not None:
        if key not in content:
            raise GenclsError(f"{path}: expected weights under {key!r}; got {', '.join(map(repr, content)) or 'none'}")
        return content[key]
    if isinstance(content.get("state_dict"), Mapping):
        return content["state_dict"]
    named = {name: value for name, value in content.items() if isinstance(value, Mapping) and value}
    found = [name for name, value in named.items() if all(isinstance(inner, Tensor) for inner in value.values())]
    if len(found) > 1:
        raise GenclsError(f"{path}: expected one state dict, or key=NAME that says which; got {', '.join(map(repr, found))}")
    return content[found[0]] if found else content


def load_content(path: str | Path) -> Any:
    """Read all that a weights file holds, never running code that is in it; tensors may stay tied to the file.

    Returns:
        Tensors and plain values; instances of `argparse.Namespace` as such; inert objects for other harmless ones.

    Raises:
        GenclsError: The file is missing, empty, truncated, an HTML page, of an unknown kind, or holds code or other objects.
    """
    path = Path(path)
    start = check_file(path)
    size = path.stat().st_size
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size):
        return parse_safetensors(path, path.read_bytes())
    return load_torch_file(path, size, zipped=start.startswith(b"PK\x03\x04"))


def check_file(path: Path) -> bytes:
    """Read the first 512 bytes of a file, which must exist and be no well-known impostor.

    Raises:
        GenclsError: It is missing, empty, an HTML page or a Git LFS pointer.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise GenclsError(f"{path}: expected a weights file; got {got}")
    size = path.stat().st_size
    if not size:
        raise GenclsError(f"{path}: expected a weights file; got an empty file")
    with path.open("rb") as file:
        start = file.read(512)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<!--", b"<html", b"<head", b"<?xml")):
        raise GenclsError(
            f"{path}: expected a weights file; got an HTML page of {size} bytes. The server answered the "
            f"download with a page (a login, a confirmation or an error): open the address in a browser and fetch the file"
        )
    if text.startswith(b"version https://git-lfs"):
        raise GenclsError(f"{path}: expected a weights file; got a Git LFS pointer. Fetch the file with git lfs pull")
    return start


def parse_safetensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file as they are stored.

    Raises:
        GenclsError: It is damaged, or has numbers that torch does not know.
    """
    try:
        return safetensors.load(content)
    except Exception as error:  # SafetensorError, or KeyError for a dtype that torch lacks
        raise GenclsError(
            f"{path}: expected a complete safetensors file; got {len(content)} bytes: {type(error).__name__}: {error}"
        ) from None
