"""NUTS for latent fields under data, in coordinates where the posterior is nearly a standard normal law.

An intercept trades against the mean of a field, and a scale against its amplitude: a few directions are a hundred times longer
than all others, and some are curved. `LatentCoordinates` takes that out, and what is left is a normal law times a factor that
varies little. Trajectories follow the normal law exactly, as rotations, and only the factor with steps: these can be
as long as the factor allows, whatever the number of variables.

Source of the splitting: A. Beskos, F. J. Pinski, J. M. Sanz-Serna and A. M. Stuart, Stoch. Process. Appl. 121 (2011) 2201.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import ArpackError

from ..energy.compiled import CompiledModel
from ..errors import SamplingError
from ..numpyro_plugin.curvature import OTHERWISE, Curvature, curvature_of
from .adaptation import Diagonal, Tuning, WindowAdaptation, dual_averaging, over_chains
from .gradient import MAX_TREE_DEPTH, nuts, nuts_statistics
from .kernel import Kernel
from .latent_coordinates import LatentCoordinates
from .latent_factors import LowRankFactor
from .target import Target

__all__ = ["NAME", "NUTS_CURVATURE", "fit_if_sure", "rotation"]

NAME = "nuts_curvature"
ACCEPTANCE = 0.95
FIRST_STEP = 0.3
FAR_BELOW = 20.0  # the normal law, in log p, is where chains do not begin
LARGEST_STEP = 0.5  # a tree of seven steps then passes half a turn of the normal law; longer steps would save nothing


class _State(NamedTuple):
    position: Any
    logdensity: jax.Array
    logdensity_grad: Any
    white: Any  # BlackJAX's state in white coordinates


def rotation(logdensity_fn, kinetic_energy_fn):
    """An integrator for BlackJAX: exact for the standard normal law, with kicks of what the density has beside it."""
    from blackjax.mcmc.integrators import IntegratorState

    value_and_gradient = jax.value_and_grad(logdensity_fn)

    def one_step(state, step_size):
        kicked = state.momentum + step_size / 2 * (state.logdensity_grad + state.position)
        cos, sin = jnp.cos(step_size), jnp.sin(step_size)
        position, momentum = cos * state.position + sin * kicked, cos * kicked - sin * state.position
        value, gradient = value_and_gradient(position)
        return IntegratorState(position, momentum + step_size / 2 * (gradient + position), value, gradient)

    return one_step


@dataclass(frozen=True, eq=False)
class _Algorithm:
    """NUTS in white coordinates; with ``init`` and ``step`` like BlackJAX's algorithms."""

    target: Target
    coordinates: LatentCoordinates
    unravel: Any
    tuning: Tuning

    def _density(self, white):
        position = self.unravel(self.coordinates.color(white))
        return self.target.logdensity_fn(position) + self.coordinates.log_det(white)

    def init(self, position, key=None):
        import blackjax

        white = self.coordinates.whiten(ravel_pytree(position)[0])
        return _State(position, *self.target.init(position), blackjax.hmc.init(white, self._density))

    def step(self, key, state: _State):
        import blackjax
        from blackjax.mcmc.hmc import HMCState

        scale = jnp.sqrt(self.tuning.inverse_mass_matrix)
        kernel = blackjax.nuts.build_kernel(rotation)
        white = HMCState(state.white.position / scale, state.white.logdensity, state.white.logdensity_grad * scale)
        white, info = kernel(
            key, white, lambda y: self._density(scale * y), self.tuning.step_size, jnp.ones_like(scale),
            max_num_doublings=MAX_TREE_DEPTH,
        )  # fmt: skip
        white = HMCState(white.position * scale, white.logdensity, white.logdensity_grad / scale)
        position = self.unravel(self.coordinates.color(white.position))
        return _State(position, *self.target.init(position), white), info


class _Adapted(NamedTuple):
    step_size: Any
    variances: Any  # BlackJAX's Welford state, of the coordinates that are adapted


def _off_resonance(step_size):
    """A shorter step where a tree would end just before half a turn, and the next one just after a whole turn.

    Neither looks like a U-turn, so that trees would grow on and on.
    """
    for steps in (7, 15):
        low, high = 2 * math.pi / (2 * steps + 1), math.pi / steps
        step_size = jnp.where((step_size > 0.98 * low) & (step_size < 1.02 * high), 0.98 * low, step_size)
    return step_size


@dataclass(frozen=True, eq=False)
class _WhiteAdaptation:
    """Step size, and variances of the leading white coordinates: the normal law of the others is better than an estimate."""

    size: int
    number: int

    def begin(self, target: Target, position) -> _Adapted:
        flat, _ = ravel_pytree(position)
        init, _, _ = dual_averaging(ACCEPTANCE)
        leading = jnp.ones(self.number, flat.dtype)
        return _Adapted(init(jnp.asarray(FIRST_STEP, flat.dtype)), Diagonal.begin(target, leading))

    def update(
        self, target: Target, state: _Adapted, stage, is_window_end, chain_state: _State, statistics
    ) -> _Adapted:
        init, update, final = dual_averaging(ACCEPTANCE)
        leading = chain_state.white.position[: self.number]
        state = state._replace(step_size=update(state.step_size, over_chains(statistics["acceptance_rate"])))
        seen = Diagonal.update(target, state.variances, leading)
        state = state._replace(variances=jax.tree.map(lambda a, b: jnp.where(stage == 1, a, b), seen, state.variances))
        closed = _Adapted(init(final(state.step_size)), Diagonal.close(target, state.variances))
        return jax.tree.map(lambda a, b: jnp.where(is_window_end == 1, a, b).astype(b.dtype), closed, state)

    def tuning(self, state: _Adapted) -> Tuning:
        return self._tuning(state, state.step_size.log_step_size)

    def final(self, state: _Adapted) -> Tuning:
        return self._tuning(state, state.step_size.log_step_size_avg)

    def _tuning(self, state: _Adapted, log_step_size) -> Tuning:
        variances = Diagonal.value(state.variances)
        rest = jnp.ones(self.size - self.number, variances.dtype)
        step_size = _off_resonance(jnp.minimum(jnp.exp(log_step_size), LARGEST_STEP)).astype(variances.dtype)
        return Tuning(step_size, jnp.concatenate([variances, rest]), jnp.ones((), variances.dtype))


def fit_if_sure(compiled: CompiledModel) -> tuple[Kernel, str]:
    """The kernel fitted to a model, if that is sure to have one mode.

    Raises
    ------
    SamplingError
        With the reason why plain NUTS is the better choice.
    """
    curvature = curvature_of(compiled)
    theta, _, mode = curvature.peak
    if doubt := curvature.doubt(theta, mode):
        raise SamplingError("no_mode", doubt)
    return _fitted(curvature)


def _fit(compiled: CompiledModel) -> tuple[Kernel, str]:
    return _fitted(curvature_of(compiled))


def _fitted(curvature: Curvature) -> tuple[Kernel, str]:
    """NUTS in the coordinates of a model, with chains that start in the normal law of its curvature.

    Where that law has next to none of the probability, they start closer to the mode.
    """
    try:
        coordinates = LatentCoordinates.of(curvature)
    except (np.linalg.LinAlgError, ArpackError) as error:
        text = (
            "the curvature of the posterior is too close to singular for this precision (JAX_ENABLE_X64=1 sets float64)"
        )
        raise SamplingError("no_curvature", f"{text}. {OTHERWISE}") from error
    template, unravel = ravel_pytree(curvature.template)

    def build(target: Target, tuning: Tuning):
        algorithm = _Algorithm(target, coordinates, unravel, tuning)
        from blackjax.base import SamplingAlgorithm

        return SamplingAlgorithm(algorithm.init, algorithm.step)

    def density(white):
        return curvature.compiled.logdensity_fn(unravel(coordinates.color(white))) + coordinates.log_det(white)

    @jax.jit
    def start(key):
        white = jax.random.normal(key, template.shape, template.dtype)
        nearer = jnp.outer(0.5 ** jnp.append(jnp.arange(5.0, dtype=white.dtype), jnp.inf), white)
        usual = jax.lax.map(density, nearer) + jnp.sum(nearer**2, axis=1) / 2
        return unravel(coordinates.color(nearer[jnp.argmax(usual > usual[-1] - FAR_BELOW - white.size)]))

    whole = isinstance(coordinates.factor, LowRankFactor)
    adaptation = _WhiteAdaptation(coordinates.size, coordinates.size if whole else coordinates.num_leading)
    kernel = dataclasses.replace(NUTS_CURVATURE, build=build, adaptation=adaptation, fit=None, start=start)
    return kernel, coordinates.factor.how


def _objection(compiled: CompiledModel) -> str | None:
    return None if compiled.model is None else "is for NumPyro models, and this is a field by itself"


# no separate change of signs: an even density with one mode has it at 0, and the state in white coordinates would not follow
NUTS_CURVATURE = Kernel(
    NAME, "No-U-Turn sampler in coordinates whitened by the curvature of the posterior at its mode, for NumPyro models", nuts,
    nuts_statistics, WindowAdaptation(), _objection, changes_signs=True, fit=_fit,
)  # fmt: skip
