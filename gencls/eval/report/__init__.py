"""The report of a study: one self-contained HTML page, LaTeX tables, and figures as PNG and PDF."""

from gencls.eval.doctor.diagnosis import Check, Diagnosis, read_diagnoses
from gencls.eval.report.study.page import write_report
from gencls.eval.report.study.panels import ImagePanel

__all__ = ["Check", "Diagnosis", "ImagePanel", "read_diagnoses", "write_report"]
