"""What `derive` returns: values with errors, and their covariance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .._typing import Element
from ..errors import ArgumentError, MissingPackageError
from ..reports.numbers import value_with_error

__all__ = ["Derived", "Part"]


class Share(NamedTuple):
    """What one run adds to a derived quantity, of each of its real numbers."""

    run: object
    error: Element
    bias: Element
    tau_int: np.ndarray
    tau_int_error: np.ndarray
    window: np.ndarray
    reliable: np.ndarray
    series: np.ndarray
    """Its projected series, (chains, draws, outputs); of reweighted means deviations of replicas, (replicas, outputs)."""


@dataclass(frozen=True)
class Part:
    """One derived quantity.

    Attributes
    ----------
    value, error, bias : numbers or arrays
        f of the means, its standard error, and the bias of ``value`` from the curvature of f: ``value − bias`` is corrected.
        Of a complex quantity the real part of an error belongs to the real part of the value.
    tau_int, tau_int_error, window : numbers or arrays
        Of the projected series of the run that adds most to the error, in draws. Errors of reweighted means come from blocks:
        τ_int is that of their slowest weighted series, its error NaN, and the window 0.
    reliable : bool or array
        Whether the error can be trusted, for the projected series of every run; see `GammaEstimate`. Of reweighted means, also
        whether the weights leave enough samples.
    """

    value: np.ndarray
    error: np.ndarray
    bias: np.ndarray
    tau_int: np.ndarray
    tau_int_error: np.ndarray
    window: np.ndarray
    reliable: np.ndarray
    shares: tuple = field(repr=False, default=())

    @classmethod
    def joined(cls, value, shares: list[Share], shape, is_complex: bool) -> Part:
        """From what the runs add; ``value`` is real numbers in one row."""
        largest, pick = np.argmax([share.error for share in shares], axis=0), np.arange(len(value))
        tau, tau_error, window = (
            np.stack([getattr(share, name) for share in shares])[largest, pick]
            for name in ("tau_int", "tau_int_error", "window")
        )
        error = np.sqrt(sum(share.error**2 for share in shares))
        bias = sum(share.bias for share in shares)
        reliable = np.all([share.reliable for share in shares], axis=0)

        def halves(numbers):
            return [half.reshape(shape)[()] for half in np.split(numbers, 1 + is_complex)]

        def joint(numbers):
            return halves(numbers)[0] if not is_complex else halves(numbers)[0] + 1j * halves(numbers)[1]

        def worst(numbers):
            return np.maximum.reduce(halves(numbers))

        return cls(
            joint(value), joint(error), joint(bias), worst(tau), worst(tau_error), worst(window),
            np.logical_and.reduce(halves(reliable)), tuple(shares),
        )  # fmt: skip

    def __str__(self) -> str:
        if np.ndim(self.value):
            return f"array of shape {np.shape(self.value)}"
        if np.iscomplexobj(self.value):
            parts = [value_with_error(float(p(self.value)), float(p(self.error))) for p in (np.real, np.imag)]
            return f"{parts[0]} + {parts[1]}i"
        return value_with_error(float(self.value), float(self.error))

    __repr__ = __str__


class Derived(Mapping):
    """Derived quantities by name; see `derive`.

    ``derived["U4"]`` is a `Part` with ``value``, ``error``, ``bias``, ``tau_int``, ``window`` and ``reliable``.
    """

    def __init__(self, parts: dict[str, Part], method: str):
        self._parts, self.method = parts, method

    def __getitem__(self, name: str) -> Part:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each quantity whose error cannot be trusted."""
        return tuple(
            f"{name}: the chains are too short for the error, they disagree, or weights leave too few draws. Draw more."
            for name, part in self._parts.items()
            if not np.all(part.reliable)
        )

    def covariance(self, *names: str) -> np.ndarray:
        """Covariance of the named quantities (all of them by default), arrays flattened one after the other.

        Its diagonal holds the squared errors. Correlations come from overlapping sums of consecutive draws, longer than the
        windows, of the projected series, and those of reweighted means from their jackknife replicas, so that the matrix has
        no negative eigenvalue.

        Raises
        ------
        ArgumentError
            For an unknown name, or a complex quantity.
        """
        for name in names:
            if name not in self._parts:
                raise ArgumentError("names", f"some of {', '.join(self._parts)}", repr(name))
        parts = [self._parts[name] for name in names or self._parts]
        if any(np.iscomplexobj(part.value) for part in parts):
            raise ArgumentError(
                "names", "real quantities", "a complex one", "Derive real and imaginary part by themselves."
            )
        sizes = [np.size(part.value) for part in parts]
        starts = np.cumsum([0, *sizes])
        total = np.zeros((starts[-1],) * 2)
        length = 2 * max(int(np.max(part.window)) for part in parts) + 1
        for key in {id(share.run): share.run for part in parts for share in part.shares}:
            found = [
                (start, s) for part, start in zip(parts, starts, strict=False) for s in part.shares if id(s.run) == key
            ]
            sums = np.concatenate([_moving_sums(share.series, length) for _, share in found], axis=1)
            places = np.concatenate([np.arange(start, start + np.size(share.error)) for start, share in found])
            errors = np.concatenate([share.error for _, share in found])
            spread = np.sqrt((sums**2).sum(axis=0))
            unit = sums / np.where(spread > 0, spread, 1.0)
            total[np.ix_(places, places)] += unit.T @ unit * np.outer(errors, errors)
        return total

    def to_pyerrors(self) -> dict:
        """Every scalar real quantity as a ``pyerrors.Obs``, with a replica per chain, for further analysis there.

        Raises
        ------
        MissingPackageError
            If *pyerrors* is not installed.
        ArgumentError
            For functions of reweighted means, which have no series.
        """
        try:
            import pyerrors
        except ImportError as error:
            raise MissingPackageError("pyerrors", "pyerrors is not installed: pip install pyerrors") from error
        found = {}
        for name, part in self._parts.items():
            if np.ndim(part.value) or np.iscomplexobj(part.value):
                continue
            obs = part.value
            for number, share in enumerate(part.shares):
                if share.series.ndim == 2:
                    fix = "Hand value, error and covariance over instead, for example to pyerrors.cov_Obs."
                    raise ArgumentError(name, "a function of means over draws", "one of reweighted means", fix)
                chains = share.series[..., 0]
                labels = [f"run{number}|r{k}" for k in range(len(chains))]
                obs = pyerrors.Obs(list(chains - chains.mean()), labels) + obs
            found[name] = obs
        return found

    def __str__(self) -> str:
        rows = [("", "value", "bias", "tau_int")]
        for name, part in self._parts.items():
            scalar = np.ndim(part.value) == 0
            real = scalar and not np.iscomplexobj(part.value)
            tau = f"up to {np.max(part.tau_int):.3g}"
            if scalar:  # from blocks it has no error
                known = np.isfinite(part.tau_int_error)
                tau = (
                    value_with_error(float(part.tau_int), float(part.tau_int_error)) if known else f"{part.tau_int:.2g}"
                )
            rows.append((name, str(part), f"{part.bias:.2g}" if real else "", tau))
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__


def _moving_sums(series: np.ndarray, length: int) -> np.ndarray:
    """Sums of ``length`` consecutive draws of each chain less their mean, (sums, outputs); deviations are sums already."""
    if series.ndim == 2:
        return series
    length = min(length, series.shape[1] // 2)
    total = np.cumsum(series - series.mean(axis=(0, 1)), axis=1)
    total = np.concatenate([np.zeros_like(total[:, :1]), total], axis=1)
    return (total[:, length:] - total[:, :-length]).reshape(-1, series.shape[2])
