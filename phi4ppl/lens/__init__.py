"""Trained models read as field theories: occupation numbers, symmetries, Wick's theorem and renormalization, layer by layer.

A model, its parameters and data come in; measurements with errors go out. Read `activations` first.
"""

from .activations import layers
from .breaks import Break
from .order_parameters import OrderParameter, order_parameter
from .passages import Passage
from .transitions import CurveTransitions, Transitions, transitions

__all__ = [
    "Break",
    "CurveTransitions",
    "OrderParameter",
    "Passage",
    "Transitions",
    "layers",
    "order_parameter",
    "transitions",
]
