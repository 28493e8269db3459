"""``gencls report``: the report of a study that is there already."""

import argparse

__all__ = ["run_report"]


def run_report(options: argparse.Namespace) -> None:
    """Write the report from the records in the folder and print its path."""
    from gencls.eval.study_folder import report_study

    print(report_study(options.folder))
