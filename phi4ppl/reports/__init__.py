"""Reports of posteriors and comparisons as self-contained HTML files."""

from .pages import write_comparison, write_inference

__all__ = ["write_comparison", "write_inference"]
