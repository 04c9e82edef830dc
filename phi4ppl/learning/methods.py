"""The methods of `phi4ppl.fit_likelihood` as objects: what can be set of each, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import ArgumentError
from ..errors.arguments import call_checked, object_by_name, positive_int
from ..kernels.kernel import Kernel
from .tail_average import checked_share

if TYPE_CHECKING:
    from optax import GradientTransformation

__all__ = ["MaximumLikelihood", "PersistentCD", "PseudoLikelihood", "ScoreMatching", "method_of"]

MIN_CHAINS = 8


@call_checked
@dataclass(frozen=True, kw_only=True)
class ScoreMatching:
    """One linear solve, for any model: nothing to set. Written ``"score_matching"`` for short.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.learning.ScoreMatching()
    ScoreMatching()
    """

    name: ClassVar[str] = "score_matching"


@call_checked
@dataclass(frozen=True, kw_only=True)
class PseudoLikelihood:
    """The density of every site given the rest, by Newton's method. Written ``"pseudolikelihood"`` for short.

    Parameters
    ----------
    num_steps : int
        Newton steps, at most.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.learning.PseudoLikelihood(num_steps=10)
    PseudoLikelihood(num_steps=10)
    """

    num_steps: int = 50
    name: ClassVar[str] = "pseudolikelihood"

    def __post_init__(self):
        positive_int("num_steps", self.num_steps)


@call_checked
@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood:
    """Natural-gradient steps with expectations from Markov chains, until the gradient is within its noise.

    For up to 3000 couplings. Written ``"maximum_likelihood"`` for short.

    Parameters
    ----------
    num_steps : int
        Steps, at most.
    num_chains : int
        Persistent Markov chains, at least 8.
    kernel : str or Kernel
        Their kernel; see `phi4ppl.kernels`.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.learning.MaximumLikelihood(num_chains=128)
    MaximumLikelihood(num_steps=50, num_chains=128, kernel='auto')
    """

    num_steps: int = 50
    num_chains: int = 64
    kernel: str | Kernel = "auto"
    name: ClassVar[str] = "maximum_likelihood"

    def __post_init__(self):
        positive_int("num_steps", self.num_steps)
        _checked_chains(self.num_chains)


@call_checked
@dataclass(frozen=True, kw_only=True)
class PersistentCD:
    """Persistent contrastive divergence: many small steps with minibatches and chains that move little in between.

    For large inhomogeneous models. Written ``"persistent_cd"`` for short.

    Parameters
    ----------
    num_steps : int
        Steps, all of which are made; at least 16.
    num_chains : int
        Persistent Markov chains, at least 8.
    kernel : str or Kernel
        Their kernel; see `phi4ppl.kernels`.
    batch_size : int
        Fields per minibatch.
    sweeps : int
        Iterations of the kernel between two steps.
    optimizer : optax.GradientTransformation, optional
        Of couplings in units of 1/√Var(T); ``optax.adam(0.03)`` by default.
    average_last : float
        The share of the steps at the end over which couplings are averaged (stochastic weight averaging); 0 gives those of
        the last step.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.learning.PersistentCD(batch_size=200).num_steps
    1000
    """

    num_steps: int = 1000
    num_chains: int = 100
    kernel: str | Kernel = "auto"
    batch_size: int = 100
    sweeps: int = 2
    optimizer: GradientTransformation | None = None
    average_last: float = 0.5
    name: ClassVar[str] = "persistent_cd"

    def __post_init__(self):
        positive_int("num_steps", self.num_steps, minimum=16)
        _checked_chains(self.num_chains)
        positive_int("batch_size", self.batch_size)
        positive_int("sweeps", self.sweeps)
        if self.optimizer is not None and not (hasattr(self.optimizer, "init") and hasattr(self.optimizer, "update")):
            raise ArgumentError("optimizer", "an optax optimizer, such as optax.adam(0.03)", repr(self.optimizer))
        checked_share(self.average_last)


METHODS = {method.name: method for method in (ScoreMatching, PseudoLikelihood, MaximumLikelihood, PersistentCD)}


def method_of(value) -> ScoreMatching | PseudoLikelihood | MaximumLikelihood | PersistentCD:
    """A method object, from itself or from the name of a method with its defaults."""
    return object_by_name("method", value, METHODS, "phi4ppl.learning.MaximumLikelihood(num_chains=128)")


def _checked_chains(value) -> None:
    positive_int("num_chains", value, minimum=MIN_CHAINS, fix="Errors come from the spread of the chains.")
