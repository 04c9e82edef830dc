"""Two-point functions of one field: against sums over pairs, Gaussian covariances, and the transfer matrix of a chain."""

from __future__ import annotations

import itertools

import jax
import networkx as nx
import numpy as np
import pytest
from raising import raises
from scipy import stats

import phi4ppl as p4
from phi4ppl.analysis import derive
from phi4ppl.analysis.two_point import TWO_POINT, two_point
from phi4ppl.sampling.program import cached_program

pytestmark = pytest.mark.compile_quickly

GRIDS = {
    "torus": p4.lattice.square(4, 3),
    "open": p4.lattice.square(3, 4, periodic=False),
    "mixed": p4.lattice.square(4, periodic=(True, False)),
    "cube": p4.lattice.hypercubic((3, 3, 3)),
    "ring": p4.lattice.chain(5),
    "triangular": p4.lattice.triangular(5, 4),
    "open triangular": p4.lattice.triangular(3, 4, periodic=(False, True)),
}


def distance(a, b, lattice) -> float:
    """Of two sites of a plane lattice in bonds, by their coordinates in the plane and those of all images."""
    grid = np.eye(len(lattice.shape)) if lattice.layout_hint != "triangular" else np.array([[1, 0], [-0.5, 0.75**0.5]])
    images = [(-n, 0, n) if p else (0,) for n, p in zip(lattice.shape, lattice.periodic, strict=True)]
    return min(np.linalg.norm((np.subtract(b, a) + image) @ grid) for image in itertools.product(*images))


def by_pairs(name: str, lattice, phi: np.ndarray) -> np.ndarray:
    """The definition, as a sum over all pairs of sites one by one; distances are the shortest along each axis."""
    shape, periodic = lattice.shape, lattice.periodic
    longest = [k for k in range(len(shape)) if shape[k] == max(shape)]
    axes = [k for k in longest if periodic[k]] or longest
    found: dict = {}
    for x, y in itertools.product(np.ndindex(*shape), repeat=2):
        away = [b - a for a, b in zip(x, y, strict=True)]
        near = [min(d % n, -d % n) if p else abs(d) for d, n, p in zip(away, shape, periodic, strict=True)]
        product = phi[x] * phi[y]
        if name == "radial_correlation_function":
            keys = [round(distance(x, y, lattice))]
        elif name == "correlation_function":
            keys = [tuple(d % n for d, n in zip(away, shape, strict=True))] if all(
                p or d >= 0 for d, p in zip(away, periodic, strict=True)) else []  # fmt: skip
        elif name == "axis_correlation_function":
            keys = [near[k] for k in axes if not any(d for i, d in enumerate(near) if i != k)]
        else:  # time slices: all pairs at this distance in time
            keys = [near[k] for k in axes]
        for key in keys:
            found.setdefault(key, []).append(product)
    area = lattice.num_sites / max(shape) if name == "time_slice_correlator" else 1
    return np.array([area * np.mean(found[key]) for key in sorted(found)])


@pytest.mark.parametrize("lattice", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(
    "name",
    ["correlation_function", "axis_correlation_function", "radial_correlation_function", "time_slice_correlator"],
)
def test_distances_are_those_of_the_sum_over_pairs(x64, name, lattice):
    phi = np.random.default_rng(1).normal(size=lattice.shape)
    found = two_point(name, lattice)
    values = np.asarray(found.measure(phi))
    assert values.shape == tuple(map(len, found.points))
    np.testing.assert_allclose(values.reshape(-1), by_pairs(name, lattice, phi), atol=1e-12)


@pytest.mark.parametrize("lattice", [GRIDS["torus"], GRIDS["cube"], GRIDS["ring"]])
def test_momenta_are_those_of_the_sum_over_sites(x64, lattice):
    phi = np.random.default_rng(2).normal(size=lattice.shape)
    sites = np.indices(lattice.shape).reshape(len(lattice.shape), -1)
    power: dict = {}
    for n in np.ndindex(*lattice.shape):
        k = 2 * np.pi * np.array(n) / lattice.shape
        size = np.sqrt((4 * np.sin(k / 2) ** 2).sum())
        shell = round(size / (np.pi / max(lattice.shape)) - 1e-9)
        value = abs((phi.reshape(-1) * np.exp(-1j * k @ sites)).sum()) ** 2 / phi.size
        power.setdefault(shell, []).append((size, value))
    momenta, means = np.array([np.mean(power[shell], axis=0) for shell in sorted(power)]).T
    found = two_point("structure_factor", lattice)
    np.testing.assert_allclose(found.points[0], momenta, atol=1e-12)
    np.testing.assert_allclose(found.measure(phi), means, atol=1e-12)


def test_free_field_on_a_triangular_torus(x64):
    """Bonds e, −e in three directions, w = 1: S(k) = 1/(m² + 3/2 k̂²), where k̂ is 0, and ξ = (3/2)^½/m, exactly. Planted: k̂ of
    the square lattice."""
    lattice = p4.lattice.triangular(6)
    model = p4.gaussian(lattice, w=1.0, a=(6 + 0.3) / 2)
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model)))
    means = {name: gaussian_mean_of(two_point(name, lattice).measure, covariance, lattice.shape)
             for name in ("structure_factor", "smallest_momentum")}  # fmt: skip
    k = 2 * np.pi * np.indices((6, 6)) / 6
    squares = (2 / 3) * sum(4 * np.sin(phase / 2) ** 2 for phase in (k[0], k[1], k[0] + k[1])).reshape(-1)
    shell = np.rint(np.sqrt(squares) / (np.pi / 6) - 1e-9).astype(int)
    expected = [np.mean(1 / (0.3 + 1.5 * squares[shell == s])) for s in np.unique(shell)]
    np.testing.assert_allclose(means["structure_factor"], expected, rtol=1e-10)
    means["m2"] = covariance.mean()
    length = p4.analysis.named.QUANTITIES["second_moment_correlation_length"].function
    assert length(means, lattice) == pytest.approx(np.sqrt(1.5 / 0.3))
    assert length(means, p4.lattice.square(6)) != pytest.approx(np.sqrt(1.5 / 0.3), rel=0.1)


def gaussian_mean_of(measure, covariance, shape):
    """⟨f⟩ of a function f that is quadratic in the field: with C = L Lᵀ, the sum of f over the columns of L."""
    columns = np.linalg.cholesky(covariance).T
    return np.asarray(jax.vmap(measure)(columns.reshape(-1, *shape))).sum(axis=0)


@pytest.fixture
def free(x64):
    """A free field of mass m² = 0.3 on the 6×4 torus, and its covariance by the inverse of its precision."""
    lattice = p4.lattice.square(6, 4)
    model = p4.gaussian(lattice, w=1.0, a=(4 + 0.3) / 2)
    return lattice, np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model)))


def test_free_field_in_momentum_space_and_its_mass(free):
    """1/(m² + k̂²); C(t) ∝ cosh M(T/2 − t) with cosh M = 1 + m²/2; ξ = 1/m, exactly, on any torus."""
    lattice, covariance = free
    exact = {name: gaussian_mean_of(two_point(name, lattice).measure, covariance, lattice.shape)
             for name in ("structure_factor", "smallest_momentum", "time_slice_correlator")}  # fmt: skip
    k = [4 * np.sin(np.pi * np.arange(n) / n) ** 2 for n in lattice.shape]
    squares = np.add.outer(*k).reshape(-1)
    shell = np.rint(np.sqrt(squares) / (np.pi / 6) - 1e-9).astype(int)
    expected = [np.mean(1 / (0.3 + squares[shell == s])) for s in np.unique(shell)]
    np.testing.assert_allclose(exact["structure_factor"], expected, rtol=1e-10)
    mass, t = np.arccosh(1 + 0.3 / 2), np.arange(4)
    np.testing.assert_allclose(
        exact["time_slice_correlator"], np.cosh(mass * (3 - t)) / (2 * np.sinh(mass) * np.sinh(3 * mass)), rtol=1e-10
    )
    assert exact["smallest_momentum"] == pytest.approx(1 / (0.3 + k[0][1]))
    m2 = covariance.mean()  # ⟨m²⟩, so that χ = V ⟨m²⟩ = 1/m²
    run = {"m2": np.full((1, 16), m2), "smallest_momentum": np.full((1, 16), exact["smallest_momentum"])}
    length = p4.analysis.named.QUANTITIES["second_moment_correlation_length"].function
    means = {name: values.mean() for name, values in run.items()}
    assert length(means, lattice) == pytest.approx(1 / np.sqrt(0.3))


def test_free_field_on_a_graph(x64):
    """Modes of the Laplacian have 1/(λ + m²); distances have the covariance, averaged over the pairs at each."""
    graph = nx.karate_club_graph()
    lattice = p4.lattice.from_networkx(nx.Graph(graph.edges))
    model = p4.gaussian(lattice, w=1.0, a=(lattice.degree + 0.7) / 2)
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model)))
    modes = two_point("laplacian_mode_correlation", lattice)
    found = gaussian_mean_of(modes.measure, covariance, lattice.field_shape)
    np.testing.assert_allclose(found, 1 / (modes.points[0] + 0.7), rtol=1e-8)
    assert len(found) < lattice.num_sites  # two pendant sites of one neighbor: degenerate modes are averaged
    steps = dict(nx.all_pairs_shortest_path_length(lattice.graph))
    apart = np.array([[steps[i][j] for j in range(34)] for i in range(34)])
    found = gaussian_mean_of(two_point("graph_distance_correlation", lattice).measure, covariance, (34,))
    np.testing.assert_allclose(found, [covariance[apart == d].mean() for d in range(6)], rtol=1e-10)


CHAIN = p4.phi4(p4.lattice.chain(12), w=0.8, a=0.6, b=0.1)


def exact_chain(number: int = 12) -> np.ndarray:
    """⟨φ_0 φ_r⟩ for r = 0 … 6 by the transfer matrix of the ring, Tr(x Tʳ x T^{N−r})/Tr Tᴺ."""
    x = np.linspace(-6, 6, 201)
    site = 0.6 * x**2 + 0.1 * x**4
    matrix = np.exp(0.8 * np.outer(x, x) - np.add.outer(site, site) / 2)
    values, vectors = np.linalg.eigh(matrix / np.linalg.norm(matrix, 2))
    dipole = (vectors.T * x) @ vectors
    powers = np.abs(values)[:, None] ** np.arange(number + 1) * np.sign(values)[:, None] ** np.arange(number + 1)
    return np.array([
        np.einsum("ij,i,j->", dipole**2, powers[:, r], powers[:, number - r]) / powers[:, number].sum()
        for r in range(number // 2 + 1)
    ])  # fmt: skip


def probability(part, covariance, exact) -> float:
    """Of a larger χ² of all distances."""
    away = part.value - exact
    return float(stats.chi2.sf(away @ np.linalg.solve(covariance, away), len(away)))


@pytest.fixture(scope="module")
def chain_run():
    return p4.sample(
        CHAIN, num_warmup=300, num_samples=12000, seed=5, keep_field=False, observables=["time_slice_correlator"]
    )


def test_chain_agrees_with_its_transfer_matrix_at_all_distances(chain_run):
    """χ² of seven correlated distances; false alarm 1e-3. Faults that it must reject: the image around the ring forgotten
    (a pure exponential), and products summed over the eleven bonds of an open chain."""
    exact = exact_chain()
    found = derive(chain_run, ["time_slice_correlator"])
    part, covariance = found["time_slice_correlator"], found.covariance()
    assert probability(part, covariance, exact) > 1e-3
    without_image = exact[0] * (exact[1] / exact[0]) ** np.arange(7)
    assert probability(part, covariance, without_image) < 1e-6
    assert probability(part, covariance, exact * 12 / 11) < 1e-6
    assert np.all(np.abs(part.value - exact) < 4.5 * part.error)


def test_the_same_by_name_from_kept_fields_and_as_recorded():
    lattice = p4.lattice.square(4)
    names = [name for name in TWO_POINT if name != "correlation_function" and not name.startswith("improved")]
    model = p4.phi4(lattice, a=1.7, b=0.2)
    before = cached_program.cache_info()
    tree = p4.sample(model, num_warmup=50, num_samples=60, num_chains=2, observables=names)
    p4.sample(model.replace(a=1.8), num_warmup=60, num_samples=70, num_chains=2, observables=names)
    after = cached_program.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses + 1)  # compiled once
    recorded = tree["posterior"]
    assert recorded["structure_factor"].dims == ("chain", "draw", "momentum")
    assert recorded["momentum"].values[0] == 0
    fields = tree.copy()
    fields["posterior"] = tree["posterior"].to_dataset().drop_vars(names)
    found, kept = derive(tree, names), derive(fields, names)
    for name in names:
        np.testing.assert_allclose(found[name].value, kept[name].value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[name].error, kept[name].error, rtol=1e-3, atol=1e-7)
    chi = derive(tree, ["susceptibility"])["susceptibility"].value
    assert found["structure_factor"].value[0] == pytest.approx(chi, rel=1e-5)
    c = found["time_slice_correlator"].value  # both sides of the ring, the middle once
    assert c[0] + 2 * c[1] + c[2] == pytest.approx(chi, rel=1e-5)


def test_members_of_an_ensemble_have_their_own():
    model = p4.phi4(p4.lattice.square(4), a=1.7, b=0.2)
    tree = p4.sample_ensemble(
        model, {"a": [1.5, 2.5]}, num_warmup=50, num_samples=100, observables=["structure_factor"], keep_field=False
    )
    found = derive(tree, ["connected_structure_factor", "connected_susceptibility"])
    assert found["connected_structure_factor"].value.shape == (2, len(tree["posterior"]["momentum"]))
    np.testing.assert_allclose(
        found["connected_structure_factor"].value[:, 0], found["connected_susceptibility"].value, rtol=1e-4
    )


def test_what_a_lattice_or_a_run_lacks_is_said():
    a = p4.lattice.square(3, periodic=False)
    with raises("argument.structure_factor.open", "laplacian_mode_correlation"):
        two_point("structure_factor", a)
    with raises("argument.radial_correlation_function.lattice", "graph_distance_correlation"):
        two_point("radial_correlation_function", p4.lattice.complete(4))
    with raises("argument.axis_correlation_function.lattice"):
        two_point("axis_correlation_function", p4.lattice.chain(5, periodic="antiperiodic"))
    with raises("argument.graph_distance_correlation.too_large", "1024"):
        two_point("graph_distance_correlation", p4.lattice.square(40))
    model = p4.phi4(p4.lattice.square(3), a=1.7, b=0.2)
    with raises("argument.observables.name", "'nothing'", "structure_factor"):
        p4.sample(model, observables=["nothing"])
    with raises("argument.observables.name", "structure_factor"):
        p4.sample(model, observables={"own": "structure_factor"})
    tree = p4.sample(model, num_warmup=30, num_samples=20, keep_field=False)
    with raises("argument.mean.name", "observables=['smallest_momentum']"):
        derive(tree, ["second_moment_correlation_length"])
    with raises("argument.quantities.name", "'nothing'", "binder_cumulant"):
        derive(tree, ["nothing"])
    with raises("argument.quantity.lattice", "phi4ppl.sample"):
        derive({"magnetization": np.random.default_rng(0).normal(size=(2, 100))}, ["susceptibility"])
