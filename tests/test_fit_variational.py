"""Variational fits against exact minima of the bound by quadrature, and the published demonstrations.

Statistical tests: false alarms 1e-4 each, about eight of them; seeds are fixed.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from exact_runs import model_of, rejected
from raising import raises
from scipy.optimize import minimize
from scipy.special import logsumexp

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.learning import FitStatus, variational
from phi4ppl.learning.natural import regress
from phi4ppl.learning.search import _of_fields
from phi4ppl.model.coupling_vector import CouplingVector, statistics_matrix

pytestmark = pytest.mark.compile_quickly

PHI4 = {"w": 1.0, "a": 1.52425, "b": 0.175}


def random_start(size, seed):
    """Inhomogeneous φ⁴ on a periodic square with couplings far from anything."""
    rng, lattice = np.random.default_rng(seed), p4.lattice.square(size)
    w, a = rng.uniform(-1, 1, lattice.num_edges), rng.uniform(-1, 1, lattice.num_sites)
    return p4.phi4(lattice, w=w, a=a, b=rng.uniform(0.1, 1, lattice.num_sites))


def distance(model) -> float:
    return max(float(np.abs(np.asarray(value) - PHI4[name]).max()) for name, value in model.couplings.items())


# --- the regression


def test_regression_is_least_squares():
    rng = np.random.default_rng(0)
    t = rng.normal(size=(500, 6)) * 10.0 ** np.arange(-2, 4) + 5
    y = t @ np.arange(6) / 10 + rng.normal(size=500)
    found = regress(t.copy(), y)
    expected = np.linalg.lstsq(np.c_[t, np.ones(500)], y, rcond=None)[0]
    np.testing.assert_allclose(found.step, expected[:6], rtol=1e-7)
    residual = y - t @ expected[:6] - expected[6]
    assert found.residual == pytest.approx(np.mean(residual**2), rel=1e-9)
    assert found.improvement == pytest.approx(np.var(t @ expected[:6]) / 2, rel=1e-9)
    assert (found.damping, found.rank) == (0.0, pytest.approx(6))


def test_regression_with_fewer_samples_than_couplings_is_ridge_regression():
    rng = np.random.default_rng(1)
    t = rng.normal(size=(40, 90))
    y = t @ rng.normal(size=90) + 3 * rng.normal(size=40)
    found = regress(t.copy(), y)
    assert found.damping > 0 and found.rank < 40
    x = (t - t.mean(axis=0)) / t.std(axis=0)
    gram = x.T @ x / 40 + found.damping * np.eye(90)
    expected = np.linalg.solve(gram, x.T @ (y - y.mean()) / 40) / t.std(axis=0)
    np.testing.assert_allclose(found.step, expected, rtol=1e-6)


def test_regression_leaves_alone_what_does_not_vary_and_survives_copies():
    rng = np.random.default_rng(2)
    t = rng.normal(size=(300, 2))
    t = np.c_[t, np.full(300, 7.0), t[:, 0]]  # constant, and twice the same
    found = regress(t.copy(), t @ [1.0, 2.0, 3.0, 0.0])
    assert found.step[2] == 0 and found.rank == pytest.approx(2)
    assert found.step[0] + found.step[3] == pytest.approx(1.0) and found.step[1] == pytest.approx(2.0)
    assert found.residual < 1e-20


# --- targets inside the family


@pytest.fixture(scope="module")
def inside():
    target = p4.phi4(p4.lattice.square(4), **PHI4)
    return p4.fit_variational(random_start(4, 0), target, log_partition_method=None, seed=1, progress=False)


def test_natural_steps_reach_a_target_inside_the_family(inside):
    """Every coupling within 1e-3 of the target in at most 20 natural steps."""
    fit = inside
    assert fit.converged and fit.history.sizes["step"] <= 20
    assert distance(fit.model) < 1e-3
    assert 0 <= fit.kl_divergence < 1e-6 and fit.remaining < 1e-6
    assert np.isnan(fit.bound)  # nobody asked for it


def test_history_and_result_can_be_read(inside):
    fit = inside
    shares, improvement = fit.history["share"].values, fit.history["improvement"].values
    assert np.all((0 < shares) & (shares <= 1)) and improvement[0] > 1 > improvement[-1]
    couplings = fit.history["couplings"]
    assert np.all(couplings.sel(coupling=[f"b[{k}]" for k in range(16)]).values > 0)
    assert "shortened" in str(fit) and "another would lower the bound by" in str(fit)
    drawn = [line for axes in fit.plot().axes for line in axes.get_lines()]
    assert any(np.array_equal(line.get_ydata(), improvement) for line in drawn)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "method", "steps"), [(8, "natural", 20), (4, "gradient", 2000), (8, "gradient", 3000)]
)
def test_published_demonstration(size, method, steps):
    target = p4.phi4(p4.lattice.square(size), **PHI4)
    fit = p4.fit_variational(
        random_start(size, 3), target, method=method, num_steps=steps, log_partition_method=None, seed=2, progress=False
    )
    assert fit.converged and distance(fit.model) < 1e-3


def test_fewer_samples_than_couplings_are_damped_and_get_there():
    """24 couplings, 24 samples a step: every step settles what its samples see."""
    target = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
    start = target.inhomogeneous().replace(a=np.linspace(1.0, 2.0, 8))
    fit = p4.fit_variational(
        start, target, fields_per_step=24, num_steps=20, kernel="local_hmc", log_partition_method=None, progress=False
    )
    assert np.abs(fit.model.couplings["a"] - 1.4).max() < 0.01
    assert any("damped" in note for note in fit.warnings)
    assert float(fit.history["rank"].max()) < 24


# --- targets outside it


@pytest.fixture(scope="module")
def outside():
    """The nearest-neighbor family on a ring of four, for a target that couples across it as well."""
    graph = p4.lattice.square(2, diagonals=True)
    target = p4.phi4(graph, w={"nn": 0.6, "diagonal": 0.4}, a=1.0, b=0.3)
    family = p4.phi4(graph, w={"nn": 0.1}, a=2.0, b=0.5)
    fit = p4.fit_variational(
        family, target, kernel="local_hmc", fields_per_step=8000, num_fields=40_000, seed=4, progress=False
    )

    # the bound by the trapezoidal rule, as a function of the couplings
    nodes = np.linspace(-4.0, 4.0, 24)
    phi = np.stack(np.meshgrid(*[nodes] * 4, indexing="ij"), axis=-1).reshape(-1, 2, 2)
    statistics = statistics_matrix(family, phi)

    def bound(theta, target=target):
        action = statistics @ theta
        log_z = logsumexp(-action) + 4 * np.log(nodes[1] - nodes[0])
        return np.exp(-action - logsumexp(-action)) @ (energies(target) - action) - log_z

    def energies(target, known={}):  # noqa: B006  # a cache
        key = float(target.couplings["w_diagonal"])
        if key not in known:
            known[key] = statistics_matrix(target, phi) @ CouplingVector.of(target).flatten(target.couplings)
        return known[key]

    return target, fit, bound


EXACTLY = {"method": "Nelder-Mead", "options": {"xatol": 1e-5, "fatol": 1e-9}}


@pytest.fixture(scope="module")
def best(outside):
    _, fit, bound = outside
    return minimize(bound, CouplingVector.of(fit.model).flatten(fit.model.couplings), **EXACTLY)


def test_fit_is_the_exact_minimum_of_the_bound(outside, best):
    target, fit, bound = outside
    flatten = CouplingVector.of(fit.model).flatten
    found, errors = flatten(fit.model.couplings), flatten(fit.standard_errors)
    # errors from eight steps: Student's t with seven degrees of freedom, 7.06 at 1e-4 in each of two tails
    assert np.abs((found - best.x) / errors).max() < 7.06
    assert not rejected({"bound": (fit.bound - best.fun) / fit.bound_error})
    exact = -p4.log_partition(target, method="exact").value
    assert bound(found) > exact + 0.01
    assert not rejected({"free energy": (fit.free_energy - exact) / fit.free_energy_error})
    assert not rejected({"KL": (fit.kl_divergence - (best.fun - exact)) / fit.kl_error})
    # planted: the minimum for another target
    wrong = minimize(bound, best.x, (target.replace(w_diagonal=0.45),), **EXACTLY)
    assert np.abs((found - wrong.x) / errors).max() > 7.06


def test_residual_is_orthogonal_to_all_statistics(outside):
    """At the fixed point Cov(T, A − S) = 0; it is not if a coupling is moved."""
    target, fit, _ = outside

    def scores(model):
        phi = fit.samples
        excess = np.asarray(target.energy(phi) - model.energy(phi))
        result = {}
        for name, t in fit.model.statistics(phi).items():
            t = np.asarray(t)
            product = (t - t.mean()) * (excess - excess.mean())
            result[name] = product.mean() / gamma_method(product).error
        return result

    assert not rejected({name: z / np.sqrt(1 + 40_000 / 64_000) for name, z in scores(fit.model).items()})
    moved = fit.model.replace(a=fit.model.couplings["a"] + 0.1)
    assert rejected(scores(moved))


def test_bound_holds_for_the_longer_range_target_of_the_reference(reference):
    """A₄ on the 3×3 torus: far in the broken phase, with twice the edges that the family has."""
    case = reference["square_diag_L3_g1.0_a1.52425_b0.175"]
    target = model_of(case)
    near = [edge for edge in target.lattice.edges.tolist() if _is_near(*edge)]
    sites = np.arange(9)[:, None]
    family = p4.MarkovRandomField(
        target.lattice,
        [
            p4.Term("w", near, p4.terms.hopping, 1.0), p4.Term("a", sites, p4.terms.mass, 1.5),
            p4.Term("b", sites, p4.terms.quartic, 0.2),
        ],
    )  # fmt: skip
    fit = p4.fit_variational(family, target, num_fields=16_000, seed=5, progress=False)
    exact = -case["quantities"]["logZ"]["value"]
    assert len(near) == 18 and fit.converged
    # the bound is 0.04 nats above −log Z_A, about one error of log Z of the model; the divergence is known far better
    assert fit.bound > exact - 3.7 * fit.bound_error and fit.kl_divergence > 10 * fit.kl_error
    assert not rejected({"free energy": (fit.free_energy - exact) / fit.free_energy_error})
    assert not rejected({"KL": (fit.kl_divergence - (fit.bound - exact)) / np.hypot(fit.kl_error, fit.bound_error)})
    assert fit.model.couplings["w"] > 1.2  # more than nearest neighbors alone have in the target


def _is_near(i, j) -> bool:
    apart = [min(d, 3 - d) for d in (abs(i % 3 - j % 3), abs(i // 3 - j // 3))]
    return sum(apart) == 1


def test_target_with_a_source_given_as_a_function():
    lattice = p4.lattice.chain(4)
    truth = p4.phi4(lattice, w=0.5, a=1.2, b=0.2, r=0.4)
    start = p4.phi4(lattice, w=0.0, a=1.0, b=1.0, r=0.0)
    fit = p4.fit_variational(
        start, lambda phi: truth.energy(phi), kernel="local_hmc", log_partition_method="exact", progress=False
    )
    found = {name: float(value) for name, value in fit.model.couplings.items()}
    assert found == pytest.approx({"w": 0.5, "a": 1.2, "b": 0.2, "r": 0.4}, abs=1e-3)
    assert fit.bound == pytest.approx(-p4.log_partition(truth, method="exact").value, abs=4 * fit.bound_error + 1e-4)


@pytest.mark.parametrize("method", ["natural", "gradient"])
def test_unbounded_target_ends_with_its_reason(method):
    lattice = p4.lattice.chain(4)
    fit = p4.fit_variational(
        p4.phi4(lattice, w=0.1, a=1.0, b=0.5), lambda phi: jnp.sum(phi**2) - 0.1 * jnp.sum(phi**4), method=method,
        num_steps=6, kernel="local_hmc", log_partition_method=None, num_fields=200, progress=False,
    )  # fmt: skip
    assert not fit.converged and float(fit.model.couplings["b"]) > 0
    assert str(fit.status) in str(fit)


def test_far_target_is_reported_without_divergence():
    """A target that hardly overlaps with the family: no number rather than a wrong one."""
    lattice = p4.lattice.chain(6)
    target = lambda phi: 30 * jnp.sum((phi**2 - 4) ** 2)  # noqa: E731
    fit = p4.fit_variational(
        p4.gaussian(lattice, w=0.0, a=1.0), target, num_steps=4, kernel="local_hmc", num_fields=400, progress=False
    )
    assert np.isnan(fit.kl_divergence) and np.isnan(fit.free_energy) and np.isfinite(fit.bound)
    assert any("not available" in note for note in fit.warnings)


# --- stopping, going on, arguments


class _AskedAt:
    """Ctrl-C noted at the n-th look."""

    def __init__(self, look):
        self.looks = itertools.count(1)
        self.look = look

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def asked(self):
        return next(self.looks) >= self.look


def test_interrupted_fit_goes_on(monkeypatch):
    lattice = p4.lattice.chain(4)
    target = p4.phi4(lattice, w=0.8, a=1.4, b=0.2)
    start = p4.phi4(lattice, w=0.1, a=1.0, b=0.5)
    settings = dict(
        method="gradient", num_steps=30, kernel="local_hmc", log_partition_method=None, num_fields=200, progress=False
    )
    with monkeypatch.context() as patch:
        patch.setattr(variational, "Interrupts", lambda: _AskedAt(5))
        stopped = p4.fit_variational(start, target, **settings)
    assert stopped.status is FitStatus.INTERRUPTED and stopped.history.sizes["step"] == 5
    assert "Continue the fit" in str(stopped)
    more = p4.fit_variational(start, target, initial=stopped, **settings)
    assert more.history.sizes["step"] == 35
    np.testing.assert_array_equal(more.history["couplings"][:5], stopped.history["couplings"])
    assert float(more.history["variance"][-1]) < float(stopped.history["variance"][0])


def test_average_over_the_last_steps_is_nearer_to_the_exact_minimum_than_a_step(outside, best):
    """Of 400 noisy steps of constant size the last 200: half the distance of a single one, at most (measured: a sixth)."""
    target, start, _ = outside
    fit = p4.fit_variational(
        start.model, target, method="gradient", optimizer=optax.adam(0.03), num_steps=400, fields_per_step=64,
        average_last=0.5, kernel="local_hmc", log_partition_method=None, num_fields=200, progress=False,
    )  # fmt: skip
    flatten = CouplingVector.of(fit.model).flatten
    found, errors, tail = (
        flatten(fit.model.couplings), flatten(fit.standard_errors), fit.history["couplings"].values[-200:],
    )  # fmt: skip
    np.testing.assert_allclose(found, tail.mean(axis=0), rtol=1e-6)
    typical = np.sqrt(np.mean((tail - best.x) ** 2, axis=0))  # what no average, or one of a step, would leave
    assert np.linalg.norm((found - best.x) / typical) < 0.5 * np.sqrt(3)
    # Student's t of eight batches, 7.06 at 1e-4 in each of two tails
    assert np.abs((found - best.x) / errors).max() < 7.06 and (errors < 0.5 * typical).all()
    assert "averaged over the last 200 of 400 steps" in str(fit)


def test_same_seed_same_fit():
    lattice = p4.lattice.chain(4)
    settings = dict(num_steps=2, kernel="local_hmc", log_partition_method=None, num_fields=200, progress=False)
    target = p4.phi4(lattice, w=0.3, a=2.0, b=0.2)
    known = _of_fields.cache_info().hits
    one, two, other = (
        p4.fit_variational(p4.gaussian(lattice, w=0.1, a=1.0), target, seed=seed, **settings) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.samples, two.samples)
    assert _of_fields.cache_info().hits == known + 2  # the target is compiled once for all three
    assert one.history.identical(two.history) and not one.history.identical(other.history)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, ("argument.model", "MarkovRandomField", "got int")),
        ({"target": 3}, ("argument.target", "MarkovRandomField")),
        ({"target": lambda phi: phi}, ("argument.target.returns",)),
        ({"target": lambda phi: 1j * jnp.sum(phi)}, ("argument.target.complex",)),
        ({"target": lambda phi: jnp.log(phi[0] - 99)}, ("argument.target.finite",)),
        ({"method": "newton"}, ("argument.method", "'natural'", "'gradient'")),
        ({"num_steps": 0}, ("argument.num_steps", "1")),
        ({"fields_per_step": 3}, ("argument.fields_per_step", "16")),
        ({"optimizer": "adam", "method": "gradient"}, ("argument.optimizer",)),
        ({"average_last": 0.5}, ("argument.average_last.unused", "method='natural'")),
        (
            {"method": "gradient", "average_last": 1.5},
            ("argument.average_last", "0", "got 1.5"),
        ),
        ({"initial": 5}, ("argument.initial.mismatch",)),
        ({"seed": -1}, ("argument.seed", "0")),
    ],
)
def test_bad_arguments_say_what_to_do(change, message):
    lattice = p4.lattice.chain(4)
    arguments = {"model": p4.gaussian(lattice, w=0.1, a=1.0), "target": p4.gaussian(lattice, w=0.2, a=1.0)}
    settings = {
        "kernel": "local_hmc",
        "num_steps": 1,
        "log_partition_method": None,
        "num_fields": 80,
        "progress": False,
    }
    with raises(*message):
        p4.fit_variational(**arguments | settings | change)


def test_start_has_to_be_normalizable():
    lattice = p4.lattice.chain(4)
    with raises("hammersley_clifford.not_normalizable"):
        p4.fit_variational(p4.gaussian(lattice, w=1.0, a=0.5), p4.gaussian(lattice, w=0.2, a=1.0))
