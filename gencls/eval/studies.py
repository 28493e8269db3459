"""The study of the public interface: :mod:`gencls.eval.study` fills its folder, :mod:`gencls.eval.report` shows it."""

from pathlib import Path

from gencls.eval.report.study.from_folder import report_study
from gencls.eval.study.grid import Grid


class Study(Grid):
    """A grid that writes its own report: the report reads the folder, and the folder knows of no report."""

    def report(self) -> Path:
        """Write ``report.html`` and its tables and figures beside ``results.csv``; return the path of the page."""
        return report_study(self.folder)
