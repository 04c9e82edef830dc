"""Labels of sites and missing values: every way in aligns data and couplings with the lattice, or refuses them.

A registry of entry points meets a registry of containers. Each container holds the same numbers in another order, with labels.
The result has to equal, bit for bit, that of the bare array in the order of the lattice. All couplings differ from site to
site, so that a wrong order gives another number.
"""

import inspect
import sys
from itertools import permutations

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl import inference, networks
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.cli.entry import main
from phi4ppl.lattice.labels import field_dims
from phi4ppl.model.coupling_vector import statistics_matrix

pytestmark = pytest.mark.compile_quickly

GRAPH = p4.lattice.from_networkx(nx.Graph([("c", "a"), ("a", "d"), ("d", "b"), ("b", "c")]))
TORUS = p4.lattice.from_networkx(nx.grid_2d_graph(2, 3))  # tuples as labels, but no axes
SQUARE = p4.lattice.square(3, periodic=False)  # two axes of one length: exchanged names must not go unnoticed
CHAIN = p4.lattice.chain(5)
LATTICES = {"graph": GRAPH, "tuples": TORUS, "square": SQUARE, "chain": CHAIN}
RNG = np.random.default_rng(5)
NUMBER = 12


def family(lattice):
    """A model whose couplings all differ."""
    sites, edges = np.arange(lattice.num_sites), np.arange(lattice.num_edges)
    return p4.phi4(lattice, w=0.3 + 0.01 * edges, a=1.0 + 0.1 * sites, b=0.2 + 0.03 * sites, r=0.05 * sites)


def fields_on(lattice, number=NUMBER):
    return np.random.default_rng(3).normal(1, 0.7, (number, *lattice.field_shape)) + np.arange(
        lattice.num_sites
    ).reshape(lattice.field_shape) * np.float64(0.1)


def shuffled(lattice):
    return np.roll(np.arange(lattice.num_sites)[::-1], 1)


def columns(lattice, data):
    """The data as a table in another order of sites, and the labels of its columns."""
    order = shuffled(lattice)
    assert not np.array_equal(order, np.arange(lattice.num_sites))
    return data.reshape(len(data), -1)[:, order], [lattice.nodes[k] for k in order]


def as_table(lattice, data):
    values, labels = columns(lattice, data)
    return pd.DataFrame(values, columns=pd.Index(labels, tupleize_cols=False))


def as_texts(lattice, data):
    return as_table(lattice, data).rename(columns=str)


def as_nullable(lattice, data):
    return as_texts(lattice, data).astype("Float64")


def as_multi_index(lattice, data):
    values, labels = columns(lattice, data)
    return pd.DataFrame(values, columns=labels)  # pandas makes levels of tuples


def as_dict(lattice, data):
    values, labels = columns(lattice, data)
    return dict(zip(labels, values.T, strict=True))


def as_dict_of_series(lattice, data):
    values, labels = columns(lattice, data)
    return {n: pd.Series(v, range(50, 50 + len(v))) for n, v in zip(labels, values.T, strict=True)}


def as_list_of_series(lattice, data):
    values, labels = columns(lattice, data)
    index = pd.Index(labels, tupleize_cols=False)
    return [pd.Series(row, index) for row in values]


def as_dataarray(lattice, data):
    """Axes transposed, samples last, coordinates in another order."""
    dims, coords = field_dims(lattice)
    array = xr.DataArray(data, dims=("sample", *dims), coords=coords)
    order = {dim: np.random.default_rng(2).permutation(array.sizes[dim]) for dim in dims}
    return array.isel(order).transpose(*reversed(dims), "sample")


def as_dataset(lattice, data):
    return xr.Dataset({"phi": as_dataarray(lattice, data), "other": ((), 1.0)})


def as_chains(lattice, data):
    """Chains and draws in the order of a run, then exchanged."""
    array = as_dataarray(lattice, data)
    split = array.transpose("sample", ...).values.reshape(2, -1, *array.transpose("sample", ...).shape[1:])
    dims = array.transpose("sample", ...).dims[1:]
    return xr.DataArray(split, dims=("chain", "draw", *dims), coords=array.coords).transpose("draw", *dims, "chain")


CONTAINERS = {
    f.__name__: f
    for f in (as_table, as_texts, as_nullable, as_multi_index, as_dict, as_dict_of_series, as_list_of_series, as_dataarray,
              as_dataset, as_chains)
}  # fmt: skip
CHEAP = {
    "fit_likelihood": lambda m, d: p4.fit_likelihood(m, d, ridge=0.1).model.couplings,
    "held_out_score": p4.held_out_score,
    "statistics_matrix": statistics_matrix,
}
LEADING = {  # any leading axes
    "energy": lambda m, d: m.energy(d),
    "statistics": lambda m, d: m.statistics(d),
    "log_prob": lambda m, d: p4.GibbsField(m).log_prob(d),
}


def equal(left, right):
    left, right = jax.tree.map(np.asarray, (left, right))
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a.reshape(-1), b.reshape(-1))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("entry", CHEAP)
def test_labeled_data_are_aligned(entry, lattice, container):
    lattice = LATTICES[lattice]
    model, data = family(lattice), fields_on(lattice)
    equal(CHEAP[entry](model, CONTAINERS[container](lattice, data)), CHEAP[entry](model, data))


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c not in ("as_dataarray", "as_dataset")])
@pytest.mark.parametrize("entry", LEADING)
def test_labeled_fields_of_a_model_are_aligned(entry, container):
    """Leading axes are batches, so samples have to come in their order; `as_chains` has two of them."""
    model, data = family(GRAPH), fields_on(GRAPH)
    equal(LEADING[entry](model, CONTAINERS[container](GRAPH, data)), LEADING[entry](model, data))


def one_field(lattice):
    values = fields_on(lattice)[0]
    return values, {
        "Series": as_list_of_series(lattice, values[None])[0],
        "dict": {node: v[0] for node, v in as_dict(lattice, values[None]).items()},
        "DataArray": as_dataarray(lattice, values[None]).isel(sample=0),
    }


@pytest.mark.parametrize("kind", ["Series", "dict", "DataArray"])
@pytest.mark.parametrize("lattice", LATTICES)
def test_one_labeled_field_is_aligned(lattice, kind):
    lattice = LATTICES[lattice]
    model, (bare, containers) = family(lattice), one_field(lattice)
    labeled, field = containers[kind], p4.GibbsField(family(lattice))
    equal(p4.compile(model).potential_fn(labeled), p4.compile(model).potential_fn(jnp.asarray(bare)))
    equal(model.energy(labeled), model.energy(bare))
    if lattice is GRAPH:  # what compiles longest
        equal(field.conditional_log_prob(labeled), field.conditional_log_prob(bare))
    equal(field.log_prob(labeled), field.log_prob(bare))


def test_names_of_exchanged_axes_are_read():
    data = fields_on(SQUARE)
    array = xr.DataArray(data, dims=("sample", "x", "y"))  # without coordinates: names are labels too
    equal(
        p4.held_out_score(family(SQUARE), array.transpose("sample", "y", "x")), p4.held_out_score(family(SQUARE), data)
    )


# entry points that run chains or need two axes of samples; each with data of its own


def chains_of(lattice, number=400):
    flat = fields_on(lattice, number).reshape(4, -1, *lattice.field_shape)
    dims, coords = field_dims(lattice)
    array = xr.DataArray(flat, dims=("chain", "draw", *dims), coords=coords)
    return flat, array.isel({dim: slice(None, None, -1) for dim in dims}).transpose(*reversed(array.dims))


def near(model):
    return model.replace(a=model.couplings["a"] + 0.01)


def reweighted(samples, source, target):
    result = p4.reweight(samples, source, target, {"m": lambda phi: phi.reshape(-1)}, on_poor_overlap="warn")
    return result.mean["m"], result.log_partition_ratio


REWEIGHTING = {
    "reweight": lambda m, x: reweighted(x, m, near(m)),
    "reweight, source a function": lambda m, x: reweighted(x, m.energy, near(m)),
    "combine_ensembles": lambda m, x: p4.combine_ensembles([x, x], [m, near(m)]).log_partition,
    "scan_reweighting": lambda m, x: p4.scan_reweighting(
        x, m, lambda g: m.replace(r=g), np.linspace(0, 0.1, 3)
    ).weights["effective_sample_size"],
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("lattice", ["graph", "square"])
@pytest.mark.parametrize("entry", REWEIGHTING)
def test_labeled_samples_are_aligned(entry, lattice):
    model, (bare, labeled) = family(LATTICES[lattice]), chains_of(LATTICES[lattice])
    equal(REWEIGHTING[entry](model, labeled), REWEIGHTING[entry](model, bare))


def test_functions_alone_take_axes_in_the_order_of_their_names():
    """Without a lattice only x, y, z and t have an order; what a label of a site means is unknown."""
    bare, labeled = chains_of(SQUARE)
    model = family(SQUARE)
    equal(reweighted(labeled, model.energy, near(model).energy), reweighted(bare, model.energy, near(model).energy))
    with raises("argument.samples.labels", "'site'"):
        reweighted(chains_of(GRAPH)[1], family(GRAPH).energy, near(family(GRAPH)).energy)


def taken_by(monkeypatch, module, function, run):
    """The data with which a function goes to work that would take long."""

    class Enough(Exception):
        pass

    def stop(*arguments, **_):
        raise Enough(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Enough) as caught:
        patch.setattr(module, function, stop)
        run()
    return caught.value.args


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("lattice", ["graph", "square"])
def test_inference_and_comparison_align(monkeypatch, lattice, container):
    """That these labeled data give the same numbers to the end is a slow test."""
    lattice = LATTICES[lattice]
    model, data = p4.gaussian(lattice, w=0.1, a=2.0), fields_on(lattice)
    labeled = CONTAINERS[container](lattice, data)
    prior = {"w": dist.Uniform(0.0, 0.1)}
    for module, function, run in (
        ("couplings", "_by_exchange", lambda d: p4.infer_couplings(model, d, prior, normalizer="exchange")),
        ("compare", "posterior_by_importance", lambda d: p4.compare({"one": model, "two": model.replace(w=0.0)}, d)),
    ):
        place = sys.modules[f"phi4ppl.inference.{module}"]
        found, right = (
            taken_by(monkeypatch, place, function, lambda d=d, run=run: run(d))[0].data for d in (labeled, data)
        )
        equal(found, right)


def test_predictive_checks_align(monkeypatch):
    """With the drawing of fields left out: what is measured of the data."""
    model, data = family(SQUARE), fields_on(SQUARE)
    place = sys.modules["phi4ppl.inference.predictive_check"]
    monkeypatch.setattr(place, "fields_of", lambda models, each, seed: np.zeros((1, each, 3, 3)))
    labeled, bare = (
        inference.predictive_check([model], d).observed["neighbor_correlation"]
        for d in (as_dataarray(SQUARE, data), data)
    )
    equal(labeled, bare)


@pytest.mark.slow
@pytest.mark.parametrize("container", ["as_table", "as_chains"])
def test_inference_and_comparison_give_the_same_numbers(container):
    one = p4.gaussian(GRAPH, w=0.3, a=1.0 + 0.1 * np.arange(4))
    data = fields_on(GRAPH)
    both = CONTAINERS[container](GRAPH, data), data
    run = {
        "normalizer": "pseudolikelihood_uncorrected",
        "num_warmup": 20,
        "num_samples": 10,
        "num_chains": 2,
        "progress": False,
    }
    equal(*(p4.infer_couplings(one, d, {"w": dist.Uniform(0.0, 0.5)}, **run)["posterior"]["w"].values for d in both))
    equal(*(p4.compare({"one": one, "two": one.replace(w=0.0)}, d).table.to_numpy() for d in both))
    equal(*(inference.predictive_check([one], d).table.to_numpy() for d in both))


def test_comparison_refuses_labels_that_are_in_another_order_in_one_model():
    """Labels without an order of their own are numbered as the graph lists them."""
    labels = [frozenset({object()}) for _ in range(3)]
    lattices = [nx.Graph() for _ in range(2)]
    for graph, order in zip(lattices, (labels, labels[::-1]), strict=True):
        graph.add_nodes_from(order)
        graph.add_edges_from([(labels[0], labels[1]), (labels[1], labels[2])])
    models = {
        name: p4.gaussian(p4.lattice.from_networkx(g), w=0.3, a=1.0) for name, g in zip("pq", lattices, strict=True)
    }
    table = pd.DataFrame(fields_on(models["p"].lattice), columns=pd.Index(labels, tupleize_cols=False))
    with raises("argument.models.order", got="another order in 'q'"):
        p4.compare(models, table)


def test_every_public_argument_of_fields_is_in_a_registry_here():
    """A new function with data or samples has to join one of the tests above."""
    here = {*CHEAP, *REWEIGHTING, "infer_couplings", "compare"}
    here |= {"observe_field"}  # in test_partly_observed.py
    found = {
        name
        for name in p4.__all__
        if inspect.isfunction(function := getattr(p4, name))
        and {"data", "samples", "fields"} & set(inspect.signature(function).parameters)
    }
    assert found and found <= here


# couplings


def site_couplings(lattice):
    """The same numbers in every container."""
    values = 1.0 + 0.1 * np.arange(lattice.num_sites)
    containers = one_field(lattice)[1]
    series = containers["Series"].copy()
    series[:] = [values[lattice.nodes.index(label)] for label in series.index]
    dims, coords = field_dims(lattice)
    array = xr.DataArray(values.reshape(lattice.field_shape), dims=dims, coords=coords)
    array = array.isel({dim: slice(None, None, -1) for dim in dims}).transpose(*reversed(dims))
    return values, {
        "Series": series,
        "dict": dict(series.items()),
        "DataArray": array,
        "Float64": series.astype("Float64"),
    }


def edge_couplings(lattice):
    values = 0.3 + 0.01 * np.arange(lattice.num_edges)
    order = np.roll(np.arange(lattice.num_edges)[::-1], 1)
    pairs = [tuple(lattice.nodes[i] for i in lattice.edges[k]) for k in order]
    pairs = [pair[::-1] if k % 2 else pair for k, pair in enumerate(pairs)]  # in either direction
    index = pd.MultiIndex.from_tuples(pairs)
    series = pd.Series(values[order], index)
    return values, {
        "Series": series,
        "dict": dict(zip(pairs, values[order], strict=True)),
        "sets": {frozenset(pair): v for pair, v in zip(pairs, values[order], strict=True)},
        "DataArray": xr.DataArray(values[order], dims="edge", coords={"edge": pd.Index(pairs, tupleize_cols=False)})
        if lattice.nodes == GRAPH.nodes
        else series,
    }


def made(lattice, name, value):
    """A coupling of every constructor that has one of this name."""
    base = p4.phi4(lattice, w=1.0, a=1.0, b=0.1, r=0.0)
    yield p4.phi4(lattice, **({"a": 1.0, "b": 0.1, "r": 0.0} | {name: value})).couplings[name]
    yield base.replace(**{name: value}).couplings[name]
    if name in ("w", "a"):
        yield p4.gaussian(lattice, **({"w": 0.1, "a": 1.0} | {name: value})).couplings[name]
    form = next(term for term in base.terms if term.name == name)
    term = p4.Term(name, form.cliques, form.statistic, coupling=value)
    yield p4.MarkovRandomField(lattice, [term]).couplings[name]


@pytest.mark.parametrize("kind", ["Series", "dict", "DataArray", "Float64"])
@pytest.mark.parametrize("name", ["a", "b", "r"])
@pytest.mark.parametrize("lattice", LATTICES)
def test_couplings_of_sites_are_aligned(lattice, name, kind):
    lattice = LATTICES[lattice]
    values, containers = site_couplings(lattice)
    for coupling in made(lattice, name, containers[kind]):
        np.testing.assert_array_equal(coupling, values)


@pytest.mark.parametrize("kind", ["Series", "dict", "sets", "DataArray"])
@pytest.mark.parametrize("lattice", LATTICES)
def test_couplings_of_edges_are_aligned(lattice, kind):
    lattice = LATTICES[lattice]
    values, containers = edge_couplings(lattice)
    for coupling in made(lattice, "w", containers[kind]):
        np.testing.assert_array_equal(coupling, values)


def test_kinds_of_edges_may_have_labels_inside():
    lattice = p4.lattice.square(3, periodic=False, diagonals=True)
    pairs = [tuple(lattice.nodes[i] for i in edge) for edge in lattice.edges_of("diagonal")]
    values = np.arange(len(pairs)) / 10
    model = p4.phi4(lattice, w={"nn": 1.0, "diagonal": dict(zip(pairs[::-1], values[::-1], strict=True))}, a=2.0, b=0.2)
    assert model.couplings["w_nn"].shape == ()
    np.testing.assert_array_equal(model.couplings["w_diagonal"], values)


def test_terms_on_some_sites_and_on_plaquettes():
    lattice = p4.lattice.square(3, periodic=False, diagonals=True)
    some = p4.Term("s", [[4], [0]], lambda x: x**4, coupling={(0, 0): 1.0, (1, 1): 2.0})
    whole = pd.Series(np.arange(9.0), list(lattice.nodes))[::-1]
    plaquettes = p4.lattice.plaquettes(lattice)
    keys = [frozenset(lattice.nodes[i] for i in row) for row in plaquettes[::-1]]
    four = p4.Term("g", plaquettes, lambda p, q, r, s: p * q * r * s, coupling=dict(zip(keys, range(4), strict=True)))
    model = p4.MarkovRandomField(lattice, [some, four])
    assert model.couplings["s"].tolist() == [2.0, 1.0] and model.couplings["g"].tolist() == [3, 2, 1, 0]
    assert model.replace(s=whole).couplings["s"].tolist() == [4.0, 0.0]
    assert "by the labels of a dict" in repr(some)


def test_a_table_of_couplings_of_a_plane():
    a = 1.0 + np.arange(9).reshape(3, 3) / 10
    table = pd.DataFrame(a, index=pd.Index(range(3), name="x"), columns=pd.Index(range(3), name="y"))
    for given in (table, table.T, table.loc[[2, 0, 1], [1, 0, 2]], pd.DataFrame(a)):
        np.testing.assert_array_equal(p4.phi4(SQUARE, a=given, b=0.1).couplings["a"], a.reshape(-1))


def test_numbers_and_traced_numbers_stay_what_they_are():
    tree = xr.Dataset({"w": (("chain", "draw"), [[0.2, 0.4]])})
    assert p4.gaussian(GRAPH, w=tree["w"].mean(), a=1.0).couplings["w"] == pytest.approx(0.3)
    assert p4.phi4_from_lagrangian(GRAPH, kappa=tree["w"].max(), mu_squared=1.0, lam=0.4).couplings["w"] == 0.4

    def energy(x):
        return p4.gaussian(GRAPH, w=0.1, a={"d": x, "c": 1.0, "b": 1.0, "a": 1.0}).energy(jnp.arange(4.0))

    assert jax.jit(jax.grad(energy))(1.0) == 9.0  # the site d is the last one


# refusals


BAD_LABELS = {
    "unknown and missing": lambda t: (
        t.rename(columns={t.columns[0]: "zz"}),
        ("argument.*.labels", "'zz'", "none for"),
    ),
    "missing": lambda t: (t.iloc[:, 1:], ("argument.*.labels", "none for")),
    "one more": lambda t: (t.assign(zz=1.0), ("argument.*.labels", "got 'zz'")),
    "twice": lambda t: (t.set_axis([*t.columns[:-1], t.columns[0]], axis=1), ("argument.*.labels", "none for")),
    "one twice more": lambda t: (pd.concat([t, t.iloc[:, :1]], axis=1), ("argument.*.duplicate", "2 times")),
    "transposed": lambda t: (t.T, ("argument.*.transposed",)),
    "texts of numbers": lambda t: (t.rename(columns=lambda c: f"{c}.5"), ("argument.*.labels", "none for")),
}
EVERY = CHEAP | LEADING


@pytest.mark.parametrize("bad", BAD_LABELS)
@pytest.mark.parametrize("entry", EVERY)
def test_wrong_labels_of_tables_are_refused(entry, bad):
    table, words = BAD_LABELS[bad](as_texts(GRAPH, fields_on(GRAPH)))
    with raises(*words):
        EVERY[entry](family(GRAPH), table)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.rename(x="row"), ("argument.data.dimensions", "'x'", "'y'")),
        (lambda a: a.rename(x="row", y="column"), ("argument.data.dimensions", "'x'", "'y'")),
        (lambda a: a.assign_coords(x=[0, 1, 3]), ("argument.data.labels", "'x'", "2", "3")),
        (lambda a: a.assign_coords(x=[0, 1, 1]), ("argument.data.labels", "'x'", "2")),
        (lambda a: a.isel(y=[0, 1]), ("argument.data.labels", "'y'")),
        (lambda a: a.stack(site=("x", "y")), ("argument.data.dimensions", "'x'", "'y'")),
        (
            lambda a: xr.Dataset({"p": a, "q": a}),
            ("argument.data.variable", "'phi'", "got variables ['p', 'q']"),
        ),
        (lambda a: {"phi": a.values}, ("argument.data.labels", "'phi'")),
    ],
)
def test_wrong_dimensions_are_refused(change, words):
    with raises(*words):
        p4.held_out_score(family(SQUARE), change(as_dataarray(SQUARE, fields_on(SQUARE))))


def test_what_has_no_labels_stays_by_position():
    model, data = family(GRAPH), fields_on(GRAPH)
    for bare in (pd.DataFrame(data), xr.DataArray(data), xr.DataArray(data, dims=("time", "place")), data.tolist()):
        equal(p4.held_out_score(model, bare), p4.held_out_score(model, data))
    equal(model.energy(pd.Series(data[0])), model.energy(data[0]))
    rows = pd.DataFrame(data).sample(frac=1, random_state=0)  # labels of rows are of samples
    equal(model.energy(rows), model.energy(rows.to_numpy()))


def test_texts_that_fit_two_nodes_are_refused():
    model = p4.gaussian(p4.lattice.from_networkx(nx.Graph([(1, "1"), ("1", 2)])), w=0.1, a=1.0)
    table = pd.DataFrame(np.ones((3, 3)), columns=[1, "1", 2])
    assert model.energy(table).shape == (3,)
    with raises("argument.phi.labels"):
        model.energy(table.rename(columns=str))


def quartic(lattice=GRAPH, **couplings):
    return p4.phi4(lattice, **({"a": 1.0, "b": 0.1} | couplings))


DIRECTED_TWICE = dict.fromkeys([*permutations("ac"), ("a", "d"), ("d", "b"), ("b", "c")], 1.0)
ONE_MORE_EDGE = edge_couplings(GRAPH)[1]["dict"] | {("c", "d"): 1.0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: quartic(a={"a": 1.0, "b": 1.0, "c": 1.0}),
            ("argument.coupling.incomplete", "coupling 'a'", "got none for 'd'"),
        ),
        (lambda: quartic(a=pd.Series(1.0, list("abcz"))), ("argument.coupling.not_a_clique", "'z'", "coupling 'a'")),
        (lambda: quartic(a=pd.Series(1.0, list("abcda"))), ("argument.coupling.duplicate", "coupling 'a'")),
        (lambda: quartic(w=pd.Series(1.0, list("abcd"))), ("argument.coupling.labels", "2", "'a'", "coupling 'w'")),
        (
            lambda: quartic(w={("a", "c"): 1.0}),
            ("argument.coupling.incomplete", "coupling 'w'", "got none for ('a', 'd')"),
        ),
        (lambda: quartic(w={"nn": 1.0, ("a", "c"): 1.0}), ("argument.w.name", "'nn'", "got ('a', 'c')")),
        (lambda: quartic(w=ONE_MORE_EDGE), ("argument.coupling.not_a_clique", "'c'", "'d'", "coupling 'w'")),
        (lambda: quartic(w=DIRECTED_TWICE), ("argument.coupling.duplicate", "'a'", "'c'", "coupling 'w'")),
        (lambda: quartic(a=pd.DataFrame(np.ones((2, 2)))), ("argument.coupling", "coupling 'a'", "got a DataFrame")),
        (
            lambda: quartic(CHAIN, w=xr.DataArray(np.ones(5), dims="site")),
            ("argument.coupling", "coupling 'w'", "got a DataArray with dimensions ('site',)"),
        ),
        (
            lambda: quartic(SQUARE, a=xr.DataArray(np.ones((3, 3)), dims=("x", "z"))),
            ("argument.coupling.dimensions", "'x'", "'y'", "coupling 'a'"),
        ),
        (
            lambda: quartic(p4.lattice.chain(1), w={(0, 1): 1.0}),
            ("argument.coupling.not_a_clique", "(0, 1)", "coupling 'w'"),
        ),
        (
            lambda: p4.phi4_from_lagrangian(GRAPH, mu_squared=pd.Series(1.0, list("abcd")), lam=1.0),
            ("argument.mu_squared.shape",),
        ),
        (lambda: p4.phi4_from_lagrangian(GRAPH, mu_squared={"a": 1.0}, lam=1.0), ("argument.mu_squared",)),
    ],
)
def test_wrong_labels_of_couplings_are_refused(make, words):
    with raises(*words):
        make()


# missing values: masked, NA and NaN are one thing


def missing_in(data):
    """The same data with one missing value, in every way to say so."""
    hole = np.zeros(data.shape, bool)
    hole[(1,) * data.ndim] = True
    with_nan = np.where(hole, np.nan, data)
    ways = {"nan": with_nan, "masked": np.ma.array(data, mask=hole), "DataArray": xr.DataArray(with_nan)}
    ways["list of masked"] = list(ways["masked"])
    if data.ndim == 2:
        ways["NA"] = pd.DataFrame(with_nan, dtype="Float64")
        ways["NaN in a table"] = pd.DataFrame(with_nan)
        assert ways["NA"].isna().to_numpy().sum() == 1
    ways["None"] = np.where(hole, None, data.astype(object)).tolist()
    return ways


MISSING = ("nan", "masked", "DataArray", "list of masked", "NA", "NaN in a table", "None")
MACHINE = networks.RestrictedBoltzmannMachine(
    networks.GaussianUnits(np.zeros(4), np.ones(4)), networks.BernoulliUnits(np.zeros(2)), 0.1 * np.ones((4, 2))
)
WAYS_IN = EVERY | {
    "potential_fn": lambda m, d: p4.compile(m).potential_fn(d[1] if isinstance(d, list) else d),
    "conditional_log_prob": lambda m, d: p4.GibbsField(m).conditional_log_prob(d),
    "infer_couplings": lambda m, d: p4.infer_couplings(
        p4.gaussian(GRAPH, w=0.1, a=1.0), d, {"w": dist.Uniform(0, 0.3)}
    ),
    "compare": lambda m, d: p4.compare(
        {"p": p4.gaussian(GRAPH, w=0.1, a=1.0), "q": p4.gaussian(GRAPH, w=0.2, a=1.0)}, d
    ),
    "predictive_check": lambda m, d: inference.predictive_check([m], d),
    "a": lambda m, d: m.replace(a=d),
    "w": lambda m, d: p4.phi4(GRAPH, w=d, a=1.0, b=0.1),
    "kappa": lambda m, d: p4.phi4_from_lagrangian(GRAPH, kappa=np.ma.masked, mu_squared=1.0, lam=1.0),
    "Term": lambda m, d: p4.MarkovRandomField(GRAPH, [p4.Term("t", [[0], [1]], lambda x: x**2, coupling=d)]),
    "train": lambda m, d: networks.train(MACHINE, d, epochs=1, progress=False),
    "machine.log_prob": lambda m, d: MACHINE.log_prob(d),
    "machine.free_energy": lambda m, d: MACHINE.free_energy(d),
    "units": lambda m, d: networks.GaussianUnits(d, np.ones(4)),
    "weights": lambda m, d: networks.RestrictedBoltzmannMachine(MACHINE.visible, MACHINE.hidden, d),
    "gamma_method": lambda m, d: gamma_method(d),
    "obs of a normal": lambda m, d: p4.compile(normal_model, d),
    "obs of a field": lambda m, d: p4.compile(field_model, d[1] if isinstance(d, list) else d),
}


def normal_model(y):
    with numpyro.plate("row", NUMBER, dim=-2), numpyro.plate("column", 4, dim=-1):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)), 1.0), obs=y)


def field_model(y):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    numpyro.sample("y", p4.GibbsField(p4.gaussian(GRAPH, w=0.1, a=1.0)), obs=y)
    numpyro.factor("f", -scale)


@pytest.mark.parametrize("way", MISSING)
@pytest.mark.parametrize("entry", WAYS_IN)
def test_missing_values_are_refused_everywhere(entry, way):
    """Each in the words for missing values, with an index: what lies under a mask has other shapes than a field must have."""
    with raises("argument.*.finite", "index"):
        WAYS_IN[entry](family(GRAPH), missing_in(fields_on(GRAPH))[way])


@pytest.mark.parametrize("entry", REWEIGHTING)
@pytest.mark.parametrize("way", ["nan", "masked", "DataArray", "list of masked"])
def test_missing_samples_are_refused(entry, way):
    with raises("argument.samples.finite"):
        REWEIGHTING[entry](family(GRAPH), missing_in(chains_of(GRAPH)[0])[way])


@pytest.mark.parametrize(
    "make", [networks.GaussianBernoulliRBM, lambda n, **kw: networks.DeepPhi4Network([networks.Phi4RBM(n)], **kw)]
)
@pytest.mark.parametrize("way", MISSING)
def test_estimators_refuse_missing_values(make, way):
    if way == "list of masked":
        pytest.skip("scikit-learn takes lists of numbers")
    with pytest.raises(ValueError, match="NaN|missing|masked|NA"):
        make(2).fit(missing_in(fields_on(GRAPH))[way])


def test_missing_numbers_are_seen_inside_a_trace():
    """A NumPy array is known there, though JAX makes it part of what it traces."""
    bad = np.array([1.0, np.nan, 1.0, 1.0])
    with raises("argument.phi.finite", got="a missing value at index (1,)"):
        jax.jit(lambda scale: scale * family(GRAPH).energy(bad))(1.0)


def test_masks_that_hide_nothing_change_nothing():
    model, data = family(GRAPH), fields_on(GRAPH)
    equal(p4.held_out_score(model, np.ma.array(data)), p4.held_out_score(model, data))
    equal(model.energy(np.ma.array(data, mask=False)), model.energy(data))
    equal(model.replace(a=np.ma.array([1.0, 2.0, 3.0, 4.0])).couplings["a"], np.arange(1.0, 5))


def test_values_that_are_no_numbers_are_refused():
    table = as_table(GRAPH, fields_on(GRAPH)).astype(str)
    with raises("argument.data.dtype", "pandas.to_numeric"):
        p4.held_out_score(family(GRAPH), table)


# machines


def test_units_have_numbers_for_labels():
    v = fields_on(GRAPH)
    table = pd.DataFrame(v)[[2, 0, 3, 1]]
    equal(MACHINE.free_energy(table), MACHINE.free_energy(v))
    with raises("argument.v.labels", "0", "'c'"):
        MACHINE.free_energy(as_table(GRAPH, v)[["c", "a", "b", "d"]])
    estimator = networks.GaussianBernoulliRBM(2, n_epochs=1, progress=False).fit(pd.DataFrame(v, columns=[5, 6, 7, 8]))
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(pd.DataFrame(v, columns=[6, 5, 7, 8]))


# NumPyro models


@pytest.mark.parametrize("kind", ["Series", "dict", "DataArray", "closure"])
def test_observed_fields_are_aligned(kind):
    bare, containers = one_field(GRAPH)
    value = containers.get(kind, containers["Series"])

    def model(y=value):
        w = numpyro.sample("w", dist.Uniform(0.0, 0.3))
        base = p4.gaussian(GRAPH, w=w, a=1.0 + np.arange(4))
        numpyro.sample("y", p4.GibbsField(base, log_partition=lambda c: p4.exact.gaussian_log_partition(base)), obs=y)

    given = () if kind == "closure" else (value,)
    position = {"w": jnp.array(0.3)}
    equal(p4.compile(model, *given).potential_fn(position), p4.compile(model, jnp.asarray(bare)).potential_fn(position))
    np.testing.assert_allclose(p4.compile(model, *given).data["y"], bare, rtol=1e-6)


def latent(y):
    phi = numpyro.sample("phi", p4.GibbsField(p4.gaussian(GRAPH, w=0.1, a=1.0)))
    numpyro.sample("y", dist.Normal(phi, 0.5), obs=y)


def test_series_are_observed_data():
    """By position where labels have no say; refused where they name the sites of the latent field in another order."""
    values = np.array([0.5, 1.0, 1.5, 2.0])
    position = {"phi": jnp.arange(4.0)}
    right = p4.compile(latent, jnp.asarray(values)).potential_fn(position)
    for index in (None, list("abcd"), ["p", "q", "r", "s"]):
        equal(p4.compile(latent, pd.Series(values, index)).potential_fn(position), right)
    equal(p4.compile(latent, pd.Series(values, dtype="Float64")).potential_fn(position), right)
    with raises("argument.obs.order", "lattice.nodes", "'a'", "'b'", name="obs of 'y'"):
        p4.compile(latent, pd.Series(values, list("bacd")))
    with raises("argument.obs.order", name="obs of 'y'"):
        p4.sample(
            latent, xr.DataArray(values, dims="site", coords={"site": list("bacd")}), num_warmup=20, num_samples=10
        )


def test_draws_of_a_run_go_in_as_they_are():
    """A run of labeled data, whose draws are data again, and whose couplings are couplings again."""
    lattice = p4.lattice.square(2, 3, periodic=False)
    model = p4.gaussian(lattice, w=0.3, a=1.0 + 0.1 * np.arange(6))

    def noisy(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("phi", p4.GibbsField(model)), 0.5), obs=y)

    seen = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("x", "y"))
    tree = p4.sample(noisy, seen, num_warmup=20, num_samples=20, num_chains=2, progress=False)
    np.testing.assert_allclose(tree["observed_data"]["y"], seen)
    phi = tree["posterior"]["phi"]
    assert phi.dims == ("chain", "draw", "x", "y")
    equal(p4.held_out_score(model, phi), p4.held_out_score(model, phi.values.reshape(-1, 2, 3)))
    equal(model.energy(phi), model.energy(phi.values))
    kept = xr.DataArray(model.couplings["a"], dims="clique_a", coords={"clique_a": range(6)})  # as in constant_data
    for given in (kept, kept[::-1]):
        equal(model.replace(a=given).couplings["a"], model.couplings["a"])
    with raises("argument.data.run", "'posterior']", got="a DataTree"):
        p4.held_out_score(model, tree)


def test_counts_of_a_nullable_series():
    def model(y):
        numpyro.sample("y", dist.Poisson(numpyro.sample("rate", dist.Exponential(1.0))), obs=y)

    position = {"rate": jnp.array(0.2)}
    equal(*(p4.compile(model, y).potential_fn(position) for y in (pd.Series([1, 2], dtype="Int64"), jnp.array([1, 2]))))


def test_masked_data_of_a_masked_distribution_pass():
    """NumPyro's own way with missing data: the mask of the distribution says which."""
    values, kept = np.array([0.5, np.nan, 1.5, 2.0]), np.array([True, False, True, True])

    def model(y):
        phi = numpyro.sample("phi", p4.GibbsField(p4.gaussian(GRAPH, w=0.1, a=1.0)))
        numpyro.sample("y", dist.Normal(phi, 0.5).mask(kept), obs=y)

    position = {"phi": jnp.arange(4.0)}
    right = p4.compile(model, jnp.asarray(np.where(kept, values, 7.0))).potential_fn(position)
    for y in (
        values,
        np.ma.array(np.where(kept, values, 9.0), mask=~kept),
        pd.Series(values),
        pd.Series(values, dtype="Float64"),
    ):
        equal(p4.compile(model, y).potential_fn(position), right)
    with raises("argument.obs.finite", name="obs of 'y'"):
        p4.compile(model, np.where([0, 0, 1, 0], np.nan, values))


def test_covariates_in_tables_say_what_to_do():
    def model(x, y):
        numpyro.sample("y", dist.Normal(numpyro.sample("slope", dist.Normal(0, 1)) * x, 1.0), obs=y)

    series = pd.Series([1.0, 2.0])
    with raises("argument.args", "to_numpy()", name="args[0]"):
        p4.compile(model, series, series)


# files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    declared = "import phi4ppl as p4\nimport networkx as nx\n"
    (tmp_path / "graph.py").write_text(
        declared + "graph = nx.Graph([('c', 'a'), ('a', 'd'), ('d', 'b'), ('b', 'c')])\n"
        "model = p4.gaussian(p4.lattice.from_networkx(graph), w=[0.0] * 4, a=1.0)\n"
    )
    (tmp_path / "square.py").write_text(
        declared + "model = p4.gaussian(p4.lattice.square(3, periodic=False), w=[0.0] * 12, a=1.0)\n"
    )
    return tmp_path


def fitted(path, model="graph"):
    assert main(["fit", f"{model}.py", "--data", path, "--quiet", "--overwrite"]) == 0
    return p4.load_model(f"fits/{model}/model.npz").couplings["w"]


def test_files_with_labels_are_aligned(folder, capsys):
    data = fields_on(GRAPH, 200)
    np.save("bare.npy", data)
    as_table(GRAPH, data).to_csv("table.csv", index=False)
    as_table(GRAPH, data).to_csv("indexed.csv")
    as_dataset(GRAPH, data).to_netcdf("fields.nc")
    as_dataarray(GRAPH, data).to_dataset(name="own").to_netcdf("own.nc")
    right = fitted("bare.npy")
    assert np.ptp(right) > 0.01
    for path in ("table.csv", "indexed.csv", "fields.nc", "own.nc"):
        np.testing.assert_array_equal(fitted(path), right)
    assert "indexed.csv: the first column has no name and is left out." in capsys.readouterr().out
    square = fields_on(SQUARE, 200)
    np.save("bare.npy", square)
    as_table(SQUARE, square).to_csv("table.csv", index=False)
    as_table(SQUARE, square).rename(columns=lambda c: f"{c[0]},{c[1]}").to_csv("short.csv", index=False)
    as_dataset(SQUARE, square).to_netcdf("fields.nc")
    right = fitted("bare.npy", "square")
    for path in ("table.csv", "short.csv", "fields.nc"):
        np.testing.assert_array_equal(fitted(path, "square"), right)


def test_parquet_files(folder):
    pytest.importorskip("pyarrow")
    data = fields_on(GRAPH, 200)
    np.save("bare.npy", data)
    as_table(GRAPH, data).to_parquet("table.parquet")
    np.testing.assert_array_equal(fitted("table.parquet"), fitted("bare.npy"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c,d\n1,2,3,4\n2,3,4,\n", "bad.csv: expected finite numbers, got a missing value at index (1, 3)"),
        ("a,b,c\n1,2,3\n2,3,4\n", "got none for 'd'"),
        ("a,b,c,a\n1,2,3,4\n2,3,4,5\n", "got none for 'd'"),
        ("1,2,3,4\n2,3,4,5\n", "got none for 'a' and '1', which is not a node"),
        ("a;b;c;d\n1;2;3;4\n", "bad.csv: columns are separated by ';'; a .csv table has commas between"),
        ("a,b,c,d\n1,2,3,4\n2,3,4,5,6\n", "bad.csv: 5 columns in line 3, and 4 in the first line"),
        ("a,b,c,d\n1,2,3,x\n2,3,4,5\n", "bad.csv: 'x' in line 2 is not a number"),
        ("", "bad.csv: a table without rows of numbers"),
        ("a,b,c,d\n", "bad.csv: a table without rows of numbers"),
    ],
)
def test_bad_tables_are_one_line(folder, capsys, text, words):
    (folder / "bad.csv").write_text(text)
    assert main(["fit", "graph.py", "--data", "bad.csv", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_parquet_without_pyarrow_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setattr("phi4ppl.cli.field_files.find_spec", lambda name: None)
    (folder / "table.parquet").write_bytes(b"PAR1")
    assert main(["fit", "graph.py", "--data", "table.parquet", "--quiet"]) == 2
    assert (
        "table.parquet: a Parquet file needs pyarrow, which is not installed: pip install pyarrow."
        in capsys.readouterr().err
    )


def test_a_transposed_table_with_numbers_as_labels_is_refused():
    """Square by accident: as many samples as sites, and the labels of the rows are the nodes."""
    nodes = [30, 7, 100, 2, 55]
    model = p4.gaussian(p4.lattice.from_networkx(nx.path_graph(nodes)), w=0.5, a=1.0)
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 5)), columns=nodes)
    expected = model.energy(table[list(model.lattice.nodes)].to_numpy())
    np.testing.assert_array_equal(model.energy(table), expected)
    with raises("argument.*.transposed"):
        model.energy(table.T)
