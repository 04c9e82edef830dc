"""Comparing models by evidence and prediction, and averaging over them."""

from .average import average
from .compare import Comparison, compare

__all__ = ["Comparison", "average", "compare"]
