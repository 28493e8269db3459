"""The doctor's findings on a recipe's defenses: each examined once, and shown in a table."""

from collections.abc import Iterator, Mapping
from typing import Any

from gencls.core import Defense, key_of
from gencls.eval import diagnose
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.harness.folders import Kept
from recipes.harness.jobs import Measurement
from recipes.harness.records import slug
from recipes.harness.run import Run

__all__ = ["diagnosis", "diagnosis_table", "examinations"]


def diagnosis(run: Run[Any, Any], name: str, defense: Defense, key: str, *, count: int, **settings: Any) -> Kept:
    """Examine a defense, or read the diagnosis that is kept; it holds ``verdict``, ``passed``, ``checks`` and more.

    Args:
        run: the run whose first images the doctor takes.
        name: name of the defense.
        defense: the defense, in eval mode.
        key: part of the file's name; it stands for the defense's weights and settings and for the code that examines.
        count: number of images.
        settings: keyword arguments of :func:`gencls.eval.diagnose`.
    """
    images, labels = run.images(count), run.data.labels[:count].to(run.device)
    settings = {**settings, "eot_samples": run.budget.eot, "seed": run.seed}

    def made() -> dict[str, Any]:
        found = diagnose(defense, images, labels, **settings)
        return {"verdict": found.conclusion, "text": found.text(name), **found.to_json()}

    path = run.out / "doctor" / f"{slug(name)}-{key}.json"
    return Kept(path, lambda: key_of((images, labels, *sorted(settings.items())), name).whole, made)


def examinations(patients: Mapping[str, Kept], seconds: float) -> Iterator[Measurement]:
    """Yield one examination per defense, by name, of roughly this many seconds each; 0 seconds yield none."""
    for name, kept in patients.items() if seconds else ():
        yield Measurement.of(name, kept, lambda: seconds, lambda found: found["verdict"])


def diagnosis_table(title: str, patients: Mapping[str, Kept]) -> PaperTable | None:
    """Make a table with one row for each examined defense; None if there is none."""

    def rows() -> Iterator[Row]:
        for name, kept in patients.items():
            if found := kept.current:
                checks: list[Mapping[str, str]] = found["checks"]
                said = [f"{check['name']}: {check['finding']}" for check in checks if check["status"] != "ok"]
                passed = "yes" if found["passed"] else "no"
                yield Row(name, (Cell(passed), Cell(str(len(checks))), Cell("; ".join(said) or "none")))

    made = tuple(rows())
    columns = ("", "passed", "checks", "notes and failures")
    return PaperTable("doctor", title, columns, made) if made else None
