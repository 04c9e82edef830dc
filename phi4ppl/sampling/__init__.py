"""BlackJAX kernels behind one registry, warm-up, chains and progress."""

from .chains import RunResult, run_chains
from .kernels import Kernel, get_kernel, kernels, register

__all__ = ["Kernel", "RunResult", "get_kernel", "kernels", "register", "run_chains"]
