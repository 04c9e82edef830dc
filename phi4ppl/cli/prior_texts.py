"""Priors of couplings as texts, for the command line: ``w=uniform:0.4,1.2``."""

from __future__ import annotations

from math import isfinite

from numpyro import distributions as dist
from numpyro.distributions import Distribution

from ..errors import ArgumentError

__all__ = ["FAMILIES", "priors_from"]

FAMILIES = {  # with the names of their numbers
    "uniform": (dist.Uniform, ("low", "high")),
    "normal": (dist.Normal, ("mean", "sd")),
    "halfnormal": (dist.HalfNormal, ("sd",)),
    "truncatednormal": (
        lambda mean, sd, low, high: dist.TruncatedNormal(mean, sd, low=low, high=high),
        ("mean", "sd", "low", "high"),
    ),
    "lognormal": (dist.LogNormal, ("mean of log", "sd of log")),
    "exponential": (dist.Exponential, ("rate",)),
    "gamma": (dist.Gamma, ("shape", "rate")),
}
WAYS = "For example w=uniform:0.4,1.2. Families: " + ", ".join(
    f"{name}:{','.join(numbers)}" for name, (_, numbers) in FAMILIES.items()
)


def priors_from(texts: list[str]) -> dict[str, Distribution]:
    """Distributions by the names left of ``=``.

    Raises
    ------
    ArgumentError
        For a text that cannot be read, a family or numbers that do not exist, and a name given twice.

    Examples
    --------
    >>> priors_from(["w=uniform:0.4,1.2", "b=halfnormal:0.5"])["w"].high
    1.2
    """
    priors = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or not name:
            raise ArgumentError("--prior", "COUPLING=FAMILY:NUMBERS", repr(text), WAYS + ".")
        if name in priors:
            raise ArgumentError("--prior", "one prior per coupling", f"two of {name!r}", reason="duplicate")
        priors[name] = _prior(text, rest)
    return priors


def _prior(text: str, rest: str) -> Distribution:
    family, _, numbers = rest.partition(":")
    if family not in FAMILIES:
        raise ArgumentError("--prior", "a known family", repr(text), WAYS + ".", reason="choice")
    make, names = FAMILIES[family]
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError as error:
        raise ArgumentError(
            "--prior", f"numbers {','.join(names)} of {family}", repr(text), WAYS + ".", reason="numbers"
        ) from error
    if len(values) != len(names):
        raise ArgumentError(
            "--prior", f"{len(names)} numbers of {family}: {','.join(names)}", repr(text), reason="count"
        )
    if not all(map(isfinite, values)):
        raise ArgumentError("--prior", f"finite numbers {','.join(names)} of {family}", repr(text), reason="finite")
    positive = [n for n, v in zip(names, values, strict=True) if n in ("sd", "rate", "shape", "sd of log") and v <= 0]
    if positive or ("low" in names and values[names.index("low")] >= values[names.index("high")]):
        raise ArgumentError(
            "--prior", f"{positive[0]} above 0" if positive else "low below high", repr(text), reason="range"
        )
    return make(*values)
