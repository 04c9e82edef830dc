"""Fit the couplings of a field to data: one call for all methods."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int, seed_within
from ..lattice.labels import MISSING_FIELDS, aligned_fields
from ..model.coupling_vector import CouplingVector, sign_notes
from ..model.field import MarkovRandomField
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..results.independent_fields import independent_fields
from ..sampling.progress import Progress
from .history import FitStatus, History, coupling_rows, plot_history
from .maximum_likelihood import fit_maximum_likelihood
from .methods import MaximumLikelihood, PersistentCD, PseudoLikelihood, ScoreMatching, method_of
from .persistent_cd import fit_persistent_cd
from .problem import Estimate, Problem
from .pseudolikelihood import fit_pseudolikelihood
from .score_matching import fit_score_matching, hyvarinen_scores

__all__ = ["HeldOutScore", "LikelihoodFit", "fit_likelihood", "held_out_score"]

MIN_SPREAD = 1e-10  # of a site over the samples, relative to the data: less is a constant
FITTERS: dict[type, Callable] = {
    ScoreMatching: fit_score_matching,
    PseudoLikelihood: fit_pseudolikelihood,
    MaximumLikelihood: fit_maximum_likelihood,
    PersistentCD: fit_persistent_cd,
}


@call_checked
@dataclass(frozen=True, repr=False)
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
        Relative strength of the pull toward homogeneous couplings that was used, 0 for none.
    num_fields : int
        In the data.
    warnings : tuple of str
        Automatic choices, and the reasons for them.
    """

    model: MarkovRandomField
    standard_errors: dict
    history: xr.Dataset
    status: FitStatus
    method: str
    ridge: float
    num_fields: int
    warnings: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the fit converged and its couplings define a density."""
        return self.status.converged

    def plot(self, *, details: bool = False):
        """Draw the history as a matplotlib figure; see `plot_history`."""
        return plot_history(self.history, details=details)

    def __str__(self) -> str:
        lines = [f"{self.method} fit of {self.num_fields} fields: {self.status}"]
        lines += [f"  {name} = {text}" for name, text in coupling_rows(self.model, self.standard_errors)]
        return "\n".join([*lines, *(f"  {text}" for text in self.warnings)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = coupling_rows(self.model, self.standard_errors)
        title, outcome = f"{self.method} fit of {self.num_fields} fields", str(self.status)
        return card(title, ("coupling", ""), rows, good=self.converged, outcome=outcome, warnings=self.warnings)


@call_checked
def fit_likelihood(
    model: MarkovRandomField, data: Labeled,
    method: str | ScoreMatching | PseudoLikelihood | MaximumLikelihood | PersistentCD = "score_matching", *,
    ridge: float | None = None, initial: MarkovRandomField | LikelihoodFit | None = None, seed: int = 0,
    progress: bool | None = None,
) -> LikelihoodFit:  # fmt: skip
    """Fit the couplings of a field to samples of an unknown density.

    Parameters
    ----------
    model : MarkovRandomField
        The family: lattice, terms, and which couplings are homogeneous (one number) or inhomogeneous (one per clique).
    data : array of shape ``(num_fields, *field_shape)``, DataTree of a run, DataFrame, DataArray, Dataset, or dict by node
        Independent fields. The DataTree of `phi4ppl.sample` is thinned to one draw in 2 τ_int of every chain, and a note says
        so; other draws of a Markov chain must be thinned first, or the errors are too small. Sites are
        put in order by their labels: the columns of a DataFrame, the keys of a dict, the dimensions and coordinates of a
        DataArray (its other dimensions count samples). Bare arrays are in the order of ``lattice.nodes``.
    method : str or method object
        `ScoreMatching`: one linear solve, for any model. `PseudoLikelihood`: the density of every site given the rest, by
        Newton's method. `MaximumLikelihood`: natural-gradient steps with expectations from Markov chains, until the gradient
        is within its noise; up to 3000 couplings. `PersistentCD`: many small steps with minibatches and chains that move
        little in between, for large inhomogeneous models; the couplings reported are averages over the second half of the
        steps. The objects are in `phi4ppl.learning` and carry the options, as
        ``PersistentCD(num_steps=5000, batch_size=200)``; the strings ``"score_matching"``, ``"pseudolikelihood"``,
        ``"maximum_likelihood"`` and ``"persistent_cd"`` stand for them with their defaults.
    ridge : float, optional
        λ ≥ 0 of a pull ½ λ Σ_c A_cc (θ_c − θ̄_c)² of inhomogeneous couplings toward the best homogeneous ones, with A the
        Hessian of the method's objective; λ has no unit. By default 0, and with fewer samples than couplings the λ for which
        each half of the data predicts the other best.
    initial : MarkovRandomField or LikelihoodFit, optional
        Couplings to start from, by default those of score matching; a previous fit is continued, with its history. (Score
        matching needs no start and takes none.)
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
    (for `PersistentCD` that of every coupling with those that share a site with it). With a ridge they are of the pulled
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
    method, seed = method_of(method), seed_within(seed)
    if initial is not None and isinstance(method, ScoreMatching):
        fix = "Score matching is one linear solve, which starts nowhere. Leave it out, or use another method."
        raise ArgumentError("initial", "None with score matching", repr(initial)[:80], fix)
    vector = CouplingVector.of(model)
    data, note = independent_fields(data, model)
    flat = _checked_data(model, data)
    if ridge is not None and (
        isinstance(ridge, bool) or not isinstance(ridge, numbers.Real) or not 0 <= ridge < np.inf
    ):
        raise ArgumentError("ridge", "a number of at least 0, or None", repr(ridge))
    start, earlier = _start(vector, initial)
    with Progress(None, progress) as bar:
        problem = Problem(vector, flat, ridge, start, History(vector, earlier), bar)
        estimate = FITTERS[type(method)](problem, method, seed)
    return _result(problem, method.name, estimate, (note,) if note else ())


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
        fitted, vector.unflatten(estimate.errors), problem.history.dataset(), status, method, estimate.ridge,
        problem.num_samples, tuple(notes),
    )  # fmt: skip


class HeldOutScore(NamedTuple):
    """A score on data that no fit has seen; prints as ``-12.3(4.5)``.

    Attributes
    ----------
    value, error : float
    """

    value: float
    error: float

    def __str__(self) -> str:
        return value_with_error(self.value, self.error)

    def __repr__(self) -> str:
        return str(self)


@call_checked
def held_out_score(model: MarkovRandomField, data: Labeled) -> HeldOutScore:
    """Score of a model on data it has not seen, ⟨½|∇S|² − ΔS⟩, with its standard error; lower is better.

    A proper scoring rule that needs no Z (A. Hyvärinen, J. Mach. Learn. Res. 6 (2005) 695): for plenty of data from p it is
    smallest for the model p, whatever way models were fitted.

    Parameters
    ----------
    model : MarkovRandomField
    data : array of shape ``(num_fields, *field_shape)``, or labeled as for `fit_likelihood`

    Returns
    -------
    HeldOutScore
        ``value`` and ``error``.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> true = p4.gaussian(p4.lattice.square(4), w=0.3, a=1.0)
    >>> data = p4.GibbsField(true).sample(jax.random.key(0), (500,))
    >>> p4.held_out_score(true, data).value < p4.held_out_score(true.replace(w=0.0), data).value
    True
    """
    vector = CouplingVector.of(model)
    scores = hyvarinen_scores(vector, _fields(model, data), vector.flatten(model.couplings))
    return HeldOutScore(float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores))))


def _fields(model: MarkovRandomField, data) -> np.ndarray:
    """Fields as rows in double precision, or an error that explains what is wrong."""
    shape = model.field_shape
    array = aligned_fields("data", data, model.lattice, MISSING_FIELDS, samples=1)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        expected = f"shape (num_fields, {', '.join(map(str, shape))})"
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
