"""Symmetry of a trained model: how much its layers change when the input is transformed."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, seed_within
from ..reports.card import card
from ..spectral.matrices import told
from .activations import channels_of, examples, layers, num_examples, reader
from .leave_out import Measured, aligned, groups_of, measured_of_sums, require_examples, sums_by_group
from .transformations import Function, Transformation

__all__ = ["Equivariance", "LayerSymmetry", "equivariance"]

MIN_EXAMPLES = 2
ROUNDINGS = 1000  # of the largest value of a layer, by which exact symmetry may be off
STEP = 1e-3  # of central differences
HEAD = ("transformation", "layer", "invariance", "equivariance")


@dataclass(frozen=True, eq=False)
class LayerSymmetry:
    """How one layer answers to one transformation.

    Attributes
    ----------
    transformation, layer : str
    generator : bool
        Whether it is the rate of change at the identity, per ``unit`` of the parameter.
    unit : str
    invariance : Measured
        ``(⟨|f(gx) − f(x)|²⟩/⟨|f − ⟨f⟩|²⟩)^½``, over examples; √2 where f(gx) has nothing to do with f(x).
    equivariance : Measured or None
        The same of f(gx) − ρ f(x), with ρ the action of g on the layer; None where g does not act on it.
    invariant, equivariant : bool
        Whether the difference is that of rounding.
    """

    transformation: str
    layer: str
    generator: bool
    unit: str
    invariance: Measured
    equivariance: Measured | None
    invariant: bool
    equivariant: bool

    def row(self) -> tuple[str, ...]:
        name = f"{self.transformation}, per {self.unit}" if self.generator else self.transformation
        return (name, self.layer, _words(self.invariance, self.invariant), _words(self.equivariance, self.equivariant))


def _words(found: Measured | None, exact: bool) -> str:
    return "-" if found is None else "exact" if exact else str(found)


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class Equivariance:
    """What `equivariance` returns: a `LayerSymmetry` for every transformation, its generator, and every layer.

    Attributes
    ----------
    rows : tuple of LayerSymmetry
    outcome : dict
        From the name of a transformation to the `Measured` error of the output under the action that was asked for.
    holds : dict
        From the name of a transformation to whether that error is one of rounding.
    differences : dict
        From the name of a transformation to f(gx) − ρ f(x) of the output, shape ``(n, …)``.
    notes : tuple of str
    """

    rows: tuple[LayerSymmetry, ...]
    outcome: dict[str, Measured]
    holds: dict[str, bool]
    differences: dict[str, np.ndarray]
    asked: str
    num_examples: int
    notes: tuple[str, ...] = ()

    def row(self, transformation: str, layer: str, *, generator: bool = False) -> LayerSymmetry:
        """One row of the table.

        Raises
        ------
        ArgumentError
        """
        for each in self.rows:
            if (each.transformation, each.layer, each.generator) == (transformation, layer, generator):
                return each
        names = sorted(
            {f"{each.transformation!r} of {each.layer!r}" for each in self.rows if each.generator == generator}
        )
        got = f"{transformation!r} of {layer!r}"
        raise ArgumentError("transformation", f"one of {', '.join(names)}", got, reason="name")

    def verdicts(self) -> list[str]:
        """One line for each transformation: whether the output is as asked."""
        return [
            f"output under {name}: {'exact' if self.holds[name] else 'broken by ' + str(found)}"
            for name, found in self.outcome.items()
        ]

    def __str__(self) -> str:
        lines = [f"symmetry of {self.num_examples} examples; output asked to be {self.asked}"]
        lines += aligned([HEAD, *(each.row() for each in self.rows)])
        return "\n".join([*lines, *(f"  {t}" for t in self.verdicts()), *(f"  note: {text}" for text in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [each.row() for each in self.rows]
        outcome = "; ".join(self.verdicts())
        return card(
            "Symmetry by layer", HEAD, rows, good=all(self.holds.values()), outcome=outcome, warnings=self.notes
        )


@call_checked
def equivariance(
    apply,
    params,
    data: Labeled,
    transformations,
    *,
    output: str | Callable | Transformation | Mapping = "invariant",
    axes: tuple[int, ...] | None = None,
    channels: str | None = "auto",
    seed: int = 0,
) -> Equivariance:
    """How much every layer changes when the input is transformed, and its rate of change at the identity.

    For a transformation g of the input, f(gx) is compared with f(x) (invariance), with g f(x) where g acts on the layer
    (equivariance), and of the output with ρ f(x) for a given ρ. Of a one-parameter family the Lie derivative
    d/dt f(g_t x) at t = 0 is one forward derivative of JAX.

    Parameters
    ----------
    apply, params
        The model, as of `layers`.
    data : array_like, shape ``(n, …)``
        Inputs.
    transformations : Transformation, callable, or a list or a dict by name of them
        Such as ``Translation((0.5, 0))``, ``Rotation(10)``, ``Reflection(1)``, ``Sign()``, ``Permutation(order)``,
        ``automorphisms(lattice)``, of `phi4ppl.lens`; or a function of a batch of inputs.
    output : str, callable, Transformation, or a dict of them by name of the transformation
        What the output is to be: ``"invariant"``, ``"equivariant"``, or acted on by a given representation, a function
        ρ of a batch of outputs.
    axes : tuple of int, optional
        Axes of space of the input; by default all but the first, and but that of channels where there are four or more.
    channels : str or None
        As of `occupation`.
    seed : int
        Of groups of examples.

    Returns
    -------
    Equivariance

    Raises
    ------
    ArgumentError
        If a transformation does not act on the data, or the output is to be equivariant and it does not act on that.

    Notes
    -----
    Differences are relative to the fluctuation of the layer over the examples. Errors leave out groups of examples. Shifts are
    in sites of the input: a layer of half the resolution is shifted by half as many of its own. A layer is called invariant or
    equivariant where the difference is less than 1,000 roundings. Generators of models that JAX cannot trace are central
    differences. Source of the Lie derivative as a measure: N. Gruver et al., arXiv:2210.02984.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(4), w=1.0, a=1.5, b=0.2)
    >>> phi = np.random.default_rng(0).normal(size=(20, 4, 4))
    >>> found = p4.lens.equivariance(*p4.lens.read(model), phi, [p4.lens.Sign(), p4.lens.Translation((1, 0))])
    >>> found.holds
    {'sign': True, 'translation by 1, 0': True}
    """
    data, seed, axis = examples(data), seed_within(seed), channels_of(apply, channels)
    number = num_examples(data)
    require_examples(number, MIN_EXAMPLES)
    given = _named(transformations)
    space = _Space(data, axes, axis)
    base, raw = layers(apply, params, data), reader(apply, params)
    precision = {name: _epsilon(values) for name, values in raw(data).items()}
    last, group = list(base)[-1], groups_of(number, seed)
    scales = {name: float(((v - v.mean(axis=0)) ** 2).sum()) for name, v in base.items()}
    rows, outcome, holds, differences, notes = [], {}, {}, {}, []
    for name, g in given.items():
        moved = layers(apply, params, space.input(name, g))
        asked = output.get(name, "invariant") if isinstance(output, Mapping) else output
        for layer, values in base.items():
            acted = space.layer(g, values)
            rest = None if acted is None else moved[layer] - acted
            own = (precision[layer], scales[layer])
            rows.append(_row(name, g, layer, False, values, moved[layer] - values, rest, group, own))
        difference = moved[last] - _represented(asked, name, g, base[last], space)
        found, exact = _relative(difference, base[last], group, precision[last], scales[last])
        outcome[name], holds[name], differences[name] = found, exact, difference
        if g.unit:
            slopes, numerical = _slopes(raw, list(base), space, g)
            notes += [f"{name}: the generator is a central difference; JAX cannot trace the model"] if numerical else []
            for layer, values in base.items():
                acted = space.slope(g, values)
                rest = None if acted is None else slopes[layer] - acted
                own = (precision[layer], scales[layer])
                rows.append(_row(name, g, layer, True, values, slopes[layer], rest, group, own))
    words = output if isinstance(output, str) else "acted on by a given representation"
    return Equivariance(tuple(rows), outcome, holds, differences, words, number, tuple(notes))


def _axes(given, ndim: int) -> tuple[int, ...]:
    """Axes of space as numbers from 1 on."""
    found = [given] if isinstance(given, numbers.Integral) else given
    whole = isinstance(found, tuple | list) and all(
        isinstance(a, numbers.Integral) and abs(int(a)) < ndim for a in found
    )
    axes = tuple(int(a) % ndim for a in found) if whole else ()
    if not whole or len(set(axes)) != len(axes) or 0 in axes:
        shown = repr(given) if isinstance(given, tuple | list | str) else f"a {type(given).__name__}"
        raise ArgumentError("axes", f"a tuple of different axes from 1 to {ndim - 1}", shown)
    return axes


def _named(given) -> dict[str, Transformation]:
    """Transformations by name."""
    if isinstance(given, Mapping):
        pairs = [(str(name), each) for name, each in given.items()]
    else:
        pairs = [(None, each) for each in (given if isinstance(given, list | tuple) else [given])]
    found: dict[str, Transformation] = {}
    for k, (name, each) in enumerate(pairs):
        if not isinstance(each, Transformation):
            if not callable(each):
                expected = "transformations of phi4ppl.lens, or functions of a batch of inputs"
                raise ArgumentError(f"transformations[{k}]", expected, f"a {type(each).__name__}")
            each = Function(each, getattr(each, "__name__", "function").replace("<lambda>", f"function {k + 1}"))
        name = name or each.name
        if name in found:
            fix = "Give a dict by name."
            raise ArgumentError(f"transformations[{k}]", "a name of its own for each", f"{name!r} twice", fix, "name")
        found[name] = each
    if not found:
        raise ArgumentError("transformations", "at least one", "none")
    return found


class _Space:
    """Where the axes of space are, of the input and of layers."""

    def __init__(self, data, axes, channels: str | None):
        self.data, self.channels = data, channels
        self.axes: tuple[int, ...] = ()
        if not hasattr(data, "shape"):  # a pytree: only functions act on it
            self.shape = ()
            return
        self.shape = data.shape
        plain = tuple(range(1, data.ndim))
        if axes is None:
            axes = plain if data.ndim < 4 or channels is None else plain[1:] if channels == "first" else plain[:-1]
        self.axes = _axes(axes, data.ndim)

    def input(self, name: str, g: Transformation):
        if not isinstance(g, Function) and (not self.shape or not g.fits(self.shape, self.axes)):
            got = f"data of shape {self.shape} with space along the axes {self.axes}"
            raise ArgumentError("data", f"what {name} acts on", got, "Give axes=.", reason="shape")
        with told("transformations", f"{name} to act on the data"):
            return g.act(self._float(self.data), self.axes, (1.0,) * len(self.axes))

    def moved(self, g: Transformation, x, t):
        return g.family(x, t, self.axes, (1.0,) * len(self.axes))

    def _float(self, x):
        return x.astype(float) if hasattr(x, "dtype") and x.dtype.kind in "iu" else x

    def _own(self, values) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Axes of space of a layer, and its numbers of sites over those of the input."""
        d = len(self.axes)
        if values.shape == self.shape:
            axes = self.axes
        elif values.ndim < d + 1 or (values.ndim == d + 1 and d == 1):  # vectors of another length are no lattices
            return (), ()
        else:
            axes = tuple(range(values.ndim - d, values.ndim)) if self.channels == "first" else tuple(range(1, d + 1))
        return axes, tuple(values.shape[a] / self.shape[b] for a, b in zip(axes, self.axes, strict=True))

    def _acts(self, g: Transformation, values):
        axes, scale = self._own(values)
        same = values.shape == self.shape
        if type(g).__name__ in ("Function", "Family", "VectorRotation") and not same:
            return None
        return (axes, scale) if g.fits(values.shape, axes) else None

    def layer(self, g: Transformation, values):
        """g acting on a layer; None where it does not."""
        found = self._acts(g, values)
        return None if found is None else np.asarray(g.act(values, *found), float)

    def slope(self, g: Transformation, values):
        """d/dt g_t at t = 0, acting on a layer."""
        found = self._acts(g, values)
        if found is None:
            return None
        return _derivative(lambda t: (g.family(jnp.asarray(values), t, *found),), jnp.asarray(values).dtype)[0]


def _derivative(function: Callable, dtype) -> list[np.ndarray]:
    """d/dt of a tuple of arrays at t = 0."""
    slopes = jax.jvp(function, (jnp.zeros((), dtype),), (jnp.ones((), dtype),))[1]
    return [np.asarray(slope, float) for slope in slopes]


def _slopes(raw: Callable, names: list[str], space: _Space, g: Transformation) -> tuple[dict[str, np.ndarray], bool]:
    """d/dt f(g_t x) at t = 0 of every layer; and whether it is a central difference."""
    x = jnp.asarray(space.data)
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
    try:
        found = _derivative(lambda t: tuple(raw(space.moved(g, x, t))[name] for name in names), x.dtype)
        return dict(zip(names, found, strict=True)), False
    except ArgumentError as error:
        if not isinstance(error.__cause__, jax.errors.JAXTypeError | TypeError):
            raise
    data = np.asarray(space.data, float)
    at = {step: raw(np.asarray(space.moved(g, data, step * STEP))) for step in (-2, -1, 1, 2)}
    return {
        name: (8 * (_array(at[1][name]) - _array(at[-1][name])) - (_array(at[2][name]) - _array(at[-2][name])))
        / (12 * STEP)
        for name in names
    }, True


def _array(values) -> np.ndarray:
    return np.asarray(values, float)


def _epsilon(values) -> float:
    dtype = getattr(values, "dtype", np.dtype(float))
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else float(np.finfo(float).eps)


def _represented(asked, name: str, g: Transformation, values: np.ndarray, space: _Space) -> np.ndarray:
    """ρ f(x) of the output."""
    if isinstance(asked, str) and asked == "invariant":
        return values
    if isinstance(asked, Transformation):
        acted = space.layer(asked, values)
    elif callable(asked):
        with told("output", "a function of a batch of outputs"):
            acted = _array(asked(values))
        if acted.shape != values.shape:
            raise ArgumentError("output", f"shape {values.shape}", f"shape {acted.shape}", reason="returns")
    elif isinstance(asked, str) and asked == "equivariant":
        acted = space.layer(g, values)
    else:
        got = repr(asked) if isinstance(asked, str) else f"a {type(asked).__name__}"
        raise ArgumentError("output", "'invariant', 'equivariant', a function or a transformation", got)
    if acted is None:
        got, fix = f"an output of shape {values.shape[1:]}", "Give a function of the output."
        raise ArgumentError("output", f"what {name} acts on", got, fix, reason="shape")
    return acted


def _row(name, g, layer, generator, values, change, rest, group, own) -> LayerSymmetry:
    invariance, invariant = _relative(change, values, group, *own)
    equivariance, equivariant = (None, False) if rest is None else _relative(rest, values, group, *own)
    return LayerSymmetry(name, layer, generator, g.unit, invariance, equivariance, invariant, equivariant)


def _relative(change, values, group, epsilon: float, scale: float) -> tuple[Measured, bool]:
    """The size of a change over the fluctuation of the layer, and whether it is one of rounding."""
    exact = float(np.abs(change).max()) <= ROUNDINGS * epsilon * max(float(np.abs(values).max()), 1e-300)
    squares = (change.reshape(len(change), -1) ** 2).sum(axis=1)
    if scale <= (epsilon * float(np.abs(values).max())) ** 2 * values.size:
        return Measured(0.0 if exact else float("inf"), 0.0), exact  # the layer is constant
    spread = ((values - values.mean(axis=0)).reshape(len(values), -1) ** 2).sum(axis=1)
    sums = [sums_by_group(each, group) for each in (squares, spread)]
    return Measured(*map(float, measured_of_sums(lambda s, v: np.sqrt(s / v), sums))), exact
