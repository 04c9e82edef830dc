"""The restricted Boltzmann machine of any two kinds of units: energies, conditionals, marginals, exact draws of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike, Batch, HiddenLayer, Labeled, Scalar, VisibleLayer, Weights
from ..errors import ArgumentError, HammersleyCliffordError
from ..errors.arguments import call_checked, finite_array
from ..lattice.labels import aligned_units
from ..lattice.regular import bipartite
from ..model.families import phi4
from ..model.field import MarkovRandomField
from ..model.pytree import register_checked, replaced
from ..model.term import as_field, is_concrete
from ..partition.partition_estimate import PartitionEstimate
from .normalizer import log_partition
from .units import GaussianUnits, Phi4Units, Units

__all__ = ["RestrictedBoltzmannMachine"]


@call_checked
@register_checked
@dataclass(frozen=True, init=False, repr=False, eq=False)
class RestrictedBoltzmannMachine:
    """p(v, h) = exp(−S)/Z with S(v, h) = −Σ_ij w_ij v_i h_j + S_visible(v) + S_hidden(h).

    Given one layer the units of the other are independent. Immutable, a JAX pytree whose leaves are the couplings.

    Parameters
    ----------
    visible, hidden : Phi4Units, GaussianUnits, BernoulliUnits or SpinUnits
    weights : array_like, shape (visible.size, hidden.size)
        w; S contains −w, so a positive weight aligns its two units.

    Raises
    ------
    ArgumentError
        For shapes that do not fit.
    HammersleyCliffordError
        If Z is infinite: two Gaussian layers whose joint quadratic form is not positive definite.

    Notes
    -----
    The φ⁴ machine contains the others: b = 0 makes Gaussian units, and b → ∞ with the minima at ±1 makes spins. Source:
    D. Bachtis, G. Aarts and B. Lucini, Phys. Rev. D 103, 074510 (2021).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl.networks import BernoulliUnits, Phi4Units, RestrictedBoltzmannMachine
    >>> visible = Phi4Units([0.0, 0.1], [0.5, -0.5], [0.1, 0.3])
    >>> machine = RestrictedBoltzmannMachine(visible, BernoulliUnits([0.0]), [[0.5], [-1.0]])
    >>> round(float(machine.log_prob(jnp.array([0.2, -1.0]))), 4)
    -1.3986
    """

    visible: Units
    hidden: Units
    weights: Weights

    def __init__(self, visible: Units, hidden: Units, weights: ArrayLike):
        for name, units in (("visible", visible), ("hidden", hidden)):
            if not isinstance(units, Units):
                raise ArgumentError(name, "Phi4Units, GaussianUnits, BernoulliUnits or SpinUnits", type(units).__name__)
        array = finite_array("weights", weights) if is_concrete(weights) else weights
        expected = (visible.size, hidden.size)
        if np.shape(array) != expected:
            fix = "Rows are visible units, columns hidden ones."
            raise ArgumentError(
                "weights", f"an array of shape {expected}", f"shape {np.shape(array)}", fix, reason="shape"
            )
        vars(self).update(visible=visible, hidden=hidden, weights=jnp.asarray(array, visible.linear.dtype))
        leaves = jax.tree.leaves(self)
        if isinstance(visible, GaussianUnits) and isinstance(hidden, GaussianUnits) and all(map(is_concrete, leaves)):
            largest = float(self.coupling_strength())
            if not largest < 1:
                raise HammersleyCliffordError(
                    "not_normalizable",
                    "Z is infinite: the quadratic form of the two Gaussian layers is not positive definite (largest singular "
                    f"value of w_ij / (4 a_i m_j)^½ is {largest:.4g}, and must be below 1). Use smaller weights.",
                )

    def __repr__(self):
        return f"RestrictedBoltzmannMachine({self.visible!r}, {self.hidden!r})"

    @property
    def transposed(self) -> RestrictedBoltzmannMachine:
        """The same machine with the layers exchanged."""
        return replaced(self, visible=self.hidden, hidden=self.visible, weights=self.weights.T)

    def coupling_strength(self) -> Scalar:
        """Largest singular value of w_ij / (4 a_i m_j)^½; with two Gaussian layers Z is finite if it is below 1."""
        scale = jnp.sqrt(2 * self.visible.quadratic)[:, None] * jnp.sqrt(2 * self.hidden.quadratic)[None]  # type: ignore[attr-defined]
        return jnp.linalg.norm(self.weights / scale, ord=2)

    def energy(self, v: Labeled, h: Labeled) -> Batch:
        """S(v, h); ``v`` of shape ``(..., visible.size)`` and ``h`` of shape ``(..., hidden.size)``."""
        v, h = self._layer("v", v, self.visible), self._layer("h", h, self.hidden)
        return self.visible.energy(v) + self.hidden.energy(h) - jnp.sum((v @ self.weights) * h, axis=-1)

    def hidden_mean(self, v: Labeled) -> HiddenLayer:
        """⟨h_j⟩ given the visible units, shape ``(..., hidden.size)``: the features of v."""
        return self.hidden.mean(self._layer("v", v, self.visible) @ self.weights)

    def visible_mean(self, h: Labeled) -> VisibleLayer:
        """⟨v_i⟩ given the hidden units, shape ``(..., visible.size)``."""
        return self.transposed.hidden_mean(h)

    def draw_hidden(self, key: jax.Array, v: Labeled) -> HiddenLayer:
        """An exact draw of the hidden layer given the visible one."""
        return self.hidden.draw(key, self._layer("v", v, self.visible) @ self.weights)

    def draw_visible(self, key: jax.Array, h: Labeled) -> VisibleLayer:
        """An exact draw of the visible layer given the hidden one."""
        return self.transposed.draw_hidden(key, h)

    def free_energy(self, v: Labeled) -> Batch:
        """F(v) = −log Σ_h exp(−S(v, h)), so that p(v) = exp(−F(v))/Z; shape ``(...)``. Of h: ``machine.transposed``."""
        v = self._layer("v", v, self.visible)
        return self.visible.energy(v) - jnp.sum(self.hidden.log_normalizer(v @ self.weights), axis=-1)

    def log_prob(self, v: Labeled, *, method: str = "auto", seed: int = 0) -> Batch:
        """log p(v), normalized, natural logarithm; ``method`` and ``seed`` as in `log_partition`, whose error it shares."""
        return -self.free_energy(v) - self.log_partition(method=method, seed=seed).value

    def gibbs(self, key: jax.Array, v: Labeled, steps: int = 1, *, clamped: ArrayLike | None = None) -> VisibleLayer:
        """``steps`` sweeps of block Gibbs sampling, h given v and then v given h, on every leading axis of ``v``.

        Visible units at which the bools ``clamped``, of shape ``(visible.size,)``, are true keep their values: the chain
        then samples the other units given these.
        """
        v = self._layer("v", v, self.visible)
        if clamped is not None:
            clamped = clamped if isinstance(clamped, jax.Array) else np.asarray(clamped)
            if clamped.dtype != bool or clamped.shape != (self.visible.size,):
                got = f"{clamped.dtype} of shape {clamped.shape}"
                raise ArgumentError("clamped", f"bools of shape ({self.visible.size},)", got, reason="shape")
        held = None if clamped is None else jnp.broadcast_to(clamped, v.shape)

        def sweep(step, v):
            above, below = jax.random.split(jax.random.fold_in(key, step))
            drawn = self.draw_visible(below, self.draw_hidden(above, v))
            return drawn if held is None else jnp.where(held, v, drawn)

        return jax.lax.fori_loop(0, steps, sweep, v)

    def log_partition(self, *, method: str = "auto", seed: int = 0) -> PartitionEstimate:
        """log Z.

        Parameters
        ----------
        method : str
            ``"gaussian"`` (both layers Gaussian: determinant), ``"enumeration"`` (a binary layer of at most 20 units: sum over
            its states), ``"quadrature"`` (a real layer of at most 2 units), ``"annealing"`` (two-sided annealed importance
            sampling, with an error), or ``"auto"``: the first that can be used. In each of the exact ones the other layer is
            integrated out analytically, or unit by unit.
        seed : int
            Seed of annealing.

        Returns
        -------
        PartitionEstimate
        """
        return log_partition(self, method=method, seed=seed)

    def to_model(self) -> MarkovRandomField:
        """The same machine as a φ⁴ model on ``p4.lattice.bipartite``, with the couplings w, a, b and r; real units only.

        Visible sites come first. The field is ``concatenate([v, h])``.
        """
        layers = self.visible, self.hidden
        binary = next((layer for layer in layers if layer.states is not None), None)
        if binary is not None:
            fix = "Markov random fields of this library are real; sample the machine by block Gibbs (machine.gibbs)."
            raise ArgumentError("machine", "layers of real units", repr(binary), fix, reason="units")
        join = {
            name: np.concatenate([np.asarray(getattr(x, name)) for x in layers]) for name in ("linear", "quadratic")
        }
        fourth = [getattr(layer, "quartic", jnp.zeros(layer.size)) for layer in layers]
        lattice = bipartite(self.visible.size, self.hidden.size)
        weights = np.asarray(self.weights).reshape(-1)
        return phi4(
            lattice, w=weights, a=join["quadratic"], b=np.concatenate(list(map(np.asarray, fourth))), r=join["linear"]
        )

    @classmethod
    def from_model(cls, model: MarkovRandomField, num_visible: int) -> RestrictedBoltzmannMachine:
        """The machine of φ⁴ units that a model on ``p4.lattice.bipartite(num_visible, …)`` is.

        Raises
        ------
        ArgumentError
            If the model has other terms, or other edges.
        """
        if not isinstance(model, MarkovRandomField):
            raise ArgumentError("model", "a MarkovRandomField", type(model).__name__)
        n = model.lattice.num_sites
        edges = bipartite(num_visible, n - num_visible).edges if 0 < num_visible < n else None
        if edges is None or not np.array_equal(edges, model.lattice.edges):
            expected = f"a model on lattice.bipartite({num_visible}, …)"
            raise ArgumentError(
                "model",
                expected,
                repr(model.lattice),
                "Edges must join the first sites to the rest.",
                reason="lattice",
            )
        found = {power: np.zeros(n) for power in (1, 2, 4)} | {None: np.zeros(len(edges))}
        for term in model.terms:
            if term.form.built_in is None or term.form.power not in found:
                raise ArgumentError(
                    "model", "hopping, mass, quartic and source terms", f"also the term {term.name!r}", reason="terms"
                )
            place = term.cliques[:, 0]
            if term.form.is_hopping:
                place = place * (n - num_visible) + term.cliques[:, 1] - num_visible
            np.add.at(found[term.form.power], place, np.broadcast_to(np.asarray(term.coupling), (len(place),)))
        visible, hidden = (
            Phi4Units(*(found[power][part] for power in (1, 2, 4)))
            for part in (slice(None, num_visible), slice(num_visible, None))
        )
        return cls(visible, hidden, found[None].reshape(num_visible, n - num_visible))

    @staticmethod
    def _layer(name, values, units: Units):
        values = as_field(aligned_units(name, values, units.size), name)
        if values.ndim == 0 or values.shape[-1] != units.size:
            raise ArgumentError(name, f"shape (..., {units.size})", f"shape {values.shape}", reason="shape")
        return values
