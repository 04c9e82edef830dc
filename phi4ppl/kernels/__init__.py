"""BlackJAX sampling algorithms behind one registry, their metrics, and the choice among them.

A compiled model comes in; a `Kernel` that maps a state to the next one goes out. Read `kernel` first: it defines what a kernel
is; then `gradient` for HMC and NUTS, `local_hmc` and `cluster` for lattices.
"""

import sys
from types import ModuleType

from . import catalog  # noqa: F401  # registers the kernels
from .adaptation import Tuning, WindowAdaptation
from .choose import resolve
from .kernel import Kernel, get_kernel, kernels, register
from .target import Target, target_of
from .tempering import houdayer, tempering

__all__ = [
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


class _CallablePackage(ModuleType):
    """``phi4ppl.kernels`` is this package, and ``phi4ppl.kernels()`` lists the kernels, whichever is asked for first."""

    __call__ = staticmethod(kernels)


sys.modules[__name__].__class__ = _CallablePackage
