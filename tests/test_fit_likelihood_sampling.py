"""Maximum likelihood and persistent contrastive divergence, against exact likelihoods of small fields."""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax
import pytest
from exact_runs import model_of
from known_fields import TRUE, independent_fields, pulls, true_model
from raising import raises

import phi4ppl as p4
from phi4ppl.learning import MaximumLikelihood, PersistentCD, PseudoLikelihood, ScoreMatching
from phi4ppl.learning.expectation import expectation
from phi4ppl.learning.persistent_cd import fisher_errors
from phi4ppl.model.coupling_vector import CouplingVector, statistics_matrix
from phi4ppl.sampling.engine import Draws, Engine

pytestmark = pytest.mark.compile_quickly

RNG = np.random.default_rng
FAST = {"kernel": "local_hmc", "num_chains": 64}


def small_family():
    return p4.phi4(p4.lattice.chain(3, periodic=False), w=0.6, a=0.8, b=0.3)


@functools.lru_cache
def nodes() -> np.ndarray:
    line = np.linspace(-4, 4, 41)
    return np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)


@functools.lru_cache
def small_data() -> np.ndarray:
    """Draws of the family on the nodes of the quadrature, blurred by their distance."""
    rng = RNG(1)
    weight = np.exp(-statistics_matrix(small_family(), nodes()) @ [0.6, 0.8, 0.3])
    chosen = nodes()[rng.choice(len(weight), size=300, p=weight / weight.sum())]
    return chosen + rng.uniform(-0.1, 0.1, size=chosen.shape)


def exact_moments(family, theta):
    """⟨T⟩ and the Fisher matrix by quadrature on 41³ nodes."""
    matrix = statistics_matrix(family, nodes())
    weight = np.exp(-matrix @ theta)
    weight /= weight.sum()
    mean = weight @ matrix
    return mean, (matrix - mean).T @ (weight[:, None] * (matrix - mean))


def exact_fit(family, data):
    """Maximum-likelihood couplings and errors, by Newton's method on the exact likelihood."""
    theta = CouplingVector.of(family).flatten(family.couplings)
    observed = statistics_matrix(family, data).mean(axis=0)
    for _ in range(30):
        mean, fisher = exact_moments(family, theta)
        theta = theta + np.linalg.solve(fisher, mean - observed)
    return theta, np.sqrt(np.diag(np.linalg.inv(fisher)) / len(data)), fisher


def test_expectations_and_fisher_matrix_are_exact(reference):
    """Against the reference within 4.4 standard errors (12 numbers, false alarm 1e-4); half the draws' error would fail."""
    case = reference["fisher_chain_N4_w0.8_a1.4_b0.2"]
    exact, model = {k: v["value"] for k, v in case["quantities"].items()}, model_of(case)
    ensemble = Engine(model, kernel="local_hmc", num_chains=64, key=jax.random.key(5))
    ensemble.warm_up(model, 100)
    found = expectation(ensemble, model, 1000)
    error = found.chain_deviations.std(axis=0, ddof=1) / 8
    names = ("w", "a", "b")
    scores = (found.mean + [exact[f"dlogZ/d{k}"] for k in names]) / error
    assert np.abs(scores).max() < 4.4 and (error < 0.02).all()
    expected = np.array(
        [[exact["Fisher[" + ",".join(sorted((k, m), key="wab".index)) + "]"] for m in names] for k in names]
    )
    np.testing.assert_allclose(found.fisher, expected, rtol=0.1)
    assert np.abs(found.fisher / (2 * expected) - 1).min() > 0.3


def test_average_over_the_last_steps_is_nearer_to_the_exact_fit_than_a_step():
    """In standard errors of a nat: less than half the distance of a single step (measured: a fifth)."""
    exact, _, fisher = exact_fit(small_family(), small_data())
    options = {"kernel": "local_hmc", "num_chains": 64, "num_steps": 300, "optimizer": optax.adam(0.1)}
    fit, last = (
        p4.fit_likelihood(small_family(), small_data(), PersistentCD(average_last=share, **options))
        for share in (0.5, 0.0)
    )

    def distance(theta):
        return np.sqrt(np.einsum("...i,ij,...j", theta - exact, fisher, theta - exact))

    steps, flatten = fit.history["couplings"].values, CouplingVector.of(fit.model).flatten
    np.testing.assert_allclose(flatten(fit.model.couplings), steps[-150:].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(flatten(last.model.couplings), steps[-1], rtol=1e-6)
    assert "averaged over the last 150 of 300" in str(fit) and "averaged" not in str(last)
    assert distance(flatten(fit.model.couplings)) < 0.5 * np.sqrt(np.mean(distance(steps[-150:]) ** 2))


@pytest.mark.parametrize(
    ("method", "seed"),
    [
        (MaximumLikelihood(kernel="local_hmc"), 0),
        (MaximumLikelihood(kernel="local_hmc"), 5),
        (PersistentCD(kernel="local_hmc", num_steps=600, num_chains=64), 0),
    ],
)
def test_small_fields_have_the_exact_estimate(method, seed):
    """Couplings within 0.8 (persistent chains: 1) standard errors of the exact ones, errors within 15 % of the Fisher matrix.

    The first step of Newton's method would bring the quartic coupling to 0, from where it does not come back.
    """
    theta, errors, _ = exact_fit(small_family(), small_data())
    start = small_family().replace(w=0.3, a=1.2, b=0.5)
    fit = p4.fit_likelihood(small_family(), small_data(), method, initial=start, seed=seed)
    vector = CouplingVector.of(fit.model)
    away = (vector.flatten(fit.model.couplings) - theta) / errors
    assert fit.converged and np.abs(away).max() < (1.0 if fit.method == "persistent_cd" else 0.8), away
    np.testing.assert_allclose(vector.flatten(fit.standard_errors), errors, rtol=0.15)
    # the start is many errors away, so what stays there is caught
    assert np.abs((vector.flatten(start.couplings) - theta) / errors).max() > 3


def test_errors_from_neighbors_are_those_of_the_full_matrix():
    """√diag(G⁻¹/N) by blocks of neighbors, of a chain whose couplings all differ."""
    family = p4.gaussian(p4.lattice.chain(3, periodic=False), w=[0.3, 0.5], a=[1.0, 0.8, 1.2])
    vector = CouplingVector.of(family)
    theta = vector.flatten(family.couplings)
    _, fisher = exact_moments(family, theta)
    ensemble = Engine(family, kernel="local_hmc", num_chains=64, key=jax.random.key(3))
    ensemble.warm_up(family, 100)
    problem = type("Problem", (), {"vector": vector, "num_samples": 100})
    statistics = statistics_matrix(family, ensemble.draw(family, 100, 3).fields.reshape(-1, 3))
    found = fisher_errors(problem, statistics, np.zeros(5))
    np.testing.assert_allclose(found, np.sqrt(np.diag(np.linalg.inv(fisher)) / 100), rtol=0.08)
    pulled = fisher_errors(problem, statistics, np.diag(fisher))
    inverse = np.linalg.inv(fisher + np.diag(np.diag(fisher)))
    np.testing.assert_allclose(pulled, np.sqrt(np.diag(inverse @ fisher @ inverse) / 100), rtol=0.08)


@pytest.fixture(scope="module")
def fits():
    """All four methods on the same 2,000 fields."""
    data, family = independent_fields(2000), true_model()
    methods = ("score_matching", "pseudolikelihood", MaximumLikelihood(kernel="local_hmc"),
               PersistentCD(kernel="local_hmc", num_chains=64, num_steps=400))  # fmt: skip
    found = [p4.fit_likelihood(family, data, method) for method in methods]
    return {fit.method: fit for fit in found}


def test_known_couplings_are_recovered_by_all_methods(fits):
    """Within three standard errors (false alarm 0.8 % a method, fixed keys); no method beats maximum likelihood by much."""
    for method, fit in fits.items():
        assert fit.converged, str(fit)
        assert max(map(abs, pulls(fit).values())) < 3, (method, pulls(fit))
        assert abs(pulls(fit, TRUE | {"w": 0.54})["w"]) > 5
        smallest = fits["maximum_likelihood"].standard_errors
        assert all(float(fit.standard_errors[k]) > 0.85 * float(smallest[k]) for k in TRUE), method
    assert "averaged over the last 200 of 400 steps" in str(fits["persistent_cd"])


@pytest.mark.slow
@pytest.mark.parametrize("method", [MaximumLikelihood(kernel="local_hmc"), PersistentCD(**FAST, num_steps=300)])
def test_errors_are_calibrated(method):
    inside = []
    for seed, data in enumerate(independent_fields(200_000, seed=2).reshape(100, 2000, 8, 8)):
        fit = p4.fit_likelihood(true_model(), data, method, seed=seed)
        inside += [abs(z) < 1.96 for z in pulls(fit).values()]
    assert 0.90 <= np.mean(inside) <= 0.99


def test_few_samples_and_many_couplings():
    """From 40 fields, 256 couplings: both methods pull toward homogeneous ones, and say so; a fit can be continued."""
    family, data, held_out = (
        true_model().inhomogeneous(),
        independent_fields(2000)[:40],
        independent_fields(2000)[1000:],
    )
    plain = p4.held_out_score(p4.fit_likelihood(family, data, ridge=0.0).model, held_out)[0]
    for method in (MaximumLikelihood(**FAST), PersistentCD(**FAST, num_steps=60)):
        fit = p4.fit_likelihood(family, data, method)
        assert fit.ridge > 0 and "40 samples for 256 couplings" in str(fit)
        assert p4.held_out_score(fit.model, held_out)[0] < plain - 5
        again = p4.fit_likelihood(family, data, method, initial=fit, ridge=fit.ridge)
        assert again.history.sizes["step"] > fit.history.sizes["step"]
        assert again.history.isel(step=0).identical(fit.history.isel(step=0))


@pytest.mark.parametrize("method", [MaximumLikelihood(**FAST), PersistentCD(**FAST)])
def test_ctrl_c_returns_what_there_is(method, monkeypatch):
    monkeypatch.setattr("phi4ppl.sampling.interrupt.Interrupts.__enter__", lambda self: _asked(self))
    start = small_family().replace(a=1.5)
    fit = p4.fit_likelihood(small_family(), small_data(), method, initial=start)
    assert fit.status is p4.FitStatus.INTERRUPTED and fit.history.sizes["step"] == 1


def _asked(interrupts):
    interrupts._installed, interrupts.asked = False, True
    return interrupts


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ScoreMatching(num_steps=5), ("call.signature", "ScoreMatching", "got 'num_steps'")),
        (lambda: PseudoLikelihood(num_steps=0), ("argument.num_steps", "1")),
        (lambda: MaximumLikelihood(sweeps=2), ("call.signature", "num_steps, num_chains, kernel", "got 'sweeps'")),
        (lambda: MaximumLikelihood(num_chains=3), ("argument.num_chains", "8", "got 3")),
        (lambda: PersistentCD(average_last=-0.1), ("argument.average_last", "0")),
        (lambda: PersistentCD(num_steps=3), ("argument.num_steps", "16")),
        (lambda: PersistentCD(optimizer="adam"), ("argument.optimizer", "got 'adam'")),
        (lambda: PersistentCD(batch_size=0), ("argument.batch_size", "1")),
    ],
)
def test_bad_options_of_methods_are_explained(call, message):
    with raises(*message):
        call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "persistent_cd", "initial": 3},
            ("argument.initial", "MarkovRandomField", "got int"),
        ),
        (
            {"method": "pseudolikelihood", "initial": true_model()},
            ("argument.initial.mismatch",),
        ),
        ({"initial": small_family()}, ("argument.initial", "None", "score matching")),
        ({"method": "maximum_likelihood", "seed": -1}, ("argument.seed", "0")),
    ],
)
def test_bad_options_are_explained(options, message):
    with raises(*message):
        p4.fit_likelihood(small_family(), small_data(), **options)


def test_too_many_couplings_for_a_full_matrix_are_refused():
    family = p4.gaussian(p4.lattice.square(32), w=0.2, a=1.0).inhomogeneous()
    with raises("argument.model.too_large", "3000", "method='persistent_cd'", got="3072"):
        p4.fit_likelihood(family, RNG(0).normal(size=(5, 32, 32)), method="maximum_likelihood")


def test_an_own_optimizer_is_used():
    """A rate of zero leaves the couplings at their start."""
    start = small_family().replace(a=1.5)
    fit = p4.fit_likelihood(
        small_family(), small_data(), PersistentCD(**FAST, num_steps=16, optimizer=optax.sgd(0.0)), initial=start
    )
    assert float(fit.model.couplings["a"]) == pytest.approx(1.5, rel=1e-6)


def test_expectations_of_two_batches_are_those_of_all_their_draws():
    """To rounding, against NumPy on all fields; the mean of two Fisher matrices, without what lies between, would fail."""
    model = p4.gaussian(p4.lattice.chain(3), w=0.3, a=1.0)
    fields = np.random.default_rng(0).normal(size=(4, 30, 3))
    fields[:, 10:] += 1.0  # the second batch is somewhere else

    class Replayed:
        num_chains, done = 4, 0

        def draw(self, model, number):
            self.done += number
            return Draws(fields[:, self.done - number : self.done], {})

    engine = Replayed()
    first, second = expectation(engine, model, 10), expectation(engine, model, 20)
    found, statistics = first.joined(second), statistics_matrix(model, fields.reshape(-1, 3))
    np.testing.assert_allclose(found.mean, statistics.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.fisher, np.cov(statistics.T), rtol=1e-12)
    chains = statistics.reshape(4, 30, 2).mean(axis=1)
    np.testing.assert_allclose(found.mean + found.chain_deviations, chains, rtol=1e-12)
    assert found.num_draws == 30
    assert not np.allclose((10 * first.fisher + 20 * second.fisher) / 30, np.cov(statistics.T), rtol=0.05)
