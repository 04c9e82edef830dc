"""Kernels behind one registry, warm-up, chains and progress."""

from . import catalogue  # noqa: F401  # registers the kernels
from .chains import RunResult, run_chains
from .choose import resolve
from .kernels import Kernel, get_kernel, kernels, register
from .target import Target, target_of
from .tempering import tempering
from .warmup import Tuning, WindowAdaptation

__all__ = [
    "Kernel",
    "RunResult",
    "Target",
    "Tuning",
    "WindowAdaptation",
    "get_kernel",
    "kernels",
    "register",
    "resolve",
    "run_chains",
    "target_of",
    "tempering",
]
