"""Parallel tempering: `tempering_kernel` and its `copies` on a `ladder`, which a `ladder_pilot` fits to the model."""

from .ladder import partners
from .tempering_kernel import HOUDAYER, TEMPERING, houdayer, tempering

__all__ = ["HOUDAYER", "TEMPERING", "houdayer", "partners", "tempering"]
