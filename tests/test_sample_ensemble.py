"""Many couplings at once: every member has its own exact answers, and none those of another."""

import numpy as np
import pandas as pd
import pytest
from raising import raises
from scipy.stats import norm

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.kernels.choose import choose

CHAIN = p4.phi4(p4.lattice.chain(3), w=0.6, a=1.2, b=0.2)
COUPLINGS = {"a": np.array([0.6, 1.2, 2.5]), "w": np.array([0.3, 0.6, 0.9])}
LEVEL = 1e-5  # false-alarm rate of a test: Bonferroni over its numbers


def exact(k: int) -> dict:
    model = CHAIN.replace(**{name: value[k] for name, value in COUPLINGS.items()})
    measured = {"phi_squared": lambda phi: (phi**2).mean(), "abs_magnetization": lambda phi: abs(phi.mean())}
    return p4.exact.quadrature(model, measured, points=64, half_width=5.0)


@pytest.fixture(scope="module")
def tree():
    return p4.sample_ensemble(CHAIN, COUPLINGS, num_warmup=300, num_samples=2000, num_chains=4, seed=1)


def scores(tree, order) -> np.ndarray:
    found = []
    for member, k in enumerate(order):
        truth = exact(k)
        for name in ("phi_squared", "abs_magnetization"):
            series = gamma_method(tree["posterior"][name].isel(member=member).values.astype(float))
            found.append((series.mean - truth[name]) / series.error)
    return np.array(found)


def test_every_member_has_the_moments_of_its_couplings(tree):
    threshold = norm.isf(LEVEL / 2 / 6)
    assert np.abs(scores(tree, (0, 1, 2))).max() < threshold
    assert np.abs(scores(tree, (1, 2, 0))).max() > threshold  # planted fault: the couplings of another member


def test_the_tree_has_the_member_as_a_dimension_and_its_couplings(tree):
    assert tree["posterior"]["phi"].dims == ("chain", "draw", "member", "site")
    np.testing.assert_allclose(tree["constant_data"]["coupling_a"], COUPLINGS["a"], rtol=1e-6)
    phi = tree["posterior"]["phi"].isel(member=2).values
    model = CHAIN.replace(a=2.5, w=0.9)
    np.testing.assert_allclose(
        tree["sample_stats"]["lp"].isel(member=2), -np.asarray(model.energy(phi)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(tree["posterior"]["magnetization"].isel(member=2), phi.mean(axis=-1), atol=1e-6)
    assert tree["posterior"].attrs["inference_library"] == "phi4ppl" and p4.settings(tree)["members"] == 3
    report = p4.diagnose(tree.isel(member=2))
    assert report.passed and abs(report.estimates.loc["phi_squared", "mean"] - exact(2)["phi_squared"]) < 0.05


def test_a_member_that_stays_on_one_side_is_not_passed(tree):
    """Planted fault: the chains of one member without their changes of sign, R̂ and effective sizes as good as before."""
    good = p4.diagnose(tree.isel(member=0))
    assert good.passed and {"sign changes", "Schwinger-Dyson, mean"} <= {check.name for check in good.checks}
    stuck = tree.isel(member=0)
    stuck["posterior"] = stuck["posterior"].assign(magnetization=abs(stuck["posterior"]["magnetization"]))
    assert [check.name for check in p4.diagnose(stuck).checks if not check.passed] == ["sign changes"]
    with raises("argument.tree.ensemble", "isel(member=0)"):
        p4.diagnose(tree)
    with raises("argument.data.ensemble", "isel(member=0)"):
        p4.fit_likelihood(CHAIN, tree)
    fit = p4.fit_likelihood(CHAIN, tree.isel(member=2))
    assert abs(fit.model.couplings["w"] - 0.9) < 5 * fit.standard_errors["w"]  # false alarm 6e-7


def test_members_have_streams_of_their_own_and_seeds_repeat():
    same = {"a": np.array([1.2, 1.2])}
    runs = [p4.sample_ensemble(CHAIN, same, num_warmup=50, num_samples=20, num_chains=2, seed=s) for s in (3, 3, 4)]
    phi = [run["posterior"]["phi"].values for run in runs]
    np.testing.assert_array_equal(phi[0], phi[1])
    assert not np.any(phi[0] == phi[2])
    assert not np.any(phi[0][:, :, 0] == phi[0][:, :, 1])


def test_one_coupling_a_clique_thinning_and_own_observables():
    a = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    run = p4.sample_ensemble(
        CHAIN, {"a": a}, num_warmup=300, num_samples=1500, num_chains=4, thinning=2, keep_field=False,
        observables={"squares": lambda phi: phi**2}, kernel="hmc", seed=2,
    )  # fmt: skip
    assert "phi" not in run["posterior"] and run["posterior"]["squares"].shape == (4, 1500, 2, 3)
    threshold = norm.isf(LEVEL / 2 / 6)
    for member in range(2):
        truth = p4.exact.quadrature(
            CHAIN.replace(a=a[member]), {str(k): lambda phi, k=k: phi[k] ** 2 for k in range(3)}, half_width=5.0
        )
        for k in range(3):
            series = gamma_method(run["posterior"]["squares"].values[:, :, member, k].astype(float))
            assert abs(series.mean - truth[str(k)]) < threshold * series.error


def test_wrong_members_are_named():
    with raises("hammersley_clifford.member", "member 1", "quartic"):
        p4.sample_ensemble(CHAIN, {"b": [0.1, -0.1]})
    with raises("argument.couplings.shape"):
        p4.sample_ensemble(CHAIN, {"a": [1.0, 2.0], "b": [0.1, 0.2, 0.3]})
    table = pd.DataFrame([[1.0, 2.0, 3.0]], columns=[2, 1, 0])  # sites in another order
    with raises("argument.coupling.labels", name="coupling 'a'"):
        p4.sample_ensemble(CHAIN, {"a": table})
    with raises("argument.couplings.name"):
        p4.sample_ensemble(CHAIN, {"z": [1.0, 2.0]})
    with pytest.raises(p4.errors.MemoryLimitError):
        p4.sample_ensemble(CHAIN, {"a": np.ones(1000)}, num_samples=10**9)


def test_kernels_are_chosen_for_all_members(monkeypatch):
    """The first member has couplings of one sign and needs no tempering by itself; the others do."""
    asked = []

    def recorded(kernel, first, others=()):
        asked.append([np.asarray(one.model.couplings["w"]) for one in (first, *others)])
        raise InterruptedError

    monkeypatch.setattr("phi4ppl.results.ensemble_run.resolve", recorded)
    model = p4.phi4(p4.lattice.square(4), w=1.0, a=-2.0, b=1.0)
    signs = np.random.default_rng(3).choice([-1.0, 1.0], (2, 32))
    w = np.concatenate([np.ones((1, 32)), 1.8 * signs[:1], 2.5 * signs[1:]])
    for couplings in (w, w[:1]):
        with pytest.raises(InterruptedError):
            p4.sample_ensemble(model, {"w": couplings})
    np.testing.assert_allclose(asked[0], w, rtol=1e-6)
    assert len(asked[1]) == 1
    compiled = [p4.compile(model.replace(w=one)) for one in w]
    assert [choose(one)[0] == "tempering" for one in compiled] == [False, True, True]
