"""The field as a kernel: the spectrum of its covariance ⟨φ_x φ_y⟩, from the draws of a run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np

from ..analysis.correlators import Correlator, structure_factor
from ..analysis.gamma_method import gamma_method
from ..analysis.least_squares import aic_weights, correlated_fit
from ..analysis.primaries import lattice_of_run
from ..analysis.two_point import lattice_momenta
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error
from .effective_ranks import entropy_rank
from .matrices import require_bytes
from .pairs_of_draws import pair_ratio_of_draws, spread_note
from .spectrum_result import Spectrum
from .subsamples import eigenvalue_errors

__all__ = ["MomentumExponent", "field_spectrum", "momentum_exponent"]

TAUS_PER_BLOCK, MAX_BLOCKS, MIN_BLOCKS = 10, 32, 4
GAP = 10  # autocorrelation times between the draws of a pair
MAX_SITES = 4000  # of a covariance that is decomposed
FIRST_SHELLS = (1, 2, 3)
LAST_MOMENTA = (0.45, 0.6, 0.8, 1.0)
POWERS = ((-1, 2), (-1, 2, 4))  # of k̂, of the corrections
MIN_SHELLS = 5  # more than corrections
FAR = 0.7  # of log λ at the smallest momentum
ACCEPTABLE = 0.05  # p of fits whose scatter is in the error


@call_checked
def field_spectrum(run, *, connected: bool = False, max_memory: int | None = None) -> Spectrum:
    """The eigenvalues of ⟨φ_x φ_y⟩ of a sampled field, each with its error.

    On a lattice that is periodic along all axes, with the same terms and couplings everywhere, the eigenvectors are plane
    waves: ``λ(k) = ⟨|Σ_x φ(x) e^{−ikx}|²⟩/V``, with one error of the Γ-method a mode, every mode counted as often as it
    occurs (k and −k are two modes of one value). On any other graph, and for NumPyro models, the sample covariance is
    decomposed; errors leave out blocks of draws, and the participation ratio comes from pairs of draws that are ten
    autocorrelation times apart.

    Parameters
    ----------
    run : DataTree
        Of `phi4ppl.sample`, with kept fields.
    connected : bool
        Subtract ``V⟨|m|⟩²`` at k = 0; on a graph, ⟨φ_x⟩⟨φ_y⟩.
    max_memory : int, optional
        Bytes; by default 80 % of what is free.

    Raises
    ------
    ArgumentError
        If the run has no fields, or chains are shorter than 32 draws.
    MemoryLimitError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> tree = p4.sample(p4.gaussian(p4.lattice.square(4), w=1.0, a=2.5), num_warmup=100, num_samples=500)
    >>> found = p4.spectral.field_spectrum(tree)
    >>> bool(abs(found.eigenvalues[0] - 1) < 5 * found.errors[0])  # 1/(m² + k̂²), m² = 2a − 4
    True
    """
    tree = getattr(run, "tree", run)
    lattice = lattice_of_run(tree)
    posterior = tree["posterior"] if "posterior" in getattr(tree, "children", {}) else {}
    if lattice is None or "phi" not in posterior:
        got = "one without" if hasattr(tree, "children") else type(run).__name__
        raise ArgumentError(
            "run",
            "the tree of phi4ppl.sample with its field 'phi'",
            got,
            "Take keep_field=True; in a NumPyro model, call the field 'phi'.",
        )
    variable = posterior["phi"]
    if "member" in variable.dims:
        fix = "Select one: tree.isel(member=0)."
        raise ArgumentError("run", "one member of an ensemble", "all of them", fix, reason="ensemble")
    if not {"chain", "draw"} <= set(variable.dims):
        fix = "Select with a list: tree.isel(chain=[0])."
        raise ArgumentError(
            "run", "the axes chain and draw", f"{', '.join(map(str, variable.dims))}", fix, reason="shape"
        )
    chains = variable.transpose("chain", "draw", ...).values
    if not np.isfinite(chains).all():
        raise ArgumentError(
            "run", "finite fields", "nan or infinity", "Look for a divergence in a chain.", reason="finite"
        )
    if not (chains != chains[:1, :1] if connected else chains).any():
        got = "a field that never changes" if connected else "fields that are 0 everywhere"
        raise ArgumentError("run", "fields with fluctuations", got, "Look at the draws.", reason="constant")
    if chains.shape[1] < 32:
        raise ArgumentError("run", "at least 32 draws a chain", str(chains.shape[1]), reason="too_short")
    on_torus = lattice.shape is not None and lattice.periodic is not None and all(lattice.periodic)
    if on_torus and "antiperiodic" not in lattice.name and _invariant(tree, lattice.num_sites):
        return _of_torus(chains, lattice, connected, max_memory)
    return _of_graph(chains.reshape(*chains.shape[:2], -1), lattice.name, connected, max_memory)


def _invariant(tree, num_sites: int) -> bool:
    """Whether the run is of an action that translations leave as it is, as far as its record tells.

    Couplings are single numbers, and every term has as many cliques as translations make of one, or a multiple. A NumPyro
    model has data, or other variables, and is taken for none.
    """
    facts = json.loads(tree.attrs.get("phi4ppl", "{}"))
    couplings, counts = facts.get("couplings"), re.findall(r" on (\d+) ", facts.get("model", ""))
    numbers = [not isinstance(value, str) and np.ndim(value) == 0 for value in (couplings or {}).values()]
    return bool(numbers) and all(numbers) and all(int(count) % num_sites == 0 for count in counts)


def _blocks(number: int, tau: float) -> np.ndarray:
    """Block of each draw of a chain."""
    count = int(np.clip(number / (TAUS_PER_BLOCK * tau), MIN_BLOCKS, MAX_BLOCKS))
    return np.arange(number) * count // number


def half_modes(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One of k and −k of every momentum of a torus, by its place in an FFT, and whether these are two."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    partner = places
    for axis, n in enumerate(shape):
        partner = np.take(partner, -np.arange(n) % n, axis=axis)
    places, partner = places.ravel(), partner.ravel()
    kept = places <= partner
    return places[kept], np.where(partner[kept] == places[kept], 1, 2)


def _of_torus(chains: np.ndarray, lattice, connected: bool, limit: int | None) -> Spectrum:
    shape, (num_chains, num_draws) = lattice.shape, chains.shape[:2]
    number = int(np.prod(shape))
    require_bytes(
        5.0 * num_chains * num_draws * number, limit, "the modes of all draws", "Thin the draws: tree.isel(draw=...)."
    )
    kept, copies = half_modes(shape)
    axes = tuple(range(2, 2 + len(shape)))
    power = np.empty((num_chains, num_draws, len(kept)), np.float32)
    for start in range(0, num_draws, step := max(1, 2_000_000 // (num_chains * number))):
        waves = np.fft.fftn(chains[:, start : start + step], axes=axes)
        power[:, start : start + step] = (np.abs(waves) ** 2 / number).reshape(num_chains, -1, number)[:, :, kept]
    found = gamma_method(power)
    means, errors, tau = np.array(found.mean), np.array(found.error), float(np.max(found.tau_int))
    notes = []
    if connected:
        means[0], errors[0] = _connected_zero_mode(chains, number)
    block = _blocks(num_draws, tau)
    sums = np.stack([power[:, block == b].sum(axis=(0, 1), dtype=float) for b in range(block[-1] + 1)])
    counts = np.bincount(block) * num_chains
    replicas = (sums.sum(axis=0) - sums) / (counts.sum() - counts)[:, None]
    if connected:
        replicas[:, 0] = _connected_without(chains, block, number)
    trace, square = float(copies @ means), float(copies @ means**2)
    of_trace = float(np.sqrt((len(sums) - 1) * np.var(replicas @ copies)))
    ratio = (trace**2 - of_trace**2) / (square - float(copies @ errors**2))
    each = (replicas @ copies) ** 2 / (replicas**2 @ copies)
    notes.append(
        f"participation_ratio has the noise of the eigenvalues taken out; the plain form is {trace**2 / square:.4g}."
    )
    plain = entropy_rank(np.repeat(means, copies))
    notes.append(f"entropy_rank is extrapolated to many draws; the plain form is {plain:.4g}.")
    if not np.all(found.reliable):
        notes.append(
            f"the errors of {np.count_nonzero(~np.asarray(found.reliable))} of {len(kept)} modes are not reliable: draw more."
        )
    order = np.argsort(np.repeat(means, copies), kind="stable")[::-1]
    momenta = np.repeat(lattice_momenta(lattice).ravel()[kept], copies)[order]
    return Spectrum(
        np.repeat(means, copies)[order], np.repeat(errors, copies)[order], trace, number, f"field on {lattice.name}",
        square_norm=(square, float(2 * np.sqrt((copies * means) ** 2 @ errors**2))),
        unbiased_ratio=(ratio, float(np.sqrt((len(sums) - 1) * np.var(each)))),
        replicas=np.repeat(replicas, copies, axis=1)[:, order], replica_factor=len(sums) - 1.0, notes=tuple(notes),
        momenta=momenta,
    )  # fmt: skip


def _connected_zero_mode(chains: np.ndarray, number: int) -> tuple[float, float]:
    m = chains.reshape(*chains.shape[:2], -1).mean(axis=-1, dtype=float)
    size = float(np.abs(m).mean())
    found = gamma_method(number * (m**2 - 2 * size * np.abs(m)))  # the projected series of ⟨m²⟩ − ⟨|m|⟩²
    return float(number * ((m**2).mean() - size**2)), float(found.error)


def _connected_without(chains: np.ndarray, block: np.ndarray, number: int) -> np.ndarray:
    """V(⟨m²⟩ − ⟨|m|⟩²) without each block of draws in turn."""
    m = np.abs(chains.reshape(*chains.shape[:2], -1).mean(axis=-1, dtype=float))
    counts = np.bincount(block) * len(m)
    square, size = (np.bincount(np.tile(block, len(m)), values.ravel()) for values in (m**2, m))
    left = counts.sum() - counts
    return number * ((square.sum() - square) / left - ((size.sum() - size) / left) ** 2)


def _sign_note(chains: np.ndarray) -> list[str]:
    """Where the field changes sign as a whole, ⟨φ_x⟩⟨φ_y⟩ is no part of its covariance, however ordered it is."""
    m = chains.mean(axis=-1)
    ordered = np.mean(m**4) < 1.5 * np.mean(m**2) ** 2  # 1 of a field that is ±v, 3 of a Gaussian one
    if not ordered or np.mean(m) ** 2 > 0.1 * np.mean(m**2):
        return []
    return [
        "the field changes sign as a whole, so that ⟨φ_x⟩⟨φ_y⟩ is nearly 0 and connected=True takes out nothing: "
        "the first eigenvalue is the order."
    ]


def _of_graph(chains: np.ndarray, name: str, connected: bool, limit: int | None) -> Spectrum:
    num_chains, num_draws, sites = chains.shape
    if sites > MAX_SITES:
        raise ArgumentError("run", f"at most {MAX_SITES} sites on a graph", str(sites), reason="too_large")
    require_bytes(
        8.0 * ((MAX_BLOCKS + 4) * sites**2 + chains.size),
        limit,
        f"the covariance of {sites} sites",
        "Take fewer sites.",
    )
    chains = chains.astype(float)
    signs = _sign_note(chains) if connected else []
    if connected:
        chains = chains - chains.mean(axis=(0, 1))
    flat = chains.reshape(-1, sites)
    covariance = flat.T @ flat / len(flat)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    slowest = [(chains @ vectors[:, 0]) ** 2, (chains**2).mean(axis=-1), chains.mean(axis=-1) ** 2]
    tau = float(np.max(gamma_method(np.stack(slowest, axis=-1)).tau_int))
    effective = len(flat) / max(1.0, 2 * tau)
    block, replicas = _blocks(num_draws, tau), []
    for b in range(block[-1] + 1):
        inside = chains[:, block == b].reshape(-1, sites)
        rest = (covariance * len(flat) - inside.T @ inside) / (len(flat) - len(inside))
        replicas.append(np.maximum(np.linalg.eigvalsh(rest)[::-1], 0.0))
    factor = len(replicas) - 1.0
    gap = int(np.ceil(GAP * tau)) if tau > 0.6 else 1
    ratio, error = pair_ratio_of_draws(chains, gap)
    plain = float(values.sum() ** 2 / np.sum(values**2))
    notes = [
        f"participation_ratio is from pairs of draws {gap} apart; the plain form is {plain:.4g}.",
        f"entropy_rank is extrapolated to many draws; the plain form is {entropy_rank(values):.4g}.",
        *spread_note(sites, effective),
        *signs,
    ]
    usable = np.isfinite(ratio) and np.isfinite(error)
    errors, _ = eigenvalue_errors(values, np.array(replicas), factor)
    return Spectrum(
        values, errors, float(values.sum()), sites, f"field on {name}", vectors,
        (float(np.sum(values**2)), 0.0), (ratio, error) if usable else None, np.array(replicas), factor, notes=tuple(notes),
    )  # fmt: skip


@dataclass(frozen=True)
class MomentumExponent:
    """λ ~ k̂^−x, x = 2 − η, averaged over windows of momenta by AIC.

    Attributes
    ----------
    value, error : float
        x; the error is of the draws and of the windows.
    best : (float, float)
        First and last momentum of the window of the largest weight.
    p_value : float
        Of the best fit.
    drift : (float, float)
        log of λ at the smallest momentum over the best fit there without its term c₁/k̂, with its error: some −0.3 at a critical
        point, far below where the correlation length is shorter than the lattice and there is no such exponent.
    """

    value: float
    error: float
    best: tuple[float, float]
    p_value: float
    drift: tuple[float, float] = (0.0, 0.0)

    @property
    def critical(self) -> bool:
        """Whether the power goes on to the smallest momentum, to a factor of two or five errors."""
        return abs(self.drift[0]) <= max(FAR, 5 * self.drift[1])

    @property
    def eta(self) -> tuple[float, float]:
        """η = 2 − x with its error."""
        return 2 - self.value, self.error

    def __str__(self) -> str:
        where = f"{self.best[0]:.2g} to {self.best[1]:.2g}"
        eta = value_with_error(*self.eta)
        text = (
            f"λ ~ k̂^−{value_with_error(self.value, self.error)}, η = {eta} (best window {where}, p = {self.p_value:.2g}; "
            "effective where corrections to scaling are large: compare two sizes)"
        )
        return text if self.critical else f"{text}; {self.off()}"

    def off(self) -> str:
        """What is wrong where it is not critical."""
        return f"NOT critical: λ at the smallest momentum is {np.exp(self.drift[0]):.2g} of what this power says"


@call_checked
def momentum_exponent(run) -> MomentumExponent:
    """The exponent of λ ~ k̂^−(2−η) at a critical point, from the structure factor of a run.

    ``log λ = c − x log k̂ + c₁/k̂ + c₂ k̂² (+ c₃ k̂⁴)`` is fitted over windows of shells of momentum k̂, k = 0 left out, with the
    covariance of all shells. c₁/k̂ is what the finite lattice adds, and a coupling a little off the critical one: relative
    to the power both go like ``k̂^−1/ν``, which is 1/k̂ in two dimensions (c₁L ≈ −2 at the critical point of the Ising
    class on a square torus). k̂² and k̂⁴ are what sites and irrelevant terms add. Fits are averaged with weights
    exp(−AIC/2); the error contains how far the acceptable ones are apart.

    The exponent is an effective one where corrections to scaling are large at all momenta of the lattice, as they are at weak
    coupling: 1.65(2) for 1.75 at ``w=1, a=1.5244, b=0.175`` and L = 128. Compare two sizes, or take
    `phi4ppl.finite_size_scaling`. A warning tells where λ at the smallest momentum does not follow the power at all.

    Parameters
    ----------
    run : DataTree or Correlator
        Of a run with fields or the observable ``structure_factor``; or `phi4ppl.analysis.structure_factor` of it.

    Raises
    ------
    ArgumentError
        If there are fewer than six shells below the largest momentum of a window.
    """
    found = run if isinstance(run, Correlator) else structure_factor(run)
    x, values = found.x, found.value
    covariance = found.covariance / np.outer(values, values)
    fits = []
    for first in FIRST_SHELLS:
        for last in LAST_MOMENTA:
            at = np.flatnonzero((np.arange(len(x)) >= first) & (x <= last))
            for powers in POWERS:
                if len(at) < MIN_SHELLS + len(powers):
                    continue
                design = np.stack([np.ones(len(at)), -np.log(x[at]), *(x[at] ** p for p in powers)], axis=1)
                start = np.linalg.lstsq(design, np.log(values[at]), rcond=None)[0]
                fit = correlated_fit(lambda p, d=design: d @ p, np.log(values[at]), covariance[np.ix_(at, at)], start)
                first_row = np.array([1.0, -np.log(x[1]), *(0.0 if p < 0 else x[1] ** p for p in powers)])
                fits.append((fit.aic - 2 * len(at), fit, (x[at[0]], x[at[-1]]), first_row))
    if not fits:
        fix = "Take a larger lattice."
        raise ArgumentError(
            "run", f"{MIN_SHELLS} shells of small momentum", f"{len(x)} shells", fix, reason="too_small"
        )
    weights = aic_weights([aic for aic, *_ in fits])
    each = np.array([fit.parameters[1] for _, fit, *_ in fits])
    own = np.array([fit.covariance[1, 1] for _, fit, *_ in fits])
    mean = float(weights @ each)
    good = np.array([fit.p_value > ACCEPTABLE for _, fit, *_ in fits])
    spread = (
        np.average((each - mean) ** 2, weights=np.where(good, 1 / own, 0.0))
        if good.any()
        else np.max((each - mean) ** 2)
    )
    error = float(np.sqrt(weights @ own + spread))
    _, best, window, row = min(fits, key=lambda fit: fit[0])
    drift = (
        float(np.log(values[1]) - row @ best.parameters),
        float(np.sqrt(covariance[1, 1] + row @ best.covariance @ row)),
    )
    made = MomentumExponent(mean, error, (float(window[0]), float(window[1])), best.p_value, drift)
    if not made.critical:
        warn(Phi4pplWarning("spectral.not_critical", f"{made.off()}: it has no exponent.", {"drift": drift[0]}))
    return made
