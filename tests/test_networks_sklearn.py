"""The estimators as citizens of scikit-learn: its own checks, pipelines and searches."""

import contextlib
import unittest

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from phi4ppl import networks

pytestmark = pytest.mark.compile_quickly

TINY = dict(n_epochs=1, n_chains=4, n_annealing_steps=10)
MACHINES = {
    name: getattr(networks, name)(2, **TINY)
    for name in ("BernoulliBernoulliRBM", "GaussianBernoulliRBM", "GaussianGaussianRBM", "Phi4BernoulliRBM", "Phi4RBM")
}
STACKS = {
    "DeepPhi4Network": networks.DeepPhi4Network(
        [networks.GaussianBernoulliRBM(3, **TINY), networks.BernoulliBernoulliRBM(2, **TINY)], n_draws=2
    )
}
ESTIMATORS = MACHINES | STACKS


def test_all_estimators_are_checked():
    public = {name for name in networks.__all__ if hasattr(getattr(networks, name), "fit")}
    assert public == set(ESTIMATORS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learns_checks_pass(name):
    """All of them, with no exception."""
    for estimator, check in estimator_checks_generator(ESTIMATORS[name]):
        with contextlib.suppress(unittest.SkipTest):  # of checks that need packages that are not here
            check(estimator)


def test_a_search_reaches_one_machine_of_a_stack_in_a_pipeline():
    """By `score`, the held-out bound: a stack whose lowest machine has learned is above one that has hardly begun."""
    rng = np.random.default_rng(0)
    rows = rng.choice([-1.0, 1.0], (120, 1)) * [2.0, 1.0, 0.0] + rng.normal(0, 0.4, (120, 3))
    settings = dict(batch_size=20, learning_rate=0.05)
    lower, upper = (
        networks.GaussianBernoulliRBM(3, **settings),
        networks.BernoulliBernoulliRBM(2, n_epochs=5, **settings),
    )
    pipeline = make_pipeline(StandardScaler(), networks.DeepPhi4Network([lower, upper], n_draws=20))
    search = GridSearchCV(
        pipeline, {"deepphi4network__0__n_epochs": [1, 30]}, cv=2, refit=False, error_score="raise"
    ).fit(rows)
    assert search.best_params_ == {"deepphi4network__0__n_epochs": 30}
