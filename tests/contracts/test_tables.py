import sys
from importlib import import_module

from tests.contracts.tables import public_classes


def test_a_named_constructor_is_found_however_its_annotation_is_written(tmp_path, monkeypatch):
    folder = tmp_path / "constructors"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "made.py").write_text(
        "class Kind:\n    pass\n\ndef Plain() -> Kind:\n    return Kind()\n\ndef Quoted() -> 'Kind':\n    return Kind()\n\n"
        "def Other() -> int:\n    return 1\n\ndef Silent():\n    return Kind()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    kind = import_module("constructors.made").Kind
    assert set(public_classes(import_module("constructors"), kind)) == {"Kind", "Plain", "Quoted"}
    for name in ("constructors", "constructors.made"):
        del sys.modules[name]
