"""A lift that is itself a Markov random field: the fine field given the coarse one, its couplings learned by score matching.

Bell–Wilson blocking, φ' = s φ̄ + ν with noise of variance 1/α, of a field of nearest neighbors leaves

    S(φ | φ') = S(φ) + ½ α Σ_x (φ'_x − s φ̄_x)²
              = −w_in Σ φφ − w_out Σ φφ − Σ_h g_h Σ φφ + Σ (a φ² + b φ⁴) − p Σ_x φ'_x Σ_{i∈x} φ_i,

with bonds inside blocks (w_in; g_h between corners that differ in h ≥ 2 axes) and between them (w_out), and the coarse field as
a source. With q = α s²/4^d: w_in = w − q, g_h = −q, a grows by q/2, and p = α s/2^d. Fine and coarse field together have this
action plus ½ α φ'², a Markov random field, in which score matching is convex and needs no sampling. Nothing else is assumed of
the fine field than that its action is near this family.

With open boundaries, as of images, a site from which h neighbors are missing has a + e_h instead of a.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike
from ..energy import onesite as quartic
from ..energy.exact.gaussian import sparse_gaussian
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_key
from ..lattice.frozen import Lattice
from ..learning.likelihood import fit_likelihood
from ..model.field import MarkovRandomField
from ..model.term import Term, hopping, mass, source
from ..model.term import quartic as fourth
from .basis import missing_neighbors
from .blocks_of_sites import regular
from .lifts import Lift, as_pairs, block_means, interleaved, scale_of

__all__ = ["ConditionalField", "ConditionalMean", "exact_conditional_field", "train_conditional_field"]

SWEEPS = 4  # exact draws of all sites; the coarse field holds the fine one, so that they mix fast
MOST_SWEEPS = 1024  # of draws for a mean
FALSE_ALARM = 5.0  # standard deviations of χ² beyond which two means are not the same


class ConditionalMean(NamedTuple):
    """E[φ | φ'] of every field, its standard error (0 where it is exact), and the sweeps of each draw (0: none)."""

    value: np.ndarray
    error: np.ndarray
    sweeps: int


@call_checked
@dataclass(frozen=True, eq=False)
class ConditionalField(Lift):
    """The Markov random field S(φ | φ') of the module, as a lift.

    Attributes
    ----------
    couplings : dict
        ``w_in``, ``w_out``, ``g_2`` …, ``a``, ``b`` and ``p``; with open boundaries also ``e_1`` … ``e_d``.
    errors : dict
        Standard errors of these; 0 where they are known.
    eta : float
    sweeps : int
        Exact draws of every site given the others, from φ = φ'/s on: one corner of all blocks after the other.
    periodic : bool, default True
        A torus, or open boundaries.
    center : array of the shape of a fine field, optional
        φ and φ' above are differences from this field and from s times its block means.
    """

    couplings: dict[str, float]
    errors: dict[str, float]
    eta: float = 0.25
    sweeps: int = SWEEPS
    periodic: bool = True
    center: np.ndarray | None = None
    name = "conditional_field"

    def __call__(self, key, coarse):
        dimension = coarse.ndim - 1
        center, shift = self._centers(coarse.shape[1:])
        values = {name: jnp.asarray(self.couplings[name], coarse.dtype) for name in _names(dimension, self.periodic)}
        coarse = coarse - jnp.broadcast_to(jnp.asarray(shift, coarse.dtype), coarse.shape)
        fine = _heat_bath(key, coarse, values, 1 / scale_of(self.eta, dimension), self.sweeps, self.periodic)
        return fine + jnp.broadcast_to(jnp.asarray(center, fine.dtype), fine.shape)

    def model(self, coarse: ArrayLike) -> MarkovRandomField:
        """S(φ | φ') at one coarse field, shape ``(X, Y, …)``: a model of this library, for any of its samplers.

        Its field is the difference from ``center``.
        """
        coarse = finite_array("coarse", coarse)
        source_of = -self.couplings["p"] * (coarse - self._centers(coarse.shape)[1])
        shape = tuple(2 * side for side in coarse.shape)
        edges, parent, missing = _edges(shape, self.periodic)
        terms = [Term(name, edges[name], hopping, self.couplings[name]) for name in edges]
        sites = np.arange(np.prod(shape))[:, None]
        terms += [Term("a", sites, mass, self.couplings["a"]), Term("b", sites, fourth, self.couplings["b"])]
        terms += [Term(name, where, mass, self.couplings[name]) for name, where in missing.items()]
        terms.append(Term("r", sites, source, source_of.reshape(-1)[parent]))
        return MarkovRandomField(_lattice(shape, edges, len(sites), self.periodic), terms)

    def mean(self, coarse: ArrayLike, *, draws: int = 64, seed: int = 0) -> ConditionalMean:
        """E[φ | φ'] of coarse fields ``(n, X, Y, …)``: of all functions of φ', that of least squared error.

        At b = 0 it solves a sparse linear system. Otherwise it is the mean of independent draws, whose sweeps are doubled,
        from ``sweeps`` on, until the mean of no more sweeps than half of them agrees with it.

        Parameters
        ----------
        coarse : array, shape ``(n, X, Y, …)``
        draws : int, default 64
            Of every field, at least 8, if b is not 0.
        seed : int

        Returns
        -------
        ConditionalMean
            ``value`` and ``error``, of shape ``(n, 2X, 2Y, …)``, and ``sweeps``.

        Examples
        --------
        >>> import numpy as np, phi4ppl as p4
        >>> model = p4.gaussian(p4.lattice.square(4), w=0.2, a=1.0)
        >>> lift = p4.renormalization.exact_conditional_field(p4.phi4(model.lattice, w=0.2, a=1.0, b=0.0), alpha=1e4)
        >>> means = lift.mean(np.ones((1, 2, 2))).value  # s times the block means is the coarse field
        >>> bool(np.allclose(2 ** (0.25 / 2) * means, 1, atol=1e-3))
        True
        """
        coarse, seed = finite_array("coarse", coarse), seed_within(seed)
        if coarse.ndim < 2 or not coarse.size:
            raise ArgumentError("coarse", "shape (n, X, Y, …)", f"shape {coarse.shape}", "One field is coarse[None].")
        if not self.couplings["b"]:
            return self._solved(coarse)
        draws, sweeps = positive_int("draws", draws, minimum=8), self.sweeps
        value, error = self._averaged(coarse, sweeps, draws, seed)
        limit = 1 + FALSE_ALARM * np.sqrt(
            2 * 2 ** value[0].ndim / value.size
        )  # χ² of as many numbers as there are blocks
        apart = np.inf
        while apart > limit and 2 * sweeps <= MOST_SWEEPS:
            before, sweeps = (value, error), 2 * sweeps
            value, error = self._averaged(coarse, sweeps, draws, seed)
            apart = np.mean((value - before[0]) ** 2 / (error**2 + before[1] ** 2))
        if apart > limit:
            text = f"Means of the conditional field still move after {sweeps} sweeps. Sample lift.model(coarse) by p4.sample."
            warn(Phi4pplWarning("conditional_field.moves", text, {"sweeps": sweeps}))
        return ConditionalMean(value, error, sweeps)

    def _solved(self, coarse: np.ndarray) -> ConditionalMean:
        from scipy.sparse.linalg import splu

        center, shift = self._centers(coarse.shape[1:])
        gaussian = self.model(coarse[0]).select(lambda form: form.name != "b")
        if not gaussian.check().is_normalizable:
            fix = "See that the blocks are in place; train it on more pairs, or on blocks with less noise."
            raise ArgumentError("lift", "couplings of a density", f"{self.couplings}", fix, reason="normalizable")
        parent = _edges(shape := tuple(2 * n for n in coarse.shape[1:]), self.periodic)[1]
        pull = self.couplings["p"] * (coarse - shift).astype(float).reshape(len(coarse), -1)[:, parent]
        value = splu(sparse_gaussian(gaussian)[0]).solve(pull.T).T.reshape(-1, *shape) + center
        return ConditionalMean(value, np.zeros_like(value), 0)

    def _averaged(self, coarse: np.ndarray, sweeps: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean of independent draws and its standard error."""
        lift, fields = replace(self, sweeps=sweeps), jnp.asarray(coarse, float)
        first, total, square = None, 0.0, 0.0
        for key in jax.random.split(stream_key(seed, "mean", sweeps), draws):
            fine = np.asarray(lift(key, fields), float)
            first = fine if first is None else first  # sums of differences from one draw do not cancel
            total, square = total + (fine - first), square + (fine - first) ** 2
        mean = total / draws
        return first + mean, np.sqrt(np.maximum(square / draws - mean**2, 0) / (draws - 1))

    def _centers(self, coarse_shape: tuple[int, ...]):
        """``center`` and s times its block means, or zeros."""
        if self.center is None:
            return np.zeros(()), np.zeros(())
        if self.center.shape != (wanted := tuple(2 * n for n in coarse_shape)):
            got = f"fields that make {wanted}"
            fix = "Train without subtract_mean for fields of several sizes."
            raise ArgumentError("coarse", f"fields that make {self.center.shape}, as center", got, fix, reason="shape")
        return self.center, scale_of(self.eta, len(wanted)) * block_means(self.center[None])[0]


@call_checked
def exact_conditional_field(model: MarkovRandomField, *, alpha: float, eta: float = 0.25) -> ConditionalField:
    """The conditional field of a homogeneous φ⁴ model under Bell–Wilson blocking, from its couplings: no data, no fit.

    Raises
    ------
    ArgumentError
        If the model is not `phi4ppl.phi4` with numbers w, a and b, on a torus or with open boundaries.

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
    open_axes = {not p for p in model.lattice.periodic or (True,)}
    if len(open_axes) > 1:
        expected = "a torus, or a lattice that is open along every axis"
        raise ArgumentError("model", expected, repr(model.lattice), reason="lattice")
    if model.lattice.shape is None or model.lattice.offsets != regular(model.lattice.shape).offsets:
        fix = "Train it on pairs: train_conditional_field."
        raise ArgumentError("model", "neighbors along the axes only", repr(model.lattice), fix, reason="lattice")
    dimension, periodic = len(model.field_shape), not open_axes.pop()
    s = scale_of(eta, dimension)
    q = alpha * s**2 / 4**dimension
    values = {"w_in": float(couplings["w"]) - q, "w_out": float(couplings["w"])}
    values |= {f"g_{h}": -q for h in range(2, dimension + 1)}
    values |= {"a": float(couplings["a"]) + q / 2, "b": float(couplings["b"]), "p": alpha * s / 2**dimension}
    values |= {} if periodic else {f"e_{h}": 0.0 for h in range(1, dimension + 1)}
    return ConditionalField(values, dict.fromkeys(values, 0.0), eta, periodic=periodic)


@call_checked
def train_conditional_field(
    coarse: ArrayLike, fine: ArrayLike, *, eta: float = 0.25, sweeps: int = SWEEPS, periodic: bool = True,
    subtract_mean: bool = False, gaussian: bool = False,
) -> ConditionalField:  # fmt: skip
    """The conditional field of pairs (blocked, original), by score matching of both together.

    Parameters
    ----------
    coarse, fine : arrays, shape ``(n, X, Y, …)`` and ``(n, 2X, 2Y, …)``
        The blocking has to be random, such as `BellWilson`: without noise the coarse field fixes the block means, and there is
        no density to learn.
    eta, sweeps : as in `ConditionalField`
    periodic : bool, default True
        False for images, and other fields with open boundaries.
    subtract_mean : bool, default False
        Describe differences from the mean of all ``fine``, which becomes ``center``: for fields with a mean that is not the
        same at every site, such as images of digits or faces.
    gaussian : bool, default False
        Leave out the term of φ⁴, b = 0: the conditional mean is then exact.

    Raises
    ------
    ArgumentError
        If the fine field given the coarse one is (nearly) fixed in every block.
    """
    coarse, fine = as_pairs(coarse, fine)
    center = None
    if subtract_mean:
        center = fine.mean(axis=0, dtype=float)
        coarse = coarse - scale_of(eta, center.ndim) * block_means(center[None])[0]
        fine = fine - center
    shape, sweeps = fine.shape[1:], positive_int("sweeps", sweeps)
    flat = [x.reshape(len(x), -1) for x in (fine, coarse)]
    edges, parent, missing = _edges(shape, periodic)
    means = block_means(fine).reshape(len(fine), -1)
    slope = float(np.sum(means * flat[1]) / np.sum(means**2))
    if np.mean((flat[1] - slope * means) ** 2) < 1e-6 * np.mean(flat[1] ** 2):
        fix = "Block with rule=BellWilson(eta, alpha), or add noise to the coarse fields."
        raise ArgumentError("coarse", "fields with noise of their own", "multiples of block means", fix, reason="noise")
    number, blocks = flat[0].shape[1], flat[1].shape[1]
    edges["p"] = np.stack([np.arange(number), number + parent], axis=1)
    sites = np.arange(number)[:, None]
    terms = [Term(name, edges[name], hopping, 0.1) for name in edges]
    terms += [Term("a", sites, mass, 1.0)] + ([] if gaussian else [Term("b", sites, fourth, 0.1)])
    terms += [Term(name, where, mass, 0.1) for name, where in missing.items()]
    terms.append(Term("coarse", number + np.arange(blocks)[:, None], mass, 5.0))
    joint = MarkovRandomField(_lattice(shape, edges, number + blocks, periodic), terms)
    fit = fit_likelihood(joint, np.concatenate(flat, axis=1), method="score_matching")
    names = _names(len(shape), periodic)
    values = {name: float(np.asarray(fit.model.couplings.get(name, 0.0))) for name in names}
    errors = {name: float(np.asarray(fit.standard_errors.get(name, 0.0))) for name in names}
    return ConditionalField(values, errors, eta, sweeps, periodic, center)


def _names(dimension: int, periodic: bool = True) -> tuple[str, ...]:
    own = () if periodic else tuple(f"e_{h}" for h in range(1, dimension + 1))
    return ("w_in", "w_out", *(f"g_{h}" for h in range(2, dimension + 1)), "a", "b", "p", *own)


@functools.lru_cache(maxsize=16)
def _edge_lists(shape: tuple[int, ...], periodic: bool):
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
            end = [n if k else n + 1 for n, k in zip(shape, step, strict=True)]
            whole = True if periodic else np.all([x + k < n for x, k, n in zip(place, step, end, strict=True)], axis=0)
            found["w_out"].append(pairs[~inside & np.broadcast_to(whole, shape).reshape(-1)])
    gone = missing_neighbors(shape, (periodic,) * len(shape)).reshape(-1)
    missing = {} if periodic else {f"e_{h}": np.flatnonzero(gone == h)[:, None] for h in range(1, len(shape) + 1)}
    return {name: np.sort(np.concatenate(pairs), axis=1) for name, pairs in found.items()}, parent, missing


def _edges(shape: tuple[int, ...], periodic: bool):
    """Pairs of fine sites by term, the block of every site, and the sites at open boundaries by term."""
    if any(n % 2 or n < 4 for n in shape):
        raise ArgumentError("fine", "even sides of at least 4", f"shape {shape}", reason="sides")
    edges, parent, missing = _edge_lists(tuple(shape), periodic)
    return dict(edges), parent, missing


def _lattice(shape, edges: dict, number: int, periodic: bool) -> Lattice:
    lists = [np.asarray(pairs, np.int32) for pairs in edges.values()]
    kinds = np.repeat(np.arange(len(lists)), [len(pairs) for pairs in lists])
    fine = int(np.prod(shape))
    name = f"{regular(tuple(shape), periodic).name} with blocks" + (" and their field" if number > fine else "")
    return Lattice(name=name, num_sites=number, edges=np.concatenate(lists), edge_kinds=kinds, kinds=tuple(edges))


@functools.partial(jax.jit, static_argnames=("periodic",))
def _heat_bath(key, coarse, values, start, sweeps: int, periodic: bool):
    """Draws of one corner of all blocks after the other, each exact: corners of different blocks do not interact."""
    dimension = coarse.ndim - 1
    corners = list(itertools.product((0, 1), repeat=dimension))
    gone = missing_neighbors(tuple(2 * n for n in coarse.shape[1:]), (False,) * dimension)

    def quadratic(corner):
        if periodic:
            return values["a"]
        own = gone[(None, *(slice(k, None, 2) for k in corner))]
        return values["a"] + sum(values[f"e_{h}"] * (own == h) for h in range(1, dimension + 1))

    def across(part, step, axis):
        """The neighbor in the next block, 0 beyond an open boundary."""
        moved = jnp.roll(part, step, axis)
        if periodic:
            return moved
        edge = jnp.arange(part.shape[axis]) == (0 if step > 0 else part.shape[axis] - 1)
        return jnp.where(jnp.expand_dims(edge, [n for n in range(part.ndim) if n != axis]), 0, moved)

    def sweep(number, fields):
        parts = dict(zip(corners, fields, strict=True))
        for turn, corner in enumerate(corners):
            pull = values["p"] * coarse
            for other in corners:
                h = sum(i != j for i, j in zip(corner, other, strict=True))
                if h:
                    pull = pull + values["w_in" if h == 1 else f"g_{h}"] * parts[other]
            for axis, here in enumerate(corner):
                facing = tuple(1 - k if n == axis else k for n, k in enumerate(corner))
                pull = pull + values["w_out"] * across(parts[facing], 1 - 2 * here, 1 + axis)
            own = jax.random.fold_in(jax.random.fold_in(key, number), turn)
            parts[corner] = quartic.draw(own, -pull, quadratic(corner), values["b"])
        return tuple(parts[corner] for corner in corners)

    fields = jax.lax.fori_loop(0, sweeps, sweep, (start * coarse,) * len(corners))
    return interleaved(dict(zip(corners, fields, strict=True)), dimension)
