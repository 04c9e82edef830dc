"""One site alone: the density exp(−(rφ + aφ² + bφ⁴)), its logarithmic normalizer, its moments and exact draws.

With s = ±1 the sign that the linear term favors, x = abs(r) and φ₀ ≥ 0 the minimum of V(φ) = −xφ + aφ² + bφ⁴ on φ ≥ 0,

    V(φ₀ + d) − V(φ₀) = d² [c + b (2φ₀ + d)²],    c = x/(2φ₀) = a + 2bφ₀² ≥ 0,

without any cancellation, in single and double wells alike; everything here is built on this line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from .._typing import Batch
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int
from ..model.term import is_concrete

__all__ = ["Moments", "draw", "log_normalizer", "moments"]

NEWTON_STEPS = 6  # from the bound that they start at, five leave 2e-12
# nodes, and the depth at which the integrand is cut off, by the bits of the number
GRIDS = {32: (24, 19.0), 64: (40, 36.0)}
FULL_ROUNDS = 3  # proposals for all units before those still without a value are gathered
SHRINK = 8
SMALL = 4096
CHUNK = 2**15
DEEP = 30.0  # bφ₀⁴ from which on, two Gaussians are the envelope regardless of rounding


@call_checked
class Moments(NamedTuple):
    """⟨φ⟩, ⟨φ²⟩ and ⟨φ⁴⟩."""

    first: jax.Array
    second: jax.Array
    fourth: jax.Array


@call_checked
def log_normalizer(linear: ArrayLike, quadratic: ArrayLike, quartic: ArrayLike) -> Batch:
    """log ∫ exp(−(rφ + aφ² + bφ⁴)) dφ over the real line, for every entry of the couplings.

    Parameters
    ----------
    linear, quadratic, quartic : array_like
        r, a and b, of one shape or scalars; b ≥ 0, and a > 0 where b = 0 (a Gaussian).

    Returns
    -------
    array
        Its derivatives are −⟨φ⟩, −⟨φ²⟩ and −⟨φ⁴⟩, its second ones the covariances of the powers, in forward and reverse mode.

    Raises
    ------
    ArgumentError
        For couplings without a finite integral. Inside a JAX trace, where values cannot be looked at, the result is nan.

    Notes
    -----
    The density is folded onto φ ≥ 0, where it has one hump, and summed by the trapezoidal rule with 40 nodes (24 in
    single precision) between the points where it has fallen by exp(−36). Tested for abs(r) ≤ 1e3, abs(a) ≤ 1e2, and
    1e-4 ≤ b ≤ 1e2 or b = 0, double wells as deep as a²/4b = 2.5e7 included: the error is below 1e-12 in double precision
    (2e-14 was seen) and 1e-6 in single (7e-7), relative to
    1 + abs(log Z) for log Z, to ⟨φ²⟩^½ for ⟨φ⟩, and to themselves for ⟨φ²⟩ and ⟨φ⁴⟩.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl import quartic
    >>> float(quartic.log_normalizer(0.0, 0.5, 0.0) - jnp.log(2 * jnp.pi) / 2)
    0.000000
    >>> [round(float(value), 4) for value in quartic.log_normalizer(jnp.array([0.0, 1.0]), -2.0, 0.5)]
    [2.6908, 3.3989]
    """
    return _log_normalizer(*_couplings(linear, quadratic, quartic))


@call_checked
def moments(linear: ArrayLike, quadratic: ArrayLike, quartic: ArrayLike) -> Moments:
    """⟨φ⟩, ⟨φ²⟩ and ⟨φ⁴⟩ under exp(−(rφ + aφ² + bφ⁴)), for every entry of the couplings.

    Arguments, accuracy and errors as in `log_normalizer`; differentiable.

    Examples
    --------
    >>> from phi4ppl import quartic
    >>> [round(abs(float(m)), 5) for m in quartic.moments(0.0, 1.52425, 0.175)]
    [0.0, 0.27868, 0.21493]
    """
    return _moments(*_couplings(linear, quadratic, quartic))


@call_checked
def draw(
    key: jax.Array, linear: ArrayLike, quadratic: ArrayLike, quartic: ArrayLike, *, shape: Sequence[int] | None = None
) -> Batch:
    """Exact independent draws from exp(−(rφ + aφ² + bφ⁴)).

    Parameters
    ----------
    key : JAX random key
    linear, quadratic, quartic : array_like
        As in `log_normalizer`.
    shape : tuple of int, optional
        Shape of the result, to which the couplings broadcast; by default the shape of the couplings.

    Notes
    -----
    Rejection from the better of two envelopes. Completing the square, bφ⁴ ≥ 2bβφ² − bβ², leaves one Gaussian; in deep double
    wells two Gaussians of curvature c + bφ₀², one a well, are left by (2φ₀ + d)² ≥ φ₀² in V(φ₀ + d) on φ ≥ 0. At least 38 in
    100 proposals are kept, at any couplings. Units without a value are gathered and retried until all have one, so the
    law is exact up to the resolution of the random numbers (2⁻²³, or 2⁻⁵² in double precision). One core of a common laptop
    draws about ten million numbers per second in single precision.

    Examples
    --------
    >>> import jax
    >>> from phi4ppl import quartic
    >>> phi = quartic.draw(jax.random.key(0), 0.0, 1.52425, 0.175, shape=(100_000,))
    >>> round(float((phi**2).mean()), 2)
    0.28
    """
    r, a, b = _couplings(linear, quadratic, quartic)
    shape = r.shape if shape is None else tuple(positive_int("shape", n, minimum=0) for n in shape)
    try:
        r, a, b = (jnp.broadcast_to(value, shape).reshape(-1) for value in (r, a, b))
    except ValueError as error:
        raise ArgumentError("shape", f"a shape to which {r.shape} broadcasts", str(shape), reason="shape") from error
    return _draw(key, r, a, b).reshape(shape)


def _couplings(linear, quadratic, quartic):
    """The three couplings as arrays of one shape and one floating type."""
    given = {"linear": linear, "quadratic": quadratic, "quartic": quartic}
    try:
        shape = jnp.broadcast_shapes(*(jnp.shape(value) for value in given.values()))
    except ValueError as error:
        got = ", ".join(str(jnp.shape(value)) for value in given.values())
        raise ArgumentError("couplings", "shapes that broadcast", got, reason="shape") from error
    if all(map(is_concrete, given.values())):
        _, a, b = (finite_array(name, value) for name, value in given.items())
        if (b < 0).any():
            raise ArgumentError(
                "quartic", "numbers of at least 0", str(b.min()), "The density grows without bound.", reason="positive"
            )
        if (flat := (b == 0) & (a <= 0)).any():
            got = str(np.broadcast_to(a, flat.shape)[flat].max())
            raise ArgumentError(
                "quadratic", "positive numbers where quartic is 0", got, "The integral is infinite.", reason="positive"
            )
    dtype = jnp.result_type(*given.values())
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    r, a, b = (jnp.broadcast_to(jnp.asarray(value, dtype), shape) for value in given.values())
    return r, a, jnp.where((b > 0) | ((b == 0) & (a > 0)), b, jnp.nan)


# --- where the density is


class _Hump(NamedTuple):
    """φ₀, c, and the sign s of the side with the deeper well."""

    top: jax.Array
    c: jax.Array
    sign: jax.Array


def _hump(r, a, b) -> _Hump:
    """The larger minimum of V(φ) = −xφ + aφ² + bφ⁴ on φ ≥ 0, by Newton's method from above: V′ is convex there."""
    tiny = jnp.finfo(r.dtype).tiny
    x = jnp.abs(r)
    cube = _above_cube_root(x / jnp.maximum(4 * b, tiny**0.5))
    above = jnp.sqrt(jnp.maximum(-a, 0) / jnp.maximum(2 * b, tiny))
    top = jnp.where(a > 0, jnp.minimum(cube, x / jnp.maximum(2 * a, tiny)), above + cube)
    for _ in range(NEWTON_STEPS):
        slope = 2 * a + 12 * b * top**2
        top = jnp.maximum(top - ((2 * a + 4 * b * top**2) * top - x) / jnp.maximum(slope, tiny), 0)
    top = lax.optimization_barrier(top)  # otherwise each number that follows from it would repeat the iteration
    c = jnp.where(a < 0, x / jnp.maximum(2 * top, tiny), a + 2 * b * top**2)
    return _Hump(top, c, jnp.where(r > 0, -1, 1).astype(r.dtype))


def _above_cube_root(x):
    """A number just above the cube root; faster than the root itself."""
    return 1.001 * jnp.exp(jnp.log(x) / 3)


def _reach(hump: _Hump, b, depth: float):
    """Distances to the left and right of φ₀ at which V − V(φ₀) is at least ``depth``, or to 0 where V(0) is lower."""
    top, c, _ = hump
    tiny = jnp.finfo(b.dtype).tiny ** 0.5
    by_c, by_k = jnp.sqrt(depth / jnp.maximum(c, tiny)), jnp.sqrt(depth / jnp.maximum(b, tiny))
    right = by_k / (top + jnp.sqrt(top**2 + by_k))
    left = jnp.where(top**2 > by_k, by_k / (top + jnp.sqrt(jnp.maximum(top**2 - by_k, 0))), top)
    return jnp.minimum(jnp.minimum(left, by_c), top), jnp.minimum(right, by_c)


# --- the normalizer and the moments


class _Grid(NamedTuple):
    """Nodes φ₀ − left + step·(0, 1, …) on the favored side; φ₀, c and the sign as in `_Hump`."""

    top: jax.Array
    c: jax.Array
    sign: jax.Array
    left: jax.Array
    step: jax.Array


def _grid(r, a, b) -> _Grid:
    number, depth = GRIDS[jnp.finfo(r.dtype).bits]
    hump = _hump(r, a, b)
    left, right = _reach(hump, b, depth)
    return _Grid(*hump, left, (left + right) / (number - 1))


def _node(grid: _Grid, index, r, b):
    """Place of a node relative to φ₀, its weight, and that of its mirror image, both relative to exp(−V(φ₀))."""
    distance = grid.step * index - grid.left
    place = grid.top + distance
    weight = grid.step * jnp.exp(-(distance**2) * (grid.c + b * (place + grid.top) ** 2))
    # the middle node of a folded density counts half. So may the first one elsewhere, where next to nothing is left: asking
    # whether it is the middle would compare two numbers that a compiler may have computed in different ways
    weight = jnp.where(index == 0, weight / 2, weight)
    return distance, weight, weight * jnp.exp(-2 * jnp.abs(r) * place)


@jax.custom_jvp
@jax.jit  # one program, where a caller has none around it
def _log_normalizer(r, a, b):
    grid = _grid(r, a, b)
    y = grid.sign * grid.top

    def add(index, total):
        _, here, there = _node(grid, index, r, b)
        return total + here + there

    total = lax.fori_loop(0, GRIDS[jnp.finfo(r.dtype).bits][0], add, jnp.zeros_like(r))
    return jnp.log(total) - y * (r + y * (a + b * y**2))


@_log_normalizer.defjvp
def _slope_of_log_normalizer(primals, tangents):
    first, second, fourth = _moments(*primals)
    return _log_normalizer(*primals), -(first * tangents[0] + second * tangents[1] + fourth * tangents[2])


@jax.custom_jvp
@jax.jit
def _moments(r, a, b) -> Moments:
    grid = _grid(r, a, b)

    def add(index, sums):
        distance, here, there = _node(grid, index, r, b)
        terms = (here + there, *_moment_terms(grid, distance, here, there))
        return tuple(total + term for total, term in zip(sums, terms, strict=True))

    start = (jnp.zeros_like(r),) * 4
    return _from_sums(grid, *lax.fori_loop(0, GRIDS[jnp.finfo(r.dtype).bits][0], add, start))


@_moments.defjvp
def _slope_of_moments(primals, tangents):
    return jax.jvp(_moments_over_fixed_nodes, primals, tangents)


def _moments_over_fixed_nodes(r, a, b) -> Moments:
    """`_moments` in a form whose derivatives of any order JAX takes: weights vary with the couplings, the nodes do not."""
    grid = _Grid(*(value[None] for value in _grid(*map(lax.stop_gradient, (r, a, b)))))
    r, a, b = (value[None] for value in (r, a, b))
    index = np.arange(GRIDS[jnp.finfo(r.dtype).bits][0], dtype=r.dtype).reshape(-1, *(1,) * (r.ndim - 1))
    distance, here, there = map(lax.stop_gradient, _node(grid, index, r, b))
    place = grid.top + distance
    # powers of distances carry the derivative; their value is taken off again
    even = -distance * (place + grid.top) * (a + b * (place**2 + grid.top**2))
    odd = -grid.sign * r * distance, grid.sign * r * (place + grid.top)
    here, there = (
        weight * jnp.exp(exponent - lax.stop_gradient(exponent))
        for weight, exponent in ((here, even + odd[0]), (there, even + odd[1]))
    )
    sums = (
        jnp.sum(term, axis=0, keepdims=True) for term in (here + there, *_moment_terms(grid, distance, here, there))
    )
    return Moments(*(value[0] for value in _from_sums(grid, *sums)))


def _moment_terms(grid: _Grid, distance, here, there):
    """Summands of ⟨|y − y₀|⟩ with its sign, ⟨y² − φ₀²⟩ and ⟨y⁴ − φ₀⁴⟩."""
    place, both = grid.top + distance, here + there
    difference = both * distance * (place + grid.top)
    return both * distance - 2 * there * place, difference, difference * (place**2 + grid.top**2)


def _from_sums(grid: _Grid, total, first, second, fourth) -> Moments:
    top = grid.top
    return Moments(grid.sign * (top + first / total), top**2 + second / total, top**4 + fourth / total)


# --- draws


class _Envelope(NamedTuple):
    """A proposal for every unit: one Gaussian or a mixture of two, whichever has the smaller mass, and the test for keeping it.

    With x = |r| and V(φ) = −xφ + aφ² + bφ⁴ both lie above exp(−V); a proposal is kept with the ratio of the two.

    *One.* (φ² − β)² ≥ 0 gives bφ⁴ ≥ 2bβφ² − bβ², so exp(−V) ≤ exp(bβ² + xφ − αφ²) with α = a + 2bβ, for every β. Its mass,
    exp(bβ² + x²/4α) √(π/α), is smallest at β = 1/2α + x²/4α², which is (α − a) α² = bα + bx²/2. The ratio is
    exp(−b(φ² − β)²).

    *Two.* With φ₀ the minimum of V on φ ≥ 0, V(φ) − V(φ₀) = k(φ − φ₀)² + b(φ − φ₀)² φ(φ + 2φ₀), k = a + 3bφ₀². For φ ≥ 0 the
    last term is not negative, and exp(−k(φ − φ₀)²) lies above. At −φ, V is larger by 2xφ, which moves that Gaussian to
    φ₀ − x/k and scales its mass by exp(−x(2φ₀ − x/k)). The ratio is exp(−b(φ − φ₀)² φ(φ + 2φ₀)) for φ ≥ 0, and 0 otherwise.
    """

    mean: jax.Array
    other_mean: jax.Array
    other_share: jax.Array
    width: jax.Array
    quartic: jax.Array
    reference: jax.Array  # β of one Gaussian, φ₀ of two
    two: jax.Array  # whether there are two
    sign: jax.Array


def _envelope(r, a, b) -> _Envelope:
    top, c, sign = _hump(r, a, b)
    tiny = jnp.finfo(r.dtype).tiny
    x = jnp.abs(r)
    # one Gaussian of curvature α = a + 2bβ; its mass is smallest where (α − a) α² = bα + bx²/2
    alpha = jnp.maximum(a, 0) + jnp.sqrt(b) + _above_cube_root(b * x**2 / 2)
    for _ in range(NEWTON_STEPS):
        value, slope = ((alpha - a) * alpha - b) * alpha - b * x**2 / 2, (3 * alpha - 2 * a) * alpha - b
        alpha = alpha - value / jnp.maximum(slope, tiny)
    alpha = lax.optimization_barrier(alpha)
    beta = (1 + x**2 / (2 * alpha)) / (2 * alpha)
    alpha = a + 2 * b * beta  # the envelope is exact even if Newton's method has not converged
    exists, alpha = alpha > 0, jnp.where(alpha > 0, alpha, 1)  # rounding of a deep double well leaves none
    one = jnp.where(exists, -jnp.log(alpha) / 2 + b * beta**2 + x**2 / (4 * alpha), jnp.inf)
    # two Gaussians of curvature c + bφ₀²: around φ₀, and on the other side
    curve = jnp.maximum(c + b * top**2, tiny)
    log_other = -x * (2 * top - x / curve)
    two = -jnp.log(curve) / 2 + jax.nn.softplus(log_other) + top**2 * (c + b * top**2)
    is_two = lax.optimization_barrier((two < one) | (b * top**4 > DEEP))
    width = 1 / jnp.sqrt(2 * jnp.where(is_two, curve, alpha))
    return _Envelope(
        jnp.where(is_two, top, x / (2 * alpha)), top - x / curve, jnp.where(is_two, jax.nn.sigmoid(log_other), 0), width,
        b, jnp.where(is_two, top, beta), is_two, sign,
    )  # fmt: skip


def _propose(key, envelope: _Envelope):
    """One proposal for every unit, and whether it is kept.

    One uniform number u chooses the Gaussian and is its quantile: given the choice, u is uniform below or above the share.
    """
    uniform, keep = jax.random.uniform(key, (2, *envelope.mean.shape), envelope.mean.dtype)
    share = envelope.other_share
    other = uniform < share
    rest = jnp.where(other, uniform / jnp.where(share > 0, share, 1), (uniform - share) / (1 - share))
    half = (
        jnp.finfo(rest.dtype).eps / 2
    )  # the spacing below 1: half of it would round to ±1, whose quantile is infinite
    normal = math.sqrt(2) * lax.erf_inv(jnp.clip(2 * rest - 1 + half, -1 + half, 1 - half))
    phi = jnp.where(other, envelope.other_mean, envelope.mean) + envelope.width * normal
    square = phi**2
    one = square - envelope.reference
    two = (phi - envelope.reference) ** 2 * phi * (2 * envelope.reference + phi)
    loss = envelope.quartic * jnp.where(envelope.two, two, one**2)
    # couplings without a density give nan, which is never tried again
    kept = ~(keep >= jnp.exp(-loss)) & ~(envelope.two & (phi < 0))
    phi = jnp.where(jnp.isnan(loss), loss, phi)
    return jnp.where(other, -phi, phi) * envelope.sign, kept


@jax.jit
def _draw(key, r, a, b):
    number, rows = r.shape[0], -(-r.shape[0] // CHUNK)
    if rows <= 1:
        return _fill(key, _envelope(r, a, b))
    # what a processor's cache holds is drawn twice as fast
    table = (jnp.pad(value, (0, rows * CHUNK - number), mode="edge").reshape(rows, CHUNK) for value in (r, a, b))
    phi = lax.map(lambda row: _fill(row[0], _envelope(*row[1:])), (jax.random.split(key, rows), *table))
    return phi.reshape(-1)[:number]


def _fill(key, envelope: _Envelope):
    """A kept proposal for every unit: a few rounds for all, then the units left over by themselves, and so on."""
    number = envelope.mean.shape[0]
    if number <= SMALL:
        return _until_kept(key, envelope)
    phi, kept = _rounds(key, envelope, FULL_ROUNDS)

    def some(state):
        round_, phi, kept = state
        left = jnp.nonzero(~kept, size=number // SHRINK, fill_value=number)[0]
        part = jax.tree.map(lambda value: value.at[left].get(mode="clip"), envelope)
        new = _fill(jax.random.fold_in(key, round_), part)
        return round_ + 1, phi.at[left].set(new, mode="drop"), kept.at[left].set(True, mode="drop")

    return lax.while_loop(lambda state: ~jnp.all(state[2]), some, (FULL_ROUNDS, phi, kept))[1]


def _rounds(key, envelope, number):
    phi, kept = _propose(jax.random.fold_in(key, 0), envelope)
    for round_ in range(1, number):
        new, keep = _propose(jax.random.fold_in(key, round_), envelope)
        phi, kept = jnp.where(kept, phi, new), kept | keep
    return phi, kept


def _until_kept(key, envelope):
    def again(state):
        round_, phi, kept = state
        new, keep = _propose(jax.random.fold_in(key, round_), envelope)
        return round_ + 1, jnp.where(kept, phi, new), kept | keep

    start = (0, jnp.zeros_like(envelope.mean), jnp.zeros(envelope.mean.shape, bool))
    return lax.while_loop(lambda state: ~jnp.all(state[2]), again, start)[1]
