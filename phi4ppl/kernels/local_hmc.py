"""Colored sweeps: every site gets its own short Hamiltonian trajectory and its own accept/reject.

Sites of one color are independent given the rest, so the acceptance of a sweep does not fall with the volume, and three
leapfrog steps at frozen neighbors come close to a heat bath: the neighbor sum is computed once for all of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.functions import log_density
from ..lattice.coloring import colors
from .chessboard import chessboard, join, split
from .kernel import Kernel, fields_only
from .noise import finished, normal, random_words, spare_uniform, uniform
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = [
    "LocalSteps",
    "SiteAdaptation",
    "finish",
    "overrelaxable",
    "overrelaxation",
    "site_energy",
    "sweeps",
]

NUM_STEPS = 3  # leapfrog steps of a site
INITIAL_STEP_SIZE = 0.3
MAX_COLORS = 16  # with more of them other kernels are faster: a sweep costs a force for every color
TARGET_ACCEPTANCE = 0.945


class SweepInfo(NamedTuple):
    """``acceptance``: of every site, shape of the field; ``n_steps``: gradients of all sites."""

    acceptance: jax.Array
    n_steps: int


class LocalSteps(NamedTuple):
    """Tuning of a sweep: the step size of every site, shape of the field."""

    step_size: jax.Array


def site_energy(target: Target):
    """``energy(phi)``: the part of S that is a sum over single sites, by site."""
    own = [(form, value) for form, value in target.model.interactions if form.cliques.shape[1] == 1]
    shape, num_sites = target.lattice.field_shape, target.lattice.num_sites

    def energy(phi):
        flat = phi.reshape(-1)
        total = jnp.zeros_like(flat)
        for form, value in own:
            sites, theta = form.cliques[:, 0], jnp.asarray(value, phi.dtype)
            if np.array_equal(sites, np.arange(num_sites)):
                total += theta * jax.vmap(form.statistic)(flat)
            else:
                total = total.at[sites].add(theta * jax.vmap(form.statistic)(flat[sites]))
        return total.reshape(shape)

    return energy


def _pair_force(target: Target):
    """−∂/∂φ of the hopping terms: constant while the neighbors rest. None without hopping terms."""
    hopping = target.model.select(lambda form: form.is_hopping)
    return (lambda phi: jax.grad(log_density, argnums=1)(hopping, phi)) if hopping.forms else None


def _clique_terms(target: Target) -> list:
    """Custom terms of more than one site: their cliques are looked at one by one."""
    return [
        (form, value) for form, value in target.model.interactions if form.cliques.shape[1] > 1 and not form.is_hopping
    ]


def sweeps(target: Target, key, phi, step_size, number: int = 1):
    """``number`` times a trajectory of every site, color by color. Returns the field and the acceptance of every site.

    Momenta are drawn once. Those after a sweep are independent of the field, so the next sweep reuses them, turned
    round where a trajectory was rejected (A. M. Horowitz, Phys. Lett. B 268 (1991) 247).
    """
    step_size, board = jnp.broadcast_to(step_size, phi.shape), chessboard(target, phi.dtype)
    if board is None:
        return _sweeps_by_mask(target, key, phi, step_size, number)
    fields, steps = split(phi), split(step_size)

    def one_sweep(k, carry):
        sites = list(carry)
        words = random_words(jax.random.fold_in(key, k), 2, steps[0].shape)
        for color, (word, steps_here) in enumerate(zip(words, steps, strict=True)):
            phi, momentum, _ = sites[color]
            pull = board.pull(color, sites[1 - color][0])
            rest = _while_others_rest(functools.partial(board.energy, color), pull, phi)
            sites[color] = _trajectory(phi, momentum, *_drawn(word, k, steps_here), *rest)
        return tuple(sites)

    words = random_words(jax.random.fold_in(key, number), 4, steps[0].shape)
    momenta = [finished(normal(*pair, phi.dtype)) for pair in (words[:2], words[2:])]  # type: ignore[call-arg]
    sites = tuple((x, p, jnp.zeros_like(x)) for x, p in zip(fields, momenta, strict=True))
    (black, _, black_rate), (white, _, white_rate) = jax.lax.fori_loop(0, number, one_sweep, sites)
    return join(black, white), join(black_rate, white_rate)


def _sweeps_by_mask(target: Target, key, phi, step_size, number: int):
    """Sweeps of any terms on any lattice, every turn with arrays of all sites, of which it keeps those of its color."""
    color = colors(target.lattice, target.model.forms).reshape(phi.shape)
    on_site, pair_force, cliques = site_energy(target), _pair_force(target), _clique_terms(target)

    def turn(carry, this, drawn):
        phi, momentum, _ = carry
        mine = jnp.asarray(color) == this
        force, change = _while_others_rest(on_site, 0 if pair_force is None else pair_force(phi), phi)

        def others(new):  # energy of custom terms of several sites, with only this color moved
            moved = jnp.where(mine, new, phi).reshape(-1)
            return [value * form.values(moved) for form, value in cliques]

        def force_of_all(new):
            return force(new) - jax.grad(lambda x: sum(map(jnp.sum, others(x))))(new)

        def change_of_all(new):
            return change(new) + _by_site(target, cliques, others(new), others(phi), mine)

        rest = (force_of_all, change_of_all) if cliques else (force, change)
        after = _trajectory(phi, momentum, *drawn, *rest)
        return tuple(jnp.where(mine, new, old) for new, old in zip(after, carry, strict=True))

    def one_sweep(k, carry):
        drawn = _drawn(random_words(jax.random.fold_in(key, k), 1, phi.shape)[0], k, step_size)
        numbers = jnp.arange(color.max() + 1)
        return jax.lax.scan(lambda carry, this: (turn(carry, this, drawn), None), carry, numbers, unroll=2)[0]

    momentum = finished(normal(*random_words(jax.random.fold_in(key, number), 2, phi.shape), phi.dtype))  # type: ignore[call-arg]
    phi, _, acceptance = jax.lax.fori_loop(0, number, one_sweep, (phi, momentum, jnp.zeros_like(phi)))
    return phi, acceptance


def _drawn(word, number, step_size):
    """Step sizes of a sweep and uniform numbers for accept/reject, from one word per site."""
    word = finished(word)
    epsilon = step_size * _part_of_period(spare_uniform(word, step_size.dtype), number)
    return epsilon, uniform(word, step_size.dtype)


def _while_others_rest(on_site, pull, phi):
    """Force on sites that do not interact, and the change of their energies from those of ``phi``."""

    def force(new):
        return pull - jax.grad(lambda x: jnp.sum(on_site(x)))(new)

    def change(new):
        return on_site(new) - on_site(phi) - pull * (new - phi)

    return force, change


def _trajectory(phi, momentum, epsilon, drawn, force, change) -> tuple:
    """Fields and momenta after leapfrog steps and accept/reject at every site, and the rates of acceptance."""
    new, p = phi, momentum + epsilon / 2 * force(phi)
    for k in range(NUM_STEPS):
        new = new + epsilon * p
        p = p + (epsilon if k < NUM_STEPS - 1 else epsilon / 2) * force(new)
    rate = jnp.exp(jnp.minimum(-(change(new) + (p * p - momentum * momentum) / 2), 0))
    rate = jnp.where(jnp.isnan(rate), 0, rate)
    moves = drawn < rate
    return jnp.where(moves, new, phi), jnp.where(moves, p, -momentum), rate


def _part_of_period(drawn, number):
    """Random factors of the step sizes, which keep the sweep exact: they are drawn before the trajectories.

    Tuned steps take a site through about half a period: overrelaxation, fastest where fields are critical, but it hardly
    changes the energy of a site. In every second sweep a quarter of the sites take steps half as long. The others vary by a
    fifth, against closed orbits.
    """
    slower = jnp.where(drawn < 0.25, 0.5, 1 - 0.2 * (drawn - 0.25) / 0.75)
    return jnp.where(number % 2 == 0, slower, 1 - 0.2 * drawn)


def _by_site(target: Target, cliques, new, old, mine):
    """Change of the cliques' energies, booked on the one site of each clique that moved."""
    flat = mine.reshape(-1)
    total = jnp.zeros(flat.shape, jnp.result_type(*new))
    for (form, _), after, before in zip(cliques, new, old, strict=True):
        for column in form.cliques.T:
            total = total.at[column].add(jnp.where(flat[column], after - before, 0))
    return total.reshape(mine.shape)


def overrelaxable(forms: tuple) -> bool:
    """Whether the density of a site given the rest is Gaussian, so that its reflection leaves the density as it is."""
    return all(form.is_gaussian for form in forms) and any(form.is_hopping for form in forms)


def overrelaxation(target: Target, phi):
    """φ_i → 2c_i − φ_i about the mean c_i of site i given the rest, color by color; exact without accept/reject.

    Source: S. L. Adler, Phys. Rev. D 23 (1981) 2901.
    """
    color = colors(target.lattice, target.model.forms).reshape(phi.shape)
    on_site, pair_force = site_energy(target), _pair_force(target)
    slope = jax.grad(lambda x: jnp.sum(on_site(x)))
    at_zero = slope(jnp.zeros_like(phi))
    curvature = slope(jnp.ones_like(phi)) - at_zero

    def turn(phi, number):
        center = (pair_force(phi) - at_zero) / curvature
        return jnp.where((jnp.asarray(color) == number) & (curvature > 0), 2 * center - phi, phi), None

    return jax.lax.scan(turn, phi, jnp.arange(color.max() + 1))[0]


class _Robbins(NamedTuple):
    log_step: jax.Array
    average: jax.Array
    count: jax.Array  # type: ignore[assignment]


@dataclass(frozen=True)
class SiteAdaptation:
    """A step size for every site, by stochastic approximation to the target acceptance, with an average that favors the end.

    Moves shrink as count^(−0.6) (H. Robbins and S. Monro, Ann. Math. Stat. 22 (1951) 400; B. T. Polyak and A. B. Juditsky,
    SIAM J. Control Optim. 30 (1992) 838).
    """

    target_acceptance: float = TARGET_ACCEPTANCE

    def begin(self, target: Target, position) -> _Robbins:
        start = jnp.full_like(position, np.log(INITIAL_STEP_SIZE))
        return _Robbins(start, start, jnp.zeros((), position.dtype))

    def update(self, target: Target, state: _Robbins, stage, is_window_end, chain_state, statistics: dict) -> _Robbins:
        count = state.count + 1
        move = count**-0.6 * (chain_state.acceptance - self.target_acceptance)
        log_step = state.log_step + move
        average = state.average + (log_step - state.average) / jnp.maximum(count / 2, 1)
        return _Robbins(log_step, average, count)

    def tuning(self, state: _Robbins) -> LocalSteps:
        return LocalSteps(jnp.exp(state.log_step))

    def final(self, state: _Robbins) -> LocalSteps:
        return LocalSteps(jnp.exp(state.average))


class SweepState(NamedTuple):
    """A field with its log density and gradient, and the acceptance of its last sweep by site."""

    position: jax.Array
    logdensity: jax.Array
    logdensity_grad: jax.Array
    acceptance: jax.Array


def finish(target: Target, phi, acceptance, n_steps: int) -> tuple[SweepState, SweepInfo]:
    """State and info after a sweep."""
    logdensity, gradient = target.init(phi)
    return SweepState(phi, logdensity, gradient, acceptance), SweepInfo(acceptance, n_steps)


def local_hmc(target: Target, tuning: LocalSteps) -> SamplingAlgorithm:
    """One sweep over all sites, after an overrelaxation sweep where that is exact."""
    from blackjax.base import SamplingAlgorithm

    relax = overrelaxable(target.model.forms)

    def init(position, key=None):
        return finish(target, position, jnp.zeros_like(position), 0)[0]

    def step(key, state):
        phi = overrelaxation(target, state.position) if relax else state.position
        phi, acceptance = sweeps(target, key, phi, tuning.step_size)
        return finish(target, phi, acceptance, NUM_STEPS + 1 + relax)

    return SamplingAlgorithm(init, step)


def statistics(info: SweepInfo) -> dict:
    """Statistics of one sweep; sites have no divergences, since a rejected one is tried again in the next sweep."""
    return {
        "acceptance_rate": jnp.mean(info.acceptance),
        "diverging": jnp.zeros((), bool),
        "n_steps": jnp.asarray(info.n_steps, jnp.int32),
    }


LOCAL_HMC = Kernel(
    "local_hmc",
    "colored sweeps: every site its own trajectory and accept/reject; overrelaxation where exact",
    local_hmc,
    statistics,
    SiteAdaptation(),
    fields_only,
)  # fmt: skip
