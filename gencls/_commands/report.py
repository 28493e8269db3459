"""``gencls report``: the report of a study that is there already."""

import argparse
import sys
import warnings

__all__ = ["run_report"]


def run_report(options: argparse.Namespace) -> int:
    """Write the report from the records in the folder and print its path; 1 if cells are missing, else 0."""
    from gencls.eval.study_folder import UnfinishedWarning, report_study

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UnfinishedWarning)
        print(report_study(options.folder))
    for warning in said:
        print(f"gencls: warning: {warning.message}", file=sys.stderr)
    return int(any(warning.category is UnfinishedWarning for warning in said))
