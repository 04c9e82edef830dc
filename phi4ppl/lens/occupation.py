"""Occupation numbers: how much every mode of every layer fluctuates above the vacuum, and with which others."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Labeled
from ..analysis.two_point import smallest_lattice_momentum, two_point
from ..errors import ArgumentError
from ..errors.arguments import call_checked, seed_within
from ..renormalization.blocks_of_sites import regular
from ..reports.card import card
from .activations import channels_of, examples, layers, num_examples, with_space
from .domain_shift import Shift, compared
from .leave_out import Measured, aligned, groups_of, measured_of_sums, require_examples, sums_by_group

__all__ = ["LayerOccupation", "Occupation", "correlation_length", "occupation"]

MIN_EXAMPLES = 20
MAX_UNITS = 512  # of which a covariance is decomposed
SILENT = 1e-9  # of the largest value of a layer: no activation
STILL = 1e-6  # of the largest fluctuation of a layer: a unit that tells no examples apart
HEAD = (
    "layer",
    "modes",
    "mean",
    "fluctuation",
    "above vacuum",
    "silent",
    "dead",
    "fourth/second²",
    "principal",
    "⟨r²⟩",
    "ξ",
)


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class LayerOccupation:
    """Occupation of one layer; see `occupation`. Pairs of arrays are values by mode with their standard errors.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of the layer for one example.
    mean, fluctuation : pairs of arrays, shape ``(modes,)``
        ⟨h⟩ and (⟨h²⟩ − ⟨h⟩²)^½ over examples, and over positions where the layer has any.
    second_moment, fourth_ratio : pairs of arrays, shape ``(modes,)``
        ⟨δ²⟩ and ⟨δ⁴⟩/⟨δ²⟩² of δ = h − vacuum. The ratio is 3 for a Gaussian of mean 0, and nan for a mode that never leaves the
        vacuum.
    silent : pair of arrays, shape ``(modes,)``
        Share of examples (and positions) at which the mode is zero.
    dead : Measured
        Share of units that have the same value for all examples.
    principal : pair of arrays
        Eigenvalues of the covariance of the modes (of the sites, where there is one mode), in descending order: occupation
        numbers in the basis in which modes are uncorrelated.
    participation : Measured
        (Σn)²/Σn² of these: as if so many modes were equally occupied.
    correlation : float array, shape ``(units, units)``
        Correlation coefficients of these modes or sites.
    square_correlation : Measured
        Mean of their squares over pairs of different ones: 0 for independent ones, 1 for copies.
    correlation_length : Measured or None
        ξ = (S(0)/S(k) − 1)^½/k̂ of the fluctuations about the mean map, in sites, with S(k) summed over modes and k the smallest
        momentum; nan where S(0) < S(k), None without space.
    vacuum : float array, shape ``(modes,)``
        Values in the vacuum, averaged over positions.
    excitation : Measured
        Root mean square of δ over all modes: the response to what the data add to the vacuum.
    averages : dict
        Mean over the modes of ``mean``, ``fluctuation``, ``second_moment``, ``fourth_ratio`` and ``silent``, as `Measured`.
    notes : tuple of str
    """

    name: str
    shape: tuple[int, ...]
    mean: tuple[np.ndarray, np.ndarray]
    fluctuation: tuple[np.ndarray, np.ndarray]
    second_moment: tuple[np.ndarray, np.ndarray]
    fourth_ratio: tuple[np.ndarray, np.ndarray]
    silent: tuple[np.ndarray, np.ndarray]
    dead: Measured
    principal: tuple[np.ndarray, np.ndarray]
    participation: Measured
    correlation: np.ndarray
    square_correlation: Measured
    correlation_length: Measured | None
    vacuum: np.ndarray
    excitation: Measured
    averages: dict[str, Measured]
    notes: tuple[str, ...] = ()

    @property
    def num_modes(self) -> int:
        return len(self.vacuum)

    def row(self) -> tuple[str, ...]:
        """The cells of a table; numbers by mode are averaged over the modes."""
        by_mode = (
            self.averages["mean"],
            self.averages["fluctuation"],
            self.excitation,
            self.averages["silent"],
            self.dead,
        )
        rest = (self.averages["fourth_ratio"], self.participation, self.square_correlation, self.correlation_length)
        return (self.name, str(self.num_modes), *("-" if n is None else str(n) for n in (*by_mode, *rest)))


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class Occupation:
    """What `occupation` returns: a `LayerOccupation` a layer, by name in ``layers``; with two data sets a `Shift`."""

    layers: dict[str, LayerOccupation]
    num_examples: int
    vacuum: str
    shift: Shift | None = None

    def __getitem__(self, name: str) -> LayerOccupation:
        return self.layers[name]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{each.name}: {text}" for each in self.layers.values() for text in each.notes)

    def __str__(self) -> str:
        rows = [HEAD, *(each.row() for each in self.layers.values())]
        lines = [f"occupation of {len(self.layers)} layers, {self.num_examples} examples, vacuum: {self.vacuum}"]
        lines += aligned(rows)
        lines += [f"  note: {text}" for text in self.notes]
        return "\n".join([*lines, *([str(self.shift)] if self.shift is not None else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        title = f"Occupation: {self.num_examples} examples, vacuum: {self.vacuum}"
        shown = card(title, HEAD, [each.row() for each in self.layers.values()], warnings=self.notes)
        return shown + (self.shift._repr_html_() if self.shift is not None else "")


@call_checked
def occupation(
    apply,
    params,
    data: Labeled,
    *,
    other: Labeled = None,
    vacuum: Labeled | str | None = "zeros",
    channels: str | None = "auto",
    seed: int = 0,
) -> Occupation:
    """Occupation of the modes of every layer on a data set: means, fluctuations, dead units, fourth-order ratios, correlations.

    The activation h of a mode on an example drawn from the data is a random variable; δ = h − h₀ with h₀ its value in the
    vacuum. ⟨δ²⟩ is its occupation. In the basis in which modes are uncorrelated it is an eigenvalue of their covariance.

    Parameters
    ----------
    apply, params
        The model, as of `layers`.
    data : array_like, shape ``(n, …)``
        Independent examples, or the DataTree of a run, which is thinned.
    other : array_like, shape ``(m, …)``, optional
        A second data set, such as images of another scanner: the distance between the two is measured in every layer.
    vacuum : str, array, or None
        The input that stands for "nothing": ``"zeros"``, ``"mean"`` (of the examples), or one example. None: h₀ = 0.
    channels : str or None
        Which axis of layers with axes of space counts modes: ``"last"``, ``"first"``, or None where all axes are space.
        ``"auto"``: as the adapter says, otherwise the last.
    seed : int
        Of groups of examples and of permutations.

    Returns
    -------
    Occupation

    Raises
    ------
    ArgumentError
        If there are fewer than 20 examples, or as of `layers`.

    Notes
    -----
    Errors leave out one of 20 random groups of examples at a time; principal occupation numbers, participation and
    correlations are without the bias of order 1/n that this shows. The distance of two data sets is the unbiased squared
    maximum mean discrepancy with a Gaussian kernel at the median distance (A. Gretton et al., J. Mach. Learn. Res. 13, 723
    (2012)): at most 2, and 0 on average if the two are alike. Its p-value is that of 999 permutations.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=(2000, 3))
    >>> found = p4.lens.occupation([("relu", lambda x: np.maximum(x, 0))], None, x)["relu"]
    >>> value, error = (each[0] for each in found.mean)
    >>> bool(abs(value - (2 * np.pi) ** -0.5) < 4 * error), round(found.averages["silent"].value, 1)
    (True, 0.5)
    """
    seed, axis = seed_within(seed), channels_of(apply, channels)
    data = examples(data)
    number = num_examples(data)
    require_examples(number, MIN_EXAMPLES)
    base, words = _vacuum(vacuum, data)
    values = layers(apply, params, data)
    zero = {name: np.zeros((1, *v.shape[1:])) for name, v in values.items()}
    if base is not None:
        zero = _of_vacuum(apply, params, base, words)
    group = groups_of(number, seed)
    found = {
        n: _of_layer(n, v.shape[1:], with_space(v, axis), with_space(zero[n], axis), group) for n, v in values.items()
    }
    shift = None
    if other is not None:
        theirs = examples(other, "other")
        require_examples(num_examples(theirs, "other"), MIN_EXAMPLES, "other")
        shift = compared(values, layers(apply, params, theirs), axis, seed)
    return Occupation(found, number, words, shift)


def _vacuum(vacuum, data):
    """One example that stands for nothing, and its name."""
    if vacuum is None:
        return None, "none"
    if isinstance(vacuum, str):
        if vacuum == "zeros":
            return jax.tree.map(lambda leaf: np.zeros_like(np.asarray(leaf)[:1]), data), vacuum
        if vacuum == "mean":
            return jax.tree.map(lambda leaf: np.asarray(leaf).mean(axis=0, keepdims=True), data), vacuum
        raise ArgumentError("vacuum", "'zeros', 'mean', one example, or None", repr(vacuum))
    given = jax.tree.map(lambda leaf: np.asarray(leaf)[None], vacuum)
    shapes = [jax.tree.map(lambda leaf: np.shape(leaf)[1:], tree) for tree in (given, data)]
    if shapes[0] != shapes[1]:
        raise ArgumentError("vacuum", f"one example, of shape {shapes[1]}", f"shape {shapes[0]}", reason="shape")
    return given, "given"


def _of_vacuum(apply, params, base, words: str) -> dict[str, np.ndarray]:
    try:
        return layers(apply, params, base)
    except ArgumentError as error:  # such as 0/0 in the normalization of an empty image
        fix = "Take vacuum='mean', an example, or None."
        raise ArgumentError("vacuum", "an input that the model knows", f"{words!r} ({error})", fix, "raises") from error


def _of_layer(name: str, shape, values, zero, group) -> LayerOccupation:
    """``values`` have axes (example, *space, mode), and ``zero`` are those of the vacuum."""
    number, modes = len(values), values.shape[-1]
    flat = values.reshape(number, -1, modes)
    places = flat.shape[1]
    above = flat - zero.reshape(1, places, modes)
    powers = [np.ones((number, modes)), flat.mean(axis=1), (flat**2).mean(axis=1)]
    powers += [(above**2).mean(axis=1), (above**4).mean(axis=1)]
    powers.append((np.abs(flat) <= SILENT * max(float(np.abs(flat).max()), 1e-300)).mean(axis=1))
    sums = [sums_by_group(each, group) for each in powers]
    by_mode, averages = {}, {}
    for key, function in MOMENTS.items():
        by_mode[key] = measured_of_sums(function, sums)
        averages[key] = Measured(*map(float, measured_of_sums(lambda *s, f=function: _mean(f(*s)), sums)))
    root = measured_of_sums(lambda n, a, b, c, d, e: np.sqrt((c / n).mean()), sums)
    units, notes = _units(flat)
    principal, participation, correlation, square = _modes(units, group)
    spread = flat.std(axis=0)
    still = spread <= STILL * max(float(spread.max()), 1e-300)
    share = float(still.mean())
    return LayerOccupation(
        name, tuple(shape), *(by_mode[k] for k in MOMENTS), Measured(share, float(np.sqrt(share * (1 - share) / still.size))),
        principal, participation, correlation, square,
        None if values.ndim < 3 else correlation_length(values, group),
        zero.reshape(places, modes).mean(axis=0), Measured(*map(float, root)), averages, notes,
    )  # fmt: skip


def _mean(by_mode: np.ndarray) -> float:
    some = by_mode[np.isfinite(by_mode)]
    return float(some.mean()) if len(some) else float("nan")


def _ratio(n, a, b, c, d, e):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(c > 0, (d / n) / (c / n) ** 2, np.nan)


# functions of sums of 1, h, h², δ², δ⁴ and silence
MOMENTS = {
    "mean": lambda n, a, b, c, d, e: a / n,
    "fluctuation": lambda n, a, b, c, d, e: np.sqrt(np.maximum(b / n - (a / n) ** 2, 0.0)),
    "second_moment": lambda n, a, b, c, d, e: c / n,
    "fourth_ratio": _ratio,
    "silent": lambda n, a, b, c, d, e: e / n,
}


def _units(flat: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Modes as columns, shape ``(example, place, unit)``; the sites, where there is one mode."""
    units = np.swapaxes(flat, 1, 2) if flat.shape[2] == 1 else flat
    if units.shape[2] <= MAX_UNITS:
        return units, ()
    some = np.linspace(0, units.shape[2] - 1, MAX_UNITS).astype(int)
    return units[:, :, some], (f"principal basis and correlations are of {MAX_UNITS} of {units.shape[2]} units",)


def _modes(units: np.ndarray, group):
    """Principal occupation numbers, participation, correlations, and the mean of their squares."""
    number, places, k = units.shape
    second = np.einsum("npi,npj->nij", units, units) / places if number * k * k < 1 << 25 else None
    means = units.mean(axis=1)
    if second is not None:
        squares = sums_by_group(second, group)
    else:
        squares = np.stack(
            [np.einsum("npi,npj->ij", u, u) / places for u in (units[group == g] for g in np.unique(group))]
        )
    sums = [sums_by_group(np.ones(number), group), sums_by_group(means, group), squares]

    def covariance(n, a, b):
        return b / n - np.outer(a / n, a / n)

    def spectrum(*s):
        return np.maximum(np.linalg.eigvalsh(covariance(*s))[::-1], 0.0)

    def participation(*s):
        c = covariance(*s)
        return np.trace(c) ** 2 / max(float((c * c).sum()), 1e-300)

    def square(*s):
        r = _correlations(covariance(*s))
        live = np.diag(r) > 0
        pairs = live.sum() * (live.sum() - 1)
        return ((r**2).sum() - live.sum()) / pairs if pairs else np.nan

    values, errors = measured_of_sums(spectrum, sums, corrected=True)
    total = covariance(*(each.sum(axis=0) for each in sums))
    return (
        (np.maximum(values, 0.0), errors), Measured(*map(float, measured_of_sums(participation, sums, corrected=True))),
        _correlations(total), Measured(*map(float, measured_of_sums(square, sums, corrected=True))),
    )  # fmt: skip


def _correlations(covariance: np.ndarray) -> np.ndarray:
    """Correlation coefficients; rows of what never changes are zero."""
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    live = spread > STILL * max(float(spread.max()), 1e-300)
    inverse = np.where(live, 1 / np.where(live, spread, 1.0), 0.0)
    found = covariance * inverse[:, None] * inverse[None, :]
    np.fill_diagonal(found, live.astype(float))
    return found


def correlation_length(values: np.ndarray, group: np.ndarray) -> Measured | None:
    """The second-moment correlation length of maps with axes ``(example, *space, mode)``; None where space is too small.

    Fluctuations are those about the mean map over the examples; edges are taken to be joined, as of a torus.
    """
    space = values.shape[1:-1]
    if max(space) < 4 or min(space) < 2:
        return None
    lattice = regular(space, True)
    maps = np.moveaxis(values - values.mean(axis=0), -1, 1).reshape(-1, *space)
    waves = np.asarray(jax.jit(jax.vmap(two_point("smallest_momentum", lattice).measure))(jnp.asarray(maps)), float)
    total = maps.reshape(len(maps), -1).sum(axis=1) ** 2 / lattice.num_sites
    by_example = [each.reshape(len(values), -1).sum(axis=1) for each in (total, waves)]
    momentum = smallest_lattice_momentum(lattice)

    def length(zero, wave):
        excess = zero / wave - 1 if wave > 0 else -1.0
        return np.sqrt(excess) / momentum if excess > 0 else np.nan

    return Measured(*map(float, measured_of_sums(length, [sums_by_group(each, group) for each in by_example])))
