"""Diffusion models of fields: noise turns into fields along a score, and weights correct what the score gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..analysis.derived import derive
from ..analysis.derived_result import Derived
from ..errors import ArgumentError, OverlapError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, finite_array, one_of, positive_int, seed_within
from ..errors.streams import stream_key
from ..kernels.metrics import spectrum
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from ..partition.annealing import one_sided
from ..reports.numbers import value_with_error
from ..results.evolution_tree import GROUP
from ..results.tails import pareto_k
from ..reweighting.reweighted import MAX_PARETO_K, MIN_EFFECTIVE_SAMPLES
from .moves import pathwise, white_noise
from .noising import Noising
from .process import Process, positive, process

__all__ = ["DiffusionState", "ReverseDiffusion", "Weighed", "noise_times", "weigh"]


class DiffusionState(NamedTuple):
    """A field on its way from noise, and what its weight needs of the way so far."""

    field: jax.Array
    log_weight: jax.Array
    noise_time: jax.Array


@call_checked
@process
class ReverseDiffusion(Process):
    """The reverse of a `Noising` process: noise turns into fields.

    From noise time t to s < t, with a = e^(−k(t−s)) and v the variance of the noise of that interval,

        φ_s = (φ_t + v ∇log p_t(φ_t))/a + √(v V_s/V_t) ξ,        V_t = e^(−2kt) V + N (1 − e^(−2kt))/k.

    It is exact for a Gaussian field of variance V per mode, and of first order in the interval for any other (B. D. O.
    Anderson, Stoch. Proc. Appl. 12 (1982) 313; J. Sohl-Dickstein et al., arXiv:1503.03585; Y. Song et al., arXiv:2011.13456).
    The score and the steps may be wrong and the answer still right: `evolve` records ``log_weight``, from which `weigh` makes
    averages and log Z in the exact density, and `correct` makes exact fields of them.

    Parameters
    ----------
    noising : Noising
    score : callable
        ``score(phi, t)`` = ∇log p_t(φ) of one field: that of `exact_score`, that of `fit_score`, or any JAX function.
    times : array
        Noise times from the last to the first, falling to 0; one step of `evolve` goes from one to the next. See `noise_times`.
    variance : number or array
        V > 0 of the fields, a number or one per mode of the Laplacian, in the order of `phi4ppl.kernels.metrics.spectrum`;
        `fit_score` measures it.

    Raises
    ------
    ArgumentError

    Notes
    -----
    Time of `evolve` counts steps, of size 1. Starts come from `prior`, the Gaussian of variance V_t at the last noise time.
    An odd score keeps the symmetry φ → −φ: the fields of a `fit_score` of even terms have ⟨m⟩ = 0.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> from phi4ppl.dynamics import Noising, ReverseDiffusion, evolve, exact_score, noise_times, weigh
    >>> model = p4.phi4(p4.lattice.chain(1), w=0.0, a=-1.0, b=0.5)  # two wells
    >>> noising = Noising(model.lattice)
    >>> reverse = ReverseDiffusion(noising, exact_score(model, noising), noise_times(3.0, 20, first=0.01), variance=1.0)
    >>> tree = evolve(reverse, reverse.prior(500), time=20)
    >>> found = weigh(tree, model, {"phi2": lambda phi: phi[0] ** 2})
    >>> exact = p4.exact.quadrature(model, {"phi2": lambda phi: phi[0] ** 2})
    >>> bool(abs(found.mean["phi2"].value - exact["phi2"]) < 4 * found.mean["phi2"].error)
    True
    >>> bool(abs(found.log_partition - exact["log_partition"]) < 4 * found.log_partition_error)
    True
    """

    noising: Noising
    score: Any
    times: Any
    variance: Any
    _function: Any = field(default=None, repr=False, metadata={"static": True})

    def __post_init__(self):
        if not isinstance(self.noising, Noising):
            raise ArgumentError("noising", "a Noising process", repr(self.noising)[:80])
        times = finite_array("times", self.times)
        if times.ndim != 1 or len(times) < 2 or np.any(np.diff(times) >= 0) or times[-1] != 0:
            expected = "noise times that fall to 0, such as noise_times(3.0, 100)"
            raise ArgumentError("times", expected, repr(times)[:80], reason="order")
        first = getattr(self.score, "smallest_time", 0.0)
        if times[-2] < first:
            fix = "Points of its grid are too far apart for less noise: use more points, or a later first noise time."
            raise ArgumentError(
                "times", f"a first noise time of at least {first:.3g}", f"{times[-2]:.3g}", fix, reason="unresolved"
            )
        variance = finite_array("variance", self.variance)
        if variance.ndim and variance.shape != spectrum(self.lattice).laplacian.shape:
            expected = f"a number, or shape {spectrum(self.lattice).laplacian.shape}"
            raise ArgumentError("variance", expected, f"shape {variance.shape}", reason="shape")
        if np.any(variance <= 0):
            raise ArgumentError("variance", "positive numbers", repr(variance)[:80])
        vars(self).update(times=times, variance=variance)
        self._require_score()

    def _require_score(self):
        shape = self.lattice.field_shape
        expected = f"a JAX function of one field of shape {shape} and a time that returns such a field"
        kind = jnp.result_type(float)
        try:
            found = jax.eval_shape(self.score, jax.ShapeDtypeStruct(shape, kind), jax.ShapeDtypeStruct((), kind))
        except Exception as error:  # the user should read whatever the function raises under tracing
            raise ArgumentError("score", expected, f"{type(error).__name__}: {error}"[:300], reason="raises") from error
        if getattr(found, "shape", None) != shape:
            raise ArgumentError("score", expected, f"one that returns {found}", reason="returns")
        if jax.tree_util.all_leaves([self.score]):  # a plain function is compiled in, an object with arrays is not
            vars(self).update(_function=self.score, score=None)

    @property
    def lattice(self) -> Lattice:  # type: ignore[override]
        return self.noising.lattice

    @property
    def default_step_size(self) -> float:
        return 1.0

    def require_step(self, step_size: float) -> None:
        if step_size != 1:
            fix = "A step goes from one noise time to the next; finer ones are set by times."
            raise ArgumentError("step_size", "1", f"{step_size:g}", fix)

    def require_time(self, time: float) -> None:
        if round(time) > len(self.times) - 1:
            fix = "Every unit of time goes from one noise time to the next."
            raise ArgumentError("time", f"at most {len(self.times) - 1} steps", f"{time:g}", fix, reason="range")

    def variance_at(self, time) -> jax.Array:
        """V_t."""
        return self.noising.shrunk(time) ** 2 * jnp.asarray(self.variance) + self.noising.variance(time)

    def prior(self, number: int, seed: int = 0) -> np.ndarray:
        """Starts: ``number`` fields of the Gaussian at the last noise time."""
        key = stream_key(seed_within(seed), "prior of a diffusion model")
        spread = jnp.sqrt(self.variance_at(self.times[0]))
        zero = jnp.zeros(self.lattice.field_shape)
        keys = jax.random.split(key, positive_int("number", number))
        return np.asarray(jax.vmap(lambda k: self.noising.apply(spread, white_noise(k, zero)))(keys))

    def start(self, field, key) -> DiffusionState:
        last = jnp.asarray(self.times, field.dtype)[0]
        variance = self.variance_at(last)
        white = self.noising.apply(variance**-0.5, field)
        size = self.lattice.num_sites * np.log(2 * np.pi)
        log_weight = (jnp.sum(white**2) + self.noising.log_determinant(variance) + size) / 2
        return DiffusionState(field, log_weight.astype(field.dtype), last)

    def step(self, state: DiffusionState, key, time, step_size) -> DiffusionState:
        noising, score = self.noising, self._function or self.score
        times = jnp.asarray(self.times, state.field.dtype)
        place = jnp.round(time).astype(int)
        t, s = times[place], times[place + 1]
        shrunk, v = noising.shrunk(t - s), noising.variance(t - s)
        spread = v * self.variance_at(s) / self.variance_at(t)
        noise = white_noise(key, state.field)
        mean = (state.field + noising.apply(v, score(state.field, t))) / shrunk
        phi = mean + noising.apply(jnp.sqrt(spread), noise)
        back = noising.apply(v**-0.5, state.field - shrunk * phi)  # the noise that takes φ_s to φ_t
        gain = (noising.log_determinant(spread) - noising.log_determinant(v)) / 2 - pathwise(noise, back)
        return DiffusionState(phi, (state.log_weight + gain).astype(phi.dtype), s)

    def observe(self, state):
        return state.field

    def measured(self, state):
        return {"log_weight": state.log_weight, "noise_time": state.noise_time}


@call_checked
def noise_times(last: float, number: int, *, first: float = 1e-3) -> np.ndarray:
    """``number + 1`` noise times from ``last`` down to ``first`` in equal ratios, and 0.

    Examples
    --------
    >>> from phi4ppl.dynamics import noise_times
    >>> noise_times(1.0, 3, first=0.01)
    array([1.  , 0.1 , 0.01, 0.  ])
    """
    number = positive_int("number", number, minimum=2)
    last, first = float(positive("last", last)), float(positive("first", first))
    if not first < last:
        raise ArgumentError("first", f"a time before last = {last:g}", f"{first:g}")
    return np.append(np.geomspace(last, first, number), 0.0)


@dataclass(frozen=True, repr=False)
class Weighed:
    """Averages in the exact density from the fields of a diffusion model.

    Attributes
    ----------
    mean : Derived
        ``mean["phi2"].value`` and ``.error``.
    log_partition, log_partition_error : float
        log Z of the model.
    effective_sample_size, pareto_k : float
        Of the weights.
    num_fields : int
    warnings : tuple of str
    """

    mean: Derived
    log_partition: float
    log_partition_error: float
    effective_sample_size: float
    pareto_k: float
    num_fields: int
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.num_fields} fields of a diffusion model: {self.effective_sample_size:.0f} effective, "
            f"Pareto k̂ {self.pareto_k:.2f}",
            f"  log Z  {value_with_error(self.log_partition, self.log_partition_error)}",
            *(f"  {name}  {part}" for name, part in self.mean.items()),
        ]
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__


@call_checked
def weigh(
    tree: xr.DataTree, model: MarkovRandomField, quantities: dict[str, Callable] | None = None, *,
    on_poor_overlap: str = "raise",
) -> Weighed:  # fmt: skip
    """Averages in the density of a model from the fields of a diffusion model, and log Z, exact whatever the score.

    A path φ_T … φ_0 of `ReverseDiffusion` has the weight

        w = exp(−S(φ_0)) Π q(φ_t | φ_s) / (π(φ_T) Π r(φ_s | φ_t)),

    q the noising and r the reverse step, so that ⟨w O(φ_0)⟩/⟨w⟩ is the average of O and ⟨w⟩ = Z.

    Parameters
    ----------
    tree : DataTree
        Of `evolve` with `ReverseDiffusion` to its last noise time 0, with the fields kept.
    model : MarkovRandomField
        S.
    quantities : dict of callables
        JAX functions of one field by name.
    on_poor_overlap : str
        ``"raise"``, or ``"warn"`` to get the numbers anyway.

    Raises
    ------
    OverlapError
        If less than 100 effective fields are left, or k̂ > 0.7: take more noise times, a better score, or `correct`.
    ArgumentError
    """
    one_of("on_poor_overlap", on_poor_overlap, ("raise", "warn"))
    if not isinstance(tree, xr.DataTree) or GROUP not in tree.children or not {"log_weight", "phi"} <= set(tree[GROUP]):
        raise ArgumentError(
            "tree", "the result of evolve with ReverseDiffusion and keep_field=True", type(tree).__name__
        )
    last = tree[GROUP].to_dataset().isel(time=-1)
    if float(last["noise_time"].max()) != 0:
        fix = "Evolve for as many steps as there are intervals between noise times."
        raise ArgumentError(
            "tree", "fields at noise time 0", f"at {float(last['noise_time'].max()):g}", fix, reason="time"
        )
    fields = jnp.asarray(last["phi"].values)
    log_weights = np.asarray(last["log_weight"], float) - np.asarray(model.energy(fields), float)
    weights = np.exp(log_weights - log_weights.max())
    size, k, notes = float(weights.sum() ** 2 / (weights**2).sum()), pareto_k(log_weights), ()
    if size < MIN_EFFECTIVE_SAMPLES or k > MAX_PARETO_K:
        notes = (
            f"The weights leave {size:.3g} effective of {len(weights)} fields ({MIN_EFFECTIVE_SAMPLES} are required), "
            f"Pareto k̂ = {k:.2f} (at most {MAX_PARETO_K}). Take more noise times, fit a better score, or correct the fields by "
            "phi4ppl.dynamics.correct.",
        )
        if on_poor_overlap == "raise":
            raise OverlapError("diffusion", f"{notes[0]} on_poor_overlap='warn' returns the numbers anyway.")
        warn(Phi4pplWarning("overlap.diffusion", notes[0]))
    series = {"weight": weights[None]}
    for name, function in (quantities or {}).items():
        values = np.asarray(jax.jit(jax.vmap(function))(fields), float)
        series[name] = (weights.reshape(-1, *[1] * (values.ndim - 1)) * values)[None]
    ratios = {name: (lambda m, name=name: m[name] / m["weight"]) for name in series if name != "weight"}
    mean = derive(series, ratios) if ratios else Derived({}, "gamma")
    log_z, error = one_sided(-log_weights)
    return Weighed(mean, log_z, error, size, k, len(weights), notes)
