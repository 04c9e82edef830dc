"""How heavy the tail of importance weights is."""

from __future__ import annotations

import numpy as np

__all__ = ["FEWEST", "MAX_PARETO_K", "MORE_DRAWS", "pareto_k", "weight_checks"]

MAX_PARETO_K = 0.7
FEWEST = 25  # weights in whose tail of a fifth a Pareto distribution can be fitted
MORE_DRAWS = "(num_draws)."  # what gives a posterior by weights more of them
VANISHING = 1e-200
TIED = 1e-6  # log weights that are closer are equal up to rounding


def pareto_k(log_weights, effective_fraction: float = 1.0) -> float:
    """Shape k̂ of the generalized Pareto distribution fitted to the largest importance weights.

    Weights with k̂ > 0.7 have a mean that finite samples do not find, however small the error looks. The fit is that of
    ArviZ (A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry, J. Mach. Learn. Res. 25 (2024) 72).

    Parameters
    ----------
    log_weights : array, shape (num_samples,)
        Up to a constant.
    effective_fraction : float
        Effective number of independent samples per sample: autocorrelated samples have a longer tail to fit.

    Returns
    -------
    float; −inf for weights that are all equal, inf where most of the tail is nothing next to the largest weight, and for fewer
    than 25 weights, which have no tail to fit

    Examples
    --------
    >>> import numpy as np
    >>> u = np.random.default_rng(0).uniform(size=4000)
    >>> bool(pareto_k(-1.5 * np.log(u)) > 0.7), bool(pareto_k(-0.2 * np.log(u)) < 0.7)
    (True, True)
    """
    from arviz_stats.base import array_stats

    log_weights = np.asarray(log_weights, float)
    if np.ptp(log_weights) < 1e-9:
        return -np.inf
    if len(log_weights) < FEWEST:
        return np.inf
    fraction = float(np.clip(effective_fraction, 1e-6, 1.0))
    ordered = np.sort(log_weights)
    tail = ordered[-int(np.ceil(min(0.2 * len(log_weights), 3 * np.sqrt(len(log_weights))))) :]
    if tail[len(tail) // 2] - tail[-1] < np.log(VANISHING):
        return np.inf
    # the length of the tail that ArviZ takes, whose lower quartile scales the fit: of tied weights it would be 0
    length = int(np.ceil(min(0.2 * len(ordered), 3 * np.sqrt(len(ordered) / fraction))))
    if ordered[-length + int(length / 4 + 0.5) - 1] - ordered[-length - 1] < TIED:
        log_weights = _spread(ordered)
        if np.ptp(log_weights) == 0:
            return -np.inf
    # ArviZ takes log likelihoods, whose negatives are the log weights of leave-one-out
    _, k = array_stats.psislw(-log_weights, r_eff=fraction)
    return float(k)


def _spread(log_weights: np.ndarray) -> np.ndarray:
    """Tied weights, as fields with discrete values have them, spread evenly between the middles to their neighbors."""
    values, counts = np.unique(np.round(log_weights / TIED) * TIED, return_counts=True)
    borders = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    parts = [
        low + (high - low) * (np.arange(count) + 0.5) / count
        for low, high, count in zip(borders[:-1], borders[1:], counts, strict=True)
    ]
    return np.concatenate(parts)


def weight_checks(settings: dict) -> list[tuple[str, bool, str, str, str]]:
    """Rows of the verdict on a posterior by importance weights: name, passed, value, threshold and advice."""
    k = settings["pareto_k"]
    others = [text for text in settings["warnings"] if not text.startswith("Pareto")]
    advice = "The draws are those of the normal approximation: use phi4ppl.sample."
    found = others[0].partition(",")[0].partition(". ")[0] if others else "none found"
    return [
        ("Pareto k̂", bool(k <= MAX_PARETO_K), f"{k:.2f} of the weights", f"at most {MAX_PARETO_K}", advice),
        ("other modes", not others, found, "none", " ".join(others)),
    ]
