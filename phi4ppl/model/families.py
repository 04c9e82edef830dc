"""Families of nearest-neighbor fields: φ⁴, by either set of couplings, and Gaussian."""

from __future__ import annotations

import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array
from ..lattice.frozen import Lattice
from ..lattice.labels import aligned_coupling
from .field import MarkovRandomField
from .term import Term, hopping, is_concrete, mass, quartic, sextic, source

__all__ = ["gaussian", "phi4", "phi4_from_lagrangian"]


@call_checked
def phi4(
    lattice: Lattice, *, w: Labeled = 1.0, a: Labeled, b: Labeled, r: Labeled = None, c: Labeled = None
) -> MarkovRandomField:
    """The φ⁴ family, S = −Σ_⟨ij⟩ w_ij φ_i φ_j + Σ a_i φ_i² + Σ b_i φ_i⁴ (+ Σ r_i φ_i + Σ c_i φ_i⁶).

    Parameters
    ----------
    lattice : Lattice
    w : float, array of shape (num_edges,), Series, str, or dict
        Hopping, in the order of ``lattice.edges``. A dict by pairs of nodes, or a Series with such a MultiIndex, names every
        edge once, in either direction. A str is the name of an edge attribute of the networkx graph, such as ``"weight"``. A
        dict from kinds of edges to couplings makes one term per kind, named ``w_<kind>`` and ordered like
        ``lattice.edges_of(kind)``. On a lattice with antiperiodic axes one number (or one per kind): edges across these
        boundaries get −w, as a separate term, ``w_<kind>_antiperiodic``.
    a, b : float, array of shape (num_sites,) or ``lattice.shape``, Series, DataArray, or dict
        Mass and quartic couplings. A dict by node, a Series with the nodes as index, and a DataArray with the dimensions that
        fields have in results (``x, y, …``, or ``site``) are put in order by their labels.
    r : the same, optional
        Source; without it the model has no linear term and is even under φ → −φ.
    c : the same, optional
        Sextic coupling. Where it is positive b may be negative (first-order transitions).

    Raises
    ------
    ArgumentError
        For wrong shapes, labels that are not those of the lattice, each once, and couplings that are missing or not finite.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.phi4(p4.lattice.square(4, diagonals=True), w={"nn": 1.0, "diagonal": 0.5}, a=2.0, b=0.2)
    MarkovRandomField(square 4×4, periodic, with diagonals; w_nn=1, w_diagonal=0.5, a=2, b=0.2)
    """
    if b is None:
        raise ArgumentError(
            "b", "a quartic coupling", "None", "For a field without quartic terms use phi4ppl.gaussian(…)."
        )
    sites = {"a": (mass, a), "b": (quartic, b)} | ({} if r is None else {"r": (source, r)})
    sites |= {} if c is None else {"c": (sextic, c)}
    return _nearest_neighbor_family(lattice, w, sites)


@call_checked
def gaussian(lattice: Lattice, *, w: Labeled, a: Labeled, r: Labeled = None) -> MarkovRandomField:
    """The Gaussian field S = −Σ_⟨ij⟩ w_ij φ_i φ_j + Σ a_i φ_i² (+ Σ r_i φ_i), precision matrix Q = 2·diag(a) − W.

    Its covariance is Q⁻¹; a source r moves its mean from 0 to −Q⁻¹r (`phi4ppl.exact.gaussian_mean`).

    With ``a = w·degree/2`` it is the intrinsic (improper) field S = ½ Σ_⟨ij⟩ w (φ_i − φ_j)²; ``model.check()`` says so.
    Arguments as in `phi4`.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.gaussian(p4.lattice.square(8), w=1.0, a=2.5)
    MarkovRandomField(square 8×8, periodic; w=1, a=2.5)
    """
    return _nearest_neighbor_family(lattice, w, {"a": (mass, a)} | ({} if r is None else {"r": (source, r)}))


@call_checked
def phi4_from_lagrangian(lattice: Lattice, *, kappa: float = 1.0, mu_squared: float, lam: float) -> MarkovRandomField:
    """φ⁴ theory from the couplings of its Lagrangian.

    S = Σ_⟨ij⟩ (κ/2)(φ_i − φ_j)² + Σ_i [(μ²/2) φ_i² + (λ/4) φ_i⁴], that is w = κ, a_i = (μ² + κ·deg(i))/2, b = λ/4.

    Parameters
    ----------
    kappa, mu_squared, lam : float
        κ, μ² and λ.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.phi4_from_lagrangian(p4.lattice.square(8), kappa=1.0, mu_squared=-0.9515, lam=0.7)
    MarkovRandomField(square 8×8, periodic; w=1, a=1.52425, b=0.175)
    """
    for name, value in (("kappa", kappa), ("mu_squared", mu_squared), ("lam", lam)):
        if np.ndim(value) != 0:
            fix = "Use phi4(…) for couplings that differ from site to site."
            raise ArgumentError(name, "one number", f"shape {np.shape(value)}", fix, reason="shape")
        if is_concrete(value):
            finite_array(name, value)
    kappa, mu_squared, lam = (getattr(value, "values", value) for value in (kappa, mu_squared, lam))  # of xarray
    degree = lattice.degree
    uniform = bool(np.all(degree == degree[0]))
    a = (mu_squared + kappa * (float(degree[0]) if uniform else degree.astype(float))) / 2
    return phi4(lattice, w=kappa, a=a, b=lam / 4)


def _nearest_neighbor_family(lattice: Lattice, w, site_terms: dict) -> MarkovRandomField:
    if not isinstance(lattice, Lattice):
        fix = "Build one with phi4ppl.lattice, for example lattice.from_networkx(graph)."
        raise ArgumentError("lattice", "a phi4ppl Lattice", type(lattice).__name__, fix)
    terms = []
    if lattice.sign_kinds:
        terms += _antiperiodic_hopping(lattice, w)
    elif isinstance(w, dict) and not (w and all(isinstance(k, tuple | frozenset) for k in w)):
        unknown = [k for k in w if k not in lattice.kinds]
        if unknown or not w:
            kinds = ", ".join(repr(k) for k in lattice.kinds)
            raise ArgumentError(
                "w", f"kinds of edges among {kinds}", repr(unknown[0]) if unknown else "an empty dict", reason="name"
            )
        bare = [k for k in w if not len(lattice.edges_of(k))]
        if bare:
            raise ArgumentError(
                "w", "kinds that have edges", f"{bare[0]!r}, which has none on {lattice!r}", reason="no_edges"
            )
        given = {k: lattice.edge_attribute(v, k) if isinstance(v, str) else v for k, v in w.items()}
        terms += [Term(f"w_{kind}", lattice.edges_of(kind), hopping, value) for kind, value in given.items()]
    elif lattice.num_edges:
        terms.append(Term("w", lattice.edges, hopping, lattice.edge_attribute(w) if isinstance(w, str) else w))
    else:
        aligned_coupling("coupling 'w'", w, lattice, lattice.edges)  # rejects edges that do not exist
    sites = np.arange(lattice.num_sites, dtype=np.int32)[:, None]
    for name, (statistic, value) in site_terms.items():
        value = aligned_coupling(f"coupling {name!r}", value, lattice, sites)
        if isinstance(value, (list, tuple)) and all(map(is_concrete, value)):
            value = finite_array(f"coupling {name!r}", value)
        if not isinstance(value, (list, tuple)) and np.ndim(value) > 1 and np.shape(value) == lattice.field_shape:
            value = value.reshape(-1)
        terms.append(Term(name, sites, statistic, value))
    return MarkovRandomField(lattice, terms)


def _antiperiodic_hopping(lattice: Lattice, w) -> list[Term]:
    """Two terms per kind of edges: w inside, and −w across the antiperiodic boundaries, where φ(x + L) = −φ(x)."""
    inside = [kind for kind in lattice.kinds if kind not in lattice.sign_kinds]
    if not isinstance(w, dict):
        w = dict.fromkeys(inside, w)
    unknown = [kind for kind in w if kind not in inside]
    if unknown or not w:
        got = repr(unknown[0]) if unknown else "an empty dict"
        raise ArgumentError("w", f"kinds of edges among {', '.join(map(repr, inside))}", got, reason="name")
    terms = []
    for kind, value in w.items():
        if isinstance(value, (list, tuple)) or np.ndim(value) != 0:
            fix = f"For one per edge use model.replace(w_{kind}=…, w_{kind}_antiperiodic=…), the latter with −w."
            raise ArgumentError(
                "w", "one number per kind of edges on an antiperiodic lattice", "an array", fix, reason="antiperiodic"
            )
        for name, sign in ((kind, 1), *((k, -1) for k, other in lattice.sign_kinds.items() if other == kind)):
            if len(lattice.edges_of(name)):
                terms.append(Term(f"w_{name}", lattice.edges_of(name), hopping, sign * value))
    return terms
