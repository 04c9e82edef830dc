"""Maps of areas as lattices: polygons come in, neighbors and outlines go out."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, one_of, path_of
from .frozen import Lattice
from .touching import loose_pairs

__all__ = ["from_geometry"]

CLOSE = 1e-9  # of the extent of a map: corners nearer than this are one
TOUCHING = 1e-6  # and corners nearer than this to a side touch it
PLAIN = (".geojson", ".json")  # files that need no other package


@call_checked
def from_geometry(areas: Any, *, contiguity: str = "queen", label: str | None = None) -> Lattice:
    """The graph of adjacent areas of a map, with their outlines for choropleths.

    Two areas are neighbors if their outlines share a corner (``"queen"``), or a side between two corners (``"rook"``): the
    outlines of neighbors must have their common corners both, as those of official boundaries do. Sites are the areas in the
    order of the map, so columns of its table need no reordering. Areas without neighbors are sites without edges.

    Parameters
    ----------
    areas : geopandas.GeoDataFrame, dict or path
        A table of polygons and multipolygons, the FeatureCollection of a GeoJSON file as a dict, or the path of a file: GeoJSON
        is read by this library, everything else, such as a shapefile, by geopandas (``pip install "phi4ppl[maps]"``).
    contiguity : {"queen", "rook"}
    label : str, optional
        The column or property that names the areas. By default the index of the table, or the ``id`` of the features, or their
        numbers.

    Returns
    -------
    Lattice
        ``nodes`` are the labels, ``positions`` the centroids, and `Lattice.draw` fills the outlines, as the report of a run
        does.

    Raises
    ------
    ArgumentError
        If there are no polygons, labels are missing or not unique, or the file cannot be read.

    Warns
    -----
    UserWarning
        If areas touch or overlap but have no common corner or side, so that they are not neighbors.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> square = lambda x, y: [[[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1], [x, y]]]
    >>> grid = {"type": "FeatureCollection", "features": [
    ...     {"type": "Feature", "properties": {"name": f"{x}{y}"}, "geometry": {"type": "Polygon", "coordinates": square(x, y)}}
    ...     for x in range(2) for y in range(2)]}
    >>> p4.lattice.from_geometry(grid, label="name").num_edges, p4.lattice.from_geometry(grid, contiguity="rook").num_edges
    (6, 4)
    """
    one_of("contiguity", contiguity, ("queen", "rook"))
    features, name, index = _features(areas)
    shapes = [_rings(k, feature) for k, feature in enumerate(features)]
    if not shapes:
        raise ArgumentError("areas", "at least one polygon", "none", reason="empty")
    labels = _labels(features, label, index)
    corners = _numbered(shapes)
    edges = _neighbors(corners, contiguity == "rook")
    _warn_of_loose_pairs(shapes, edges, labels, contiguity == "rook")
    centers = np.array([_centroid(rings) for rings in shapes])
    outlines = np.concatenate(
        [
            np.column_stack([ring, np.full(len(ring), site), np.full(len(ring), number)])
            for site, rings in enumerate(shapes)
            for number, ring in enumerate(rings)
        ]
    )
    return Lattice(
        name=name, num_sites=len(shapes), edges=edges, nodes=tuple(labels), positions=centers, outlines=outlines
    )


def _features(areas) -> tuple[list[dict], str, Any]:
    """GeoJSON features, what to call the map, and the index of a table."""
    if isinstance(areas, str | Path):
        path = path_of("areas", areas)
        if not path.is_file():
            raise ArgumentError("areas", "the path of a map", f"no file {path}", reason="missing")
        if path.suffix.lower() in PLAIN:
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ArgumentError("areas", "a GeoJSON file", f"{path} ({error})", reason="unreadable") from error
        else:
            content = _by_geopandas(path)
        features, _, index = _features(content)
        return features, f"map {path.stem}", index
    content = areas if isinstance(areas, dict) else getattr(areas, "__geo_interface__", None)
    if not isinstance(content, dict) or content.get("type") != "FeatureCollection":
        got = type(areas).__name__ if not isinstance(areas, dict) else f"a dict of type {areas.get('type')!r}"
        expected = "a GeoDataFrame, a GeoJSON FeatureCollection, or the path of a map"
        raise ArgumentError("areas", expected, got)
    features = content.get("features") or ()
    if not isinstance(features, list | tuple) or not all(isinstance(feature, dict) for feature in features):
        raise ArgumentError("areas", "a list of GeoJSON features", repr(features)[:80], reason="features")
    return list(features), f"map of {len(features)} areas", getattr(areas, "index", None)


def _by_geopandas(path: Path):
    try:
        import geopandas
    except ImportError as error:
        fix = 'pip install "phi4ppl[maps]" reads other formats.'
        raise ArgumentError(
            "areas", "a GeoJSON file", f"{path.name}, without geopandas", fix, reason="geopandas"
        ) from error
    try:
        return geopandas.read_file(path)
    except Exception as error:  # of GDAL, by way of pyogrio or fiona
        raise ArgumentError("areas", "a map that geopandas reads", f"{path} ({error})", reason="unreadable") from error


def _rings(number: int, feature: dict) -> list[np.ndarray]:
    """Outlines of one area, without their repeated last corner: counterclockwise, holes clockwise."""
    geometry = feature.get("geometry") or {}
    polygons = {"Polygon": [geometry.get("coordinates")], "MultiPolygon": geometry.get("coordinates")}.get(
        geometry.get("type")
    )
    if not polygons:
        got = f"{geometry.get('type') or 'nothing'} in feature {number}"
        raise ArgumentError("areas", "polygons and multipolygons", got, reason="geometry")
    rings = []
    for polygon in polygons:
        for place, ring in enumerate(polygon):
            try:
                corners = np.asarray([corner[:2] for corner in ring], float).reshape(-1, 2)
            except (TypeError, ValueError) as error:
                expected, got = "outlines of pairs of numbers", f"others in feature {number}"
                raise ArgumentError("areas", expected, got, reason="coordinates") from error
            if len(corners) > 1 and np.array_equal(corners[0], corners[-1]):
                corners = corners[:-1]
            if len(corners) < 3 or not np.isfinite(corners).all():
                got = f"an outline of {len(corners)} corners in feature {number}"
                raise ArgumentError("areas", "outlines of three finite corners or more", got, reason="outline")
            is_hole = place > 0
            rings.append(corners[::-1] if (_area(corners) < 0) != is_hole else corners)
    return rings


def _labels(features: list[dict], label: str | None, index) -> list:
    """The labels of the areas; ``index`` is that of a table."""
    if label is None and index is not None:
        found = index.tolist()
    elif label is None:
        found = [feature.get("id") for feature in features]
        found = list(range(len(features))) if None in found else found
    elif index is not None and index.name == label:
        found = index.tolist()
    else:
        missing = [k for k, f in enumerate(features) if label not in (f.get("properties") or {})]
        if missing:
            known = ", ".join(map(repr, features[missing[0]].get("properties") or {})) or "none"
            raise ArgumentError("label", f"a property of every area: {known}", repr(label), reason="name")
        found = [feature["properties"][label] for feature in features]
    for k, one in enumerate(found):
        if one is None or one != one or isinstance(one, list | dict):
            what = "none" if one is None or one != one else repr(one)
            expected, fix = "a text or a number for every area", "Choose another column, or fill it in."
            raise ArgumentError("label", expected, f"{what} in feature {k}", fix, reason="missing")
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        fix = "Name a column of different values with label=."
        raise ArgumentError("label", "different labels", f"{twice!r} twice", fix, reason="duplicate")
    return found


def _numbered(shapes: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The same outlines, of numbers of corners instead of places."""
    flat = np.concatenate([ring for rings in shapes for ring in rings])
    grid = np.round((flat - flat.min(axis=0)) / (CLOSE * _extent(flat))).astype(np.int64)
    _, numbers = np.unique(grid, axis=0, return_inverse=True)
    found, start = [], 0
    for rings in shapes:
        parts = []
        for ring in rings:
            parts.append(numbers.ravel()[start : start + len(ring)])
            start += len(ring)
        found.append(parts)
    return found


def _neighbors(corners: list[list[np.ndarray]], sides: bool) -> np.ndarray:
    """Pairs of areas with a common corner, or a common side."""
    holders: dict = defaultdict(set)
    for site, rings in enumerate(corners):
        for ring in rings:
            after = np.roll(ring, -1)
            parts = zip(np.minimum(ring, after), np.maximum(ring, after), strict=True) if sides else ring.tolist()
            for part in parts:
                holders[part].add(site)
    pairs = {(i, j) for sites in holders.values() if len(sites) > 1 for i in sites for j in sites if i < j}
    return np.array(sorted(pairs), np.int32).reshape(-1, 2)


def _warn_of_loose_pairs(shapes: list[list[np.ndarray]], edges: np.ndarray, labels: list, sides: bool) -> None:
    close = TOUCHING * _extent(np.concatenate([ring for rings in shapes for ring in rings]))
    if pairs := loose_pairs(shapes, edges, close, may_meet=sides):
        one, other = (repr(labels[k]) for k in pairs[0])
        count = f"{len(pairs)} pairs of areas touch or overlap" if len(pairs) > 1 else "two areas touch or overlap"
        text = (
            f"from_geometry: {count}, such as {one} and {other}, but have no {'side' if sides else 'corner'} in common, so "
            "they are not neighbors. Clean the map (snap its outlines to each other), or give the graph to "
            "phi4ppl.lattice.from_networkx."
        )
        warn(Phi4pplWarning("from_geometry.loose", text, {"pairs": [(labels[i], labels[j]) for i, j in pairs]}))


def _extent(points: np.ndarray) -> float:
    return float(np.ptp(points, axis=0).max()) or 1.0


def _area(ring: np.ndarray) -> float:
    """Positive for counterclockwise corners."""
    x, y = (ring - ring[0]).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _centroid(rings: list[np.ndarray]) -> np.ndarray:
    total, moment = 0.0, np.zeros(2)
    origin = rings[0][0]
    for ring in rings:
        here = ring - origin
        after = np.roll(here, -1, axis=0)
        cross = here[:, 0] * after[:, 1] - after[:, 0] * here[:, 1]
        total, moment = total + cross.sum() / 2, moment + ((here + after) * cross[:, None]).sum(axis=0) / 6
    return origin + moment / total if total else np.concatenate(rings).mean(axis=0)
