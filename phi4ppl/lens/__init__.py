"""Trained models read as field theories: occupation numbers, symmetries, Wick's theorem and renormalization, layer by layer.

A model, its parameters and data come in; measurements with errors go out. Read `activations` first.
"""

from .activations import layers
from .adapters.equinox_models import from_equinox
from .adapters.flax_models import from_flax, from_nnx
from .adapters.own_models import from_machine, from_model
from .adapters.reading import read
from .adapters.sklearn_models import from_sklearn
from .alignment import alignment
from .attribution import Attribution, attribution
from .averages import AverageModel, LayerNorm, average, spectral_norms
from .breaks import Break
from .cumulants import Cumulants, cumulants
from .domain_shift import LayerShift, Shift
from .equivariance import Equivariance, LayerSymmetry, equivariance
from .layer_flow import LayerFlow, LayerScale, renormalization
from .learning_coefficient import LearningCoefficient, local_learning_coefficient
from .leave_out import Measured
from .lens_page import LensReport, report
from .occupation import LayerOccupation, Occupation, occupation
from .order_parameters import OrderParameter, order_parameter
from .passages import Passage
from .propagation import Propagation, propagation
from .transformations import (
    Family,
    Function,
    Permutation,
    Reflection,
    Rotation,
    Sign,
    Transformation,
    Translation,
    VectorRotation,
    automorphisms,
)
from .transitions import CurveTransitions, Transitions, transitions
from .wick import Wick, wick

__all__ = [
    "Attribution",
    "AverageModel",
    "Break",
    "Cumulants",
    "CurveTransitions",
    "Equivariance",
    "Family",
    "Function",
    "LayerFlow",
    "LayerNorm",
    "LayerOccupation",
    "LayerScale",
    "LayerShift",
    "LayerSymmetry",
    "LearningCoefficient",
    "LensReport",
    "Measured",
    "Occupation",
    "OrderParameter",
    "Passage",
    "Permutation",
    "Propagation",
    "Reflection",
    "Rotation",
    "Shift",
    "Sign",
    "Transformation",
    "Transitions",
    "Translation",
    "VectorRotation",
    "Wick",
    "alignment",
    "attribution",
    "automorphisms",
    "average",
    "cumulants",
    "equivariance",
    "from_equinox",
    "from_flax",
    "from_machine",
    "from_model",
    "from_nnx",
    "from_sklearn",
    "layers",
    "local_learning_coefficient",
    "occupation",
    "order_parameter",
    "propagation",
    "read",
    "renormalization",
    "report",
    "spectral_norms",
    "transitions",
    "wick",
]
