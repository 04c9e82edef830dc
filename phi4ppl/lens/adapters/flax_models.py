"""Flax modules: linen through ``capture_intermediates``, nnx through ``nnx.capture``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import ArgumentError, MissingPackageError
from ...errors.arguments import call_checked
from .captured import OUTPUT, in_order, named_values, required

__all__ = ["from_flax", "from_nnx"]


@call_checked
def from_flax(module, variables) -> tuple[Callable, Any]:
    """A Flax linen module and its variables as ``apply, params``.

    Layers are the outputs of the module and of every submodule, by path: ``"Dense_0"``, ``"Block_1.Conv_0"``. Functions between
    modules, such as ``nn.relu(x)``, are no modules: make them methods or modules of their own to see what they return.

    Parameters
    ----------
    module : flax.linen.Module
    variables : dict
        What ``module.init`` returns, or a trained copy: ``{"params": …}``. Every collection is read, none is changed: call the
        module as for evaluation, with ``use_running_average=True`` and deterministic dropout.

    Returns
    -------
    apply : callable
        ``apply(variables, x) -> {"layer": values, …}``.
    params
        ``variables``.

    Raises
    ------
    ArgumentError, MissingPackageError

    Examples
    --------
    ``apply, params = p4.lens.from_flax(module, variables)``, then ``p4.lens.occupation(apply, params, images)``.
    """
    linen = required("flax.linen", "from_flax")
    if not isinstance(module, linen.Module):
        raise ArgumentError("module", "a flax.linen module", f"a {type(module).__name__}", "Of nnx: from_nnx(model).")
    if variables is None:
        raise ArgumentError("variables", "what module.init returns", "none", "Give read(module, variables).")

    def apply(variables, x):
        def run(x):
            output, kept = module.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
            return named_values(kept["intermediates"]) | {OUTPUT: [output]}

        return in_order(run, jax.tree.map(jnp.asarray, x))

    return apply, variables


@call_checked
def from_nnx(model) -> tuple[Callable, Any]:
    """A Flax nnx module as ``apply, params``.

    Layers are the outputs of public methods and calls of the model and of all its modules, by path. The model is not changed:
    a copy in evaluation mode is read.

    Parameters
    ----------
    model : flax.nnx.Module

    Returns
    -------
    apply : callable
    params : flax.nnx.State
        Its parameters (``nnx.Param``), a pytree.

    Raises
    ------
    ArgumentError, MissingPackageError

    Examples
    --------
    ``apply, params = p4.lens.from_nnx(model)``, then ``p4.lens.occupation(apply, params, images)``.
    """
    nnx = required("flax.nnx", "from_nnx")
    if not isinstance(model, nnx.Module) or not callable(model):
        fix = "Of linen: from_flax(module, variables)."
        raise ArgumentError("model", "a flax.nnx module that can be called", f"a {type(model).__name__}", fix)
    if not hasattr(nnx, "capture"):
        message = (
            "phi4ppl.lens.from_nnx needs nnx.capture, of flax 0.12 or later. Upgrade it: pip install 'flax>=0.12'."
        )
        raise MissingPackageError("flax", message)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    def apply(params, x):
        def run(x):
            copy = nnx.merge(graph, params, rest)
            copy.eval()
            output, kept = nnx.capture(copy, nnx.Intermediate, method_outputs=nnx.Intermediate)(x)
            return named_values(nnx.to_pure_dict(kept)) | {OUTPUT: [output]}

        return in_order(run, jax.tree.map(jnp.asarray, x))

    return apply, parameters
