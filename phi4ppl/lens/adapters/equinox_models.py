"""Equinox modules, of one example each: every module is wrapped by `equinox.tree_at` in one that keeps what it returns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import ArgumentError
from ...errors.arguments import call_checked
from .captured import OUTPUT, required

__all__ = ["from_equinox"]


@call_checked
def from_equinox(model, state=None) -> tuple[Callable, Any]:
    """An Equinox module, or any pytree of them that can be called with one example, as ``apply, params``.

    Layers are the outputs of all modules inside, by path: ``"layers[0]"``, ``"block.conv"``. Functions between modules, such as
    ``jax.nn.relu``, are no modules; ``equinox.nn.Lambda(jax.nn.relu)`` is one. Convolutions put channels first: the
    functions of this package know.

    Parameters
    ----------
    model : equinox.Module
        ``model(x)`` takes one example. It is not changed: a copy in inference mode is read.
    state : equinox.nn.State, optional
        Of a model with running statistics, which is called as ``model(x, state)``.

    Returns
    -------
    apply : callable
        It maps the model over the first axis of ``x``.
    params
        The model's arrays: ``equinox.partition(model, equinox.is_inexact_array)[0]``.

    Raises
    ------
    ArgumentError, MissingPackageError

    Notes
    -----
    A module that is called inside `jax.lax.scan` or another loop of JAX cannot be read there; read the module around it.

    Examples
    --------
    ``apply, params = p4.lens.from_equinox(model)``, then ``p4.lens.occupation(apply, params, images)``.
    """
    eqx = required("equinox", "from_equinox")
    if not isinstance(model, eqx.Module) or not callable(model):
        raise ArgumentError("model", "an equinox module that can be called", f"a {type(model).__name__}")
    params, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_inexact_array)

    def apply(params, x):
        names: list[str] = []

        def one(x):
            kept: dict[str, Any] = {}
            tapped = _tapped(eqx.combine(params, static), "", kept)
            output = tapped(x) if state is None else tapped(x, state)[0]
            inside = {name: value for name, value in kept.items() if value is not output}
            names[:] = [*inside, OUTPUT]
            return [*inside.values(), output]

        values = jax.vmap(one)(jax.tree.map(jnp.asarray, x))
        return dict(zip(names, values, strict=True))

    apply.channels = "first"  # type: ignore[attr-defined]
    return apply, params


def _tapped(module, path: str, kept: dict[str, Any]):
    """A copy whose submodules, at any depth, write what they return into ``kept``."""
    eqx = required("equinox", "from_equinox")

    def is_layer(node) -> bool:
        return node is not module and isinstance(node, eqx.Module) and callable(node)

    leaves = jax.tree_util.tree_flatten_with_path(module, is_leaf=is_layer)[0]
    inside = [(jax.tree_util.keystr(at), node) for at, node in leaves if is_layer(node)]
    if not inside:
        return module
    wraps = [_tap()(_tapped(node, path + at, kept), (path + at).removeprefix("."), kept) for at, node in inside]

    def where(tree):
        return [node for node in jax.tree.leaves(tree, is_leaf=is_layer_of(tree)) if is_layer_of(tree)(node)]

    def is_layer_of(tree):
        return lambda node: node is not tree and isinstance(node, eqx.Module) and callable(node)

    return eqx.tree_at(where, module, wraps)


@functools.cache
def _tap():
    eqx = required("equinox", "from_equinox")

    class Tap(eqx.Module):
        """A module that keeps what another one returns; it has the attributes of that one."""

        inner: Any
        name: str = eqx.field(static=True)
        kept: Any = eqx.field(static=True)

        def __call__(self, *args, **kwargs):
            found = self.inner(*args, **kwargs)
            for leaf in jax.tree.leaves(found)[:1]:  # the second of a stateful layer is its state
                if any(leaf is known for known in self.kept.values()):
                    continue  # a module that hands on what another one makes
                number = sum(name.partition(" #")[0] == self.name for name in self.kept)
                self.kept[f"{self.name} #{number + 1}" if number else self.name] = leaf
            return found

        def __getattr__(self, name):
            if name == "inner":
                raise AttributeError(name)
            return getattr(self.inner, name)

    return Tap
