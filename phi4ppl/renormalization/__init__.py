"""Critical points: runs at several sizes and couplings become critical couplings and exponents; fields become coarser ones.

A family of models comes in, or their runs; values with errors go out. Read `finite_size` first, then `blocking`.
"""

from .blocking import Blocked, block
from .blocks_of_sites import BlocksOfSites
from .finite_size import finite_size_scaling, scaling_observables
from .finite_size_result import FiniteSizeScaling
from .flow import find_fixed_point, flow
from .flow_result import Comparison, FixedPoint, Flow
from .matching import Matching
from .monte_carlo_rg import monte_carlo_rg
from .monte_carlo_rg_result import ExponentRow, MonteCarloRG, Recommendation
from .operators import Operator, operator, standard_operators
from .rules import Average, BellWilson, Decimate, Majority, Rule, Sign, StencilKernel

__all__ = [
    "Average",
    "BellWilson",
    "Blocked",
    "BlocksOfSites",
    "Comparison",
    "Decimate",
    "ExponentRow",
    "FiniteSizeScaling",
    "FixedPoint",
    "Flow",
    "StencilKernel",
    "Majority",
    "Matching",
    "MonteCarloRG",
    "Operator",
    "Recommendation",
    "Rule",
    "Sign",
    "block",
    "find_fixed_point",
    "finite_size_scaling",
    "flow",
    "monte_carlo_rg",
    "operator",
    "scaling_observables",
    "standard_operators",
]
