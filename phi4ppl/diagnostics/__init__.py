"""Can these numbers be trusted? Estimates with errors, a verdict with advice, and a report to look at."""

from .estimates import estimate
from .leave_one_out import loo
from .verdict import Check, ConvergenceReport, diagnose

__all__ = ["Check", "ConvergenceReport", "diagnose", "estimate", "loo"]
