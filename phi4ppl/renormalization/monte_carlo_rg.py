"""Monte Carlo renormalization: exponents from how operators of successive levels fluctuate together.

R. H. Swendsen, Phys. Rev. Lett. 42 (1979) 859. With S_α the operators and K_α their couplings, −S_action = Σ K_α S_α, the chain
rule for ∂⟨S_γ^{(n)}⟩/∂K_β^{(n−1)} reads C = B T:

    B_γα = Cov(S_γ^{(n)}, S_α^{(n)}),   C_γβ = Cov(S_γ^{(n)}, S_β^{(n−1)}),   T_αβ = ∂K_α^{(n)}/∂K_β^{(n−1)},

whose eigenvalues at the fixed point are b^y. Even and odd operators do not mix. B is inverted by its singular values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .._typing import Labeled, Series
from ..analysis.blocks import Blocks, blocks_for, jackknife_bias, jackknife_error
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int
from ..lattice.frozen import Lattice
from .blocking import Blocked, block, fields_of
from .matching import match
from .monte_carlo_rg_result import ExponentRow, MonteCarloRG, Recommendation
from .operators import Operator, measure_operators, operators_of, standard_operators
from .rules import BellWilson, Linear, Rule

__all__ = ["monte_carlo_rg", "most_levels"]

MAX_BLOCKS = 200
MIN_DRAWS = 100
SECTORS = {"even": "y_t", "odd": "y_h"}
SAME = 1e-6  # 1 − r² of the sums of two levels, below which one is a multiple of the other
PRECISE = 2.0  # a level above the deepest is preferred if it agrees and its error is this many times smaller
CONDITION = 1e8  # of B, above which its inverse is noise


@call_checked
def monte_carlo_rg(
    run: Labeled | Blocked, rule: str | Rule | Callable | Sequence = ("sign", "majority"), *, operators=None,
    levels: int = 3, factor: int = 2, eta: float | None = None, cuts: Sequence[float] = (0.0, 1e-3, 1e-2),
    second: Labeled | Blocked | None = None, lattice: Lattice | None = None, seed: int = 0,
) -> MonteCarloRG:  # fmt: skip
    """Critical exponents from one run at the critical point, by Swendsen's method.

    Parameters
    ----------
    run : DataTree of a run, array of shape ``(chains, draws, *lattice)``, or Blocked
        Fields of a critical model on a torus.
    rule, factor, eta, lattice, seed
        As in `block`; what a `Blocked` already has is not asked for again.
    operators : optional
        None for `standard_operators`; names among them; or a dict from names to clusters of offsets, such as
        ``{"nn": [(0, 0), (1, 0)]}``, or to even or odd functions of one field. The order is that in which they are kept.
    levels : int, default 3
        How many times to block. A step is used if its rule leads from fields of one kind to the same kind: from spins to
        spins, or from fields to fields.
    cuts : sequence of floats
        Singular values of B, scaled to a unit diagonal, below this part of the largest are left out.
    second : as run, optional
        A run of the same model with sides shorter by the factor: two-lattice matching, which is a second way to y_t and y_h
        and finds out how far the coupling is from its critical value.

    Returns
    -------
    MonteCarloRG
        ``print`` it: recommended exponents with errors and reasons. ``rows`` is the table over operators kept, levels and cuts.

    Raises
    ------
    ArgumentError
        If no step is usable, the coarsest lattice is too small for the operators, or there are fewer than 100 draws.

    Notes
    -----
    The jackknife leaves out blocks of ten autocorrelation times, the same at both levels. Under a rule that is linear in the
    field the odd eigenvalue is b^d/s = b^{(d+2−η)/2} identically, whatever the fields: it is listed as an input.

    Examples
    --------
    The chain of Ising spins, whose decimation is exact: dK'/dK = tanh 2K.

    >>> import numpy as np, phi4ppl as p4
    >>> walls = np.random.default_rng(1).random((4000, 16)) < 1 / (1 + np.exp(2 * 0.6))
    >>> walls = walls[walls.sum(axis=1) % 2 == 0]  # a ring has an even number of domain walls
    >>> spins = np.cumprod(np.where(walls, -1.0, 1.0), axis=1)[None]
    >>> ring = p4.lattice.chain(16)
    >>> found = p4.renormalization.monte_carlo_rg(spins, "decimate", operators=["1"], levels=1, lattice=ring)
    >>> bool(abs(found.values["y_t"] - np.log2(np.tanh(1.2))) < 4 * found.errors["y_t"])
    True
    """
    cuts = tuple(float(c) for c in np.atleast_1d(finite_array("cuts", cuts)))
    if not cuts or min(cuts) < 0 or max(cuts) >= 1:
        raise ArgumentError("cuts", "numbers from 0 to below 1", repr(cuts))
    settings = {"rule": rule, "factor": factor, "eta": eta, "lattice": lattice, "seed": seed}
    blocked = run if isinstance(run, Blocked) else block(run, levels=positive_int("levels", levels), **settings)
    steps, chosen = _usable(blocked, operators)
    measured = {level: measure_operators(blocked[level], chosen) for level in {k for s in steps for k in (s, s + 1)}}
    rows, inputs, best = [], {}, {}
    for sector in SECTORS:
        own = [k for k, each in enumerate(chosen) if each.is_even == (sector == "even")]
        if not own:
            continue
        found = []
        for step in steps:
            fine, coarse = (measured[k][..., own] for k in (step, step + 1))
            names = tuple(chosen[k].name for k in own)
            found += _rows(sector, step, blocked, names, fine, coarse, cuts)
        rows += found
        if sector == "odd" and (fixed := _identity(blocked, steps)):
            inputs[SECTORS[sector]] = fixed
        elif good := [row for row in found if math.isfinite(row.error)]:
            best[SECTORS[sector]] = _recommended(good, tuple(chosen[k].name for k in own))
    matching = None
    if second is not None:
        matching = match(blocked, _second(blocked, second, seed), chosen)
    return MonteCarloRG(tuple(rows), best, inputs, blocked, tuple(each.name for each in chosen), matching)


def _usable(blocked: Blocked, given) -> tuple[list[int], tuple[Operator, ...]]:
    """Steps between fields of one kind, and the operators."""
    if blocked.factor is None:
        fix = "Operators are sums over translations: block a regular lattice."
        raise ArgumentError("run", "a regular lattice", "a partition", fix, reason="partition")
    chains, draws = blocked[0].shape[:2]
    if chains * draws < MIN_DRAWS or draws < 8:
        raise ArgumentError("run", f"at least {MIN_DRAWS} fields, 8 of a chain", f"{chains} × {draws}", reason="count")
    spins = [bool(np.all(np.abs(fields[:, :8]) == 1)) for fields in blocked.fields]
    steps = [k for k in range(blocked.levels) if spins[k] == spins[k + 1]]
    if not steps:
        fix = "Block once more: the first step makes spins of fields."
        raise ArgumentError("levels", "a step between fields of one kind", f"{blocked.levels}", fix, reason="kind")
    operators = operators_of(given, blocked.lattices[steps[0]], spins[steps[-1]])
    side, reach = min(blocked.lattices[steps[-1] + 1].field_shape), max(each.reach for each in operators)
    if side <= 2 * reach:
        fix = "Block fewer times, start from a larger lattice, or give operators= of smaller clusters."
        expected = f"a coarsest side above {2 * reach}, twice the reach of the operators"
        raise ArgumentError("levels", expected, f"{side}", fix, reason="small")
    return steps, operators


def most_levels(lattice: Lattice, factor: int = 2) -> int:
    """How often fields of a torus can be blocked before its sides are no multiples, or too short for standard operators.

    Raises
    ------
    ArgumentError
        If it is no torus.
    """
    shape = lattice.shape
    if shape is None or not all(np.ravel(lattice.periodic)) or lattice.sign_kinds:
        fix = "Build it with phi4ppl.lattice.square(L) or another regular one."
        raise ArgumentError("model", "a periodic lattice", repr(lattice), fix, reason="lattice")
    reach, levels = max(each.reach for each in standard_operators(len(shape))), 0
    while all(n % factor == 0 and n // factor > 2 * reach for n in shape):
        shape, levels = tuple(n // factor for n in shape), levels + 1
    return levels


def _second(blocked: Blocked, second, seed: int):
    """The second run with one step less, by the same rules, or its fields if there are none left."""
    if isinstance(second, Blocked):
        return second
    lattice = blocked.lattices[1]
    try:
        fields, _ = fields_of(second, lattice)
    except ArgumentError as error:
        fix = "Sample the same model there."
        expected = f"fields on {lattice.name}, sides shorter by the factor"
        raise ArgumentError("second", expected, error.got, fix, reason="shape") from error
    if blocked.levels == 1:
        return Blocked((fields,), (lattice,), (), (), seed)
    return block(
        fields, blocked.rules[:-1], factor=blocked.factor or 2, levels=blocked.levels - 1, lattice=lattice, seed=seed
    )


def _rows(sector: str, step: int, blocked: Blocked, names, fine: Series, coarse: Series, cuts) -> list[ExponentRow]:
    """All numbers of operators and all cuts of one step; a cut that leaves out nothing more gives no row of its own."""
    moving = np.ptp(coarse, axis=(0, 1)) > 0
    fine, coarse, names = fine[..., moving], coarse[..., moving], tuple(np.array(names)[moving].tolist())
    # what decides is how products of operators are correlated in time; those of odd ones do not change sign
    series = np.concatenate([fine, coarse], axis=2)
    blocks = blocks_for(series if sector == "even" else series**2, most=MAX_BLOCKS)
    full, replicas = _covariances(fine, coarse, blocks)
    one, two = (blocked.lattices[k].field_shape[0] for k in (step, step + 1))
    rows, log_b = [], math.log(blocked.factor or 2)

    def exponents(pair, kept: int, rank: int) -> np.ndarray:
        value = _leading(pair[0][:, :kept, :kept], pair[1][:, :kept, :kept], rank)
        return np.log(np.where(value > 0, value, np.nan)) / log_b

    for kept in range(1, len(names) + 1):
        ranks: set[int] = set()
        for cut in cuts:
            condition, rank = _spectrum(full[0][0, :kept, :kept], cut)
            if rank in ranks:
                continue
            ranks.add(rank)
            (y,), without = exponents(full, kept, rank), exponents(replicas, kept, rank)
            error, bias = float(jackknife_error(blocks, without)), float(jackknife_bias(blocks, without, y))
            own = names[:kept]
            rows.append(
                ExponentRow(
                    sector, step, (one, two), own, cut, rank, condition, math.exp(y * log_b), float(y), error, bias
                )
            )
    return rows


def _covariances(fine: Series, coarse: Series, blocks: Blocks):
    """B and C of all draws, and without one block each: pairs of (1, n, n), and of (blocks, n, n)."""
    number = coarse.shape[2]
    draws = np.concatenate([coarse, fine], axis=2).reshape(-1, 2 * number)
    draws = draws - draws.mean(axis=0)
    ends = [*blocks.starts[1:], len(draws)]
    products = np.stack([draws[i:j, :number].T @ draws[i:j] for i, j in zip(blocks.starts, ends, strict=True)])
    sums, counts = blocks.sums(draws), np.diff([*blocks.starts, len(draws)])[:, None]

    def split(mean_product, mean):
        covariance = mean_product - mean[..., :number, None] * mean[..., None, :]
        return covariance[..., :number], covariance[..., number:]

    total = products.sum(axis=0)
    left = len(draws) - counts
    return (
        split(total[None] / len(draws), np.zeros((1, 2 * number))),
        split((total - products) / left[:, :, None], -sums / left),
    )


def _spectrum(covariance: np.ndarray, cut: float) -> tuple[float, int]:
    """Condition number of B with unit diagonal, and how many singular values are kept."""
    spread = np.sqrt(np.diag(covariance))
    values = np.linalg.svd(covariance / np.outer(spread, spread), compute_uv=False)
    smallest = max(cut, 1e-13)
    return float(values[0] / max(values[-1], 1e-300)), int(np.sum(values > smallest * values[0]))


def _leading(b: np.ndarray, c: np.ndarray, rank: int) -> np.ndarray:
    """The largest real eigenvalue of B⁻¹C of every replica; nan where the largest is complex."""
    spread = np.sqrt(np.diagonal(b, axis1=1, axis2=2))
    u, values, vt = np.linalg.svd(b / (spread[:, :, None] * spread[:, None, :]))
    inverse = (vt[:, :rank].transpose(0, 2, 1) / values[:, None, :rank]) @ u[:, :, :rank].transpose(0, 2, 1)
    matrix = inverse @ (c / spread[:, :, None]) / spread[:, :, None]
    found = np.linalg.eigvals(matrix)
    top = np.take_along_axis(found, np.argmax(np.abs(found), axis=1)[:, None], axis=1)[:, 0]
    return np.where(np.abs(top.imag) < 1e-9 * np.abs(top), top.real, np.nan)


def _identity(blocked: Blocked, steps) -> tuple[float, str] | None:
    """The odd exponent that a linear rule fixes, and the message; None if it is a measurement."""
    axes, dimension = tuple(range(2, blocked[0].ndim)), blocked[0].ndim - 2
    for step in steps:
        rule, blocks = blocked.rules[step], blocked.blocks[step]
        one, two = (blocked[k].sum(axis=axes, dtype=float).ravel() for k in (step, step + 1))
        r, slope = np.corrcoef(one, two)[0, 1], (one @ two) / (one @ one)
        if rule.conserves or isinstance(rule, BellWilson) or 1 - r**2 < SAME:
            eta = f" with eta = {rule.eta:g}" if isinstance(rule, Linear) and rule.eta is not None else ""
            log_b, linear = math.log(blocks.factor or 2), isinstance(rule, Linear)
            y = dimension - math.log(rule.scale(blocks)) / log_b if linear else -math.log(abs(slope)) / log_b
            return y, (
                f"The rule {rule.name!r} is linear in the field{eta}: it makes the odd eigenvalue b^d/s = b^((d+2-eta)/2) "
                "identically, whatever the fields. That is an input, no measurement. Use 'sign' or 'majority', or second=."
            )
    return None


def _recommended(rows: list[ExponentRow], asked: tuple[str, ...]) -> Recommendation:
    """The deepest level, with as many operators as B can be inverted for; or a more precise one that agrees with it.

    The reason names the operators among ``asked`` that are not kept.
    """
    by_level: dict[int, list[ExponentRow]] = {}
    for row in rows:
        by_level.setdefault(row.step, []).append(row)
    full = {}
    for step, own in by_level.items():
        sound = [row for row in own if row.condition < CONDITION or row.rank < len(row.names)] or own
        most = max(len(row.names) for row in sound)
        full[step] = max((row for row in sound if len(row.names) == most), key=lambda row: row.rank)
    deepest = full[max(full)]

    def apart(row, other):
        return (row.exponent - other.exponent) / math.hypot(row.error, other.error)

    agree = [row for row in full.values() if row.error < deepest.error / PRECISE and abs(apart(row, deepest)) < 1]
    row = max(agree, key=lambda each: each.step, default=deepest)
    what = "the deepest level" if row is deepest else "more precise than the deepest level, with which it agrees"
    reason = f"{row.sides[0]}→{row.sides[1]}, {what}; {len(row.names)} operators, condition number {row.condition:.2g}"
    if row.rank < len(row.names):
        reason += f", {row.rank} of their singular values"
    if left_out := [name for name in asked if name not in row.names]:
        reason += (
            f"; without {', '.join(left_out)}, with which B cannot be inverted or the largest eigenvalue is not real"
        )
    fewer = [r for r in by_level[row.step] if len(r.names) == len(row.names) - 1 and r.cut <= row.cut]
    if fewer and row.error > 0:
        reason += f"; the last one changes it by {abs(fewer[0].exponent - row.exponent) / row.error:.1f} errors"
    before = full.get(deepest.step - 1)
    drift = None if before is None else apart(deepest, before)
    if drift is not None:
        reason += f", the last level by {abs(drift):.1f}"
    return Recommendation(row, reason, drift)
