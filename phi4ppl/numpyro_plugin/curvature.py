"""The posterior of a NumPyro model near its mode: a sparse Hessian of the latent fields, and the Laplace marginal.

Latent sites are of two kinds. Real ones, fields and their intercepts and effects, are x; constrained ones, scales and the like,
are θ. Given θ the posterior of x is close to a normal one, N(x*(θ), H(θ)⁻¹), with x* the mode and H the Hessian of −log p. With
it p(θ | y) ∝ p(x, θ, y)/p(x | θ, y) at x = x* (L. Tierney and J. B. Kadane, J. Am. Stat. Assoc. 81 (1986) 82; H. Rue,
S. Martino and N. Chopin, J. R. Stat. Soc. B 71 (2009) 319).

Matrices are in double precision. Densities are in that of the run, as not every NumPyro model can be traced in another, but in
double precision where those of a large field would be rounded to no better than 10⁻⁴.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from scipy import sparse

from ..energy.compiled import CompiledModel
from ..energy.factors import Factors, Forgotten
from ..errors import SamplingError
from ..errors.arguments import call_checked
from .modes import OTHERWISE, Mode, conjugate_gradients, factorized
from .other_modes import doubt_of, doubt_of_peak
from .sparse_hessian import MAX_DENSE, Probes, probes_of

__all__ = ["OTHERWISE", "Curvature", "Mode", "curvature_of", "factorized"]

MAX_HYPERPARAMETERS = 8
MAX_NEWTON = 50
DECREASE, DECREASE_DOUBLE = 1e-6, 1e-9  # of −log p that one more Newton step would bring: then the mode is found
COARSE = 1e-4  # rounding of −log p above which it is computed in double precision
LARGE, LIGHT = 5_000, 2_000  # latent variables above which factors are made as seldom as possible, and are not all kept
AT_ONCE = 2_000_000  # numbers of several x at which densities are computed at once
ENOUGH = 0.01  # increase of the log marginal from one value of θ to the next at which the search for its peak ends
ROUNDED = 1e-13  # smallest over largest eigenvalue of the precision of θ below which it is taken for singular
NEAR = 1.0  # squared standard deviations from the mode, within which −log p need not be seen to decrease


@dataclass
class Curvature:
    """Mode and curvature of a compiled NumPyro model.

    Attributes
    ----------
    compiled : CompiledModel
    hyper : tuple of str
        Names of the latent sites that θ consists of.
    latent : tuple of str
        Those of x.
    notify : callable
        Called with a line of text now and then.
    """

    compiled: CompiledModel
    hyper: tuple[str, ...]
    latent: tuple[str, ...]
    template: dict
    notify: Callable[[str], None] = field(default=lambda text: None, repr=False)
    _probes: Probes | None = field(default=None, repr=False)
    _known: Factors | None = field(default=None, repr=False)

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        return {name: int(np.size(value)) for name, value in self.template.items()}

    @property
    def num_hyper(self) -> int:
        return sum(self.sizes[name] for name in self.hyper)

    @property
    def num_latent(self) -> int:
        return sum(self.sizes[name] for name in self.latent)

    def position(self, theta, x) -> dict:
        """The position that kernels move, of θ and x."""
        found, values = {}, {self.hyper: theta, self.latent: x}
        for names, flat in values.items():
            start = 0
            for name in names:
                found[name] = jnp.reshape(flat[start : start + self.sizes[name]], np.shape(self.template[name]))
                start += self.sizes[name]
        return {name: found[name] for name in self.template}

    def order(self) -> np.ndarray:
        """Places in concatenate([θ, x]) of the entries of a position, as `jax.flatten_util.ravel_pytree` orders them."""
        places = np.arange(self.num_hyper + self.num_latent)
        return np.asarray(ravel_pytree(self.position(places[: self.num_hyper], places[self.num_hyper :]))[0], int)

    @functools.cached_property
    def _functions(self):
        def potential(theta, x):
            return self.compiled.potential_fn(self.position(theta, x))

        def slope(theta, x):
            return jax.grad(potential, argnums=1)(theta, x)

        def product(theta, x, vectors):
            return jax.vmap(lambda v: jax.jvp(lambda y: slope(theta, y), (x,), (v,))[1])(vectors)

        value_and_slope = jax.value_and_grad(potential, argnums=1)

        def of_many(theta, xs):
            if xs.size < AT_ONCE:
                return jax.vmap(value_and_slope, (None, 0))(theta, xs)
            at_once = max(1, AT_ONCE // xs.shape[1])
            return jax.lax.map(lambda x: value_and_slope(theta, x), xs, batch_size=at_once)

        return jax.jit(value_and_slope), jax.jit(product), jax.jit(of_many)

    @functools.cached_property
    def _doubles(self) -> bool:
        """Whether densities are computed in double precision although the run is not."""
        at = np.zeros(self.num_hyper), np.zeros(self.num_latent)
        single = float(self._functions[0](*_arrays(*at))[0])
        if jnp.finfo(jnp.result_type(float)).eps * abs(single) < COARSE:
            return False
        try:
            with jax.enable_x64(True):
                value, slope = self._functions[0](*_arrays(*at))
        except (TypeError, ValueError):  # a loop or a branch of the model is in single precision
            return False
        same = not np.isfinite(single) or abs(float(value) - single) < 1e-3 * abs(single)
        return same and value.dtype == slope.dtype == np.float64

    def _call(self, which: int, *values):
        with jax.enable_x64(True) if self._doubles else contextlib.nullcontext():
            return jax.tree.map(lambda found: np.asarray(found, float), self._functions[which](*_arrays(*values)))

    @property
    def epsilon(self) -> float:
        """Relative rounding of densities."""
        return float(np.finfo(float if self._doubles else jnp.result_type(float)).eps)

    def value_and_slope(self, theta, x) -> tuple[float, np.ndarray]:
        """−log p(x, θ, y) up to a constant, and its gradient in x."""
        value, slope = self._call(0, theta, x)
        return float(value), slope

    def values_and_slopes(self, theta, xs) -> tuple[np.ndarray, np.ndarray]:
        """The same at every row of ``xs``."""
        return self._call(2, theta, xs)

    def products(self, theta, x, vectors) -> np.ndarray:
        """H V of the rows of ``vectors``."""
        return self._call(1, theta, x, vectors)

    def hessian(self, theta, x) -> sparse.csc_matrix:
        """H in x, from one product for each color of its graph."""
        if self._probes is None:
            sizes = {name: self.sizes[name] for name in self.latent}
            found = probes_of(sizes, self.compiled.fields, lambda v: self.products(theta, x, v), self.epsilon)
            if found is None:
                raise SamplingError(
                    "no_curvature",
                    f"the {self.num_latent} latent variables interact beyond the cliques of their fields, and a dense Hessian "
                    f"is taken up to {MAX_DENSE}. {OTHERWISE}",
                )
            self._probes = found
        return self._probes.matrix(self.products(theta, x, self._probes.seeds))

    @call_checked
    def mode(self, theta, start=None, *, near: bool = False) -> Mode:
        """The mode of x given θ by Newton's method with a line search.

        With ``near``, another mode is known nearby: of a large field only the last Hessian is then factorized, and steps are
        found by conjugate gradients with the factors of the mode before.

        Raises
        ------
        SamplingError
            If there is none within 50 steps, or H is not positive definite there.
        """
        x = np.zeros(self.num_latent) if start is None else np.asarray(start, float)
        value, slope = self.value_and_slope(theta, x)
        known = self._known if near and self.num_latent > LARGE else None
        enough = 2 * max(DECREASE_DOUBLE if self._doubles else DECREASE, 10 * self.epsilon * abs(value))
        for _ in range(MAX_NEWTON):
            hessian = self.hessian(theta, x)
            step = None if known is None else conjugate_gradients(hessian, -slope, known.solve)
            factors = None if step is not None else self._factorized(hessian)
            step = -factors.solve(slope) if step is None else step
            gain = -float(slope @ step)
            if gain < enough:
                return Mode(x, value, hessian, self._factorized(hessian) if factors is None else factors)
            x, value, slope = self._along(theta, x, value, slope, step, gain)
        raise SamplingError(
            "no_mode", f"Newton's method found no mode of the latent fields in {MAX_NEWTON} steps. {OTHERWISE}"
        )

    def light(self, mode: Mode) -> Mode:
        """The mode without its factors if they are large; `whole` makes them again."""
        return mode if self.num_latent <= LIGHT else replace(mode, factors=Forgotten(mode.factors))

    def whole(self, mode: Mode) -> Mode:
        """The mode with its factors."""
        if not isinstance(mode.factors, Forgotten):
            return mode
        return replace(mode, factors=self._factorized(mode.hessian))

    def _factorized(self, hessian) -> Factors:
        self._known = None  # two of a large field would take too much memory
        self._known = factorized(hessian, self._probes.order)
        return self._known

    def _along(self, theta, x, value, slope, step, gain):
        """A step that lowers −log p, the whole one if it does; near the mode, where rounding hides that, the whole one."""
        for length in 0.5 ** np.arange(20):
            there = self.value_and_slope(theta, x + length * step)
            if np.isfinite(there[0]) and there[0] <= value - 1e-4 * length * gain + 10 * self.epsilon * abs(value):
                return x + length * step, *there
        there = self.value_and_slope(theta, x + step)
        if gain < NEAR and np.isfinite(there[0]):
            return x + step, *there
        raise SamplingError(
            "no_mode", f"no step along Newton's direction lowers the potential of the fields. {OTHERWISE}"
        )

    def doubt(self, theta, mode: Mode) -> str:
        """Why there may be modes beside this one, of x or of θ; empty if nothing that was tried leads to another."""
        doubt = doubt_of(self, theta, mode)
        return doubt_of_peak(self) if not doubt and self.hyper and self.num_latent <= LIGHT else doubt

    @functools.cached_property
    def peak(self) -> tuple[np.ndarray, np.ndarray, Mode]:
        """θ at the maximum of its Laplace marginal, the covariance of θ there, and the mode of x."""
        if not self.hyper:
            return np.zeros(0), np.zeros((0, 0)), self.mode(np.zeros(0))
        start, tried, last = {"x": np.zeros(self.num_latent)}, itertools.count(1), [np.inf]

        def negative(theta):
            self.notify(f"peak of {', '.join(self.hyper)}: value {next(tried)}")
            found = self.mode(theta, start["x"], near=True)
            start["x"] = found.x
            return -found.log_marginal

        def improved(intermediate_result):
            last.append(intermediate_result.fun)
            if last[-2] - last[-1] < ENOUGH:
                raise StopIteration

        first = np.zeros(self.num_hyper)
        noise = self.epsilon * max(1.0, abs(negative(first)))
        options = {"gtol": 0.1, "eps": max(1e-4, noise ** (1 / 3))}
        stop = improved if self.num_latent > LARGE else None
        theta = scipy.optimize.minimize(negative, first, method="BFGS", options=options, callback=stop).x
        precision = _second_differences(negative, theta, max(0.05, noise**0.25))
        values, vectors = np.linalg.eigh(np.where(np.isfinite(precision), precision, 0.0))
        if not (np.all(np.isfinite(precision)) and values.min() > ROUNDED * values.max()):
            raise SamplingError(
                "no_mode",
                "the Laplace marginal of the constrained variables has no maximum, or none that is seen in this precision "
                f"(JAX_ENABLE_X64=1 sets float64). {OTHERWISE}",
            )
        return theta, vectors @ np.diag(1 / values) @ vectors.T, self.mode(theta, start["x"], near=True)


def _arrays(*values):
    return (jnp.asarray(value, jnp.result_type(float)) for value in values)


def _second_differences(function, at: np.ndarray, step: float) -> np.ndarray:
    """The Hessian of a function of few variables."""
    n, unit = len(at), np.eye(len(at)) * step
    here = function(at)
    plus, minus = [function(at + e) for e in unit], [function(at - e) for e in unit]
    found = np.empty((n, n))
    for i in range(n):
        found[i, i] = (plus[i] - 2 * here + minus[i]) / step**2
        for j in range(i):
            mixed = function(at + unit[i] + unit[j]) - plus[i] - plus[j] + here
            mixed += function(at - unit[i] - unit[j]) - minus[i] - minus[j] + here
            found[i, j] = found[j, i] = mixed / (2 * step**2)
    return found


@call_checked
def curvature_of(compiled: CompiledModel) -> Curvature:
    """The curvature of a compiled NumPyro model.

    Raises
    ------
    SamplingError
        If it has more than eight constrained latent variables, or no others.
    """
    template = compiled.initial_position(jax.random.key(0))
    constrained = compiled.constrain(template)
    real = tuple(
        name
        for name, value in template.items()
        if np.shape(constrained[name]) == np.shape(value) and np.array_equal(constrained[name], value)
    )
    found = Curvature(compiled, tuple(name for name in template if name not in real), real, template)
    if not real:
        raise SamplingError("no_curvature", f"all latent variables are constrained, and there is no field. {OTHERWISE}")
    if found.num_hyper > MAX_HYPERPARAMETERS:
        raise SamplingError(
            "no_curvature",
            f"the model has {found.num_hyper} constrained latent variables, and {MAX_HYPERPARAMETERS} can be treated apart "
            f"from its fields. {OTHERWISE}",
        )
    return found
