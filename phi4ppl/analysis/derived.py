"""Functions of Monte Carlo means with errors that account for autocorrelation and correlation: `derive`.

A function f of means ā_α = ⟨a_α⟩ fluctuates like the projected series h(i) = Σ_α (∂f/∂a_α) a_α(i), so the Γ-method applied to h
gives the error of f, its τ_int and its window (U. Wolff, Comput. Phys. Commun. 156 (2004) 143). Derivatives come from JAX.
Independent runs add their squared errors. f(ā) is biased by ½ Σ_αβ (∂²f/∂a_α∂a_β) Cov(ā_α, ā_β), which a jackknife over blocks
of the draws measures; the same jackknife is the second way to the error.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of
from .blocks import blocks_for, jackknife_error
from .derived_result import Derived, Part
from .gamma_method import gamma_method
from .named import as_functions
from .primaries import Run, as_runs

__all__ = ["derive"]

MAX_BLOCKS = 200  # of each run
METHODS = ("gamma", "jackknife")


@call_checked
def derive(
    runs,
    quantities: dict[str, Callable | str] | list[Callable | str] | str,
    *,
    method: str = "gamma",
    stau: float = 1.5,
) -> Derived:
    """Smooth functions of Monte Carlo means, each with its error, bias and autocorrelation time.

    Parameters
    ----------
    runs : DataTree, Dataset, dict, or several of them
        One run: the tree of `phi4ppl.sample`, a dataset with dimensions ``chain`` and ``draw``, or a dict of arrays of shape
        ``(num_chains, num_draws, *element_shape)``. Several independent runs: a list, or a dict of runs by label.
    quantities : list of str, or dict of callables
        Names such as ``["binder_cumulant", "susceptibility"]``; `phi4ppl.analysis.quantity_names` lists them with their
        formulas. Of several runs each makes one quantity, ``"binder_cumulant[cold]"``. Or JAX functions of the means ``m`` by
        name: ``m["m2"]`` for one run, ``m[0]["m2"]`` or ``m["cold"]["m2"]`` for several. A result is a real or complex
        number or array. Means are those of the run, or moments of its magnetization m and energy density e: ``m``,
        ``abs_m``, ``m2``, ``m4``, ``m6``, ``e``, ``e2``; and two-point functions such as ``structure_factor``, as recorded
        or of the fields that were kept.
    method : str
        ``"gamma"``, or ``"jackknife"`` over blocks of ten autocorrelation times.
    stau : float
        As in `gamma_method`.

    Returns
    -------
    Derived
        ``print`` it for a table; ``derived["U4"]`` is one quantity, ``derived.covariance()`` the covariance of all.

    Raises
    ------
    ArgumentError
        If a name is unknown, a function is not finite or has no finite derivative at the means, a run is given twice, or the
        means of a posterior of couplings have an error from log Z as well.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=(4, 2000))
    >>> found = p4.analysis.derive({"x2": x**2, "x4": x**4}, {"kurtosis": lambda m: m["x4"] / m["x2"] ** 2})
    >>> print(found)
              value      bias      tau_int
    kurtosis  2.933(50)  -0.00061  0.515(20)
    """
    one_of("method", method, METHODS)
    structure = as_runs(runs)
    functions = as_functions(quantities, structure)
    with jax.enable_x64(True):
        parts = {name: _derived(name, function, structure, method, stau) for name, function in functions.items()}
    return Derived(parts, method)


def _derived(name: str, function: Callable, structure, method: str, stau: float) -> Part:
    runs: list[Run] = structure.runs
    for run in runs:
        run.used.clear()
    _checked_call(name, function, structure.means(recording=True))  # says which primaries it uses
    used = [run for run in runs if run.used]
    if not used:
        raise ArgumentError(
            f"quantity {name!r}", "a function of the means m", "one that uses none of them", reason="constant"
        )
    sizes = [run.size for run in used]
    means = np.concatenate([run.mean for run in used])
    shape, is_complex = _shape(name, function, structure)

    def flat(vector):
        pieces = jnp.split(vector, np.cumsum(sizes)[:-1])
        value = jnp.asarray(function(structure.means(dict(zip(map(id, used), pieces, strict=True))))).reshape(-1)
        return jnp.concatenate([value.real, value.imag]) if is_complex else value

    flat = jax.jit(flat)
    vector = jnp.asarray(means)
    value = np.asarray(flat(vector))
    wide = len(means) > len(value)
    slopes = np.asarray((jax.jacrev if wide else jax.jacfwd)(flat)(vector))
    if not np.all(np.isfinite(value)) or not np.all(np.isfinite(slopes)):
        fix = "At the means it has to be smooth: no root or quotient of zero, no maximum."
        raise ArgumentError(
            f"quantity {name!r}", "a finite value and derivative", "one that is not finite", fix, reason="finite"
        )
    variance, bias, shares, starts = np.zeros(len(value)), np.zeros(len(value)), [], np.cumsum([0, *sizes])
    projected = []
    for k, run in enumerate(used):
        series = run.project(slopes[:, starts[k] : starts[k + 1]])  # (chains, draws, outputs)
        found = gamma_method(series, stau=stau)
        blocks = blocks_for(series, most=MAX_BLOCKS)
        replicas = np.tile(means, (len(blocks.starts), 1))
        replicas[:, starts[k] : starts[k + 1]] = run.without_each(blocks)
        estimates = np.asarray(jax.lax.map(flat, jnp.asarray(replicas)))
        left_out = jackknife_error(blocks, estimates) ** 2
        bias += (len(estimates) - 1) * (estimates.mean(axis=0) - value) * blocks.inflation
        own = found.error**2 if method == "gamma" else left_out
        idle = ~np.any(slopes[:, starts[k] : starts[k + 1]], axis=1)  # outputs that do not depend on this run
        found = found._replace(reliable=found.reliable | idle)
        variance, shares = variance + own, [*shares, (own, found)]
        projected.append((run, series, np.sqrt(own)))
    return Part.joined(value, np.sqrt(variance), bias, shares, projected, shape, is_complex)


def _checked_call(name: str, function: Callable, means):
    try:
        return function(means)
    except ArgumentError:
        raise
    except Exception as error:  # whatever a user's function raises is the user's to read
        got = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        fix = "Write it with jax.numpy."
        raise ArgumentError(f"quantity {name!r}", "a JAX function of the means", got, fix, reason="raises") from error


def _shape(name: str, function: Callable, structure) -> tuple[tuple[int, ...], bool]:
    result = _checked_call(name, lambda means: jax.eval_shape(lambda: function(means)), structure.means())
    if not hasattr(result, "shape"):
        raise ArgumentError(f"quantity {name!r}", "a number or one array", type(result).__name__, reason="returns")
    return result.shape, bool(jnp.issubdtype(result.dtype, jnp.complexfloating))
