"""The way up: fields of a small lattice become fields of large ones, level by level, each corrected before the next.

Equilibrium on a small lattice is cheap. A lift keeps the long waves, and what it gets wrong is local: a few sweeps repair it,
however large the lattice. Read `lifts` and `correction` first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of, positive_int, seed_within
from ..errors.streams import stream_key, stream_rng, stream_seed
from ..lattice.regular import from_offsets
from ..model.field import MarkovRandomField
from ..model.term import Term
from ..results.correction import OBSERVABLES, Corrected, by_sweeps, local_kernel, measure, summary_of
from ..sampling.engine import Engine
from ..sampling.progress import Progress
from .blocks_of_sites import cubes, lattice_like
from .cascade_result import Cascade, Level, blocked_back
from .conditional_field import train_conditional_field
from .conditional_flow import train_conditional_flow
from .lifts import Copy, FunctionLift, Lift, scale_of, train_transposed_convolution
from .other_corrections import by_independence, by_patches

__all__ = ["InverseRenormalization", "cascade", "model_at"]

ETA = {2: 0.25, 3: 0.0363}  # of the Ising class
LIFTS = ("conditional_field", "copy", "transposed_convolution", "conditional_flow")
CORRECTIONS = ("sweeps", "patches", "independence")
NUM_PAIRS = 1000
WARMUP = 200  # iterations that tune the step size and thermalize the smallest lattice
APART = 60  # iterations from there to the fields of the start
MIN_ALPHA, MAX_ALPHA = 1.0, 1e3
LIFTED_SITES = 1 << 22  # at once


@call_checked
@dataclass(frozen=True, eq=False)
class InverseRenormalization:
    """A lift with its correction: fields of twice the size, as often as you like.

    Parameters
    ----------
    model : MarkovRandomField, or callable
        Of a periodic lattice with the same numbers everywhere, which is written on lattices of other sizes; or
        ``model(side)``.
    lift : str, Lift or callable
        ``"conditional_field"`` (the default: see `ConditionalField`), ``"copy"``, ``"transposed_convolution"`` or
        ``"conditional_flow"``. Learned ones are trained on pairs of the two smallest sizes and reused at every level. Or a JAX
        function ``lift(key, coarse) -> fine`` of one field.
    eta : float, optional
        η of the scale of the field; 1/4 in two dimensions and 0.0363 in three, the Ising class.
    correction : str or callable
        ``"sweeps"`` of an exact kernel of the model (the default); ``"patches"``, new details of patches of blocks by
        Metropolis, then sweeps; ``"independence"``, weights of whole fields. Or ``correction(model, fields, seed) -> fields``,
        which is measured like the others. There is no way to leave it out: `Level` has the figures before it.
    sweeps : int, optional
        A fixed number; by default doubled until nothing moves by more than two errors.
    kernel : str
        ``"auto"``, ``"cluster"`` or ``"local_hmc"``.
    seed : int

    Raises
    ------
    ArgumentError
        If the model cannot be written on other sizes, η is not known in its dimension, or a lift has no density where the
        correction needs one.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(4), w=0.680602, a=-1.0, b=1.0)
    >>> up = p4.renormalization.InverseRenormalization(model, "copy", sweeps=16, kernel="local_hmc")
    >>> start = up.start(4, 64, seed=1)
    >>> up.lifted(start.fields, seed=2).fields.shape
    (64, 8, 8)
    """

    model: MarkovRandomField | Callable
    lift: str | Lift | Callable = "conditional_field"
    eta: float | None = None
    correction: str | Callable = "sweeps"
    sweeps: int | None = None
    kernel: str = "auto"
    seed: int = 0
    _made: dict = field(
        default_factory=dict, init=False, repr=False
    )  # models, the lift and the step size, once asked for

    def __post_init__(self):
        if not isinstance(self.model, MarkovRandomField) and not callable(self.model):
            raise ArgumentError("model", "a MarkovRandomField, or a function of the side", type(self.model).__name__)
        if isinstance(self.lift, str):
            one_of("lift", self.lift, LIFTS)
        if isinstance(self.correction, str):
            one_of("correction", self.correction, CORRECTIONS)
        seed_within(self.seed)

    def at(self, side: int) -> MarkovRandomField:
        """The model on a lattice of equal sides."""
        key = ("model", side)
        if key not in self._made:
            model = self.model if isinstance(self.model, MarkovRandomField) else self.model(side)
            self._made[key] = model_at(model, side) if isinstance(self.model, MarkovRandomField) else model
        return self._made[key]

    def eta_of(self, dimension: int) -> float:
        if self.eta is None and dimension not in ETA:
            fix = "Give eta; at a critical point of mean-field kind it is 0."
            raise ArgumentError("eta", f"a number in {dimension} dimensions", "None", fix, reason="dimension")
        return float(ETA[dimension] if self.eta is None else self.eta)

    def start(self, side: int, number: int, *, seed: int = 0) -> Level:
        """Independent equilibrium fields of a small lattice, one per chain; they also tune the step size."""
        model, kernel, began = self.at(side), local_kernel(self.at(side), self.kernel), time.process_time()
        engine = Engine(
            model, kernel=kernel, num_chains=number, key=stream_key(seed, "start", side), keep_field=False,
            observables=OBSERVABLES,
        )  # fmt: skip
        engine.warm_up(model, WARMUP)
        found = []
        for _ in range(2):
            drawn = engine.draw(model, 1, APART // 2, burn_in=False)
            series = {name: x[:, 0].astype(float) for name, x in drawn.observables.items()}
            found.append(summary_of(series, model.lattice))
        self._made["step_size"] = float(np.mean(np.asarray(engine.tuning.step_size)))
        seconds = time.process_time() - began
        corrected = Corrected(engine.fields, found[0], found[1], WARMUP + APART, [(0, found[0]), (APART, found[1])])
        return Level(side, model.field_shape, corrected, None, "start", self.eta_of(len(model.field_shape)), seconds)

    def lifted(self, coarse: np.ndarray, *, seed: int = 0) -> Level:
        """Fields of twice the size: proposed by the lift, then corrected."""
        coarse = np.asarray(coarse)
        side = 2 * max(coarse.shape[1:])
        model, lift = self.at(side), self._trained(side // 2)
        if "step_size" not in self._made:
            self.start(side // 2, max(16, min(len(coarse), 256)), seed=stream_seed(seed, "tuning"))
        began = time.process_time()
        proposed = _in_batches(lift, coarse, stream_key(seed, "lift", side))
        if proposed.shape[1:] != model.field_shape:
            raise ArgumentError("coarse", f"half the sides {model.field_shape}", f"{coarse.shape[1:]}", reason="shape")
        eta = self.eta_of(coarse.ndim - 1)
        back = blocked_back(proposed, coarse, cubes(model.lattice, 2), eta)
        corrected = self._corrected(model, lift, coarse, proposed, stream_seed(seed, "correction", side))
        return Level(side, model.field_shape, corrected, back, lift.name, eta, time.process_time() - began)

    def _corrected(self, model, lift: Lift, coarse, proposed, seed: int) -> Corrected:
        if not isinstance(self.correction, str):
            fields = np.asarray(self.correction(model, proposed, seed))
            before, after = measure(model, proposed), measure(model, fields)
            return Corrected(fields, before, after, 0, [(0, before), (0, after)])
        settings = {"step_size": self._made["step_size"], "kernel": self.kernel, "sweeps": self.sweeps, "seed": seed}
        if self.correction == "sweeps":
            return by_sweeps(model, proposed, **settings)
        if not lift.has_density:
            fix = "conditional_flow has one. Or take correction='sweeps', which needs none."
            raise ArgumentError("lift", "a lift with a density", repr(lift.name), fix, reason="density")
        if self.correction == "patches":
            return by_patches(
                model, lift, proposed, scale_of(self.eta_of(coarse.ndim - 1), coarse.ndim - 1), **settings
            )
        return by_independence(model, self.at(max(coarse.shape[1:])), lift, coarse, proposed, seed)

    def _trained(self, side: int) -> Lift:
        """The lift, trained on pairs of this size and twice of it when it is first asked for."""
        if "lift" not in self._made:
            self._made["lift"] = self._make(side)
        return self._made["lift"]

    def _make(self, side: int) -> Lift:
        if isinstance(self.lift, Lift):
            return self.lift
        if not isinstance(self.lift, str):
            return FunctionLift(self.lift)
        dimension = len(self.at(side).field_shape)
        eta = self.eta_of(dimension)
        if self.lift == "copy":
            return Copy(eta)
        seed = stream_seed(self.seed, "pairs")
        small = self.start(side, NUM_PAIRS, seed=seed)
        fine = self.start(2 * side, NUM_PAIRS, seed=seed)
        means = scale_of(eta, dimension) * cubes(self.at(2 * side).lattice, 2).mean(fine.fields)
        if self.lift == "transposed_convolution":
            return train_transposed_convolution(means, fine.fields, seed=seed)
        if self.lift == "conditional_flow":
            return train_conditional_flow(means, fine.fields, eta=eta, seed=seed)
        lacking = small.corrected.after.values["phi_squared"] - float(np.mean(means**2))
        alpha = float(np.clip(1 / max(lacking, 1e-9), MIN_ALPHA, MAX_ALPHA))
        noise = stream_rng(seed, "noise").normal(size=means.shape) / math.sqrt(alpha)
        return train_conditional_field(means + noise, fine.fields, eta=eta)


@call_checked
def cascade(
    model: MarkovRandomField | Callable | InverseRenormalization, start: int = 8, levels: int = 6, *, fields: int = 200,
    lift: str | Lift | Callable = "conditional_field", eta: float | None = None, correction: str | Callable = "sweeps",
    sweeps: int | None = None, kernel: str = "auto", keep_fields: bool = False, seed: int = 0,
    progress: bool | None = None,
) -> Cascade:  # fmt: skip
    """Independent fields of lattices of 2^levels times the size, without critical slowing down on the way.

    Parameters
    ----------
    model : MarkovRandomField, callable, or InverseRenormalization
        See `InverseRenormalization`, which also explains ``lift``, ``eta``, ``correction``, ``sweeps`` and ``kernel``.
    start : int, default 8
        Side of the lattice that is sampled directly.
    levels : int, default 6
        Lifts: 6 lead from 8² to 512².
    fields : int, default 200
        Independent fields at every level; fields of different levels with one number descend from each other.
    keep_fields : bool
        Keep the fields of all levels; by default those of the last.
    seed : int
    progress : bool, optional
        A line per level; by default on terminals and in notebooks.

    Returns
    -------
    Cascade
        ``print`` it: S/V, ⟨φ²⟩, χ, U₄ and ξ/L before and after the correction by level, what was checked, and the verdict;
        ``exponents()`` are γ/ν and β/ν.

    Raises
    ------
    ArgumentError

    Notes
    -----
    The start and sweeps are asymptotically exact, everything else is measured: whether doubling the sweeps moves an observable,
    whether ⟨f ∂S/∂φ⟩ = ⟨∂f/∂φ⟩ under the action of the model for f = φ, φ³ and the sum of the neighbors, whether all
    sublattices are alike, whether blocks of the proposal are those of its coarse field, in place and in size, and whether χ
    grows from level to level by the η that the lift assumes.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(4), w=0.680602, a=-1.0, b=1.0)
    >>> found = p4.renormalization.cascade(
    ...     model, start=4, levels=1, fields=64, lift="copy", sweeps=16, kernel="local_hmc", seed=1
    ... )
    >>> [level.side for level in found.levels]
    [4, 8]
    """
    start, levels = positive_int("start", start, minimum=4), positive_int("levels", levels)
    number, seed = positive_int("fields", fields, minimum=20), seed_within(seed)
    if start % 2:
        raise ArgumentError("start", "an even side", str(start), reason="even")
    up = model
    if not isinstance(model, InverseRenormalization):
        up = InverseRenormalization(model, lift, eta, correction, sweeps, kernel, seed)
    assert isinstance(up, InverseRenormalization)
    with Progress(None, progress) as bar:
        bar.message(f"side {start} of {start << levels}: {number} fields")
        found = [up.start(start, number, seed=stream_seed(seed, "cascade"))]
        for level in range(levels):
            bar.message(f"side {start << level + 1} of {start << levels}: lift and correction")
            found.append(up.lifted(found[-1].fields, seed=stream_seed(seed, "level", level)))
            if not keep_fields:
                found[-2] = found[-2].without_fields()
    return Cascade(tuple(found))


def _in_batches(lift: Lift, coarse: np.ndarray, key) -> np.ndarray:
    """Lifted fields; batches have one size, so that one program serves all."""
    sites = 2 ** (coarse.ndim - 1) * math.prod(coarse.shape[1:])
    batches = math.ceil(len(coarse) * sites / LIFTED_SITES)
    size = math.ceil(len(coarse) / batches)
    parts = []
    for first in range(0, len(coarse), size):
        rows = (first + np.arange(size)) % len(coarse)
        part = np.asarray(lift(jax.random.fold_in(key, first), jnp.asarray(coarse[rows])))
        parts.append(part[: len(coarse) - first])
    return np.concatenate(parts)


def model_at(model: MarkovRandomField, side: int) -> MarkovRandomField:
    """The same terms and numbers on a lattice of the same kind with other sides.

    Raises
    ------
    ArgumentError
        If a coupling is not one number, the lattice is no torus of equal sides, or a term is not on all bonds of some kinds
        or on all sites.
    """
    lattice = model.lattice
    fix = "Give a function of the side instead: lambda side: p4.phi4(p4.lattice.square(side), …)."
    if lattice.offsets is None or not all(np.ravel(lattice.periodic)) or len(set(lattice.shape or ())) != 1:
        raise ArgumentError("model", "a torus of equal sides", repr(lattice), fix, reason="lattice")
    other, terms = lattice_like(lattice, (side,) * len(lattice.field_shape)), []
    if other.offsets != lattice.offsets:  # of longer range
        other = from_offsets((side,) * len(lattice.field_shape), lattice.offsets)
    for form, value in model.interactions:
        if np.ndim(value):
            raise ArgumentError("model", "numbers as couplings", f"{form.name!r}, an array", fix, reason="array")
        if form.is_on_all_sites and len(form.cliques) == lattice.num_sites:
            cliques = np.arange(other.num_sites)[:, None]
        else:
            pairs = {tuple(pair) for pair in np.sort(form.cliques, axis=1).tolist()}
            kinds = [k for k in lattice.kinds if {tuple(e) for e in lattice.edges_of(k).tolist()} <= pairs]
            if form.cliques.shape[1] != 2 or len(pairs) != sum(len(lattice.edges_of(k)) for k in kinds):
                got = f"{form.name!r} on {len(form.cliques)} cliques"
                raise ArgumentError("model", "terms on all sites or all bonds of a kind", got, fix, reason="terms")
            cliques = np.concatenate([other.edges_of(kind) for kind in kinds])
        terms.append(Term(form.name, cliques, form.statistic, value))
    return MarkovRandomField(other, terms)
