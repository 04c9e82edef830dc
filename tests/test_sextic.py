"""φ⁶, a built-in power that is declared in one place: every room that asks for powers of the field finds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises
from scipy.integrate import quad
from scipy.stats import norm

import phi4ppl as p4
from phi4ppl.energy.functions import energy, energy_change
from phi4ppl.kernels.choose import choose
from phi4ppl.model.coupling_vector import statistics_matrix
from phi4ppl.model.statistic import BUILT_IN, SitePower, sextic

pytestmark = pytest.mark.compile_quickly

A, B, C = -1.1, -0.4, 0.25  # a negative quartic coupling, which the sextic one holds
SITE = p4.phi4(p4.lattice.chain(1), a=A, b=B, c=C)


def action(x):
    return A * x**2 + B * x**4 + C * x**6


def mean(function) -> float:
    """Of one site by adaptive quadrature."""
    weight = lambda x: np.exp(-action(x))  # noqa: E731
    return quad(lambda x: function(x) * weight(x), -6, 6, limit=400)[0] / quad(weight, -6, 6, limit=400)[0]


def test_one_site_alone_has_its_exact_log_partition(x64):
    exact = np.log(quad(lambda x: np.exp(-action(x)), -6, 6, limit=400, epsabs=1e-13)[0])
    found = p4.log_partition(SITE)
    assert found.method == "exact" and found.value == pytest.approx(exact, abs=1e-9)
    assert p4.exact.quadrature(SITE, points=4001)["log_partition"] == pytest.approx(exact, abs=1e-9)


def test_three_sites_have_the_log_partition_of_a_quadrature(x64):
    model = p4.phi4(p4.lattice.chain(3, periodic=False), w=0.6, a=A, b=B, c=C)
    assert p4.log_partition(model).value == pytest.approx(
        p4.exact.quadrature(model, half_width=4.0, points=161)["log_partition"], abs=1e-8
    )


@pytest.mark.parametrize("kernel", ["nuts", "local_hmc"])
def test_moments_of_one_site(kernel):
    """Two moments by two kernels, each within 4.5 errors of quadrature: false alarm 3e-5 in all."""
    tree = p4.sample(SITE, kernel=kernel, num_warmup=500, num_samples=4000, seed=1)
    table = p4.estimate(tree, ["phi_squared", "phi_fourth"])
    for name, power in (("phi_squared", 2), ("phi_fourth", 4)):
        row = table.loc[name]
        score = (row["mean"] - mean(lambda x: x**power)) / row["error"]  # noqa: B023
        assert abs(score) < 4.5, (name, score)
        without = SITE.replace(c=0.3)  # planted fault: another sextic coupling
        wrong = p4.exact.quadrature(without, {"m": lambda phi: phi[0] ** power}, points=4001)["m"]  # noqa: B023
        assert abs(row["mean"] - wrong) / row["error"] > norm.isf(1e-6)


def test_schwinger_dyson_holds_on_a_torus_with_clusters():
    """⟨φ ∂S/∂φ⟩ = 1 at every site, exact for any action; within 4.5 errors (7e-6)."""
    model = p4.phi4(p4.lattice.square(4), w=0.5, a=A, b=B, c=0.4)
    tree = p4.sample(model, kernel="cluster", num_warmup=300, num_samples=3000, seed=2)
    row = p4.estimate(tree, ["phi_squared"])  # the run is reliable
    assert row["reliable"].all()
    phi = tree["posterior"]["phi"].values
    slope = np.asarray(jax.vmap(jax.vmap(jax.grad(lambda x: energy(model, x))))(jnp.asarray(phi)))
    series = (phi * slope).mean(axis=(2, 3))
    found = p4.analysis.gamma_method(series)
    assert abs(found.mean - 1) < 4.5 * found.error


def test_energy_force_change_and_statistics_are_the_sums_written_out(x64):
    rng, lattice = np.random.default_rng(0), p4.lattice.square(3, 4)
    a, b, c = rng.normal(size=(3, 12))
    model = p4.phi4(lattice, w=0.3, a=a, b=b, c=np.abs(c))
    new, old = rng.normal(size=(2, 3, 4))

    def by_hand(phi):
        flat, edges = phi.reshape(-1), np.asarray(lattice.edges)
        return -0.3 * np.sum(flat[edges[:, 0]] * flat[edges[:, 1]]) + a @ flat**2 + b @ flat**4 + np.abs(c) @ flat**6

    assert float(energy(model, new)) == pytest.approx(by_hand(new), rel=1e-12)
    assert float(energy_change(model, new, old)) == pytest.approx(by_hand(new) - by_hand(old), rel=1e-11)
    step = 1e-5 * rng.normal(size=(3, 4))
    slope = float(jnp.sum(jax.grad(energy, argnums=1)(model, new) * step))
    assert slope == pytest.approx((by_hand(new + step) - by_hand(new - step)) / 2, rel=1e-6)
    np.testing.assert_allclose(
        statistics_matrix(p4.phi4(lattice, a=1.0, b=0.0, c=1.0), new[None])[0, -1], np.sum(new**6)
    )


def test_normalizability_looks_at_the_highest_power_of_every_site():
    chain = p4.lattice.chain(3)
    assert p4.phi4(chain, a=-1.0, b=-2.0, c=0.1).check().is_normalizable
    assert not p4.phi4(chain, a=-1.0, b=2.0, c=-0.1).check().is_normalizable
    report = p4.phi4(chain, a=1.0, b=[0.5, 0.5, -0.5], c=[0.1, 0.0, 0.0]).check()
    assert not report.is_normalizable and "quartic coupling is negative (-0.5) at site 2" in str(report)
    assert p4.phi4(chain, a=1.0, b=[0.5, 0.5, -0.5], c=[0.0, 0.0, 0.1]).check().is_normalizable


@pytest.mark.parametrize("method", ["score_matching", "pseudolikelihood", "maximum_likelihood"])
def test_fits_find_the_couplings_of_independent_sites(method):
    """a, b and c from 4,000 exact draws of one site, each within 4.5 standard errors: false alarm 2e-5 a method."""
    rng = np.random.default_rng(3)
    x = np.linspace(-4, 4, 20_001)
    cumulative = np.cumsum(np.exp(-action(x)))
    data = np.interp(rng.random(4000), cumulative / cumulative[-1], x)[:, None]
    start = p4.phi4(p4.lattice.chain(1), a=0.5, b=0.1, c=0.1)
    fit = p4.fit_likelihood(start, data, method=method, seed=4)
    assert fit.converged
    for name, truth in (("a", A), ("b", B), ("c", C)):
        assert abs(float(fit.model.couplings[name]) - truth) < 4.5 * float(fit.standard_errors[name]), name


def test_files_descriptions_evenness_and_the_choice_of_a_kernel(tmp_path):
    model = p4.phi4(p4.lattice.square(4), a=-1.0, b=-0.5, c=0.2)
    path = model.save(tmp_path / "model.npz")
    assert p4.load_model(path).terms[-1].statistic is sextic is BUILT_IN["sextic"]
    assert "c: sextic on 16 sites" in model.describe()
    assert choose(p4.compile(model))[0] == "cluster"
    deep = p4.phi4(p4.lattice.square(4), a=-30.0, b=-0.5, c=0.2)  # Σ w φ² = 4φ² with φ⁴ ≈ 30/0.6: above 15
    assert choose(p4.compile(deep))[0] == "local_hmc"


def test_odd_powers_are_refused_as_built_in_statistics():
    with raises("argument.degree", "1", "got 3"):
        SitePower("cubic", 3)


def test_one_site_densities_of_powers_up_to_four_say_what_they_know():
    with raises("argument.model.terms", "got also 'c'"):
        p4.GibbsField(SITE).conditional_log_prob(jnp.zeros(1))
