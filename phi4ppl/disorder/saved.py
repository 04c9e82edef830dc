"""A quenched run on disk: the model beside the draws, and the averages again from both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from .._typing import PathLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked, path_of
from ..model.field import MarkovRandomField
from ..model.io import arrays_of_terms, terms_of_arrays
from ..results.datatree import load_run
from ..results.settings import metadata
from .improper import Improper
from .quenched_result import Quenched

__all__ = ["from_run", "stored_model"]

GROUP, HEADER, SAMPLES = "model", "header", "samples.nc"  # the last one is what `phi4ppl run` calls its draws
UNKNOWN = Improper(0.0, 1.0, "not recorded in the run")


def stored_model(model: MarkovRandomField) -> dict[str, xr.Dataset]:
    """The model as a group of a tree; nothing for terms that cannot be stored, those with statistics of the user."""
    try:
        header, arrays = arrays_of_terms(model.lattice, model.terms)
    except ArgumentError:
        return {}
    data = {name: ([f"{name}_dim_{k}" for k in range(np.ndim(v))], np.asarray(v)) for name, v in arrays.items()}
    return {GROUP: xr.Dataset(data, attrs={HEADER: json.dumps(header)})}


@call_checked
def from_run(run: xr.DataTree | PathLike, *, model: MarkovRandomField | None = None) -> Quenched:
    """The result of a quenched run that has been saved: the same averages, verdict and pictures, without sampling again.

    Parameters
    ----------
    run : DataTree or path
        ``result.tree``, a netCDF file written by ``phi4ppl.save_run(result.tree, path)``, or the folder of a ``phi4ppl run`` of
        a file that declares disorder.
    model : MarkovRandomField, optional
        The model without disorder. By default the one stored in the run; needed for terms with statistics of your own, which
        are not stored.

    Returns
    -------
    Quenched

    Raises
    ------
    ArgumentError
        If there is no such run, it has no realisations, or its model is neither stored nor given, or is another one.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, numpyro.distributions as dist, phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.6, b=0.25, r=0.0)
    >>> result = p4.disorder.quenched(
    ...     model, {"r": dist.Normal(0, 0.5)}, num_realizations=20, num_warmup=200, num_samples=500, seed=1
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = p4.save_run(result.tree, os.path.join(folder, "random_field.nc"))
    ...     again = p4.disorder.from_run(path)
    >>> np.allclose(again.averages, result.averages, equal_nan=True), again.passed
    (True, True)
    """
    tree = run if isinstance(run, xr.DataTree) else _loaded(path_of("run", run))
    facts = metadata(tree)["settings"]
    if "posterior" not in tree.children or "realization" not in tree["posterior"].dims or "disorder" not in facts:
        fix = "For one model without disorder see phi4ppl.diagnose and phi4ppl.estimate."
        raise ArgumentError("run", "a run of phi4ppl.disorder.quenched", "one without realisations", fix, reason="kind")
    if model is None:
        model = _model_in(tree)
    found = tree["constant_data"].dataset
    couplings = {name: np.asarray(found[f"coupling_{name}"].values, float) for name in facts["disorder"]}
    _require_same(model, tree)
    improper = Improper(**facts["improper"]) if "improper" in facts else UNKNOWN
    return Quenched(model, couplings, tree, improper)


def _loaded(path: Path) -> xr.DataTree:
    return load_run(path / SAMPLES if path.is_dir() and (path / SAMPLES).is_file() else path)


def _model_in(tree: xr.DataTree) -> MarkovRandomField:
    if GROUP not in tree.children:
        fix = "Statistics of your own are not stored: pass model=, the model without disorder."
        raise ArgumentError("model", "a model, because the run holds none", "None", fix, reason="not_stored")
    data = tree[GROUP].dataset
    arrays = {str(name): values.values for name, values in data.data_vars.items()}
    return MarkovRandomField(*terms_of_arrays(json.loads(data.attrs[HEADER]), arrays))


def _require_same(model: MarkovRandomField, tree: xr.DataTree) -> None:
    """Reject a model whose couplings or sites are not those of the run."""
    data = tree["constant_data"].dataset
    names = {str(name).removeprefix("coupling_") for name in data.data_vars if str(name).startswith("coupling_")}
    if names != set(model.couplings):
        got = f"one with {', '.join(model.couplings)}"
        raise ArgumentError("model", f"a model with the couplings {', '.join(sorted(names))}", got, reason="couplings")
    posterior = tree["posterior"]
    if "phi" in posterior:
        shape = posterior["phi"].transpose("chain", "draw", "realization", ...).shape[3:]
        if shape != model.field_shape:
            got = f"shape {model.field_shape}"
            raise ArgumentError("model", f"a model whose field has the shape {shape}", got, reason="shape")
