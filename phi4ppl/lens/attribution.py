"""What an output owes to each input: integrated gradients on Gauss–Legendre nodes, with the gap of their sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int
from ..reports.card import card
from ..reports.style import DIVERGING, OKABE_ITO, panels
from ..spectral.matrices import told
from .activations import examples, reader

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Attribution", "attribution", "pixels"]

OPEN = 0.01  # gap in units of the typical change of the output, beyond which the nodes are too few
MOST = 8  # inputs that are printed, and examples that are drawn
DIFFERENTIABLE = "a JAX function of x that can be differentiated"


@dataclass(frozen=True, repr=False, eq=False)
class Attribution:
    """What `attribution` finds.

    Attributes
    ----------
    values : array, shape ``(n, *input)``
        Share of each input in the change of the output.
    change : array, shape ``(n,)``
        F(x) − F(baseline).
    gap : array, shape ``(n,)``
        The sum of ``values`` of an example less its change: 0 if the integral is exact (completeness).
    num_nodes : int
    """

    values: np.ndarray
    change: np.ndarray
    gap: np.ndarray
    num_nodes: int

    @property
    def largest_gap(self) -> float:
        """The largest absolute gap."""
        return float(np.abs(self.gap).max())

    @property
    def complete(self) -> bool:
        """Whether the gap is at most 1 % of the root mean square change, in every example."""
        return self.largest_gap <= OPEN * float(np.sqrt(np.mean(self.change**2)) + 1e-300)

    @property
    def mean_share(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the examples of the absolute value of each input's share, and its standard error; shape ``input``."""
        size = np.abs(self.values)
        error = size.std(axis=0, ddof=1) / np.sqrt(len(size)) if len(size) > 1 else np.full(size.shape[1:], np.nan)
        return size.mean(axis=0), error

    def rows(self) -> list[tuple[str, str, str]]:
        """The inputs with the largest mean shares: index, mean ``|share|``, standard error."""
        mean, error = (np.ravel(part) for part in self.mean_share)
        order = np.argsort(-mean, kind="stable")[:MOST]
        shape = self.values.shape[1:]
        names = [", ".join(str(int(i)) for i in np.unravel_index(k, shape)) if shape else "" for k in order]
        return [(name, f"{mean[k]:.4g}", f"{error[k]:.2g}") for name, k in zip(names, order, strict=True)]

    def _outcome(self) -> str:
        size = float(np.sqrt(np.mean(self.change**2)))
        text = f"completeness gap {self.largest_gap:.2g} at most, for changes of {size:.3g} (rms), on {self.num_nodes} nodes"
        return text if self.complete else f"{text}: NOT COMPLETE, the output has kinks on the way; increase num_nodes"

    def __str__(self) -> str:
        lines = [
            f"integrated gradients of {len(self.values)} examples: {self._outcome()}",
            "  input  mean |share|  error",
        ]
        return "\n".join([*lines, *(f"  {name}  {value}  {error}" for name, value, error in self.rows())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = ("input", "mean |share|", "error")
        return card("Integrated gradients", head, self.rows(), good=self.complete, outcome=self._outcome())

    def plot(self) -> Figure:
        """Shares of the first examples, as pictures if the input is one."""
        shown = self.values[:MOST]
        figure, places = panels(len(shown), columns=4, width=2.2, height=2.0)
        largest = float(np.abs(shown).max()) or 1.0
        for k, (axes, share) in enumerate(zip(places, shown, strict=True)):
            if (picture := pixels(share)) is not None:
                axes.imshow(picture, cmap=DIVERGING, vmin=-largest, vmax=largest)
                axes.set_xticks([]), axes.set_yticks([])
            else:
                axes.bar(np.arange(share.size), np.ravel(share), color=OKABE_ITO[0])
            axes.set_title(f"example {k}: change {self.change[k]:.3g}", fontsize=8)
        return figure


def pixels(values: np.ndarray) -> np.ndarray | None:
    """Values of an input as a picture: as they are with two axes, summed over channels with three; a vector of a square number
    above 30 as a square; else None."""
    if values.ndim == 3:
        return values.sum(axis=-1)
    side = int(round(np.sqrt(values.size)))
    if values.ndim == 1 and side**2 == values.size > 30:
        return values.reshape(side, side)
    return values if values.ndim == 2 and min(values.shape) > 1 else None


@call_checked
def attribution(
    apply, params, data: Labeled, *, output: int | Callable | None = None, baseline=None, num_nodes: int = 16
) -> Attribution:
    """Integrated gradients: (x − b)_i ∫₀¹ ∂F/∂x_i (b + s(x − b)) ds, on Gauss–Legendre nodes.

    Parameters
    ----------
    apply, params
        The model, as in `layers`, of JAX functions.
    data : array, shape ``(n, …)``
        x.
    output : int or callable, optional
        Which unit of the output F is, or a function of the output of one example that returns one number; by default the one
        output there is.
    baseline : array, optional
        b: one input, or one for each example; by default 0.
    num_nodes : int

    Returns
    -------
    Attribution
        Its ``gap`` is F(x) − F(b) less the sum of the shares, with the opposite sign.

    Raises
    ------
    ArgumentError

    Notes
    -----
    Sixteen nodes are exact for polynomials of degree 31, so that the sum closes to 10⁻⁸ on smooth models in double precision.
    On a piecewise linear model the error falls as 1/nodes: look at the gap.

    Source: M. Sundararajan, A. Taly and Q. Yan, arXiv:1703.01365.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> found = p4.lens.attribution([lambda x: x[:, 0] ** 2 + 3 * x[:, 1]], None, [[2.0, 1.0]])
    >>> found.values.round(5)
    array([[4., 3.]])
    """
    positive_int("num_nodes", num_nodes)
    x = jnp.asarray(_array(data), jnp.result_type(float))
    start = jnp.zeros_like(x[0]) if baseline is None else jnp.asarray(finite_array("baseline", baseline), x.dtype)
    if start.shape not in (x.shape, x.shape[1:]):
        expected = f"shape {x.shape[1:]}, or {x.shape}"
        raise ArgumentError("baseline", expected, f"shape {start.shape}", reason="shape")
    start = jnp.broadcast_to(start[None] if start.shape == x.shape[1:] else start, x.shape)
    of = scalar_output(reader(apply, params), output)
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    nodes, weights = (nodes + 1) / 2, weights / 2
    with told("apply", DIFFERENTIABLE):
        slope = jax.grad(lambda z: jnp.sum(of(z)))
        total = sum(w * np.asarray(slope(start + s * (x - start)), float) for s, w in zip(nodes, weights, strict=True))
        ends = np.asarray(of(x), float) - np.asarray(of(start), float)
    values = np.asarray(x - start, float) * total
    gap = values.reshape(len(values), -1).sum(axis=1) - ends
    return Attribution(values, ends, gap, num_nodes)


def _array(data) -> np.ndarray:
    found = examples(data)
    if not hasattr(found, "shape"):
        fix = "Put what does not vary into params."
        raise ArgumentError("data", "one array", f"a {type(found).__name__} of arrays", fix, reason="shape")
    return np.asarray(found)


def scalar_output(read: Callable, output: int | Callable | None) -> Callable:
    """A function from examples to one number each."""

    def of(x):
        last = list(read(x).values())[-1]
        if callable(output):
            found = jax.vmap(output)(last)
        else:
            flat = jnp.reshape(last, (len(last), -1))
            number = flat.shape[1]
            if output is None and number > 1:
                fix = "For example output=0, or a function such as jax.nn.logsumexp."
                raise ArgumentError("output", f"one of {number} units of the output", "None", fix, reason="missing")
            unit = 0 if output is None else positive_int("output", output, minimum=0)
            if unit >= number:
                raise ArgumentError("output", f"one of {number} units, from 0", repr(output), reason="choice")
            found = flat[:, unit]
        if jnp.shape(found) != (len(x),):
            raise ArgumentError(
                "output", "a function that returns one number", f"shape {found.shape[1:]}", reason="returns"
            )
        return found

    return of
