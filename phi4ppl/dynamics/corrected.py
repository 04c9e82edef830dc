"""Fields that a process made become fields of a model: by sweeps of its exact kernel."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import xarray as xr

from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..model.field import MarkovRandomField
from ..results.correction import MAX_SWEEPS, Corrected, by_sweeps, tuned_step_size
from ..results.evolution_tree import GROUP

__all__ = ["correct"]

MIN_FIELDS = 16


@call_checked
def correct(
    fields: Any, model: MarkovRandomField, *, kernel: str = "auto", sweeps: int | None = None,
    max_sweeps: int = MAX_SWEEPS, seed: int = 0,
) -> Corrected:  # fmt: skip
    """Sweeps of an exact kernel of the model over independent fields, until no observable moves any more.

    Every sweep leaves exp(−S)/Z as it is, so that what a diffusion model (or a Langevin run with finite steps) got wrong is
    forgotten. First sweeps of single sites, then clusters where the model has them. Their number is doubled until energy, φ²,
    susceptibility, Binder cumulant and ξ/L differ by less than two errors from what they were at half of it, field by field,
    and none of them may still drift.

    Parameters
    ----------
    fields : DataTree of `evolve`, or array of shape ``(num_fields, *field_shape)``
        Of a tree the fields of its last time, one per replica. They have to be independent of each other.
    model : MarkovRandomField
        On a lattice that is periodic in all directions.
    kernel : str
        ``"cluster"``, ``"local_hmc"``, or ``"auto"``, which chooses.
    sweeps, max_sweeps : int, optional
        A fixed number, or the largest one.
    seed : int

    Returns
    -------
    Corrected
        ``fields``; ``before`` and ``after`` with ``values`` and ``errors`` by name; ``sweeps``; ``converged``, without which
        there is a warning.

    Raises
    ------
    ArgumentError
        For less than 16 fields, or a model whose kernel is another one.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> model = p4.gaussian(p4.lattice.square(4), w=0.2, a=1.0)
    >>> wrong = np.random.default_rng(0).normal(size=(400, 4, 4))
    >>> found = p4.dynamics.correct(wrong, model)
    >>> exact = np.linalg.inv(p4.exact.gaussian_precision(model))[0, 0]  # ⟨φ²⟩
    >>> value, error = found.after.pair("phi_squared")
    >>> bool(abs(value - exact) < 4 * error), bool(abs(found.before.values["phi_squared"] - exact) > 20 * error)
    (True, True)
    """
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__)
    if isinstance(fields, xr.DataTree):
        if GROUP not in fields.children or "phi" not in fields[GROUP]:
            raise ArgumentError("fields", "a tree of evolve with keep_field=True", "another one")
        fields = fields[GROUP]["phi"].isel(time=-1).values
    fields = finite_array("fields", fields)
    if fields.shape[1:] != model.field_shape or len(fields) < MIN_FIELDS:
        expected = f"at least {MIN_FIELDS} fields of shape {model.field_shape}"
        raise ArgumentError("fields", expected, f"shape {fields.shape}", reason="shape")
    sweeps = None if sweeps is None else positive_int("sweeps", sweeps)
    max_sweeps, seed = positive_int("max_sweeps", max_sweeps), seed_within(seed)
    fields = fields.astype(jnp.result_type(float))
    step_size = tuned_step_size(model, fields, kernel, seed=seed)
    found = by_sweeps(
        model, fields, step_size=step_size, kernel=kernel, sweeps=sweeps, max_sweeps=max_sweeps, seed=seed
    )
    if not found.converged:
        text = f"observables still moved after {found.sweeps} sweeps: raise max_sweeps, or start from better fields."
        warn(Phi4pplWarning("evolution.correction", text, {"sweeps": found.sweeps}))
    return found
