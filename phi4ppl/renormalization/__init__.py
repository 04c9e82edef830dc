"""Critical points: runs at several sizes and couplings become critical couplings and exponents; fields become coarser ones.

A family of models comes in, or their runs; values with errors go out. Read `finite_size` first, then `blocking`.
"""

from .blocking import Blocked, block
from .eliminate import Eliminated, eliminate
from .finite_size import finite_size_scaling, scaling_observables
from .finite_size_result import FiniteSizeScaling
from .rules import Average, BellWilson, Decimate, Kernel, Majority, Sign

__all__ = [
    "Average",
    "BellWilson",
    "Blocked",
    "Decimate",
    "Eliminated",
    "FiniteSizeScaling",
    "Kernel",
    "Majority",
    "Sign",
    "block",
    "eliminate",
    "finite_size_scaling",
    "scaling_observables",
]
