"""Fit the couplings of a field to data: one call for all methods."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from .._typing import Labelled, Optimizer
from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of, positive_int, seed_within
from ..kernels.kernel import Kernel
from ..lattice.labels import MISSING_FIELDS, aligned_fields
from ..model.coupling_vector import CouplingVector, sign_notes
from ..model.field import MarkovRandomField
from ..results.independent_fields import independent_fields
from ..sampling.progress import Progress
from .history import FitStatus, History, plot_history
from .maximum_likelihood import SamplingOptions, fit_maximum_likelihood
from .persistent_cd import StochasticOptions, fit_persistent_cd
from .problem import Estimate, Problem
from .pseudolikelihood import fit_pseudolikelihood
from .score_matching import fit_score_matching, hyvarinen_scores
from .tail_average import checked_share

__all__ = ["LikelihoodFit", "fit_likelihood", "held_out_score"]

MIN_SPREAD = 1e-10  # of a site over the samples, relative to the data: less is a constant
SAMPLING = ("initial", "num_steps", "num_chains", "kernel")
METHODS = {  # with the options that each one has
    "score_matching": (),
    "pseudolikelihood": ("initial", "num_steps"),
    "maximum_likelihood": SAMPLING,
    "persistent_cd": (*SAMPLING, "batch_size", "sweeps", "optimizer", "average_last"),
}


@call_checked
@dataclass(frozen=True)
class LikelihoodFit:
    """A model fitted to data.

    Attributes
    ----------
    model : MarkovRandomField
        The family at the fitted couplings.
    standard_errors : dict
        Of every coupling, in the form of ``model.couplings``; nan where a coupling is at its bound 0.
    history : xarray.Dataset
        Numbers of every step; ``plot()`` draws it.
    status : FitStatus
        How the fit ended; ``str(status)`` explains what to do.
    method : str
    ridge : float
        Relative strength of the pull towards homogeneous couplings that was used, 0 for none.
    notes : tuple of str
        Automatic choices, and the reasons for them.
    num_samples : int
    """

    model: MarkovRandomField
    standard_errors: dict
    history: xr.Dataset
    status: FitStatus
    method: str
    ridge: float
    notes: tuple[str, ...]
    num_samples: int

    @property
    def converged(self) -> bool:
        """Whether the fit converged and its couplings define a density."""
        return self.status.converged

    def plot(self, *, details: bool = False):
        """Draw the history as a matplotlib figure; see `plot_history`."""
        return plot_history(self.history, details=details)

    def __str__(self) -> str:
        lines = [f"{self.method} fit of {self.num_samples} fields: {self.status}"]
        for name, value in self.model.couplings.items():
            error = self.standard_errors[name]
            if np.ndim(value) == 0:
                lines.append(f"  {name} = {float(value):.6g} ± {float(error):.2g}")
            else:
                typical = np.sqrt(np.nanmean(np.square(error))) if np.isfinite(error).any() else np.nan
                mean, spread = float(np.mean(value)), float(np.std(value))
                lines.append(
                    f"  {name}: {len(value)} numbers, {mean:.6g} on average, spread {spread:.2g}, error {typical:.2g}"
                )
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@call_checked
def fit_likelihood(
    model: MarkovRandomField, data: Labelled, *, method: str = "score_matching", ridge: float | None = None,
    initial: MarkovRandomField | LikelihoodFit | None = None, num_steps: int | None = None, num_chains: int | None = None,
    kernel: Kernel | str | None = None, batch_size: int | None = None, sweeps: int | None = None,
    optimizer: Optimizer | None = None,
    average_last: float | None = None, seed: int = 0,
    progress: bool | None = None,
) -> LikelihoodFit:  # fmt: skip
    """Fit the couplings of a field to samples of an unknown density.

    Parameters
    ----------
    model : MarkovRandomField
        The family: lattice, terms, and which couplings are homogeneous (one number) or inhomogeneous (one per clique).
    data : array of shape ``(num_samples, *field_shape)``, DataTree of a run, DataFrame, DataArray, Dataset, or dict by node
        Independent fields. The DataTree of `phi4ppl.sample` is thinned to one draw in 2 τ_int of every chain, and a note says
        so; other draws of a Markov chain must be thinned first, or the errors are too small. Sites are
        put in order by their labels: the columns of a DataFrame, the keys of a dict, the dimensions and coordinates of a
        DataArray (its other dimensions count samples). Bare arrays are in the order of ``lattice.nodes``.
    method : str
        ``"score_matching"``: one linear solve, for any model. ``"pseudolikelihood"``: the density of every site given the
        rest, by Newton's method. ``"maximum_likelihood"``: natural-gradient steps with expectations from Markov chains, until
        the gradient is within its noise; up to 3000 couplings. ``"persistent_cd"``: many small steps with minibatches and
        chains that move little in between, for large inhomogeneous models; the couplings reported are averages over the
        second half of the steps.
    ridge : float, optional
        λ ≥ 0 of a pull ½ λ Σ_c A_cc (θ_c − θ̄_c)² of inhomogeneous couplings towards the best homogeneous ones, with A the
        Hessian of the method's objective; λ has no unit. By default 0, and with fewer samples than couplings the λ for which
        each half of the data predicts the other best.

    initial : MarkovRandomField or LikelihoodFit, optional
        Couplings to start from, by default those of score matching; a previous fit is continued, with its history. (Score
        matching needs no start and takes none.)
    num_steps : int, optional
        Maximum number of steps: by default 50 for pseudo-likelihood and maximum likelihood. ``"persistent_cd"`` always
        makes all of its 1000.
    num_chains : int, optional
        Persistent Markov chains of ``"maximum_likelihood"`` (64) and ``"persistent_cd"`` (100).
    kernel : str or Kernel, optional
        Their kernel, ``"auto"`` by default; see `phi4ppl.kernels`.
    batch_size : int, optional
        Samples in a minibatch of ``"persistent_cd"``, 100.
    sweeps : int, optional
        Iterations of the kernel between two steps of ``"persistent_cd"``, 2.
    optimizer : optax.GradientTransformation, optional
        For ``"persistent_cd"``, of couplings in units of 1/√Var(T); by default ``optax.adam(0.03)``.
    average_last : float, optional
        The share of the steps at the end of ``"persistent_cd"`` over which couplings are averaged (stochastic weight
        averaging), 0.5; 0 gives those of the last step. (Maximum likelihood draws more instead, until noise is small.)
    seed : int
        Seed of chains and minibatches.
    progress : bool, optional
        Show a progress bar on standard error; by default only in a terminal.

    Returns
    -------
    LikelihoodFit
        After Ctrl-C, the state reached so far, with the status `FitStatus.INTERRUPTED`.

    Raises
    ------
    ArgumentError
        For data of the wrong shape, with missing values (NaN, NA or masked), with labels that are not those of the lattice, or
        the same at a site in all samples; for fewer than two samples.

    Notes
    -----
    Standard errors are those of repeated data sets: by the sandwich formula for score matching and pseudo-likelihood, which
    remains valid if the family is misspecified; from the Fisher matrix, and with the Monte Carlo error added, for the other two
    (for ``"persistent_cd"`` that of every coupling with those that share a site with it). With a ridge they are of the pulled
    couplings: what the pull itself shifts is not in them. Quartic couplings of a model of built-in terms are kept at 0 or
    above, where alone Z is finite.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> true = p4.gaussian(p4.lattice.square(4), w=0.3, a=1.0)
    >>> data = p4.GibbsField(true).sample(jax.random.key(0), (1000,))
    >>> fit = p4.fit_likelihood(p4.gaussian(p4.lattice.square(4), w=0.0, a=1.0), data)
    >>> bool(abs(fit.model.couplings["w"] - 0.3) < 3 * fit.standard_errors["w"])
    True
    """
    method = one_of("method", method, METHODS)
    given = {
        "initial": initial, "num_steps": num_steps, "num_chains": num_chains, "kernel": kernel, "batch_size": batch_size,
        "sweeps": sweeps, "optimizer": optimizer, "average_last": average_last,
    }  # fmt: skip
    _refuse_options(method, given)
    vector = CouplingVector.of(model)
    data, note = independent_fields(data, model)
    flat = _checked_data(model, data)
    if ridge is not None and (
        isinstance(ridge, bool) or not isinstance(ridge, numbers.Real) or not 0 <= ridge < np.inf
    ):
        raise ArgumentError("ridge", "a number of at least 0, or None", repr(ridge))
    start, earlier = _start(vector, initial)
    fit = _fitter(method, given, seed_within(seed))
    with Progress(None, progress) as bar:
        problem = Problem(vector, flat, ridge, start, History(vector, earlier), bar)
        estimate = fit(problem)
    return _result(problem, method, estimate, (note,) if note else ())


def _refuse_options(method: str, options: dict) -> None:
    for name, value in options.items():
        if value is not None and name not in METHODS[method]:
            takers = [other for other, names in METHODS.items() if name in names]
            raise ArgumentError(
                name,
                f"None with method={method!r}",
                repr(value),
                f"Methods with it: {', '.join(takers)}.",
                reason="unused",
            )


def _fitter(method: str, given: dict, seed: int):
    """The function of a `Problem` that fits by the method, with its options checked."""

    def number(name: str, usual: int, minimum: int = 1) -> int:
        return usual if given[name] is None else positive_int(name, given[name], minimum=minimum)

    if method == "score_matching":
        return fit_score_matching
    if method == "pseudolikelihood":
        return partial(fit_pseudolikelihood, num_steps=number("num_steps", 50))
    kernel = "auto" if given["kernel"] is None else given["kernel"]
    fix = "Errors are computed from the spread of the chains."
    chains = 64 if method == "maximum_likelihood" else 100
    if given["num_chains"] is not None:
        chains = positive_int("num_chains", given["num_chains"], minimum=8, fix=fix)
    if method == "maximum_likelihood":
        return partial(fit_maximum_likelihood, options=SamplingOptions(number("num_steps", 50), chains, kernel, seed))
    optimizer = given["optimizer"]
    if optimizer is not None and not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ArgumentError("optimizer", "an optax optimizer, such as optax.adam(0.03)", repr(optimizer))
    sampling = SamplingOptions(number("num_steps", 1000, 16), chains, kernel, seed)
    share = checked_share(given["average_last"], 0.5)
    options = StochasticOptions(sampling, number("batch_size", 100), number("sweeps", 2), optimizer, share)
    return partial(fit_persistent_cd, options=options)


def _start(vector: CouplingVector, initial) -> tuple[np.ndarray | None, xr.Dataset | None]:
    if initial is None:
        return None, None
    model, earlier = (initial.model, initial.history) if isinstance(initial, LikelihoodFit) else (initial, None)
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("initial", "a MarkovRandomField or the result of a fit", type(initial).__name__)
    shapes = {name: np.shape(value) for name, value in model.couplings.items()}
    wanted = {name: np.shape(value) for name, value in vector.template.couplings.items()}
    if shapes != wanted or model.lattice != vector.template.lattice:
        raise ArgumentError(
            "initial", f"couplings of the model that is fitted, {vector.template!r}", repr(model), reason="mismatch"
        )
    return vector.flatten(model.couplings), earlier


def _result(problem: Problem, method: str, estimate: Estimate, before: tuple[str, ...]) -> LikelihoodFit:
    vector, status, notes = problem.vector, estimate.status, [*before, *estimate.notes]
    fitted = vector.model(estimate.theta)
    at_bound = int((np.isnan(estimate.errors) & problem.bounded).sum())
    if at_bound:
        notes.append(f"{at_bound} quartic coupling(s) at the bound 0: the data alone would make them negative.")
    notes += sign_notes(fitted)
    verdict = fitted.check()
    if not verdict.is_normalizable:
        status = FitStatus.NOT_NORMALIZABLE
        notes.append(f"Not normalizable: {verdict.normalizable_reason}.")
    return LikelihoodFit(
        fitted, vector.unflatten(estimate.errors), problem.history.dataset(), status, method, estimate.ridge, tuple(notes),
        problem.num_samples,
    )  # fmt: skip


@call_checked
def held_out_score(model: MarkovRandomField, data: Labelled) -> tuple[float, float]:
    """Score of a model on data it has not seen, ⟨½|∇S|² − ΔS⟩, with its standard error; lower is better.

    A proper scoring rule that needs no Z (A. Hyvärinen, J. Mach. Learn. Res. 6 (2005) 695): for plenty of data from p it is
    smallest for the model p, whatever way models were fitted.

    Parameters
    ----------
    model : MarkovRandomField
    data : array of shape ``(num_samples, *field_shape)``, or labeled as for `fit_likelihood`

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> true = p4.gaussian(p4.lattice.square(4), w=0.3, a=1.0)
    >>> data = p4.GibbsField(true).sample(jax.random.key(0), (500,))
    >>> p4.held_out_score(true, data)[0] < p4.held_out_score(true.replace(w=0.0), data)[0]
    True
    """
    vector = CouplingVector.of(model)
    scores = hyvarinen_scores(vector, _fields(model, data), vector.flatten(model.couplings))
    return float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores)))


def _fields(model: MarkovRandomField, data) -> np.ndarray:
    """Fields as rows in double precision, or an error that explains what is wrong."""
    shape = model.field_shape
    array = aligned_fields("data", data, model.lattice, MISSING_FIELDS, samples=1)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        expected = f"shape (num_samples, {', '.join(map(str, shape))})"
        fix = "One field goes in as data[None]." if array.shape == shape else "The first axis counts samples."
        raise ArgumentError("data", expected, f"shape {array.shape}", fix, reason="shape")
    fix = "A single field carries no information about its spread: add noise of the size to which it is known, "
    fix += "data = field + width * rng.normal(size=(500, *field.shape))."
    positive_int("number of samples in data", len(array), minimum=2, fix=fix)
    return array.reshape(len(array), -1).astype(float)


def _checked_data(model: MarkovRandomField, data) -> np.ndarray:
    flat = _fields(model, data)
    spread = flat.max(axis=0) - flat.min(axis=0)
    constant = np.flatnonzero(spread <= MIN_SPREAD * np.abs(flat).max())
    if len(constant):
        first = tuple(int(k) for k in np.unravel_index(constant[0], model.field_shape))
        raise ArgumentError(
            "data", "values that vary from sample to sample at every site",
            f"the same value {flat[0, constant[0]]:.6g} in all samples at {len(constant)} site(s), the first at {first}",
            "Add noise of the size that the data are known to, or leave these sites out of the lattice.",
         reason="constant")  # fmt: skip
    return flat
