"""The methods of `phi4ppl.log_partition` as objects: how much work each one does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors.arguments import call_checked, object_by_name, positive_int

__all__ = ["SMC", "Annealing", "Auto", "Integration", "PopulationAnnealing", "Tempering", "method_of"]

WALKERS = 16  # of annealing, in each direction, per chain of the integration


@call_checked
@dataclass(frozen=True, kw_only=True)
class Integration:
    """Thermodynamic integration. Written ``"integration"`` for short.

    Parameters
    ----------
    num_samples : int
        Kept draws per chain at every node, at least 50.
    num_chains : int
        Chains at every node, at least 2.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.partition.Integration(num_samples=4000)
    Integration(num_samples=4000, num_chains=4)
    """

    num_samples: int = 1000
    num_chains: int = 4
    name: ClassVar[str] = "integration"

    def __post_init__(self):
        _check(self)


@call_checked
@dataclass(frozen=True, kw_only=True)
class Annealing:
    """Annealed importance sampling in both directions. Written ``"ais"`` for short.

    Parameters
    ----------
    num_steps : int
        Iterations of every walker from one end of the path to the other, at least 50.
    num_walkers : int
        Walkers in each direction, at least 16.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.partition.Annealing(num_steps=4000)
    Annealing(num_steps=4000, num_walkers=64)
    """

    num_steps: int = 1000
    num_walkers: int = 4 * WALKERS
    name: ClassVar[str] = "ais"

    def __post_init__(self):
        _check(self)


@call_checked
@dataclass(frozen=True, kw_only=True)
class SMC:
    """Adaptive tempered sequential Monte Carlo, 16 independent populations. Written ``"smc"`` for short.

    Parameters
    ----------
    num_particles : int
        Of each population, at least 50.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.partition.SMC(num_particles=500)
    SMC(num_particles=500)
    """

    num_particles: int = 1000
    name: ClassVar[str] = "smc"

    def __post_init__(self):
        _check(self)


@call_checked
@dataclass(frozen=True, kw_only=True)
class PopulationAnnealing:
    """Population annealing, eight independent populations. Written ``"population"`` for short.

    Parameters
    ----------
    num_steps : int
        Steps from independent sites to the model, at least 50: the fields are resampled and moved at each.
    population : int
        Fields of each population, at least 100.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.partition.PopulationAnnealing(population=2000)
    PopulationAnnealing(num_steps=200, population=2000)
    """

    num_steps: int = 200
    population: int = 1000
    name: ClassVar[str] = "population"

    def __post_init__(self):
        _check(self)


@call_checked
@dataclass(frozen=True, kw_only=True)
class Tempering:
    """Reweighting of the rungs of parallel tempering. Written ``"tempering"`` for short.

    Parameters
    ----------
    num_samples : int
        Draws per chain of every rung, at least 50.
    num_chains : int
        Independent chains of all rungs, at least 2: their spread is an error that knows of exchanges.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.partition.Tempering(num_samples=4000)
    Tempering(num_samples=4000, num_chains=8)
    """

    num_samples: int = 1000
    num_chains: int = 8
    name: ClassVar[str] = "tempering"

    def __post_init__(self):
        _check(self)


@call_checked
@dataclass(frozen=True, kw_only=True)
class Auto:
    """Exact where that is cheap; else by `Integration` and by `Annealing`, averaged. Written ``"auto"`` for short.

    Parameters
    ----------
    num_samples, num_chains : int
        Of the integration: kept draws per chain, and chains, at every node.
    num_steps : int
        Of the annealing, with 16 walkers per chain in each direction.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.partition.Auto(num_samples=300, num_steps=300)
    Auto(num_samples=300, num_chains=4, num_steps=300)
    """

    num_samples: int = 1000
    num_chains: int = 4
    num_steps: int = 1000
    name: ClassVar[str] = "auto"

    def __post_init__(self):
        _check(self)

    @property
    def integration(self) -> Integration:
        return Integration(num_samples=self.num_samples, num_chains=self.num_chains)

    @property
    def annealing(self) -> Annealing:
        return Annealing(num_steps=self.num_steps, num_walkers=WALKERS * self.num_chains)


@dataclass(frozen=True)
class Exact:
    """``"exact"``, which has nothing to set."""

    name: ClassVar[str] = "exact"


METHODS = {method.name: method for method in (Auto, Exact, Integration, Annealing, SMC, PopulationAnnealing, Tempering)}
MINIMA = {
    "num_samples": 50,
    "num_steps": 50,
    "num_particles": 50,
    "num_chains": 2,
    "num_walkers": 16,
    "population": 100,
}


def _check(method) -> None:
    for name, minimum in MINIMA.items():
        if hasattr(method, name):
            fix = "Disagreement shows only between several chains." if name == "num_chains" else ""
            positive_int(name, getattr(method, name), minimum=minimum, fix=fix)


def method_of(value) -> Auto | Exact | Integration | Annealing | SMC | PopulationAnnealing | Tempering:
    """A method object, from itself or from the name of a method with its defaults."""
    return object_by_name("method", value, METHODS, "phi4ppl.partition.Integration(num_samples=4000)")
