"""The distribution of the visible layer of a machine, as a NumPyro distribution."""

from __future__ import annotations

from jax import Array
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from .._typing import Batch
from ..errors import ArgumentError, DrawNotAvailableError
from ..errors.arguments import call_checked
from .machine import RestrictedBoltzmannMachine

__all__ = ["VisibleMarginal"]


@call_checked
class VisibleMarginal(Distribution):
    """log p(v) = −F(v) − log Z of a machine of real visible units: a prior in any NumPyro model.

    The hidden layer is summed or integrated out analytically, so hidden units may be binary and NUTS moves visible units
    only. With real hidden units ``GibbsField(machine.to_model())`` is the same prior with the hidden units kept.

    Parameters
    ----------
    machine : RestrictedBoltzmannMachine
        Its couplings are fixed.
    log_partition : float
        log Z, for example ``machine.log_partition().value``. Posteriors of v do not depend on it.

    Raises
    ------
    ArgumentError
        If the visible units are binary.
    DrawNotAvailableError
        From ``sample``: draw from the machine by block Gibbs (``machine.gibbs``).

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro
    >>> from numpyro.distributions import Normal
    >>> from phi4ppl.networks import BernoulliUnits, GaussianUnits, RestrictedBoltzmannMachine, VisibleMarginal
    >>> machine = RestrictedBoltzmannMachine(GaussianUnits([0.0], [0.5]), BernoulliUnits([0.0]), [[1.0]])
    >>> prior = VisibleMarginal(machine, log_partition=machine.log_partition().value)
    >>> float(prior.log_prob(jnp.array([0.3])))
    -1.0837
    >>> def seen(x):
    ...     v = numpyro.sample("v", prior)
    ...     numpyro.sample("x", Normal(v, 0.1).to_event(1), obs=x)
    """

    arg_constraints: dict = {}
    support = constraints.real_vector
    pytree_data_fields = ("machine", "log_partition")

    def __init__(self, machine: RestrictedBoltzmannMachine, *, log_partition=0.0, validate_args=None):
        if not isinstance(machine, RestrictedBoltzmannMachine):
            raise ArgumentError("machine", "a RestrictedBoltzmannMachine", type(machine).__name__)
        if machine.visible.states is not None:
            fix = "Only real units have a density that gradient-based kernels can sample."
            raise ArgumentError(
                "machine", "a machine of real visible units", repr(machine.visible), fix, reason="units"
            )
        self.machine, self.log_partition = machine, log_partition
        super().__init__(batch_shape=(), event_shape=(machine.visible.size,), validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: Array) -> Batch:
        return -self.machine.free_energy(value) - self.log_partition

    def sample(self, key, sample_shape=()):
        raise DrawNotAvailableError(
            "markov_chain_only",
            f"an exact independent draw of the visible units of {self.machine!r} is not available. Draw them with a Markov "
            "chain, machine.gibbs(key, v, steps), or pass Predictive posterior_samples that contain this site.",
        )
