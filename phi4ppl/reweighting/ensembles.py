"""Samples of one or of several actions, pooled: expectations under any other action, real or complex."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np

from .._typing import Labeled
from ..analysis.blocks import Blocks, blocks_for, jackknife_error
from ..analysis.mbar import MbarSolution, log_mixture, overlap_matrix, solve_mbar
from ..errors import ArgumentError, OverlapError
from ..errors.arguments import call_checked, one_of
from ..model.field import MarkovRandomField
from ..results.tails import pareto_k
from .energies import as_action, as_samples, difference, evaluate, lattice_of
from .reweighted import Divergence, Reweighted, warnings_of

__all__ = ["Ensembles", "combine_ensembles", "reweight"]

MAX_BLOCKS = 40  # of each ensemble, where every block means solving for all log Z again
MIN_SHARED = 0.01
POOR_OVERLAP = ("raise", "warn")


@call_checked
def reweight(
    samples: Labeled,
    source: MarkovRandomField | Callable,
    target: MarkovRandomField | Callable,
    observables: dict[str, Callable] | None = None,
    *,
    on_poor_overlap: str = "raise",
) -> Reweighted:
    """Expectations under one action from samples of another.

    ⟨O⟩_A = ⟨O e^(S−A)⟩_S / ⟨e^(S−A)⟩_S,   Z_A/Z_S = ⟨e^(S−A)⟩_S.

    One estimator serves three uses: correcting a trained model to its target, extrapolating along a coupling, and continuing
    to complex couplings. In all of them A is an action other than the one that was sampled.

    Parameters
    ----------
    samples : array of shape ``(chains, draws, *lattice)``, DataArray, or dict by node
        Draws of ``source``, in the order of the chains. A DataArray, such as ``tree["posterior"]["phi"]``, is put in order by
        its dimensions and coordinates.
    source : MarkovRandomField or callable
        S: the action that was sampled, a model or a JAX function of one field.
    target : MarkovRandomField or callable
        A. A function may return a complex number, such as ``lambda phi: model.energy(phi) + 0.15j * (phi**2).sum()``.
    observables : dict of callables, optional
        O by name: JAX functions of one field, each a number or an array. Without them only Z_A/Z_S and the overlap are found.
    on_poor_overlap : str
        ``"raise"``, or ``"warn"`` to get the numbers anyway, with ``reliable`` False.

    Returns
    -------
    Reweighted
        Means, errors (jackknife over blocks longer than the autocorrelation; of complex means, the error of the real part
        plus i times that of the imaginary part), effective sample size, Pareto k̂, average phase, log Z_A/Z_S.

    Raises
    ------
    OverlapError
        If the weights leave less than 100 effective samples, if k̂ exceeds 0.7, or if the phases cancel.
    ArgumentError

    Notes
    -----
    The difference of two models of one lattice is evaluated as one action at the difference of their couplings, which avoids
    cancellation in single precision. Reweighting of one run at other couplings: A. M. Ferrenberg and R. H. Swendsen, Phys. Rev.
    Lett. 61 (1988) 2635.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> lattice = p4.lattice.chain(1)  # one Gaussian variable, S = φ², reweighted to 1.2 φ²
    >>> phi = jax.random.normal(jax.random.key(0), (4, 2000, 1)) * 0.5**0.5
    >>> result = p4.reweight(
    ...     phi, p4.gaussian(lattice, w=0, a=1.0), p4.gaussian(lattice, w=0, a=1.2), {"phi2": lambda f: f[0] ** 2}
    ... )
    >>> bool(abs(result.mean["phi2"] - 1 / 2.4) < 3 * result.error["phi2"])
    True
    """
    samples = as_samples("samples", samples, lattice_of(source, target))
    return combine_ensembles([samples], [source]).reweight(target, observables, on_poor_overlap=on_poor_overlap)


@call_checked
def combine_ensembles(samples: Iterable[Labeled], sources: Iterable[MarkovRandomField | Callable]) -> Ensembles:
    """Pool samples of several actions; their log Z relative to each other follow (MBAR).

    Parameters
    ----------
    samples : sequence of arrays, each of shape ``(chains, draws, *lattice)``, or labeled as for `reweight`
    sources : sequence of MarkovRandomField or callable
        The real actions that they were drawn from.

    Returns
    -------
    Ensembles

    Raises
    ------
    OverlapError
        If the ensembles fall into sets that do not overlap.
    ArgumentError

    Examples
    --------
    >>> import jax, numpy as np, phi4ppl as p4
    >>> models = [p4.gaussian(p4.lattice.chain(1), w=0, a=a) for a in (1.0, 2.0)]
    >>> noise = jax.random.normal(jax.random.key(0), (2, 4, 1000, 1))
    >>> both = p4.combine_ensembles([noise[0] * 0.5**0.5, noise[1] * 0.5], models)
    >>> bool(abs(both.log_partition[1] + np.log(2) / 2) < 3 * both.log_partition_error[1])
    True
    """
    samples, sources = list(samples), list(sources)
    if not samples or len(samples) != len(sources):
        got = f"{len(samples)} and {len(sources)}"
        raise ArgumentError("samples", "as many arrays of samples as sources, at least one", got, reason="count")
    names = [f"samples[{k}]" for k in range(len(samples))] if len(samples) > 1 else ["samples"]
    lattices = [lattice_of(source, *sources) for source in sources]  # of a function, that of the first model
    arrays = [as_samples(*each) for each in zip(names, samples, lattices, strict=True)]
    shape = arrays[0].shape[2:]
    for k, (array, source) in enumerate(zip(arrays, sources, strict=True)):
        as_action("source" if len(sources) == 1 else f"sources[{k}]", source, shape)
        if array.shape[2:] != shape:
            raise ArgumentError(f"samples[{k}]", f"fields of shape {shape}", f"shape {array.shape[2:]}", reason="shape")
    return Ensembles(arrays, sources)


class Ensembles:
    """Pooled samples of several actions; see `combine_ensembles`.

    Attributes
    ----------
    log_partition, log_partition_error : arrays, shape (num_ensembles,)
        log Z_k/Z_0, with jackknife errors.
    overlap : array, shape (num_ensembles, num_ensembles)
        Probability that a sample of ensemble k is attributed to l; neighbors should share 0.03 or more.
    """

    def __init__(self, arrays: list[np.ndarray], sources: list):
        self.sources = tuple(sources)
        self._shape = arrays[0].shape[2:]
        self._sizes = [x.shape[:2] for x in arrays]
        self._fields = np.concatenate([x.reshape(-1, *self._shape) for x in arrays])
        self._counts = np.array([chains * draws for chains, draws in self._sizes], float)
        base, *others = self.sources
        rows = [np.zeros(len(self._fields))] + [self._relative("sources", s, base) for s in others]
        if np.iscomplexobj(rows := np.stack(rows)):
            raise ArgumentError(
                "sources", "real actions", "a complex one", "Only the target may be complex.", reason="complex"
            )
        self._energies = rows
        self._solution = self._solve()
        self.log_partition = self._solution.log_partition
        self.overlap = overlap_matrix(rows, self._counts, self._solution)
        self._require_connected()

    def _relative(self, name: str, action, base) -> np.ndarray:
        values = evaluate(difference(action, base), self._fields)
        if not np.all(np.isfinite(values)):
            which = int(np.argmin(np.isfinite(values)))
            raise ArgumentError(
                name, "an action that is finite on all samples", f"{values[which]} on sample {which}", reason="finite"
            )
        return values

    def _solve(self) -> MbarSolution:
        if len(self.sources) == 1:
            return MbarSolution(np.zeros(1), np.full(len(self._fields), np.log(self._counts[0])))
        try:
            return solve_mbar(self._energies, self._counts)
        except ArgumentError as error:
            raise OverlapError("disconnected", str(error)) from error

    def _require_connected(self) -> None:
        shared = np.minimum(self.overlap, self.overlap.T) >= MIN_SHARED
        reached = {0}
        while new := {int(j) for i in reached for j in np.flatnonzero(shared[i])} - reached:
            reached |= new
        apart = sorted(set(range(len(self.sources))) - reached)
        if apart:
            text = f"ensembles {sorted(reached)} and {apart} share less than {MIN_SHARED:.0%} of their samples: "
            raise OverlapError(
                "disconnected", text + "log Z between them is unknown. Add ensembles at intermediate couplings."
            )

    @cached_property
    def log_partition_error(self) -> np.ndarray:
        total = np.zeros(len(self.sources))
        if len(self.sources) == 1:
            return total
        for k in range(len(self.sources)):
            blocks = self._blocks(k, -self._energies.T)
            estimates = np.stack([s.log_partition for s in self._without_each(k, blocks)])
            total += jackknife_error(blocks, estimates) ** 2
        return np.sqrt(total)

    def reweight(
        self,
        target: MarkovRandomField | Callable,
        observables: dict[str, Callable] | None = None,
        *,
        on_poor_overlap: str = "raise",
    ) -> Reweighted:
        """Expectations under ``target``; arguments, result and errors as in `reweight`, log Z relative to the first source."""
        one_of("on_poor_overlap", on_poor_overlap, POOR_OVERLAP)
        observables = self._checked(observables)
        target = as_action("target", target, self._shape)
        exponent = -self._relative("target", target, self.sources[0])
        result = self._expectations(exponent, self._measured(observables))
        return result.accept(on_poor_overlap)

    def divergence(self, target: MarkovRandomField | Callable) -> Divergence:
        """KL(p ‖ exp(−A)/Z_A) = ⟨A − S⟩ + log ⟨e^(S−A)⟩ of the first source, p = exp(−S)/Z, from the target A.

        Where A grows faster than S, half of the variance can come from one draw of p in ten thousand, and an average over
        draws of p alone looks better than it is. Pool them with draws of p^β, 0 < β < 1, the second source: they visit the
        tails, and the weights of the pool stay bounded.

        Parameters
        ----------
        target : MarkovRandomField or callable
            A, real.

        Returns
        -------
        Divergence
            Errors by the jackknife of all three averages together: both terms of the divergence fluctuate together.

        Raises
        ------
        OverlapError
            If the samples carry too little information about the target, as for `reweight`.
        ArgumentError

        Examples
        --------
        >>> import jax, numpy as np, phi4ppl as p4
        >>> models = [p4.gaussian(p4.lattice.chain(1), w=0, a=a) for a in (1.0, 0.5)]
        >>> noise = jax.random.normal(jax.random.key(0), (2, 4, 1000, 1))
        >>> pool = p4.combine_ensembles([noise[0] * 0.5**0.5, noise[1]], models)
        >>> found = pool.divergence(p4.gaussian(p4.lattice.chain(1), w=0, a=2.0))
        >>> bool(abs(found.value - (1 - np.log(2)) / 2) < 3 * found.error)
        True
        """
        excess = self._relative("target", as_action("target", target, self._shape), self.sources[0])
        if np.iscomplexobj(excess):
            raise ArgumentError(
                "target",
                "a real action",
                "a complex one",
                "A divergence compares two densities, which are real.",
                reason="complex",
            )
        self._expectations(-excess, {}).accept("raise")
        base = excess.min()
        table = np.stack([np.ones_like(excess), excess, np.exp(base - excess)], axis=1)
        log_weights = -self._solution.log_mixture
        largest = log_weights.max()
        weights = np.exp(log_weights - largest)
        means = weights @ table / weights.sum()
        influence = table[:, 1:] - means[1:]
        influence[:, 1] /= means[2]
        influence = weights[:, None] * np.c_[influence, influence.sum(axis=1)]
        variances, tau = 0.0, 0.5
        for k in range(len(self.sources)):
            blocks = self._blocks(k, influence)
            left = self._leave_one_out(k, blocks, np.zeros_like(excess), largest, weights, table)
            mean, log_ratio = left[:, 1], np.log(left[:, 2]) - base
            estimates = np.stack([mean, log_ratio, mean + log_ratio], axis=1)
            variances, tau = variances + jackknife_error(blocks, estimates) ** 2, max(tau, blocks.tau_int)
        log_ratio = np.log(means[2]) - base
        errors = np.sqrt(variances)
        squares = influence**2
        carriers = np.sum(squares, axis=0) ** 2 / np.maximum(np.sum(squares**2, axis=0), 1e-300)
        return Divergence(
            float(means[1] + log_ratio), float(errors[2]), float(means[1]), float(errors[0]), float(log_ratio),
            float(errors[1]), float(carriers[2]), float(carriers[0]),
        )  # fmt: skip

    def _checked(self, observables) -> dict[str, Callable]:
        observables = {} if observables is None else observables
        if not isinstance(observables, dict) or not all(map(callable, observables.values())):
            fix = "For example {'phi2': lambda phi: (phi**2).mean()}."
            raise ArgumentError("observables", "a dict of functions of one field", repr(observables)[:120], fix)
        return observables

    def _measured(self, observables: dict[str, Callable]) -> dict[str, np.ndarray]:
        values = {name: evaluate(function, self._fields) for name, function in observables.items()}
        for name, found in values.items():
            if not np.all(np.isfinite(found)):
                raise ArgumentError(
                    f"observables[{name!r}]",
                    "a function that is finite on all samples",
                    "one that is not",
                    reason="finite",
                )
        return values

    def _expectations(self, exponent: np.ndarray, values: dict[str, np.ndarray]) -> Reweighted:
        """From S_0 − A at every sample, and the observables there."""
        numbers = [v.reshape(len(v), -1) for v in values.values()]
        table = np.concatenate([np.ones((len(exponent), 1)), *numbers], axis=1)
        log_weights = exponent - self._solution.log_mixture
        largest = log_weights.real.max()
        weights = np.exp(log_weights - largest)
        totals = weights @ table
        means = totals / totals[0]
        errors, taus, lengths, enough = 0.0, [], [], True
        for k in range(len(self.sources)):
            spread = weights[:, None] * (table - np.r_[0, means[1:]]) / np.abs(totals[0])
            blocks = self._blocks(k, _parts(spread))
            estimates = self._leave_one_out(k, blocks, exponent, largest, weights, table)
            errors = errors + _squares(jackknife_error(blocks, estimates))
            taus.append(blocks.tau_int)
            lengths.append(blocks.length)
            enough &= blocks.long_enough
        errors = _roots(errors)
        size = np.abs(weights)
        overlap = float(size.sum() ** 2 / (len(size) * (size**2).sum()))
        correlation = max(1.0, 2 * max(taus))
        phase = complex(totals[0] / size.sum())
        is_complex = np.iscomplexobj(weights)
        result = Reweighted(
            mean=_split(values, means[1:]), error=_split(values, errors[1:-1]),
            effective_sample_size=float(len(size) * overlap / correlation), overlap=overlap,
            pareto_k=pareto_k(np.log(np.maximum(size, 1e-300)), 1 / correlation),
            average_phase=phase if is_complex else phase.real, average_phase_error=_number(errors[-1]),
            log_partition_ratio=_number(np.log(totals[0]) + largest), log_partition_ratio_error=_number(errors[0]),
            num_fields=len(size), tau_int=float(max(taus)), block_length=float(min(lengths)),
        )  # fmt: skip
        return dataclasses.replace(result, warnings=warnings_of(result, enough))

    def _leave_one_out(self, k: int, blocks: Blocks, exponent, largest, weights, table) -> np.ndarray:
        """log Z_A/Z_0, the means and the average phase, without one block of ensemble k each, one row per block."""
        inside = self._range(k)
        if len(self.sources) == 1:
            size = np.abs(weights)[:, None]
            parts = blocks.sums(np.concatenate([weights[:, None] * table, size], axis=1)[inside])
            left = parts.sum(axis=0) - parts
            normalizer = left[:, 0] * len(weights) / (len(weights) - blocks.sums(np.ones(len(weights))))
        else:
            rows = []
            for solution in self._without_each(k, blocks):
                kept = np.exp(exponent - solution.log_mixture - largest)  # 0 where the mixture is infinite
                rows.append(np.append(kept @ table, np.abs(kept).sum()))
            left = np.stack(rows)
            normalizer = left[:, 0]
        middle = normalizer.mean()
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # where one block has all the weight, the error is infinite
            # the logarithm is taken near its mean, so that its imaginary part does not jump by 2π
            log_ratio = np.log(normalizer / middle) + np.log(middle)
            means, phase = left[:, 1:-1] / left[:, :1], left[:, 0] / left[:, -1]
        return np.concatenate([log_ratio[:, None], means, phase[:, None]], axis=1)

    def _without_each(self, k: int, blocks: Blocks):
        """Solutions without one block of ensemble k each; the mixture is infinite at the draws left out."""
        edges = np.append(blocks.starts, self._counts[k]).astype(int) + self._range(k).start
        for first, stop in zip(edges[:-1], edges[1:], strict=True):
            weights, counts = np.ones(len(self._fields)), self._counts.copy()
            weights[first:stop] = 0
            counts[k] -= stop - first
            solution = solve_mbar(self._energies, counts, self._solution.log_partition, weights=weights)
            mixture = log_mixture(self._energies, counts, solution.log_partition)
            yield MbarSolution(solution.log_partition, np.where(weights > 0, mixture, np.inf))

    def _range(self, k: int) -> slice:
        first = int(self._counts[:k].sum())
        return slice(first, first + int(self._counts[k]))

    def _blocks(self, k: int, series) -> Blocks:
        """Blocks of ensemble k for the slowest of ``series``, shape ``(num_samples, num_series)``."""
        chains, draws = self._sizes[k]
        own = np.ascontiguousarray(series[self._range(k)]).reshape(chains, draws, -1)
        return blocks_for(own, most=MAX_BLOCKS if len(self.sources) > 1 else None)


def _parts(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values.real, values.imag], axis=1) if np.iscomplexobj(values) else values


def _squares(errors):
    return errors.real**2 + 1j * errors.imag**2 if np.iscomplexobj(errors) else errors**2


def _roots(squares):
    return np.sqrt(squares.real) + 1j * np.sqrt(squares.imag) if np.iscomplexobj(squares) else np.sqrt(squares)


def _number(value):
    return complex(value) if np.iscomplexobj(value) else float(value)


def _split(values: dict[str, np.ndarray], flat: np.ndarray) -> dict:
    """The flat results by name, in the shape of one value each."""
    result, first = {}, 0
    for name, array in values.items():
        size = int(np.prod(array.shape[1:]))
        part = flat[first : first + size].reshape(array.shape[1:])
        result[name] = part if array.ndim > 1 else _number(part[()])
        first += size
    return result
