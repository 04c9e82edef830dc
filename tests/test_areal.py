"""Fields of disease mapping against dense formulas: densities, scaling factors, islands and several components."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from raising import raises
from scipy import stats
from test_numpyro_plugin import covariance_p_value

import phi4ppl as p4
from phi4ppl.numpyro_plugin import IntrinsicField

pytestmark = [pytest.mark.compile_quickly, pytest.mark.rank_promotion]

ALARM = 1e-5
GRAPH = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (1, 3), (4, 5), (5, 6)])  # two components and two islands
GRAPH.add_nodes_from([7, 8])
MAP = p4.lattice.from_networkx(GRAPH)
ADJACENCY = nx.to_numpy_array(GRAPH, nodelist=MAP.nodes)
LAPLACIAN = np.diag(ADJACENCY.sum(axis=1)) - ADJACENCY
ISLAND = np.array([7, 8])
PHI = np.random.default_rng(0).normal(size=(3, 9))


def normal(precision):
    return stats.multivariate_normal.logpdf(PHI, np.zeros(9), np.linalg.inv(precision))


@pytest.mark.parametrize(("alpha", "tau"), [(0.0, 1.0), (0.9, 2.5), (-0.5, 0.3)])
def test_proper_car_is_the_normal_of_its_precision(alpha, tau):
    degree = np.maximum(ADJACENCY.sum(axis=1), 1)
    field = p4.proper_car(MAP, alpha=alpha, precision=tau)
    exact = normal(tau * (np.diag(degree) - alpha * ADJACENCY))
    np.testing.assert_allclose(field.log_prob(PHI), exact, rtol=2e-5)
    assert (
        np.abs(field.log_prob(PHI) - normal(tau * (np.diag(np.maximum(degree, 2)) - alpha * ADJACENCY))).max() > 0.1
    )  # other islands


@pytest.mark.parametrize(("rho", "tau"), [(0.0, 1.0), (0.7, 2.5), (0.99, 0.3)])
def test_leroux_is_the_normal_of_its_precision(rho, tau):
    field = p4.leroux(MAP, rho=rho, precision=tau)
    exact = normal(tau * (rho * LAPLACIAN + (1 - rho) * np.eye(9)))
    np.testing.assert_allclose(field.log_prob(PHI), exact, rtol=2e-5)


def test_parameters_may_be_random_and_log_z_follows_them():
    """The gradient in ρ and τ against finite differences of the dense formula. Planted fault: without log Z."""

    def density(rho, tau):
        return normal(tau * (rho * LAPLACIAN + (1 - rho) * np.eye(9)))[0]

    def model(rho, tau):
        numpyro.sample("phi", p4.leroux(MAP, rho=rho, precision=tau), obs=PHI[0])

    slopes = jax.jit(jax.grad(lambda p: log_density(model, tuple(p), {}, {})[0]))(jnp.array([0.6, 1.4]))
    h = 1e-5
    exact = [(density(0.6 + h, 1.4) - density(0.6 - h, 1.4)) / (2 * h),
             (density(0.6, 1.4 + h) - density(0.6, 1.4 - h)) / (2 * h)]  # fmt: skip
    np.testing.assert_allclose(slopes, exact, rtol=1e-3)
    without = jax.grad(lambda tau: -p4.leroux(MAP, rho=0.6, precision=tau).model.energy(jnp.asarray(PHI[0])))(1.4)
    assert abs(without - exact[1]) > 1


def test_scaled_variances_have_geometric_mean_one_on_every_component():
    """Riebler et al. 2016 by component, as Freni-Sterrantino et al. 2018 recommend. Planted fault: one factor for all."""
    covariance = np.linalg.pinv(LAPLACIAN, hermitian=True)
    factors, parts = p4.scaling_factors(MAP), [[0, 1, 2, 3], [4, 5, 6]]
    for part in parts:
        variances = np.diag(covariance)[part]
        np.testing.assert_allclose(factors[part], np.exp(np.log(variances).mean()), rtol=1e-10)
        np.testing.assert_allclose(np.exp(np.log(variances / factors[part]).mean()), 1.0)
    np.testing.assert_array_equal(factors[ISLAND], 1.0)
    together = np.exp(np.log(np.diag(covariance)[:7]).mean())
    assert abs(together / factors[0] - 1) > 0.1 and abs(together / factors[4] - 1) > 0.1
    path = p4.lattice.chain(3, periodic=False)  # by hand: variances 5/9, 2/9, 5/9
    np.testing.assert_allclose(p4.scaling_factors(path), (50 / 729) ** (1 / 3))


def components_mean():
    mean = np.zeros((9, 9))
    for part in ([0, 1, 2, 3], [4, 5, 6]):
        mean[np.ix_(part, part)] = 1 / len(part)
    return mean


def test_the_intrinsic_field_is_normalized_and_drawn_with_its_covariance():
    """False alarm 1e-5. Planted faults: islands that are not there, means that are not taken off."""
    prior = IntrinsicField(MAP)
    island = np.zeros((9, 9))
    island[ISLAND, ISLAND] = 1
    precision = p4.scaling_factors(MAP)[:, None] * LAPLACIAN + components_mean() + island
    np.testing.assert_allclose(prior.log_prob(PHI), normal(precision), rtol=2e-5)
    assert np.abs(prior.log_prob(PHI) - normal(precision + island)).max() > 0.1
    draws = prior.sample(jax.random.key(0), (5000,))
    assert covariance_p_value(np.asarray(draws, float), np.linalg.inv(precision)) > ALARM
    assert covariance_p_value(np.asarray(draws, float), np.linalg.inv(precision + 0.1 * island)) < ALARM
    u = np.asarray(prior.deviations(draws), float)
    np.testing.assert_allclose(u @ components_mean(), 0, atol=2e-5)
    exact = np.linalg.pinv(p4.scaling_factors(MAP)[:, None] * LAPLACIAN, hermitian=True) + island
    assert np.abs(np.cov(u.T) - exact).max() < 5 * np.sqrt(2 / 5000) * np.diag(exact).max()
    assert np.abs(np.cov(np.asarray(draws).T) - exact).max() > 0.15


def test_bym2_has_the_variance_of_its_definition_on_every_kind_of_area():
    """σ² [ψ Var u_i + 1 − ψ]; on islands σ². 4000 draws: relative errors of √(2/4000), five of them."""

    def model():
        p4.bym2("effect", MAP, scale=2.0, share=0.7)

    drawn = numpyro.infer.Predictive(model, num_samples=4000)(jax.random.key(1))
    assert set(drawn) == {"effect", "effect_spatial", "effect_local"}
    spatial = np.diag(np.linalg.pinv(p4.scaling_factors(MAP)[:, None] * LAPLACIAN, hermitian=True)).copy()
    spatial[ISLAND] = 1
    exact = 4 * (0.7 * spatial + 0.3)
    ratio = np.asarray(drawn["effect"], float).var(axis=0) / exact
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2 / 4000) and exact[7] == 4
    assert np.abs(np.asarray(drawn["effect"], float).var(axis=0) / (4 * spatial) - 1).max() > 0.15


def test_a_posterior_with_bym2_is_that_of_a_dense_normal():
    """Normal data: closed form. Scores of nine means beyond 4.4 with probability 1e-5 each; a wrong share is found."""
    y = np.array([1.0, 0.5, -0.5, 0.2, 2.0, 1.5, 1.0, -1.0, 0.4])

    def model():
        effect = p4.bym2("effect", MAP, scale=1.0, share=0.6)
        numpyro.sample("y", dist.Normal(effect, 0.5).to_event(1), obs=y)

    tree = p4.sample(model, num_warmup=300, num_samples=1000, progress=False)
    island = np.zeros((9, 9))
    island[ISLAND, ISLAND] = 1
    u = np.linalg.pinv(p4.scaling_factors(MAP)[:, None] * LAPLACIAN, hermitian=True) + island
    table = p4.estimate(tree, ["effect"])

    def score(share):
        prior = share * u + (1 - share) * np.eye(9)
        mean = prior @ np.linalg.solve(prior + 0.25 * np.eye(9), y)
        return np.abs((table["mean"] - mean) / table["error"]).max()

    assert score(0.6) < 4.4 < score(0.1)
    assert tree["posterior"]["effect_spatial"].sizes["site"] == 9


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: p4.proper_car(MAP, alpha=1.0), "argument.alpha.range"),
        (lambda: p4.proper_car(MAP, alpha="strong"), "argument.alpha"),
        (
            lambda: p4.proper_car(p4.lattice.chain(4, periodic="antiperiodic"), alpha=0.5),
            "argument.lattice.antiperiodic",
        ),
        (lambda: p4.leroux(MAP, rho=-0.1), "argument.rho.range"),
        (lambda: p4.leroux(MAP, rho=1.0), "argument.rho.range"),
        (lambda: p4.leroux(MAP, rho=0.5, precision=0.0), "argument.precision.range"),
        (lambda: p4.leroux(GRAPH, rho=0.5), "argument.lattice"),
        (lambda: p4.bym2("", MAP, scale=1.0, share=0.5), "argument.name"),
        (lambda: p4.bym2("e", MAP, scale=1.0, share=1.5), "argument.share.range"),
        (lambda: p4.bym2("e", MAP, scale=np.ones(2), share=0.5), "argument.scale.shape"),
        (lambda: p4.scaling_factors(p4.lattice.chain(5000)), "argument.lattice.too_large"),
    ],
)
def test_what_cannot_be_is_refused(call, code):
    with raises(code):
        call()
