"""Averages over a stationary evolution, with errors: of one run, of a complex one with its verdict, and at step size zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..analysis.derived import derive
from ..analysis.derived_result import Derived
from ..analysis.least_squares import LeastSquares, correlated_fit
from ..errors import ArgumentError, EvolutionError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, positive_int
from ..reports.numbers import value_with_error
from ..results.evolution_tree import GROUP
from ..results.settings import settings
from ..results.tails import pareto_k

__all__ = ["Extrapolated", "extrapolate", "time_averages"]

MAX_DRIFT_K = 0.2  # of the drift of complex Langevin dynamics; exponential tails have 0
MIN_DRIFT_RECORDS = 1000
DRIFT = "largest_drift"
LIKELY = 0.01  # p-value below which a fit is called bad


@call_checked
def time_averages(tree: xr.DataTree, quantities: Any, *, burn_in: float, on_wrong_limit: str = "raise") -> Derived:
    """Averages over time and replicas of a run that has forgotten its start, with errors that know their autocorrelation.

    Parameters
    ----------
    tree : DataTree
        Of `evolve` with `Langevin` or `ComplexLangevin`.
    quantities : list of str, or dict of callables
        Names of what was recorded, real or complex; or JAX functions of one field by name, measured on the fields that were
        kept.
    burn_in : float
        Times below it are left out.
    on_wrong_limit : str
        ``"raise"``, or ``"warn"`` to see what complex Langevin dynamics gives where it is wrong.

    Returns
    -------
    Derived
        ``found["phi2"].value`` and ``.error``; of complex quantities the real part of an error belongs to the real part of the
        value. ``print`` it for a table.

    Raises
    ------
    EvolutionError
        If the drift of a complex run has a tail that falls as a power: k̂ > 0.2 of the generalized Pareto distribution fitted
        to it, where an exponential has 0 and p(u) ~ u^(−1−1/k) has k; or if there are less than 1000 records to judge it by.
    ArgumentError

    Notes
    -----
    The criterion is that of K. Nagata, J. Nishimura and S. Shimasaki, Phys. Rev. D 94 (2016) 114515, with the fit of J. Zhang
    and M. A. Stephens, Technometrics 51 (2009) 316, for the exponent.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> from phi4ppl.dynamics import Langevin, evolve, time_averages
    >>> one = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5)
    >>> start = jax.random.normal(jax.random.key(0), (50, 1))
    >>> tree = evolve(Langevin(one, "exponential"), start, time=40.0, step_size=0.5, every=1.0)
    >>> found = time_averages(tree, {"phi2": lambda phi: phi[0] ** 2}, burn_in=1.0)["phi2"]
    >>> bool(abs(found.value - 1) < 4 * found.error)
    True
    """
    late = _late(tree, burn_in)
    series, functions = {}, {}
    for name, values in _series(late, quantities).items():
        if np.iscomplexobj(values):
            series |= {f"{name} real": values.real, f"{name} imaginary": values.imag}
            functions[name] = lambda m, name=name: m[f"{name} real"] + 1j * m[f"{name} imaginary"]
        else:
            series[name], functions[name] = values, lambda m, name=name: m[name]
    if DRIFT in late:
        _judge(np.asarray(late[DRIFT], float), on_wrong_limit)
    return derive(series, functions)


def _late(tree, burn_in: float) -> xr.Dataset:
    if not isinstance(tree, xr.DataTree) or GROUP not in tree.children:
        raise ArgumentError("tree", "the result of phi4ppl.dynamics.evolve", type(tree).__name__)
    run = tree[GROUP].to_dataset()
    late = run.sel(time=run["time"] >= burn_in)
    if late.sizes["time"] < 8:
        fix = "Evolve for longer, or record more often."
        raise ArgumentError("burn_in", "at least 8 records after it", str(late.sizes["time"]), fix, reason="too_late")
    return late


def _series(late: xr.Dataset, quantities) -> dict[str, np.ndarray]:
    """Arrays of shape (replica, time) and more, in double precision."""
    if isinstance(quantities, Mapping):
        if "phi" not in late:
            fix = "Evolve with keep_field=True, or record the quantities as observables and give their names."
            raise ArgumentError("quantities", "names, where no fields were kept", "functions of a field", fix)
        fields = jnp.asarray(late["phi"].values)
        measure = jax.jit(jax.vmap(jax.vmap(lambda phi: {name: f(phi) for name, f in quantities.items()})))
        found = {name: np.asarray(values) for name, values in measure(fields).items()}
    else:
        names = [quantities] if isinstance(quantities, str) else list(quantities)
        missing = [name for name in names if name not in late]
        if missing:
            known = ", ".join(map(str, late.data_vars))
            raise ArgumentError("quantities", f"names among {known}", repr(missing[0]), reason="name")
        found = {name: late[name].values for name in names}
    return {name: v.astype(complex if np.iscomplexobj(v) else float) for name, v in found.items()}


def _judge(drift: np.ndarray, on_wrong_limit: str) -> None:
    """Refuse a complex run whose drift falls as a power of its size."""
    fix = "Reweight from a real action (phi4ppl.reweight), or choose couplings nearer to the real axis."
    if drift.size < MIN_DRIFT_RECORDS:
        message = f"{drift.size} records of the drift are too few to judge its tail by: {MIN_DRIFT_RECORDS} are needed."
        _refuse("few_records", message, {"records": drift.size}, on_wrong_limit)
    elif (k := pareto_k(np.log(drift.ravel()))) > MAX_DRIFT_K:
        message = (
            f"the drift of this complex Langevin run falls as a power of its size (Pareto k̂ = {k:.2f} > {MAX_DRIFT_K}): "
            f"its averages need not be those of exp(−S)/Z. {fix}"
        )
        _refuse("wrong_limit", message, {"pareto_k": k}, on_wrong_limit)


def _refuse(reason: str, message: str, values: dict, on_wrong_limit: str) -> None:
    if on_wrong_limit == "raise":
        raise EvolutionError(reason, message, values)
    warn(Phi4pplWarning(f"evolution.{reason}", message, values))


@dataclass(frozen=True, repr=False)
class Extrapolated:
    """Averages at step size 0.

    Attributes
    ----------
    value, error : dict
        By name; of complex quantities as in `time_averages`.
    p_value : dict
        Of the fit; of complex quantities the smaller one of their two parts.
    step_sizes : array
    at_steps : dict of Derived
        The averages at every step size.
    warnings : tuple of str
        Of fits that do not describe the averages; empty if all do.
    """

    value: dict
    error: dict
    p_value: dict
    step_sizes: np.ndarray
    at_steps: dict
    warnings: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"step size → 0, from {', '.join(f'{e:g}' for e in self.step_sizes)}"]
        for name, value in self.value.items():
            error = self.error[name]
            shown = value_with_error(float(np.real(value)), float(np.real(error)))
            if np.iscomplexobj(value):
                shown += f" + {value_with_error(float(np.imag(value)), float(np.imag(error)))}i"
            lines.append(f"  {name} = {shown}  (p = {self.p_value[name]:.2g})")
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__


@call_checked
def extrapolate(
    trees: Iterable[xr.DataTree], quantities: Any, *, order: int, burn_in: float, terms: int = 1
) -> Extrapolated:
    """Averages at step size 0 from runs at several step sizes ε: the fit of c₀ + c₁ε^p + c₂ε^(p+1) + …, p = ``order``.

    Parameters
    ----------
    trees : sequence of DataTree
        Of `evolve`, at different step sizes and with different seeds; at least ``terms + 2``, so that the fit can be bad.
    quantities, burn_in
        As in `time_averages`: names of what was recorded, scalars, or functions of a field.
    order : int
        The order of the bias: 1 for ``"euler"``, ``"exponential"`` and complex Langevin dynamics, 2 for ``"heun"``.
    terms : int, default 1
        How many powers.

    Returns
    -------
    Extrapolated
        A warning says where the fit has a p-value below 0.01: use smaller steps, or more terms.

    Raises
    ------
    ArgumentError
        For too few runs, step sizes or seeds used twice (whose noise would be the same), and arrays.
    EvolutionError
        As `time_averages`.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> from phi4ppl.dynamics import Langevin, evolve, extrapolate
    >>> one = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5)
    >>> start = jax.random.normal(jax.random.key(0), (100, 1))
    >>> runs = [
    ...     evolve(Langevin(one), start, time=40.0, step_size=step, every=1.0, seed=seed)
    ...     for seed, step in enumerate((0.1, 0.2, 0.5))
    ... ]
    >>> found = extrapolate(runs, ["phi_squared"], order=1, terms=1, burn_in=5.0)  # 1/(1 − ε/2) → 1
    >>> bool(abs(found.value["phi_squared"] - 1) < 4 * found.error["phi_squared"])
    True
    """
    trees = list(trees)
    order, terms = positive_int("order", order), positive_int("terms", terms)
    if len(trees) < terms + 2:
        raise ArgumentError("trees", f"at least {terms + 2} runs for {terms + 1} coefficients", str(len(trees)))
    averages = [time_averages(tree, quantities, burn_in=burn_in) for tree in trees]
    facts = [settings(tree) for tree in trees]
    for name in ("step_size", "seed"):
        if len({fact[name] for fact in facts}) < len(facts):
            fix = "Equal seeds make equal noise, whose errors are not independent." if name == "seed" else ""
            raise ArgumentError("trees", f"runs with different {name}s", f"one {name} twice", fix, reason="duplicate")
    steps = np.array([fact["step_size"] for fact in facts])
    powers = np.concatenate([[0], order + np.arange(terms)])
    design = steps[:, None] ** powers
    value, error, p_value, warnings = {}, {}, {}, []
    for name in averages[0]:
        parts = [each[name] for each in averages]
        if np.ndim(parts[0].value):
            raise ArgumentError(
                "quantities", "numbers", f"{name!r} of shape {np.shape(parts[0].value)}", reason="shape"
            )
        values, errors = np.array([p.value for p in parts]), np.array([p.error for p in parts])
        fits = [_fit(design, part(values), part(errors)) for part in _parts_of(values)]
        p_value[name] = min(fit.p_value for fit in fits)
        found = [(fit.parameters[0], np.sqrt(fit.covariance[0, 0])) for fit in fits]
        value[name], error[name] = (
            np.array(both) @ [1, 1j] if len(fits) == 2 else both[0] for both in zip(*found, strict=True)
        )
        if p_value[name] < LIKELY:
            text = f"{name}: the fit in the step size has p = {p_value[name]:.1e}. Use smaller steps, or more terms."
            warnings.append(text)
            warn(Phi4pplWarning("evolution.extrapolation", text))
    return Extrapolated(value, error, p_value, steps, dict(zip(steps.tolist(), averages, strict=True)), tuple(warnings))


def _parts_of(values) -> tuple[Callable, ...]:
    return (np.real, np.imag) if np.iscomplexobj(values) else (np.real,)


def _fit(design: np.ndarray, values: np.ndarray, errors: np.ndarray) -> LeastSquares:
    start = np.linalg.lstsq(design / errors[:, None], values / errors, rcond=None)[0]
    return correlated_fit(lambda c: design @ c, values, np.diag(errors**2), start, floor=0, jacobian=lambda c: design)
