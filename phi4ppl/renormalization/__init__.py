"""Critical points: runs at several sizes and couplings become critical couplings and exponents; fields become coarser ones.

A family of models comes in, or their runs; values with errors go out. Read `finite_size` first, then `blocking`.
"""

from ..results.correction import Corrected, Summary
from .blocking import Blocked, block
from .blocks_of_sites import BlocksOfSites
from .cascade import InverseRenormalization, cascade
from .cascade_result import Back, Cascade, Level
from .conditional_field import ConditionalField, ConditionalMean, exact_conditional_field, train_conditional_field
from .conditional_flow import ConditionalFlow, train_conditional_flow
from .eliminate import Eliminated, eliminate
from .features_by_level import FeatureOverlap, blocked_features, compare_features
from .finite_size import finite_size_scaling, scaling_observables
from .finite_size_result import FiniteSizeScaling
from .flow import find_fixed_point, flow
from .flow_result import Comparison, FixedPoint, Flow
from .held_out import HeldOutErrors, HeldOutRow, held_out_errors
from .inverse_crossings import InverseCrossings, inverse_crossings
from .lifts import Bicubic, Copy, FunctionLift, Lift, TransposedConvolution, train_transposed_convolution
from .matching import Matching
from .monte_carlo_rg import monte_carlo_rg
from .monte_carlo_rg_result import ExponentRow, MonteCarloRG, Recommendation
from .operators import Operator, operator, standard_operators
from .rules import Average, BellWilson, Decimate, Majority, Rule, Sign, StencilKernel

__all__ = [
    "Average",
    "Back",
    "BellWilson",
    "Bicubic",
    "Blocked",
    "BlocksOfSites",
    "Cascade",
    "Comparison",
    "ConditionalField",
    "ConditionalFlow",
    "ConditionalMean",
    "Copy",
    "Corrected",
    "Decimate",
    "Eliminated",
    "ExponentRow",
    "FeatureOverlap",
    "FiniteSizeScaling",
    "FixedPoint",
    "Flow",
    "FunctionLift",
    "HeldOutErrors",
    "HeldOutRow",
    "InverseCrossings",
    "InverseRenormalization",
    "Level",
    "Lift",
    "Majority",
    "Matching",
    "MonteCarloRG",
    "Operator",
    "Recommendation",
    "Rule",
    "Sign",
    "StencilKernel",
    "Summary",
    "TransposedConvolution",
    "block",
    "blocked_features",
    "cascade",
    "compare_features",
    "eliminate",
    "exact_conditional_field",
    "find_fixed_point",
    "finite_size_scaling",
    "flow",
    "held_out_errors",
    "inverse_crossings",
    "monte_carlo_rg",
    "operator",
    "scaling_observables",
    "standard_operators",
    "train_conditional_field",
    "train_conditional_flow",
    "train_transposed_convolution",
]
