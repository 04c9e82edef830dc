"""Means with errors that account for autocorrelation, next to the spread of what is estimated."""

from __future__ import annotations

import html
from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from ..analysis.gamma_method import gamma_method
from ..errors.arguments import call_checked
from ..reports.numbers import in_columns
from .contents import element_names, facts_of, scalar_names, series, spacing
from .datatree import draws_digest
from .settings import tree_of

__all__ = ["EstimateTable", "estimate"]

WITHIN = (0.03, 0.97)  # the interval: 94 % of the draws, the same share on either side
COLUMNS = ("mean", "sd", "3%", "97%", "error", "tau_int", "tau_int_error", "effective_sample_size", "reliable")
DIGITS = {  # the column whose two digits settle those of another
    "mean": "error", "error": "error", "sd": "sd", "3%": "sd", "97%": "sd", "tau_int": "tau_int_error",
    "tau_int_error": "tau_int_error",
}  # fmt: skip
TITLES = {"error": "MC error", "tau_int_error": "±tau_int", "effective_sample_size": "ESS"}
MIN_REPLICA_Q = 1e-3  # below it the chains of one element disagree; a table of n elements asks for the n-th part


class EstimateTable(pd.DataFrame):
    """A data frame that prints two digits of every error, and no more digits of a value than its error allows.

    The Monte Carlo error settles the digits of the mean, two digits of the standard deviation those of the interval. Parts of
    the table, such as ``table.head()``, print alike; the numbers themselves are not rounded.

    Attributes
    ----------
    warnings : tuple of str
        What the numbers are of, where that is not plain; printed below the table.
    """

    @property
    def _constructor(self):
        return EstimateTable

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self.attrs.get("warnings", ()))

    def _shown(self) -> pd.DataFrame:
        """The table as text, with titles for people."""
        shown = {}
        for name in self.columns:
            rule = DIGITS.get(name)
            errors = self[rule] if rule in self.columns else [None] * len(self)
            shown[TITLES.get(name, name)] = [_shown(name, *pair) for pair in zip(self[name], errors, strict=True)]
        return pd.DataFrame(shown, index=self.index)

    def __repr__(self) -> str:
        return "\n".join([self._shown().to_string(), *self.warnings])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self._shown().to_html() + "".join(f"<p>{html.escape(text)}</p>" for text in self.warnings)


def _shown(name: str, value, error: float | None) -> str:
    """One cell: with the digits that ``error``, of the same row, allows."""
    if name == "effective_sample_size":
        return f"{value:.0f}"
    if error is not None:
        return in_columns(value, error)[name == DIGITS[name]]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@call_checked
def estimate(tree: xr.DataTree, names: str | Iterable[str] | None = None) -> EstimateTable:
    """Mean, spread, and Monte Carlo error of the mean, of the draws that a tree holds, over all chains.

    By the Γ-method from the draws. Where a run was thinned, by blocking from the statistics that were streamed, which include
    the iterations between the kept draws; but only for variables whose draws are all there, unchanged. Of a part of a run, or
    of draws that something else wrote in their place, the estimate is that of the draws in the tree.

    Parameters
    ----------
    tree : xarray.DataTree or Posterior
        From `phi4ppl.sample` or `phi4ppl.infer_couplings`, or any with a group ``posterior`` of dimensions chain and draw
        (ArviZ makes them of the runs of NumPyro, PyMC or Stan).
    names : str or list of str, optional
        Variables of the posterior; by default all but the fields. Array variables give one row per element, named by its
        coordinates.

    Returns
    -------
    EstimateTable
        A pandas.DataFrame. Two things that are easily confused stand side by side. How far the quantity itself spreads:
        ``mean``, ``sd`` (the standard deviation) and ``3%``, ``97%`` (the ends of the equal-tailed 94 % interval of the
        draws). How well its mean is known from this run: ``error``, the Monte Carlo error (one standard error of the mean,
        printed as ``MC error``), which falls as the run gets longer; of couplings from `phi4ppl.infer_couplings` with the
        error of log Z. Then ``tau_int`` and ``tau_int_error`` (½ for independent draws; in draws, and in iterations where
        streamed statistics were used, as ``warnings`` says), ``effective_sample_size``, and ``reliable`` (False where chains
        are too short for their τ_int, or disagree: then the error should not be trusted). A variable with a draw that is
        infinite or NaN has a row of NaN.

    Raises
    ------
    ArgumentError
        If the tree has no such group, for names that are not in it, and series that are too short or not of real numbers.

    Notes
    -----
    Chains disagree where the spread of their means has a probability below 0.001/n given the error found. Here n is the number
    of elements of the default table, plus those of the variable itself if it is not in that table. So 0.1 to 0.3 % of healthy
    tables, not of their rows, have a row that is called unreliable for this reason.

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
    tree = tree_of(tree)
    facts = facts_of(tree)
    default = scalar_names(tree, facts)
    names = default if names is None else [names] if isinstance(names, str) else list(names)
    shown = {name: _elements(tree, name) for name in default}
    rows, index, from_stream = [], [], {}
    for name in names:
        values = series(tree, name)
        number = sum(shown.values()) + (0 if name in shown else _elements(tree, name))
        streamed = _streamed(tree, name, values, number)
        columns = _by_gamma_method(values, number) if streamed is None else streamed
        if streamed is not None and _only_too_short(streamed, number):
            # blocking needs longer series than the Γ-method: the kept draws alone may do
            kept = _by_gamma_method(values, number)
            streamed, columns = (None, kept) if np.all(kept["reliable"]) else (streamed, columns)
        columns = _spread(values) | _with_normalizer_error(facts, name, columns)
        from_stream[name] = streamed is not None
        index += element_names(tree["posterior"][name])
        rows += [[np.asarray(columns[c])[element] for c in COLUMNS] for element in np.ndindex(values.shape[2:])]
    table = EstimateTable(rows, index=index, columns=list(COLUMNS))
    table.attrs["warnings"] = _notes(from_stream, spacing(tree, facts)) + _notes_on_log_z(facts, names, table["error"])
    return table


def _elements(tree: xr.DataTree, name: str) -> int:
    sizes = tree["posterior"][name].sizes
    return int(np.prod([size for dim, size in sizes.items() if dim not in ("chain", "draw")], dtype=int))


def _with_normalizer_error(facts: dict, name: str, columns: dict) -> dict:
    """The columns with the error that log Z gives to the mean of an inferred coupling, in quadrature."""
    from_log_z = facts["settings"].get("normalizer_error", {}).get(name)
    return columns if from_log_z is None else columns | {"error": np.hypot(columns["error"], from_log_z)}


def _notes_on_log_z(facts: dict, names: list[str], total) -> list[str]:
    """How much of the error of a coupling is that of log Z, where it matters: at least a tenth of it."""
    errors = facts["settings"].get("normalizer_error", {})
    which = [f"{name} {errors[name]:.2g}" for name in names if name in errors and errors[name] >= 0.1 * total[name] > 0]
    return [f"MC error includes the error of log Z, which alone is {', '.join(which)}"] if which else []


def _notes(from_stream: dict[str, bool], iterations: int | None) -> list[str]:
    """In what τ_int is, where it is not in draws of every iteration."""
    if iterations == 1 and not any(from_stream.values()):
        return []
    apart = "not all the same number of iterations apart" if iterations is None else f"{iterations} iterations apart"
    kinds = {
        True: "from all iterations of the run, tau_int in iterations",
        False: "from the draws in this tree, tau_int in draws" + (f", which are {apart}" if iterations != 1 else ""),
    }
    notes = []
    for kind, text in kinds.items():
        which = [name for name, streamed in from_stream.items() if streamed is kind]
        if which:
            notes.append(f"{'all rows' if len(which) == len(from_stream) else ', '.join(which)}: {text}")
    return notes


def _only_too_short(streamed: dict[str, np.ndarray], number: int) -> bool:
    """Whether some statistics of all iterations are not reliable, but none because its chains disagree."""
    agree = ~(streamed.get("replica_q", np.nan) < MIN_REPLICA_Q / number)
    return bool(np.any(~streamed["reliable"]) and np.all(streamed["reliable"] | agree))


def _spread(values: np.ndarray) -> dict[str, np.ndarray]:
    """Standard deviation and interval of the draws."""
    if values.dtype.kind not in "fiub":
        return {}
    draws = values.reshape(-1, *values.shape[2:]).astype(float)
    with np.errstate(invalid="ignore"):
        ends = np.quantile(draws, WITHIN, axis=0)
        spread = {"sd": draws.std(axis=0, ddof=1), "3%": ends[0], "97%": ends[1]}
    finite = np.isfinite(draws).all(axis=0)
    return {name: np.where(finite, found, np.nan) for name, found in spread.items()}


def _by_gamma_method(values: np.ndarray, number: int) -> dict[str, np.ndarray]:
    finite = np.isfinite(values).all(axis=(0, 1)) if values.dtype.kind == "f" else np.ones(values.shape[2:], bool)
    values = np.where(finite, values, 0) if values.dtype.kind == "f" else values
    found = gamma_method(values)._asdict()
    found["reliable"] = _reliable(values, found, number)
    return {n: np.where(finite, found[n], False if n == "reliable" else np.nan) for n in COLUMNS if n in found}


def _reliable(values: np.ndarray, found: dict, number: int) -> np.ndarray:
    """``reliable`` of the Γ-method, where chains may disagree with a probability that allows for the number of elements."""
    reliable, q = np.array(found["reliable"]), np.asarray(found["replica_q"])
    doubtful = ~reliable & (q < MIN_REPLICA_Q) & (q >= MIN_REPLICA_Q / number)
    if doubtful.any():  # are these chains long enough, were it not for their means?
        some = values[..., doubtful].astype(float) if values.ndim > 2 else values.astype(float)[..., None]
        reliable[doubtful] = gamma_method(some - some.mean(axis=1, keepdims=True)).reliable
    return reliable


def _streamed(tree: xr.DataTree, name: str, values: np.ndarray, number: int) -> dict[str, np.ndarray] | None:
    """The columns of `estimate` from all iterations, for a variable that the tree holds as the run left it.

    None for one that was not streamed, has no error, or has changed; and where every iteration was kept.
    """
    group = tree.children.get("streamed")
    if group is None or name not in group.data_vars or values.shape[0] * values.shape[1] == 0:
        return None
    variable, expected = (
        group[name],
        ("statistic", *(d for d in tree["posterior"][name].dims if d not in ("chain", "draw"))),
    )
    if set(variable.dims) != set(expected) or "statistic" not in variable.coords:
        return None
    variable = variable.transpose(*expected)
    known = [str(key) for key in variable["statistic"].values]
    found = dict(zip(known, variable.values, strict=True))
    if not {"mean", "error", "variance", "tau_int", "tau_int_error", "count", "reliable"} <= set(known):
        return None
    if (found["count"] <= values.shape[0] * values.shape[1]).all() or not np.isfinite(found["error"]).all():
        return None
    if variable.attrs.get("draws") != draws_digest(tree["posterior"][name]):
        return None
    reliable = found["reliable"].astype(bool)
    if "long_enough" in found:
        reliable |= found["long_enough"].astype(bool) & (found["replica_q"] >= MIN_REPLICA_Q / number)
    with np.errstate(divide="ignore", invalid="ignore"):
        found["effective_sample_size"] = found["count"] / (2 * found["tau_int"])
    return found | {"reliable": reliable, "sd": np.sqrt(found["variance"])}
