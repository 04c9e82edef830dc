"""Pseudo-likelihood: conditionals against Gauss quadrature and closed forms, and calibrated errors."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from known_fields import TRUE, independent_fields, pulls, true_model
from scipy import optimize

import phi4ppl as p4
from phi4ppl.learning import conditionals
from phi4ppl.learning.conditionals import Grid
from phi4ppl.learning.local import LocalStructure
from phi4ppl.model.coupling_vector import CouplingVector

pytestmark = pytest.mark.compile_quickly

RNG = np.random.default_rng


def three_body_model():
    lattice = p4.lattice.complete(3)
    own = p4.Term("g", [[0, 1, 2]], lambda x, y, z: x * y * z**2, coupling=0.2)
    return p4.MarkovRandomField(lattice, [*p4.phi4(lattice, w=[0.3, 0.1, -0.2], a=0.4, b=0.3, r=0.2).terms, own])


def test_conditionals_agree_with_gauss_quadrature(x64):
    """log z, ⟨t⟩ and Σ Cov(t, t) of every site, for an own term of three sites, from the energy alone."""
    model = three_body_model()
    vector = CouplingVector.of(model)
    fields = RNG(0).normal(size=(4, 3))
    structure = LocalStructure(vector)
    grid = Grid(structure, RNG(1).normal(size=(50, 3)) * 2)
    found = grid(fields, vector.flatten(model.couplings))
    statistics = jax.jit(lambda phi: vector.stack(model.statistics(phi)))
    theta = vector.flatten(model.couplings)
    hessian = np.zeros((vector.size,) * 2)
    for n, field in enumerate(fields):
        for site in range(3):
            acting = structure.coupling[structure.site == site]
            rest = np.asarray(statistics(np.where(np.arange(3) == site, 0.0, field)))

            def t(x, site=site, field=field, rest=rest):
                return np.asarray(statistics(np.where(np.arange(3) == site, x, field))) - rest

            nodes, weights = np.polynomial.legendre.leggauss(200)
            t_nodes = np.array([t(6 * x) for x in nodes])
            density = 6 * weights * np.exp(-t_nodes @ theta)
            mean = density @ t_nodes / density.sum()
            second = np.einsum("g,gk,gl->kl", density, t_nodes, t_nodes) / density.sum()
            hessian += second - np.outer(mean, mean)
            assert found.log_normalizer[site, n] == pytest.approx(np.log(density.sum()), abs=1e-8)
            np.testing.assert_allclose(found.mean[structure.site == site, n], mean[acting], atol=1e-8)
    np.testing.assert_allclose(structure.matrix(found.covariance).toarray(), hessian, atol=1e-7)


def test_gaussian_field_has_the_closed_form(x64):
    """log p(φ_i | rest) of a Gaussian: the fit is the minimum of its closed form."""
    lattice = p4.lattice.chain(5)
    data = (
        RNG(2).normal(size=(300, 5))
        @ np.linalg.cholesky(np.linalg.inv(p4.exact.gaussian_precision(p4.gaussian(lattice, w=0.5, a=1.0)))).T
    )

    def closed(couplings):
        w, a = couplings
        pull = w * (np.roll(data, 1, 1) + np.roll(data, -1, 1))
        return (a * (data - pull / (2 * a)) ** 2).sum(axis=1).mean() - 2.5 * np.log(a)

    best = optimize.minimize(closed, [0.3, 1.2], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).x
    fit = p4.fit_likelihood(p4.gaussian(lattice, w=0.0, a=2.0), data, method="pseudolikelihood")
    np.testing.assert_allclose([float(fit.model.couplings[k]) for k in "wa"], best, rtol=1e-5)
    assert fit.converged and fit.history["newton_decrement"].values[-1] < 1e-6 * 2 / 300


@pytest.mark.parametrize("spread", [0.02, 30.0])
def test_narrow_and_correlated_fields_make_the_grid_finer(spread, x64):
    """A site nearly tied to its neighbors has a conditional much narrower than its range: no node may be missed."""
    lattice = p4.lattice.chain(2, periodic=False)
    common, own = RNG(3).normal(size=(500, 1)), RNG(4).normal(size=(500, 2))
    data = spread * (common + 0.02 * own)
    fit = p4.fit_likelihood(p4.gaussian(lattice, w=0.0, a=1.0).inhomogeneous(), data, method="pseudolikelihood")
    covariance = data.T @ data / 500
    # of two sites, pseudo-likelihood regresses each on the other
    slope = np.array([covariance[0, 1] / covariance[1, 1], covariance[0, 1] / covariance[0, 0]])
    a, w = fit.model.couplings["a"], fit.model.couplings["w"]
    np.testing.assert_allclose(w / (2 * a), slope, rtol=0.01)
    assert 1 / (2 * a[0]) == pytest.approx((covariance[0, 0] - slope[0] * covariance[0, 1]), rel=0.05)


def test_a_grid_that_is_too_coarse_or_narrow_is_noticed():
    vector = CouplingVector.of(p4.gaussian(p4.lattice.chain(3), w=0.0, a=1.0))
    data = RNG(5).normal(size=(20, 3))
    grid = Grid(LocalStructure(vector), data)
    grid(data, np.array([0.0, 3.0]))
    assert not grid.refined() and grid.num_nodes == conditionals.START_NODES
    grid(data, np.array([0.0, 3e5]))
    assert grid.difference > conditionals.MAX_DIFFERENCE and grid.refined()
    margin, _ = grid.margin, grid.forget()
    grid(data, np.array([0.0, 1e-3]))
    assert grid.at_ends > conditionals.MAX_AT_ENDS and grid.refined() and grid.margin > margin


def test_known_couplings_are_recovered():
    """Within three standard errors (false alarm 0.8 %, fixed key)."""
    fit = p4.fit_likelihood(true_model(), independent_fields(2000), method="pseudolikelihood")
    assert fit.converged and max(map(abs, pulls(fit).values())) < 3
    assert abs(pulls(fit, TRUE | {"w": 0.54})["w"]) > 5
    matched = p4.fit_likelihood(true_model(), independent_fields(2000))
    assert all(fit.standard_errors[name] < 1.02 * matched.standard_errors[name] for name in TRUE)


@pytest.mark.slow
def test_errors_are_calibrated():
    inside = []
    for data in independent_fields(200_000, seed=2).reshape(100, 2000, 8, 8):
        inside += [
            abs(z) < 1.96 for z in pulls(p4.fit_likelihood(true_model(), data, method="pseudolikelihood")).values()
        ]
    assert 0.90 <= np.mean(inside) <= 0.99


def test_few_samples_and_many_couplings():
    """From 40 fields, 256 couplings: regularized, better than score matching without, and continued from where it was."""
    family, data, held_out = (
        true_model().inhomogeneous(),
        independent_fields(2000)[:40],
        independent_fields(2000)[1000:],
    )
    first = p4.fit_likelihood(family, data, p4.learning.PseudoLikelihood(num_steps=1))
    assert (
        not first.converged and "maximum number of steps" in str(first) and "40 samples for 256 couplings" in str(first)
    )
    fit = p4.fit_likelihood(family, data, method="pseudolikelihood", initial=first, ridge=first.ridge)
    assert fit.converged and fit.history.sizes["step"] > first.history.sizes["step"]
    plain = p4.fit_likelihood(family, data, ridge=0.0).model
    assert p4.held_out_score(fit.model, held_out)[0] < p4.held_out_score(plain, held_out)[0] - 5


def test_ctrl_c_returns_what_there_is(monkeypatch):
    monkeypatch.setattr("phi4ppl.learning.pseudolikelihood.Interrupts.__enter__", lambda self: _asked(self))
    fit = p4.fit_likelihood(
        true_model(), independent_fields(2000)[:50], method="pseudolikelihood", initial=true_model().replace(a=3.0)
    )
    assert fit.status is p4.FitStatus.INTERRUPTED and not fit.converged and "Continue the fit" in str(fit)
    assert fit.model.couplings["a"] == 3.0 and fit.history.sizes["step"] == 1


def _asked(interrupts):
    interrupts._installed, interrupts.asked = False, True
    return interrupts
