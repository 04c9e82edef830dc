"""The results of a run as an ArviZ DataTree, on disk and back."""

import json

import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl.results import run_page
from phi4ppl.results.datatree import metadata

pytestmark = pytest.mark.compile_quickly


@pytest.fixture(scope="module")
def model():
    return p4.phi4(p4.lattice.square(4, 3, diagonals=True), w={"nn": 0.5, "diagonal": 0.2}, a=1.5, b=np.full(12, 0.2))


@pytest.fixture(scope="module")
def tree(model):
    own = {"corner": lambda phi: phi[0, 0], "profile": lambda phi: phi.mean(axis=1)}
    return p4.sample(
        model, num_warmup=100, num_samples=60, num_chains=2, observables=own, seed=5, thinning=2, kernel="hmc"
    )


def test_field_has_lattice_dimensions_and_coordinates(tree):
    phi = tree["posterior"]["phi"]
    assert phi.dims == ("chain", "draw", "x", "y")
    assert phi.sizes == {"chain": 2, "draw": 60, "x": 4, "y": 3}
    np.testing.assert_array_equal(phi.coords["x"], range(4))


def test_observables_are_functions_of_the_stored_field(model, tree):
    posterior = tree["posterior"]
    phi = posterior["phi"].values
    expected = {
        "magnetization": phi.mean(axis=(2, 3)),
        "abs_magnetization": np.abs(phi.mean(axis=(2, 3))),
        "energy_density": np.asarray(model.energy(phi)) / 12,
        "phi_squared": (phi**2).mean(axis=(2, 3)),
        "phi_fourth": (phi**4).mean(axis=(2, 3)),
        "corner": phi[:, :, 0, 0],
        "profile": phi.mean(axis=3),
    }
    flat = phi.reshape(2, 60, 12)
    i, j = model.lattice.edges_of("nn").T
    expected["neighbor_correlation"] = (flat[..., i] * flat[..., j]).mean(axis=-1)
    assert set(posterior.data_vars) == {"phi", *expected}
    for name, value in expected.items():
        np.testing.assert_allclose(posterior[name], value, rtol=2e-4, atol=2e-5, err_msg=name)


def test_sample_stats_agree_with_the_stored_field(model, tree):
    stats = tree["sample_stats"]
    phi = tree["posterior"]["phi"].values
    np.testing.assert_allclose(stats["lp"], -np.asarray(model.energy(phi)), rtol=2e-4, atol=1e-4)
    force = np.asarray(jnp.vectorize(p4.compile(model).logdensity_fn, signature="(x,y)->()")(phi))
    np.testing.assert_allclose(stats["lp"], force, rtol=2e-4, atol=1e-4)
    # x·∇S from the homogeneity of each term: hopping and mass count twice, quartic four times
    statistics = model.statistics(phi)
    two = sum(np.asarray(model.couplings[n] * statistics[n]) for n in ("w_nn", "w_diagonal", "a"))
    four = (model.couplings["b"] * np.asarray(statistics["b"])).sum(axis=-1)
    np.testing.assert_allclose(stats["schwinger_dyson"], (2 * two + 4 * four) / 12, rtol=1e-3, atol=1e-4)
    blocks = tree["schwinger_dyson"]["block_means"]
    assert blocks.dims == ("sd_chain", "sd_block", "x", "y")
    for name in ("acceptance_rate", "diverging", "energy", "n_steps", "step_size", "sign_flipped"):
        assert stats[name].dims == ("chain", "draw"), name


def test_schwinger_dyson_blocks_average_all_iterations(model):
    tree = p4.sample(model, num_warmup=50, num_samples=40, num_chains=2, kernel="hmc")
    blocks = tree["schwinger_dyson"]["block_means"].values
    per_draw = tree["sample_stats"]["schwinger_dyson"].values
    np.testing.assert_allclose(blocks.mean(axis=(1, 2, 3)), per_draw.mean(axis=1), rtol=1e-4)


def test_constant_data_holds_edges_and_couplings(model, tree):
    constant = tree["constant_data"]
    np.testing.assert_array_equal(constant["edges"], model.lattice.edges)
    assert float(constant["coupling_w_nn"]) == 0.5
    np.testing.assert_allclose(constant["coupling_b"], 0.2)


def test_provenance_tells_how_to_do_it_again(model, tree):
    facts = metadata(tree)
    assert facts["settings"]["seed"] == 5
    assert facts["settings"]["thinning"] == 2
    assert facts["settings"]["dtype"] == "float32"
    assert facts["settings"]["kernel"] == "hmc"
    assert facts["couplings"]["a"] == 1.5
    assert facts["model"] == model.describe()
    assert facts["versions"]["phi4ppl"] == p4.__version__
    assert {"jax", "numpyro", "blackjax", "arviz-base"} <= set(facts["versions"])
    assert "satisfied" in facts["checks"]["phi"]


def test_settings_are_a_dict_that_needs_no_parsing(model, tree):
    found, stored = p4.settings(tree), metadata(tree)
    assert found == stored["settings"] | {k: v for k, v in stored.items() if k not in ("settings", "draws")}
    assert (found["seed"], found["kernel"], found["couplings"]["a"]) == (5, "hmc", 1.5)
    with raises("argument.tree", "DataTree"):
        p4.settings(xr.DataTree())


def test_groups_have_the_attributes_of_arviz_and_of_the_run(tree):
    found = p4.settings(tree)
    expected = {
        "creation_library": "ArviZ", "inference_library": "phi4ppl", "inference_library_version": p4.__version__,
        "sampling_time": found["seconds"], "tuning_steps": found["num_warmup"], "created_at": found["created"],
    }  # fmt: skip
    assert len(tree.children) > 4
    for name, group in tree.children.items():
        assert expected.items() <= group.attrs.items(), name
        assert {"creation_library_version", "creation_library_language"} <= set(group.attrs), name


def test_constant_data_are_inputs_of_the_model(tree):
    assert set(tree["constant_data"].data_vars) == {
        "edges", "positions", "coupling_w_nn", "coupling_w_diagonal", "coupling_a", "coupling_b",
    }  # fmt: skip


def test_saves_and_loads_back_equal(tree, tmp_path):
    path = p4.save_run(tree, tmp_path / "run.nc")
    loaded = p4.load_run(path)
    xr.testing.assert_identical(loaded, tree)
    assert json.loads(loaded.attrs["phi4ppl"]) == metadata(tree)


def test_what_cannot_be_saved_or_loaded_is_told(model, tree, monkeypatch, tmp_path):
    monkeypatch.setattr(run_page, "figures", lambda tree: {})  # they take their time
    report = p4.diagnose(tree)
    writers = (lambda path: p4.save_run(tree, path), model.save, report.to_html)
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "gone" / "run.nc", "No such file or directory")):
        for write in writers:
            with raises("argument.path.unwritable", f"({reason})"):
                write(path)
    with raises("argument.tree", "DataTree"):
        p4.save_run(3, tmp_path / "run.nc")
    assert list(tmp_path.iterdir()) == []
    for wrong in (3, None, "", b"run.nc", "a\0b"):
        for use in (p4.load_run, *writers):
            with raises("argument.path", "'results'"):
                use(wrong)


def test_graph_labels_become_coordinates():
    graph = nx.Graph([("b", "a"), ("a", (1, 2))])
    model = p4.phi4(p4.lattice.from_networkx(graph), w=0.3, a=1.0, b=0.1)
    tree = p4.sample(model, num_warmup=30, num_samples=20, num_chains=1, kernel="hmc")
    assert tree["posterior"]["phi"].dims == ("chain", "draw", "site")
    assert list(tree["posterior"]["site"].values) == ["a", "b", "(1, 2)"]


def test_numpyro_model_keeps_sites_and_deterministics(tmp_path):
    field = p4.GibbsField(p4.gaussian(p4.lattice.square(2, 3), w=0.3, a=1.0))

    def model(y):
        phi = numpyro.sample("psi", field)
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.deterministic("twice", 2 * scale)
        numpyro.sample("y", dist.Normal(phi, scale).to_event(2), obs=y)

    tree = p4.sample(model, jnp.ones((2, 3)), num_warmup=50, num_samples=30, num_chains=2, kernel="hmc")
    posterior = tree["posterior"]
    assert posterior["psi"].dims == ("chain", "draw", "x", "y")
    np.testing.assert_allclose(posterior["twice"], 2 * posterior["scale"], rtol=1e-6)
    assert (posterior["scale"] > 0).all()
    xr.testing.assert_identical(p4.load_run(p4.save_run(tree, tmp_path / "n.nc")), tree)


def test_observables_only(model):
    tree = p4.sample(model, num_warmup=30, num_samples=20, num_chains=1, keep_field=False, kernel="hmc")
    assert "phi" not in tree["posterior"].data_vars
    assert "magnetization" in tree["posterior"].data_vars


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"magnetization": jnp.mean}, ("argument.observables.name", "got 'magnetization'")),
        ({"phi": jnp.mean}, ("argument.observables.name",)),
        ({"two words": jnp.mean}, ("argument.observables.name",)),
        ([jnp.mean], ("argument.observables",)),
        ({"m": 3}, ("argument.observable", "observable 'm'")),
        (
            {"m": lambda phi: float(phi[0, 0])},
            ("argument.observable.raises", "ConcretizationTypeError", "observable 'm'"),
        ),
        ({"m": lambda phi: phi > 0}, ("argument.observable.returns", "observable 'm'")),
        (
            {"m": lambda phi: phi * 1j},
            ("argument.observable.returns", "observable 'm'"),
        ),
        ({"m": lambda phi: phi[:0]}, ("argument.observable.returns", "(0, 3)", "observable 'm'")),
        ({"m": lambda phi: phi.astype(jnp.bfloat16)}, ("argument.observable.returns", "observable 'm'")),
    ],
)
def test_bad_observables_are_refused(model, own, message):
    with raises(*message):
        p4.sample(model, num_warmup=20, num_samples=10, observables=own)


def test_files_that_are_no_runs_are_refused(tmp_path):
    with raises("argument.path.missing"):
        p4.load_run(tmp_path / "none.nc")
    with raises("argument.path.missing", "directory"):
        p4.load_run(tmp_path)
    (tmp_path / "text.nc").write_text("hello")
    with raises("argument.path.unreadable"):
        p4.load_run(tmp_path / "text.nc")
    other = xr.DataTree(xr.Dataset({"x": 1.0}))
    other.to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with raises("argument.tree", "DataTree"):
        p4.load_run(tmp_path / "other.nc")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x", "dimension"),
        ("chain", "dimension"),
        ("statistic", "dimension"),
        ("prior/scale", "numpyro.handlers.scope"),
        ("", "empty"),
    ],
)
def test_sites_whose_draws_would_be_lost_are_refused_before_the_run(name, told):
    """A latent site x beside a field with the dimensions x and y was not in the posterior, without a word."""

    def model():
        scale = numpyro.sample(name, dist.Normal())
        numpyro.sample("phi", p4.GibbsField(p4.phi4(p4.lattice.square(2), a=1.0, b=0.2)))
        numpyro.sample("data", dist.Normal(scale, 1.0), obs=jnp.ones(2))

    with raises("argument.site.name", told, name=f"site {name!r}"):
        p4.sample(model)


def test_observed_sites_have_names_of_their_own_too():
    def model(name):
        center = numpyro.sample("center", dist.Normal())
        numpyro.sample(name, dist.Normal(center, 1.0), obs=jnp.ones(2))

    for name in ("draw", "a/b"):
        with raises("argument.site.name", name=f"site {name!r}"):
            p4.sample(model, name)
