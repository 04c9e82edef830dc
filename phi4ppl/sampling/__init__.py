"""Kernels behind one registry, warm-up, chains and progress."""

from . import catalogue  # noqa: F401  # registers the kernels
from .chains import run_chains
from .checkpoint import is_checkpoint, read_saved
from .choose import resolve
from .harvest import RunResult, result_so_far
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
    "is_checkpoint",
    "kernels",
    "read_saved",
    "register",
    "resolve",
    "result_so_far",
    "run_chains",
    "target_of",
    "tempering",
]
