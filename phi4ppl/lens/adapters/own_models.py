"""Machines, stacks of machines and lattice models of this library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...energy.functions import energy
from ...errors import ArgumentError
from ...errors.arguments import call_checked
from ...model.field import MarkovRandomField
from ...networks.machine import RestrictedBoltzmannMachine

__all__ = ["from_machine", "from_model"]

KINDS = "a RestrictedBoltzmannMachine, a fitted estimator such as Phi4RBM, or a fitted DeepPhi4Network"


@call_checked
def from_machine(machine) -> tuple[Callable, Any]:
    """A φ⁴ network as ``apply, params``.

    Layers of one machine are ``"hidden"``, ⟨h⟩ given the visible units, ``"reconstruction"``, ⟨v⟩ given these, and
    ``"free energy"``, the output: −log p(v) up to a constant. A stack has ``"hidden 1"``, ``"hidden 2"``, …; the last is the
    output.

    Parameters
    ----------
    machine : RestrictedBoltzmannMachine, fitted estimator of one, or fitted DeepPhi4Network
        Estimators standardize their data: they are read in the units of the data.

    Returns
    -------
    apply : callable
    params
        The machine, a pytree; of a stack a list of machines.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> units = p4.networks.SpinUnits(np.zeros(3)), p4.networks.SpinUnits(np.zeros(2))
    >>> machine = p4.networks.RestrictedBoltzmannMachine(*units, 0.5 * np.ones((3, 2)))
    >>> found = p4.lens.layers(*p4.lens.from_machine(machine), np.ones((4, 3)))
    >>> {name: values.shape for name, values in found.items()}
    {'hidden': (4, 2), 'reconstruction': (4, 3), 'free energy': (4,)}
    """
    if hasattr(machine, "machines_"):
        return _stack(machine)
    if isinstance(machine, RestrictedBoltzmannMachine):
        mean, scale, own = 0.0, 1.0, machine
    elif hasattr(machine, "machine_"):
        mean, scale, own = machine.mean_, machine.scale_, machine.machine_
    else:
        raise ArgumentError("machine", KINDS, f"a {type(machine).__name__}", "Fit it first, or take read(model).")

    def apply(params, x):
        v = _inside(x, mean, scale, params)
        hidden = params.hidden_mean(v)
        return {
            "hidden": hidden, "reconstruction": _outside(params.visible_mean(hidden), mean, scale),
            "free energy": params.free_energy(v),
        }  # fmt: skip

    return apply, own


def _inside(x, mean, scale, machine):
    dtype = machine.weights.dtype
    x = jnp.asarray(x, dtype)
    return (x - jnp.broadcast_to(jnp.asarray(mean, dtype), x.shape)) / jnp.broadcast_to(
        jnp.asarray(scale, dtype), x.shape
    )


def _outside(v, mean, scale):
    return v * jnp.broadcast_to(jnp.asarray(scale, v.dtype), v.shape) + jnp.broadcast_to(
        jnp.asarray(mean, v.dtype), v.shape
    )


def _stack(stack) -> tuple[Callable, Any]:
    scales = [(each.mean_, each.scale_) for each in stack.machines_]

    def apply(params, x):
        found = {}
        for k, (machine, (mean, scale)) in enumerate(zip(params, scales, strict=True)):
            x = found[f"hidden {k + 1}"] = machine.hidden_mean(_inside(x, mean, scale, machine))
        return found

    return apply, [each.machine_ for each in stack.machines_]


@call_checked
def from_model(model: MarkovRandomField) -> tuple[Callable, Any]:
    """A lattice model as ``apply, params``: its layers are the field, the gradient of its action, and the action.

    ``"field"`` is φ itself, ``"force"`` ∂S/∂φ_i at every site (it is minus the force), ``"action"``, the output, S(φ). Whatever
    leaves the action invariant leaves the force equivariant.

    Parameters
    ----------
    model : MarkovRandomField

    Returns
    -------
    apply : callable
    params : dict
        The couplings by name.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> apply, params = p4.lens.from_model(p4.phi4(p4.lattice.square(4), w=1.0, a=1.5, b=0.2))
    >>> found = p4.lens.layers(apply, params, np.ones((2, 4, 4)))
    >>> {name: values.shape for name, values in found.items()}, found["action"]
    ({'field': (2, 4, 4), 'force': (2, 4, 4), 'action': (2,)}, array([-4.8, -4.8]))
    """
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", f"a {type(model).__name__}", "Take read(model).")

    def apply(params, x):
        own, x = model.replace(**params), jnp.asarray(x)
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        actions, slopes = jax.vmap(jax.value_and_grad(lambda phi: energy(own, phi)))(x)
        return {"field": x, "force": slopes, "action": actions}

    if model.lattice.shape is not None and model.lattice.periodic is not None:
        apply.channels = None  # type: ignore[attr-defined]  # every axis is one of space
    return apply, {name: np.asarray(value) for name, value in model.couplings.items()}
