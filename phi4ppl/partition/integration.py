"""Thermodynamic integration: log Z = log Z_0 − ∫₀¹ ⟨dS_λ/dλ⟩_λ dλ from independent sites to the model."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from ..analysis.gamma_method import gamma_method
from ..errors.streams import stream_key, stream_rng
from ..sampling.memory import size_in_words
from ..sampling.progress import Progress
from .coupling_ensembles import sample_energies
from .coupling_path import Path
from .partition_estimate import PartitionEstimate

__all__ = ["integrate"]

MAX_INTERVALS = 8
LONG = 20  # autocorrelation times that a chain needs for a credible error
ALARM = 1e-3  # false-alarm probability that chains disagree
# Gauss–Kronrod rule of 15 nodes on [−1, 1], nodes x ≥ 0 from the outside (W. Gautschi and Patterson's tables, as in QUADPACK)
NODES = (
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
    0.741531185599394439863864773280788, 0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.0,
)  # fmt: skip
KRONROD = (
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
)  # fmt: skip
GAUSS = (
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780, 0.0,
    0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327,
)  # fmt: skip


def _rule() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes on [0, 1] in ascending order, and the weights of the two rules there."""
    outer, k, g = (np.array(part) for part in (NODES, KRONROD, GAUSS))
    nodes = np.concatenate([-outer, outer[-2::-1]])
    fine, coarse = (np.concatenate([w, w[-2::-1]]) / 2 for w in (k, g))
    return (1 + nodes) / 2, fine, coarse


@dataclass(frozen=True)
class _Interval:
    """∫ ⟨dS/dλ⟩ dλ over [low, high], with its statistical and its quadrature error."""

    low: float
    high: float
    value: float
    noise: float
    quadrature: float
    reliable: bool


def integrate(
    path: Path, *, num_warmup: int, num_samples: int, num_chains: int, seed: int, progress
) -> PartitionEstimate:
    """log Z along the path by 15-point Gauss–Kronrod rules, bisecting while their error exceeds that of the integrand.

    Chains run at all nodes of an interval at once. The error of the integrand is that of the Γ-method; that of the rule is
    the difference to its seven-point Gauss rule, as far as it exceeds twice its own noise: an estimate for the worse rule.
    """
    key, rng = stream_key(seed, "integration"), stream_rng(seed, "integration")
    steps = num_warmup + num_samples
    with Progress(steps, progress) as bar:
        bar.message("compiling the ensembles along the path …")

        def over(low: float, high: float, number: int) -> _Interval:
            nodes, kronrod, gauss = _rule()
            values = path.models(low + (high - low) * nodes)
            start = path.draw(rng, (len(nodes), num_chains))
            energies, _ = sample_energies(
                values, path.change, start, num_warmup=num_warmup, num_samples=num_samples,
                key=jax.random.fold_in(key, number), progress=bar,
            )  # fmt: skip
            slope = np.moveaxis(energies.sum(axis=3), 0, 2)
            estimate = gamma_method(slope)
            wide = high - low
            noise = wide * np.sqrt(np.sum((kronrod * estimate.error) ** 2))
            doubt = 2 * np.sqrt(np.sum(((kronrod - gauss) * estimate.error) ** 2))
            difference = abs((kronrod - gauss) @ estimate.mean)
            quadrature = wide * max(0.0, difference - doubt)
            long_enough = slope.shape[1] >= LONG * estimate.tau_int.max()
            healthy = long_enough and estimate.replica_q.min() > ALARM / len(nodes)
            return _Interval(low, high, wide * kronrod @ estimate.mean, noise, quadrature, bool(healthy))

        intervals, number = [over(0.0, 1.0, 0)], 1
        while len(intervals) < MAX_INTERVALS:
            worst = max(intervals, key=lambda part: part.quadrature)
            if worst.quadrature < np.sqrt(sum(part.noise**2 for part in intervals)) / 2:
                break
            bar.total += 2 * steps
            middle = (worst.low + worst.high) / 2
            intervals.remove(worst)
            intervals += [over(worst.low, middle, number), over(middle, worst.high, number + 1)]
            number += 2
    return _result(path, intervals, num_chains, num_samples)


def _result(path: Path, intervals: list[_Interval], num_chains: int, num_samples: int) -> PartitionEstimate:
    noise = np.sqrt(sum(part.noise**2 for part in intervals))
    quadrature = sum(part.quadrature for part in intervals)
    value = path.sites.log_partition - sum(part.value for part in intervals)
    error = float(np.hypot(noise, quadrature) + path.sites.error)
    how = (
        f"{15 * len(intervals)} nodes × {size_in_words(num_chains, num_samples)}; "
        f"statistical error {noise:.2g}, of the rule {quadrature:.2g}"
    )
    warnings = []
    if not all(part.reliable for part in intervals):
        warnings.append(
            "some chains along the path are too short for their autocorrelation time, or disagree: the error may be too "
            "small. Increase num_samples."
        )
    return PartitionEstimate(float(value), error, "integration", how, warnings=tuple(warnings))
