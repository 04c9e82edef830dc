"""Trained models read as field theories: occupation numbers, symmetries, Wick's theorem and renormalization, layer by layer.

A model, its parameters and data come in; measurements with errors go out. Read `activations` first.
"""

from .activations import layers
from .adapters.equinox_models import from_equinox
from .adapters.flax_models import from_flax, from_nnx
from .adapters.own_models import from_machine, from_model
from .adapters.reading import read
from .adapters.sklearn_models import from_sklearn
from .attribution import Attribution, attribution
from .averages import AverageModel, LayerNorm, average, spectral_norms
from .breaks import Break
from .learning_coefficient import LearningCoefficient, local_learning_coefficient
from .order_parameters import OrderParameter, order_parameter
from .passages import Passage
from .propagation import Propagation, propagation
from .transitions import CurveTransitions, Transitions, transitions

__all__ = [
    "Attribution",
    "AverageModel",
    "Break",
    "CurveTransitions",
    "LayerNorm",
    "LearningCoefficient",
    "OrderParameter",
    "Passage",
    "Propagation",
    "Transitions",
    "attribution",
    "average",
    "from_equinox",
    "from_flax",
    "from_machine",
    "from_model",
    "from_nnx",
    "from_sklearn",
    "layers",
    "local_learning_coefficient",
    "order_parameter",
    "propagation",
    "read",
    "spectral_norms",
    "transitions",
]
