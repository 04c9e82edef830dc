"""Critical couplings and ν from crossings of original and inversely renormalized observables.

A lift makes fields of side L of fields of side L/2. With lengths in sites these have twice the correlation length, so that the
lifted fields belong to a coupling K' nearer to the critical one: K' − K_c = 2^{−1/ν} (K − K_c). An intensive observable of
lifted fields, as a curve along K, crosses that of original fields of the same side L where K = K' = K_c, and there

    (dO_original/dK) / (dO_lifted/dK) = 2^{1/ν}.

D. Bachtis, G. Aarts, F. Di Renzo and B. Lucini, Phys. Rev. Lett. 128 (2022) 081603.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis.crossings import Crossings, find_crossings
from ..analysis.least_squares import correlated_fit
from ..analysis.scaling_table import ScalingTable
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, one_of, positive_int, seed_within
from ..errors.streams import stream_key, stream_seed
from ..reports.numbers import value_with_error
from ..results.correction import Summary, measure
from .cascade import InverseRenormalization
from .lifts import Lift

__all__ = ["InverseCrossings", "inverse_crossings"]

CROSSING = ("abs_m", "binder_cumulant", "correlation_length_ratio")
DISAGREE = 1e-3  # p of the crossings of all observables at one coupling


@call_checked
@dataclass(frozen=True, repr=False)
class InverseCrossings:
    """What `inverse_crossings` finds.

    Attributes
    ----------
    table : ScalingTable
        Observables of original fields, of side L, and of lifted ones, listed under the side L/2 of which they were made.
    crossings : dict
        Observable → `phi4ppl.analysis.Crossings`; those that do not cross are left out, see ``warnings``.
    values, errors : dict
        The critical coupling, by its name with ``_c``, and ``1/nu``: averages over all observables with the inverse of their
        covariance as weights, since all are measured on the same fields.
    p_values : dict
        By the same names, how well the observables agree.
    eta : float
        Of the lift: it moves the crossing of ``⟨|m|⟩``, and no other.
    warnings : tuple of str
    """

    table: ScalingTable
    crossings: dict[str, Crossings]
    values: dict[str, float]
    errors: dict[str, float]
    p_values: dict[str, float]
    eta: float
    warnings: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        return not self.warnings

    def __str__(self) -> str:
        small, large = np.unique(self.table.sizes)
        lines = [f"original fields of side {large:g} against fields lifted from {small:g}, eta = {self.eta:g}"]
        for name, each in self.crossings.items():
            where = value_with_error(each.position[0], each.position_error[0])
            slope = value_with_error(each.inverse_nu[0], each.inverse_nu_error[0])
            lines.append(f"  {name:26s} cross at {where}, 1/nu = {slope}")
        for name, value in self.values.items():
            lines.append(f"  {name} = {value_with_error(value, self.errors[name])}   (p = {self.p_values[name]:.2g})")
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__


@call_checked
def inverse_crossings(
    model_of_size: Callable, *, side: int, vary: Mapping, lift: str | Lift | Callable = "copy", eta: float | None = None,
    fields: int = 1000, observables: Sequence[str] = CROSSING, degree: int = 2, kernel: str = "auto", seed: int = 0,
) -> InverseCrossings:  # fmt: skip
    """Where observables of original and of inversely renormalized fields cross, and 1/ν from the slopes there.

    Lifted fields are not corrected: sweeps at K would make them original ones.

    Parameters
    ----------
    model_of_size : callable
        ``model_of_size(L)``: the model on a periodic lattice of side L.
    side : int
        L of the original fields; others are lifted from L/2.
    vary : dict
        The name of one coupling → its values in ascending order, around the critical one, such as
        ``{"w": np.linspace(0.66, 0.70, 5)}``.
    lift, eta, kernel
        As in `InverseRenormalization`. Learned lifts are trained at the middle coupling.
    fields : int, default 1000
        Independent fields of each size at each coupling.
    observables : sequence of str
        Intensive ones: ``"abs_m"``, ``"binder_cumulant"``, ``"correlation_length_ratio"``. A linear lift leaves U₄ as it is, so
        that its crossing is the ordinary one of the sizes L/2 and L.
    degree : int, default 2
        Of the polynomials through the curves.
    seed : int

    Returns
    -------
    InverseCrossings

    Raises
    ------
    ArgumentError
        If an argument does not suit, or no observable crosses.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> found = p4.renormalization.inverse_crossings(
    ...     lambda L: p4.phi4(p4.lattice.square(L), w=0.68, a=-1.0, b=1.0), side=8, vary={"w": np.linspace(0.62, 0.74, 3)},
    ...     fields=200, kernel="local_hmc", observables=["binder_cumulant"], degree=1, seed=1,
    ... )
    >>> bool(abs(found.values["w_c"] - 0.6806) < 0.05)
    True
    """
    side, number = positive_int("side", side, minimum=8), positive_int("fields", fields, minimum=20)
    seed = seed_within(seed)
    if side % 4:
        raise ArgumentError("side", "a multiple of 4", str(side), reason="even")
    observables = [one_of("observables", each, CROSSING) for each in dict.fromkeys(observables)]
    name, couplings = _couplings(vary, degree)
    summaries: dict[int, list[Summary]] = {side // 2: [], side: []}
    middle = InverseRenormalization(
        lambda size: model_of_size(size).replace(**{name: couplings[len(couplings) // 2]}), lift, eta, kernel=kernel,
        seed=stream_seed(seed, "lift"),
    )  # fmt: skip
    trained = middle._trained(side // 2)
    for k, coupling in enumerate(couplings):
        of_size = lambda size, y=coupling: model_of_size(size).replace(**{name: y})  # noqa: E731
        at = InverseRenormalization(of_size, "copy", kernel=kernel)
        model = at.at(side)
        originals = at.start(side, number, seed=stream_seed(seed, "original", k))
        coarse = at.start(side // 2, number, seed=stream_seed(seed, "coarse", k)).fields
        lifted = np.asarray(trained(jax.random.fold_in(stream_key(seed, "lift"), k), jnp.asarray(coarse)))
        summaries[side].append(originals.corrected.after)
        summaries[side // 2].append(measure(model, lifted))
    table = _table(summaries, couplings, observables, name)
    found = {each: find_crossings(table, each, degree=degree) for each in observables}
    warnings = [f"{each}: {text}" for each in observables for text in found[each].warnings]
    crossings = {each: one for each, one in found.items() if len(one.position)}
    if not crossings:
        fix = "Scan a wider range of couplings, or with more fields."
        got = f"none of {', '.join(observables)} from {couplings[0]:g} to {couplings[-1]:g}"
        raise ArgumentError("vary", "couplings between which an observable crosses", got, fix, reason="crossing")
    values, errors, p_values = _averages(table, crossings)
    eta = middle.eta_of(len(model.field_shape))
    for each, p in p_values.items():
        if p < DISAGREE:
            doubt = f"eta = {eta:g} is wrong, or the sizes are too small."
            warnings.append(f"{each} differs among {', '.join(crossings)} (p = {p:.1g}): {doubt}")
    return InverseCrossings(table, crossings, values, errors, p_values, eta, tuple(warnings))


def _couplings(vary: Mapping, degree: int) -> tuple[str, np.ndarray]:
    if len(vary) != 1:
        fix = "For example {'w': np.linspace(0.66, 0.70, 5)}."
        raise ArgumentError("vary", "a dict of one coupling", repr(vary)[:80], fix)
    ((name, values),) = vary.items()
    values, degree = finite_array("vary", values), positive_int("degree", degree)
    if values.ndim != 1 or len(values) < degree + 1 or np.any(np.diff(values) <= 0):
        expected = f"{degree + 1} couplings or more in ascending order, for polynomials of degree {degree}"
        raise ArgumentError("vary", expected, repr(values)[:80], reason="order")
    return name, values


def _table(summaries: Mapping[int, list[Summary]], couplings, observables, name: str) -> ScalingTable:
    """Rows by size and coupling; observables of one row are correlated, rows are independent."""
    rows = [(size, y, each) for size, own in summaries.items() for y, each in zip(couplings, own, strict=True)]
    covariance = np.zeros((len(observables), len(rows)) * 2)
    for k, (*_, each) in enumerate(rows):
        moves = np.stack([each.influence[of] for of in observables])
        covariance[:, k, :, k] = moves @ moves.T / moves.shape[1] ** 2
    values = {of: np.array([each.values[of] for *_, each in rows]) for of in observables}
    flat = covariance.reshape((len(observables) * len(rows),) * 2)
    return ScalingTable(np.array([float(r[0]) for r in rows]), np.array([r[1] for r in rows]), values, flat, name)


def _averages(table: ScalingTable, crossings: Mapping[str, Crossings]):
    """The coupling and 1/ν of all observables together, their errors, and p of their agreement."""
    rows, places = len(table.sizes), [table.names.index(name) for name in crossings]
    values, errors, p_values = {}, {}, {}
    for row, name in ((0, f"{table.coupling}_c"), (2, "1/nu")):
        found = np.array([(each.position, None, each.inverse_nu)[row][0] for each in crossings.values()])
        good = np.isfinite(found)
        if not good.any():
            continue
        maps = np.zeros((len(found), len(table.covariance)))
        for k, (place, each) in enumerate(zip(places, crossings.values(), strict=True)):
            maps[k, place * rows : (place + 1) * rows] = each.jacobian[row]
        own, chosen = found[good], maps[good]
        ones = np.ones(len(own))
        fit = correlated_fit(lambda p, ones=ones: p[0] * ones, own, chosen @ table.covariance @ chosen.T, own[:1])
        values[name], errors[name] = float(fit.parameters[0]), math.sqrt(fit.covariance[0, 0])
        p_values[name] = float(fit.p_value)
    return values, errors, p_values
