"""Functions of Monte Carlo means with errors that account for autocorrelation and correlation: `derive`.

A function f of means ā_α = ⟨a_α⟩ fluctuates like the projected series h(i) = Σ_α (∂f/∂a_α) a_α(i), so the Γ-method applied to h
gives the error of f, its τ_int and its window (U. Wolff, Comput. Phys. Commun. 156 (2004) 143). Derivatives come from JAX.
Independent runs add their squared errors. f(ā) is biased by ½ Σ_αβ (∂²f/∂a_α∂a_β) Cov(ā_α, ā_β), which a jackknife over blocks
of the draws measures; the same jackknife is the second way to the error.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of
from ..sampling.traced import Traced
from .blocks import blocks_for, jackknife_bias, jackknife_error
from .derived_result import Derived, Part, Share
from .gamma_method import gamma_method
from .named import as_functions
from .primaries import Pooled, Run, as_runs

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
        ``(num_chains, num_draws, *element_shape)``. Or reweighted means: the result of `phi4ppl.reweight` or of
        ``combine_ensembles(...).reweight``. Several independent ones: a list, or a dict by label.
    quantities : list of str, or dict of callables
        Names such as ``["binder_cumulant", "susceptibility"]``; `phi4ppl.analysis.quantity_names` lists them with their
        formulas. Of several runs each makes one quantity, ``"binder_cumulant[cold]"``. Or JAX functions of the means ``m`` by
        name: ``m["m2"]`` for one run, ``m[0]["m2"]`` or ``m["cold"]["m2"]`` for several. A result is a real or complex
        number or array. Means are those of the run, or moments of its magnetization m and energy density e: ``m``,
        ``abs_m``, ``m2``, ``m4``, ``m6``, ``e``, ``e2``; and two-point functions such as ``structure_factor``, as recorded
        or of the fields that were kept.
    method : str
        ``"gamma"``, or ``"jackknife"`` over blocks of ten autocorrelation times, as always for reweighted means.
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
    for run in structure.runs:
        run.used.clear()
    _checked_call(name, function, structure.means(recording=True))  # says which primaries it uses
    used = [run for run in structure.runs if run.used]
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

    vector = jnp.asarray(means)
    evaluate, differentiate, of_each = _compiled(Traced(flat, vector, differentiable=True))
    value, slopes = np.asarray(evaluate(vector)), np.asarray(differentiate(vector))
    if not np.all(np.isfinite(value)) or not np.all(np.isfinite(slopes)):
        fix = "At the means it has to be smooth: no root or quotient of zero, no maximum."
        raise ArgumentError(
            f"quantity {name!r}", "a finite value and derivative", "one that is not finite", fix, reason="finite"
        )
    shares, starts = [], np.cumsum([0, *sizes])
    for k, run in enumerate(used):
        own = slice(starts[k], starts[k + 1])

        def at(replicas, own=own):
            """The outputs with other means of this run, shape (replicas, size)."""
            rows = np.tile(means, (len(replicas), 1))
            rows[:, own] = replicas
            return np.asarray(of_each(jnp.asarray(rows)))

        if isinstance(run, Pooled):
            shares.append(_from_replicas(run, slopes[:, own], at, value))
        else:
            shares.append(_from_series(run, slopes[:, own], at, value, method, stau))
    return Part.joined(value, shares, shape, is_complex)


@functools.lru_cache(maxsize=64)
def _compiled(flat: Traced) -> tuple[Callable, Callable, Callable]:
    """A function of one vector, its derivative, and the function of many vectors."""

    def jacobian(vector):
        wide = len(vector) > jax.eval_shape(flat, vector).size
        return (jax.jacrev if wide else jax.jacfwd)(flat)(vector)

    return jax.jit(flat), jax.jit(jacobian), jax.jit(lambda rows: jax.lax.map(flat, rows))


def _from_series(run: Run, slopes, at: Callable, value, method: str, stau: float) -> Share:
    series = run.project(slopes)  # (chains, draws, outputs)
    found = gamma_method(series, stau=stau)
    # blocks are long enough for the slowest output; what their variance lacks is known for each
    blocks = dataclasses.replace(blocks_for(series, most=MAX_BLOCKS), tau_int=found.tau_int)
    estimates = at(run.without_each(blocks))
    error = found.error if method == "gamma" else jackknife_error(blocks, estimates)
    bias = jackknife_bias(blocks, estimates, value)
    reliable = found.reliable | ~np.any(slopes, axis=1)  # or of outputs that do not depend on this run
    return Share(run, error, bias, found.tau_int, found.tau_int_error, found.window, reliable, series)


def _from_replicas(run: Pooled, slopes, at: Callable, value) -> Share:
    squares, bias, rows, tau, enough = np.zeros_like(value), np.zeros_like(value), [], 0.5, True
    inflation: list = []
    for blocks, means in run.without_each():
        estimates = at(means)
        squares = squares + jackknife_error(blocks, estimates) ** 2
        bias = bias + jackknife_bias(blocks, estimates, value) / blocks.inflation
        inflation.append(blocks.inflation)
        rows.append((estimates - estimates.mean(axis=0)) * np.sqrt(blocks.inflation))
        tau, enough = max(tau, blocks.tau_int), enough and blocks.long_enough
    # The mixture weighs each ensemble by its draws, so a replica also shifts the weights. Over all ensembles these shifts
    # cancel, and would not if each had a factor of its own.
    bias = bias * float(np.mean(inflation))
    same = np.ones_like(value)
    reliable = enough & ~np.any((slopes != 0) & ~run.reliable, axis=1)
    return Share(
        run, np.sqrt(squares), bias, tau * same, np.nan * same, 0 * same.astype(int), reliable, np.concatenate(rows)
    )


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
