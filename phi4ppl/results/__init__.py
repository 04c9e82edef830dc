"""Runs as ArviZ trees: `sample`, estimates with errors, a verdict with advice, runs on disk, leave-one-out scores.

A model comes in and an `xarray.DataTree` goes out; this is the only package that touches ArviZ. Read `run` first, then
`datatree`.
"""

from .datatree import load_run, save_run
from .ensemble_run import sample_ensemble
from .estimates import EstimateTable, estimate
from .integrated_likelihood import integrated_log_likelihood
from .leave_one_out import loo
from .run import sample
from .settings import settings
from .verdict import Check, ConvergenceReport, diagnose

__all__ = [
    "Check",
    "ConvergenceReport",
    "EstimateTable",
    "diagnose",
    "estimate",
    "integrated_log_likelihood",
    "load_run",
    "loo",
    "sample",
    "sample_ensemble",
    "save_run",
    "settings",
]
