"""Independent draws of fields inside NumPyro, where keys and couplings may be traced: exact ones, or ends of short chains."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from scipy.sparse.linalg import splu, spsolve_triangular

from ..energy import onesite
from ..energy.exact.gaussian import DENSE_LIMIT, gaussian_mean, gaussian_precision, sparse_gaussian
from ..energy.functions import energy
from ..errors import DrawNotAvailableError
from ..lattice.coloring import colors
from ..model.field import MarkovRandomField
from ..model.term import is_concrete
from .draw_check import DrawCheck

__all__ = ["NUM_SWEEPS", "draw_fields", "site_powers"]

NUM_SWEEPS = 500
PROPOSED = (1, 2, 4)  # powers in the density of one site that is drawn from exactly


def draw_fields(model: MarkovRandomField, key, number: int, num_sweeps: int = NUM_SWEEPS) -> jax.Array:
    """``number`` independent fields, shape ``(number, num_sites)``.

    Gaussian fields are drawn exactly: by a dense Cholesky factor, in Fourier space on periodic lattices with homogeneous
    couplings, by a sparse factor on the host otherwise. So are sites that do not interact. Every other field is the end of a
    chain of its own, of ``num_sweeps`` sweeps of heat bath: site by site, color by color, φ_i is drawn from its exact density
    given the rest by `phi4ppl.quartic.draw`; where a site has other terms, that is a proposal, accepted by Metropolis. The
    chains start at fields of one sign, drawn at random, and after every sweep of a model that is not even −φ is proposed.

    Warns
    -----
    UserWarning
        If chains turn out to be shorter than about 20 autocorrelation times, or the couplings are frustrated (`DrawCheck`).

    Raises
    ------
    DrawNotAvailableError
        If the field is not normalizable, or a site has neither a quartic coupling nor a positive mass to propose from.
    """
    if all(is_concrete(value) for value in model.couplings.values()):
        report = model.check()
        if not report.is_normalizable:
            raise DrawNotAvailableError(
                "not_normalizable",
                f"{model!r} cannot be drawn: it has no density, because Z is infinite ({report.normalizable_reason}).",
            )
    if all(form.is_gaussian for form in model.forms):
        return _gaussian(model, key, number)
    start_key, chain_key = jax.random.split(key)
    _, square, fourth = site_powers(model, jnp.zeros(model.lattice.num_sites))
    _require_proposal(model, square, fourth)
    shape = (number, model.lattice.num_sites)
    if all(form.power in PROPOSED for form in model.forms):
        linear = jax.grad(energy, argnums=1)(_linear(model), jnp.zeros(model.field_shape)).reshape(-1)
        return onesite.draw(start_key, linear[None], square[None], fourth[None], shape=shape)
    size_key, sign_key = jax.random.split(start_key)
    size = jnp.abs(onesite.draw(size_key, 0.0, square[None], fourth[None], shape=shape))
    start = size * jax.random.rademacher(sign_key, (number, 1), size.dtype)

    check = DrawCheck(model.structure, num_sweeps)
    watch = check.watch(model)

    def sweep(k, phi):
        return _sweep(model, jax.random.fold_in(chain_key, k), phi, square, fourth)

    def sweeps(phi, first):
        phi = jax.lax.fori_loop(first, first + check.stride, sweep, phi)
        return phi, watch(phi)

    phi, series = jax.lax.scan(sweeps, start, jnp.arange(0, num_sweeps, check.stride))
    check.judge(model, series)
    return phi


def site_powers(model: MarkovRandomField, like) -> tuple:
    """Sums of the couplings of φ, φ² and φ⁴ at every site, shapes ``(num_sites,)``."""
    found = {power: jnp.zeros_like(like) for power in PROPOSED}
    for form, theta in model.interactions:
        if form.power in found:
            theta = jnp.broadcast_to(jnp.asarray(theta, like.dtype), len(form.cliques))
            found[form.power] = found[form.power].at[form.cliques[:, 0]].add(theta)
    return tuple(found[power] for power in PROPOSED)


def _linear(model: MarkovRandomField) -> MarkovRandomField:
    """The terms that are linear in the field of one site."""
    return model.select(lambda form: form.is_hopping or form.power == 1)


def _require_proposal(model: MarkovRandomField, square, fourth) -> None:
    if not (is_concrete(square) and is_concrete(fourth)):
        return
    bad = np.flatnonzero(~((np.asarray(fourth) > 0) | ((np.asarray(fourth) == 0) & (np.asarray(square) > 0))))
    if len(bad):
        raise DrawNotAvailableError(
            "no_proposal",
            f"{model!r} cannot be drawn: site {bad[0]} has neither a positive quartic coupling nor a positive mass to propose "
            "from. Draw it with phi4ppl.sample(model), or pass Predictive posterior_samples that contain this site.",
        )


# --- chains


def _sweep(model: MarkovRandomField, key, phi, square, fourth):
    """Every site once, color by color; ``phi`` has shape (number, num_sites)."""
    number, num_sites = phi.shape
    table = jnp.asarray(_table(colors(model.lattice, model.forms)))
    linear = _linear(model)
    others = [(f, v) for f, v in model.interactions if not f.is_hopping and f.power not in PROPOSED]
    slope_of = jax.vmap(lambda field: jax.grad(energy, argnums=1)(linear, field.reshape(model.field_shape)).reshape(-1))

    def turn(phi, numbered):
        k, sites = numbered
        draw_key, accept_key = jax.random.split(jax.random.fold_in(key, k))
        slope = slope_of(phi) if linear.forms else jnp.zeros_like(phi)
        at = jnp.minimum(sites, num_sites - 1)
        drawn = onesite.draw(draw_key, slope[:, at], square[at][None], fourth[at][None], shape=(number, table.shape[1]))
        new = phi.at[:, sites].set(drawn, mode="drop")
        if others:
            mine = jnp.zeros(num_sites, bool).at[sites].set(True, mode="drop")
            change = jax.vmap(_change, (None, 0, 0, None))(others, new, phi, mine)
            refused = jax.random.uniform(accept_key, phi.shape, phi.dtype) >= jnp.exp(jnp.minimum(-change, 0))
            new = jnp.where(refused, phi, new)
        return new, None

    phi, _ = jax.lax.scan(turn, phi, (jnp.arange(len(table)), table))
    if all(form.built_in and form.built_in.is_even for form in model.forms):
        return phi
    of_fields = jax.vmap(lambda field: energy(model, field.reshape(model.field_shape)))
    flip = jax.random.uniform(jax.random.fold_in(key, len(table)), (number,), phi.dtype)
    return jnp.where((flip < jnp.exp(jnp.minimum(of_fields(phi) - of_fields(-phi), 0)))[:, None], -phi, phi)


def _change(terms, new, old, mine):
    """Change of the energies of other terms, booked on the one site of each clique that moved."""
    total = jnp.zeros_like(new)
    for form, theta in terms:
        change = theta * (form.values(new) - form.values(old))
        for column in form.cliques.T:
            total = total.at[column].add(jnp.where(mine[column], change, 0))
    return total


def _table(color: np.ndarray) -> np.ndarray:
    """The sites of every color as rows of equal length, filled up with ``num_sites``."""
    rows = [np.flatnonzero(color == k) for k in range(color.max() + 1)]
    table = np.full((len(rows), max(map(len, rows))), len(color))
    for row, sites in zip(table, rows, strict=True):
        row[: len(sites)] = sites
    return table


# --- Gaussian fields


def _gaussian(model: MarkovRandomField, key, number: int):
    num_sites = model.lattice.num_sites
    if num_sites <= DENSE_LIMIT:
        precision = gaussian_precision(model)
        factor = jnp.linalg.cholesky(precision)
        white = jax.random.normal(key, (num_sites, number), precision.dtype)
        field = solve_triangular(factor.T, white, lower=False)
        if any(form.power == 1 for form in model.forms):
            field += gaussian_mean(model)[:, None]
        return field.T
    white = jax.random.normal(key, (number, num_sites))
    return _by_fourier(model, white) if _is_translation_invariant(model) else _by_sparse_factor(model, white)


def _is_translation_invariant(model: MarkovRandomField) -> bool:
    """Whether every translation of a regular lattice leaves the model as it is."""
    lattice = model.lattice
    if lattice.offsets is None or not all(lattice.periodic) or lattice.sign_kinds:
        return False
    kinds = [lattice.edges_of(kind) for kind in lattice.kinds]
    for form, value in model.interactions:
        everywhere = any(len(form.cliques) == len(e) and np.array_equal(form.cliques, e) for e in kinds)
        everywhere |= form.cliques.shape[1] == 1 and len(form.cliques) == lattice.num_sites
        everywhere |= form.is_hopping and np.array_equal(form.cliques, lattice.edges)
        if np.ndim(value) or not everywhere:
            return False
    return True


def _by_fourier(model: MarkovRandomField, white):
    """Q is a circulant matrix: its eigenvalues are the transform of one of its columns."""
    shape = model.field_shape
    force = jax.grad(energy, argnums=1)
    zero = jnp.zeros(shape, white.dtype)
    linear = force(model, zero)
    column = force(model, zero.at[(0,) * len(shape)].set(1.0)) - linear
    eigenvalues = jnp.fft.fftn(column).real
    axes = tuple(range(1, 1 + len(shape)))
    modes = jnp.fft.fftn(white.reshape(-1, *shape), axes=axes) / jnp.sqrt(eigenvalues)
    field = jnp.fft.ifftn(modes, axes=axes).real - linear.ravel()[0] / eigenvalues.ravel()[0]
    return field.reshape(white.shape).astype(white.dtype)


def _by_sparse_factor(model: MarkovRandomField, white):
    """x = Q^(−1/2)z − Q⁻¹r by a sparse LDLᵀ factor, computed in double precision on the host."""
    structure = model.structure

    def host(values, white):
        return _solved(structure.at(tuple(map(np.asarray, values))), np.asarray(white, float)).astype(white.dtype)

    shape = jax.ShapeDtypeStruct(white.shape, white.dtype)
    values = tuple(jnp.asarray(value) for value in model.couplings.values())
    return jax.pure_callback(host, shape, values, white, vmap_method="sequential")


def _solved(model: MarkovRandomField, white: np.ndarray) -> np.ndarray:
    precision, linear = sparse_gaussian(model)
    try:
        factors = splu(precision, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:
        return np.full(white.shape, np.nan)
    pivots = factors.U.diagonal()
    if not np.all(pivots > 0):
        return np.full(white.shape, np.nan)
    scaled = (white / np.sqrt(pivots)).T
    field = spsolve_triangular(factors.L.T.tocsr(), scaled, lower=False, unit_diagonal=True)[factors.perm_c]
    return (field - factors.solve(linear)[:, None]).T
