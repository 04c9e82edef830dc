"""Reference answers: Gaussian fields by determinant, small fields by quadrature."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..._typing import FlatField, JaxFlatField, JaxPrecision, Precision, Scalar
from ...errors import ArgumentError
from ...errors.arguments import call_checked, positive_int
from ...model.field import MarkovRandomField

__all__ = ["gaussian_log_partition", "gaussian_mean", "gaussian_precision", "quadrature", "sparse_gaussian"]

DENSE_LIMIT = 4096
MAX_GRID = 2**25


@call_checked
def gaussian_precision(model: MarkovRandomField) -> JaxPrecision:
    """Precision matrix Q of a Gaussian field, S = ½ φᵀQφ + rᵀφ, as a dense array of shape ``(num_sites, num_sites)``.

    Q is differentiable with respect to the couplings; its inverse is the covariance of the field.

    Raises
    ------
    ArgumentError
        If the model has quartic or user-defined terms, or more than 4096 sites.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.exact.gaussian_precision(p4.gaussian(p4.lattice.chain(2, periodic=False), w=0.5, a=1.0)).tolist()
    [[2.0, -0.5], [-0.5, 2.0]]
    """
    return _quadratic_and_linear(model)[0]


@call_checked
def gaussian_mean(model: MarkovRandomField) -> JaxFlatField:
    """Mean −Q⁻¹r of a Gaussian field, S = ½ φᵀQφ + rᵀφ, as an array of shape ``(num_sites,)``.

    It is differentiable with respect to the couplings, and 0 without a source.

    Returns
    -------
    array; nan if Q is not positive definite.

    Raises
    ------
    ArgumentError
        If the model has quartic or user-defined terms, or more than 4096 sites.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.exact.gaussian_mean(p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5, r=2.0)).tolist()
    [-2.0]
    """
    precision, linear = _quadratic_and_linear(model)
    return -jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(precision), True), linear)


def _require_field(model) -> None:
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__)


def _quadratic_and_linear(model: MarkovRandomField):
    _require_field(model)
    n = model.lattice.num_sites
    others = [f.name for f in model.forms if not f.is_gaussian]
    if others:
        raise ArgumentError(
            "model",
            "a Gaussian field (hopping, mass and source terms)",
            f"also the term {others[0]!r}",
            reason="not_gaussian",
        )
    if n > DENSE_LIMIT:
        raise ArgumentError(
            "model",
            f"at most {DENSE_LIMIT} sites",
            str(n),
            "Dense matrices of this size do not fit.",
            reason="too_large",
        )
    precision, linear = jnp.zeros((n, n)), jnp.zeros(n)
    for form, value in model.interactions:
        i, j = form.cliques[:, 0], form.cliques[:, -1]
        theta = jnp.broadcast_to(jnp.asarray(value, precision.dtype), (len(i),))
        if form.power == 1:
            linear = linear.at[i].add(theta)
        elif form.power == 2:
            precision = precision.at[i, i].add(2 * theta)
        else:
            precision = precision.at[i, j].add(-theta).at[j, i].add(-theta)
    return precision, linear


def sparse_gaussian(model: MarkovRandomField) -> tuple[sparse.csc_matrix, np.ndarray]:
    """Q and r of a Gaussian field, S = ½ φᵀQφ + rᵀφ, in double precision; Q is sparse, of any number of sites."""
    n = model.lattice.num_sites
    rows, columns, entries, linear = [], [], [], np.zeros(n)
    for form, value in model.interactions:
        i, j = form.cliques[:, 0], form.cliques[:, -1]
        theta = np.broadcast_to(np.asarray(value, float), len(i))
        if form.power == 1:
            np.add.at(linear, i, theta)
        elif form.power == 2:
            rows, columns, entries = [*rows, i], [*columns, i], [*entries, 2 * theta]
        else:
            rows, columns, entries = [*rows, i, j], [*columns, j, i], [*entries, -theta, -theta]
    coordinates = np.concatenate(rows), np.concatenate(columns)
    return sparse.csc_matrix((np.concatenate(entries), coordinates), shape=(n, n)), linear


@call_checked
def gaussian_log_partition(model: MarkovRandomField, *, intrinsic: bool = False) -> Scalar:
    """log Z of a Gaussian field, (N/2) log 2π − ½ log det Q + ½ rᵀQ⁻¹r, differentiable in the couplings.

    Parameters
    ----------
    model : MarkovRandomField
        Hopping, mass and source terms only; at most 4096 sites.
    intrinsic : bool
        The field is flat along the constant field (an intrinsic field on a connected graph): exclude that direction.
        Z is then the integral over fields of zero mean.

    Returns
    -------
    scalar array; nan if Q is not positive definite.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.gaussian(p4.lattice.square(8), w=1.0, a=2.5)
    >>> round(float(p4.exact.gaussian_log_partition(model)), 3)
    10.558
    """
    precision, linear = _quadratic_and_linear(model)
    n = model.lattice.num_sites
    if intrinsic:
        # restricted to fields of zero mean; 1·1ᵀ/n then gives the constant field eigenvalue one and changes no other
        precision = precision - jnp.mean(precision, axis=0, keepdims=True)
        precision = precision - jnp.mean(precision, axis=1, keepdims=True) + 1 / n
        linear = linear - jnp.mean(linear)
    factor = jnp.linalg.cholesky(precision)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
    shift = jax.scipy.linalg.solve_triangular(factor, linear, lower=True)
    log_z = (n - intrinsic) / 2 * jnp.log(2 * jnp.pi) - half_log_det + jnp.dot(shift, shift) / 2
    # a pivot of the size of rounding errors belongs to a singular matrix
    rounding = n * jnp.finfo(precision.dtype).eps * jnp.max(jnp.diagonal(precision))
    return jnp.where(jnp.min(jnp.diagonal(factor)) ** 2 > rounding, log_z, jnp.nan)


def log_gaussian_integral(precision: Precision, linear: FlatField, library=jnp):
    """log ∫ exp(−½ xᵀQx − lᵀx) dx = (n log 2π − log det Q + lᵀQ⁻¹l)/2 of a positive definite Q, by JAX or by NumPy."""
    log_det = library.linalg.slogdet(precision)[1]
    return (len(linear) * np.log(2 * np.pi) - log_det + linear @ library.linalg.solve(precision, linear)) / 2


@call_checked
def quadrature(
    model: MarkovRandomField,
    observables: dict[str, Callable] | None = None,
    *,
    half_width: float = 6.0,
    points: int = 64,
) -> dict[str, float]:
    """Brute-force integrals over all fields by the trapezoidal rule on ``points**num_sites`` nodes.

    Parameters
    ----------
    model : MarkovRandomField
        Four sites at most at the default resolution.
    observables : dict of callables, optional
        Functions of one field; their expectations are returned under the same names.
    half_width : float
        The box is [−half_width, half_width] at every site.

    Returns
    -------
    dict with ``"log_partition"`` and the expectations.

    Raises
    ------
    ArgumentError
        If the grid is too large or too coarse, or the density has not fallen to 1e-12 of its maximum at the edge of
        the box.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> one = p4.phi4(p4.lattice.chain(1), a=1.52425, b=0.175)
    >>> round(p4.exact.quadrature(one, {"phi2": lambda phi: phi[0] ** 2})["phi2"], 5)
    0.27868
    """
    _require_field(model)
    points, n = positive_int("points", points, minimum=2), model.lattice.num_sites
    if not half_width > 0:
        raise ArgumentError("half_width", "a positive number", repr(half_width))
    if points**n > MAX_GRID:
        fix = "Fewer points or fewer sites; larger fields need sampling."
        raise ArgumentError("model", f"a grid of at most {MAX_GRID} nodes", f"{points}**{n}", fix, reason="too_large")
    nodes = np.linspace(-half_width, half_width, points)
    observables = dict(observables or {})
    for name, function in observables.items():
        result = jax.eval_shape(function, jax.ShapeDtypeStruct(model.field_shape, jnp.result_type(float)))
        if name == "log_partition" or jnp.shape(result) != ():
            expected = "functions of one field that return one number, none named 'log_partition'"
            raise ArgumentError("observables", expected, f"{name!r} of shape {jnp.shape(result)}", reason="returns")

    def at(number):
        phi = jnp.asarray(nodes)[jnp.stack(jnp.unravel_index(number, (points,) * n))].reshape(model.field_shape)
        return model.energy(phi), {name: f(phi) for name, f in observables.items()}

    batch = jax.jit(jax.vmap(at))
    actions, values = [], {name: [] for name in observables}
    for start in range(0, points**n, 2**18):
        action, value = batch(jnp.arange(start, min(start + 2**18, points**n)))
        actions.append(np.asarray(action, float))
        for name in observables:
            values[name].append(np.asarray(value[name], float))
    action = np.concatenate(actions)
    weight = np.exp(action.min() - action)
    cube = weight.reshape((points,) * n)
    edge = max(np.take(cube, side, axis).max() for axis in range(n) for side in (0, -1))
    if not edge < 1e-12:
        fix = "Enlarge half_width (and points with it)."
        raise ArgumentError(
            "half_width",
            "a box that holds the density",
            f"{edge:.1e} of the maximum at its edge",
            fix,
            reason="too_small",
        )
    coarse = cube[(slice(None, None, 2),) * n].sum() * 2**n / weight.sum()
    occupied = (weight.sum() ** 2 / (weight**2).sum()) ** (1 / n)
    if not (abs(coarse - 1) < 1e-2 and occupied >= 3):
        got = f"{points} points per site, of which the density occupies about {occupied:.1f}"
        raise ArgumentError(
            "points",
            "a grid that resolves the density",
            got,
            "More points, or a smaller half_width.",
            reason="unresolved",
        )
    step = nodes[1] - nodes[0]
    result = {"log_partition": float(np.log(weight.sum()) + n * np.log(step) - action.min())}
    for name in observables:
        result[name] = float(np.dot(weight, np.concatenate(values[name])) / weight.sum())
    return result
