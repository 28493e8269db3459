"""The diagnosis of a defense: may its robustness numbers be believed?"""

from gencls.eval.doctor.diagnosis import Check, Diagnosis, Status
from gencls.eval.doctor.examine import diagnose, predict_diagnosis
from gencls.eval.doctor.patient import EFFORTS, Effort

__all__ = ["EFFORTS", "Check", "Diagnosis", "Effort", "Status", "diagnose", "predict_diagnosis"]
