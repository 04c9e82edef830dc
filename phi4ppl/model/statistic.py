"""The built-in statistics T: what one clique contributes to the action per unit of its coupling.

A built-in statistic is one object that holds everything that other modules need to know about it. A new power of the field
is a line in `BUILT_IN`; energies, forces, one-site densities, exact sums, normalizability and files follow from its
attributes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ArgumentError

__all__ = ["BUILT_IN", "Hopping", "SitePower", "Statistic", "hopping", "mass", "quartic", "sextic", "source"]


@dataclass(frozen=True)
class Statistic:
    """Attributes that every built-in statistic has.

    Attributes
    ----------
    name : str
        Name in files and descriptions.
    degree : int
        The degree of the polynomial T: T(sφ) = s^degree T(φ).
    power : int or None
        k of a statistic T = φ^k of one site; None for hopping.
    """

    name: str
    degree: int

    @property
    def power(self) -> int | None:
        return None

    def __call__(self, *fields):
        raise NotImplementedError

    @property
    def is_even(self) -> bool:
        """Whether T is the same at φ and −φ."""
        return self.degree % 2 == 0

    @property
    def is_gaussian(self) -> bool:
        """Whether a model of such terms only is a Gaussian field."""
        return self.degree <= 2

    @property
    def __name__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Hopping(Statistic):
    """T = −φ_i φ_j: a positive coupling w aligns neighbors (S contains −w φ_i φ_j)."""

    def __call__(self, phi_i, phi_j):
        return -phi_i * phi_j

    def derivatives(self, position: int, phi_i, phi_j) -> tuple:
        """∂T/∂φ and ∂²T/∂φ² with respect to the field at ``position`` in the clique."""
        return -(phi_j, phi_i)[position], 0 * phi_i


@dataclass(frozen=True, repr=False)
class SitePower(Statistic):
    """T = φ_i^k, of one site, k = 1 or even; fields may be numbers, NumPy or JAX arrays."""

    def __post_init__(self):
        # differences of energies and the check of normalizability know no other odd powers
        if self.degree != 1 and (self.degree < 2 or self.degree % 2):
            raise ArgumentError(
                "degree", "1 or a positive even number", str(self.degree), "Use phi4ppl.Term for other powers."
            )

    @property
    def power(self) -> int:
        return self.degree

    def __call__(self, phi_i):
        return power_of(phi_i, self.degree)

    def derivatives(self, position: int, phi_i) -> tuple:
        """∂T/∂φ and ∂²T/∂φ²."""
        k = self.degree
        second = k * (k - 1) * power_of(phi_i, k - 2) if k > 1 else 0 * phi_i
        return k * power_of(phi_i, k - 1), second

    def difference(self, new, old):
        """(T(new) − T(old)) / (new − old) without cancellation: Σ_m new^m old^(k−1−m)."""
        k = self.degree
        if k == 1:
            return 0 * new + 1
        return _difference(new, old, k)


def _difference(new, old, k: int):
    """(new^k − old^k)/(new − old), k even: (new + old)/2 twice, then sums of squares."""
    square = 0
    for m in range(k // 2):
        square = square + power_of(new * new, m) * power_of(old * old, k // 2 - 1 - m)
    return (new + old) * square


def power_of(phi, k: int):
    """φ^k by repeated squares, in few multiplications and for negative φ too."""
    if k == 0:
        return 0 * phi + 1
    square = phi * phi
    result = {1: phi, 2: square, 3: square * phi, 4: square * square}.get(k)
    return square * power_of(phi, k - 2) if result is None else result


hopping = Hopping("hopping", 2)
source = SitePower("source", 1)
mass = SitePower("mass", 2)
quartic = SitePower("quartic", 4)
sextic = SitePower("sextic", 6)

BUILT_IN = {statistic.name: statistic for statistic in (hopping, source, mass, quartic, sextic)}
