"""Two-lattice matching: a large lattice blocked once more than a small one, so that both end with the same sites.

K. G. Wilson (1980). With λ = b^y, a coupling K acts on the large lattice after the additional step like K' = K_c + λ (K − K_c)
on the small one, so that for every operator

    ⟨S⟩_large^{(n+1)}(K) = ⟨S⟩_small^{(n)}(K'),    λ = (∂⟨S⟩_large^{(n+1)}/∂K) / (∂⟨S⟩_small^{(n)}/∂K),

with ∂⟨S⟩/∂K = Cov(S, E), E the operator of K on the original fields: Σ_⟨ij⟩ φ_i φ_j for even ones, Σ φ_i for odd ones. Where
both runs have the same K = w, its distance from criticality is w − w_c = (⟨S⟩_large − ⟨S⟩_small)/(∂_large − ∂_small).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp

from ..analysis.derived import derive
from ..errors import ArgumentError
from ..reports.numbers import value_with_error
from .blocking import Blocked
from .operators import Operator, measure_operators, operator

__all__ = ["Matching", "match"]


@dataclass(frozen=True, repr=False)
class Matching:
    """Exponents by matching, for every operator: value and error.

    Attributes
    ----------
    y_t, y_h : dict
        Operator → (exponent, error), of even and of odd ones.
    distance : dict
        Even operator → (w − w_c, error), w the coupling of nearest neighbors.
    side : int
        Of the lattices that are compared.
    """

    y_t: dict[str, tuple[float, float]]
    y_h: dict[str, tuple[float, float]]
    distance: dict[str, tuple[float, float]]
    side: int

    def best(self, name: str) -> tuple[float, float]:
        """``"y_t"``, ``"y_h"`` or ``"distance"`` from the first operator: by default of neighbors, and the field."""
        return next(iter(getattr(self, name).values()))

    def __str__(self) -> str:
        parts = [f"{n} = {value_with_error(*self.best(n))}" for n in ("y_t", "y_h") if getattr(self, n)]
        if self.distance:
            parts.append(f"w - w_c = {value_with_error(*self.best('distance'))}")
        return f"two lattices, both blocked to side {self.side}: " + ", ".join(parts)

    __repr__ = __str__


def match(large: Blocked, small: Blocked, operators: tuple[Operator, ...]) -> Matching:
    """Match the last level of ``large`` with that of ``small``, which has one level less.

    Raises
    ------
    ArgumentError
        If the two do not end with lattices of one shape.
    """
    first, last = small[0], small[small.levels]
    if last.shape[2:] != large[large.levels].shape[2:]:
        fix = f"Sample the same model on sides {[n // (large.factor or 2) for n in large.lattices[0].field_shape]}."
        got, expected = f"shape {last.shape[2:]} at its last level", f"shape {large[large.levels].shape[2:]}"
        raise ArgumentError("second", expected, got, fix, reason="shape")
    dimension = last.ndim - 2
    sources = (operator("nn", ((0,), (1,)), dimension), operator("field", ((0,),), dimension))
    runs = {}
    for name, begin, end in (("large", large[0], large[large.levels]), ("small", first, last)):
        source, found = measure_operators(begin, sources), measure_operators(end, operators)
        runs[name] = {"nn": source[..., 0], "field": source[..., 1]}
        for k, each in enumerate(operators):
            series = found[..., k]
            runs[name] |= {each.name + "_": series, each.name + "*": series * source[..., 0 if each.is_even else 1]}
    log_b = math.log(large.factor or 2)

    def slope(means, each):
        return means[each.name + "*"] - means[each.name + "_"] * means["nn" if each.is_even else "field"]

    def exponent(each):
        return lambda m: jnp.log(slope(m["large"], each) / slope(m["small"], each)) / log_b

    def distance(each):
        change = lambda m: m["large"][each.name + "_"] - m["small"][each.name + "_"]  # noqa: E731
        return lambda m: change(m) / (slope(m["large"], each) - slope(m["small"], each))

    asked = {each.name: exponent(each) for each in operators}
    asked |= {f"distance {each.name}": distance(each) for each in operators if each.is_even}
    found = derive(runs, asked)
    pair = {name: (float(found[name].value), float(found[name].error)) for name in asked}
    return Matching(
        {e.name: pair[e.name] for e in operators if e.is_even},
        {e.name: pair[e.name] for e in operators if not e.is_even},
        {e.name: pair[f"distance {e.name}"] for e in operators if e.is_even},
        last.shape[2],
    )
