"""What `ReweightingScan.derive` returns: functions of reweighted means along a coupling."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import xarray as xr

from ..analysis.derived_result import Derived

__all__ = ["ScanDerived", "along"]


class ScanDerived(Derived):
    """Derived quantities along a coupling; see `ReweightingScan.derive`.

    ``found["U4"]`` is a `Part` whose ``value``, ``error`` and ``bias`` have the couplings as their first axis, and
    ``found.covariance("U4", "chi")`` the covariance over couplings and quantities: all couplings of the first quantity, then
    those of the second. Its rank is at most the number of jackknife blocks (40 of each of several ensembles, up to 200 of
    a single one), and couplings that lie close together are almost perfectly correlated: fits need a cut on its smallest
    eigenvalues.

    Attributes
    ----------
    couplings : array, shape (num_couplings,)
    weights : xarray.Dataset
        Of these couplings, as in `ReweightingScan`.
    """

    def __init__(self, derived: Derived, weights: xr.Dataset):
        super().__init__(dict(derived), "jackknife")
        self.weights = weights

    @property
    def couplings(self) -> np.ndarray:
        return self.weights["coupling"].values

    def dataset(self) -> xr.Dataset:
        """`weights`, and NAME, NAME_error and NAME_bias over ``coupling``, for `plot_scans`."""
        data = self.weights.copy()
        for name, part in self.items():
            dims = ("coupling", *(f"{name}_dim_{k}" for k in range(np.ndim(part.value) - 1)))
            data = data.assign(
                {name: (dims, part.value), f"{name}_error": (dims, part.error), f"{name}_bias": (dims, part.bias)}
            )
            data[name].attrs["long_name"] = name
        return data


def along(function: Callable) -> Callable:
    """A function of the means at one coupling as one of the means at all of them."""
    return lambda m: jax.vmap(function)(m) if isinstance(m, dict) else function(_First(m))


class _First:
    """Means at the first coupling, by name, while `derive` notes which ones a function uses."""

    def __init__(self, means):
        self._means = means

    def __getitem__(self, name: str):
        return self._means[name][0]
