"""The results of a run so far, on the host: kept draws, streamed statistics, block means."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors.arguments import call_checked
from .checkpoint import Saved
from .program import Record, Sums
from .streaming import BlockedSeries, SeriesEstimate, SiteMoments

__all__ = ["Harvest", "RunResult", "result_so_far"]

NUM_BLOCKS = 20  # blocks per chain for per-site means
PREFIX = "harvest/"  # of its names in a checkpoint
FLUSH = 1000  # iterations at most that the device adds up in its own precision


@call_checked
@dataclass(frozen=True)
class RunResult:
    """The output of the chains: arrays with leading axes (chain, draw), and statistics of all iterations.

    ``streamed`` has what is streamed of the posterior and of the fields by name, and of the sample statistics under
    ``sample_stats/NAME``.
    """

    values: dict[str, np.ndarray]
    observables: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    log_likelihood: dict[str, np.ndarray]  # of every datum of a NumPyro model
    schwinger_dyson_blocks: np.ndarray  # (chain, block, dimension): block means of φ_i ∂S/∂φ_i
    streamed: dict[str, SeriesEstimate] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)


class Harvest:
    """Collects the output of the device; the result does not depend on the size of the pieces.

    Attributes
    ----------
    done : int
        Iterations taken.
    fetch : callable
        Makes arrays of all processes whole on each of them.
    """

    def __init__(self, record: Record, sums: Sums, num_samples: int, thinning: int, fetch=lambda tree: tree):
        num_chains, self.fetch = len(sums.virial), fetch
        self.thinning, self.done = thinning, 0
        num_blocks = max(1, min(NUM_BLOCKS, num_samples // 5))
        self.block_ends = [num_samples * (k + 1) // num_blocks * thinning for k in range(num_blocks)]
        parts = record._replace(streamed={})._asdict()
        self.storage = {
            f"{group}/{name}": np.empty((num_chains, num_samples, *s.shape), s.dtype)
            for group, part in parts.items()
            for name, s in part.items()
        }
        self.series = {name: BlockedSeries(num_chains, s.shape) for name, s in record.streamed.items()}
        self.sites = {name: SiteMoments(reference.shape) for name, (reference, *_) in sums.fields.items()}
        self.virial, self.flushed, self.block_start = np.zeros(sums.virial.shape), 0, 0
        self.blocks: list[np.ndarray] = []
        self.step_size = np.zeros(num_chains)

    @property
    def next_flush(self) -> int:
        """The iteration after which the device hands over its sums: fixed by the run, not by its rhythm."""
        return min(self.flushed + FLUSH, self.block_ends[len(self.blocks)])

    @property
    def kept(self) -> int:
        """Kept draws of every chain."""
        return self.done // self.thinning

    def take(self, count: int, buffer: Record) -> dict[str, np.ndarray]:
        """The next ``count`` iterations; returns the statistics of the draws that they completed."""
        first = self.kept
        for name, values in buffer.streamed.items():
            self.series[name].add(np.asarray(self.fetch(values))[:, :count])
        self.done += count
        draws = buffer._replace(streamed={})._asdict() if self.kept > first else {}
        for group, part in draws.items():
            for name, values in part.items():
                # the whole buffer is copied: a slice of another length would be another program on the device
                self.storage[f"{group}/{name}"][:, first : self.kept] = np.asarray(self.fetch(values))[
                    :, : self.kept - first
                ]
        prefix = "statistics/"
        return {
            n.removeprefix(prefix): v[:, first : self.kept] for n, v in self.storage.items() if n.startswith(prefix)
        }

    def flush(self, sums: Sums) -> None:
        """The sums over the iterations since the last flush, at iteration ``next_flush``."""
        count, sums = self.done - self.flushed, self.fetch(sums)
        for name, part in sums.fields.items():
            self.sites[name].add(count, *part)
        self.virial += np.asarray(sums.virial)
        self.flushed = self.done
        if self.done == self.block_ends[len(self.blocks)]:
            self.blocks.append(self.virial / (self.done - self.block_start))
            self.virial, self.block_start = np.zeros_like(self.virial), self.done
            for moments in self.sites.values():
                moments.close_block()

    def draws(self, first: int, stop: int) -> dict[str, np.ndarray]:
        """Kept draws ``first`` to ``stop − 1``."""
        return {name: values[:, first:stop] for name, values in self.storage.items()}

    def state(self) -> dict[str, np.ndarray]:
        """All but the draws, to be stored."""
        blocks = np.stack(self.blocks, axis=1) if self.blocks else np.zeros((len(self.virial), 0, self.virial.shape[1]))
        counts = np.array([self.done, self.flushed, self.block_start])
        state = {"virial": self.virial, "blocks": blocks, "step_size": self.step_size, "counts": counts}
        for kind, group in (("series", self.series), ("sites", self.sites)):
            for name, part in group.items():
                state |= {f"{kind}/{name}/{key}": value for key, value in part.state().items()}
        return {PREFIX + name: value for name, value in state.items()}

    def restore(self, saved: Saved) -> None:
        """Resume from a checkpoint."""
        state = _own(saved.state)
        self.done, self.flushed, self.block_start = (int(n) for n in state["counts"])
        self.virial, self.step_size = np.array(state["virial"]), np.array(state["step_size"])
        self.blocks = list(np.moveaxis(state["blocks"], 1, 0))
        self.series, self.sites = _streams(state)
        for first, stop, arrays in saved.draws():
            for name, values in arrays.items():
                self.storage[name][:, first:stop] = values

    def result(self, sums: Sums, settings: dict) -> RunResult:
        """The result so far; ``sums`` are those since the last flush."""
        state = _own(self.state())  # a copy: the run may continue
        series, sites = _streams(state)
        if self.done > self.flushed:
            for name, part in self.fetch(sums.fields).items():
                sites[name].add(self.done - self.flushed, *part)
        return _result(self.draws(0, self.kept), series, sites, state, settings)


@call_checked
def result_so_far(saved: Saved, settings: dict) -> RunResult:
    """The arrays that a checkpoint stores."""
    state, parts = _own(saved.state), [arrays for *_, arrays in saved.draws()]
    draws = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return _result(draws, *_streams(state), state, settings)


def _own(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}


def _streams(state: dict[str, np.ndarray]) -> tuple[dict[str, BlockedSeries], dict[str, SiteMoments]]:
    groups: dict[str, dict[str, dict]] = {"series": {}, "sites": {}}
    for path, value in state.items():
        kind, _, rest = path.partition("/")
        if kind in groups:
            name, _, key = rest.rpartition("/")
            groups[kind].setdefault(name, {})[key] = value
    series = {name: BlockedSeries.from_state(part) for name, part in groups["series"].items()}
    return series, {name: SiteMoments.from_state(part) for name, part in groups["sites"].items()}


def _result(draws, series, sites, state, settings: dict) -> RunResult:
    groups: dict[str, dict[str, np.ndarray]] = {
        "values": {}, "observables": {}, "statistics": {}, "log_likelihood": {},
    }  # fmt: skip
    for path, values in draws.items():
        group, _, name = path.partition("/")
        groups[group][name] = values
    if "lp" in groups["statistics"]:  # a lean program has no statistics
        shape = groups["statistics"]["lp"].shape
        groups["statistics"]["step_size"] = np.broadcast_to(state["step_size"][:, None], shape).copy()
    streamed = {name.removeprefix("posterior/"): part.estimate() for name, part in series.items()}
    streamed |= {name: part.estimate() for name, part in sites.items()}
    return RunResult(**groups, schwinger_dyson_blocks=state["blocks"], streamed=streamed, settings=settings)
