"""``gencls report``: the report of a study that is there already."""

import argparse
import sys
import warnings
from pathlib import Path

__all__ = ["run_report", "write_report"]


def run_report(options: argparse.Namespace) -> int:
    """Write the report from the records in the folder and print its path; 1 if cells are missing, else 0."""
    return 0 if write_report(options.folder) else 1


def write_report(folder: Path) -> bool:
    """Write the report of a folder and print its path; whether it is whole: if not, what is missing is said."""
    from gencls.eval.report.study.from_folder import UnfinishedWarning, report_study

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UnfinishedWarning)
        print(report_study(folder))
    for warning in said:
        print(f"gencls: warning: {warning.message}", file=sys.stderr)
    return not any(warning.category is UnfinishedWarning for warning in said)
