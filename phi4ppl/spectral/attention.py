"""Attention matrices: what they are beside uniform attention, alike heads, and the collapse of tokens onto one."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array
from ..reports.numbers import value_with_error

__all__ = ["AttentionSpectrum", "attention_spectrum", "collapse_residual"]

ROUNDING = 100  # roundings by which rows may miss a sum of 1


@dataclass(frozen=True)
class AttentionSpectrum:
    """Means over inputs with their standard errors, which are nan of a single input.

    ``singular_values`` of A − 11ᵀ/T, shape ``(layers, heads, T)``. ``residuals`` by layer: of the product of the attention
    matrices up to there, head means, or of the hidden states if these were given. ``head_alignment``: cosines between heads,
    shape ``(layers, heads, heads)``, nan where a head is uniform.
    """

    singular_values: np.ndarray
    singular_value_errors: np.ndarray
    residuals: np.ndarray
    residual_errors: np.ndarray
    head_alignment: np.ndarray
    head_alignment_errors: np.ndarray
    num_inputs: int

    def __str__(self) -> str:
        layers, heads, size = self.singular_values.shape
        lines = [f"attention of {heads} heads in {layers} layers, {size} tokens, {self.num_inputs} inputs"]
        for layer in range(layers):
            top = zip(self.singular_values[layer, :, 0], self.singular_value_errors[layer, :, 0], strict=True)
            residual = value_with_error(self.residuals[layer], self.residual_errors[layer])
            shown = "  ".join(value_with_error(*pair) for pair in top)
            lines.append(f"  layer {layer}: largest singular value by head {shown}; residual from rank one {residual}")
        return "\n".join(lines)


@call_checked
def collapse_residual(hidden) -> np.ndarray:
    """``|H − 1hᵀ|/|H|`` with h the mean over tokens: 0 where all tokens are one vector, and for H = 0.

    Parameters
    ----------
    hidden : array, shape ``(…, tokens, features)``

    Returns
    -------
    array, shape ``(…,)``
        In Frobenius norms; h is the vector that makes it smallest.

    Raises
    ------
    ArgumentError

    Notes
    -----
    Source: Y. Dong, J.-B. Cordonnier and A. Loukas, arXiv:2103.03404, with another norm.

    Examples
    --------
    >>> from phi4ppl.spectral.attention import collapse_residual
    >>> collapse_residual([[[0.1, 0.2], [0.1, 0.2]], [[1.0, 0.0], [-1.0, 0.0]]])
    array([0., 1.])
    """
    states = finite_array("hidden", hidden).astype(float)
    if states.ndim < 2:
        raise ArgumentError("hidden", "shape (…, tokens, features)", f"shape {states.shape}", reason="shape")
    differences = states - states[..., :1, :]  # exactly zero for equal tokens
    differences = differences - differences.mean(axis=-2, keepdims=True)
    whole = np.linalg.norm(states, axis=(-2, -1))
    return np.linalg.norm(differences, axis=(-2, -1)) / np.where(whole > 0, whole, 1.0)


@call_checked
def attention_spectrum(weights, *, hidden=None) -> AttentionSpectrum:
    """Spectra of attention matrices by layer and head, the collapse of tokens by layer, and how alike heads are.

    Parameters
    ----------
    weights : array, shape ``(T, T)``, ``(heads, T, T)``, ``(layers, heads, T, T)`` or ``(inputs, layers, heads, T, T)``
        A of softmax(QKᵀ/√d): rows add up to 1.
    hidden : array, shape ``(layers, T, features)`` or ``(inputs, layers, T, features)``, optional
        States after each layer, skip connections included. Without them, collapse is that of the product of the head means of
        the attention matrices, which is the network's without skip connections and with equal values.

    Returns
    -------
    AttentionSpectrum

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.spectral.attention import attention_spectrum
    >>> found = attention_spectrum(np.full((2, 3, 3), 1 / 3))
    >>> float(found.singular_values.max()), found.residuals
    (0.0, array([0.]))
    """
    attention = finite_array("weights", weights)
    if not 2 <= attention.ndim <= 5 or attention.shape[-1] != attention.shape[-2]:
        expected = "shape (T, T) after at most the axes inputs, layers and heads"
        raise ArgumentError("weights", expected, f"shape {attention.shape}", reason="shape")
    if not attention.size:
        raise ArgumentError("weights", "at least one head, token and input", f"shape {attention.shape}", reason="shape")
    size, precision = attention.shape[-1], float(np.finfo(attention.dtype).eps)
    if getattr(getattr(weights, "dtype", None), "itemsize", 8) == 2:  # half precisions, which finite_array has widened
        precision = float(jnp.finfo(weights.dtype).eps) / ROUNDING  # a row of half precision misses 1 by an ε or so
    rounding = ROUNDING * size * precision
    off = np.abs(attention.sum(axis=-1, dtype=float) - 1).max()
    if off > rounding or attention.min() < -rounding:
        got = f"rows that miss it by {off:.2g}" if off > rounding else f"the weight {attention.min():.2g}"
        raise ArgumentError("weights", "weights that are not negative, with rows that add up to 1", got, reason="rows")
    attention = attention.reshape((1,) * (5 - attention.ndim) + attention.shape)
    inputs, layers = attention.shape[:2]
    rest = (attention - attention.dtype.type(1) / attention.dtype.type(size)).astype(float)
    norms = np.linalg.norm(rest, axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("ilhab,ilgab->ilhg", rest, rest) / (norms[..., :, None] * norms[..., None, :])
    states = _products(attention) if hidden is None else _states(hidden, inputs, layers, size)
    singular, singular_errors = _over_inputs(np.linalg.svd(rest, compute_uv=False))
    residuals, residual_errors = _over_inputs(collapse_residual(states))
    alignment, alignment_errors = _over_inputs(cosines)
    return AttentionSpectrum(singular, singular_errors, residuals, residual_errors, alignment, alignment_errors, inputs)


def _products(attention: np.ndarray) -> np.ndarray:
    """A_l … A_1 of head means, shape ``(inputs, layers, T, T)``."""
    means = attention.mean(axis=2, dtype=float)
    uniform = (attention == attention[..., :1, :]).all(axis=(2, 3, 4))  # rows that are equal stay so
    found, product = [], np.eye(attention.shape[-1])
    for layer in range(means.shape[1]):
        product = means[:, layer] @ product
        product = np.where(uniform[:, layer, None, None], product[:, :1], product)
        found.append(product)
    return np.stack(found, axis=1)


def _states(hidden, inputs: int, layers: int, size: int) -> np.ndarray:
    states = finite_array("hidden", hidden)
    states = states[None] if states.ndim == 3 else states
    if states.ndim != 4 or states.shape[:3] != (inputs, layers, size):
        expected = f"shape ({inputs}, {layers}, {size}, features), as the weights"
        raise ArgumentError("hidden", expected, f"shape {np.shape(hidden)}", reason="shape")
    return states


def _over_inputs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    number = len(values)
    errors = values.std(axis=0, ddof=1) / np.sqrt(number) if number > 1 else np.full(values.shape[1:], np.nan)
    return values.mean(axis=0), errors
