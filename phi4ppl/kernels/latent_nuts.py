"""NUTS for latent fields under data, with a mass matrix from the curvature of the posterior.

An intercept trades against the mean of a field, and a scale against its amplitude: a few directions are a hundred times longer
than all others, and a diagonal mass matrix knows nothing of them. The precision of the posterior near its mode does: all of
it but the softest directions is close to its diagonal, and these are found by Lanczos.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh

from ..energy.compiled import CompiledModel
from ..errors import SamplingError
from ..numpyro_plugin.curvature import Curvature, curvature_of, factorized
from .adaptation import Whitened, WindowAdaptation
from .gradient import nuts, nuts_statistics
from .kernel import Kernel
from .metrics import LowRank, Precision, metric_of

__all__ = ["NAME", "NUTS_CURVATURE", "fit_if_sure", "low_rank"]

NAME = "nuts_curvature"
NUM_DIRECTIONS = 32  # that are treated apart from the diagonal
SOFT = 0.5  # eigenvalues of the scaled precision above it are left to the diagonal
MAX_DENSE = 64
ACCEPTANCE = 0.9


def low_rank(precision: sparse.csc_matrix) -> Precision:
    """The diagonal of a precision, and its softest directions relative to it."""
    scale = np.sqrt(precision.diagonal())
    inverse = sparse.diags(1 / scale)
    scaled = (inverse @ precision @ inverse).tocsc()
    number = min(NUM_DIRECTIONS, len(scale))
    if len(scale) <= MAX_DENSE:
        values, vectors = np.linalg.eigh(scaled.toarray())
    else:
        solve = LinearOperator(scaled.shape, matvec=factorized(scaled).solve, dtype=float)
        start = np.random.default_rng(0).normal(size=len(scale))
        values, vectors = eigsh(scaled, number, sigma=0.0, OPinv=solve, v0=start, tol=1e-4)
    soft = values < SOFT
    return Precision(scale, vectors[:, soft], np.maximum(values[soft], 1e-8))


def fit_if_sure(compiled: CompiledModel) -> tuple[Kernel, str]:
    """The kernel fitted to a model, if that is sure to have one mode and directions that a diagonal does not know.

    Raises
    ------
    SamplingError
        With the reason why plain NUTS is the better choice.
    """
    curvature = curvature_of(compiled)
    theta, _, mode = curvature.peak
    if doubt := curvature.doubt(theta, mode):
        raise SamplingError("no_mode", doubt)
    kernel, how = _fitted(curvature)
    if not kernel.adaptation.mass.precision.eigenvalues.size:  # type: ignore[attr-defined]
        raise SamplingError("no_curvature", "the posterior has no soft directions beside the diagonal")
    return kernel, how


def _fit(compiled: CompiledModel) -> tuple[Kernel, str]:
    return _fitted(curvature_of(compiled))


def _fitted(curvature: Curvature) -> tuple[Kernel, str]:
    """NUTS with this mass matrix, and chains that start in the normal law of this precision around the peak."""
    order, (theta, _, mode) = curvature.order(), curvature.peak
    precision = low_rank(curvature.joint_precision()[order][:, order].tocsc())
    template, unravel = ravel_pytree(curvature.template)
    peak = jnp.asarray(np.concatenate([theta, mode.x])[order], template.dtype)

    def start(key):
        noise = jax.random.normal(key, peak.shape, peak.dtype)
        metric = metric_of(LowRank(jnp.ones_like(peak), precision), None)
        return unravel(peak + metric.scale(peak, noise, inv=True, trans=False))

    adaptation = WindowAdaptation(ACCEPTANCE, Whitened(precision))
    kernel = dataclasses.replace(NUTS_CURVATURE, adaptation=adaptation, fit=None, start=start)
    return kernel, f"{len(precision.eigenvalues)} of {len(peak)} directions apart from the diagonal"


def _objection(compiled: CompiledModel) -> str | None:
    return None if compiled.model is None else "is for NumPyro models, and this is a field by itself"


NUTS_CURVATURE = Kernel(
    NAME, "No-U-Turn sampler with the curvature of the posterior at its mode as mass matrix, for NumPyro models", nuts,
    nuts_statistics, WindowAdaptation(ACCEPTANCE), _objection, fit=_fit,
)  # fmt: skip
