"""The engine: chains are warmed up, drawn, recorded, interrupted, and resumed from checkpoints.

A model and a kernel come in; draws and what was recorded of them go out. Read `program` first, the compiled loop; then
`chains`, a run to its end, and `engine`, chains that persist while the couplings change, which fits and log Z stand on.
"""

from ..kernels.adaptation import Adaptation, Tuning, WindowAdaptation
from ..kernels.choose import resolve
from ..kernels.kernel import Kernel, get_kernel, kernels, register
from ..kernels.target import Target, target_of
from ..kernels.tempering import houdayer, tempering

__all__ = [
    "Adaptation",
    "Kernel",
    "Target",
    "Tuning",
    "WindowAdaptation",
    "get_kernel",
    "houdayer",
    "kernels",
    "register",
    "resolve",
    "target_of",
    "tempering",
]
