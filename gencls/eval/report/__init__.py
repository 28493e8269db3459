"""Reports: of a study, from its folder, and of a paper's tables beside ours."""

from gencls.eval.doctor.diagnosis import Check, Diagnosis, read_diagnoses
from gencls.eval.report.study.page import write_report
from gencls.eval.report.study.panels import ImagePanel

__all__ = ["Check", "Diagnosis", "ImagePanel", "read_diagnoses", "write_report"]
