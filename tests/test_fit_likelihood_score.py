"""Score matching: exact answers, calibrated errors, ridge and bounds, and what it says about bad data."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from known_fields import TRUE, independent_fields, pulls, true_model
from raising import raises
from scipy import optimize, sparse

import phi4ppl as p4
from phi4ppl.learning import ridge as ridges
from phi4ppl.model.coupling_vector import CouplingVector

RNG = np.random.default_rng


def mixed_family():
    """Homogeneous and inhomogeneous couplings, a kind a term, and an own term of four sites."""
    lattice = p4.lattice.square(3, diagonals=True)
    model = p4.phi4(lattice, w={"nn": 0.5, "diagonal": np.full(18, 0.1)}, a=1.0, b=np.full(9, 0.2), r=0.1)
    own = p4.Term("g", p4.lattice.plaquettes(lattice), lambda p, q, r, s: p * q * r * s**2, coupling=0.1)
    return p4.MarkovRandomField(lattice, [*model.terms, own])


def dense_normal_equations(model, data):
    """A, b and single-sample gradients at θ, from automatic differentiation of the statistics and nothing else."""
    vector = CouplingVector.of(model)
    statistics = lambda phi: vector.stack(model.statistics(phi.reshape(model.field_shape)))  # noqa: E731
    flat = data.reshape(len(data), -1)
    slopes = np.asarray(jax.vmap(jax.jacfwd(statistics))(flat))
    curves = np.asarray(jax.vmap(jax.jacfwd(jax.jacfwd(statistics)))(flat))
    return np.einsum("nki,nli->nkl", slopes, slopes), np.einsum("nkii->nk", curves)


def test_any_terms_agree_with_automatic_differentiation(x64):
    """Couplings and sandwich errors of the sparse assembly are those of dense matrices from the action alone."""
    model = mixed_family()
    data = RNG(0).normal(size=(400, 3, 3))
    fit = p4.fit_likelihood(model, data, ridge=0.0)
    products, curves = dense_normal_equations(model, data)
    theta = np.linalg.solve(products.mean(0), curves.mean(0))
    vector = CouplingVector.of(model)
    np.testing.assert_allclose(vector.flatten(fit.model.couplings), theta, rtol=1e-8)
    gradients = products @ theta - curves
    inverse = np.linalg.inv(products.mean(0))
    errors = np.sqrt(np.diag(inverse @ np.cov(gradients.T) @ inverse) / 400)
    np.testing.assert_allclose(vector.flatten(fit.standard_errors), errors, rtol=1e-7)
    score, error = p4.held_out_score(fit.model, data)
    single = 0.5 * np.einsum("k,nkl,l->n", theta, products, theta) - curves @ theta
    np.testing.assert_allclose([score, error], [single.mean(), single.std(ddof=1) / 20], rtol=1e-9)
    assert fit.history["objective"].values[-1] == pytest.approx(score, rel=1e-9)


def test_gaussian_of_all_covariances_is_the_maximum_likelihood_estimate():
    """On a complete graph both are the inverse of the second moments, to the last digits."""
    data = RNG(1).normal(size=(50, 5)) @ RNG(2).normal(size=(5, 5))
    fit = p4.fit_likelihood(p4.gaussian(p4.lattice.complete(5), w=0.0, a=1.0).inhomogeneous(), data)
    np.testing.assert_allclose(p4.exact.gaussian_precision(fit.model), np.linalg.inv(data.T @ data / 50), rtol=1e-5)
    assert fit.converged and fit.ridge == 0


def test_own_terms_and_pieces_of_the_data_change_nothing(monkeypatch, x64):
    data = RNG(9).normal(size=(301, 4))
    lattice = p4.lattice.chain(4)
    own = [p4.Term("b", np.arange(4)[:, None], lambda x: x**4), p4.Term("w", lattice.edges, lambda x, y: -x * y)]
    family = p4.MarkovRandomField(lattice, [*own, *p4.gaussian(lattice, w=0.0, a=1.0).terms[1:]])
    one = p4.fit_likelihood(p4.phi4(lattice, a=1.0, b=0.1), data)
    monkeypatch.setattr("phi4ppl.learning.local.CHUNK", 500)
    other = p4.fit_likelihood(family, data)
    for name in TRUE:
        assert float(one.model.couplings[name]) == pytest.approx(float(other.model.couplings[name]), rel=1e-9)
        assert float(one.standard_errors[name]) == pytest.approx(float(other.standard_errors[name]), rel=1e-7)


def test_known_couplings_are_recovered():
    """Each within three standard errors (false alarm 0.8 %, fixed key); twice the hopping in the data is found out."""
    fit = p4.fit_likelihood(true_model().replace(w=0.0, a=3.0, b=1.0), independent_fields(2000))
    assert fit.converged and max(map(abs, pulls(fit).values())) < 3
    assert abs(pulls(fit, TRUE | {"w": 0.54})["w"]) > 5
    wide = p4.fit_likelihood(true_model().inhomogeneous(), independent_fields(2000), ridge=0.0)
    vector = CouplingVector.of(wide.model)
    z = (
        vector.flatten(wide.model.couplings) - vector.flatten(true_model().inhomogeneous().couplings)
    ) / vector.flatten(wide.standard_errors)
    assert 0.85 < np.std(z) < 1.15  # 256 of them: ± 0.05


@pytest.mark.slow
def test_errors_are_calibrated():
    """Coverage of 95 % intervals over 100 data sets, and errors that fall as N^(−1/2)."""
    fields = independent_fields(200_000, seed=2).reshape(100, 2000, 8, 8)
    inside, errors = [], []
    for data in fields:
        fit = p4.fit_likelihood(true_model(), data)
        inside += [abs(z) < 1.96 for z in pulls(fit).values()]
        errors.append([float(e) for e in fit.standard_errors.values()])
    assert 0.90 <= np.mean(inside) <= 0.99
    for number in (500, 8000, 32_000):
        fit = p4.fit_likelihood(true_model(), fields.reshape(-1, 8, 8)[:number])
        ratio = np.array([float(e) for e in fit.standard_errors.values()]) / np.mean(errors, axis=0)
        np.testing.assert_allclose(ratio, np.sqrt(2000 / number), rtol=0.15)


# --- ridge and bounds


def test_ridge_is_the_stated_one():
    """θ = (A + λD)⁻¹(b + λD θ̄) with D the diagonal of A on inhomogeneous couplings; a strong one is homogeneous."""
    model = p4.gaussian(p4.lattice.chain(4), w=0.0, a=1.0).inhomogeneous("a")
    data = RNG(3).normal(size=(60, 4))
    products, curves = dense_normal_equations(model, data)
    matrix, right = products.mean(0), curves.mean(0)
    tie = np.array([[1, 0]] + 4 * [[0, 1]])
    center = tie @ np.linalg.solve(tie.T @ matrix @ tie, tie.T @ right)
    pull = 0.7 * np.diag(np.diag(matrix) * [0, 1, 1, 1, 1])
    expected = np.linalg.solve(matrix + pull, right + pull @ center)
    vector = CouplingVector.of(model)
    fit = p4.fit_likelihood(model, data, ridge=0.7)
    np.testing.assert_allclose(vector.flatten(fit.model.couplings), expected, rtol=2e-5)
    strong = p4.fit_likelihood(model, data, ridge=1e9).model.couplings["a"]
    assert np.ptp(strong) < 1e-6 and strong[0] == pytest.approx(center[1], rel=1e-5)


def test_few_samples_are_regularized_and_the_result_says_so():
    """From 40 fields, 256 couplings: the ridge found from the data alone beats none and nearly the best one."""
    family = true_model().inhomogeneous()
    data = independent_fields(2000)[:40]
    fit = p4.fit_likelihood(family, data)
    assert fit.ridge > 0 and any("40 samples for 256 couplings" in note for note in fit.warnings)
    assert str(round(fit.ridge)) in str(fit) or f"{fit.ridge:.2g}" in str(fit)
    held_out = independent_fields(2000)[1000:]
    scores = {
        r: p4.held_out_score(p4.fit_likelihood(family, data, ridge=r).model, held_out)[0] for r in (0.0, 0.3, 3, 30)
    }
    automatic = p4.held_out_score(fit.model, held_out)[0]
    assert automatic < scores[0.0] - 5
    assert automatic < min(scores.values()) + 0.1 * (scores[0.0] - min(scores.values()))


def test_bounds_are_those_of_a_quadratic_programme():
    rng = RNG(5)
    for _ in range(20):
        root = rng.normal(size=(12, 8))
        right = rng.normal(size=8)
        solved = ridges.solve(sparse.csc_matrix(root.T @ root), right, np.ones(8, bool))
        factor = np.linalg.cholesky(root.T @ root)
        expected, _ = optimize.nnls(factor.T, np.linalg.solve(factor, right))
        np.testing.assert_allclose(solved.theta, expected, atol=1e-10)
        assert (solved.theta[~solved.free] == 0).all()


def test_a_coupling_at_its_bound_is_said_to_be_there():
    """The source of a narrow Gaussian off zero: b is not determined, and must not make Z infinite."""
    data = -0.5 + 0.05 * RNG(0).normal(size=(2000, 8, 8))
    fit = p4.fit_likelihood(p4.phi4(p4.lattice.square(8), a=1.0, b=0.1, r=0.0), data)
    assert fit.converged and fit.model.couplings["b"] == 0 and np.isnan(fit.standard_errors["b"])
    assert "at the bound 0" in str(fit)


def test_couplings_that_the_data_do_not_determine_are_named():
    lattice = p4.lattice.chain(4)
    twice = p4.Term("c", np.arange(4)[:, None], lambda x: x * x)
    family = p4.MarkovRandomField(lattice, [*p4.gaussian(lattice, w=0.0, a=1.0).terms, twice])
    fit = p4.fit_likelihood(family, RNG(6).normal(size=(100, 4)))
    assert any("do not determine all couplings" in note for note in fit.warnings)
    assert fit.model.couplings["a"] + fit.model.couplings["c"] == pytest.approx(0.5, abs=0.1)


def test_a_fit_that_is_no_density_is_not_converged():
    """Heavy tails bend S downwards at large fields; the status says what to do."""
    lattice = p4.lattice.chain(3)
    sixth = p4.Term("c", np.arange(3)[:, None], lambda x: x**6)
    family = p4.MarkovRandomField(lattice, [*p4.gaussian(lattice, w=0.0, a=1.0).terms, sixth])
    fit = p4.fit_likelihood(family, RNG(7).laplace(size=(400, 3)))
    assert float(fit.model.couplings["c"]) < 0
    assert not fit.converged and "not bounded below" in str(fit) and "Not normalizable: S falls" in str(fit)


# --- arguments


def _bad(change):
    data = RNG(8).normal(size=(20, 3, 3))
    return change(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_bad(lambda d: d[0]), ("argument.data.shape", "num_fields", "got shape (3, 3)")),
        (
            _bad(lambda d: d.reshape(20, 9)),
            ("argument.data.shape", "num_fields", "3", "got shape (20, 9)"),
        ),
        (_bad(lambda d: d[:1]), ("argument.number", "2", "number of samples in data", "got 1")),
        (
            _bad(lambda d: np.where(d == d[3, 1, 2], np.nan, d)),
            ("argument.data.finite", "got nan at index (3, 1, 2)"),
        ),
        (_bad(lambda d: 1 + d * (np.arange(9).reshape(3, 3) != 5)), ("argument.data.constant", "1", "(1, 2)")),
        (_bad(lambda d: d + 1j), ("argument.data",)),
    ],
)
def test_bad_data_is_explained(data, message):
    with raises(*message):
        p4.fit_likelihood(p4.phi4(p4.lattice.square(3), a=1.0, b=0.1), data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mle"}, ("argument.method", "'score_matching'", "got 'mle'")),
        ({"ridge": -1.0}, ("argument.ridge", "got -1.0")),
        ({"ridge": True}, ("argument.ridge", "0")),
    ],
)
def test_bad_options_are_explained(options, message):
    with raises(*message):
        p4.fit_likelihood(p4.phi4(p4.lattice.square(3), a=1.0, b=0.1), _bad(lambda d: d), **options)
