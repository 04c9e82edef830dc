"""The model as a NumPyro distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, constraints
from numpyro.distributions.util import validate_sample

from ..energy import onesite as quartic
from ..energy.exact.gaussian import DENSE_LIMIT, gaussian_mean, gaussian_precision
from ..energy.functions import energy, log_density
from ..errors import ArgumentError, DoublyIntractableError, DrawNotAvailableError
from ..errors.arguments import call_checked
from ..model.field import MarkovRandomField
from ..model.term import as_field, is_concrete

__all__ = ["GibbsField", "field_model", "field_of"]


@call_checked
class GibbsField(Distribution):
    """A Markov random field as a distribution for any NumPyro model, log p(φ) = −S(φ; θ) − log Z(θ).

    Parameters
    ----------
    model : MarkovRandomField
        Event shape ``model.field_shape``, batch shape ``()``; use ``expand`` or a plate for independent copies.
    log_partition : callable, optional
        ``log_partition(couplings) -> log Z``, differentiable by JAX, of the dict of couplings; a `PartitionSurface` is such a
        function. Without it the couplings must be fixed numbers and ``log_prob`` omits the constant log Z.

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
        random += [form.name for form in model.forms if not form.statistic_is_concrete]
        if random and log_partition is None:
            raise DoublyIntractableError(
                "random_coupling",
                f"coupling(s) {', '.join(map(repr, random))} of a GibbsField are random, but log Z as a function of the "
                "couplings is unknown: the posterior would silently lack the factor 1/Z. Options: (1) fix the couplings "
                "(build the model outside the NumPyro function, or from Python numbers); (2) scale the field instead, "
                "scale * field with fixed couplings; (3) pass log_partition=f with f(couplings) -> log Z: for up to three "
                "homogeneous couplings phi4ppl.PartitionSurface(model, region), built outside the NumPyro function; for a "
                "Gaussian field lambda couplings: phi4ppl.exact.gaussian_log_partition(model.replace(**couplings)).",
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
        shape = value.shape[: max(0, value.ndim - len(self.event_shape))]
        if value.shape != shape + self.event_shape:
            raise ArgumentError(
                "value", f"trailing axes {self.event_shape}, one field", f"shape {value.shape}", reason="shape"
            )
        flat = value.reshape((math.prod(shape), *self.event_shape))
        log_p = jax.vmap(log_density, (None, 0))(self.model, flat).reshape(shape)
        if self.log_partition is not None:
            log_z = jnp.asarray(self.log_partition(self.model.couplings))
            if log_z.shape != ():
                raise ArgumentError(
                    "log_partition", "a function that returns one number", f"shape {log_z.shape}", reason="returns"
                )
            log_p = log_p - log_z
        return log_p

    def conditional_log_prob(self, value):
        """log p(φ_i | φ at all other sites) of every site of one field, shape ``model.field_shape``.

        The density of one site is exp(−(l_i φ + a_i φ² + b_i φ⁴)) with l_i = r_i − Σ_j w_ij φ_j, and its normalizer is known:
        no log Z is needed. These are the ratios p(φ)/p(φ without φ_i) that leave-one-out takes of an observed field.

        Raises
        ------
        ArgumentError
            If the model has custom terms, or ``value`` is not one field.

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
        if self.model.structure.highest_power:
            log_normalizer = quartic.log_normalizer(*couplings)
        else:  # a Gaussian; no need to compile more
            log_normalizer = couplings[0] ** 2 / (4 * couplings[1]) + jnp.log(jnp.pi / couplings[1]) / 2
        return (-action - log_normalizer).reshape(value.shape)

    def site_couplings(self, value):
        """l_i, a_i and b_i of the densities exp(−(l φ + a φ² + b φ⁴)) of one site given the rest, shape ``(num_sites,)``."""
        model, value = self.model, as_field(value, "value", self.model.lattice)
        other = [form.name for form in model.forms if not form.is_hopping and form.power not in (1, 2, 4)]
        if other:
            raise ArgumentError(
                "model", "terms of hopping, mass, quartic and source only", f"also {other[0]!r}", reason="terms"
            )
        if value.shape != self.event_shape:
            raise ArgumentError(
                "value", f"one field, of shape {self.event_shape}", f"shape {value.shape}", reason="shape"
            )
        linear = model.select(lambda form: form.power in (None, 1))
        slope = jax.grad(energy, argnums=1)(linear, value).reshape(-1)
        powers = {2: jnp.zeros_like(slope), 4: jnp.zeros_like(slope)}
        for form, theta in model.interactions:
            if form.power in powers:
                sites, theta = form.cliques[:, 0], jnp.broadcast_to(jnp.asarray(theta, slope.dtype), len(form.cliques))
                powers[form.power] = powers[form.power].at[sites].add(theta)
        return slope, powers[2], powers[4]

    def sample(self, key, sample_shape=()):
        """Exact independent draws of a Gaussian field; every other field raises `DrawNotAvailableError`."""
        forms = self.model.forms
        sites = self.model.lattice.num_sites
        if any(not f.is_gaussian for f in forms) or sites > DENSE_LIMIT:
            raise DrawNotAvailableError(
                "not_gaussian",
                f"an exact independent draw of {self.model!r} is not available (only Gaussian fields of up to "
                f"{DENSE_LIMIT} sites can be drawn). Draw it with a Markov chain, phi4ppl.sample(model), or pass Predictive "
                "posterior_samples that contain this site.",
            )
        if all(is_concrete(value) for value in self.model.couplings.values()):
            report = self.model.check()
            if not report.is_normalizable:
                raise DrawNotAvailableError(
                    "not_normalizable",
                    f"{self.model!r} cannot be drawn: its precision matrix is not positive definite "
                    f"({report.normalizable_reason}).",
                )
        precision = gaussian_precision(self.model)
        factor = jnp.linalg.cholesky(precision)
        white = jax.random.normal(key, (sites, math.prod(sample_shape)), precision.dtype)
        field = jax.scipy.linalg.solve_triangular(factor.T, white, lower=False)
        if any(form.power == 1 for form in forms):
            field += gaussian_mean(self.model)[:, None]
        return field.T.reshape(tuple(sample_shape) + self.event_shape)


def field_of(distribution) -> GibbsField | None:
    """The GibbsField of a site, also of one inside ``expand`` or ``mask``."""
    while isinstance(distribution, (ExpandedDistribution, Independent, MaskedDistribution)):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, GibbsField) else None


def field_model(distribution) -> MarkovRandomField | None:
    """The model of a GibbsField site."""
    field = field_of(distribution)
    return None if field is None else field.model
