"""Posteriors of couplings given fields, and fields predicted from them."""

from .couplings import infer_couplings
from .predictive import PredictiveCheck, predictive_check

__all__ = ["PredictiveCheck", "infer_couplings", "predictive_check"]
