"""One layer of a machine: units that are independent of each other once the other layer is known.

Every kind of unit defines four functions for a field x that the other layer exerts (S contains −x·φ): the energy of values,
log Σ exp(−S) of one unit, its mean, and an exact draw. The machine knows no more about it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike, Batch, JaxLayer, Layer, UnitCouplings
from ..energy import onesite as site
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array
from ..model.pytree import register_checked
from ..model.term import is_concrete

__all__ = ["BernoulliUnits", "GaussianUnits", "Phi4Units", "SpinUnits", "Units"]


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class Units:
    """The common base of all kinds of units; never instantiated.

    Subclasses are immutable JAX pytrees whose leaves are their fields, the couplings.
    """

    states: ClassVar[tuple[float, float] | None] = None  # the two values of a binary unit; None for real ones

    linear: UnitCouplings

    def _set(self, **couplings: ArrayLike) -> None:
        arrays = {}
        for name, value in couplings.items():
            array = finite_array(name, value) if is_concrete(value) else value
            if np.ndim(array) != 1 or np.shape(array)[0] == 0:
                raise ArgumentError(
                    name, "one number per unit, an array of shape (n,)", f"shape {np.shape(array)}", reason="shape"
                )
            arrays[name] = jnp.asarray(array, jnp.result_type(float) if isinstance(array, np.ndarray) else None)
        if len({array.shape for array in arrays.values()}) > 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ArgumentError("couplings", "arrays of one length", shapes, reason="shape")
        vars(self).update(arrays)

    def __repr__(self):
        return f"{type(self).__name__}({self.size})"

    @abstractmethod
    def log_normalizer(self, field: Layer) -> JaxLayer:
        """log Σ exp(xφ − S) of every unit in the field x."""

    @abstractmethod
    def mean(self, field: Layer) -> JaxLayer:
        """⟨φ⟩ of every unit in the field x."""

    @abstractmethod
    def variance(self, field: Layer) -> JaxLayer:
        """⟨φ²⟩ − ⟨φ⟩² of every unit in the field x, the derivative of its mean."""

    @abstractmethod
    def draw(self, key: jax.Array, field: Layer) -> JaxLayer:
        """An exact draw of every unit in the field x."""

    @property
    def size(self) -> int:
        return self.linear.shape[0]

    def energy(self, values: Layer) -> Batch:
        """S of the layer alone, Σ_i over its units: ``values`` of shape ``(..., size)``, result ``(...)``."""
        return jnp.sum(_along(self.linear, values) * values, axis=-1)


def _along(coupling, values):
    """A coupling of shape ``(size,)`` with the leading axes of ``values``."""
    return jnp.broadcast_to(coupling, jnp.shape(values))


@call_checked
@register_checked
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Phi4Units(Units):
    """Real units with S = rφ + aφ² + bφ⁴, b ≥ 0 (and a > 0 where b = 0).

    Parameters
    ----------
    linear, quadratic, quartic : array_like, shape (n,)
        r, a and b of every unit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl.networks import Phi4Units
    >>> units = Phi4Units([0.0], [-1.0], [0.25])
    >>> [round(float(units.mean(jnp.array([x]))[0]), 3) for x in (0.1, 1.0)]
    [0.166, 1.235]
    """

    quadratic: UnitCouplings
    quartic: UnitCouplings

    def __init__(self, linear: ArrayLike, quadratic: ArrayLike, quartic: ArrayLike):
        self._set(linear=linear, quadratic=quadratic, quartic=quartic)
        if all(map(is_concrete, (linear, quadratic, quartic))):
            site.log_normalizer(self.linear, self.quadratic, self.quartic)  # names the coupling that makes Z infinite

    def energy(self, values: Layer) -> Batch:
        square = values**2
        even = _along(self.quadratic, values) + _along(self.quartic, values) * square
        return jnp.sum(_along(self.linear, values) * values + square * even, axis=-1)

    def _at(self, field):
        return _along(self.linear, field) - field, _along(self.quadratic, field), _along(self.quartic, field)

    def log_normalizer(self, field: Layer) -> JaxLayer:
        """log ∫ exp(xφ − rφ − aφ² − bφ⁴) dφ for every unit; shape of ``field``, ``(..., n)``."""
        return site.log_normalizer(*self._at(field))

    def mean(self, field: Layer) -> JaxLayer:
        """⟨φ⟩ of every unit in the field x."""
        return site.moments(*self._at(field)).first

    def variance(self, field: Layer) -> JaxLayer:
        """⟨φ²⟩ − ⟨φ⟩² of every unit in the field x."""
        moments = site.moments(*self._at(field))
        return moments.second - moments.first**2

    def draw(self, key: jax.Array, field: Layer) -> JaxLayer:
        """An exact draw of every unit in the field x."""
        return site.draw(key, *self._at(field))


@call_checked
@register_checked
@dataclass(frozen=True, init=False, repr=False, eq=False)
class GaussianUnits(Units):
    """Real units with S = rφ + aφ², a > 0.

    Parameters
    ----------
    linear, quadratic : array_like, shape (n,)

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl.networks import GaussianUnits
    >>> float(GaussianUnits([0.0], [0.5]).mean(jnp.array([2.0]))[0])
    2.0
    """

    quadratic: UnitCouplings

    def __init__(self, linear: ArrayLike, quadratic: ArrayLike):
        self._set(linear=linear, quadratic=quadratic)
        if is_concrete(quadratic) and not np.all(np.asarray(self.quadratic) > 0):
            raise ArgumentError(
                "quadratic",
                "positive numbers",
                str(np.min(self.quadratic)),
                "The integral is infinite.",
                reason="positive",
            )

    def energy(self, values: Layer) -> Batch:
        return jnp.sum((_along(self.linear, values) + _along(self.quadratic, values) * values) * values, axis=-1)

    def log_normalizer(self, field: Layer) -> JaxLayer:
        """log ∫ exp(xφ − rφ − aφ²) dφ = (x − r)²/4a + ½ log π/a for every unit."""
        curve = _along(self.quadratic, field)
        return (field - _along(self.linear, field)) ** 2 / (4 * curve) + jnp.log(jnp.pi / curve) / 2

    def mean(self, field: Layer) -> JaxLayer:
        """(x − r)/2a."""
        return (field - _along(self.linear, field)) / (2 * _along(self.quadratic, field))

    def variance(self, field: Layer) -> JaxLayer:
        """1/2a."""
        return 1 / (2 * _along(self.quadratic, field))

    def draw(self, key: jax.Array, field: Layer) -> JaxLayer:
        """An exact draw of every unit in the field x."""
        noise = jax.random.normal(key, field.shape, field.dtype)
        return self.mean(field) + noise / jnp.sqrt(2 * _along(self.quadratic, field))


@call_checked
@register_checked
@dataclass(frozen=True, init=False, repr=False, eq=False)
class BernoulliUnits(Units):
    """Units of the values 0 and 1 with S = rφ; a positive r favors 0.

    Parameters
    ----------
    linear : array_like, shape (n,)

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl.networks import BernoulliUnits
    >>> float(BernoulliUnits([1.0]).mean(jnp.array([1.0]))[0])
    0.5
    """

    states = (0.0, 1.0)

    def __init__(self, linear: ArrayLike):
        self._set(linear=linear)

    def log_normalizer(self, field: Layer) -> JaxLayer:
        """log(1 + exp(x − r))."""
        return jax.nn.softplus(field - _along(self.linear, field))

    def mean(self, field: Layer) -> JaxLayer:
        """1/(1 + exp(r − x))."""
        return jax.nn.sigmoid(field - _along(self.linear, field))

    def variance(self, field: Layer) -> JaxLayer:
        """p(1 − p), p the mean."""
        mean = self.mean(field)
        return mean * (1 - mean)

    def draw(self, key: jax.Array, field: Layer) -> JaxLayer:
        """An exact draw of every unit in the field x."""
        return (jax.random.uniform(key, field.shape, field.dtype) < self.mean(field)).astype(field.dtype)


@call_checked
@register_checked
@dataclass(frozen=True, init=False, repr=False, eq=False)
class SpinUnits(Units):
    """Units of the values −1 and +1 with S = rφ: the limit b → ∞ of φ⁴ units whose minima stay at ±1.

    Parameters
    ----------
    linear : array_like, shape (n,)

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl.networks import SpinUnits
    >>> round(float(SpinUnits([0.0]).mean(jnp.array([0.5]))[0]), 4)
    0.4621
    """

    states = (-1.0, 1.0)

    def __init__(self, linear: ArrayLike):
        self._set(linear=linear)

    def log_normalizer(self, field: Layer) -> JaxLayer:
        """log 2 cosh(x − r)."""
        lean = field - _along(self.linear, field)
        return jnp.logaddexp(lean, -lean)

    def mean(self, field: Layer) -> JaxLayer:
        """tanh(x − r)."""
        return jnp.tanh(field - _along(self.linear, field))

    def variance(self, field: Layer) -> JaxLayer:
        """1 − ⟨φ⟩²."""
        return 1 - self.mean(field) ** 2

    def draw(self, key: jax.Array, field: Layer) -> JaxLayer:
        """An exact draw of every unit in the field x."""
        up = jax.random.uniform(key, field.shape, field.dtype) < jax.nn.sigmoid(
            2 * (field - _along(self.linear, field))
        )
        return 2 * up.astype(field.dtype) - 1
