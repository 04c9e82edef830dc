"""Kernels by name. A kernel is a BlackJAX `SamplingAlgorithm` with a name, its own warm-up and a translation of its info."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..energy.compiled import CompiledModel
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from .adaptation import Adaptation, WindowAdaptation
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["Kernel", "any_model", "fields_only", "get_kernel", "kernels", "register"]


def any_model(compiled: CompiledModel) -> str | None:
    """No objection, for kernels that sample every model."""
    return None


def fields_only(compiled: CompiledModel) -> str | None:
    """The objection of kernels that need the graph of a field."""
    return None if compiled.model is not None else "needs a field on a graph, and this is a NumPyro model"


@call_checked
@dataclass(frozen=True)
class Kernel:
    """A Markov kernel that warm-up can adapt and `phi4ppl.sample` can run.

    Attributes
    ----------
    name : str
    summary : str
    build : callable
        ``build(target, tuning) -> SamplingAlgorithm`` for a `Target` and what the adaptation found, with
        ``init(position) -> state`` and ``step(key, state) -> (state, info)``; the state is a NamedTuple with ``position``,
        ``logdensity`` and ``logdensity_grad``.
    statistics : callable
        ``statistics(info) -> dict`` with at least ``acceptance_rate``, ``diverging`` and ``n_steps`` of one step; kernels with
        momenta add ``energy``, kinetic and potential.
    adaptation : Adaptation
        The adaptation in warm-up; by default that of a step size and a diagonal mass matrix, with a `Tuning` as ``tuning``.
    objection : callable
        ``objection(compiled)``: why the kernel cannot sample a `CompiledModel`, or None if it can.
    changes_signs : bool
        Whether the kernel itself moves between φ and −φ, so that the separate move is not needed.
    fit : callable, optional
        ``fit(compiled, …) -> (kernel, how)``: the kernel as a model, or several that share it, need it, of sizes that warm-up
        cannot change, and in words what was found. `phi4ppl.kernels.resolve` calls it.
    start : callable, optional
        ``start(key)``: where a chain begins; by default where `CompiledModel.initial_position` says.
    """

    name: str
    summary: str
    build: Callable[[Target, Any], SamplingAlgorithm]
    statistics: Callable[[Any], dict]
    adaptation: Adaptation = WindowAdaptation()
    objection: Callable[[CompiledModel], str | None] = any_model
    changes_signs: bool = False
    fit: Callable[..., tuple[Kernel, str]] | None = None
    start: Callable[[Any], Any] | None = None


_REGISTRY: dict[str, Kernel] = {}


@call_checked
def register(kernel: Kernel) -> Kernel:
    """Make a kernel available by name; a name can be taken once."""
    if not isinstance(kernel, Kernel):
        raise ArgumentError("kernel", "a phi4ppl.sampling.Kernel", type(kernel).__name__)
    if kernel.name in _REGISTRY or kernel.name == "auto":
        raise ArgumentError(
            "kernel", "a new name", repr(kernel.name), "Names in use: phi4ppl.kernels().", reason="name"
        )
    _REGISTRY[kernel.name] = kernel
    return kernel


@call_checked
def kernels() -> dict[str, str]:
    """Names of the kernels, with one line on each.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> for name in p4.kernels():
    ...     print(name)
    auto
    nuts
    nuts_fourier
    hmc
    hmc_fourier
    adjusted_mclmc
    adjusted_mclmc_fourier
    nuts_dense
    nuts_low_rank
    nuts_curvature
    chees
    local_hmc
    cluster
    tempering
    houdayer
    """
    return {"auto": "the library's choice for the model; the run records which kernel and why"} | {
        name: kernel.summary for name, kernel in _REGISTRY.items()
    }


@call_checked
def get_kernel(kernel: str | Kernel) -> Kernel:
    """A kernel by name, or a `Kernel` as it is; see `phi4ppl.kernels.choose` for ``"auto"``."""
    if isinstance(kernel, Kernel):
        return kernel
    if not isinstance(kernel, str) or kernel not in _REGISTRY:
        names = ", ".join(repr(name) for name in kernels())
        raise ArgumentError(
            "kernel", f"one of {names}", repr(kernel), "phi4ppl.kernels() describes each one.", reason="choice"
        )
    return _REGISTRY[kernel]
