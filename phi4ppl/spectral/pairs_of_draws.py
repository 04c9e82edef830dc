"""The participation ratio of a covariance from pairs of separated draws.

With G_ij = φ_i·φ_j of two draws that are far apart in their chain, or of different chains, ⟨G_ij²⟩ = Σλ² and ⟨G_ii
G_jj⟩ = (Σλ)²
without bias (arXiv:2509.26560). Neighboring draws of a chain are no such pairs: they would count as independent what is not.
"""

from __future__ import annotations

import numpy as np

from .subsamples import block_ratio

__all__ = ["MAX_RATIO", "pair_ratio_of_draws", "spread_note"]

MAX_DRAWS = 2000  # whose products are taken
MAX_RATIO = 0.1  # sites per effective draw
BLOCKS_A_CHAIN = 8
MIN_BLOCKS = 16


def pair_ratio_of_draws(chains: np.ndarray, gap: int) -> tuple[float, float]:
    """The participation ratio and its jackknife error, from fields of shape ``(chains, draws, sites)``.

    ``gap`` is the least distance of two draws of one chain, in draws.
    """
    num_chains, num_draws, sites = chains.shape
    step = max(1, -(-num_chains * num_draws // MAX_DRAWS))
    chains = chains[:, ::step]
    num_draws = chains.shape[1]
    flat = chains.reshape(-1, sites).astype(float)
    chain = np.repeat(np.arange(num_chains), num_draws)
    time = np.tile(np.arange(num_draws), num_chains) * step
    apart = (chain[:, None] != chain[None, :]) | (np.abs(time[:, None] - time[None, :]) >= gap)
    np.fill_diagonal(apart, False)
    if not apart.any():
        return float("nan"), float("nan")
    products = flat @ flat.T
    diagonal = np.diag(products).copy()
    per_chain = min(num_draws, max(BLOCKS_A_CHAIN, -(-MIN_BLOCKS // num_chains)))
    block = chain * per_chain + (np.arange(num_draws) * per_chain // num_draws)[time // step]
    inside = np.zeros((len(flat), num_chains * per_chain))
    inside[np.arange(len(flat)), block] = 1.0
    squares = inside.T @ np.where(apart, products**2, 0.0) @ inside
    traces = (inside * diagonal[:, None]).T @ apart @ (inside * diagonal[:, None])
    return block_ratio(traces, squares)


def spread_note(sites: int, effective: float) -> list[str]:
    """What N/n_eff does to eigenvalues of a sample covariance (V. A. Marchenko and L. A. Pastur, 1967), where it matters."""
    ratio = sites / effective
    if ratio <= MAX_RATIO:
        return []
    low, high = max(0.0, 1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    return [
        f"{sites} sites from {effective:.0f} effective draws (ratio {ratio:.2g}, above {MAX_RATIO:g}): eigenvalues that "
        f"are equal come out between {low:.2f} and {high:.2f} of their value. Trust the participation ratio from "
        f"pairs; draw more for the rest."
    ]
