"""The package robustbench, importable as it comes from PyPI.

robustbench 1.1.1 imports a module ``autoattack``, and no package of that name has it: its dependency ``pyautoattack`` has the
same code under another name, with other arguments. It also needs ``pkg_resources``, which setuptools 81 no longer has.
Everything that wants robustbench imports it from here.
"""

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from gencls.core import GenclsError

_ALIAS = "autoattack"


def import_robustbench() -> ModuleType:
    """Import robustbench. If nobody can import ``autoattack``, first make a module of this name from ``pyautoattack``.

    Its ``AutoAttack`` takes the arguments of the original that ``robustbench.benchmark`` uses.

    Returns:
        The package, with ``robustbench.benchmark``, ``robustbench.load_model`` and ``robustbench.utils.clean_accuracy``.

    Raises:
        GenclsError: if ``pkg_resources`` is missing, or if the old copy of robustbench in the wheel of torchattacks 3.5.1 has
            overwritten the package.
    """
    if _ALIAS not in sys.modules and find_spec(_ALIAS) is None:
        _install_alias()
    try:
        with warnings.catch_warnings():  # it imports what setuptools, timm and torch call deprecated
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            package = importlib.import_module("robustbench")
    except ModuleNotFoundError as error:
        if error.name != "pkg_resources":
            raise
        raise GenclsError("robustbench: expected setuptools < 81, which has pkg_resources, got a newer one") from error
    if not hasattr(package, "benchmark"):
        raise GenclsError(
            "robustbench: expected the package of its own wheel, got another copy, as torchattacks installs one in its place; "
            "repair it by pip install --no-deps --force-reinstall robustbench"
        )
    return package


def _install_alias() -> None:
    import pyautoattack
    from pyautoattack import state

    class AutoAttack(pyautoattack.AutoAttack):  # type: ignore[misc]
        """pyautoattack's class with the original's arguments, as robustbench calls it."""

        def __init__(self, model: Any, norm: str = "Linf", eps: float = 0.3, *, log_path: None = None, **settings: Any) -> None:
            if log_path is not None:
                raise GenclsError(f"AutoAttack: expected log_path=None (pyautoattack logs through logging), got {log_path!r}")
            super().__init__(model, norm=norm, eps=eps, **settings)

        def run_standard_evaluation(self, images: Any, labels: Any, bs: int = 250, state_path: Any = None) -> Any:
            """Adversarial images (N, C, H, W)."""
            return super().run_standard_evaluation(images, labels, batch_size=bs, state_path=state_path)[0]

    alias = ModuleType(_ALIAS, "pyautoattack under the name and with the arguments that robustbench knows.")
    alias.__spec__ = ModuleSpec(_ALIAS, loader=None)
    vars(alias).update(AutoAttack=AutoAttack, state=state)
    sys.modules.update({_ALIAS: alias, f"{_ALIAS}.state": state})
