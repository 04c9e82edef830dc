"""The flow of couplings: block the fields, fit the couplings of a basis at every level, and test what the basis leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._typing import Labeled, Series
from ..analysis.derived import derive
from ..analysis.gamma_method import gamma_method
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, positive_int, seed_within
from ..errors.streams import stream_seed
from ..kernels.kernel import Kernel
from ..lattice.frozen import Lattice
from ..learning.likelihood import LikelihoodFit, fit_likelihood
from ..model.field import MarkovRandomField
from ..results.run import sample
from .basis import basis_model, basis_of, wraps_of
from .blocking import Blocked, block
from .flow_result import Comparison, FixedPoint, Flow
from .operators import Operator, measure_operators, operator, standard_operators
from .rules import Rule

__all__ = ["find_fixed_point", "flow"]

SUSCEPTIBILITY = "V m2"
MIN_DRAWS = 8  # of a chain, for an autocorrelation time


@dataclass(frozen=True)
class _Chains:
    """Settings of the runs of fitted models."""

    num_warmup: int
    num_samples: int
    num_chains: int
    kernel: str | Kernel
    progress: bool | None


@call_checked
def flow(
    source: MarkovRandomField | Labeled | Blocked, rule: str | Rule | Callable | Sequence = "bell_wilson", *,
    basis: Sequence | Mapping = ("w", "a", "b"), levels: int = 2, factor: int = 2, eta: float | None = None,
    method="score_matching", check: bool = True, num_warmup: int = 200, num_samples: int = 1000, num_chains: int = 4,
    kernel: Kernel | str = "auto", lattice: Lattice | None = None, subtract_mean: bool = False, seed: int = 0,
    progress: bool | None = None,
) -> Flow:  # fmt: skip
    """How the couplings of a model, or of images, change from level to level of blocking.

    Parameters
    ----------
    source : MarkovRandomField, DataTree of a run, array of shape ``(chains, draws, *lattice)``, or Blocked
        A model is sampled first. Images are an array ``(n, nx, ny)`` with ``lattice=p4.lattice.square(nx, ny,
        periodic=False)``; gray levels that are few need noise of their own width.
    rule, factor, eta, lattice
        As in `block`. Signs have no density to be fitted: the rule has to leave a continuous field.
    basis : sequence of str, or dict
        Terms of the actions that are fitted. ``"w"``, ``"w_diagonal"``, ``"w_second"``, ``"w_knight"``: −Σ φφ over pairs at
        distances 1, √2, 2 and √5. ``"a"``, ``"b"``, ``"c"``: Σ φ², Σ φ⁴, Σ φ⁶. ``"u"``, ``"v"``: Σ φ²φ² and Σ (φ³φ + φφ³) over
        neighbors. ``"e_1"``, ``"e_2"``: Σ φ² over sites at an open boundary from which one or two neighbors are missing.
        A dict adds clusters of offsets, in which a site named k times has the power k:
        ``{"w": None, "g": [(0, 0), (1, 0), (1, 1), (0, 1)]}``.
    levels : int, default 2
        How many times to block.
    method
        As in `phi4ppl.fit_likelihood`.
    check : bool, default True
        Sample every fitted model again, and compare operators that are not in the basis.
    num_warmup, num_samples, num_chains, kernel, progress
        As in `phi4ppl.sample`, of a model that is sampled first, and of the fitted ones.
    subtract_mean : bool, default False
        Subtract the mean over all fields from every site, at every level. Couplings are the same at all sites; a mean that is
        not, as that of digits or faces, is in none of them. The comparison then includes odd operators.
    seed : int

    Returns
    -------
    Flow
        ``print`` it for couplings with errors and z-scores; ``plot()`` draws the flow.

    Raises
    ------
    ArgumentError
        If the rule makes spins, a lattice is not regular or too small for the basis, or an argument does not suit.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> free = p4.gaussian(p4.lattice.square(8), w=0.3, a=1.0)
    >>> fields = p4.GibbsField(free).sample(jax.random.key(0), (1, 1000))
    >>> found = p4.renormalization.flow(fields, "average", basis=("w", "a"), levels=1, check=False)
    >>> bool(abs(found.couplings["w"][0] - 0.3) < 4 * found.errors["w"][0])
    True
    """
    levels, seed = positive_int("levels", levels), seed_within(seed)
    chains = _Chains(num_warmup, num_samples, num_chains, kernel, progress)
    if isinstance(source, MarkovRandomField):
        source = _sampled(source, chains, stream_seed(seed, "flow"))
    if not isinstance(source, Blocked):
        settings = {"factor": factor, "eta": eta, "lattice": lattice, "seed": stream_seed(seed, "blocking")}
        source = block(source, rule, levels=levels, **settings)
    _require_continuous(source)
    if subtract_mean:
        means = [fields.mean(axis=(0, 1), dtype=float) for fields in source.fields]
        source = replace(source, fields=tuple(f - m.astype(f.dtype) for f, m in zip(source.fields, means, strict=True)))
    terms = basis_of(basis, source[0].ndim - 2)
    wraps = wraps_of(source.lattices[0])
    families = [basis_model(terms, each.field_shape, wraps=wraps) for each in source.lattices]
    step, inflation = _spacing(source[0], terms, wraps)
    thinned = [fields[:, ::step].reshape(-1, *fields.shape[2:]) for fields in source.fields]
    fits = [fit_likelihood(model, data, method) for model, data in zip(families, thinned, strict=True)]
    others = held_out(terms, source[0].ndim - 2, odd=subtract_mean)
    comparisons: list[dict[str, Comparison]] = []
    for level, fit in enumerate(fits):
        again = stream_seed(seed, "again", level)
        comparisons.append(
            _compared(source[level], fit, others, wraps, chains, again) if check and fit.converged else {}
        )
    return Flow(source, terms, tuple(fits), tuple(comparisons), step, inflation)


def _spacing(fields, terms: dict[str, Operator], wraps: tuple[bool, ...]) -> tuple[int, float]:
    """One draw in about τ_int, which keeps nearly all that is known, and by how much that leaves the errors too small."""
    if fields.shape[1] < MIN_DRAWS:
        return 1, 1.0
    square = fields.mean(axis=tuple(range(2, fields.ndim)), dtype=float)[..., None] ** 2
    series = np.concatenate([measure_operators(fields, tuple(terms.values()), wraps), square], axis=2)
    step = max(1, int(np.max(gamma_method(series).tau_int)))
    if fields.shape[1] // step < MIN_DRAWS:
        return step, 1.0
    return step, float(np.sqrt(max(1.0, 2 * np.max(gamma_method(series[:, ::step]).tau_int))))


@call_checked
def find_fixed_point(
    start: MarkovRandomField, rule: str | Rule | Callable = "bell_wilson", *, basis: Sequence | Mapping = ("w", "a", "b"),
    steps: int = 4, factor: int = 2, eta: float | None = None, method="score_matching", num_warmup: int = 200,
    num_samples: int = 1000, num_chains: int = 4, kernel: Kernel | str = "auto", seed: int = 0,
    progress: bool | None = None,
) -> tuple[FixedPoint, ...]:  # fmt: skip
    """Search the couplings at which the flow of a basis stands still, by Newton's method.

    Each step samples the model, blocks it once, and goes where `Flow.fixed_point` points to. The search ends when a step moves
    no coupling by more than two of its errors, when a point has no density, or after ``steps``.

    Parameters
    ----------
    start : MarkovRandomField
        Its couplings are those of the basis, by their names; others start at 0. Its lattice is that of all steps.
    rule, basis, factor, eta, method, num_warmup, num_samples, num_chains, kernel, seed, progress
        As in `flow`.
    steps : int, default 4

    Returns
    -------
    tuple of FixedPoint
        One a step; the last is the answer, whose ``speed`` says how far one step of blocking still moved its start. A search
        that does not end within two errors warns (``fixed_point.not_settled``): then the last point is no fixed point.

    Raises
    ------
    ArgumentError
        As `flow`, and if the start has no term of the basis.
    """
    terms = basis_of(basis, len(start.field_shape))
    if not set(terms) & set(start.couplings):
        raise ArgumentError("start", f"a model with {', '.join(terms)}", ", ".join(start.couplings), reason="name")
    values = {name: float(np.mean(start.couplings.get(name, 0.0))) for name in terms}
    model, points = basis_model(terms, start.field_shape, values, wraps_of(start.lattice)), []
    for step in range(positive_int("steps", steps)):
        own = stream_seed(seed_within(seed), "fixed point", step)
        found = flow(
            model, rule, basis=basis, levels=1, factor=factor, eta=eta, method=method, check=False, num_warmup=num_warmup,
            num_samples=num_samples, num_chains=num_chains, kernel=kernel, seed=own, progress=progress,
        ).fixed_point()  # fmt: skip
        points.append(found)
        small = all(abs(found.couplings[name] - values[name]) < 2 * found.errors[name] for name in terms)
        if small:
            return tuple(points)
        if not found.model.check().is_normalizable:
            break
        values, model = found.couplings, found.model
    speeds = ", ".join(f"{each.speed:.2g}" for each in points)
    message = (
        f"The search for a fixed point did not settle in {len(points)} steps; a step of blocking moved the couplings by "
        f"{speeds} of their length. The terms {', '.join(terms)} may not be enough, and with score matching the search then "
        "drifts: take method='maximum_likelihood', a larger basis, or more samples."
    )
    warn(Phi4pplWarning("fixed_point.not_settled", message, {"steps": len(points), "speed": points[-1].speed}))
    return tuple(points)


def _sampled(model: MarkovRandomField, chains: _Chains, seed: int):
    return sample(
        model, num_warmup=chains.num_warmup, num_samples=chains.num_samples, num_chains=chains.num_chains,
        kernel=chains.kernel, seed=seed, progress=chains.progress,
    )  # fmt: skip


def _require_continuous(blocked: Blocked) -> None:
    for level, (lattice, fields) in enumerate(zip(blocked.lattices, blocked.fields, strict=True)):
        if lattice.shape is None or lattice.periodic is None or not all(isinstance(p, bool) for p in lattice.periodic):
            expected = "fields on a regular lattice, periodic or open"
            raise ArgumentError("source", expected, repr(lattice), reason="lattice")
        if len(np.unique(fields.ravel()[:1000])) < 10:
            fix = "Use 'bell_wilson', 'kernel', 'average' or 'decimate'."
            got = f"few values at level {level}"
            raise ArgumentError("rule", "one that leaves a continuous field", got, fix, reason="spins")


def held_out(terms: dict[str, Operator], dimension: int, odd: bool = False) -> tuple[Operator, ...]:
    """Standard operators that are in no basis: even ones, and odd ones but for the field itself, whose mean is zero then."""
    inside = {each.clusters for each in terms.values()} | {operator("field", ((0,),), dimension).clusters}
    known = standard_operators(dimension)
    return tuple(each for each in known if (each.is_even or odd) and each.clusters not in inside)


def _compared(fields, fit: LikelihoodFit, others, wraps, chains: _Chains, seed: int) -> dict[str, Comparison]:
    """Densities of held-out operators, and the susceptibility, of the blocked fields and of the fitted model sampled again."""
    tree = _sampled(fit.model, chains, seed)
    most = min((n - 1) // (2 if wrap else 1) for n, wrap in zip(fields.shape[2:], wraps, strict=True))
    others = tuple(each for each in others if each.reach <= most)
    drawn = tree["posterior"]["phi"].transpose("chain", "draw", ...).values
    one, two = (_series(each, others, wraps) for each in (fields, drawn))
    names = list(one)
    found = [derive(each, {name: lambda m, name=name: m[name] for name in names}) for each in (one, two)]
    pairs = [{name: (float(each[name].value), float(each[name].error)) for name in names} for each in found]
    return {name: Comparison(*pairs[0][name], *pairs[1][name]) for name in names}


def _series(fields, operators, wraps) -> dict[str, Series]:
    volume, axes = int(np.prod(fields.shape[2:])), tuple(range(2, fields.ndim))
    measured = measure_operators(fields, operators, wraps) / volume if operators else np.zeros((*fields.shape[:2], 0))
    series = {each.name: measured[..., k] for k, each in enumerate(operators)}
    return series | {SUSCEPTIBILITY: volume * fields.mean(axis=axes, dtype=float) ** 2}
