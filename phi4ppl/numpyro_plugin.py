"""The model as a NumPyro distribution, and any NumPyro model as a compiled potential."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, Unit, constraints
from numpyro.distributions.util import validate_sample
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import initialize_model

from . import quartic
from .errors import (
    ArgumentError,
    DiscreteLatentError,
    DoublyIntractableError,
    DrawNotAvailableError,
    SamplingError,
    call_checked,
)
from .exact import DENSE_LIMIT, gaussian_mean, gaussian_precision
from .model import MarkovRandomField
from .observations import refuse_tables, require_order_of_sites, with_plain_observations
from .pointwise import pointwise
from .potential import CompiledModel, compile_field, energy_function
from .terms import as_field, is_concrete

__all__ = ["GibbsField", "compile", "field_model", "field_of", "trace_of"]


@call_checked
class GibbsField(Distribution):
    """A Markov random field as a distribution for any NumPyro model, log p(φ) = −S(φ; θ) − log Z(θ).

    Parameters
    ----------
    model : MarkovRandomField
        Event shape ``model.field_shape``, batch shape ``()``; use ``expand`` or a plate for independent copies.
    log_partition : callable, optional
        ``log_partition(couplings) -> log Z``, differentiable by JAX, of the dict of couplings; a `PartitionSurface` is such a
        function. Without it the couplings must be fixed numbers and ``log_prob`` leaves the constant log Z out.

    Raises
    ------
    DoublyIntractableError
        If a coupling is being traced (it is random, or computed from something random) and no ``log_partition`` is given:
        the posterior of the couplings would silently lack the factor 1/Z(θ).
    DrawNotAvailableError
        From ``sample`` (so also from prior predictive draws), except for Gaussian fields with positive definite precision,
        which are drawn exactly. Posterior predictive draws never need it.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, phi4ppl as p4
    >>> field = p4.GibbsField(p4.phi4(p4.lattice.square(4), a=1.5, b=0.2))
    >>> field.event_shape, float(field.log_prob(jnp.zeros((4, 4))))
    ((4, 4), 0.0)
    """

    arg_constraints = {}
    pytree_data_fields = ("model",)
    pytree_aux_fields = ("log_partition",)

    def __init__(self, model: MarkovRandomField, *, log_partition: Callable | None = None, validate_args=None):
        if not isinstance(model, MarkovRandomField):
            raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
        if log_partition is not None and not callable(log_partition):
            expected = "a function of the dict of couplings that returns log Z"
            raise ArgumentError("log_partition", expected, repr(log_partition))
        if hasattr(log_partition, "check_model"):  # a PartitionSurface knows which models it is for
            log_partition.check_model(model)
        self.model, self.log_partition = model, log_partition
        random = [name for name, value in model.couplings.items() if not is_concrete(value)]
        random += [form.name for form in model._forms if not form.statistic_is_concrete]
        if random and log_partition is None:
            raise DoublyIntractableError(
                f"coupling(s) {', '.join(map(repr, random))} of a GibbsField are random, but log Z as a function of the "
                "couplings is unknown: the posterior would silently lack the factor 1/Z. Ways out: (1) fix the couplings "
                "(build the model outside the NumPyro function, or from Python numbers); (2) scale the field instead, "
                "scale * field with fixed couplings; (3) pass log_partition=f with f(couplings) -> log Z: for up to three "
                "homogeneous couplings phi4ppl.PartitionSurface(model, region), built outside the NumPyro function; for a "
                "Gaussian field lambda couplings: phi4ppl.exact.gaussian_log_partition(model.replace(**couplings))."
            )
        super().__init__(batch_shape=(), event_shape=model.field_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value):
        """−S(φ) − log Z; ``value`` may carry labels, and must have no missing values, as in `MarkovRandomField.energy`."""
        return self._log_prob(as_field(value, "value", self.model.lattice))

    @validate_sample
    def _log_prob(self, value):
        _, energy = energy_function(self.model.lattice, self.model._forms)
        shape = value.shape[: max(0, value.ndim - len(self.event_shape))]
        if value.shape != shape + self.event_shape:
            raise ArgumentError("value", f"trailing axes {self.event_shape}, one field", f"shape {value.shape}")
        flat = value.reshape((math.prod(shape), *self.event_shape))
        log_density = -jax.vmap(lambda phi: energy(self.model._values, phi))(flat).reshape(shape)
        if self.log_partition is not None:
            log_z = jnp.asarray(self.log_partition(self.model.couplings))
            if log_z.shape != ():
                raise ArgumentError("log_partition", "a function that returns one number", f"shape {log_z.shape}")
            log_density = log_density - log_z
        return log_density

    def conditional_log_prob(self, value):
        """log p(φ_i | φ at all other sites) of every site of one field, shape ``model.field_shape``.

        The density of one site is exp(−(l_i φ + a_i φ² + b_i φ⁴)) with l_i = r_i − Σ_j w_ij φ_j, and its normaliser is known:
        no log Z is needed. These are the ratios p(φ)/p(φ without φ_i) that leave-one-out takes of an observed field.

        Raises
        ------
        ArgumentError
            If the model has terms of the user's own, or ``value`` is not one field.

        Examples
        --------
        >>> import jax.numpy as jnp, phi4ppl as p4
        >>> pair = p4.GibbsField(p4.gaussian(p4.lattice.chain(2, periodic=False), w=0.5, a=0.5))
        >>> pair.conditional_log_prob(jnp.array([1.0, 0.0])).round(4).tolist()  # normal of unit variance around 0, and ½
        [-1.4189, -1.0439]
        """
        value = as_field(value, "value", self.model.lattice)
        couplings, flat = self.site_couplings(value), value.reshape(-1)
        action = sum(theta * flat**power for theta, power in zip(couplings, (1, 2, 4), strict=True))
        if any(form.built_in == "quartic" for form in self.model._forms):
            log_normalizer = quartic.log_normalizer(*couplings)
        else:  # a Gaussian; no need to compile more
            log_normalizer = couplings[0] ** 2 / (4 * couplings[1]) + jnp.log(jnp.pi / couplings[1]) / 2
        return (-action - log_normalizer).reshape(value.shape)

    def site_couplings(self, value):
        """l_i, a_i and b_i of the densities exp(−(l φ + a φ² + b φ⁴)) of one site given the rest, shape ``(num_sites,)``."""
        model, value = self.model, as_field(value, "value", self.model.lattice)
        own = [form.name for form in model._forms if not form.built_in]
        if own:
            raise ArgumentError("model", "terms of hopping, mass, quartic and source only", f"also {own[0]!r}")
        if value.shape != self.event_shape:
            raise ArgumentError("value", f"one field, of shape {self.event_shape}", f"shape {value.shape}")
        parts = list(zip(model._forms, model._values, strict=True))
        linear = [(form, theta) for form, theta in parts if form.built_in in ("hopping", "source")]
        _, energy = energy_function(model.lattice, tuple(form for form, _ in linear))
        slope = jax.grad(lambda phi: energy(tuple(theta for _, theta in linear), phi))(value).reshape(-1)
        powers = {"mass": jnp.zeros_like(slope), "quartic": jnp.zeros_like(slope)}
        for form, theta in parts:
            if form.built_in in powers:
                sites, theta = form.cliques[:, 0], jnp.broadcast_to(jnp.asarray(theta, slope.dtype), len(form.cliques))
                powers[form.built_in] = powers[form.built_in].at[sites].add(theta)
        return slope, powers["mass"], powers["quartic"]

    def sample(self, key, sample_shape=()):
        """Exact independent draws of a Gaussian field; every other field raises `DrawNotAvailableError`."""
        forms = self.model._forms
        sites = self.model.lattice.num_sites
        if any(f.built_in not in ("hopping", "mass", "source") for f in forms) or sites > DENSE_LIMIT:
            raise DrawNotAvailableError(
                f"an exact independent draw of {self.model!r} is not available (only Gaussian fields of up to "
                f"{DENSE_LIMIT} sites can be drawn). Draw it by Markov chain: phi4ppl.sample(model); in Predictive "
                "pass posterior_samples that contain this site."
            )
        if all(is_concrete(value) for value in self.model.couplings.values()):
            report = self.model.check()
            if not report.is_normalizable:
                raise DrawNotAvailableError(
                    f"{self.model!r} cannot be drawn: its precision matrix is not positive definite "
                    f"({report.normalizable_reason})."
                )
        precision = gaussian_precision(self.model)
        factor = jnp.linalg.cholesky(precision)
        white = jax.random.normal(key, (sites, math.prod(sample_shape)), precision.dtype)
        field = jax.scipy.linalg.solve_triangular(factor.T, white, lower=False)
        if any(form.built_in == "source" for form in forms):
            field += gaussian_mean(self.model)[:, None]
        return field.T.reshape(tuple(sample_shape) + self.event_shape)


@call_checked
def compile(model, *args, **kwargs) -> CompiledModel:  # noqa: A001  the field's word for it
    """Compile a field, or a NumPyro model, into potential and log-density functions.

    Parameters
    ----------
    model : MarkovRandomField or callable
        A field, or a NumPyro model function (with or without `GibbsField` sites; priors, transforms, observations).
    *args, **kwargs
        Arguments of the NumPyro model. Its observed data may be pandas or xarray objects: those of a `GibbsField` are put in
        the order of the lattice by their labels, those of other distributions are read by position. Missing values are refused
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
            raise ArgumentError("args", "no further arguments for a MarkovRandomField", f"{args or kwargs}")
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
            f"the model has discrete latent site(s) {', '.join(map(repr, discrete))}, which gradient-based kernels cannot "
            "move. Sum them out by hand, observe them, replace them by a continuous variable, or use NumPyro's "
            "DiscreteHMCGibbs or enumeration for this model."
        )
    if not latent:
        raise ArgumentError("model", "a NumPyro model with latent sample sites", "none: nothing to sample")

    def initialise(key):
        try:
            return initialize_model(key, model, model_args=args, model_kwargs=kwargs, validate_grad=True)
        except TypeError as error:
            refuse_tables(args, kwargs, error)
            raise
        except RuntimeError as error:
            if "valid initial parameters" not in str(error):
                raise
            raise SamplingError(
                "no starting point with finite density and gradient was found in 100 tries. Likely causes: data outside "
                "the support of the likelihood, NaN in data or arguments, or a prior that nowhere meets the likelihood."
            ) from error

    info = initialise(jax.random.key(0))
    potential_fn, postprocess = info.potential_fn, info.postprocess_fn
    _require_fixed_density(potential_fn, info.param_info.z)
    fields = {n: field_model(s["fn"]) for n, s in latent.items()}
    fields = {n: field for n, field in fields.items() if field is not None}
    data = pointwise(model, args, kwargs, sites)
    observed = {n: field_model(sites[n]["fn"]) for n in data.data}
    return CompiledModel(
        potential_fn=potential_fn, logdensity_fn=lambda z: -potential_fn(z),
        initial_position=lambda key: initialise(key).param_info.z, constrain=postprocess,
        num_dimensions=ravel_pytree(info.param_info.z)[0].size, layout="numpyro", fields=fields,
        names=(*latent, *(n for n, s in sites.items() if s["type"] == "deterministic")),
        logdensity_at=lambda _, z: -potential_fn(z),
        log_likelihood=(lambda z: data.log_likelihood(postprocess(z))) if data.data else None,
        data=data.data, kept_data=data.kept, single_factors=data.single,
        observed_fields={n: field for n, field in observed.items() if field is not None}, axes=_axes(sites),
    )  # fmt: skip


def _axes(sites: dict) -> dict[str, tuple[tuple[str | None, int], ...]]:
    """The plate, if any, and the length of every axis of the values of all sites of a trace."""
    found = {}
    for name, site in sites.items():
        if site["type"] not in ("sample", "deterministic") or isinstance(site.get("fn"), Unit):
            continue
        shape, frames = jnp.shape(site["value"]), site.get("cond_indep_stack", ())
        # a deterministic value does not say which of its axes belong to an event
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
            "args", expected, f"{type(error).__name__}: {error}", "Check *args and model_kwargs."
        ) from error
    seeded = handlers.seed(model, jax.random.key(0))
    with numpyro.validation_enabled(False):
        filled = handlers.substitute(seeded, substitute_fn=init_to_uniform())
        try:
            return handlers.trace(filled).get_trace(*args, **kwargs)
        except TypeError as error:
            refuse_tables(args, kwargs, error)
            raise


def _require_fixed_density(potential_fn, position) -> None:
    try:
        jax.eval_shape(potential_fn, position)
    except ValueError as error:
        if "random key" not in str(error):
            raise
        expected, mend = "a NumPyro model without random numbers of its own", "Leave out subsample_size of its plates."
        raise ArgumentError("model", expected, f"one that needs a key: {error}", mend) from error


def field_of(distribution) -> GibbsField | None:
    """The GibbsField of a site, also of one inside ``expand`` or ``mask``."""
    while isinstance(distribution, (ExpandedDistribution, Independent, MaskedDistribution)):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, GibbsField) else None


def field_model(distribution) -> MarkovRandomField | None:
    """The model of a GibbsField site."""
    field = field_of(distribution)
    return None if field is None else field.model
