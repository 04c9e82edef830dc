"""Checkpoints or posterior draws averaged: as functions, and as weights; and the spectral norms of their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, finite_array
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..reports.style import GRAY, OKABE_ITO, panels
from ..spectral.matrices import told
from .activations import layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AverageModel", "LayerNorm", "average", "spectral_norms"]

DISAGREE = 1.0  # distance of both averages in units of the spread of the members
ROUNDING = 1e-5  # differences in units of the outputs that are rounding


class LayerNorm(NamedTuple):
    """The spectral norm of the weights of one layer: of one model, or its mean and spread over members."""

    name: str
    value: float
    spread: float
    of_average: float


@dataclass(frozen=True, repr=False, eq=False)
class AverageModel:
    """What `average` finds.

    Attributes
    ----------
    params : pytree
        θ̄, the mean of the weights.
    mean, spread : arrays, shape ``(n, …)``
        Of the outputs of the members: the function-space average, and the standard deviation over members.
    of_average : array, shape ``(n, …)``
        Output of the model with weights θ̄.
    distance : float
        Root mean square of ``of_average − mean`` in units of the root mean square spread: a member is at a distance of 1.
    far : float
        Share of the examples where it is above 1.
    norms : tuple of LayerNorm
    scores : dict of (float, float)
        Mean score with its error over examples of ``"members"``, ``"function average"`` and ``"weight average"``, if there
        is a score.
    num_members : int
    """

    params: object
    mean: np.ndarray
    spread: np.ndarray
    of_average: np.ndarray
    distance: float
    far: float
    norms: tuple[LayerNorm, ...]
    scores: dict[str, tuple[float, float]]
    products: np.ndarray

    @property
    def num_members(self) -> int:
        """How many models were averaged."""
        return len(self.products)

    @property
    def agree(self) -> bool:
        """Whether the weight average is as good a summary of the functions as one of the members, or better."""
        return self.distance <= DISAGREE

    @property
    def error(self) -> np.ndarray:
        """Standard error of ``mean`` for independent members."""
        return self.spread / np.sqrt(self.num_members)

    @property
    def norm_product(self) -> tuple[float, float, float]:
        """Product of the spectral norms: mean over members, standard deviation, and that of the weight average."""
        of_average = float(np.prod([norm.of_average for norm in self.norms]))
        return float(self.products.mean()), float(self.products.std(ddof=1)), of_average

    def rows(self) -> list[tuple[str, str, str]]:
        """Names, values of members with the spread over them, and of the weight average."""
        found = [
            ("output (root mean square)", f"{_rms(self.mean):.4g}", f"{_rms(self.of_average):.4g}"),
            ("distance from the function average", "1 (their spread)", f"{self.distance:.3g}"),
            ("examples farther than the spread", "", f"{self.far:.1%}"),
        ]
        for name, (value, error) in self.scores.items():
            cell = value_with_error(value, error)
            found.append((f"score, {name}", cell if name == "members" else "", "" if name == "members" else cell))
        for norm in self.norms:
            found.append(
                (f"spectral norm, {norm.name}", _with_spread(norm.value, norm.spread), f"{norm.of_average:.4g}")
            )
        if self.norms:
            product = self.norm_product
            found.append(("product of spectral norms", _with_spread(*product[:2]), f"{product[2]:.4g}"))
        return found

    def _outcome(self) -> str:
        if self.agree:
            return f"{self.num_members} members: the weight average and the function average agree"
        return (
            f"{self.num_members} members: the weight average is {self.distance:.3g} spreads from the function average. "
            "Average the outputs, or align the members first"
        )

    def __str__(self) -> str:
        rows = [("", "members", "weight average"), *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self._outcome(), *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = ("", "members", "weight average")
        return card("Averages", head, self.rows(), good=self.agree, outcome=self._outcome())

    def plot(self) -> Figure:
        """The output of the weight average against the function average, with bars of the spread; and the spectral norms."""
        figure, places = panels(2 if self.norms else 1, width=3.6, height=3.0)
        x, y, bar = (np.ravel(part)[:400] for part in (self.mean, self.of_average, self.spread))
        places[0].errorbar(x, y, xerr=bar, fmt=".", ms=3, lw=0.5, color=OKABE_ITO[0])
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        places[0].plot(ends, ends, color=GRAY, lw=0.8)
        places[0].set(xlabel="function average", ylabel="weight average")
        if self.norms:
            rows = np.arange(len(self.norms))
            places[1].errorbar(
                [n.value for n in self.norms], rows, xerr=[n.spread for n in self.norms], fmt="o", ms=4, color=OKABE_ITO[0],
                label="members",
            )  # fmt: skip
            places[1].plot([n.of_average for n in self.norms], rows, "x", color=OKABE_ITO[1], label="weight average")
            places[1].set_yticks(rows, [n.name for n in self.norms], fontsize=7)
            places[1].set_xlabel("spectral norm")
            places[1].legend(frameon=False, fontsize=7)
        return figure


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def _with_spread(value: float, spread: float) -> str:
    return f"{value:.4g} ± {spread:.2g}"


@call_checked
def average(apply, members: Iterable, data: Labeled, *, score: Callable | None = None) -> AverageModel:
    """The average of checkpoints or posterior draws as functions, beside the model with averaged weights.

    Parameters
    ----------
    apply
        The model, as in `layers`.
    members : list of pytrees
        Parameters of at least two models: checkpoints of a training, trainings with other seeds, or draws of a posterior.
    data : array, shape ``(n, …)``
        Examples, as in `layers`.
    score : callable, optional
        A function of the outputs of all examples that returns one number each, such as ``lambda y: (y - targets) ** 2``.

    Returns
    -------
    AverageModel

    Raises
    ------
    ArgumentError
    Phi4pplWarning
        ``lens.averages_disagree`` where the weight average is farther from the function average than members are.

    Notes
    -----
    For members that differ by little, both averages differ by half the trace of the Hessian times the covariance of the
    weights, which is of second order. Members of different valleys, such as the same network with its hidden units in another
    order, have weight averages that mean nothing. The product of spectral norms bounds how much a network of 1-Lipschitz
    activations in sequence can stretch a perturbation (arXiv:1802.05957).

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> members = [{"w": np.ones((2, 1))}, {"w": 3 * np.ones((2, 1))}]
    >>> found = p4.lens.average(lambda p, x: x @ p["w"], members, np.ones((4, 2)))
    >>> float(found.mean[0, 0]), float(found.of_average[0, 0]), found.agree
    (4.0, 4.0, True)
    """
    members = _checked_members(members)
    outputs = np.stack([_output(apply, params, data) for params in members])
    averaged = jax.tree.map(lambda *leaves: np.mean([np.asarray(leaf, float) for leaf in leaves], axis=0), *members)
    averaged = jax.tree.map(lambda leaf, like: leaf.astype(np.asarray(like).dtype), averaged, members[0])
    of_average = _output(apply, averaged, data)
    mean, spread = outputs.mean(axis=0), outputs.std(axis=0, ddof=1)
    size = max(_rms(spread), ROUNDING * _rms(mean), 1e-300)
    rows = [np.reshape(part, (len(mean), -1)) for part in (of_average - mean, spread)]
    apart, typical = (np.sqrt(np.mean(part**2, axis=1)) for part in rows)
    far = float(np.mean(apart > np.maximum(typical, ROUNDING * _rms(mean))))
    norms, products = _norms(members, averaged)
    scores = {} if score is None else _scores(score, outputs, mean, of_average)
    found = AverageModel(
        averaged, mean, spread, of_average, _rms(of_average - mean) / size, far, norms, scores, products
    )
    if not found.agree:
        text = (
            f"The weight average is {found.distance:.3g} spreads of the members from the average of their outputs. "
            "Average the outputs, or align the members first."
        )
        warn(Phi4pplWarning("lens.averages_disagree", text, {"distance": found.distance}))
    return found


def _checked_members(members) -> list:
    found = list(members) if isinstance(members, Iterable) else []
    if len(found) < 2 or isinstance(members, dict):
        raise ArgumentError(
            "members", "a list of parameters of at least two models", f"{len(found)} of them", reason="small"
        )
    first: Any = jax.tree.structure(found[0])
    for k, each in enumerate(found):
        shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (each, found[0])]
        if jax.tree.structure(each) != first or shapes[0] != shapes[1]:
            raise ArgumentError(f"members[{k}]", "parameters of the same shapes as the first", "others", reason="shape")
    return found


def _output(apply, params, data) -> np.ndarray:
    return list(layers(apply, params, data).values())[-1]


def _scores(score: Callable, outputs, mean, of_average) -> dict[str, tuple[float, float]]:
    with told("score", "a function of outputs that returns one number an example"):
        each = [
            np.asarray(score(output), float).reshape(len(mean), -1).mean(axis=1)
            for output in (*outputs, mean, of_average)
        ]
    each = [finite_array("score", values) for values in each]
    number = np.sqrt(len(mean))
    rows = {"members": np.mean(each[:-2], axis=0), "function average": each[-2], "weight average": each[-1]}
    return {name: (float(row.mean()), float(row.std(ddof=1) / number)) for name, row in rows.items()}


def _norms(members: list, averaged) -> tuple[tuple[LayerNorm, ...], np.ndarray]:
    each = np.array([[value for _, value in spectral_norms(params).items()] for params in members])
    of_average = spectral_norms(averaged)
    if not of_average:
        return (), np.ones(len(members))
    found = tuple(
        LayerNorm(name, float(each[:, k].mean()), float(each[:, k].std(ddof=1)), value)
        for k, (name, value) in enumerate(of_average.items())
    )
    return found, each.prod(axis=1)


@call_checked
def spectral_norms(params) -> dict[str, float]:
    """The largest singular value of every weight matrix in a pytree, by its path.

    Arrays of more than two axes, such as kernels of convolutions, are taken as matrices with the last axis as columns, which
    is within a factor √(window) of the norm of the convolution. Vectors, such as biases, are left out.

    Parameters
    ----------
    params : pytree

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> p4.lens.spectral_norms({"dense": {"kernel": np.diag([2.0, 0.5]), "bias": np.ones(2)}})
    {'dense.kernel': 2.0}
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if np.ndim(leaf) >= 2:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "weights"
            matrix = finite_array(name, leaf).astype(float)
            found[name] = float(np.linalg.norm(matrix.reshape(-1, matrix.shape[-1]), 2))
    return found
