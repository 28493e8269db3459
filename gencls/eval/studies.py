"""A study as one calls it: its folder is filled by :mod:`gencls.eval.study` and shown by :mod:`gencls.eval.report`."""

from pathlib import Path

from gencls.eval.report.study.from_folder import report_study
from gencls.eval.study.grid import Grid


class Study(Grid):
    """A grid that reports itself: the report reads the folder, and the folder knows of no report."""

    def report(self) -> Path:
        """Write ``report.html`` and its tables and figures beside ``results.csv``; returns the path of the page."""
        return report_study(self.folder)
