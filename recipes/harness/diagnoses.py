"""What the doctor says of a recipe's defenses: asked once each, and shown in a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gencls.core import Defense, key_of
from gencls.eval import diagnose
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.harness.folders import measured

__all__ = ["diagnosis_table", "examine"]


def examine(path: Path, name: str, defense: Defense, images: Tensor, labels: Tensor, **settings: Any) -> dict[str, Any]:
    """The diagnosis of a defense, from its file or made now; ``verdict``, ``passed``, ``checks`` and more.

    Args:
        path: of the file, which knows the defense and the code that examines by its name.
        name: of the defense.
        defense: in eval mode.
        images: (N, C, H, W) in [0, 1], where the defense is.
        labels: (N,).
        settings: of :func:`gencls.eval.diagnose`.
    """

    def made() -> dict[str, Any]:
        diagnosis = diagnose(defense, images, labels, **settings)
        return {"verdict": diagnosis.verdict, "text": diagnosis.text(name), **diagnosis.to_json()}

    return measured(path, key_of((images, labels, *sorted(settings.items())), name).whole, made)


def diagnosis_table(title: str, found: Mapping[str, Mapping[str, Any] | None]) -> PaperTable | None:
    """One row for each defense that was examined; None without any.

    Args:
        title: of the table.
        found: name -> what :func:`examine` returned, None while it was not asked.
    """

    def rows() -> Iterator[Row]:
        for name, diagnosis in found.items():
            if diagnosis:
                checks = diagnosis["checks"]
                said = [f"{check['name']}: {check['finding']}" for check in checks if check["status"] != "ok"]
                passed = "yes" if diagnosis["passed"] else "no"
                yield Row(name, (Cell(passed), Cell(str(len(checks))), Cell("; ".join(said) or "none")))

    made = tuple(rows())
    columns = ("", "passed", "checks", "notes and failures")
    return PaperTable("doctor", title, columns, made) if made else None
