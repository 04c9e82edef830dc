"""Names of dimensions and labels along them: from lattices, from the plates of a NumPyro model, and as users give them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from ..energy.compiled import CompiledModel
from ..errors import ArgumentError
from ..lattice.labels import field_dims

__all__ = ["arguments_of", "arranged", "require_names"]

RESERVED = ("chain", "draw", "statistic", "pair", "copy", "member")


def require_names(compiled: CompiledModel, dimensions: set[str]) -> None:
    """Reject names that would be lost, or fail, when the run is over: a `DataTree` has paths, and dimensions have names too."""
    for name in (*compiled.names, *compiled.data):
        taken = dimensions if name in compiled.names else {"chain", "draw"}
        if not name or "/" in name or name in taken:
            what = "of a dimension of the result" if name in taken else "with '/'" if name else "that is empty"
            fix = "Rename the site" + (", or give numpyro.handlers.scope another divider." if "/" in name else ".")
            raise ArgumentError(f"site {name!r}", "another name", f"one {what}", fix, reason="name")


def arranged(compiled: CompiledModel, dims: dict | None = None, coords: dict | None = None) -> tuple[dict, dict, dict]:
    """Dimensions of what is drawn, dimensions of the data, and the coordinates of both.

    The names are, in this order: those in ``dims``, those of the lattice of a field, those of the plates around a site, and
    otherwise ``SITE_dim_k``. A plate whose name is taken, by a site or by a dimension of another size, gives none.

    Raises
    ------
    ArgumentError
        If ``dims`` or ``coords`` do not fit the sites, or the names of sites clash with those of dimensions.
    """
    plan = _Plan(compiled)
    single = len(compiled.fields) == 1
    lattices = {name: field_dims(m.lattice, "" if single else f"{name}_") for name, m in compiled.fields.items()}
    observed = {name: field_dims(m.lattice, f"{name}_") for name, m in compiled.observed_fields.items()}
    for _, found in lattices.values():
        plan.coords |= found
    require_names(compiled, {"chain", "draw", "statistic", *plan.coords})
    given = plan.given({} if dims is None else dims)
    drawn = {}
    for name in compiled.fields:
        if name not in compiled.axes:  # a field by itself
            drawn[name] = lattices[name][0]
        elif name not in given:
            drawn[name] = plan.named(name, compiled.axes[name], lattices[name][0], "copy")
    for name in compiled.names:
        if name in compiled.axes and name not in compiled.fields and name not in given:
            drawn[name] = plan.named(name, compiled.axes[name])
    drawn |= {name: value for name, value in given.items() if name in compiled.names}
    like = {
        m.field_shape: drawn[n] for n, m in compiled.fields.items() if single and len(drawn[n]) == len(m.field_shape)
    }
    data = {}
    for name in compiled.axes:
        if name in compiled.names:
            continue
        axes = compiled.axes[name]
        shape = tuple(size for _, size in axes)
        if name in given:
            data[name] = given[name]
        elif name in observed and compiled.observed_fields[name].field_shape == shape:
            data[name], found = observed[name]
            plan.coords |= found
        elif shape in like and not any(plate for plate, _ in axes) and plan.free(like[shape], shape):
            data[name] = like[shape]
        else:
            data[name] = plan.named(name, axes)
    plan.label({} if coords is None else coords, [*drawn.values(), *data.values()])
    for name, places in compiled.kept_data.items():
        if name in compiled.data:
            data[name] = plan.masked(name, data[name], places, np.ndim(compiled.data[name]))
    return drawn, data, plan.coords


class _Plan:
    """Names and sizes of dimensions as they are given out."""

    def __init__(self, compiled: CompiledModel):
        self.compiled, self.coords, self.sizes = compiled, {}, {}
        self.sites = {*compiled.names, *compiled.data, *compiled.axes}

    def free(self, names, shape) -> bool:
        """Whether these dimensions may have these sizes, and are not names of sites."""
        taken = len(set(names)) < len(names) or not {*RESERVED, *self.sites}.isdisjoint(names)
        return not taken and all(self.size(n) in (None, size) for n, size in zip(names, shape, strict=True))

    def size(self, name: str) -> int | None:
        return self.sizes.get(name, len(self.coords[name]) if name in self.coords else None)

    def given(self, dims) -> dict[str, list[str]]:
        """The user's choices, checked."""
        axes, found = self.compiled.axes, {}
        if not isinstance(dims, dict):
            raise ArgumentError("dims", "a dict of names of dimensions by site", repr(dims), "{'f': ['county']}.")
        for site, names in dims.items():
            if site not in axes:
                raise ArgumentError(
                    "dims", f"sites of the model: {', '.join(map(repr, axes))}", repr(site), reason="name"
                )
            names = [names] if isinstance(names, str) else list(names) if isinstance(names, (list, tuple)) else [names]
            shape = tuple(size for _, size in axes[site])
            what, fix = f"dims of {site!r}", "Give one name per axis, without chain and draw."
            if len(names) != len(shape) or not all(isinstance(name, str) and name for name in names):
                expected = f"{len(shape)} names, for the shape {shape}" if shape else "none: the site is one number"
                raise ArgumentError(what, expected, repr(names), fix)
            bad = [n for n in names if n in RESERVED or n in self.sites or "/" in n or n.startswith("sd_")]
            if bad or len(set(names)) < len(names):
                expected = "different names, which no site and no other dimension of the result has"
                raise ArgumentError(what, expected, repr(bad[0] if bad else names), fix, reason="name")
            for name, size in zip(names, shape, strict=True):
                other = self.size(name)
                if other not in (None, size):
                    raise ArgumentError(
                        what, f"a dimension {name!r} of {other}, as elsewhere", f"one of {size}", fix, reason="conflict"
                    )
                self.sizes[name] = size
            found[site] = names
        return found

    def named(self, site: str, axes, inner=(), kind: str = "dim") -> list[str]:
        """Names of the axes of one site; ``inner`` are those of the last ones."""
        names = []
        for k, (plate, size) in enumerate(axes[: len(axes) - len(inner)]):
            fits = plate is not None and plate not in (*names, *inner) and "/" not in plate
            name = plate if fits and self.free([plate], [size]) else f"{site}_{kind}_{k}"
            self.sizes[name] = size
            names.append(name)
        return [*names, *inner]

    def label(self, coords, used) -> None:
        """The coordinates that the user gives, checked."""
        if not isinstance(coords, dict):
            raise ArgumentError("coords", "a dict of labels by dimension", repr(coords), "{'county': names}.")
        known = dict.fromkeys(name for names in used for name in names)
        for name, labels in coords.items():
            if name not in known:
                fix = f"The dimensions are {', '.join(map(repr, known)) or 'none'}: plates name them, and dims=."
                raise ArgumentError("coords", "labels of a dimension of the model", repr(name), fix, reason="name")
            labels = labels_of(name, labels)
            if len(labels) != self.size(name):
                raise ArgumentError(
                    f"coords of {name!r}", f"{self.size(name)} labels", str(len(labels)), reason="shape"
                )
            self.coords[name] = labels

    def masked(self, site: str, names: list[str], places, ndim: int) -> list[str]:
        """Dimensions of data of which a mask leaves some in: their flat places, or labels, are a separate dimension."""
        datum, inner = f"{site}_datum", names[len(names) - ndim + 1 :] if ndim > 1 else []
        outer = names[: len(names) - len(inner)]
        one = len(outer) == 1 and outer[0] in self.coords
        self.coords[datum] = np.asarray(self.coords[outer[0]])[places] if one else places
        return [datum, *inner]


def labels_of(name: str, labels) -> np.ndarray:
    """Labels of a dimension as an array of numbers or of text."""
    if isinstance(labels, (str, bytes, dict, set)) or not hasattr(labels, "__len__"):
        raise ArgumentError(f"coords of {name!r}", "a list of labels", repr(labels))
    array = np.asarray(labels) if isinstance(labels, np.ndarray) else np.array(list(labels), dtype=object)
    if array.ndim != 1:
        raise ArgumentError(
            f"coords of {name!r}", "one label per element", f"an array of shape {array.shape}", reason="shape"
        )
    if array.dtype.kind == "O":
        numeric = all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in array)
        array = np.array(array.tolist()) if numeric else np.array([str(v) for v in array])
    return array if array.dtype.kind in "iufUM" else array.astype(str)


def arguments_of(compiled: CompiledModel, model: Callable, args: tuple, kwargs: dict) -> tuple[dict, dict]:
    """Arrays of numbers among the arguments of a NumPyro model, by name, and their dimensions; not those that it observes.

    An axis as long as one plate, and no other, has its name.
    """
    plates: dict = {}
    for axes in compiled.axes.values():
        for plate, size in axes:
            if plate is not None:
                plates.setdefault(size, set()).add(plate)
    found, dims = {}, {}
    bound = inspect.signature(model).bind(*args, **kwargs).arguments
    taken = {plate for names in plates.values() for plate in names}
    for name, value in bound.items():
        array = np.asarray(value) if hasattr(value, "__array__") else np.zeros(0, object)
        observed = any(array.shape == np.shape(d) and np.array_equal(array, d) for d in compiled.data.values())
        if array.dtype.kind not in "biuf" or not array.ndim or not array.size or observed or name in taken:
            continue
        named = [next(iter(plates[n])) if len(plates.get(n, ())) == 1 else None for n in array.shape]
        clear = [plate if named.count(plate) == 1 else None for plate in named]
        found[name], dims[name] = array, [plate or f"{name}_dim_{k}" for k, plate in enumerate(clear)]
    return found, dims
