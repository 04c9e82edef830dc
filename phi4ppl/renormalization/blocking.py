"""Block fields: fields of a run become coarser ones, level by level. Read `rules` next."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from .._typing import ArrayLike, Labeled
from ..analysis.derived import derive
from ..analysis.gamma_method import gamma_method
from ..analysis.primaries import lattice_of_run
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_rng
from ..lattice.frozen import Lattice
from ..lattice.labels import aligned_fields
from ..lattice.regular import square, triangular
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..results.settings import metadata, tree_of
from .blocks_of_sites import BlocksOfSites, cubes, parts, regular
from .rules import BellWilson, Custom, Decimate, Linear, Rule, rules_of

__all__ = ["Blocked", "alignment", "block", "fields_of"]

BATCH = 1 << 23  # numbers of fine fields that are blocked at once
COMPARED = 1 << 20  # numbers of fine fields that the alignment is judged from
ETA_TOLERANCE = 0.1  # corrections to scaling move η from level to level by about half of this


@call_checked
@dataclass(frozen=True, repr=False)
class Blocked:
    """Fields by level; see `block`. ``blocked[k]`` are those after k steps, ``blocked[0]`` the original ones.

    Attributes
    ----------
    fields : tuple of arrays, each of shape ``(chains, draws, *field_shape)``
    lattices : tuple of Lattice
    rules : tuple of Rule
        ``rules[k]`` leads from level k to level k + 1.
    blocks : tuple of BlocksOfSites
        The blocks of ``rules[k]``.
    seed : int
        Of coins and noise.
    warnings : tuple of str
        Blocks that are not aligned, and an η that the fields contradict.
    """

    fields: tuple[np.ndarray, ...]
    lattices: tuple[Lattice, ...]
    rules: tuple[Rule, ...]
    blocks: tuple[BlocksOfSites, ...]
    seed: int
    warnings: tuple[str, ...] = ()

    @property
    def levels(self) -> int:
        """Number of steps."""
        return len(self.rules)

    @property
    def factor(self) -> int | None:
        """Sites along the side of a block; None for partitions."""
        return self.blocks[0].factor

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, level: int) -> np.ndarray:
        return self.fields[level]

    def moments(self) -> list[dict[str, tuple[float, float]]]:
        """Of every level ⟨φ²⟩, V⟨m²⟩ and U₄ with errors that know autocorrelation."""
        found = []
        for fields, lattice in zip(self.fields, self.lattices, strict=True):
            m, volume = fields.mean(axis=tuple(range(2, fields.ndim)), dtype=float), lattice.num_sites
            got = derive(
                {"m2": m**2, "m4": m**4},
                {
                    "susceptibility": partial(_scaled_m2, volume=volume),
                    "binder_cumulant": lambda m: 1 - m["m4"] / (3 * m["m2"] ** 2),
                },
            )
            row = {name: (float(got[name].value), float(got[name].error)) for name in got}
            found.append({"phi_squared": _phi_squared(fields)} | row)
        return found

    def __str__(self) -> str:
        chains, draws = self.fields[0].shape[:2]
        lines = [f"{chains * draws} fields, blocked {self.levels} times"]
        steps = ["", *(f"  by {rule!r}" for rule in self.rules)]
        for k, (lattice, step, row) in enumerate(zip(self.lattices, steps, self.moments(), strict=True)):
            numbers = (
                f"⟨φ²⟩ {value_with_error(*row['phi_squared'])}",
                f"V⟨m²⟩ {value_with_error(*row['susceptibility'])}",
            )
            lines.append(f"  level {k}: {lattice.name.partition(',')[0]}  {'  '.join(numbers)}{step}")
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = []
        for k, (lattice, row) in enumerate(zip(self.lattices, self.moments(), strict=True)):
            name = "" if not k else repr(self.rules[k - 1])
            rows.append(
                (k, lattice.name, name, *(value_with_error(*row[n]) for n in ("phi_squared", "susceptibility")))
            )
        return card("Blocked fields", ("level", "lattice", "rule", "⟨φ²⟩", "V⟨m²⟩"), rows, warnings=self.warnings)


@call_checked
def block(
    fields: Labeled, rule: str | Rule | Callable | Sequence = "average", *, factor: int = 2, levels: int = 1,
    eta: float | None = None, lattice: Lattice | None = None, partition: ArrayLike | Sequence | None = None, seed: int = 0,
) -> Blocked:  # fmt: skip
    """Coarse-grain fields: every block of b^d sites becomes one site.

    Parameters
    ----------
    fields : DataTree of a run, or array of shape ``(chains, draws, *field_shape)``
        The tree of `phi4ppl.sample`. Of a bare array the last axes are those of a torus, unless ``lattice`` says otherwise.
        Beside ``lattice``, an array ``(n, *field_shape)`` is one chain: n images, for example.
    rule : str, Rule, callable, or a sequence of them
        ``"average"``, ``"decimate"``, ``"sign"`` (of the block mean), ``"majority"`` (of the signs), ``"kernel"`` or
        ``"bell_wilson"``; the objects with their options are `Average`, `Decimate`, `Sign`, `Majority`, `StencilKernel` and
        `BellWilson` in `phi4ppl.renormalization`. Or a JAX function from one field to the coarse one. A sequence has one rule a
        level, of which the last is repeated: ``("sign", "majority")``.
    factor : int, default 2
        b, sites along the side of a block.
    levels : int, default 1
        How many times to block.
    eta : float, optional
        η of the factor s = b^{(d−2+η)/2} of the linear rules (average, decimate, kernel, Bell–Wilson), with which a critical
        field keeps its size; 1/4 for the Ising class in two dimensions. None: no factor.
    lattice : Lattice, optional
        Of a bare array that is not from a torus.
    partition : int array, or a sequence of them by level, optional
        On any graph: the block 0, 1, … of every site. Blocks become the sites of the coarse lattice, adjacent where sites of
        theirs are.
    seed : int, default 0
        Of the coins that decide ties, and of the noise of Bell–Wilson blocking.

    Returns
    -------
    Blocked
        ``blocked[k]`` are the fields after k steps, ``blocked.lattices[k]`` their lattice.

    Raises
    ------
    ArgumentError
        If the sides of a lattice are no multiples of the factor, or an argument does not suit the rule.

    Notes
    -----
    Blocks are aligned with site 0. Sums are made in double precision; the coarse field has the precision of the fine one, and
    ``average`` conserves the sum of the field, times s/b^d, to its rounding.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> phi = np.random.default_rng(0).normal(size=(2, 50, 8, 8))
    >>> blocked = p4.renormalization.block(phi, "average", levels=2)
    >>> blocked.lattices[2], blocked[2].shape
    (Lattice(square 2×2, periodic: 4 sites, 4 edges), (2, 50, 2, 2))
    >>> bool(np.allclose(blocked[2].mean(axis=(2, 3)), phi.mean(axis=(2, 3)), atol=1e-14))
    True
    """
    levels, seed = positive_int("levels", levels), seed_within(seed)
    given, lattice = fields_of(fields, lattice)
    partitions = _partitions(partition, lattice)
    if partitions and len(partitions) != levels:
        fix = "Give one partition for every level."
        raise ArgumentError("partition", f"{levels} partitions", f"{len(partitions)}", fix, reason="count")
    rules = rules_of(rule, eta, levels)
    blocks: list[BlocksOfSites] = []
    for level in range(levels):
        fine = blocks[-1].coarse if blocks else lattice
        blocks.append(parts(fine, partitions[level]) if partitions else cubes(fine, factor))
    found = [given]
    for level, (each, own) in enumerate(zip(rules, blocks, strict=True)):
        found.append(_blocked_once(found[-1], each, own, stream_rng(seed, "blocking", level)))
    result = Blocked(tuple(found), (lattice, *(own.coarse for own in blocks)), rules, tuple(blocks), seed)
    return Blocked(result.fields, result.lattices, rules, result.blocks, seed, tuple(_doubts(result)))


def _phi_squared(fields: np.ndarray) -> tuple[float, float]:
    """⟨φ²⟩ and its error."""
    found = gamma_method(np.mean(np.square(fields, dtype=float), axis=tuple(range(2, fields.ndim))))
    return float(found.mean), float(found.error)


def _scaled_m2(means, volume: int):
    return volume * means["m2"]


def _partitions(partition, lattice: Lattice) -> list:
    """A list of partitions by level, from one of them or several; empty for none."""
    if partition is None:
        return []
    several = isinstance(partition, (list, tuple)) and len(partition) and np.ndim(partition[0]) > 0
    return list(partition) if several and np.shape(partition[0]) != lattice.field_shape[1:] else [partition]


def _blocked_once(fields: np.ndarray, rule: Rule, blocks: BlocksOfSites, rng) -> np.ndarray:
    flat = fields.reshape(-1, *fields.shape[2:])
    step = max(1, BATCH // blocks.fine.num_sites)
    coarse = [rule(flat[k : k + step], blocks, rng).astype(fields.dtype) for k in range(0, len(flat), step)]
    return np.concatenate(coarse).reshape(*fields.shape[:2], *blocks.coarse.field_shape)


def fields_of(fields, lattice: Lattice | None = None) -> tuple[np.ndarray, Lattice]:
    """Fields of shape ``(chains, draws, *field_shape)`` and their lattice, from what users have.

    Raises
    ------
    ArgumentError
        If the shape does not fit, the draws are those of several couplings, or the run kept no field.
    """
    if isinstance(fields, Blocked):
        return fields.fields[0], fields.lattices[0]
    tree = tree_of(fields)
    if isinstance(tree, xr.DataTree):
        posterior = tree["posterior"] if "posterior" in tree.children else {}
        if "phi" not in posterior:
            fix = "Sample it with keep_field=True."
            raise ArgumentError("fields", "a run whose posterior has the field 'phi'", "one without", fix, reason="run")
        if "member" in posterior["phi"].dims:
            fix = "Select one: tree.isel(member=0)."
            raise ArgumentError("fields", "one member of an ensemble", "all of them", fix, reason="ensemble")
        lattice = _lattice_of(tree) if lattice is None else lattice
        values = aligned_fields("fields", posterior["phi"].transpose("chain", "draw", ...), lattice)
    else:
        if isinstance(fields, xr.DataArray) and {"chain", "draw"} <= set(fields.dims):
            fields = fields.transpose("chain", "draw", ...)  # axes with names may come in any order
        values = finite_array("fields", fields)
    if lattice is None:
        if values.ndim < 4:
            got, fix = (
                f"shape {values.shape}",
                "One chain is fields[None]. Of images, a chain of sites or a graph give lattice=.",
            )
            raise ArgumentError("fields", "shape (chains, draws, nx, ny, …)", got, fix, reason="shape")
        lattice = regular(values.shape[2:])
    elif not isinstance(tree, xr.DataTree) and values.ndim == 1 + len(lattice.field_shape):
        values = values[None]
    if values.shape[2:] != lattice.field_shape or values.ndim != 2 + len(lattice.field_shape) or not values.size:
        got, fix = f"shape {values.shape}", "One chain is fields[None]."
        raise ArgumentError("fields", f"shape (chains, draws, *{lattice.field_shape})", got, fix, reason="shape")
    return values, lattice


def _lattice_of(tree) -> Lattice:
    """The lattice of a run's field, as it was built where it is a regular one."""
    found = lattice_of_run(tree)
    if found is None:
        fix = "Give lattice=."
        raise ArgumentError("fields", "the tree of phi4ppl.sample", "one without its lattice", fix, reason="lattice")
    if found.shape is None or found.periodic is None or not all(isinstance(p, bool) for p in found.periodic):
        return found
    (facts,) = metadata(tree)["fields"].values()
    built = [lambda: regular(found.shape, found.periodic)]
    if len(found.shape) == 2:
        built += [lambda: triangular(*found.shape, periodic=found.periodic)]
        built += [lambda: square(*found.shape, periodic=found.periodic, diagonals=True)]
    same = (each for each in (build() for build in built) if each.digest == facts["digest"])
    return next(same, found)


def alignment(fine: np.ndarray, coarse: np.ndarray, blocks: BlocksOfSites) -> tuple[int, ...]:
    """By how many fine sites, from −b/2 to b/2 along each axis, the blocks of ``coarse`` are shifted against those of ``fine``.

    The shift at which block means of ``fine`` are most correlated with ``coarse``; both are ``(n, *shape)``. A coarse field
    that knows nothing of its fine one has no alignment: zeros are returned.
    """
    factor = blocks.factor or 1
    window = range(-(factor // 2), factor // 2 + 1)
    zero, best = (0,) * (fine.ndim - 1), {}
    for shift in itertools.product(window, repeat=fine.ndim - 1):
        means = blocks.mean(np.roll(fine, [-k for k in shift], tuple(range(1, fine.ndim))))
        norm = math.sqrt(float(np.sum(means**2) * np.sum(np.square(coarse, dtype=float))))
        best[shift] = float(np.sum(means * coarse)) / norm if norm > 0 else 0.0
    found = max(best, key=lambda shift: best[shift])
    return found if best[found] > best[zero] + 1e-3 else zero


def _doubts(blocked: Blocked) -> list[str]:
    """Functions whose blocks are elsewhere, and an η that is not that of the fields."""
    found = []
    for level, (rule, blocks) in enumerate(zip(blocked.rules, blocked.blocks, strict=True)):
        if isinstance(rule, Custom) and blocks.factor is not None:
            number = max(1, COMPARED // blocks.fine.num_sites)
            fine, coarse = (blocked[k].reshape(-1, *blocked[k].shape[2:])[:number] for k in (level, level + 1))
            if any(shift := alignment(fine, coarse, blocks)):
                found.append(
                    f"Level {level + 1}: the blocks of {rule!r} are shifted by {shift} sites against those that start at "
                    "site 0. Lifts and comparisons site by site will be wrong."
                )
    if blocked.levels < 2 or blocked.fields[0].shape[1] < 8:  # the first step also forgets what is shorter than a block
        return found
    rule, noise = blocked.rules[-1], _noise(blocked)
    if isinstance(rule, Linear) and rule.eta is not None and noise is not None:
        (one, d_one), (two, d_two) = map(_phi_squared, blocked.fields[-2:])
        one, two = max(one - noise[-2], d_one), max(two - noise[-1], d_two)
        log_b = math.log(blocked.factor or 2)
        eta, error = rule.eta - math.log(two / one) / log_b, math.hypot(d_one / one, d_two / two) / log_b
        if abs(eta - rule.eta) > ETA_TOLERANCE + 3 * error:
            found.append(
                f"eta = {rule.eta:g} makes ⟨φ²⟩ change from {value_with_error(one, d_one)} to {value_with_error(two, d_two)} "
                f"in the last step; it would stand still at eta = {value_with_error(eta, error)}. Either eta is not that of "
                "the universality class, or the model is not critical."
            )
    return found


def _noise(blocked: Blocked) -> list[float] | None:
    """The variance of a site that is noise of Bell–Wilson blocking, by level; None where ⟨φ²⟩ says nothing of η.

    Decimation leaves the distribution of a site as it is.
    """
    found = [0.0]
    for rule, blocks in zip(blocked.rules, blocked.blocks, strict=True):
        if isinstance(rule, BellWilson):
            found.append(found[-1] * rule.scale(blocks) ** 2 / float(np.mean(blocks.sizes)) + 1 / rule.alpha)
        elif any(found) or rule.is_random or isinstance(rule, Decimate):
            return None
        else:
            found.append(0.0)
    return found
