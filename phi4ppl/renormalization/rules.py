"""Rules of blocking: what a block of fine sites becomes, one number.

With b the factor, d the dimension and φ̄ the mean over a block, rules that are linear in the field scale by s = b^{(d−2+η)/2},
so that the correlations of a critical field keep their size from level to level if η is that of its universality class.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array
from .blocks_of_sites import BlocksOfSites

__all__ = [
    "RULES",
    "Average",
    "BellWilson",
    "Custom",
    "Decimate",
    "StencilKernel",
    "Majority",
    "Rule",
    "Sign",
    "rules_of",
]

SHARPENING = 1 / 12  # the default stencil of `StencilKernel` is 1 − Δ/12, Δ the lattice Laplacian
CHUNK = 1 << 24  # numbers of fields that a user's function is mapped over at once


@dataclass(frozen=True)
class Rule:
    """What all rules have: a call with fields ``(n, *shape)``, their blocks and a random generator, and three facts.

    Attributes
    ----------
    name : str
    makes_spins : bool
        Whether coarse fields are ±1.
    conserves : bool
        Whether the sum of the coarse field is a multiple of the sum of the fine one, whatever the field.
    is_random : bool
    """

    name = "rule"
    makes_spins = False
    conserves = False
    is_random = False

    def scale(self, blocks: BlocksOfSites) -> float:
        """The factor s of a linear rule; 1 for others."""
        return 1.0

    def __call__(self, fields: np.ndarray, blocks: BlocksOfSites, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(Rule):
    """Rules linear in the field. ``eta=None`` leaves out the factor s; see the module."""

    eta: float | None = None

    def __post_init__(self):
        if self.eta is not None:
            if isinstance(self.eta, bool) or not isinstance(self.eta, numbers.Real) or not math.isfinite(self.eta):
                raise ArgumentError("eta", "a finite number, or None for no factor", repr(self.eta), "In 2D it is 1/4.")

    def scale(self, blocks: BlocksOfSites) -> float:
        if self.eta is None:
            return 1.0
        if blocks.dimension is None:
            fix = "A partition of a graph has no factor of length: leave eta out."
            raise ArgumentError("eta", "None for a partition", repr(self.eta), fix, reason="partition")
        return blocks.factor ** ((blocks.dimension - 2 + self.eta) / 2)


@call_checked
@dataclass(frozen=True)
class Average(Linear):
    """φ' = s φ̄: the sum of the coarse field is s times that of the fine one over the size of a block.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.renormalization.Average(eta=0.25)
    Average(eta=0.25)
    """

    name = "average"
    conserves = True

    def __call__(self, fields, blocks, rng):
        return blocks.mean(fields) * self.scale(blocks)


@call_checked
@dataclass(frozen=True)
class Decimate(Linear):
    """φ' = s φ of the first site of the block; the others are forgotten."""

    name = "decimate"

    def __call__(self, fields, blocks, rng):
        return blocks.first(fields).astype(float) * self.scale(blocks)


@call_checked
@dataclass(frozen=True)
class Sign(Rule):
    """φ' = sign of φ̄, ±1; a mean of exactly 0, as of spins, is decided by a seeded coin."""

    name = "sign"
    makes_spins = True
    is_random = True  # where spins tie

    def __call__(self, fields, blocks, rng):
        return _signs(blocks.sum(fields), rng)


@call_checked
@dataclass(frozen=True)
class Majority(Rule):
    """φ' = the sign that most sites of the block have, ±1; ties are decided by a seeded coin."""

    name = "majority"
    makes_spins = True
    is_random = True

    def __call__(self, fields, blocks, rng):
        return _signs(blocks.sum(np.sign(fields)), rng)


@call_checked
@dataclass(frozen=True)
class StencilKernel(Linear):
    """φ' = s K φ̄, with K a symmetric stencil on the coarse torus whose inverse is known: `inverse` undoes it.

    Parameters
    ----------
    eta : float, optional
    stencil : nested tuples or array, optional
        Odd sides, symmetric under every reflection; it is divided by its sum. By default K = 1 − Δ/12, with Δ the lattice
        Laplacian: for a free field in one dimension it makes the action of the fixed point one of nearest neighbors.

    Raises
    ------
    ArgumentError
        If the stencil is not symmetric, sums to zero, or does not fit the lattice, or K has no inverse on it.
    """

    stencil: tuple | None = None
    name = "kernel"
    conserves = True

    def __post_init__(self):
        super().__post_init__()
        if self.stencil is not None:
            array = finite_array("stencil", self.stencil)
            flipped = all(np.allclose(array, np.flip(array, axis)) for axis in range(array.ndim))
            if array.ndim < 1 or any(n % 2 == 0 for n in array.shape) or not flipped or abs(array.sum()) < 1e-12:
                expected = "odd sides, the same under every reflection, a sum that is not zero"
                raise ArgumentError("stencil", expected, f"{np.array2string(array, threshold=20)}")
            object.__setattr__(self, "stencil", _tuples(array / array.sum()))

    def __call__(self, fields, blocks, rng):
        coarse = blocks.mean(fields) * self.scale(blocks)
        return _filtered(coarse, self.symbol(_torus(blocks)))

    def inverse(self, coarse: np.ndarray, blocks: BlocksOfSites) -> np.ndarray:
        """The block means φ̄ of which ``coarse``, shape ``(n, *coarse_shape)``, was made."""
        return _filtered(coarse, 1 / self.symbol(_torus(blocks))) / self.scale(blocks)

    def symbol(self, shape: tuple[int, ...]) -> np.ndarray:
        """K(k) at the momenta of a torus, real; K(0) = 1."""
        if self.stencil is None:
            waves = np.meshgrid(*(2 - 2 * np.cos(2 * np.pi * np.arange(n) / n) for n in shape), indexing="ij")
            return 1 + SHARPENING * np.sum(waves, axis=0)
        stencil, delta = np.asarray(self.stencil), np.zeros(shape)
        if stencil.ndim != len(shape) or any(m > n for m, n in zip(stencil.shape, shape, strict=False)):
            fix = "Give it one axis for each of the lattice, and block fewer times."
            raise ArgumentError("stencil", f"sides of at most {shape}", f"{stencil.shape}", fix, reason="shape")
        delta[tuple(slice(m) for m in stencil.shape)] = stencil
        symbol = np.fft.fftn(np.roll(delta, [-(m // 2) for m in stencil.shape], range(len(shape)))).real
        if np.min(np.abs(symbol)) < 1e-8 * np.max(np.abs(symbol)):
            fix = "A larger number in the middle keeps K(k) from zero."
            raise ArgumentError("stencil", "one with an inverse", f"K(k) = 0 on {shape}", fix, reason="singular")
        return symbol


@call_checked
@dataclass(frozen=True)
class BellWilson(Linear):
    """φ' = s φ̄ + ν, with ν independent Gaussian noise: exp(−S'(φ')) = ∫ exp(−S(φ) − ½ α Σ (φ' − s φ̄)²) dφ.

    Parameters
    ----------
    eta : float, optional
    alpha : float
        Of the formula; the variance of ν is 1/α. At 10 the φ⁴ action of the Ising class in two dimensions nearly stands still.
    """

    alpha: float = 10.0
    name = "bell_wilson"
    is_random = True

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, numbers.Real) or not 0 < self.alpha < np.inf:
            raise ArgumentError("alpha", "a positive number", repr(self.alpha), "The variance of the noise is 1/alpha.")

    def __call__(self, fields, blocks, rng):
        coarse = blocks.mean(fields) * self.scale(blocks)
        return coarse + rng.normal(size=coarse.shape) / math.sqrt(self.alpha)


@call_checked
@dataclass(frozen=True, repr=False)
class Custom(Rule):
    """A user's JAX function of one fine field, which returns the coarse one."""

    function: Callable = lambda phi: phi
    name = "custom"

    def __call__(self, fields, blocks, rng):
        shape, batch = blocks.coarse.field_shape, max(1, CHUNK // blocks.fine.num_sites)
        expected = f"a JAX function of one field of shape {blocks.fine.field_shape} that returns one of shape {shape}"
        try:
            result = jax.eval_shape(self.function, jax.ShapeDtypeStruct(blocks.fine.field_shape, fields.dtype))
        except Exception as error:  # the user should read whatever the function raises under tracing
            got = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            raise ArgumentError("rule", expected, got, "Write it with jax.numpy.", reason="raises") from error
        if getattr(result, "shape", None) != shape:
            raise ArgumentError("rule", expected, f"a function that returns {result}", reason="returns")
        mapped = jax.jit(jax.vmap(self.function))
        parts = [np.asarray(mapped(fields[k : k + batch]), float) for k in range(0, len(fields), batch)]
        return np.concatenate(parts)

    def __repr__(self) -> str:
        return f"Custom({getattr(self.function, '__name__', self.function)})"


RULES: dict[str, type[Rule]] = {
    kind.name: kind for kind in (Average, Decimate, Sign, Majority, StencilKernel, BellWilson)
}  # fmt: skip


def rules_of(rule, eta: float | None, levels: int) -> tuple[Rule, ...]:
    """One rule a level, from a name, a rule, a function, or a sequence of them whose last one is repeated."""
    given = list(rule) if isinstance(rule, (list, tuple)) else [rule]
    if not given or len(given) > levels:
        fix = "The last rule of a sequence is repeated."
        raise ArgumentError("rule", f"from 1 to {levels} rules, one per level", f"{len(given)}", fix, reason="count")
    found = [_rule_of(each, eta) for each in given]
    if eta is not None and not any(isinstance(each, Linear) for each in found):
        fix = "Signs have no scale: leave eta out."
        raise ArgumentError("eta", "None for these rules", repr(eta), fix, reason="unused")
    return tuple(found + found[-1:] * (levels - len(found)))


def _rule_of(value, eta) -> Rule:
    if isinstance(value, Rule):
        if eta is not None and isinstance(value, Linear) and value.eta != eta:
            fix = "Give it once, in the rule."
            raise ArgumentError("eta", f"None beside {value!r}", repr(eta), fix, reason="unused")
        return value
    if isinstance(value, str) and value in RULES:
        kind = RULES[value]
        return kind(eta=eta) if issubclass(kind, Linear) else kind()
    if callable(value) and not isinstance(value, type):
        return Custom(value)
    expected = f"one of {', '.join(map(repr, RULES))}, a rule of phi4ppl.renormalization, or a function of one field"
    raise ArgumentError("rule", expected, repr(value)[:80])


def _signs(total: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """±1, with coins where the total is zero."""
    coins = rng.integers(
        0, 2, size=total.shape, dtype=np.int8
    )  # for every site, so that one more tie moves no other coin
    return np.where(total == 0, 2 * coins - 1, np.sign(total))


def _torus(blocks: BlocksOfSites) -> tuple[int, ...]:
    coarse = blocks.coarse
    if coarse.shape is None or coarse.periodic is None or not all(coarse.periodic):
        raise ArgumentError(
            "rule", "a rule without a stencil", "'kernel'", "A stencil needs a torus.", reason="lattice"
        )
    return coarse.shape


def _filtered(fields: np.ndarray, symbol: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, fields.ndim))
    half = symbol[..., : symbol.shape[-1] // 2 + 1]
    return np.fft.irfftn(np.fft.rfftn(fields, axes=axes) * half, s=symbol.shape, axes=axes)


def _tuples(array: np.ndarray):
    return tuple(map(_tuples, array)) if array.ndim else float(array)
