"""Site labels of data and couplings: values are put in the order of the lattice by their labels, or rejected.

Series and DataFrames of pandas, DataArrays and Datasets of xarray, and dicts carry labels. Arrays and lists do not, and are
read by position. A default ``RangeIndex`` of pandas carries no labels either, nor do dimensions of xarray that are not named
after those of the lattice and have no coordinates.
"""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import finite_array, present

__all__ = [
    "MISSING_FIELDS",
    "aligned_coupling",
    "aligned_fields",
    "aligned_units",
    "field_dims",
    "is_labeled",
    "require_nodes_in_order",
]

AXES = ("x", "y", "z", "t")
SAMPLE_DIMS = ("chain", "draw")  # these come first, in this order
MISSING_FIELDS = "Leave out fields with missing values, or fill them in, or observe the rest in a NumPyro model."
BY_POSITION = "If the order is that of lattice.nodes, give the bare array: {}."
MAX_SHOWN = 8  # labels in a message
LABELED = ("Series", "DataFrame", "DataArray", "Dataset", "DataTree")  # classes of pandas and xarray


def field_dims(lattice, prefix: str = "") -> tuple[list[str], dict]:
    """Names of the dimensions of a field and their coordinates: ``x, y, …`` or ``site`` with labels."""
    shape = lattice.shape
    if shape is None or len(shape) == 1:
        labels = lattice.nodes
        numeric = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in labels)
        return [prefix + "site"], {prefix + "site": list(labels) if numeric else [str(n) for n in labels]}
    names = [prefix + (AXES[k] if len(shape) <= len(AXES) else f"axis_{k}") for k in range(len(shape))]
    return names, {name: np.arange(n) for name, n in zip(names, shape, strict=True)}


def is_labeled(value) -> bool:
    """Whether ``value`` is of a kind that can carry labels, or a list of such."""
    parts = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(part, dict) or _is_a(part, *LABELED) for part in parts)


def _is_a(value, *names: str) -> bool:
    """Whether ``value`` is of one of these classes of pandas or xarray; asked by name, so that neither has to be loaded."""
    return any(
        kind.__name__ in names and kind.__module__.partition(".")[0] in ("pandas", "xarray")
        for kind in type(value).__mro__
    )


def aligned_fields(name: str, value, lattice=None, fix: str = "", *, samples: int | None = None) -> np.ndarray:
    """Fields as a finite float array ``(…, *field_shape)``, in the order of the lattice where ``value`` carries labels.

    Parameters
    ----------
    name : str
        The argument, for messages.
    value : array or labeled
        Bare arrays keep their order and shape. A DataFrame has one row per sample and one column per site. A dict has nodes as
        keys and arrays of samples (or numbers) as values. A DataArray has the dimensions of `field_dims` in any order; its
        other dimensions count samples, ``chain`` and ``draw`` first. A Dataset stands for its variable ``phi``, or its only
        one. A list of such objects is stacked.
    lattice : Lattice, optional
        Without one (for actions that are functions), the dimensions of a DataArray must be in the order ``x, y, z, t``.
    fix : str
        What to do about missing values.
    samples : int, optional
        With 1, all sample dimensions of a DataArray are flattened to one.

    Raises
    ------
    ArgumentError
        If labels are not those of the lattice, each once, or values are missing or not finite.
    """
    if not is_labeled(value):
        return finite_array(name, value, fix)
    if isinstance(value, list | tuple):
        parts = [aligned_fields(f"{name}[{k}]", part, lattice, fix) for k, part in enumerate(value)]
        if len({part.shape for part in parts}) > 1:
            raise ArgumentError(name, "fields of one shape", f"shapes {parts[0].shape} and others", reason="shape")
        return np.stack(parts)
    if _is_a(value, "Dataset", "DataTree"):
        value = _variable(name, value)
    if _is_a(value, "DataArray"):
        return _from_dataarray(name, value, lattice, fix, samples)
    if _is_a(value, "DataFrame") and lattice is not None:
        _refuse_transposed(name, value, lattice)
    if not isinstance(value, dict) and has_no_labels(value):
        return finite_array(name, value, fix)
    if lattice is None:
        raise ArgumentError(
            name, "an array, or a model whose lattice has the labels", f"a {type(value).__name__}", reason="unlabeled"
        )
    if isinstance(value, dict):
        labels, array = _columns(name, value, fix)
        by_position = ""
    else:
        labels, array, by_position = _labels_of(value), None, BY_POSITION.format(f"{name}.to_numpy()")
    order = _order(name, labels, lattice.nodes, by_position)
    array = np.take(finite_array(name, value, fix) if array is None else array, order, axis=-1)
    return array.reshape(*array.shape[:-1], *lattice.field_shape)


def _refuse_transposed(name: str, value, lattice) -> None:
    """Reject a table whose rows are the sites; row numbers 0, 1, … count samples, even if sites have the same numbers."""
    numbered = _are(value.index, range(len(value)))
    if not numbered and _are(value.index, lattice.nodes) and not _are(value.columns, lattice.nodes):
        raise ArgumentError(
            name,
            "one row per sample and one column per site",
            "one row per site",
            f"Transpose it: {name}.T.",
            reason="transposed",
        )


def has_no_labels(value) -> bool:
    """Whether the sites of a pandas object have a default index, which carries no more than their positions."""
    index = value.columns if _is_a(value, "DataFrame") else value.index
    return _is_a(index, "RangeIndex") and index.start == 0 and index.step == 1


def _labels_of(value) -> list:
    return list(value.columns if _is_a(value, "DataFrame") else value.index)


def _columns(name: str, value: dict, fix: str) -> tuple[list, np.ndarray]:
    """The nodes of a dict, and its values along the last axis; Series among them are joined by their own index."""
    index = list(value)
    if any(_is_a(part, "Series") for part in value.values()):
        if not all(_is_a(part, "Series") for part in value.values()):
            raise ArgumentError(name, "values of one kind", "a dict of Series and other values", reason="mixed")
        import pandas as pd

        joined = pd.concat(list(value.values()), axis=1, keys=range(len(index)))
        return index, finite_array(name, joined, fix)
    parts = [finite_array(f"{name}[{label!r}]", part, fix) for label, part in value.items()]
    shapes = {part.shape for part in parts}
    if len(shapes) != 1:
        got = f"shapes {', '.join(map(str, sorted(shapes)))}" if shapes else "an empty dict"
        raise ArgumentError(name, "for every node as many samples as for the others", got, reason="counts")
    return index, np.stack(parts, axis=-1)


def _variable(name: str, value):
    """The fields of a Dataset."""
    if _is_a(value, "DataTree") and value.children:
        raise ArgumentError(
            name, "an array of fields", "a DataTree", "Give one variable of it: tree['posterior']['phi'].", reason="run"
        )
    names = list(value.data_vars)
    if "phi" not in names and len(names) != 1:
        raise ArgumentError(
            name, "a Dataset with a variable 'phi', or with one variable", f"variables {names}", reason="variable"
        )
    return value["phi" if "phi" in names else names[0]]


def _from_dataarray(name: str, value, lattice, fix: str, samples: int | None) -> np.ndarray:
    dims, coords = _lattice_dims(name, value, lattice)
    rest = [dim for dim in value.dims if dim not in dims]
    rest = [dim for dim in SAMPLE_DIMS if dim in rest] + [dim for dim in rest if dim not in SAMPLE_DIMS]
    value = value.transpose(*rest, *dims)
    for dim in dims:
        if dim in value.indexes:
            order = _order(name, list(value.indexes[dim]), coords[dim], BY_POSITION.format(f"{name}.values"), dim)
            value = value.isel({dim: order})
    array = finite_array(name, value.values, fix)
    return array.reshape(-1, *array.shape[len(rest) :]) if samples == 1 and dims and len(rest) > 1 else array


def _lattice_dims(name: str, value, lattice) -> tuple[list, dict]:
    """The dimensions that count sites, in the order of a field, with the labels that each should have."""
    if lattice is None:
        known = [dim for dim in (*AXES, "site") if dim in value.dims]
        rest = [dim for dim in value.dims if dim not in (*known, *SAMPLE_DIMS)]
        if rest and any(c.dims for c in value.coords.values()) or known and rest:
            raise ArgumentError(
                name,
                f"dimensions {SAMPLE_DIMS} and x, y, z, t or site",
                f"dimensions {value.dims}",
                reason="dimensions",
            )
        return known, {dim: range(value.sizes[dim]) for dim in known}
    names, rank = field_dims(lattice)[0], len(lattice.field_shape)
    labels = dict(zip(names, [lattice.nodes] if names == ["site"] else map(range, lattice.field_shape), strict=True))
    own = [f"{value.name}_{dim}" for dim in names]  # of one of several fields in a run
    numbered = [f"{value.name}_dim_{k}" for k in range(rank)]  # ArviZ's names for dimensions that it was given none for
    for dims, known in ((names, labels.values()), (own, labels.values()), (numbered, map(range, lattice.field_shape))):
        found = [dim for dim in dims if dim in value.dims]
        if len(found) == rank:
            return dims, dict(zip(dims, known, strict=True))
        if found:
            break
    else:
        if not any(coordinate.dims for coordinate in value.coords.values()):
            return [], {}
    wanted = ", ".join(map(repr, names))
    fix = f"Rename them, for example {name}.rename(...). " + BY_POSITION.format(f"{name}.values")
    raise ArgumentError(
        name, f"dimensions {wanted} of the lattice, and others for samples", f"{value.dims}", fix, reason="dimensions"
    )


def _order(name: str, labels: list, nodes, fix: str, dim: str = "") -> np.ndarray:
    """Position of each node in ``labels``.

    A label is a node if it equals it, or if their texts are equal, because the columns of a file are text. A tuple is written
    ``(0, 1)`` or ``0,1``.
    """
    found = _numbers(labels, nodes)
    unknown = [label for label, number in zip(labels, found, strict=True) if number is None]
    counts = np.bincount([number for number in found if number is not None], minlength=len(nodes))
    place = f" along {dim!r}" if dim else ""
    expected = f"labels{place} that are the nodes of the lattice, each once"
    if len(missing := np.flatnonzero(counts == 0)) or unknown:
        got = [f"none for {nodes[missing[0]]!r}"] if len(missing) else []
        got += [f"{unknown[0]!r}, which is not a node"] if unknown else []
        raise ArgumentError(name, expected, " and ".join(got), fix, reason="labels")
    if len(twice := np.flatnonzero(counts > 1)):
        raise ArgumentError(name, expected, f"{nodes[twice[0]]!r} {counts[twice[0]]} times", fix, reason="duplicate")
    order = np.empty(len(nodes), int)
    order[found] = np.arange(len(nodes))
    return order


def _numbers(labels, nodes) -> list[int | None]:
    """The number of the node that each label names; None for labels that name no node, or several when compared as text."""
    number = {node: k for k, node in enumerate(nodes)}
    found = [number.get(label) if _is_hashable(label) else None for label in labels]
    if None in found:
        texts: dict[str, int | None] = {}
        for k, node in enumerate(nodes):
            texts[_text(node)] = None if _text(node) in texts else k
        found = [
            texts.get(_text(label), texts.get(_squeezed(label))) if k is None else k
            for label, k in zip(labels, found, strict=True)
        ]
    return found


def _are(labels, nodes) -> bool:
    """Whether labels are the nodes, in any order."""
    return len(labels) == len(nodes) and set(_numbers(list(labels), nodes)) == set(range(len(nodes)))


def _is_hashable(label) -> bool:
    try:
        hash(label)
    except TypeError:
        return False
    return label == label


def _text(label) -> str:
    if isinstance(label, tuple):
        return ",".join(f"({_text(part)})" if isinstance(part, tuple) else _text(part) for part in label)
    return str(label.item() if isinstance(label, np.generic) else label).strip()


def _squeezed(label) -> str:
    """The text of a tuple without its outer parentheses, spaces and quotation marks."""
    text = _text(label)
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return "".join(c for c in text if c not in " '\"")


def aligned_coupling(name: str, value, lattice, cliques: np.ndarray):
    """One number, or one number per clique, of a coupling with labels; anything else as it is.

    Parameters
    ----------
    value : number, array or labeled
        For a term of single sites a dict by node, a Series with the nodes as index, or a DataArray with the dimensions of the
        lattice; for a term of k sites a dict by tuples of k nodes in any order, or a Series with such a MultiIndex.
    cliques : int array, shape (num_cliques, k)
    """
    if not is_labeled(value):
        return value
    if isinstance(value, list | tuple):
        if all(_is_a(part, "DataArray") and part.ndim == 0 for part in value):
            return [part.values for part in value]
        raise ArgumentError(name, "numbers, or one labeled object", "a list of labeled objects")
    if _is_a(value, "Dataset", "DataTree"):
        raise ArgumentError(
            name, "one variable", f"a {type(value).__name__}", "For example dataset['a'].", reason="variable"
        )
    if _is_a(value, "DataArray") and value.ndim == 0:
        return finite_array(name, value.values)
    size = cliques.shape[1]
    if _is_a(value, "DataFrame"):
        value = _grid(name, value, lattice, size)
    if _is_a(value, "DataArray") and value.ndim == 1 and str(value.dims[0]).startswith("clique_"):  # of a run's results
        if value.indexes:
            value = value[_order(name, list(value.indexes[value.dims[0]]), range(len(cliques)), "", str(value.dims[0]))]
        return finite_array(name, value.values)
    if _is_a(value, "DataArray") and size > 1 and value.ndim == 1 and value.indexes:
        value = value.to_series()
    if _is_a(value, "DataArray"):
        return _from_array_of_sites(name, value, lattice, cliques)
    if _is_a(value, "Series"):
        if has_no_labels(value):
            return finite_array(name, value)
        labels, values = list(value.index), finite_array(name, value)
    else:
        labels, values = list(value), [_number(f"{name}[{key!r}]", part) for key, part in value.items()]
    return _by_clique(name, labels, values, lattice, cliques)


def _number(name: str, value):
    """One entry of a dict: a number, or what stands for one in a JAX trace."""
    value = present(name, value)
    if np.ndim(value) != 0 or isinstance(value, dict):
        raise ArgumentError(name, "one number", f"a {type(value).__name__}")
    return value


def _grid(name: str, value, lattice, size: int):
    """A table of one value per site of a two-dimensional lattice, rows along x."""
    dims, numbers = field_dims(lattice)[0], finite_array(name, value)
    if size != 1 or len(dims) != 2:
        expected = (
            "a Series with the nodes as index" if size == 1 else f"a Series with {size} nodes in each row of its index"
        )
        raise ArgumentError(name, expected, "a DataFrame", "A table of two columns becomes one by set_index.")
    axes = value.index, value.columns
    names = [axis.name if axis.name in dims else dim for axis, dim in zip(axes, dims, strict=True)]
    plain = [_is_a(axis, "RangeIndex") and axis.start == 0 and axis.step == 1 for axis in axes]
    coords = {dim: np.asarray(axis) for dim, axis, bare in zip(names, axes, plain, strict=True) if not bare}
    import xarray as xr

    return xr.DataArray(numbers, dims=names, coords=coords)


def _from_array_of_sites(name: str, value, lattice, cliques: np.ndarray) -> np.ndarray:
    """A coupling with the dimensions of the lattice; without any, and without coordinates, it is read by position."""
    dims, _ = _lattice_dims(name, value, lattice)
    if not dims:
        return finite_array(name, value.values)
    if cliques.shape[1] > 1:
        raise ArgumentError(name, "a Series with tuples of nodes as index", f"a DataArray with dimensions {value.dims}")
    array = aligned_fields(name, value, lattice)
    if array.shape != lattice.field_shape:
        raise ArgumentError(
            name, f"one number per site, dimensions {dims}", f"dimensions {dict(value.sizes)}", reason="dimensions"
        )
    return array.reshape(-1)[cliques[:, 0]]


def _by_clique(name: str, labels: list, values, lattice, cliques: np.ndarray):
    """The values in the order of the cliques, whose sites the labels name."""
    nodes, size = lattice.nodes, cliques.shape[1]
    fix = "An array without labels is read in the order of the rows of the term's `cliques`."
    keys = [(label,) for label in labels] if size == 1 else labels
    what = "nodes" if size == 1 else f"{size} nodes each, in any order"
    expected = f"one value per clique, labeled by {what}"
    wrong = next((key for key in keys if not isinstance(key, tuple | frozenset) or len(key) != size), None)
    if wrong is not None:
        raise ArgumentError(name, expected, f"the label {wrong!r}", fix, reason="labels")
    flat = _numbers([node for key in keys for node in key], nodes)
    if None in flat:
        first = keys[flat.index(None) // size]
        raise ArgumentError(
            name,
            expected,
            f"the label {first[0] if size == 1 else first!r}, which is not in the lattice",
            fix,
            reason="not_a_clique",
        )
    place: dict[frozenset, int] = {}
    for k in range(len(keys)):
        sites = frozenset(flat[k * size : (k + 1) * size])
        if sites in place:
            raise ArgumentError(
                name,
                expected,
                f"{labels[place[sites]]!r} and {labels[k]!r}, which are the same",
                fix,
                reason="duplicate",
            )
        place[sites] = k
    wanted = [frozenset(clique) for clique in cliques.tolist()]
    missing = next((c for c, sites in zip(cliques.tolist(), wanted, strict=True) if sites not in place), None)
    if missing is not None:
        shown = tuple(nodes[i] for i in missing)
        raise ArgumentError(name, expected, f"none for {shown[0] if size == 1 else shown!r}", fix, reason="incomplete")
    if unused := set(place) - set(wanted):
        everywhere = size == 1 and len(place) == len(
            nodes
        )  # a term on some of the sites takes its part of a whole field
        if not everywhere:
            label = labels[min(place[sites] for sites in unused)]
            raise ArgumentError(
                name, expected, f"also {label!r}, on which the term has no clique", fix, reason="not_a_clique"
            )
    picked = [place[sites] for sites in wanted]
    return values[picked] if isinstance(values, np.ndarray) else [values[k] for k in picked]


def aligned_units(name: str, value, size: int, fix: str = ""):
    """Values whose last axis counts the units of a machine, 0 to ``size`` − 1, in their order if a table has labels."""
    if _is_a(value, "Series", "DataFrame") and not has_no_labels(value):
        fix = f"Units have numbers, not names: pass {name}.to_numpy()."
        order = _order(name, _labels_of(value), range(size), fix)
        return np.take(finite_array(name, value, fix), order, axis=-1)
    if isinstance(value, dict) or _is_a(value, "DataArray", "Dataset", "DataTree"):
        fix = f"Units have numbers, not names: pass {name}.values." if _is_a(value, "DataArray") else ""
        if not _is_a(value, "DataArray") or value.indexes:
            raise ArgumentError(name, "an array", f"a {type(value).__name__}", fix)
        return value.values
    return present(name, value, fix)


def require_nodes_in_order(name: str, value, lattice) -> None:
    """Reject values that are read by position though their labels are the nodes of the lattice in another order.

    Labels that are not the nodes are about something else, and are not objected to.
    """
    if _is_a(value, "DataArray"):
        dims, coords = field_dims(lattice)
        nodes = lattice.nodes if dims == ["site"] else None
        here = [dim for dim in value.dims if dim in dims]
        if len(here) == len(dims) > 1 and here != dims:
            raise ArgumentError(
                name, f"dimensions in the order {dims}", f"{here}", f"Use {name}.transpose(...).", reason="dimensions"
            )
        axes = [(list(index), nodes or coords[dim]) for dim, index in value.indexes.items() if dim in dims]
    else:
        axes = [(_labels_of(value), lattice.nodes)] if not has_no_labels(value) else []
    for labels, known in axes:
        if _are(labels, known) and _numbers(labels, known) != list(range(len(known))):
            fix = "Reorder it or, if the order is right, pass its .to_numpy()."
            expected = f"labels in the order of lattice.nodes, {_first_of(known)}"
            raise ArgumentError(name, expected, _first_of(labels), fix, reason="order")


def _first_of(labels) -> str:
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels[:MAX_SHOWN]]
    return f"{plain}" if len(labels) <= MAX_SHOWN else f"[{', '.join(map(repr, plain))}, …]"
