"""Maps of areas as lattices: neighbors, labels, centroids, choropleths, and the report."""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import raises, warns

import phi4ppl as p4
from phi4ppl.lattice import from_geometry
from phi4ppl.results.figures import figures
from phi4ppl.results.maps import height_for

pytestmark = [pytest.mark.compile_quickly, pytest.mark.rank_promotion]


def ring(x, y, size=1.0):
    return [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]


def feature(name, coordinates, kind="Polygon", **more):
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "properties": {"name": name, "cases": len(name)}, "geometry": geometry} | more


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


SHIFT = 1e-12  # corners of neighbors that differ by rounding
GRID = collection(*(feature(f"{x}{y}", [ring(x + SHIFT * y, y)]) for x in range(3) for y in range(3)))
# an area with a hole, an area in the hole, one of two parts, and an island
ODD = collection(
    feature("frame", [ring(0, 0, 4), ring(1, 1, 2)]),
    feature("inside", [ring(1, 1, 2)]),
    feature("parts", [[ring(4, 0, 4)], [ring(20, 0)]], "MultiPolygon"),
    feature("island", [ring(100, 100)]),
)


def test_neighbors_are_those_of_the_square_lattice():
    queen, rook = from_geometry(GRID), from_geometry(GRID, contiguity="rook")
    plain = p4.lattice.square(3, periodic=False)
    assert rook.edges.tolist() == sorted(map(sorted, plain.edges.tolist()))
    diagonal = p4.lattice.square(3, periodic=False, diagonals=True)
    assert queen.edges.tolist() == sorted(map(sorted, diagonal.edges.tolist()))
    assert rook.num_edges == 12 != queen.num_edges == 20


def test_holes_parts_and_islands():
    lattice = from_geometry(ODD, label="name", contiguity="rook")
    assert lattice.nodes == ("frame", "inside", "parts", "island")
    # the corners of the outer outlines at (4, 0) and (4, 4) are common, and so is the side between them
    assert lattice.edges.tolist() == [[0, 1], [0, 2]] and lattice.degree.tolist() == [2, 1, 1, 0]
    np.testing.assert_allclose(lattice.positions[:2], [[2, 2], [2, 2]])
    np.testing.assert_allclose(lattice.positions[2], (16 * np.array([6, 2]) + np.array([20.5, 0.5])) / 17)
    np.testing.assert_allclose(lattice.positions[3], [100.5, 100.5])
    assert from_geometry(collection(feature("a", [ring(0, 0)], id="x"))).nodes == ("x",)
    np.testing.assert_array_equal(p4.scaling_factors(lattice)[3], 1.0)


def test_files_are_read_and_labels_kept(tmp_path):
    path = tmp_path / "areas.geojson"
    path.write_text(json.dumps(ODD))
    assert from_geometry(path, label="name") == from_geometry(ODD, label="name")
    assert from_geometry(str(path)).name == "map areas"


def test_a_choropleth_fills_areas_and_leaves_holes():
    """Colors of pixels: the area in the hole has its own, and what is outside has none."""
    lattice = from_geometry(collection(*ODD["features"][:1]), label="name")
    figure, axes = plt.subplots(figsize=(2, 2), dpi=50)
    axes.set_position([0, 0, 1, 1])
    lattice.draw([1.0], ax=axes, colorbar=False)
    axes.set_title("")
    axes.set(xlim=(-1, 5), ylim=(-1, 5))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(float)
    at = {
        name: pixels[int(y / 6 * 100), int(x / 6 * 100)]
        for name, x, y in (("frame", 1.5, 3), ("hole", 3, 3), ("out", 0.4, 3))
    }
    red = np.array(matplotlib.colormaps["RdBu_r"](1.0)[:3]) * 255
    assert np.abs(at["frame"] - red).max() < 3 and at["hole"].min() > 250 and at["out"].min() > 250
    plt.close(figure)


def test_figures_have_the_shape_of_the_map():
    wide = collection(*(feature(str(x), [ring(x, 0)]) for x in range(4)))
    assert height_for(from_geometry(wide), 4.0) == pytest.approx(1.25) and height_for(from_geometry(GRID), 4.0) > 4


def test_a_report_has_the_map_and_survives_a_file(tmp_path):
    lattice = from_geometry(GRID, label="name")

    def model(cases, expected):
        field = numpyro.sample("field", p4.leroux(lattice, rho=0.7))
        with numpyro.plate("area", 9):
            numpyro.sample("cases", dist.Poisson(expected * np.e**field), obs=cases)

    cases, expected = np.arange(9) % 4, np.linspace(1.0, 2.0, 9)
    run = {"num_warmup": 30, "num_samples": 20, "num_chains": 2, "kernel": "hmc", "progress": False}
    tree = p4.sample(model, cases, expected, **run, predictive=True)
    assert tree["constant_data"]["outlines"].shape == (36, 4)
    np.testing.assert_array_equal(tree["constant_data"]["expected"], expected)
    assert tree["constant_data"]["expected"].dims == ("area",) and "cases" not in tree["constant_data"]
    complete = {"posterior", "prior", "log_likelihood", "log_prior", "constant_data", "observed_data", "sample_stats"}
    complete |= {"posterior_predictive", "prior_predictive"}
    assert complete <= set(tree.children)
    back = p4.load_run(p4.save_run(tree, tmp_path / "run.nc"))
    drawn, plain = figures(back)["fields"], figures(tree.drop_nodes("constant_data"))["fields"]
    assert drawn.panels[0] != plain.panels[0]


@pytest.mark.parametrize(
    ("areas", "options", "code"),
    [
        (5, {}, "argument.areas"),
        ({"type": "Point"}, {}, "argument.areas"),
        ("nowhere.geojson", {}, "argument.areas.missing"),
        (collection(), {}, "argument.areas.empty"),
        (collection(feature("a", [0.0, 1.0], "Point")), {}, "argument.areas.geometry"),
        (collection(feature("a", [[[0, 0], [1, 1], [0, 0]]])), {}, "argument.areas.outline"),
        (GRID, {"label": "size"}, "argument.label.name"),
        (GRID, {"label": "cases"}, "argument.label.duplicate"),
        (
            collection(feature("a", [ring(0, 0)]) | {"properties": {"name": None}}),
            {"label": "name"},
            "argument.label.missing",
        ),
        (
            collection(feature("a", [ring(0, 0)]) | {"properties": {"name": [1]}}),
            {"label": "name"},
            "argument.label.missing",
        ),
        (collection(feature("a", [[[0, 0], [1], [1, 1], [0, 0]]])), {}, "argument.areas.coordinates"),
        (collection(None), {}, "argument.areas.features"),
        (GRID, {"contiguity": "bishop"}, "argument.contiguity*"),
    ],
)
def test_what_is_no_map_is_refused(areas, options, code):
    with raises(code):
        from_geometry(areas, **options)


@pytest.mark.parametrize(
    ("other", "contiguity"),
    [
        (ring(1, 0.25, 0.5), "queen"),  # its sides lie in the middle of those of the first
        (ring(0.5, 0.5), "queen"),  # overlapping
        (ring(1 + 1e-7, 0), "queen"),  # corners that differ by more than rounding
        ([[1, 0], [2, 0], [2, 1], [1, 1], [1, 0.5], [1, 0]], "rook"),  # one corner more on the common side
    ],
)
def test_areas_that_touch_without_a_common_corner_are_reported(other, contiguity):
    """They are not neighbors by the definition, and most likely should be."""
    areas = collection(feature("a", [ring(0, 0)]), feature("b", [other]), feature("c", [ring(5, 5)]))
    with warns("from_geometry.loose", "'a' and 'b'"):
        found = from_geometry(areas, contiguity=contiguity, label="name")
    assert found.num_edges == 0


def test_tables_are_labeled_by_their_index(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame.from_features(GRID["features"], crs="EPSG:32630")
    assert from_geometry(frame.iloc[::-1]).nodes[:2] == (8, 7)
    assert from_geometry(frame.set_index("name")).nodes == from_geometry(frame.set_index("name"), label="name").nodes
    (tmp_path / "areas.shp").write_text("no map")
    with raises("argument.areas.unreadable"):
        from_geometry(tmp_path / "areas.shp")


@pytest.mark.parametrize("contiguity", ["queen", "rook"])
def test_neighbors_are_those_of_libpysal(contiguity, tmp_path):
    geopandas, weights = pytest.importorskip("geopandas"), pytest.importorskip("libpysal.weights")
    frame = geopandas.GeoDataFrame.from_features(ODD["features"], crs="EPSG:32630")
    own = from_geometry(frame, contiguity=contiguity)
    theirs = {"queen": weights.Queen, "rook": weights.Rook}[contiguity].from_dataframe(
        frame, use_index=False, silence_warnings=True
    )
    pairs = sorted({tuple(sorted((i, j))) for i, near in theirs.neighbors.items() for j in near})
    assert own.edges.tolist() == list(map(list, pairs)) and len(pairs) >= 2
    frame.to_file(tmp_path / "areas.shp")
    assert from_geometry(tmp_path / "areas.shp", contiguity=contiguity).edges.tolist() == own.edges.tolist()
