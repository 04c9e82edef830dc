"""The model as a NumPyro distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, constraints
from numpyro.distributions.util import validate_sample

from ..energy import onesite as quartic
from ..energy.functions import energy, log_density
from ..errors import ArgumentError, DoublyIntractableError
from ..errors.arguments import call_checked, positive_int
from ..model.field import MarkovRandomField
from ..model.term import as_field, is_concrete
from .field_draws import NUM_SWEEPS, draw_fields, site_powers

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
    num_sweeps : int, default 500
        Sweeps of the chain at whose end a draw is; nothing else uses it.

    Raises
    ------
    DoublyIntractableError
        If a coupling is being traced (it is random, or computed from something random) and no ``log_partition`` is given:
        the posterior of the couplings would silently lack the factor 1/Z(θ).
    DrawNotAvailableError
        From ``sample``, for fields without a density, and where there is nothing to propose from (a site without quartic
        coupling and positive mass). Posterior predictive draws given a posterior of the field never need it.

    Notes
    -----
    ``sample``, and with it ``numpyro.infer.Predictive``, draws Gaussian fields and sites that do not interact exactly.
    Every other field is the end of a chain of its own, of ``num_sweeps`` sweeps in which each site in turn is drawn from its
    exact density given the rest, and which starts at a field of one sign. Its law differs from p by a bias that falls like
    exp(−num_sweeps/τ), τ being the autocorrelation time in sweeps: about ξ² for a correlation length of ξ sites. So 500
    sweeps are plenty in a disordered phase and within an ordered one, and too few on large critical lattices (increase
    ``num_sweeps``) and for frustrated couplings, where ``phi4ppl.sample`` with tempering is needed. A draw costs
    num_sweeps · num_sites one-site draws, of which a core makes some million a second.

    A `Phi4pplWarning` says so, once per compiled program: ``gibbs_field.short_chains`` if the energy or the order parameter has
    an autocorrelation time of more than about a twentieth of the sweeps (from 40 sweeps on), and ``gibbs_field.frustrated`` for
    couplings among which single chains get stuck. A single draw of a critical field shows too little to be sure; a warning
    comes as the same program makes more of them, as in `Predictive`, or if ``sample`` is asked for several at once.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, phi4ppl as p4
    >>> field = p4.GibbsField(p4.phi4(p4.lattice.square(4), a=1.5, b=0.2))
    >>> field.event_shape, float(field.log_prob(jnp.zeros((4, 4))))
    ((4, 4), 0.0)
    """

    arg_constraints = {}
    pytree_data_fields = ("model",)
    pytree_aux_fields = ("log_partition", "num_sweeps")

    def __init__(
        self, model: MarkovRandomField, *, log_partition: Callable | None = None, num_sweeps: int = NUM_SWEEPS,
        validate_args=None,
    ):  # fmt: skip
        if not isinstance(model, MarkovRandomField):
            raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
        if log_partition is not None and not callable(log_partition):
            expected = "a function of the dict of couplings that returns log Z"
            raise ArgumentError("log_partition", expected, repr(log_partition))
        if hasattr(log_partition, "check_model"):  # a PartitionSurface knows which models it is for
            log_partition.check_model(model)
        self.model, self.log_partition = model, log_partition
        self.num_sweeps = positive_int("num_sweeps", num_sweeps)
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
        _, square, fourth = site_powers(model, slope)
        return slope, square, fourth

    def sample(self, key, sample_shape=()):
        """Independent fields of shape ``(*sample_shape, *model.field_shape)``; see the class for how they are drawn."""
        drawn = draw_fields(self.model, key, math.prod(sample_shape), self.num_sweeps)
        return drawn.reshape(tuple(sample_shape) + self.event_shape)


def field_of(distribution) -> GibbsField | None:
    """The GibbsField of a site, also of one inside ``expand`` or ``mask``."""
    while isinstance(distribution, (ExpandedDistribution, Independent, MaskedDistribution)):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, GibbsField) else None


def field_model(distribution) -> MarkovRandomField | None:
    """The model of a GibbsField site."""
    field = field_of(distribution)
    return None if field is None else field.model
