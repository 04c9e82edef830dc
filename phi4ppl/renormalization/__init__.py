"""Critical points: runs at several sizes and couplings become critical couplings and exponents.

A family of models comes in, or their runs; values with errors go out. Read `finite_size` first.
"""

from .finite_size import finite_size_scaling, scaling_observables
from .finite_size_result import FiniteSizeScaling

__all__ = ["FiniteSizeScaling", "finite_size_scaling", "scaling_observables"]
