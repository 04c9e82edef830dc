"""Any NumPyro model as a compiled potential."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import Unit, biject_to
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import initialize_model

from ..energy.compiled import CompiledModel, compile_field
from ..errors import ArgumentError, DiscreteLatentError, SamplingError
from ..errors.arguments import call_checked
from ..model.field import MarkovRandomField
from .gibbs_field import field_model
from .observations import refuse_tables, require_order_of_sites, with_plain_observations
from .pointwise_likelihood import pointwise

__all__ = ["compile", "trace_of"]


@call_checked
def compile(model: MarkovRandomField | Callable, *args, **kwargs) -> CompiledModel:  # noqa: A001  the field's word for it
    """Compile a field, or a NumPyro model, into potential and log-density functions.

    Parameters
    ----------
    model : MarkovRandomField or callable
        A field, or a NumPyro model function (with or without `GibbsField` sites; priors, transforms, observations).
    *args, **kwargs
        Arguments of the NumPyro model. Its observed data may be pandas or xarray objects: those of a `GibbsField` are put in
        the order of the lattice by their labels, those of other distributions are read by position. Missing values are rejected
        unless the distribution masks them.

    Returns
    -------
    CompiledModel

    Raises
    ------
    DiscreteLatentError, DoublyIntractableError
        If the NumPyro model has discrete latent sites, or a `GibbsField` with random couplings and unknown log Z.
    ArgumentError
        If ``model`` is neither, a field is given model arguments, a plate takes subsamples, or observed data are missing or
        have their sites in another order than the field.
    SamplingError
        If no starting point with finite density can be found.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> compiled = p4.compile(p4.phi4(p4.lattice.square(4), a=1.5, b=0.2))
    >>> compiled.layout, float(compiled.potential_fn(jnp.ones((4, 4))).round(4))
    ('stencil', -4.8)
    """
    if isinstance(model, MarkovRandomField):
        if args or kwargs:
            raise ArgumentError(
                "args", "no further arguments for a MarkovRandomField", f"{args or kwargs}", reason="unused"
            )
        return compile_field(model)
    if not callable(model):
        raise ArgumentError("model", "a MarkovRandomField or a NumPyro model function", type(model).__name__)
    model = with_plain_observations(model, field_model)
    sites = trace_of(model, args, kwargs)
    require_order_of_sites(sites, field_model)
    latent = {n: s for n, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
    discrete = [n for n, s in latent.items() if s["fn"].support.is_discrete]
    if discrete:
        raise DiscreteLatentError(
            "sites",
            f"the model has discrete latent site(s) {', '.join(map(repr, discrete))}, which gradient-based kernels cannot "
            "move. Sum them out by hand, observe them, replace them with a continuous variable, or use NumPyro's "
            "DiscreteHMCGibbs or enumeration for this model.",
        )
    if not latent:
        raise ArgumentError(
            "model", "a NumPyro model with latent sample sites", "none: nothing to sample", reason="no_latent_sites"
        )

    def initialize(key):
        try:
            return initialize_model(key, model, model_args=args, model_kwargs=kwargs, validate_grad=True)
        except TypeError as error:
            refuse_tables(args, kwargs, error)
            raise
        except RuntimeError as error:
            if "valid initial parameters" not in str(error):
                raise
            raise SamplingError(
                "no_start",
                "no starting point with finite density and gradient was found in 100 attempts. Likely causes: data outside "
                "the support of the likelihood, NaN in data or arguments, or a prior that does not overlap the likelihood.",
            ) from error

    info = initialize(jax.random.key(0))
    potential_fn, postprocess = info.potential_fn, info.postprocess_fn
    _require_fixed_density(potential_fn, info.param_info.z)
    fields = {n: field_model(s["fn"]) for n, s in latent.items()}
    fields = {n: field for n, field in fields.items() if field is not None}
    data = pointwise(model, args, kwargs, sites)
    observed = {n: field_model(sites[n]["fn"]) for n in data.data}
    return CompiledModel(
        potential_fn=potential_fn, logdensity_fn=lambda z: -potential_fn(z),
        initial_position=lambda key: initialize(key).param_info.z, constrain=postprocess,
        num_dimensions=ravel_pytree(info.param_info.z)[0].size, layout="numpyro", fields=fields,
        names=(*latent, *(n for n, s in sites.items() if s["type"] == "deterministic")),
        energy_change_fn=lambda new, old: potential_fn(new) - potential_fn(old),
        log_likelihood=(lambda z: data.log_likelihood(postprocess(z))) if data.data else None,
        data=data.data, kept_data=data.kept, single_factors=data.single,
        observed_fields={n: field for n, field in observed.items() if field is not None}, axes=_axes(sites),
        replace_values=_replacing(model, args, kwargs, tuple(latent)),
    )  # fmt: skip


def _replacing(model, args, kwargs, latent: tuple[str, ...]) -> Callable:
    """The `replace_values` of a `CompiledModel`; supports may depend on the values of other sites."""

    def replace_values(position, values):
        new, inside = dict(position), {}

        def fill(site):
            name = site.get("name")
            if site["type"] != "sample" or name not in latent:
                return None
            support = site["fn"].support
            if name not in values:
                return biject_to(support)(position[name])
            new[name] = biject_to(support).inv(values[name])
            inside[name] = jnp.all(support(values[name])) & jnp.all(jnp.isfinite(new[name]))
            return values[name]

        with numpyro.validation_enabled(False):
            filled = handlers.substitute(handlers.seed(model, jax.random.key(0)), substitute_fn=fill)
            handlers.trace(filled).get_trace(*args, **kwargs)
        return new, inside

    return replace_values


def _axes(sites: dict) -> dict[str, tuple[tuple[str | None, int], ...]]:
    """The plate, if any, and the length of every axis of the values of all sites of a trace."""
    found = {}
    for name, site in sites.items():
        if site["type"] not in ("sample", "deterministic") or isinstance(site.get("fn"), Unit):
            continue
        shape, frames = jnp.shape(site["value"]), site.get("cond_indep_stack", ())
        # nothing marks which axes of a deterministic value belong to an event
        inner = site["fn"].event_dim if site["type"] == "sample" else 0
        plates = {len(shape) - inner + frame.dim: frame for frame in frames}
        if site["type"] == "deterministic" and len(shape) > len(frames):
            plates = {}
        found[name] = tuple(
            (plates[k].name if k in plates and plates[k].size == size else None, size) for k, size in enumerate(shape)
        )
    return found


def trace_of(model, args, kwargs) -> dict:
    """One pass through the model with every latent site filled in, without drawing from it."""
    try:
        inspect.signature(model).bind(*args, **kwargs)
    except TypeError as error:
        expected = "arguments that fit the NumPyro model"
        raise ArgumentError(
            "args", expected, f"{type(error).__name__}: {error}", "Check *args and model_kwargs.", reason="raises"
        ) from error
    seeded = handlers.seed(model, jax.random.key(0))
    with numpyro.validation_enabled(False):
        filled = handlers.substitute(seeded, substitute_fn=init_to_uniform())
        try:
            sites = handlers.trace(filled).get_trace(*args, **kwargs)
        except TypeError as error:
            refuse_tables(args, kwargs, error)
            raise
        except AssertionError as error:
            if "unique names" not in str(error):
                raise
            expected, fix = "sites with different names", "Rename one of them; numpyro.handlers.scope adds a prefix."
            raise ArgumentError("model", expected, str(error), fix, reason="names") from error
    if odd := [name for name in sites if not isinstance(name, str)]:
        raise ArgumentError("model", "sites whose names are texts", repr(odd[0]), reason="names")
    return sites


def _require_fixed_density(potential_fn, position) -> None:
    try:
        jax.eval_shape(potential_fn, position)
    except ValueError as error:
        if "random key" not in str(error):
            raise
        expected, fix = "a NumPyro model that draws no random numbers", "Remove subsample_size from its plates."
        raise ArgumentError("model", expected, f"one that needs a key: {error}", fix, reason="needs_key") from error
