"""Posteriors of couplings given fields."""

from .couplings import infer_couplings

__all__ = ["infer_couplings"]
