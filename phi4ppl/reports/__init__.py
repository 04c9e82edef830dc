"""Reports of posteriors, comparisons and fits as self-contained HTML files."""

from .fits import write_fit
from .pages import write_comparison, write_inference

__all__ = ["write_comparison", "write_fit", "write_inference"]
