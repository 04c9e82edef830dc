"""Means with errors that know the autocorrelation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from ..autocorrelation import gamma_method
from ..datatree import metadata
from ..errors import ArgumentError

__all__ = ["estimate", "scalar_names", "series"]

COLUMNS = ("mean", "error", "tau_int", "tau_int_error", "effective_sample_size", "reliable")
MAX_ELEMENTS = 500  # of a variable that is shown without being asked for


def series(tree: xr.DataTree, name: str) -> np.ndarray:
    """A variable of the posterior as an array of shape (chain, draw, *element)."""
    posterior = tree["posterior"]
    if name not in posterior.data_vars:
        names = ", ".join(repr(str(n)) for n in posterior.data_vars)
        raise ArgumentError("names", f"variables of the posterior: {names}", repr(name))
    return posterior[name].transpose("chain", "draw", ...).values


def scalar_names(tree: xr.DataTree) -> list[str]:
    """Variables that a table shows by default: all real ones but fields (unless there is nothing else) and large arrays."""
    fields = metadata(tree)["fields"]
    posterior = tree["posterior"]
    posterior = posterior.dataset[[n for n, v in posterior.data_vars.items() if v.size and v.dtype.kind != "c"]]
    sizes = {str(n): v.size // (v.sizes["chain"] * v.sizes["draw"]) for n, v in posterior.data_vars.items()}
    small = [n for n, size in sizes.items() if size <= MAX_ELEMENTS]
    return [n for n in small if n not in fields] or small


class EstimateTable(pd.DataFrame):
    """A data frame that prints all its columns, with four digits."""

    def __repr__(self) -> str:
        return self.to_string(float_format=lambda value: f"{value:.4g}")


def estimate(tree: xr.DataTree, names=None) -> pd.DataFrame:
    """Mean, error and integrated autocorrelation time of observables, over all chains.

    By the Γ-method from the kept draws; where a run was thinned, by blocking from the statistics that were streamed, which know
    the iterations between the kept draws too.

    Parameters
    ----------
    tree : xarray.DataTree
        From `phi4ppl.sample`.
    names : str or list of str, optional
        Variables of the posterior; by default all but the fields. Array variables give one row an element.

    Returns
    -------
    pandas.DataFrame
        Columns ``mean``, ``error`` (one standard error of the mean; of couplings from `phi4ppl.infer_couplings` that of log Z
        too), ``tau_int`` and ``tau_int_error`` (½ for independent
        draws; in draws, and in iterations where a run was thinned), ``effective_sample_size`` and ``reliable`` (False where
        chains are too short for their τ_int, or disagree: then the error is not to be trusted). A variable with a draw that is
        infinite or NaN has a row of NaN.

    Raises
    ------
    ArgumentError
        For names that are not in the posterior, and series that are too short or not of real numbers.

    Notes
    -----
    Sources: U. Wolff, Comput. Phys. Commun. 156 (2004) 143; `phi4ppl.sampling.streaming` for blocking.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
    >>> tree = p4.sample(model, num_warmup=200, num_samples=500, observables={"m2": lambda phi: phi.mean() ** 2})
    >>> table = p4.estimate(tree, "m2")
    >>> exact = 0.06611213769199269
    >>> bool(abs(table.loc["m2", "mean"] - exact) < 5 * table.loc["m2", "error"])
    True
    """
    thinned = metadata(tree)["settings"]["thinning"] > 1
    names = scalar_names(tree) if names is None else [names] if isinstance(names, str) else list(names)
    rows, index = [], []
    for name in names:
        values = series(tree, name)
        streamed = _streamed(tree, name) if thinned else None
        columns = _with_normalizer_error(tree, name, _by_gamma_method(values) if streamed is None else streamed)
        for element in np.ndindex(values.shape[2:]):
            index.append(name + (f"[{','.join(map(str, element))}]" if element else ""))
            rows.append([np.asarray(columns[column])[element] for column in COLUMNS])
    return EstimateTable(rows, index=index, columns=list(COLUMNS))


def _with_normalizer_error(tree: xr.DataTree, name: str, columns: dict) -> dict:
    """The columns with the error that log Z gives to the mean of an inferred coupling, in quadrature."""
    from_log_z = metadata(tree)["settings"].get("normalizer_error", {}).get(name)
    return columns if from_log_z is None else columns | {"error": np.hypot(columns["error"], from_log_z)}


def _by_gamma_method(values: np.ndarray) -> dict[str, np.ndarray]:
    if values.dtype.kind != "f":
        return gamma_method(values)._asdict()
    finite = np.isfinite(values).all(axis=(0, 1))
    found = gamma_method(np.where(finite, values, 0))._asdict()
    return {name: np.where(finite, found[name], False if name == "reliable" else np.nan) for name in COLUMNS}


def _streamed(tree: xr.DataTree, name: str) -> dict[str, np.ndarray] | None:
    """The columns of `estimate` for a variable that was streamed, and has an error."""
    group = tree.children.get("streamed")
    if group is None or name not in group.data_vars:
        return None
    found = {str(key): group[name].sel(statistic=key).values for key in group["statistic"].values}
    if not np.isfinite(found["error"]).all():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        found["effective_sample_size"] = found["count"] / (2 * found["tau_int"])
    return found | {"reliable": found["reliable"].astype(bool)}
