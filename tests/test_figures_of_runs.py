"""Figures of runs against what they are to show: ranks and their band, maps in the geometry of the lattice, and traces."""

import networkx as nx
import numpy as np
import pytest
from scipy.stats import binom, hypergeom

import phi4ppl as p4
from phi4ppl.results import figures as drawing
from phi4ppl.results import maps
from phi4ppl.results.ranks import rank_band, rank_differences


def test_differences_of_ranks_by_hand():
    """Draws 1, 2, 5 and 3, 4, 6: of the three smallest, chain 0 has two of its three."""
    z, differences = rank_differences(np.array([[1.0, 2.0, 5.0], [4.0, 3.0, 6.0]]))
    np.testing.assert_allclose(z, [2 / 6, 4 / 6])
    np.testing.assert_allclose(differences, [[2 / 3 - 1 / 3, 0.0], [-1 / 3, 0.0]], atol=1e-12)


def test_the_band_of_one_point_is_the_hypergeometric_interval():
    """Two draws in two chains leave one point, where the probabilities of 0, 1 and 2 are 1/6, 4/6 and 1/6."""
    lower, upper = rank_band(2, 2)
    assert hypergeom.pmf([0, 1, 2], 4, 2, 2) == pytest.approx([1 / 6, 4 / 6, 1 / 6])
    np.testing.assert_allclose([lower, upper], [[-0.5], [0.5]])  # every outcome is likelier than 0.5 %


def test_independent_chains_stay_in_the_band_and_a_shifted_one_does_not():
    """At most 1 % of runs leave it; 300 runs have 11 or more with probability below 1e-3 if that is so."""
    rng, (lower, upper) = np.random.default_rng(0), rank_band(4, 150)

    def outside(values):
        differences = rank_differences(values)[1]
        return bool(np.any((differences < lower - 1e-12) | (differences > upper + 1e-12)))

    runs = [rng.normal(size=(4, 150)) for _ in range(300)]
    allowed = int(binom.isf(1e-3, 300, 0.01))
    assert sum(map(outside, runs)) <= allowed < 12
    shift = np.array([[0.6], [0.0], [0.0], [0.0]])  # planted
    assert sum(outside(values + shift) for values in runs) > 280


@pytest.fixture
def mapped(monkeypatch):
    """The maps that were drawn: title, field, color scale."""
    seen = []
    monkeypatch.setattr(
        maps, "_map", lambda lattice, title, field, scale, own: seen.append((title, field, scale)) or b""
    )
    return seen


def test_mean_and_draws_share_their_colors(mapped):
    values = np.random.default_rng(0).normal(size=(3, 50, 4, 5))
    picture = maps.field_map("a field", values, p4.lattice.square(4, 5))
    assert [title for title, _, _ in mapped] == [
        "mean",
        "standard deviation",
        *(f"chain {k}, last draw" for k in range(3)),
    ]
    (_, mean, scale), (_, spread, own), *draws = mapped
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1)))
    np.testing.assert_allclose(spread, values.std(axis=(0, 1)))
    for k, (_, field, its) in enumerate(draws):
        np.testing.assert_array_equal(field, values[k, -1])
        assert its == scale
    assert scale["vmax"] == -scale["vmin"] == np.abs(values[:, -1]).max()
    assert own["vmin"] == 0 and own["vmax"] == spread.max() and len(picture.panels) == 5 and picture.bar


def test_positive_values_have_a_scale_without_a_middle(mapped):
    values = 1 + np.random.default_rng(0).random((2, 9, 6))
    maps.site_maps("risk", values, p4.lattice.from_networkx(nx.path_graph(6)))
    (_, mean, scale), _ = mapped
    assert (scale["vmin"], scale["vmax"]) == (mean.min(), mean.max()) and scale["cmap"] != "RdBu_r"


def test_a_field_in_three_dimensions_is_cut_in_the_middle(mapped):
    values = np.random.default_rng(0).normal(size=(1, 20, 2, 3, 4))
    picture = maps.field_map("cube", values, p4.lattice.hypercubic((2, 3, 4)))
    np.testing.assert_allclose(mapped[0][1], values.mean(axis=(0, 1))[:, :, 2])
    assert picture.caption == "cube (slice at 2 along the other axes)"


def test_a_vector_with_an_element_a_site_is_drawn_on_the_graph(mapped):
    """Of the field's graph, and only what has as many elements as it has sites."""
    model = p4.phi4(p4.lattice.from_networkx(nx.cycle_graph(5)), w=0.3, a=1.0, b=0.1)
    tree = p4.sample(model, num_warmup=50, num_samples=60, keep_field=False, kernel="hmc",
                     observables={"risk": lambda phi: phi**2, "pair": lambda phi: phi[:2]})  # fmt: skip
    made = drawing.figures(tree)
    assert {key for key in made if key.startswith(("map", "fields"))} == {"map_risk"}
    np.testing.assert_allclose(mapped[0][1], tree["posterior"]["risk"].mean(("chain", "draw")), rtol=1e-5)


def test_traces_name_the_chains_and_show_every_block(monkeypatch):
    """The mean line of each chain, in its own color and dashes; planted: a chain that is somewhere else is seen there."""
    import xarray as xr

    drawn = []
    monkeypatch.setattr(drawing, "png_of", lambda figure: drawn.append(figure) or b"")
    values = np.random.default_rng(0).normal(size=(4, 600)) + np.array([[0], [0], [0], [5.0]])
    drawing._trace(xr.DataArray(values, dims=("chain", "draw")), "$x$")
    axes = drawn[0].axes[0]
    for chain, line in enumerate(axes.get_lines()):
        np.testing.assert_allclose(line.get_ydata(), values[chain].reshape(60, 10).mean(axis=1))
    assert len({line.get_color() for line in axes.get_lines()}) == 4
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in axes.get_lines()}) == 4
    assert axes.get_lines()[3].get_ydata().min() > 2 > axes.get_lines()[0].get_ydata().max()
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == [f"chain {k}" for k in range(4)]
    assert axes.get_ylabel() == r"\$x\$"
