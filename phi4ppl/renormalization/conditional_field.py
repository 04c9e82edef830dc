"""A lift that is itself a Markov random field: the fine field given the coarse one, its couplings learned by score matching.

Bell–Wilson blocking, φ' = s φ̄ + ν with noise of variance 1/α, of a field of nearest neighbors leaves

    S(φ | φ') = S(φ) + ½ α Σ_x (φ'_x − s φ̄_x)²
              = −w_in Σ φφ − w_out Σ φφ − Σ_h g_h Σ φφ + Σ (a φ² + b φ⁴) − p Σ_x φ'_x Σ_{i∈x} φ_i,

with bonds inside blocks (w_in; g_h between corners that differ in h ≥ 2 axes) and between them (w_out), and the coarse field as
a source. With q = α s²/4^d: w_in = w − q, g_h = −q, a grows by q/2, and p = α s/2^d. Fine and coarse field together have this
action plus ½ α φ'², a Markov random field, in which score matching is convex and needs no sampling. Nothing else is assumed of
the fine field than that its action is near this family.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike
from ..energy import onesite as quartic
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int
from ..lattice.frozen import Lattice
from ..learning.likelihood import fit_likelihood
from ..model.field import MarkovRandomField
from ..model.term import Term, hopping, mass, source
from ..model.term import quartic as fourth
from .blocks_of_sites import regular
from .lifts import Lift, as_pairs, interleaved, scale_of

__all__ = ["ConditionalField", "exact_conditional_field", "train_conditional_field"]

SWEEPS = 4  # exact draws of all sites; the coarse field holds the fine one, so that they mix fast


@call_checked
@dataclass(frozen=True, eq=False)
class ConditionalField(Lift):
    """The Markov random field S(φ | φ') of the module, as a lift.

    Attributes
    ----------
    couplings : dict
        ``w_in``, ``w_out``, ``g_2`` …, ``a``, ``b`` and ``p``.
    errors : dict
        Standard errors of these; 0 where they are known.
    eta : float
    sweeps : int
        Exact draws of every site given the others, from φ = φ'/s on: one corner of all blocks after the other.
    """

    couplings: dict[str, float]
    errors: dict[str, float]
    eta: float = 0.25
    sweeps: int = SWEEPS
    name = "conditional_field"

    def __call__(self, key, coarse):
        dimension = coarse.ndim - 1
        values = tuple(jnp.asarray(self.couplings[name], coarse.dtype) for name in _names(dimension))
        return _heat_bath(key, coarse, values, 1 / scale_of(self.eta, dimension), self.sweeps)

    def model(self, coarse: ArrayLike) -> MarkovRandomField:
        """S(φ | φ') at one coarse field, shape ``(X, Y, …)``: a model of this library, for any of its samplers."""
        coarse = finite_array("coarse", coarse)
        shape = tuple(2 * side for side in coarse.shape)
        edges, parent = _edges(shape)
        terms = [Term(name, edges[name], hopping, self.couplings[name]) for name in edges]
        sites = np.arange(np.prod(shape))[:, None]
        terms += [Term("a", sites, mass, self.couplings["a"]), Term("b", sites, fourth, self.couplings["b"])]
        terms.append(Term("r", sites, source, -self.couplings["p"] * coarse.reshape(-1)[parent]))
        return MarkovRandomField(_lattice(shape, edges, len(sites)), terms)


@call_checked
def exact_conditional_field(model: MarkovRandomField, *, alpha: float, eta: float = 0.25) -> ConditionalField:
    """The conditional field of a homogeneous φ⁴ model under Bell–Wilson blocking, from its couplings: no data, no fit.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(8), w=0.680602, a=-1.0, b=1.0)
    >>> lift = p4.renormalization.exact_conditional_field(model, alpha=10.0)
    >>> {name: round(value, 3) for name, value in lift.couplings.items()}
    {'w_in': -0.063, 'w_out': 0.681, 'g_2': -0.743, 'a': -0.628, 'b': 1.0, 'p': 2.726}
    """
    couplings = {name: np.asarray(value, float) for name, value in model.couplings.items()}
    if set(couplings) != {"w", "a", "b"} or any(value.ndim for value in couplings.values()):
        fix = "Train it on pairs: train_conditional_field."
        raise ArgumentError("model", "p4.phi4 with numbers w, a and b", repr(model), fix, reason="terms")
    if model.lattice.shape is None or model.lattice.offsets != regular(model.lattice.shape).offsets:
        fix = "Train it on pairs: train_conditional_field."
        raise ArgumentError("model", "neighbors along the axes only", repr(model.lattice), fix, reason="lattice")
    dimension = len(model.field_shape)
    s = scale_of(eta, dimension)
    q = alpha * s**2 / 4**dimension
    values = {"w_in": float(couplings["w"]) - q, "w_out": float(couplings["w"])}
    values |= {f"g_{h}": -q for h in range(2, dimension + 1)}
    values |= {"a": float(couplings["a"]) + q / 2, "b": float(couplings["b"]), "p": alpha * s / 2**dimension}
    return ConditionalField(values, dict.fromkeys(values, 0.0), eta)


@call_checked
def train_conditional_field(
    coarse: ArrayLike, fine: ArrayLike, *, eta: float = 0.25, sweeps: int = SWEEPS
) -> ConditionalField:
    """The conditional field of pairs (blocked, original), by score matching of both together.

    Parameters
    ----------
    coarse, fine : arrays, shape ``(n, X, Y, …)`` and ``(n, 2X, 2Y, …)``
        The blocking has to be random, such as `BellWilson`: without noise the coarse field fixes the block means, and there is
        no density to learn.
    eta, sweeps : as in `ConditionalField`

    Raises
    ------
    ArgumentError
        If the fine field given the coarse one is (nearly) fixed in every block.
    """
    coarse, fine = as_pairs(coarse, fine)
    shape, sweeps = fine.shape[1:], positive_int("sweeps", sweeps)
    flat = [x.reshape(len(x), -1) for x in (fine, coarse)]
    edges, parent = _edges(shape)
    means = np.stack([np.bincount(parent, row) for row in flat[0]]) / 2 ** len(shape)
    slope = float(np.sum(means * flat[1]) / np.sum(means**2))
    if np.mean((flat[1] - slope * means) ** 2) < 1e-6 * np.mean(flat[1] ** 2):
        fix = "Block with rule=BellWilson(eta, alpha), or add noise to the coarse fields."
        raise ArgumentError("coarse", "fields with noise of their own", "multiples of block means", fix, reason="noise")
    number, blocks = flat[0].shape[1], flat[1].shape[1]
    edges["p"] = np.stack([np.arange(number), number + parent], axis=1)
    sites = np.arange(number)[:, None]
    terms = [Term(name, edges[name], hopping, 0.1) for name in edges]
    terms += [Term("a", sites, mass, 1.0), Term("b", sites, fourth, 0.1)]
    terms.append(Term("coarse", number + np.arange(blocks)[:, None], mass, 5.0))
    joint = MarkovRandomField(_lattice(shape, edges, number + blocks), terms)
    fit = fit_likelihood(joint, np.concatenate(flat, axis=1), method="score_matching")
    names = _names(len(shape))
    values = {name: float(np.asarray(fit.model.couplings[name])) for name in names}
    errors = {name: float(np.asarray(fit.standard_errors[name])) for name in names}
    return ConditionalField(values, errors, eta, sweeps)


def _names(dimension: int) -> tuple[str, ...]:
    return ("w_in", "w_out", *(f"g_{h}" for h in range(2, dimension + 1)), "a", "b", "p")


@functools.lru_cache(maxsize=16)
def _edge_lists(shape: tuple[int, ...]):
    number = np.arange(np.prod(shape)).reshape(shape)
    place = np.indices(shape)
    parent = np.ravel_multi_index(tuple(place // 2), tuple(n // 2 for n in shape)).reshape(-1)
    found: dict[str, list] = {name: [] for name in _names(len(shape))[: len(shape) + 1]}
    for step in itertools.product((-1, 0, 1), repeat=len(shape)):
        h = sum(map(abs, step))
        if h == 0 or step < (0,) * len(shape):
            continue
        other = np.roll(number, [-k for k in step], range(len(shape))).reshape(-1)
        inside = parent == parent[other]
        pairs = np.stack([number.reshape(-1), other], axis=1)
        found["w_in" if h == 1 else f"g_{h}"].append(pairs[inside])
        if h == 1:
            found["w_out"].append(pairs[~inside])
    return {name: np.sort(np.concatenate(pairs), axis=1) for name, pairs in found.items()}, parent


def _edges(shape: tuple[int, ...]):
    """Pairs of fine sites by term, and the block of every site."""
    if any(n % 2 or n < 4 for n in shape):
        raise ArgumentError("fine", "even sides of at least 4", f"shape {shape}", reason="sides")
    edges, parent = _edge_lists(tuple(shape))
    return dict(edges), parent


def _lattice(shape, edges: dict, number: int) -> Lattice:
    lists = [np.asarray(pairs, np.int32) for pairs in edges.values()]
    kinds = np.repeat(np.arange(len(lists)), [len(pairs) for pairs in lists])
    fine = int(np.prod(shape))
    name = f"{regular(tuple(shape)).name} with blocks" + (" and their field" if number > fine else "")
    return Lattice(name=name, num_sites=number, edges=np.concatenate(lists), edge_kinds=kinds, kinds=tuple(edges))


@functools.partial(jax.jit, static_argnames=("sweeps",))
def _heat_bath(key, coarse, values, start, sweeps: int):
    """Draws of one corner of all blocks after the other, each exact: corners of different blocks do not interact."""
    dimension = coarse.ndim - 1
    w_in, w_out, *diagonal, a, b, p = values
    corners = list(itertools.product((0, 1), repeat=dimension))

    def sweep(number, fields):
        parts = dict(zip(corners, fields, strict=True))
        for place, corner in enumerate(corners):
            pull = p * coarse
            for other in corners:
                h = sum(i != j for i, j in zip(corner, other, strict=True))
                if h:
                    pull = pull + (w_in if h == 1 else diagonal[h - 2]) * parts[other]
            for axis, here in enumerate(corner):
                across = tuple(1 - k if n == axis else k for n, k in enumerate(corner))
                pull = pull + w_out * jnp.roll(parts[across], 1 - 2 * here, 1 + axis)
            own = jax.random.fold_in(jax.random.fold_in(key, number), place)
            parts[corner] = quartic.draw(own, -pull, a, b)
        return tuple(parts[corner] for corner in corners)

    fields = jax.lax.fori_loop(0, sweeps, sweep, (start * coarse,) * len(corners))
    return interleaved(dict(zip(corners, fields, strict=True)), dimension)
