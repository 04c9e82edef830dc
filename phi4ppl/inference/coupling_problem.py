"""The inference problem: couplings and fields, sufficient statistics, priors, and where a density exists."""

from __future__ import annotations

import copy
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Delta, Distribution, ImproperUniform

from ..errors import ArgumentError
from ..model.coupling_vector import CouplingVector, statistics_matrix
from ..model.field import MarkovRandomField
from ..model.hammersley_clifford import normalizability_of
from ..partition.surface import MAX_DIMENSIONS

__all__ = ["CouplingProblem", "holding", "slope"]

CHECKED = 40  # draws, whether Z is finite
BEYOND, ROOM = 1e-4, 0.1  # of the posterior mass, and of the way from the mode to infinite Z, not to be followed
BEND = 20.0  # of the remaining way, beyond which the rise of a wall becomes a logarithm


class CouplingProblem:
    """The posterior p(θ | φ_1 … φ_n) ∝ p(θ) Π_n exp(−θ·T(φ_n) − E(φ_n))/Z(θ) of some homogeneous couplings of a model.

    Parameters
    ----------
    model : MarkovRandomField
        Couplings without a prior stay fixed; E is their part of the action.
    data : array of shape ``(num_data, *field_shape)``, or with all sites in one axis
    priors : dict
        NumPyro distributions by coupling, in the order of θ; None for a flat one on the whole line.
    who : str
        The name of the model in messages.
    wide : tuple of str
        Couplings with one number per clique; all others are homogeneous.

    Attributes
    ----------
    kept : tuple of float
        The share of the priors where Z is finite, and its standard error. The prior of the problem is their density there,
        divided by that share.
    room : array, shape (2, num_couplings)
        How far Z is finite beyond the lower and upper ends of the box, where that is not far.

    Raises
    ------
    ArgumentError
        For couplings that the model does not have or that are not homogeneous, and for priors that are not densities of one
        number or that reach to negative couplings of the highest power, where Z is infinite.
    """

    def __init__(self, model: MarkovRandomField, data: np.ndarray, priors: dict, who: str = "the model", wide=()):
        for name in priors:
            if name not in model.couplings or (np.ndim(model.couplings[name]) != 0 and name not in wide):
                known = ", ".join(repr(n) for n, v in model.couplings.items() if np.ndim(v) == 0)
                raise ArgumentError(
                    "priors", f"homogeneous couplings of {who}: {known or 'it has none'}", repr(name), reason="name"
                )
        self.model, self.priors, self.names = model, priors, tuple(priors)
        self.kept: tuple[float, float] = 1.0, 0.0
        self._box: tuple[np.ndarray, np.ndarray] | None = None
        self.room = np.full((2, len(self.names)), np.inf)
        self.vector, self.count = CouplingVector.of(model, priors), len(data)
        self.data = data.reshape(len(data), *model.field_shape)
        # reweighting, which sees finite sums, would not notice an infinite Z
        for name, prior in priors.items():
            if prior is not None:
                _require_density(name, prior, name in holding(model))

    def sampled(self) -> dict:
        """The couplings inside a NumPyro model: a site each."""
        return {name: numpyro.sample(name, prior) for name, prior in self.priors.items()}

    counted = "fields"

    @property
    def title(self) -> str:
        return f"{', '.join(self.names) or 'a fixed model'}: {self.count} {self.counted}"

    @property
    def flat(self) -> CouplingProblem:
        """The same without priors: its posterior is the likelihood."""
        return CouplingProblem(self.model, self.data, dict.fromkeys(self.names))

    @cached_property
    def statistics(self) -> np.ndarray:
        """T = ∂S/∂θ of every field, shape (num_data, num_couplings)."""
        return self.statistics_of(self.data)

    def statistics_of(self, fields) -> np.ndarray:
        """T of other fields."""
        part = self._part(self.names)
        return np.zeros((len(fields), 0)) if part is None else statistics_matrix(part, fields)

    @cached_property
    def fixed_energy(self) -> np.ndarray:
        """E of every field, shape (num_data,)."""
        part = self._part([name for name in self.model.couplings if name not in self.priors])
        if part is None:
            return np.zeros(self.count)
        return statistics_matrix(part, self.data) @ CouplingVector.of(part).flatten(part.couplings)

    def _part(self, names) -> MarkovRandomField | None:
        terms = {term.name: term for term in self.model.terms}
        return MarkovRandomField(self.model.lattice, [terms[name] for name in names]) if names else None

    @property
    def start(self) -> np.ndarray:
        """The couplings of the model."""
        return self.vector.flatten(self.model.couplings)

    def at(self, theta) -> MarkovRandomField:
        """The model at couplings θ."""
        return self.vector.model(theta)

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the priors, infinite where they have none; couplings of the highest power end at 0."""
        ends = []
        for name, prior in self.priors.items():
            support = None if prior is None else prior.support
            low, high = (getattr(support, end, None) for end in ("lower_bound", "upper_bound"))
            if prior is None and name in holding(self.model):
                low = 0.0
            ends.append([-np.inf if low is None else float(low), np.inf if high is None else float(high)])
        low, high = np.array(ends).T
        return low, high

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the intervals on which log Z has to be known: those of `within`, or of the priors."""
        return self.ends if self._box is None else self._box

    def within(self, low, high, room=None) -> CouplingProblem:
        """The same problem with another box."""
        new = copy.copy(self)
        new._box = np.asarray(low, float), np.asarray(high, float)
        new.room = np.full((2, len(self.names)), np.inf) if room is None else room
        return new

    @property
    def clearance(self) -> float:
        """The share of the way from the mode to infinite Z that may be left out at its end.

        There 1/Z is the root of the distance, or less, so the posterior falls at least like distance**(count/2).
        """
        return min(ROOM, BEYOND ** (1 / (1 + self.count / 2)))

    def wall(self, theta):
        """−log of a factor for JAX that keeps couplings from leaving the box towards infinite Z, where the density vanishes."""
        low, high, room = (jnp.asarray(x, theta.dtype) for x in (*self.box, self.room))
        return self.count / 2 * jnp.sum(slope(jnp.maximum(jnp.stack([low - theta, theta - high]), 0.0) / room))

    def require_few(self) -> None:
        """Raise `ArgumentError` for more couplings than log Z or the pseudo-likelihood can be interpolated in."""
        wide = [name for name in self.names if self.vector.is_inhomogeneous(name)]
        fix = "normalizer='exchange' takes more."
        if wide:
            expected, got = "homogeneous couplings", f"{wide[0]!r}, one number per clique"
            raise ArgumentError("priors", expected, got, fix, reason="wide")
        if len(self.names) > MAX_DIMENSIONS:
            raise ArgumentError(
                "priors", f"at most {MAX_DIMENSIONS} couplings", str(len(self.names)), fix, reason="too_large"
            )

    def log_prior(self, thetas: np.ndarray) -> np.ndarray:
        """Σ log p(θ) in double precision, shape (num_thetas,); −∞ outside the support, at whose ends rounding is forgiven."""
        total = np.zeros(len(thetas))
        padded = 1 << max(3, int(np.ceil(np.log2(max(len(thetas), 1)))))  # few lengths: every one is compiled for
        with jax.enable_x64(True):
            for k, (prior, column) in enumerate(zip(self.priors.values(), np.asarray(thetas, float).T, strict=True)):
                if prior is None:
                    continue
                low, high = (getattr(prior.support, end, None) for end in ("lower_bound", "upper_bound"))
                near = np.clip(column, -np.inf if low is None else float(low), np.inf if high is None else float(high))
                near = np.where(np.abs(near - column) < 1e-9 * (1 + np.abs(near)), near, column)
                inside = np.asarray(prior.support(near))
                safe = near if inside.all() else np.where(inside, near, float(prior.sample(jax.random.key(0))))
                wide = jnp.asarray(np.pad(safe, (0, padded - len(safe)), mode="edge"))
                density = np.asarray(self._densities[k](wide), float)[: len(safe)]
                total += np.where(inside, density, -np.inf)
        return total

    @cached_property
    def _densities(self) -> list:
        return [None if prior is None else jax.jit(prior.log_prob) for prior in self.priors.values()]

    def prior_slope(self, theta) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of the log prior, and its curvature (as a positive precision), both zero where not finite."""
        first, second = (np.asarray(each, float) for each in self._prior_derivatives(np.asarray(theta, float)))
        slope, curvature = np.nan_to_num(first, posinf=0, neginf=0), np.nan_to_num(-second, posinf=0, neginf=0)
        return slope, np.maximum(curvature, 0.0)

    @cached_property
    def _prior_derivatives(self):
        """First and second derivatives of the log prior of every coupling; compiled, since a search asks at every step."""
        flat = lambda value: 0.0 * value  # noqa: E731
        densities = [flat if self.priors[name] is None else self.priors[name].log_prob for name in self.names]

        def derivatives(theta):
            first = [jax.grad(density) for density in densities]
            second = [jax.grad(slope) for slope in first]
            return tuple(jnp.stack([f(t) for f, t in zip(each, theta, strict=True)]) for each in (first, second))

        return jax.jit(derivatives)

    def log_likelihood(self, thetas, log_partition) -> np.ndarray:
        """log p(φ_n | θ) with log Z at every row of ``thetas``, shape (num_thetas, num_data)."""
        return -thetas @ self.statistics.T - self.fixed_energy - np.asarray(log_partition)[:, None]

    def inside(self, theta, step) -> np.ndarray:
        """θ + step, or as much of the step as stays where the prior and the model are."""
        for _ in range(30):
            new = theta + step
            if np.isfinite(self.log_prior(new[None])[0]) and self.has_density(new):
                return new
            step = step / 2
        return theta

    @property
    def is_always_proper(self) -> bool:
        """Whether Z is finite on the support of the priors: every site has a coupling of the highest power, positive there."""
        structure = self.model.structure
        holding = [form for form in structure.forms if form.power and form.power == structure.highest_power]
        sites = {tuple(row) for form in holding for row in form.cliques.tolist()}
        return len(sites) == structure.lattice.num_sites and structure.is_built_in

    def has_density(self, theta) -> bool:
        """Whether Z is finite at couplings θ."""
        return self._normalizability(tuple(value for _, value in self.at(theta).interactions)).is_normalizable

    @cached_property
    def _normalizability(self):
        return normalizability_of(self.model.structure)

    def improper(self, thetas: np.ndarray) -> list[str]:
        """A complaint, if some of the draws ``thetas`` have no density: Z is infinite there, which finite sums do not see."""
        some = thetas[np.linspace(0, len(thetas) - 1, min(len(thetas), CHECKED)).round().astype(int)]
        bad = sum(not self.has_density(theta) for theta in some)
        return [f"{bad} of {len(some)} draws have no density (Z is infinite): use narrower priors."] if bad else []


def slope(x):
    """x for small x, then a logarithm: what turns trajectories of NUTS around, but not so steep that they diverge."""
    return BEND * jnp.log1p(x / BEND)


def holding(model: MarkovRandomField) -> set[str]:
    """Names of the couplings that cannot be negative: those of the highest power, from φ⁴ on."""
    highest = model.structure.highest_power or 4
    return {form.name for form in model.forms if form.power == highest}


def _require_density(name: str, prior, bounded: bool) -> None:
    """Reject what is not a density of one number: couplings move over an interval, not between points."""
    what = f"prior of {name!r}"
    if not isinstance(prior, Distribution) or prior.shape() != ():
        raise ArgumentError(what, "a NumPyro distribution of one number", repr(prior))
    if isinstance(prior, ImproperUniform):  # the evidence would be arbitrary
        expected, fix = "a distribution with a normalized density", "Use Uniform over an interval, or a wide Normal."
        raise ArgumentError(what, expected, "ImproperUniform", fix, reason="improper")
    if isinstance(prior, Delta) or prior.support.is_discrete:
        fix = "A coupling without prior stays as it is: model.replace(…) sets it."
        raise ArgumentError(what, "a distribution with a density", type(prior).__name__, fix, reason="density")
    low, high = (getattr(prior.support, end, None) for end in ("lower_bound", "upper_bound"))
    if low is not None and high is not None and not low < high:
        raise ArgumentError(what, "low < high", f"({float(low):.6g}, {float(high):.6g})", reason="order")
    if bounded and (low is None or low < 0):
        fix = "Use HalfNormal, or Uniform from 0 on: below 0 this coupling makes Z infinite."
        raise ArgumentError(what, "a distribution of positive numbers", repr(prior), fix, reason="positive")
