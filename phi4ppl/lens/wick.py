"""Wick's theorem as a test: are outputs, features or fields Gaussian, and if not, from which order on?"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, one_of, seed_within
from ..reports.card import card
from ..spectral.matrices import told
from .activations import examples, layers, reader
from .cumulants import Cumulants, cumulants
from .leave_out import aligned

__all__ = ["Wick", "wick"]

OVER = ("examples", "params")
HEAD = ("layer", "components", "skewness", "excess kurtosis", "connected", "p (3)", "p (4)", "")


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class Wick:
    """What `wick` returns: `Cumulants` of every layer by name; ``constant`` names layers that never change."""

    layers: dict[str, Cumulants]
    over: str
    constant: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Cumulants:
        return self.layers[name]

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table, a row a layer; cumulants are averaged over components."""
        return [
            (
                name, str(len(each.components)), *(str(each.average[key]) for key in ("skewness", "kurtosis", "connected")),
                f"{each.p_values[3]:.3f}", f"{each.p_values[4]:.3f}",
                "Gaussian" if each.is_gaussian else f"not, at order {each.order}",
            )
            for name, each in self.layers.items()
        ]  # fmt: skip

    def __str__(self) -> str:
        number = next(iter(self.layers.values())).num_samples if self.layers else 0
        lines = [f"Wick's theorem over {number} {'examples' if self.over == 'examples' else 'draws of the parameters'}"]
        lines += aligned([HEAD, *self.rows()])
        return "\n".join([*lines, *(f"  note: layer {name!r} is constant" for name in self.constant)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return card(f"Wick's theorem over {self.over}", HEAD, self.rows())


@call_checked
def wick(
    apply, params, data: Labeled, *, over: str = "examples", quadruples: dict | None = None, seed: int = 0
) -> Wick:
    """Cumulants and connected four-point functions of every layer, over examples or over an ensemble of networks.

    Over draws of its weights a wide network is a Gaussian field of its inputs: four-point functions are sums over pairings of
    two-point functions, and what is left, the connected part, falls as one over the width.

    Parameters
    ----------
    apply, params
        The model, as of `layers`. With ``over="params"`` every array in ``params`` has a first axis of independent draws.
    data : array_like, shape ``(n, …)``
        Independent examples, or the inputs at which the field is read.
    over : str
        What is random: ``"examples"``, one sample an example with the entries of the layer as components; or ``"params"``, one
        sample a draw of the parameters with entries of the layer at all inputs as components.
    quadruples : dict of int arrays of shape ``(Q, 4)``, optional
        By layer, as of `cumulants`.
    seed : int

    Returns
    -------
    Wick

    Raises
    ------
    ArgumentError
        If there are fewer than 40 samples, or as of `layers`.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> def apply(params, x):
    ...     return {"output": jax.nn.relu(x @ params["w"]) @ params["a"] / 5**0.5}
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> params = {"w": jax.random.normal(keys[0], (40_000, 3, 5)), "a": jax.random.normal(keys[1], (40_000, 5))}
    >>> found = p4.lens.wick(apply, params, [[1.0, 0.0, 0.0]], over="params")["output"]
    >>> value, error = found.average["kurtosis"]
    >>> bool(abs(5 * value - 15) < 4 * 5 * error), found.order  # width × excess kurtosis of ReLU
    (True, 4)
    """
    one_of("over", over, OVER)
    seed, given = seed_within(seed), dict(quadruples or {})
    values = layers(apply, params, data) if over == "examples" else _ensemble(apply, params, examples(data))
    if unknown := set(given) - set(values):
        raise ArgumentError("quadruples", f"layers among {', '.join(values)}", repr(sorted(unknown)[0]), reason="name")
    found, constant = {}, []
    for name, array in values.items():
        try:
            found[name] = cumulants(array, quadruples=given.get(name), label=f"layer {name!r}", seed=seed)
        except ArgumentError as error:
            if error.code != "argument.samples.constant":
                raise
            constant.append(name)
    return Wick(found, over, tuple(constant))


def _ensemble(apply, params, x) -> dict[str, np.ndarray]:
    """Layers for every draw of the parameters, shape ``(draws, n, …)``."""
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    if len(sizes) != 1 or () in sizes or isinstance(apply, list | tuple):
        expected = "a function apply(params, x), and arrays in params whose first axis counts draws"
        got = "a list of layers" if isinstance(apply, list | tuple) else f"first axes of {sorted(sizes)}"
        raise ArgumentError("params", expected, got, "Make them by jax.vmap(init)(keys).", reason="shape")
    x, names = jax.tree.map(jnp.asarray, x), []

    def one(own):
        found = reader(apply, own)(x)
        names[:] = found
        return list(found.values())

    with told("apply", "a function that jax.vmap can map over params"):
        arrays = jax.jit(jax.vmap(one))(jax.tree.map(jnp.asarray, params))
    return {
        name: finite_array(f"layer {name!r}", array).astype(float) for name, array in zip(names, arrays, strict=True)
    }
