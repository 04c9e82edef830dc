"""Critical points: runs at several sizes and couplings become critical couplings and exponents; fields become coarser ones.

A family of models comes in, or their runs; values with errors go out. Read `finite_size` first, then `blocking`.
"""

from .blocking import Blocked, block
from .cascade import InverseRenormalization, cascade
from .cascade_result import Cascade
from .conditional_field import ConditionalField, exact_conditional_field, train_conditional_field
from .conditional_flow import ConditionalFlow, train_conditional_flow
from .eliminate import Eliminated, eliminate
from .finite_size import finite_size_scaling, scaling_observables
from .finite_size_result import FiniteSizeScaling
from .lifts import Copy, FunctionLift, Lift, TransposedConvolution, train_transposed_convolution
from .rules import Average, BellWilson, Decimate, Kernel, Majority, Sign

__all__ = [
    "Average",
    "BellWilson",
    "Blocked",
    "Cascade",
    "ConditionalField",
    "ConditionalFlow",
    "Copy",
    "Decimate",
    "Eliminated",
    "FiniteSizeScaling",
    "FunctionLift",
    "InverseRenormalization",
    "Kernel",
    "Lift",
    "Majority",
    "Sign",
    "TransposedConvolution",
    "block",
    "cascade",
    "eliminate",
    "exact_conditional_field",
    "finite_size_scaling",
    "scaling_observables",
    "train_conditional_field",
    "train_conditional_flow",
    "train_transposed_convolution",
]
