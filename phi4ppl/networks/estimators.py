"""Machines as scikit-learn estimators; the only module here that needs scikit-learn."""

from __future__ import annotations

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ..errors import ArgumentError, warn
from ..errors.arguments import call_checked, finite_array, positive_int
from ..errors.streams import stream_key, stream_rng
from ..lattice.labels import has_no_labels, is_labeled
from ..model.field import MarkovRandomField
from ..model.pytree import replaced
from ..partition.partition_estimate import PartitionEstimate
from .block_gibbs import gaussian_draws
from .machine import RestrictedBoltzmannMachine
from .normalizer import annealed
from .training import first_state, judged, normalizable, train
from .training_warning import TrainingWarning
from .units import BernoulliUnits, GaussianUnits, Phi4Units, Units

__all__ = ["BernoulliBernoulliRBM", "GaussianBernoulliRBM", "GaussianGaussianRBM", "Phi4BernoulliRBM", "Phi4RBM"]

EXACT_STATES = 2**12  # of a binary layer, up to which log Z is their sum
CONSTANT = 1e-13  # standard deviation over mean, up to which a feature is one number and its rounding
FIRST_WEIGHTS = 0.05  # standard deviation, over the root of the number of visible units
MIN_NOISE = 1e-4  # of a first factor analysis, in variances of a feature: below, single precision fails
MIN_NOISE_OF_FEW = 0.2  # the same for too few rows to tell noise from factors, where the likelihood has no maximum
SMALL = 100  # features, up to which singular values are all computed
LOST = 0.05  # nats that training may lose from the maximum of the likelihood
FIRST = {  # couplings at which a unit has variance near one, or is 0 and 1 alike
    Phi4Units: (0.0, 0.4, 0.02),
    GaussianUnits: (0.0, 0.5),
    BernoulliUnits: (0.0,),
}


def _described(summary: str) -> str:
    return f"A restricted Boltzmann machine. {summary}" + (_RBM.__doc__ or "").partition("Gibbs chains.")[2]


def seed_of(random_state) -> int:
    """The seed that a scikit-learn ``random_state`` stands for; None stands for 0."""
    if random_state is None:
        return 0
    return int(check_random_state(random_state).randint(2**31 - 2))


def checked_rows(estimator, X, reset: bool) -> np.ndarray:
    """Rows as scikit-learn checks them: it compares names of columns and rejects NaN, but ignores masks and other labels."""
    if is_labeled(X) and not isinstance(X, pd.DataFrame) and not issparse(X):  # a sparse matrix may be a dict
        X = _without_labels(X)
    if isinstance(X, pd.DataFrame) and not has_no_labels(X):  # it would ignore names that are not strings
        X = X.set_axis(list(map(str, X.columns)), axis=1)
    if isinstance(X, np.ma.MaskedArray):
        X = finite_array("X", X, "Remove rows with missing values, or fill them in; `complete` draws unknown features.")
    return validate_data(estimator, X, reset=reset, dtype=(np.float64, np.float32), ensure_min_samples=1)


def _without_labels(X):
    """A labeled object whose features can only be read by position, if it has no labels that this would ignore."""
    kind = f"a {type(X).__name__}"
    fix = "Pass a DataFrame, or an array without labels if the order of its features is right."
    if isinstance(X, xr.DataArray):
        if not X.indexes and not any(coordinate.dims for coordinate in X.coords.values()):
            return X.values
        kind, fix = (
            "a DataArray with coordinates",
            "Pass X.to_pandas(), or X.values if the order of the features is right.",
        )
    elif isinstance(X, list | tuple):
        parts = [part for part in X if is_labeled(part)]
        if all(isinstance(part, pd.Series) and has_no_labels(part) for part in parts):
            return X
        kind, fix = f"a {type(X).__name__} of {type(parts[0]).__name__}", "Pass pandas.DataFrame(X)."
    elif isinstance(X, pd.Series):
        return X  # rejected as one-dimensional
    raise ArgumentError("X", "an array or a DataFrame", kind, fix)


@call_checked
class _RBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A restricted Boltzmann machine, trained by Gibbs chains.

    Parameters
    ----------
    n_components : int
        Hidden units.
    learning_rate : float or optax schedule
        Step size of Adam.
    batch_size, n_epochs : int
        Data per update, and passes through the data in `fit`.
    n_sweeps : int
        Sweeps of block Gibbs sampling per update.
    n_chains, n_levels : int
        Persistent chains, and copies of them at smaller weights that help them cross between modes.
    method : str
        As in `phi4ppl.networks.train`.
    weight_decay : float
    centering : bool
        As in `phi4ppl.networks.train`.
    n_annealing_steps : int
        Steps of the annealing that computes log Z when `score_samples` first needs it, unless log Z is known exactly.
    random_state : int, numpy RandomState or None
        None stands for 0: results never depend on the time of day.
    progress : bool, optional
        Show a progress bar on standard error; by default only in a terminal.

    Attributes
    ----------
    machine_ : RestrictedBoltzmannMachine
        The machine of standardized data where the visible units are real.
    mean_ : array, shape (n_features,)
        Subtracted before training, where the visible units are real.
    scale_ : array, shape (n_features,)
        Divisor of the centered data.
    history_ : list of phi4ppl.networks.Epoch
    state_ : TrainingState
    """

    _visible: type[Units]
    _hidden: type[Units]

    def __init__(
        self, n_components=64, *, learning_rate=0.005, batch_size=100, n_epochs=50, n_sweeps=1, n_chains=100,
        n_levels=1, method="persistent_cd", weight_decay=0.0, centering=True, n_annealing_steps=1000, random_state=None,
        progress=None,
    ):  # fmt: skip
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.n_sweeps = n_sweeps
        self.n_chains = n_chains
        self.n_levels = n_levels
        self.method = method
        self.weight_decay = weight_decay
        self.centering = centering
        self.n_annealing_steps = n_annealing_steps
        self.random_state = random_state
        self.progress = progress

    def fit(self, X, y=None):
        """Train a new machine; ``y`` is ignored."""
        X = self._checked(X, reset=True)
        return self._begin(X)._train(X, self.n_epochs, self.progress)

    def partial_fit(self, X, y=None):
        """One more pass, through these data; the first call standardizes by them and starts the machine."""
        first = not hasattr(self, "state_")
        X = self._checked(X, reset=first)
        if not first and self.n_components != self.machine_.hidden.size:
            got = f"{self.n_components!r}. Call fit to start over"
            raise ArgumentError(
                "n_components", f"{self.machine_.hidden.size}, as in the fitted machine", got, reason="state"
            )
        return (self._begin(X) if first else self)._train(X, 1, progress=False)

    def transform(self, X):
        """The hidden means ⟨h_j⟩ given each row, shape ``(n, n_components)``."""
        check_is_fitted(self, "machine_")
        X = self._checked(X)
        return np.asarray(self.machine_.hidden_mean(self._standardized(X)), X.dtype)

    def reconstruct(self, X):
        """⟨v | ⟨h | v⟩⟩ of each row, in the units of the data."""
        check_is_fitted(self, "machine_")
        v = self.machine_.visible_mean(self.machine_.hidden_mean(self._standardized(self._checked(X))))
        return np.asarray(v, float) * self.scale_ + self.mean_

    def sample(self, n_samples=1, *, n_sweeps=1000):
        """States of ``n_samples`` Gibbs chains that continue the persistent ones, in the units of the data."""
        check_is_fitted(self, "machine_")
        positive_int("n_samples", n_samples), positive_int("n_sweeps", n_sweeps, minimum=0)
        above, below = jax.random.split(stream_key(self._seed(), "sample"))
        start = jax.random.choice(above, self.state_.chains, (n_samples,))
        v = jax.jit(RestrictedBoltzmannMachine.gibbs)(self.machine_, below, start, n_sweeps)
        return np.asarray(v, float) * self.scale_ + self.mean_

    def complete(self, X, known, *, n_draws=100, n_sweeps=200):
        """Draws of the features that are not known given those that are, in the units of the data.

        Parameters
        ----------
        X : array, shape (n, n_features)
            Values at unknown features are ignored, but must be finite.
        known : bool array, shape (n_features,)
        n_draws, n_sweeps : int
            Independent Gibbs chains per row, which start with unknown features at their means, and the sweeps of each.

        Returns
        -------
        array, shape (n_draws, n, n_features)
            The known features as in ``X``.

        Raises
        ------
        ArgumentError
        """
        check_is_fitted(self, "machine_")
        X = self._checked(X)
        positive_int("n_draws", n_draws), positive_int("n_sweeps", n_sweeps)
        known = np.asarray(known)
        if known.dtype != bool or known.shape != X.shape[1:]:
            got = f"{known.dtype} of shape {known.shape}"
            raise ArgumentError("known", f"bools of shape {X.shape[1:]}, one per feature", got, reason="shape")
        middle = self.machine_.visible_mean(jnp.zeros(self.machine_.hidden.size))
        start = np.where(known, self._standardized(X), middle)
        start = jnp.asarray(np.broadcast_to(start, (n_draws, *X.shape)))
        key = stream_key(self._seed(), "complete")
        v = jax.jit(RestrictedBoltzmannMachine.gibbs)(self.machine_, key, start, n_sweeps, clamped=known)
        return np.where(known, X, np.asarray(v, float) * self.scale_ + self.mean_)

    def log_partition(self) -> PartitionEstimate:
        """log Z of ``machine_``, computed once and kept.

        Exact where all units are Gaussian or a layer is binary with at most 12 units; otherwise by `phi4ppl.networks.annealed`,
        which starts at the persistent chains.
        """
        check_is_fitted(self, "machine_")
        if not hasattr(self, "_log_partition"):
            layers = self.machine_.visible, self.machine_.hidden
            if all(isinstance(units, GaussianUnits) for units in layers):
                self._log_partition = self.machine_.log_partition(method="gaussian")
            elif any(units.states is not None and 2**units.size <= EXACT_STATES for units in layers):
                self._log_partition = self.machine_.log_partition(method="enumeration")
            else:
                start, steps = self.state_.chains, self.n_annealing_steps
                self._log_partition = annealed(self.machine_, start=start, num_steps=steps)
        return self._log_partition

    def score_samples(self, X):
        """Normalized log density of each row in the units of the data, in nats; all share the error of `log_partition`."""
        check_is_fitted(self, "machine_")
        free_energy = np.asarray(self.machine_.free_energy(self._standardized(self._checked(X))), float)
        return -free_energy - self.log_partition().value - np.log(self.scale_).sum()

    def score(self, X, y=None):
        """Mean of `score_samples`."""
        return float(np.mean(self.score_samples(X)))

    def _checked(self, X, reset=False):
        return checked_rows(self, X, reset)

    def _seed(self) -> int:
        return seed_of(self.random_state)

    def _standardized(self, X):
        return jnp.asarray((X - self.mean_) / self.scale_, jnp.result_type(float))

    def _begin(self, X):
        positive_int("n_components", self.n_components), positive_int("n_annealing_steps", self.n_annealing_steps)
        real, n = self._visible.states is None, X.shape[1]
        with np.errstate(over="ignore"):
            self.mean_ = X.mean(axis=0, dtype=float) if real else np.zeros(n)
            spread = X.std(axis=0, dtype=float) if real else np.ones(n)
        if not np.isfinite(spread).all():
            where = f"infinite in feature {np.argmin(np.isfinite(spread))}"
            raise ArgumentError(
                "X", "features whose standard deviations are finite", where, "Use other units.", reason="finite"
            )
        # a constant column has rounding alone, which is relative to its mean; a small unit of measurement is not a constant
        self.scale_ = np.where(spread > CONSTANT * np.abs(self.mean_), spread, 1.0)
        rng = stream_rng(self._seed(), "first weights")
        visible, hidden = (
            kind(*(np.full(number, value) for value in FIRST[kind]))  # type: ignore[arg-type]
            for kind, number in ((self._visible, n), (self._hidden, self.n_components))
        )
        if not real:
            share = np.clip(X.mean(axis=0), 0.01, 0.99)
            visible = self._visible(np.log(1 / share - 1))
        weights = rng.normal(0, FIRST_WEIGHTS / np.sqrt(n), (n, self.n_components))
        self.machine_ = RestrictedBoltzmannMachine(visible, hidden, weights)
        self.state_, self.history_ = None, []
        return self

    def _train(self, X, epochs, progress):
        self.state_, history = train(
            self.machine_, self._standardized(X), epochs=epochs, method=self.method, sweeps=self.n_sweeps,
            batch_size=self.batch_size, num_chains=self.n_chains, num_levels=self.n_levels, seed=self._seed(),
            learning_rate=self.learning_rate, weight_decay=self.weight_decay, centering=self.centering, state=self.state_,
            progress=progress,
        )  # fmt: skip
        self.machine_ = self.state_.machine
        self.history_ += history
        self.__dict__.pop("_log_partition", None)
        return self

    def _judge(self, X):
        """Warn if training by `partial_fit` has not converged, and return to its best state, as `fit` does."""
        self.state_ = judged(self.state_, self._standardized(X), self.method, self.history_[-1].gradient_norm)
        self.machine_ = self.state_.machine
        self.__dict__.pop("_log_partition", None)

    @classmethod
    def from_machine(cls, machine: RestrictedBoltzmannMachine):
        """A fitted estimator from a machine with these kinds of units; its data are not scaled.

        Raises
        ------
        ArgumentError
            If the machine has units of other kinds.
        """
        expected = f"a machine of {cls._visible.__name__} and {cls._hidden.__name__}"
        if not isinstance(machine, RestrictedBoltzmannMachine):
            raise ArgumentError("machine", expected, type(machine).__name__)
        if (type(machine.visible), type(machine.hidden)) != (cls._visible, cls._hidden):
            raise ArgumentError("machine", expected, repr(machine), reason="units")
        made, number = cls(machine.hidden.size), machine.visible.size
        made.machine_, made.history_, made.n_features_in_ = machine, [], number
        made.mean_, made.scale_ = np.zeros(number), np.ones(number)
        made.state_ = first_state(machine, jnp.zeros((made.n_chains, number)))
        return made

    @property
    def _n_features_out(self):
        return self.machine_.hidden.size


@call_checked
class Phi4RBM(_RBM):
    __doc__ = _described("Visible and hidden units are quartic.")
    _visible, _hidden = Phi4Units, Phi4Units

    @classmethod
    def from_model(cls, model: MarkovRandomField, num_visible: int) -> Phi4RBM:
        """A fitted estimator from a φ⁴ model on ``p4.lattice.bipartite(num_visible, …)``; its data are not scaled.

        ``machine_.to_model()`` is the inverse.
        """
        return cls.from_machine(RestrictedBoltzmannMachine.from_model(model, num_visible))


@call_checked
class Phi4BernoulliRBM(_RBM):
    __doc__ = _described("Visible units are quartic, hidden ones 0 or 1.")
    _visible, _hidden = Phi4Units, BernoulliUnits


@call_checked
class GaussianGaussianRBM(_RBM):
    __doc__ = _described(
        "All units are Gaussian, and so is p(v): a factor analysis with one variance per feature. Training starts at the "
        "maximum-likelihood factor analysis of the data, and `fit` returns that start if steps of Adam end below it."
    )
    _visible, _hidden = GaussianUnits, GaussianUnits

    def _begin(self, X):
        super()._begin(X)
        self.machine_ = _factor_analysis(self.machine_, np.asarray(self._standardized(X), float))
        return self

    def _train(self, X, epochs, progress):
        if self.state_ is not None or self.weight_decay:  # decay lowers the likelihood intentionally
            return super()._train(X, epochs, progress)
        start, v = self.machine_, self._standardized(X)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TrainingWarning)
            super()._train(X, epochs, progress)
        fall = float(jnp.mean(start.log_prob(v)) - jnp.mean(self.machine_.log_prob(v)))
        if not fall <= LOST:
            chains = gaussian_draws(start, stream_key(self._seed(), "kept start"), self.state_.chains[None])[0]  # type: ignore[attr-defined]
            self.state_ = first_state(start, chains, self.learning_rate, self.weight_decay, self.n_levels)
            self.machine_ = start
        own_rate = self.learning_rate != inspect.signature(_RBM.__init__).parameters["learning_rate"].default
        for message in (warning.message for warning in caught):
            if isinstance(message, TrainingWarning):
                if not own_rate:  # a fall from the maximum is not the user's fault, and the maximum is returned
                    continue
                if self.state_.epoch == 0:
                    message = TrainingWarning(message.problem, "The factor analysis at the start is returned.")
            warn(message)  # type: ignore[arg-type]  # warnings that were caught are objects
        return self


@call_checked
class GaussianBernoulliRBM(_RBM):
    __doc__ = _described("Visible units are Gaussian, hidden ones 0 or 1.")
    _visible, _hidden = GaussianUnits, BernoulliUnits


@call_checked
class BernoulliBernoulliRBM(_RBM):
    __doc__ = _described("All units are 0 or 1; data between 0 and 1 stand for probabilities.")
    _visible, _hidden = BernoulliUnits, BernoulliUnits


def _factor_analysis(machine: RestrictedBoltzmannMachine, v) -> RestrictedBoltzmannMachine:
    """The machine whose p(v) is the maximum-likelihood factor analysis of standardized data.

    With C = Ψ + LLᵀ and the singular value decomposition Ψ^−½ L = U S Vᵀ the precision is Ψ⁻¹ − WWᵀ, where
    W = Ψ^−½ U S (1 + S²)^−½. So a = 1/2ψ, hidden units have variance one, and the singular values of the coupling strength
    are S (1 + S²)^−½. With n features n − 1 factors give any covariance; further hidden units have weights close to zero.
    D. J. Bartholomew, M. Knott and I. Moustaki, Latent Variable Models and Factor Analysis, 3rd ed. (2011), chapter 3.
    """
    vary = np.flatnonzero(v.std(axis=0) > 0)  # the others have no scale, and keep variance one
    noise, weights = np.ones(v.shape[1]), 1e-3 * np.array(machine.weights, float)
    if len(vary):
        number = min(machine.hidden.size, max(len(vary) - 1, 1))
        floor = MIN_NOISE if len(v) > len(vary) + number else MIN_NOISE_OF_FEW
        noise[vary], loadings = _factors(v[:, vary], number)
        noise = np.maximum(noise, floor)
        root = np.sqrt(noise[vary])[:, None]
        left, values, _ = np.linalg.svd(loadings / root, full_matrices=False)
        weights[vary, :number] = left * values / np.sqrt(1 + values**2) / root
    visible = GaussianUnits(machine.visible.linear, 0.5 / noise)
    return normalizable(replaced(machine, visible=visible, weights=jnp.asarray(weights, machine.weights.dtype)))


def _factors(v, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise variances and loadings of the factor analysis of data with mean zero, at a cost independent of the number of rows.

    It depends on the covariance alone, so 2 rows per feature with the same covariance stand for all.
    """
    size = v.shape[1]
    values, vectors = np.linalg.eigh(v.T @ v / len(v))
    rows = (vectors * np.sqrt(np.maximum(values, 0) * size)).T
    solver = "lapack" if size <= SMALL else "randomized"
    found = FactorAnalysis(number, tol=1e-5 * 2 * size, max_iter=1000, svd_method=solver)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of slow steps on a flat likelihood; training continues
        found.fit(np.concatenate([rows, -rows]))
    return found.noise_variance_, found.components_.T
