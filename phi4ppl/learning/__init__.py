"""Learning: choose the couplings of a field so that it becomes another theory, or reproduces data."""

from .history import FitStatus, plot_history

__all__ = ["FitStatus", "plot_history"]
