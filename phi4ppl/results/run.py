"""One call from a declared model to a `DataTree`: check, compile, sample, arrange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import xarray as xr

from .._typing import PathLike
from ..analysis.observables import with_own
from ..analysis.two_point import TWO_POINT, dims_of
from ..errors import ArgumentError
from ..errors.arguments import arguments_by_name, call_checked, path_of, positive_int, seed_within
from ..kernels.choose import resolve
from ..kernels.kernel import Kernel
from ..kernels.symmetry import is_even
from ..lattice.labels import field_dims
from ..model.field import MarkovRandomField
from ..numpyro_plugin.numpyro_model import compile as compile_model
from ..sampling.chains import run_chains
from ..sampling.devices import placement, require_spreadable
from .datatree import frame_of, to_datatree, with_axes
from .predictive_groups import predictions_of
from .starts import begun, starts_of

__all__ = ["sample"]

MAX_WARMUP = 10**7  # each has a place in a plan


@call_checked
def sample(
    model: MarkovRandomField | Callable, *args: Any, num_warmup: int = 1000, num_samples: int = 1000, num_chains: int = 4,
    kernel: Kernel | str = "auto", seed: int = 0, observables: dict | list[str] | None = None,
    keep_field: bool = True, thinning: int = 1, symmetry_moves: bool = True,
    progress: bool | None = None, checkpoint: PathLike | None = None, model_kwargs: dict | None = None,
    devices: dict | None = None, coords: dict | None = None, dims: dict | None = None,
    predictive: bool = False, start: dict | None = None,
) -> xr.DataTree:  # fmt: skip
    """Draws of a field or of any NumPyro model, with all that was measured of them, as an ArviZ `xarray.DataTree`.

    A field is first checked against the Hammersley–Clifford theorem. All chains run in one compiled program, each with its own
    warm-up (of step sizes, mass matrix, length of paths or temperatures, as the kernel requires), in chunks between which
    progress is drawn and draws are handed to the host. The same seed gives the same numbers, bit for bit, on the same
    machine.

    Parameters
    ----------
    model : MarkovRandomField or callable
        A field, or a NumPyro model function, called with ``*args`` and ``**model_kwargs``.
    num_warmup : int, default 1000
        Iterations of warm-up per chain, which are not kept; from 20 to 10⁷.
    num_samples : int, default 1000
        Kept draws per chain, at least 10.
    num_chains : int, default 4
        Independent chains, at least 1.
    kernel : str or Kernel, default "auto"
        A name from `phi4ppl.kernels`; ``"auto"`` looks at the model, and the run says what it took and why (``kernel`` and
        ``kernel_reason`` of its settings).
    seed : int, default 0
        From 0 to 2³² − 1.
    observables : list of str, or dict of callables, optional
        Recorded at every draw in addition to the standard ones: names such as ``["structure_factor"]``, of which
        `phi4ppl.analysis.quantity_names` has the formulas, or user-defined functions of one field (scalar or array).
        NumPyro models use ``numpyro.deterministic`` instead.
    keep_field : bool, default True
        Keep the fields themselves (as ``phi``, or under the names of the `GibbsField` sites) and the log likelihood of every
        datum, or observables only.
    thinning : int, default 1
        Iterations of the kernel per kept draw. Those between are not lost: the group ``streamed`` has mean, error, variance and
        τ_int of every observable, and of the field at every site, over all iterations.
    symmetry_moves : bool, default True
        Mix the exact global sign flip φ → −φ into the chains of a model that is even under it (for a NumPyro model, of all
        `GibbsField` sites together). Without it, chains of a model with two phases can stay in the one where they started,
        with R̂ = 1.
    progress : bool, optional
        Show a progress bar on standard error; by default only in a terminal.
    checkpoint : path-like, optional
        A directory for the state of the run, written about once a minute. Repeating the call with the same directory
        resumes from there, to the same numbers bit for bit; if the run is complete, its result is returned.
        `phi4ppl.load_run` reads the directory at any time.
    devices : dict, optional
        How many devices each dimension is spread over, for example ``{"chain": 4}`` or ``{"chain": 2, "x": 4}``: chains, and
        the lattice dimensions of a field by their names in the result. Each size has to be divisible by its number. Devices of
        all processes count that ``jax.distributed.initialize`` has joined; each of them gets the whole result, and the first
        one draws progress and writes files. By default all chains run on one device.
    model_kwargs : dict, optional
        Keyword arguments of a NumPyro model.
    coords : dict, optional
        Dimension → labels along it, of a NumPyro model.
    dims : dict, optional
        Site of a NumPyro model → names of its dimensions; by default those of its plates.
    predictive : bool, default False
        Of a NumPyro model, add ``posterior_predictive``, ``prior``, ``prior_predictive`` and ``log_prior``.
    start : dict, optional
        Where the chains begin: values of latent sites by name, in the space of the model (a scale is positive), one for all
        chains or with a leading axis of length ``num_chains``. A field by itself is ``"phi"``. Sites that are not named start
        at random. Warm-up follows as usual.

    Returns
    -------
    xarray.DataTree
        ArviZ groups: ``posterior`` (field with lattice dimensions, observables), ``sample_stats``, ``streamed`` (statistics
        over all iterations), ``schwinger_dyson`` (block means of φ ∂S/∂φ at every site), ``constant_data`` (edges, couplings,
        and the arrays among the arguments of a NumPyro model), for NumPyro models ``log_likelihood`` (one number per datum, see
        `phi4ppl.loo`) with ``observed_data``, and what ``predictive`` adds. `phi4ppl.settings` reads its provenance. After
        Ctrl-C it has the draws so far, with a warning, and its settings then include ``interrupted``.

    Raises
    ------
    HammersleyCliffordError
        If a field is not normalizable (or not positive); an intrinsic field can only be a prior in a NumPyro model.
    MemoryLimitError
        If the kept draws would not fit in memory; nothing is computed.
    SamplingError
        If a start or a later state has a non-finite density.
    CheckpointError
        If ``checkpoint`` cannot be written, or holds another run or damaged or foreign files, which are left unchanged.
    KeyboardInterrupt
        After Ctrl-C before the first draw, or a second Ctrl-C.
    ArgumentError, DiscreteLatentError, DoublyIntractableError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(3), a=1.9, b=0.175)
    >>> tree = p4.sample(model, num_warmup=200, num_samples=200, num_chains=2)
    >>> dict(tree["posterior"]["phi"].sizes)
    {'chain': 2, 'draw': 200, 'x': 3, 'y': 3}
    """
    fix = "Warm-up adapts step size and mass matrix; 500 to 1000 is usual."
    num_warmup = positive_int("num_warmup", num_warmup, minimum=20, fix=fix)
    if num_warmup > MAX_WARMUP:
        raise ArgumentError("num_warmup", f"at most {MAX_WARMUP}", str(num_warmup), fix, reason="too_large")
    num_samples = positive_int("num_samples", num_samples, minimum=10)
    num_chains = positive_int("num_chains", num_chains, fix="Four or more let R̂ see chains that disagree.")
    thinning = positive_int("thinning", thinning)
    seed = seed_within(seed)
    checkpoint = None if checkpoint is None else path_of("checkpoint", checkpoint)
    if progress is not None and not isinstance(progress, bool):
        raise ArgumentError("progress", "True, False or None", repr(progress))
    for name, flag in (("keep_field", keep_field), ("symmetry_moves", symmetry_moves), ("predictive", predictive)):
        if not isinstance(flag, bool):
            raise ArgumentError(name, "True or False", repr(flag))
    is_field = isinstance(model, MarkovRandomField)
    for name, value in (("coords", coords), ("dims", dims)):
        if is_field and value is not None:
            fix = "A field has the axes and labels of its lattice; phi4ppl.lattice.from_networkx takes the labels of a graph."
            raise ArgumentError(name, "None for a field by itself", repr(value), fix, reason="unused")
    if predictive and (is_field or not keep_field):
        expected = (
            "False for a field by itself"
            if is_field
            else "False with keep_field=False, which keeps no draws to predict from"
        )
        raise ArgumentError("predictive", expected, "True", reason="unused")
    axes = dict(zip(field_dims(model.lattice)[0], model.lattice.field_shape, strict=True)) if is_field else {}  # type: ignore[union-attr]
    spread = placement(devices, num_chains, axes)
    report = model.check().raise_if_violated() if is_field else None  # type: ignore[union-attr]
    kwargs = arguments_by_name("model_kwargs", model_kwargs)
    compiled = compile_model(model, *args, **kwargs)
    place = starts_of(compiled, start, num_chains)
    if not keep_field and compiled.log_likelihood:
        left_out = dict.fromkeys(compiled.data, "with keep_field=False it is not kept")
        compiled = replace(compiled, log_likelihood=None, data={}, single_factors=compiled.single_factors | left_out)
    kernel, reason = resolve(kernel, compiled, symmetry_moves)
    require_spreadable(kernel, spread)
    if not is_field and observables is not None:
        fix = "Record functions of the parameters with numpyro.deterministic inside the model."
        raise ArgumentError("observables", "None for a NumPyro model", "a dict", fix, reason="unused")
    measured = with_own(model, observables, ("chain", "draw", "statistic", *axes)) if is_field else {}
    measured.pop("energy_density", None)  # the kernels know S already: it comes from the log density
    even = is_even(compiled)
    checks = {"phi": str(report)} if is_field else {n: str(field.check()) for n, field in compiled.fields.items()}
    frame = frame_of(compiled, checks, {"kernel_reason": reason} | begun(start), dims, coords, (model, args, kwargs))
    if is_field:
        frame = with_axes(frame, *dims_of(measured.keys() & TWO_POINT, model.lattice))  # type: ignore[union-attr]
    predictions = predictions_of(compiled, model, args, kwargs, num_chains, num_samples) if predictive else None  # type: ignore[arg-type]
    result = run_chains(
        compiled, kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains, seed=seed,
        observables=measured,
        keep=lambda name: keep_field or name not in compiled.fields, thinning=thinning,
        even=even, flip_signs=symmetry_moves and even, progress=progress, checkpoint=checkpoint, frame=frame,
        spread=spread, place=place,
    )  # fmt: skip
    tree = to_datatree(result, frame)
    return tree if predictions is None else predictions.add_to(tree, frame, seed)
