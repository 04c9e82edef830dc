"""How to split a budget between realisations and draws, from the variance over the disorder and the thermal one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors.arguments import call_checked

__all__ = ["Budget", "budget_of"]

LITTLE = 0.1  # share of the variance below which more draws do not help


@call_checked
@dataclass(frozen=True)
class Budget:
    """Where the error of [⟨O⟩] comes from, and the number of draws at which a given budget buys the smallest one.

    With R realisations of A replicas of n draws after w iterations of warm-up,

        error² = (D + T/(A n)) / R,     cost = R A (w + n t),

    D = Var_J ⟨O⟩, T = 2 τ_int Var O, t iterations a draw. At fixed cost the error is smallest at n² = T w/(A D t), whatever R.

    Attributes
    ----------
    name : str
    disorder, disorder_error : float
        D, from products of replicas, and its error.
    thermal, thermal_error : float
        T, of one draw: n times the variance between the replicas of one realisation.
    thermal_share : float
        (T/(A n))/(D + T/(A n)): the part of error² that longer chains would remove.
    num_samples : int
        The n of smallest error at equal cost; at least 20 autocorrelation times, which the verdict asks for.
    gain : float
        error² now over error² at that n for the same cost: 1 where nothing is to be gained.
    present : int
        n of this run.
    """

    name: str
    disorder: float
    disorder_error: float
    thermal: float
    thermal_error: float
    thermal_share: float
    num_samples: int
    gain: float
    present: int

    def __str__(self) -> str:
        part = "less than 1%" if self.thermal_share < 0.01 else f"{self.thermal_share:.0%}"
        share = f"{self.name}: {part} of the squared error is thermal, the rest is the disorder"
        if self.gain < 1 + LITTLE:
            return (
                f"{share}; {self.present} draws per replica are a good choice: a smaller error takes more realisations"
            )
        change = "fewer draws and more" if self.num_samples < self.present else "more draws and fewer"
        return (
            f"{share}; at equal cost {change} realisations do better: num_samples={self.num_samples} has a squared error "
            f"{self.gain:.2g} times smaller"
        )

    __repr__ = __str__


def budget_of(
    name: str, means: np.ndarray, num_warmup: int, num_samples: int, thinning: int, least: int = 10
) -> Budget:
    """The advice for one observable from its means, shape ``(num_realizations, num_replicas)``.

    ``least`` draws are needed for chains that can be checked.
    """
    number, replicas = means.shape
    within = means.var(axis=1, ddof=1)  # T/n in every realisation
    noise = float(within.mean())
    spread = float(means.mean(axis=1).var(ddof=1))  # D + T/(A n)
    disorder = max(spread - noise / replicas, 0.0)
    disorder_error = float(np.sqrt(2 / (number - 1) * (spread**2 + (noise / replicas) ** 2 / (replicas - 1))))
    thermal, scale = noise * num_samples, np.std(within, ddof=1) / np.sqrt(number)
    floor = max(disorder, 1e-3 * spread)  # of no disorder at all, the best n is as large as one likes
    best = np.sqrt(thermal * num_warmup / (replicas * floor * thinning)) if spread > 0 else num_samples
    best = int(np.clip(np.ceil(best), least, max(least, 100 * num_samples)))

    def squared_error_times_cost(draws):
        return (disorder + thermal / (replicas * draws)) * (num_warmup + draws * thinning)

    now, then = squared_error_times_cost(num_samples), squared_error_times_cost(best)
    return Budget(
        name, disorder, disorder_error, thermal, float(scale * num_samples), noise / replicas / spread if spread else 0.0,
        best, float(now / then) if then else 1.0, num_samples,
    )  # fmt: skip
