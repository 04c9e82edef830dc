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
from .cumulants import Cumulants, cumulants
from .domain_shift import LayerShift, Shift
from .equivariance import Equivariance, LayerSymmetry, equivariance
from .layer_flow import LayerFlow, LayerScale, renormalization
from .leave_out import Measured
from .occupation import LayerOccupation, Occupation, occupation
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
from .wick import Wick, wick

__all__ = [
    "Cumulants",
    "Equivariance",
    "Family",
    "Function",
    "LayerFlow",
    "LayerOccupation",
    "LayerScale",
    "LayerShift",
    "LayerSymmetry",
    "Measured",
    "Occupation",
    "Permutation",
    "Reflection",
    "Rotation",
    "Shift",
    "Sign",
    "Transformation",
    "Translation",
    "VectorRotation",
    "Wick",
    "alignment",
    "automorphisms",
    "cumulants",
    "equivariance",
    "from_equinox",
    "from_flax",
    "from_machine",
    "from_model",
    "from_nnx",
    "from_sklearn",
    "layers",
    "occupation",
    "read",
    "renormalization",
    "wick",
]
