"""Variational fits: the couplings at which a field comes closest to a known action, without data."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from .._typing import Optimizer
from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of, positive_int, seed_within
from ..kernels.kernel import Kernel
from ..model.field import MarkovRandomField
from ..reweighting.energies import as_action
from ..sampling.interrupt import Interrupts
from ..sampling.progress import Progress
from .history import FitStatus
from .natural import Trial, regress
from .search import Search, correlation_of
from .tail_average import TailAverage, checked_share
from .variational_result import VariationalFit, finished

__all__ = ["fit_variational"]

METHODS = {"natural": 40, "gradient": 2000}  # with the usual number of steps
AVERAGED_STEPS = 8
MAX_NOISE = 10  # times the noise: an improvement that ends the average
RECORDED = "improvement", "noise", "residual", "damping", "rank"
TOLERANCE = 1e-8  # nats per coupling, of the improvement that is still to be had
RATE = 0.1


@call_checked
def fit_variational(
    model: MarkovRandomField, target: MarkovRandomField | Callable, *, method: str = "natural", num_steps: int | None = None,
    optimizer: Optimizer | None = None, fields_per_step: int | None = None, num_fields: int | None = None,
    average_last: float | None = None, kernel: Kernel | str = "auto",
    log_partition_method: str | None = "auto", initial: VariationalFit | None = None, seed: int = 0,
    progress: bool | None = None,
) -> VariationalFit:  # fmt: skip
    """Choose the couplings of a field so that it becomes another theory whose action is known.

    Minimizes the Gibbs–Bogoliubov bound 𝓕(θ) = ⟨A − S⟩ + F ≥ F_A, with F = −log Z and the average in p(φ; θ) = exp(−S)/Z;
    𝓕 − F_A is the Kullback–Leibler divergence of p from exp(−A)/Z_A. Its gradient is ∂𝓕/∂θ = Cov(S − A, T), T = ∂S/∂θ.

    Parameters
    ----------
    model : MarkovRandomField
        The family S, with the couplings to start from; all its couplings are fitted.
    target : MarkovRandomField or callable
        A: a model, or a JAX function of one field that returns a real number.
    method : str
        ``"natural"``: natural gradient, as the regression of A − S on T over samples of the model. A target inside the
        family is reached in a step or two. Outside it the step has the Hessian of the bound as far as the samples show it,
        and is shortened where it overshoots. ``"gradient"``: the covariance gradient with any optimizer, as published.
    num_steps : int, optional
        At most; 40 natural steps or 2000 of the gradient by default.
    optimizer : optax.GradientTransformation, optional
        For the gradient. By default Adam, whose step in each coupling is 0.1 over the standard deviation of its statistic and
        falls to 0 in the second half of the steps.
    fields_per_step : int, optional
        From all chains together. By default 4000, or four for each coupling if that is more (fewer where they would not fit in
        memory); 256 for the gradient.
    num_fields : int, optional
        Draws of the final model from all chains together, from which the bound is computed; by default 8000.
    average_last : float, optional
        For the gradient, the share of the steps at the end over which couplings are averaged (stochastic weight averaging),
        with ``standard_errors`` from parts of them; 0 by default, as steps of the default optimizer fall to 0. The natural
        method averages by itself, over the steps that are limited by noise.
    kernel : str or Kernel
        As in `phi4ppl.sample`; chains persist from step to step.
    log_partition_method : str or None
        ``method`` of `phi4ppl.log_partition` for F of the trained model; None leaves bound and free energy out (nan).
    initial : VariationalFit, optional
        A result to resume from: its couplings, chains and history.
    seed : int
    progress : bool, optional
        Show a progress bar on standard error; by default only in a terminal.

    Returns
    -------
    VariationalFit

    Raises
    ------
    HammersleyCliffordError
        If the model to start from is not normalizable.
    ArgumentError, SamplingError

    Notes
    -----
    Gradient and demonstrations: D. Bachtis, G. Aarts, B. Lucini, Phys. Rev. D 103 (2021) 074510. S is linear in θ, so p is an
    exponential family, its Fisher matrix is Cov(T, T), and the natural step is a linear regression. Directions that the
    samples do not settle are damped, and steps that would make the action unbounded are shortened; ``warnings`` of the
    result say so. The bound may have several minima, as for a family with a source and a target that breaks φ → −φ: the fit
    finds one of them, which one depends on the start.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> lattice = p4.lattice.chain(3)
    >>> model = p4.phi4(lattice, w=[0.1, 0.2, 0.3], a=1.0, b=0.5)
    >>> fit = p4.fit_variational(model, p4.phi4(lattice, w=0.8, a=1.4, b=0.2), kernel="local_hmc", num_fields=400)
    >>> fit.converged, [round(float(w), 3) for w in fit.model.couplings["w"]]
    (True, [0.8, 0.8, 0.8])
    """
    one_of("method", method, METHODS)
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__)
    steps = positive_int("num_steps", METHODS[method] if num_steps is None else num_steps)
    seed = seed_within(seed)
    if optimizer is not None and (method != "gradient" or not hasattr(optimizer, "update")):
        fix = "Choose method='gradient' to use an optimizer, such as optax.sgd(0.01)."
        raise ArgumentError("optimizer", "an optax optimizer for method 'gradient'", type(optimizer).__name__, fix)
    if average_last is not None and method != "gradient":
        fix = "It averages by itself; method='gradient' takes a share of its steps."
        raise ArgumentError("average_last", f"None with method={method!r}", repr(average_last), fix, reason="unused")
    share = 0.0 if average_last is None else checked_share(average_last)
    if initial is not None and (not isinstance(initial, VariationalFit) or not _same_terms(initial.model, model)):
        raise ArgumentError(
            "initial",
            "the result of a fit of the same terms on the same lattice",
            repr(initial)[:80],
            reason="mismatch",
        )
    model = model if initial is None else initial.model
    target = as_action("target", target, model.field_shape)
    model.check().raise_if_violated()
    search = Search(model, target, fields_per_step, method, kernel, initial, seed)
    moves = _Natural(search) if method == "natural" else _Gradient(search, optimizer, steps, share)
    status = _loop(search, moves, steps, progress)
    return finished(search, moves, status, num_fields, log_partition_method, seed)


def _same_terms(one: MarkovRandomField, other: MarkovRandomField) -> bool:
    return one.structure == other.structure


def _loop(search: Search, moves, num_steps: int, progress: bool | None) -> FitStatus:
    with Progress(num_steps, progress) as bar, Interrupts() as interrupts:
        bar.message(f"compiling {search.ensemble.kernel.name} …")
        for _ in range(num_steps):
            status = moves.step()
            bar.advance(1, "fitting", None, None)
            if status is not None or interrupts.asked:
                return status or FitStatus.INTERRUPTED
        return FitStatus.MAX_STEPS


class _Natural:
    """Regression steps, shortened where they overshoot, until only noise moves the couplings; then the average of some more."""

    def __init__(self, search: Search):
        self.search, self.moved, self.tail, self.is_exact = search, np.inf, [], False
        self.trial: Trial | None = None
        self.record: dict[str, float] = {}

    def step(self) -> FitStatus | None:
        search = self.search
        fields, excess = search.draw(search.draws, self.moved)
        statistics, values = search.statistics(fields), excess.reshape(-1)
        correlation = correlation_of(excess)
        if self._overshot(statistics, values, correlation):
            self.moved = self.trial.predicted
            search.history.add(search.theta, self.record | {"share": self.trial.share})
            return None
        found = regress(statistics.copy(), values, correlation)
        small = TOLERANCE * search.vector.size
        if found.damping and found.improvement > small:
            search.note(
                f"Directions of the couplings that {values.size} samples per step do not settle were damped "
                f"(λ up to {found.damping:.1g} of the variance of a statistic)."
            )
        start = search.theta.copy()
        share = search.move(found.curved)
        if share is None:
            return FitStatus.NOT_NORMALIZABLE if np.all(np.isfinite(found.curved)) else FitStatus.DIVERGED
        # far from the answer, samples at the old couplings carry little information about the new ones
        self.moved = found.improvement
        self.record = {name: getattr(found, name) for name in RECORDED}
        search.history.add(search.theta, self.record | {"share": share})
        self.trial = None
        if share == 1 and found.improvement <= small:
            self.is_exact = True
            return FitStatus.CONVERGED
        noisy = found.improvement <= 2 * found.noise
        if not noisy:
            change = search.theta - start
            self.trial = Trial(start, change, statistics @ change, values, share * found.improvement, correlation)
        if found.improvement > MAX_NOISE * found.noise:
            self.tail.clear()
        elif self.tail or (share == 1 and noisy):
            self.tail.append(search.theta.copy())
        return FitStatus.CONVERGED if len(self.tail) == AVERAGED_STEPS else None

    def _overshot(self, statistics, values, correlation: float) -> bool:
        """Go back along the last step if the samples at its end speak against it."""
        if self.trial is None or not self.trial.shorten(statistics, values, correlation):
            return False
        self.search.theta = self.trial.end
        self.tail.clear()
        self.search.note("Natural steps that overshot the minimum along them were shortened.")
        return True

    @property
    def why_no_errors(self) -> str:
        if self.is_exact:
            return "No standard errors: no step was limited by noise, as the target is inside the family."
        return (
            "No standard errors: they come from at least two steps that are limited by noise, and there were fewer. "
            "Continue the fit with initial=, or use more num_steps."
        )

    def settle(self) -> np.ndarray | None:
        """Take the average of the steps that are limited by noise; their standard error, if there are enough of them."""
        search = self.search
        if len(self.tail) >= 2:
            search.theta = np.mean(self.tail, axis=0)
            return np.std(self.tail, axis=0, ddof=1) / np.sqrt(len(self.tail))
        if self.trial is not None:  # the end of the last step has not been evaluated yet
            fields, excess = search.draw(search.draws, np.inf)
            self._overshot(search.statistics(fields), excess.reshape(-1), correlation_of(excess))
        return None


class _Gradient:
    """∂𝓕/∂θ = Cov(S − A, T), handed to an optimizer."""

    def __init__(self, search: Search, optimizer, num_steps: int, average_last: float):
        import optax

        self.search, self.tail, self.done = search, TailAverage(num_steps, average_last), 0
        schedule = optax.linear_schedule(RATE, 0.0, num_steps - num_steps // 2, num_steps // 2)
        self.scaled, self.optimizer = optimizer is None, optax.adam(schedule) if optimizer is None else optimizer
        self.state = self.optimizer.init(jnp.asarray(search.theta))

    def step(self) -> FitStatus | None:
        search = self.search
        fields, excess = search.draw(search.draws, 0.0)
        statistics = search.statistics(fields)
        statistics -= statistics.mean(axis=0)
        excess = excess.reshape(-1) - excess.mean()
        gradient = -statistics.T @ excess / len(excess)
        updates, self.state = self.optimizer.update(
            jnp.asarray(gradient), self.state, jnp.asarray(search.theta, jnp.result_type(float))
        )
        updates = np.asarray(updates, float)
        if self.scaled:  # steps of Adam have the size of its rate, regardless of the units of a statistic
            updates = updates / np.maximum(statistics.std(axis=0), 1e-6)
        share = search.move(updates)
        if share is None:
            return FitStatus.DIVERGED
        search.history.add(
            search.theta,
            {"gradient_norm": float(np.linalg.norm(gradient)), "variance": float(np.mean(excess**2)), "share": share},
        )
        self.done += 1
        self.tail.add(self.done, search.theta)
        return None

    def settle(self) -> np.ndarray | None:
        """Take the average that was asked for, and its standard error."""
        if self.done == self.tail.num_steps:
            self.search.notes += self.tail.notes
        self.search.theta = self.tail.of(self.search.theta)
        return self.tail.noise()

    @property
    def why_no_errors(self) -> str:
        return (
            "No standard errors: they come from parts of the steps that are averaged. average_last=0.5 averages half of "
            "them, and needs an optimizer whose steps do not fall to 0."
        )
