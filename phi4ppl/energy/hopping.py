"""Neighbor sums of one hopping term, in the layout that its edges allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax

__all__ = ["Hopping"]


@dataclass(frozen=True)
class Hopping:
    """How one layout computes with the edges of one hopping term; φ is one field, w has shape ``(num_edges,)``.

    Attributes
    ----------
    layout : str
        ``"stencil"``, ``"gather"`` or ``"dense"``.
    plain : callable
        ``plain(phi)``: Σ_j φ_j over the neighbors j of every site, in the shape of the field.
    weighted : callable
        ``weighted(w, phi)``: Σ_j w_ij φ_j over the neighbors j of every site, in the shape of the field.
    products : callable
        ``products(phi)``: φ_i φ_j of every edge, shape ``(num_edges,)``.
    """

    layout: str
    plain: Callable[[jax.Array], jax.Array]
    weighted: Callable[[jax.Array, jax.Array], jax.Array]
    products: Callable[[jax.Array], jax.Array]
