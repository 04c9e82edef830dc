"""Priors of couplings as users write them: cut where Z is infinite, or NumPyro models of all couplings together."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import Delta, Distribution, constraints

from ..errors import ArgumentError
from ..model.field import MarkovRandomField
from ..model.term import is_concrete
from .coupling_problem import CouplingProblem, holding

__all__ = ["Positive", "PriorModelProblem", "cut_priors"]

LEAST = 1e-6  # of the mass of a prior that has to be left
DRAWS = 400  # of a prior model, to see how much of it has no density


class Positive(Distribution):
    """The part of a distribution of one number above zero, normalized."""

    arg_constraints = {}
    pytree_data_fields = ("base",)
    pytree_aux_fields = ("mass",)

    def __init__(self, base: Distribution, mass: float):
        self.base, self.mass = base, mass
        super().__init__(batch_shape=(), event_shape=(), validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        high = getattr(self.base.support, "upper_bound", None)
        return constraints.positive if high is None else constraints.interval(0.0, high)

    def log_prob(self, value):
        return self.base.log_prob(value) - np.log(self.mass)

    def sample(self, key, sample_shape=()):
        def again(state):
            number, value = state
            new = self.base.sample(jax.random.fold_in(key, number), sample_shape)
            return number + 1, jnp.where(value > 0, value, new)

        start = (0, jnp.full(sample_shape, -1.0))
        return jax.lax.while_loop(lambda state: ~jnp.all(state[1] > 0), again, start)[1]


def cut_priors(model: MarkovRandomField, priors: dict) -> tuple[dict, list[str]]:
    """The priors without what lies at negative couplings of the highest power, where Z is infinite; and how much that is.

    Raises
    ------
    ArgumentError
        If next to nothing is left of one of them.
    """
    kept, notes, bounded = dict(priors), [], holding(model)
    for name, prior in priors.items():
        if (
            name not in bounded
            or not isinstance(prior, Distribution)
            or isinstance(prior, Delta)
            or prior.shape() != ()
        ):
            continue  # the problem says what is wrong with it
        low, high = (getattr(prior.support, end, None) for end in ("lower_bound", "upper_bound"))
        if prior.support.is_discrete or (low is not None and low >= 0) or (low is not None and low == high):
            continue
        try:
            mass = float(1 - prior.cdf(jnp.zeros(())))
        except NotImplementedError:
            mass = float(np.mean(np.asarray(prior.sample(jax.random.key(0), (100_000,))) > 0))
        if not mass > LEAST:
            fix = "Use HalfNormal, or Uniform from 0 on: below 0 this coupling makes Z infinite."
            raise ArgumentError(
                f"prior of {name!r}", "a distribution of positive numbers", repr(prior), fix, reason="positive"
            )
        kept[name] = Positive(prior, mass)
        notes.append(f"{1 - mass:.2g} of the prior of {name!r} lies below 0, where Z is infinite, and was cut")
    return kept, notes


class PriorModelProblem(CouplingProblem):
    """The posterior of couplings that a NumPyro model makes of its own parameters, such as means, scales or slopes.

    Parameters
    ----------
    prior : callable
        A NumPyro model without observed sites that returns the dict of the couplings: one number, or one per clique.

    Notes
    -----
    The density of the couplings by themselves is not known. To find out where the posterior is, ``priors`` has Student's
    t-distributions in its place, with four degrees of freedom and one and a half times the width of draws from the prior.
    """

    def __init__(self, model: MarkovRandomField, data: np.ndarray, prior: Callable):
        shapes, self._sites = _traced(prior, model)
        wide = [name for name, shape in shapes.items() if shape]
        model = model.inhomogeneous(*wide) if wide else model
        draws = numpyro.infer.Predictive(lambda: _recorded(prior, self._sites), num_samples=DRAWS)(jax.random.key(0))
        marginals = {name: None if name in wide else _marginal(np.asarray(draws[name], float)) for name in shapes}
        negative = [np.any(np.asarray(draws[n]).reshape(DRAWS, -1) < 0, axis=1) for n in shapes if n in holding(model)]
        self.cut_share = float(np.any(negative, axis=0).mean()) if negative else 0.0
        super().__init__(model, data, cut_priors(model, marginals)[0], wide=tuple(wide))
        self.prior_model = prior

    def sampled(self) -> dict:
        couplings = _recorded(self.prior_model, self._sites)
        good = jnp.ones((), bool)
        for name in holding(self.model) & set(couplings):
            good &= jnp.all(jnp.asarray(couplings[name]) >= 0)
        numpyro.factor("has_a_density", jnp.where(good, 0.0, -jnp.inf))
        return couplings


def _recorded(prior: Callable, sites: set[str]) -> dict:
    """The couplings, those that are not sites themselves as deterministic ones."""
    couplings = prior()
    for name, value in couplings.items():
        if name not in sites:
            numpyro.deterministic(name, jnp.asarray(value, jnp.result_type(float)))
    return couplings


def _marginal(draws: np.ndarray) -> Distribution:
    low, middle, high = np.quantile(draws, [0.16, 0.5, 0.84])
    return numpyro.distributions.StudentT(4.0, middle, 0.75 * max(high - low, 1e-6 * (1 + abs(middle))))


def _traced(prior: Callable, model: MarkovRandomField) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Shapes of the couplings that a prior model returns, and the names of its sites."""
    found = {}

    def run():
        found["couplings"] = prior()
        return found["couplings"]

    sites = handlers.trace(handlers.seed(run, jax.random.key(0))).get_trace()
    couplings = found["couplings"]
    if not isinstance(couplings, dict) or not couplings:
        fix = "End it with return {'w': w, 'a': a}."
        raise ArgumentError("priors", "a NumPyro model that returns a dict of couplings", repr(couplings), fix)
    if any(site["type"] == "sample" and site["is_observed"] for site in sites.values()):
        raise ArgumentError("priors", "a NumPyro model without observed sites", "one with data", reason="observed")
    shapes = {}
    for name, value in couplings.items():
        if name not in model.couplings:
            known = ", ".join(map(repr, model.couplings))
            raise ArgumentError("priors", f"couplings of the model: {known}", repr(name), reason="name")
        shapes[name], number = np.shape(value), len(_form(model, name).cliques)
        if shapes[name] not in ((), (number,)):
            expected = f"one number, or {number}, one for each clique"
            raise ArgumentError(f"coupling {name!r}", expected, f"shape {shapes[name]}", reason="shape")
        if name in sites and not (is_concrete(value) and np.array_equal(sites[name]["value"], value)):
            fix = "Rename the site, or return its value."
            raise ArgumentError(
                f"coupling {name!r}", "the value of the site of this name", "another value", fix, reason="site"
            )
    if not any(site["type"] == "sample" for site in sites.values()):
        fix = "Fixed couplings belong in the model: model.replace(…)."
        raise ArgumentError("priors", "a NumPyro model with sample sites", "one without", fix, reason="no_sites")
    return shapes, set(sites)


def _form(model: MarkovRandomField, name: str):
    return next(form for form in model.forms if form.name == name)
