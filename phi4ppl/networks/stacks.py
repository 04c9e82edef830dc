"""Stacks of machines: the hidden layer of each is the visible layer of the next. A scikit-learn estimator."""

from __future__ import annotations

import functools
import itertools
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, positive_int
from ..errors.streams import stream_key
from ..reports.numbers import value_with_error
from ..sampling.interrupt import Interrupts
from ..sampling.progress import Progress
from .estimators import _RBM, checked_rows, seed_of
from .machine import RestrictedBoltzmannMachine

__all__ = ["DeepPhi4Network", "StackBound"]


@call_checked
class StackBound(NamedTuple):
    """The lower bound on the mean log density of the rows of a data set, in nats, for the lowest ``depth`` machines.

    ``error`` is that of the number itself: of the draws of the hidden layers and of log Z of machine ``depth``. ``spread`` is
    the standard error of a mean over so many rows, if these are a sample of something larger.
    """

    depth: int
    value: float
    error: float
    spread: float

    def __str__(self) -> str:
        return f"depth {self.depth}: {value_with_error(self.value, self.error)} (over rows ± {self.spread:.2g})"

    def __repr__(self) -> str:
        return str(self)


@call_checked
class DeepPhi4Network(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Machines on top of each other, p(v, h¹, …, h^L) = p₁(v | h¹) … p_{L−1}(h^{L−2} | h^{L−1}) p_L(h^{L−1}, h^L).

    The machine on top is undirected, and from there on down every layer is drawn given the one above it. Training is greedy,
    from the bottom up: draws of the hidden layer given the data are the data of the next machine, redrawn in every epoch.

    Parameters
    ----------
    machines : list of estimators such as Phi4RBM, Phi4BernoulliRBM and BernoulliBernoulliRBM
        From the bottom up, not fitted; `fit` clones them. The hidden units of each take the values of the visible units of
        the next: all real, or all 0 and 1.
    n_draws : int
        Draws of the hidden layers per row in `score_samples` and `bounds`.
    random_state : int, numpy RandomState or None
        Seed of draws between machines, and of `sample` and `score_samples`; None stands for 0.
    progress : bool, optional
        Show a progress bar on standard error; by default only in a terminal.

    Attributes
    ----------
    machines_ : list of estimators
        The fitted machines. Each standardizes its own real data, as it would alone.

    Raises
    ------
    ArgumentError
        From `fit` and `from_fitted`, if the machines do not fit on top of each other.

    Notes
    -----
    With p_l the two marginals of machine l and q(h | v) = Π_l p_l(h^l | h^{l−1}), Jensen's inequality gives

        log p(v) ≥ log p₁(v) + Σ_{l=1}^{L−1} ⟨log p_{l+1}(h^l) − log p_l(h^l)⟩_q

    with equality for L = 1. Another machine raises the bound by as much as it knows the draws of h^l better than the hidden
    layer of the machine below it does. One that starts as the transpose of the machine below leaves it unchanged, and any
    gain in likelihood from there is a gain of the bound. Source: G. E. Hinton, S. Osindero and Y.-W. Teh, Neural Comput. 18,
    1527 (2006).

    The parameters of single machines are called ``0__n_components``, ``1__learning_rate``, … in searches over them.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.networks import BernoulliBernoulliRBM, DeepPhi4Network, Phi4BernoulliRBM
    >>> data = np.random.default_rng(0).normal(size=(100, 3))
    >>> machines = [Phi4BernoulliRBM(4, n_epochs=2), BernoulliBernoulliRBM(2, n_epochs=2)]
    >>> stack = DeepPhi4Network(machines, n_draws=10).fit(data)
    >>> stack.transform(data).shape, stack.transform(data, depth=1).shape, [bound.depth for bound in stack.bounds(data)]
    ((100, 2), (100, 4), [1, 2])
    """

    def __init__(self, machines, *, n_draws=100, random_state=None, progress=None):
        self.machines = machines
        self.n_draws = n_draws
        self.random_state = random_state
        self.progress = progress

    def get_params(self, deep=True):
        """The parameters, with those of the machines as ``0__n_components`` and so on."""
        params = super().get_params(deep=False)
        if deep and isinstance(self.machines, list | tuple):
            for number, machine in enumerate(self.machines):
                params[str(number)] = machine
                own = machine.get_params() if isinstance(machine, _RBM) else {}
                params |= {f"{number}__{name}": value for name, value in own.items()}
        return params

    def set_params(self, **params):
        """Set what `get_params` names; ``0`` is the lowest machine itself."""
        whole = [name for name in params if name.isdecimal() and name in self.get_params()]
        if whole:
            machines = list(params.pop("machines", self.machines))
            for name in whole:
                machines[int(name)] = params.pop(name)
            self.machines = machines
        return super().set_params(**params)

    @classmethod
    def from_fitted(cls, machines, *, n_draws=100, random_state=None) -> DeepPhi4Network:
        """The stack of machines that are fitted already, from the bottom up."""
        made = cls(machines, n_draws=n_draws, random_state=random_state)
        made._require_a_stack()
        for machine in machines:
            check_is_fitted(machine, "machine_")
        sizes = [(machine.machine_.visible.size, machine.machine_.hidden.size) for machine in machines]
        for number, (below, above) in enumerate(itertools.pairwise(sizes)):
            if below[1] != above[0]:
                raise ArgumentError(
                    f"machines[{number + 1}]", f"{below[1]} visible units", str(above[0]), reason="shape"
                )
        made.machines_, made.n_features_in_ = list(machines), sizes[0][0]
        return made

    def fit(self, X, y=None):
        """Train every machine for its own ``n_epochs``, from the bottom up; ``y`` is ignored.

        After Ctrl-C, the machines trained so far, with a warning.
        """
        X = self._checked(X, reset=True)
        self._require_a_stack()
        self.machines_ = []
        with Progress(None, self.progress) as bar, Interrupts() as interrupts:
            for number, machine in enumerate(self.machines):
                self.machines_.append(clone(machine))
                for epoch in range(positive_int("n_epochs", machine.n_epochs)):
                    data = self._data_of(number, X, epoch)
                    self.machines_[-1].partial_fit(data)
                    if bar.is_due or epoch + 1 == machine.n_epochs:
                        bar.message(f"machine {number} · epoch {epoch + 1} of {machine.n_epochs}")
                    if interrupts.asked:
                        message = f"interrupted: training stopped after epoch {epoch + 1} of machine {number}."
                        warn(Phi4pplWarning("training.interrupted", message, {"epoch": epoch + 1, "machine": number}))
                        return self
                self.machines_[-1]._judge(data)
        return self

    def partial_fit(self, X, y=None):
        """One more pass of every machine through these data, from the bottom up; the first call starts the machines."""
        first = not hasattr(self, "machines_")
        X = self._checked(X, reset=first)
        if first:
            self._require_a_stack()
            self.machines_ = [clone(machine) for machine in self.machines]
        for number, machine in enumerate(self.machines_):
            machine.partial_fit(self._data_of(number, X, len(getattr(machine, "history_", ()))))
        return self

    def transform(self, X, *, depth=None):
        """Features of one depth, from 1 to the number of machines (default): each layer's means given those below it."""
        check_is_fitted(self, "machines_")
        X = self._checked(X)
        depth = len(self.machines_) if depth is None else positive_int("depth", depth)
        if depth > len(self.machines_):
            raise ArgumentError(
                "depth", f"at most {len(self.machines_)}, the number of machines", str(depth), reason="too_large"
            )
        features = X
        for machine in self.machines_[:depth]:
            features = machine.transform(features)
        return features

    def sample(self, n_samples=1, *, n_sweeps=1000, start=None):
        """Draws of the visible layer, in the units of the data.

        Parameters
        ----------
        n_samples : int
            Draws; with ``start``, draws per row.
        n_sweeps : int
            Sweeps between the two layers of the machine on top (at least 0), before every layer below is drawn given the one
            above it.
        start : array, shape (n, n_features), optional
            The chains of the machine on top start at draws of its visible layer given these rows, so that few sweeps give
            variations of them. Without it they continue the persistent chains of training.

        Returns
        -------
        array, shape (n_samples, n_features), or with ``start`` (n_samples, n, n_features)
        """
        check_is_fitted(self, "machines_")
        positive_int("n_samples", n_samples), positive_int("n_sweeps", n_sweeps, minimum=0)
        key = stream_key(seed_of(self.random_state), "sample of a stack")
        layers, top = self._layers(), self.machines_[-1]
        if start is None:
            x = jax.random.choice(jax.random.fold_in(key, 0), top.state_.chains, (n_samples,))
        else:
            rows = self._inside(self._checked(start))
            x = _up(layers, jax.random.fold_in(key, 0), jnp.broadcast_to(rows, (n_samples, *rows.shape)))
        return np.asarray(_down(layers, jax.random.fold_in(key, 1), x, n_sweeps), float)

    def score_samples(self, X):
        """Lower bound of the log density of each row in the units of the data, in nats; exact for one machine.

        It is a mean over ``n_draws`` draws of the hidden layers, the same for the same row; `bounds` gives the error.
        """
        return self._bounds_of_rows(X)[0][:, -1]

    def score(self, X, y=None):
        """Mean of `score_samples`."""
        return float(np.mean(self.score_samples(X)))

    def bounds(self, X) -> list[StackBound]:
        """The lower bound on the mean log density of these rows, for the lowest machine, the lowest two, and so on."""
        mean, error = self._bounds_of_rows(X)
        n, found = len(mean), []
        for number, machine in enumerate(self.machines_):
            both = np.hypot(error[number], machine.log_partition().error)
            spread = mean[:, number].std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
            found.append(StackBound(number + 1, *map(float, (mean[:, number].mean(), both, spread))))
        return found

    def _bounds_of_rows(self, X):
        """The bound of each row at each depth, shape (n, depth), and the error that its draws leave in the mean."""
        check_is_fitted(self, "machines_")
        rows, place, copies = np.unique(self._checked(X), axis=0, return_inverse=True, return_counts=True)
        draws = positive_int("n_draws", self.n_draws, minimum=2)
        # draws belong to a row, so that neither its position nor the other rows matter; equal rows share them
        names = np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)
        key = stream_key(seed_of(self.random_state), "bounds")
        terms = np.asarray(_unnormalized(self._layers(), key, names, self._inside(rows), draws), float)
        constants = [machine.log_partition().value for machine in self.machines_]
        constants = np.array(constants) + np.log(self.machines_[0].scale_).sum()
        error = np.sqrt(copies**2 @ terms.var(axis=0, ddof=1) / draws) / copies.sum()
        return (terms.mean(axis=0) - constants)[place.reshape(-1)], error

    def _require_a_stack(self):
        machines = self.machines
        if not isinstance(machines, list | tuple) or not machines or not all(isinstance(m, _RBM) for m in machines):
            raise ArgumentError("machines", "a list of estimators such as Phi4RBM(64)", repr(machines))
        for number, (below, above) in enumerate(itertools.pairwise(machines)):
            if below._hidden.states != above._visible.states:
                expected = f"visible units of the values of {below._hidden.__name__}, the hidden ones below"
                fix = "Stack real units on real units, and binary units on binary units."
                raise ArgumentError(f"machines[{number + 1}]", expected, above._visible.__name__, fix, reason="units")

    def _checked(self, X, reset=False):
        return checked_rows(self, X, reset)

    def _inside(self, X):
        return self.machines_[0]._standardized(X)

    def _layers(self, number=None):
        """The lowest ``number`` machines as arrays."""
        dtype = self.machines_[0].machine_.weights.dtype
        return tuple(
            _Layer(machine.machine_, jnp.asarray(machine.mean_, dtype), jnp.asarray(machine.scale_, dtype))
            for machine in self.machines_[:number]
        )

    def _data_of(self, number, X, epoch):
        """What machine ``number`` learns from: draws of the hidden layer below it given the data."""
        if number == 0:
            return X
        key = stream_key(seed_of(self.random_state), "hidden data", epoch)
        return np.asarray(_hidden(self._layers(number), key, self._inside(X)), X.dtype)

    @property
    def _n_features_out(self):
        return self.machines_[-1].machine_.hidden.size


class _Layer(NamedTuple):
    """A machine whose visible units are (x − mean)/scale of a vector x: of the data, or of the hidden units below."""

    machine: RestrictedBoltzmannMachine
    mean: jax.Array
    scale: jax.Array

    def inside(self, x):
        return (x - jnp.broadcast_to(self.mean, x.shape)) / jnp.broadcast_to(self.scale, x.shape)

    def outside(self, v):
        return v * jnp.broadcast_to(self.scale, v.shape) + jnp.broadcast_to(self.mean, v.shape)


@jax.jit
def _up(layers, key, v):
    """A draw of the visible units of the last machine given those of the first, every layer given the one below it."""
    for number, (below, above) in enumerate(itertools.pairwise(layers)):
        v = above.inside(below.machine.draw_hidden(jax.random.fold_in(key, number), v))
    return v


@jax.jit
def _hidden(layers, key, v):
    """A draw of the hidden units of the last machine given the visible ones of the first."""
    return layers[-1].machine.draw_hidden(jax.random.fold_in(key, len(layers)), _up(layers, key, v))


@jax.jit
def _down(layers, key, v, n_sweeps):
    """Sweeps of the last machine from its visible units v, then every layer below given the one above it."""
    top, below = jax.random.split(key)
    x = layers[-1].outside(layers[-1].machine.gibbs(top, v, n_sweeps))
    for number, layer in enumerate(reversed(layers[:-1])):
        x = layer.outside(layer.machine.draw_visible(jax.random.fold_in(below, number), x))
    return x


@functools.partial(jax.jit, static_argnames="n_draws")
def _unnormalized(layers, key, names, v, n_draws):
    """The bound at each depth without log Z and without the scale of the data, shape ``(n_draws, n, depth)``."""

    def of_one(key, v):
        total, terms = 0.0, []
        for number, (layer, above) in enumerate(zip(layers, (*layers[1:], None), strict=True)):
            terms.append(total - layer.machine.free_energy(v))
            if above is not None:
                h = layer.machine.draw_hidden(jax.random.fold_in(key, number), v)
                total = terms[-1] + layer.machine.transposed.free_energy(h) - jnp.sum(jnp.log(above.scale))
                v = above.inside(h)
        return jnp.stack(terms)

    def of_all(draw):
        keys = jax.vmap(lambda name: jax.random.fold_in(jax.random.fold_in(key, draw), name))(names)
        return jax.vmap(of_one)(keys, v)

    return jax.lax.map(of_all, jnp.arange(n_draws))
