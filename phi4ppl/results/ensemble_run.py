"""Many models of one structure sampled at once, in one tree."""

from __future__ import annotations

import time

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..analysis.observables import with_own
from ..analysis.two_point import TWO_POINT, dims_of
from ..energy.compiled import compile_field
from ..energy.functions import energy, log_density
from ..errors import ArgumentError, HammersleyCliffordError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_key
from ..kernels.choose import resolve
from ..kernels.kernel import Kernel
from ..kernels.symmetry import is_even
from ..lattice.labels import field_dims, is_labeled
from ..model.field import MarkovRandomField
from ..sampling.engine import Engine
from ..sampling.memory import require_memory
from ..sampling.progress import Progress
from .datatree import provenance
from .settings import mark_groups, write_metadata

__all__ = ["sample_ensemble"]

LOOKED_AT = 16  # members, evenly spaced, before a kernel is chosen


@call_checked
def sample_ensemble(
    model: MarkovRandomField, couplings: dict, *, num_warmup: int = 1000, num_samples: int = 1000, num_chains: int = 4,
    kernel: Kernel | str = "auto", seed: int = 0, observables: dict | list[str] | None = None,
    keep_field: bool = True, thinning: int = 1, progress: bool | None = None,
) -> xr.DataTree:  # fmt: skip
    """Draws of a field at many couplings at once, as one `xarray.DataTree`: scans, phase diagrams, disorder.

    All members share one compiled program, in which couplings are an axis; each has chains, its own warm-up and tuning.
    One member at a time would compile and start as often as there are members.

    Parameters
    ----------
    model : MarkovRandomField
        Couplings that are not named stay as they are.
    couplings : dict
        Name → array with a leading axis of members: shape ``(num_members,)`` for one number per member, or
        ``(num_members, num_cliques)``.
    num_warmup : int, default 1000
        Iterations of warm-up per chain, which are not kept; at least 20.
    num_samples : int, default 1000
        Kept draws per chain, at least 10.
    num_chains : int, default 4
        Chains per member.
    kernel : str or Kernel, default "auto"
        As in `phi4ppl.sample`. ``"auto"`` looks at the first member, and takes ``"tempering"`` if one of 16 members needs it;
        the ladder of ``"tempering"`` suits the hardest of them.
    seed : int, default 0
    observables : list of str, or dict of callables, optional
        As in `phi4ppl.sample`.
    keep_field : bool, default True
        Keep the fields themselves, or observables only.
    thinning : int, default 1
        Iterations of the kernel per kept draw.
    progress : bool, optional
        Draw a line of progress on standard error; by default only on a terminal.

    Returns
    -------
    xarray.DataTree
        ``posterior`` with the dimensions chain, draw, ``member`` and those of the lattice: the field ``phi`` and the
        observables; ``sample_stats`` with ``lp`` = −S and ``schwinger_dyson``, φ ∂S/∂φ averaged over sites, whose mean is 1;
        ``constant_data`` with ``coupling_NAME`` of every member. `phi4ppl.diagnose` takes one member,
        ``tree.isel(member=0)``.

    Raises
    ------
    HammersleyCliffordError
        If a member is not normalizable; the message has its number.
    ArgumentError, MemoryLimitError, SamplingError

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(4), a=1.5, b=0.2)
    >>> tree = p4.sample_ensemble(model, {"a": np.linspace(1.5, 2.5, 3)}, num_warmup=100, num_samples=100)
    >>> dict(tree["posterior"]["phi"].sizes)
    {'chain': 4, 'draw': 100, 'member': 3, 'x': 4, 'y': 4}
    """
    num_warmup = positive_int("num_warmup", num_warmup, minimum=20)
    num_samples = positive_int("num_samples", num_samples, minimum=10)
    num_chains, thinning = positive_int("num_chains", num_chains), positive_int("thinning", thinning)
    seed, began = seed_within(seed), time.monotonic()
    each = _members(model, couplings)
    models = jax.tree.map(lambda *values: jnp.stack([jnp.asarray(v) for v in values]), *each)
    members = len(each)
    first, *others = (compile_field(each[k]) for k in np.unique(np.linspace(0, members - 1, LOOKED_AT).astype(int)))
    chosen, reason = resolve(kernel, first, others=others)
    compiled, even = compile_field(model), all(map(is_even, each))
    dims, coords = field_dims(model.lattice)
    measured = with_own(model, observables, ("chain", "draw", "member", "lp", "schwinger_dyson", *dims))
    measured.pop("energy_density", None)
    functions = tuple((name, _of_field(function)) for name, function in measured.items())
    _require_room(functions, model, keep_field, members * num_chains, num_samples)
    engine = Engine(
        models, kernel=chosen, num_chains=num_chains, key=stream_key(seed, "ensemble"),
        num_members=members, keep_field=keep_field,
        observables=(*functions, ("lp", log_density), ("schwinger_dyson", _schwinger_dyson)),
    )  # fmt: skip
    with Progress(num_warmup + num_samples * thinning, progress) as bar:
        bar.message(f"compiling {engine.kernel.name} for {members} models …")
        engine.warm_up(models, num_warmup, progress=bar)
        draws = engine.draw(models, num_samples, thinning, progress=bar)
    values = {name: np.moveaxis(value, 0, 2) for name, value in draws.observables.items()}
    statistics = {name: values.pop(name) for name in ("lp", "schwinger_dyson")}
    values["energy_density"] = -statistics["lp"] / model.lattice.num_sites
    if keep_field:
        values = {"phi": np.moveaxis(draws.fields, 0, 2)} | values
    axes, points = dims_of(measured.keys() & TWO_POINT, model.lattice)
    names = dict.fromkeys([*values, *statistics], ["member"]) | {n: ["member", *d] for n, d in axes.items()}
    names["phi"] = ["member", *dims]
    tree = arviz_base.from_dict(
        {"posterior": values, "sample_stats": statistics}, dims=names,
        coords={"member": np.arange(members), **points, **(coords if keep_field else {})}, check_conventions=False,
    )  # fmt: skip
    constant = {f"coupling_{name}": np.asarray(value) for name, value in models.couplings.items()}
    clique_axes: dict = {name: ["member", f"clique_{name}"][: value.ndim] for name, value in constant.items()}
    tree["constant_data"] = xr.DataTree(arviz_base.dict_to_dataset(constant, sample_dims=[], dims=clique_axes))
    made = {
        "members": members, "kernel": engine.kernel.name, "kernel_reason": reason, "num_warmup": num_warmup,
        "num_samples": num_samples, "num_chains": num_chains, "seed": seed, "thinning": thinning,
        "even": even, "sign_moves": even,
        "dtype": str(statistics["lp"].dtype), "layout": compiled.layout, "seconds": round(time.monotonic() - began, 3),
        "interrupted": False, "incomplete": False,
    }  # fmt: skip
    write_metadata(tree, provenance(compiled, {}) | {"settings": made})
    mark_groups(tree)
    return tree


def _of_field(function):
    """The observable as a function of a model and a field; standard ones are the same function every time."""
    if not hasattr(function, "of_model"):
        wrapped = lambda model, phi: function(phi)  # noqa: E731
        if not getattr(function, "coupling_free", False):
            return wrapped
        function.of_model = wrapped
    return function.of_model


def _schwinger_dyson(model, phi):
    """φ ∂S/∂φ, averaged over sites: 1 on average for any correct sampler."""
    return jnp.mean(phi * jax.grad(energy, argnums=1)(model, phi))


def _members(model: MarkovRandomField, couplings: dict) -> list[MarkovRandomField]:
    """The models, each checked."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    if not isinstance(couplings, dict) or not couplings:
        raise ArgumentError(
            "couplings", "a dict of arrays by name", repr(couplings)[:80], "For example {'a': [1.0, 1.5]}."
        )
    for name, value in couplings.items():
        if is_labeled(value) and np.ndim(value) != 1:
            fix = f"Its labels would not be read: give an array with columns in the order of the cliques of {name!r}."
            raise ArgumentError(
                f"coupling {name!r}", "numbers without labels", f"a {type(value).__name__}", fix, reason="labels"
            )
    arrays = {name: finite_array(f"coupling {name!r}", value) for name, value in couplings.items()}
    lengths = {name: len(value) if np.ndim(value) else 0 for name, value in arrays.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ArgumentError(
            "couplings", "arrays with one leading axis of members", f"lengths {lengths}", reason="shape"
        )
    members = next(iter(lengths.values()), 0)
    each = [model.replace(**{name: value[k] for name, value in arrays.items()}) for k in range(members)]
    for k, one in enumerate(each):
        report = one.check()
        if not report.satisfied:
            raise HammersleyCliffordError("member", f"member {k}: {report}")
    return each


def _require_room(functions, model, keep_field: bool, chains: int, num_samples: int) -> None:
    field = jax.ShapeDtypeStruct(model.field_shape, jnp.result_type(float))
    record = {name: jax.eval_shape(function, model, field) for name, function in functions}
    require_memory(record | ({"phi": field} if keep_field else {}), chains, num_samples)
