"""The diagnosis of a defense: may its robustness numbers be believed?"""

from gencls.eval.doctor.diagnose import diagnose, predict_diagnosis
from gencls.eval.doctor.patient import EFFORTS, Effort
from gencls.eval.doctor.verdict import Check, Diagnosis, Status

__all__ = ["EFFORTS", "Check", "Diagnosis", "Effort", "Status", "diagnose", "predict_diagnosis"]
