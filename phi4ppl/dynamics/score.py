"""Scores ∇log p_t of noised fields: exact for Gaussian fields and small graphs, or fitted to data with terms of models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Labeled
from ..energy.functions import energy
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_key
from ..kernels.metrics import spectrum
from ..lattice.frozen import Lattice
from ..learning import LikelihoodFit, fit_likelihood
from ..model.field import MarkovRandomField, Structure
from ..model.pytree import register_checked
from ..results.independent_fields import independent_fields
from .moves import Modes, free_modes
from .noising import Noising

__all__ = ["FittedScore", "GaussianScore", "GridScore", "exact_score", "fit_score"]

MAX_GRID = 2**18
SPACING = 1.5  # of the grid, in standard deviations of the noise, up to which a Gaussian is summed to 1e-3


@register_checked
@dataclass(frozen=True)
class GaussianScore:
    """−φ/V_t on the modes of a Gaussian field."""

    modes: Modes
    noising: Noising

    def __call__(self, phi: jax.Array, time) -> jax.Array:
        kept = self.noising.shrunk(time) ** 2 / jnp.asarray(self.modes.frequencies)
        return -self.modes.apply(1 / (kept + self.noising.variance(time)), phi)


@register_checked
@dataclass(frozen=True)
class GridScore:
    """∇log Σ_x p(x) exp(−(φ − e^(−kt)x)²/2σ²) over the nodes x of a grid."""

    nodes: Any
    log_weights: Any
    noising: Noising
    smallest_time: Any  # below it the nodes are seen

    def __call__(self, phi: jax.Array, time) -> jax.Array:
        nodes = jnp.asarray(self.nodes, phi.dtype)
        variance = self.noising.variance(time)
        apart = phi.reshape(1, -1) - self.noising.shrunk(time) * nodes
        weights = jax.nn.softmax(jnp.asarray(self.log_weights, phi.dtype) - jnp.sum(apart**2, axis=1) / (2 * variance))
        return -(weights @ apart / variance).reshape(phi.shape)


@call_checked
def exact_score(
    model: MarkovRandomField, noising: Noising, *, half_width: float = 6.0, points: int = 64
) -> GaussianScore | GridScore:
    """The score ∇log p_t of the fields of a model under noise, exact.

    Gaussian fields: −φ/V_t per mode, by Fourier transform where it diagonalizes the field. Other models of a few sites: by
    summation over ``points**num_sites`` nodes, as `phi4ppl.exact.quadrature`.

    Parameters
    ----------
    model : MarkovRandomField
        Without a source if it is Gaussian.
    noising : Noising
        White noise, unless the field is Gaussian and diagonal in Fourier space.
    half_width, points
        Of the grid.

    Raises
    ------
    ArgumentError
        If the grid is too large, or the model has no exact score under this noise.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> from phi4ppl.dynamics import Noising, exact_score
    >>> one = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.125)  # variance 4
    >>> exact_score(one, Noising(one.lattice))(jnp.ones(1), jnp.asarray(1.0)).round(4)  # −1/(4e⁻² + 1 − e⁻²)
    Array([-0.7112], dtype=float32)
    """
    if not isinstance(model, MarkovRandomField) or not isinstance(noising, Noising) or model.lattice != noising.lattice:
        raise ArgumentError("model", "a MarkovRandomField on the lattice of a Noising process", repr(model)[:80])
    if all(form.is_gaussian and form.power != 1 for form in model.forms):
        modes = free_modes(model)
        if modes.vectors is None or noising.is_white:
            if np.any(np.asarray(modes.frequencies) <= 0):
                raise ArgumentError("model", "a Gaussian field with a density", repr(model), reason="not_normalizable")
            return GaussianScore(modes, noising)
    number = model.lattice.num_sites
    points = positive_int("points", points, minimum=8)
    if not noising.is_white or points**number > MAX_GRID:
        fix = "Fit one to samples with fit_score."
        got = f"{number} sites with {points} points each" if noising.is_white else "noise that is not white"
        raise ArgumentError(
            "model", f"a grid of at most {MAX_GRID} nodes and white noise", got, fix, reason="too_large"
        )
    axis = np.linspace(-half_width, half_width, points)
    nodes = np.stack(np.meshgrid(*[axis] * number, indexing="ij"), axis=-1).reshape(-1, number)
    energies = np.asarray(model.energy(jnp.asarray(nodes.reshape(-1, *model.field_shape))), float)
    width = (axis[1] - axis[0]) / SPACING
    rate, noise = float(noising.rate), float(noising.noise)
    share = width**2 * rate / noise
    first = width**2 / (2 * noise) if rate == 0 else (-math.log1p(-share) / (2 * rate) if share < 1 else math.inf)
    return GridScore(nodes, energies.min() - energies, noising, first)


@register_checked
@dataclass(frozen=True, repr=False)
class FittedScore:
    """The scores of Markov random fields, one per noise time, whose couplings are interpolated between the times.

    Attributes
    ----------
    couplings : dict
        By name, with a leading axis of noise times.
    errors : dict
        Standard errors of them.
    times : array
        Noise times, rising.
    variance : array
        Of the data, per mode of the Laplacian: what `ReverseDiffusion` takes as ``variance``.
    """

    couplings: dict
    errors: dict
    times: Any
    variance: Any
    noising: Noising
    structure: Structure = field(metadata={"static": True})

    def at(self, time) -> MarkovRandomField:
        """The Markov random field at a noise time."""
        times = jnp.asarray(self.times)
        place = jnp.interp(time, times, jnp.arange(len(times), dtype=times.dtype))
        low = jnp.clip(jnp.floor(place).astype(int), 0, len(times) - 2)
        share = place - low

        def between(values):
            values = jnp.asarray(values)
            return (1 - share) * values[low] + share * values[low + 1]

        return self.structure.at(between(self.couplings[form.name]) for form in self.structure.forms)

    def __call__(self, phi: jax.Array, time) -> jax.Array:
        model = self.at(time)
        return -jax.grad(lambda p: energy(model, p))(phi)

    def __repr__(self) -> str:
        names = ", ".join(self.couplings)
        return f"FittedScore({names} at {len(self.times)} noise times from {self.times[0]:.3g} to {self.times[-1]:.3g})"


@call_checked
def fit_score(
    model: MarkovRandomField,
    data: Labeled,
    noising: Noising,
    times,
    *,
    copies: int = 1,
    ridge: float | None = None,
    seed: int = 0,
) -> FittedScore:
    """Fit the score of noised fields at every noise time: the couplings of a Markov random field, by score matching.

    The fields of each noise time are data for `phi4ppl.fit_likelihood` with ``"score_matching"``, one linear solve, which
    minimizes E|∇log p_t + ∇S_t|² over the couplings of S_t (A. Hyvärinen, J. Mach. Learn. Res. 6 (2005) 695).

    Parameters
    ----------
    model : MarkovRandomField
        The family. With even terms only the score is odd, and the symmetry φ → −φ is kept.
    data : array of shape ``(num_fields, *field_shape)``, or the DataTree of a run
    noising : Noising
    times : array
        Noise times above 0, such as those of `noise_times`; a 0 among them is left out, as no step needs a score there.
    copies : int, default 1
        How often each field is used, with new noise. (Standard errors count copies as fields: they are too small for more
        than one.)
    ridge : float, optional
        As in `phi4ppl.fit_likelihood`.
    seed : int
        Of the noise.

    Returns
    -------
    FittedScore

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> from phi4ppl.dynamics import Noising, fit_score
    >>> ring = p4.lattice.chain(4)
    >>> data = np.random.default_rng(0).normal(size=(2000, 4))  # noise stays what it is: S = ½ Σ φ²
    >>> score = fit_score(p4.gaussian(ring, w=0.0, a=1.0), data, Noising(ring), [0.1, 1.0])
    >>> bool(np.all(np.abs(score.couplings["a"] - 0.5) < 4 * score.errors["a"]))
    True
    """
    if not isinstance(noising, Noising) or not isinstance(model, MarkovRandomField) or model.lattice != noising.lattice:
        raise ArgumentError("noising", "a Noising process on the lattice of the model", repr(noising)[:80])
    times = np.unique(finite_array("times", times))
    times = times[times > 0] if np.all(times >= 0) else times[:0]
    if len(times) < 2:
        raise ArgumentError("times", "at least two noise times above 0", repr(times)[:80])
    data, _ = independent_fields(data, model)
    fields = finite_array("data", data)
    if fields.shape[1:] != model.field_shape:
        raise ArgumentError(
            "data", f"shape (num_fields, *{model.field_shape})", f"shape {fields.shape}", reason="shape"
        )
    key = stream_key(seed_within(seed), "noise of a score")
    repeated = jnp.asarray(np.repeat(fields, positive_int("copies", copies), axis=0), jnp.result_type(float))
    noise = jax.jit(lambda keys, phi, t: jax.vmap(noising.noised, (0, 0, None))(keys, phi, t))
    fits, bad = [], []
    for number, time in enumerate(times):
        keys = jax.random.split(jax.random.fold_in(key, number), len(repeated))
        fit = fit_likelihood(model, np.asarray(noise(keys, repeated, time)), ridge=ridge)
        fits.append(fit)
        if not fit.converged:
            bad.append(float(time))
    if bad:
        where = ", ".join(f"{t:.3g}" for t in bad)
        text = f"The fitted couplings make no density at noise time(s) {where}: paths may run away there."
        warn(Phi4pplWarning("evolution.score", text))
    return FittedScore(
        _stacked(fits, lambda fit: fit.model.couplings), _stacked(fits, lambda fit: fit.standard_errors), times,
        mode_variance(model.lattice, fields), noising, model.structure,
    )  # fmt: skip


def _stacked(fits: list[LikelihoodFit], part: Callable) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(part(fit)[name], float) for fit in fits]) for name in part(fits[0])}


def mode_variance(lattice: Lattice, fields: np.ndarray) -> np.ndarray:
    """⟨φ²⟩ of every mode of the Laplacian over fields, without their mean subtracted."""
    modes = jax.jit(jax.vmap(spectrum(lattice).forward))(jnp.asarray(fields, jnp.result_type(float)))
    return np.maximum(np.mean(np.abs(np.asarray(modes, complex)) ** 2, axis=0), 1e-12)
