"""Samples of one or of several actions, pooled: expectations under any other action, real or complex."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np

from .._typing import Labeled
from ..analysis.blocks import jackknife_error
from ..errors import ArgumentError, OverlapError
from ..errors.arguments import call_checked, one_of
from ..model.field import MarkovRandomField
from .energies import as_action, as_samples, difference, evaluate, lattice_of
from .mixture import Mixture, Weighted
from .reweighted import Divergence, Reweighted

__all__ = ["Ensembles", "combine_ensembles", "reweight"]

DIGESTED = 256  # samples, to recognize a pool by
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
        self._fields = np.concatenate([x.reshape(-1, *self._shape) for x in arrays])
        base, *others = self.sources
        rows = [np.zeros(len(self._fields))] + [self._relative("sources", s, base) for s in others]
        if np.iscomplexobj(rows := np.stack(rows)):
            raise ArgumentError(
                "sources", "real actions", "a complex one", "Only the target may be complex.", reason="complex"
            )
        try:
            self._mixture = Mixture(rows, [x.shape[:2] for x in arrays], _digest(self._fields))
        except ArgumentError as error:
            raise OverlapError("disconnected", str(error)) from error
        self.log_partition = self._mixture.solution.log_partition
        self.overlap = self._mixture.overlap()
        self._require_connected()

    def _relative(self, name: str, action, base) -> np.ndarray:
        values = evaluate(difference(action, base), self._fields)
        if not np.all(np.isfinite(values)):
            which = int(np.argmin(np.isfinite(values)))
            raise ArgumentError(
                name, "an action that is finite on all samples", f"{values[which]} on sample {which}", reason="finite"
            )
        return values

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
            blocks = self._mixture.blocks(k, -self._mixture.energies[:, self._mixture.range(k)].T)
            total += jackknife_error(blocks, self._mixture.log_partition_without_each(k, blocks)) ** 2
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
        found = self._weighted(exponent[:, None], self._measured(observables))
        (result,) = found.results()
        replicas = found.replicas(np.array([result.reliable])).at(0)
        return dataclasses.replace(result, replicas=replicas).accept(on_poor_overlap)

    def _weighted(self, exponents, values: dict[str, np.ndarray]) -> Weighted:
        return Weighted(self._mixture, exponents, values)

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
        self._weighted(-excess[:, None], {}).results()[0].accept("raise")
        base = excess.min()
        table = np.stack([np.ones_like(excess), excess, np.exp(base - excess)], axis=1)
        log_weights = -self._mixture.solution.log_mixture
        largest = log_weights.max()
        weights = np.exp(log_weights - largest)
        means = weights @ table / weights.sum()
        influence = table[:, 1:] - means[1:]
        influence[:, 1] /= means[2]
        influence = weights[:, None] * np.c_[influence, influence.sum(axis=1)]
        variances, tau = 0.0, 0.5
        for k in range(len(self.sources)):
            blocks = self._mixture.blocks(k, influence[self._mixture.range(k)])
            left = self._mixture.sums_without_each(k, blocks, weights[:, None], table)[:, 0]
            mean, log_ratio = left[:, 1] / left[:, 0], np.log(left[:, 2] / left[:, 0]) - base
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


def _digest(fields: np.ndarray) -> str:
    """Of some of the samples."""
    some = np.ascontiguousarray(fields[:: max(1, len(fields) // DIGESTED)])
    return hashlib.blake2b(some.tobytes(), digest_size=16).hexdigest()
