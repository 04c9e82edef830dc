"""Trained models read as field theories: occupation numbers, symmetries, Wick's theorem and renormalization, layer by layer.

A model, its parameters and data come in; measurements with errors go out. Read `activations` first.
"""

from .activations import layers

__all__ = ["layers"]
