"""Exact removal of sites that do not interact: every one is integrated out by itself, and can be drawn again exactly.

Sites of an independent set meet only sites that stay. Given these, site i has the density exp(h_i φ − U_i(φ))/z_i(h_i), with
h_i = Σ_j w_ij φ_j − r_i and U_i the rest of its terms, so that

    ∫ exp(−S(φ)) Π_i dφ_i = exp(−S′),    S′ = S of the terms that stay − Σ_i ln z_i(h_i),    z(h) = ∫ exp(hφ − U(φ)) dφ.

−ln z_i couples all neighbors of i: in S′ they are a clique.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike
from ..energy import onesite as quartic
from ..energy.exact.independent_sites import SiteEnergies
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, seed_within
from ..errors.streams import stream_key
from ..lattice.coloring import colors
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from ..model.term import Term, is_concrete

__all__ = ["Eliminated", "eliminate"]

KNOWN = (1, 2, 4)  # powers of the one-site density
MAX_TERMS = 256  # different sets of couplings around an eliminated site: each makes a term
MAX_NEIGHBORS = 64
NEAR = 46.0  # exp(−46) of the largest value: where the density of a site ends
NODES = 400  # of the quadrature of user-defined terms
SCAN = 1e-2 * np.sinh(np.linspace(-12, 12, 801))  # where the fields of a site may be: ±800, dense near zero
COUPLING = "eliminated"


@dataclass(frozen=True)
class LogNormalizer:
    """T = −ln z(Σ_m w_m φ_m − r) of one clique, z(h) = ∫ exp(hφ − aφ² − bφ⁴) dφ.

    With ``others``, pairs of a statistic and its coupling, U has these too, and z comes from a trapezoidal rule on nodes that
    follow the density.
    """

    weights: tuple[float, ...]
    linear: float
    quadratic: float
    fourth: float
    others: tuple = ()
    __name__ = "log_normalizer"

    def __call__(self, *fields):
        pull = sum(w * phi for w, phi in zip(self.weights, fields, strict=True)) - self.linear
        if not self.others:
            return -quartic.log_normalizer(-pull, self.quadratic, self.fourth)
        return -_log_integral(self.energy, pull)

    def energy(self, phi):
        """U of the site that is gone."""
        total = self.quadratic * phi**2 + self.fourth * phi**4
        for statistic, coupling in self.others:
            total = total + coupling * jnp.vectorize(statistic)(phi)
        return total


def _log_integral(energy, pull):
    """ln ∫ exp(hφ − U(φ)) dφ of one h; the nodes are those between which the integrand is not negligible."""
    scan = jnp.asarray(SCAN, jnp.result_type(pull))
    height = jax.lax.stop_gradient(pull * scan - energy(scan))
    inside = height > jnp.max(height) - NEAR
    first, last = jnp.argmax(inside), len(SCAN) - 1 - jnp.argmax(inside[::-1])
    low, high = scan[jnp.maximum(first - 1, 0)], scan[jnp.minimum(last + 1, len(SCAN) - 1)]
    nodes = low + (high - low) * jnp.linspace(0, 1, NODES, dtype=scan.dtype)
    return jax.nn.logsumexp(pull * nodes - energy(nodes)) + jnp.log((high - low) / (NODES - 1))


@call_checked
@dataclass(frozen=True, eq=False, repr=False)
class Eliminated:
    """What is left of a model; see `eliminate`.

    Attributes
    ----------
    model : MarkovRandomField
        S′, on the graph of the sites that stay. Neighbors of an eliminated site are adjacent there.
    original : MarkovRandomField
    sites, kept : int arrays
        Numbers of the sites that are gone and of those that stay, in the original lattice.
    log_constant : float
        Σ ln z over eliminated sites without neighbors: log Z(original) = log Z(model) + log_constant.
    """

    model: MarkovRandomField
    original: MarkovRandomField
    sites: np.ndarray
    kept: np.ndarray
    log_constant: float

    def restrict(self, fields: ArrayLike) -> np.ndarray:
        """The sites that stay, of fields of shape ``(..., *field_shape)``: shape ``(..., num_kept)``."""
        shape = self.original.field_shape
        fields = finite_array("fields", fields)
        if fields.shape[fields.ndim - len(shape) :] != shape:
            raise ArgumentError("fields", f"trailing axes {shape}", f"shape {fields.shape}", reason="shape")
        return fields.reshape(*fields.shape[: fields.ndim - len(shape)], -1)[..., self.kept]

    def complete(self, fields: ArrayLike, *, seed: int = 0) -> np.ndarray:
        """Exact independent draws of the eliminated sites given the others.

        Parameters
        ----------
        fields : array, shape ``(..., num_kept)``
        seed : int

        Returns
        -------
        array, shape ``(..., *field_shape)`` of the original model
            If ``fields`` are draws of ``model``, these are draws of ``original``.

        Raises
        ------
        ArgumentError
            If an eliminated site has terms other than hopping and φ, φ², φ⁴: its law is known only up to quadrature.
        """
        fields = finite_array("fields", fields)
        if fields.shape[-1:] != (len(self.kept),):
            got = f"shape {fields.shape}"
            raise ArgumentError("fields", f"a last axis of the {len(self.kept)} sites that stay", got, reason="shape")
        quadratic, fourth, others = self._own
        if others:
            fix = "Sample the original model instead; the density of the sites that stay is known."
            raise ArgumentError("model", "powers 1, 2 and 4 at eliminated sites", repr(others[0]), fix, reason="terms")
        flat = np.zeros((fields[..., 0].size, self.original.lattice.num_sites), fields.dtype)
        flat[:, self.kept] = fields.reshape(-1, len(self.kept))
        pull = (self._pull @ flat.T).T - self._linear
        key = stream_key(seed_within(seed), "eliminated")
        flat[:, self.sites] = np.asarray(quartic.draw(key, -pull, quadratic, fourth))
        return flat.reshape(*fields.shape[:-1], *self.original.field_shape)

    @cached_property
    def _pull(self):
        """W of h = Wφ − r, (num_eliminated, num_sites), sparse."""
        from scipy import sparse

        row, column, weight = _bonds(self.original, self.sites)
        return sparse.csr_matrix((weight, (row, column)), shape=(len(self.sites), self.original.lattice.num_sites))

    @cached_property
    def _linear(self) -> np.ndarray:
        return _own_terms(self.original, self.sites)[0]

    @cached_property
    def _own(self) -> tuple:
        _, quadratic, fourth, others = _own_terms(self.original, self.sites)
        return quadratic, fourth, [name for name, _, column in others if np.any(column)]

    def __repr__(self) -> str:
        return f"Eliminated({len(self.sites)} of {self.original.lattice.num_sites} sites; {self.model!r})"


@call_checked
def eliminate(model: MarkovRandomField, sites: ArrayLike | str) -> Eliminated:
    """Integrate sites out exactly: the Markov random field of the others, S′ = S − Σ ln z(Σ w φ).

    Half the sites of a bipartite lattice make the √2 step of real-space renormalization, without any truncation.

    Parameters
    ----------
    model : MarkovRandomField
        The eliminated sites may have hopping terms and any terms of their own.
    sites : int array, bool array of shape ``field_shape``, or ``"odd"``, ``"even"``
        Sites no two of which interact. A name stands for one half of a bipartite lattice: ``"even"`` is the half of site 0.

    Returns
    -------
    Eliminated
        ``found.model`` is a model like any other, with terms ``eliminated_…`` on the cliques of neighbors; ``found.restrict``
        and ``found.complete`` lead from fields of one to fields of the other.

    Raises
    ------
    ArgumentError
        If two of the sites interact, one has a term of several sites other than hopping (its integral is then no function
        of one number), the density of one has no integral, or the couplings are so different that each site would make
        a term of its own.
    HammersleyCliffordError
        Never by construction: every new clique is checked against the new graph.

    Notes
    -----
    For sites with φ, φ² and φ⁴ ln z is that of `phi4ppl.quartic.log_normalizer`. For others (φ⁶, user-defined) z is a
    trapezoidal sum, which takes a hundred times longer. Decimation to every second site of both axes is ``"odd"`` and then a
    choice of what stays; a second exact step is refused, since −ln z is not a hopping term.

    Source: the marginal of a Markov random field is one on the graph in which neighbors of what is gone are joined.
    S. L. Lauritzen, Graphical Models (1996).

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(4), w=0.68, a=-1.0, b=1.0)
    >>> half = p4.renormalization.eliminate(model, "odd")
    >>> half.model.lattice.num_sites, half.model.lattice.num_edges, half.model.check().is_markov
    (8, 24, True)
    """
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, reason="type")
    if not all(map(is_concrete, model.couplings.values())):
        raise ArgumentError("model", "couplings that are numbers", "couplings inside a JAX trace", reason="traced")
    gone = _as_sites(model, sites)
    _require_independent(model, gone)
    inside = np.zeros(model.lattice.num_sites, bool)
    inside[gone] = True
    kept = np.flatnonzero(~inside)
    place = np.cumsum(~inside) - 1
    new, log_constant = _new_terms(model, gone, place)
    terms = _old_terms(model, inside, place) + new
    lattice = _remaining_lattice(model.lattice, gone, kept, place, new)
    return Eliminated(MarkovRandomField(lattice, terms), model, gone, kept, log_constant)


def _as_sites(model: MarkovRandomField, sites) -> np.ndarray:
    number, shape = model.lattice.num_sites, model.field_shape
    if isinstance(sites, str):
        color = colors(model.lattice, model.forms)
        if sites not in ("odd", "even") or color.max() != 1:
            got = repr(sites) if color.max() == 1 else f"{sites!r} of {model.lattice!r}"
            raise ArgumentError("sites", "'odd' or 'even' of a bipartite lattice, or an array", got, reason="choice")
        return np.flatnonzero(color == (color[0] if sites == "even" else 1 - color[0]))
    array = np.asarray(sites)
    if array.dtype == bool and array.shape in (shape, (number,)):
        array = np.flatnonzero(array)
    if array.dtype.kind not in "iu" or array.ndim != 1 or (array.size and not 0 <= array.min() <= array.max() < number):
        got = f"dtype {array.dtype}, shape {array.shape}"
        raise ArgumentError("sites", f"numbers of sites from 0 to {number - 1}, or a mask of shape {shape}", got)
    found = np.unique(array)
    if not 0 < len(found) < number or len(found) < len(array):
        got = f"{len(array)} of {number}" + (" with one twice" if len(found) < len(array) else "")
        raise ArgumentError("sites", "some of the sites, each once, and not all", got, reason="count")
    return found


def _require_independent(model: MarkovRandomField, gone) -> None:
    inside = np.zeros(model.lattice.num_sites, bool)
    inside[gone] = True
    for form in model.forms:
        count = inside[form.cliques].sum(axis=1)
        if (count > 1).any():
            pair = form.cliques[int(np.argmax(count > 1))]
            first, second = pair[inside[pair]][:2].tolist()
            fix = "Given the rest they are not independent. One color of a proper coloring always works."
            got = f"{first} and {second}, which {form.name!r} couples"
            raise ArgumentError("sites", "no two that interact", got, fix, reason="interacting")
        if form.cliques.shape[1] > 1 and not form.is_hopping and count.any():
            fix = "Keep its sites, or write the term as hopping."
            got = f"site {int(form.cliques[count > 0][0][inside[form.cliques[count > 0][0]]][0])} in the term {form.name!r}"
            raise ArgumentError(
                "sites", "sites whose only terms of several sites are hopping", got, fix, reason="terms"
            )


def _bonds(model: MarkovRandomField, gone) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every bond of an eliminated site: its place among these, the neighbor, and w."""
    place = np.full(model.lattice.num_sites, -1)
    place[gone] = np.arange(len(gone))
    rows, columns, weights = [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]
    for form, value in model.interactions:
        if form.is_hopping:
            w = np.broadcast_to(np.asarray(value, float), (len(form.cliques),))
            for own, other in ((0, 1), (1, 0)):
                at = place[form.cliques[:, own]]
                rows.append(at[at >= 0])
                columns.append(form.cliques[at >= 0, other])
                weights.append(w[at >= 0])
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(weights)


def _own_terms(model: MarkovRandomField, gone) -> tuple:
    """r, a and b of every eliminated site, and of other one-site terms name, statistic and couplings."""
    powers, others = {power: np.zeros(model.lattice.num_sites) for power in KNOWN}, []
    for form, value in model.interactions:
        if form.cliques.shape[1] == 1:
            column = np.zeros(model.lattice.num_sites)
            np.add.at(column, form.cliques[:, 0], np.broadcast_to(np.asarray(value, float), (len(form.cliques),)))
            if form.power in KNOWN:
                powers[form.power] += column
            else:
                others.append((form.name, form.statistic, column[gone]))
    return *(powers[power][gone] for power in KNOWN), others


def _new_terms(model: MarkovRandomField, gone, place) -> tuple[list[Term], float]:
    """One term for every different set of couplings around an eliminated site, and ln z of those without neighbors."""
    row, column, weight = _bonds(model, gone)
    linear, quadratic, fourth, others = _own_terms(model, gone)
    _require_integrals(model, gone)
    order = np.lexsort((column, weight, row))
    row, column, weight = row[order], column[order], weight[order]
    starts = np.searchsorted(row, np.arange(len(gone) + 1))
    groups: dict[LogNormalizer, list] = {}
    for k in range(len(gone)):
        part = slice(starts[k], starts[k + 1])
        rest = tuple((statistic, float(values[k])) for _, statistic, values in others if values[k])
        own = (float(linear[k]), float(quadratic[k]), float(fourth[k]))
        groups.setdefault(LogNormalizer(tuple(weight[part].tolist()), *own, rest), []).append(place[column[part]])
    if len(groups) > MAX_TERMS:
        fix = "Eliminate fewer sites, or choose homogeneous couplings."
        got = f"{len(groups)} different ones"
        raise ArgumentError("sites", f"at most {MAX_TERMS} different sets of couplings", got, fix, reason="too_many")
    terms, constant = [], 0.0
    for statistic, cliques in groups.items():
        if not statistic.weights:
            with jax.enable_x64(True):
                constant -= len(cliques) * float(statistic())
        elif len(statistic.weights) > MAX_NEIGHBORS:
            got = f"{len(statistic.weights)} neighbors"
            raise ArgumentError("sites", f"sites of at most {MAX_NEIGHBORS} neighbors", got, reason="too_many")
        else:
            for rows, counts in _distinct(np.array(cliques)):
                coupling = 1.0 if (counts == 1).all() else counts.astype(float)
                terms.append(Term(f"{COUPLING}_{len(terms)}", rows, statistic, coupling))
    return terms, constant


def _distinct(cliques: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows with how often each occurs, since sites may share all their neighbors; the same sites in another order apart."""
    rows, counts = np.unique(cliques, axis=0, return_counts=True)
    _, same = np.unique(np.sort(rows, axis=1), axis=0, return_inverse=True)
    before = np.array([np.count_nonzero(same[:k] == group) for k, group in enumerate(same)])
    return [(rows[before == k], counts[before == k]) for k in range(before.max() + 1)]


def _require_integrals(model: MarkovRandomField, gone) -> None:
    energies = SiteEnergies(model)
    bounded = np.logical_and(*map(np.isfinite, energies.support()))[energies.row_of[gone]]
    if not bounded.all():
        site = int(gone[int(np.argmin(bounded))])
        fix = "Its own terms have to hold it; see model.check()."
        raise ArgumentError("sites", "sites with a finite ∫ exp(−U)", f"site {site} without", fix, reason="improper")


def _old_terms(model: MarkovRandomField, inside, place) -> list[Term]:
    """The terms that no eliminated site is part of, with the numbers of the sites that stay."""
    terms = []
    for form, value in model.interactions:
        stays = ~inside[form.cliques].any(axis=1)
        if stays.any():
            value = np.asarray(value, float)
            terms.append(
                Term(form.name, place[form.cliques[stays]], form.statistic, value[stays] if value.ndim else value)
            )
    return terms


def _remaining_lattice(lattice: Lattice, gone, kept, place, new: list[Term]) -> Lattice:
    """The graph of the sites that stay: their old edges, and one between any two neighbors of an eliminated site."""
    inside = np.zeros(lattice.num_sites, bool)
    inside[gone] = True
    found: dict[tuple[int, int], str] = {}
    for kind in lattice.kinds:
        edges = lattice.edges_of(kind)
        stays = ~inside[edges].any(axis=1)
        found |= dict.fromkeys(map(tuple, np.sort(place[edges[stays]], axis=1).tolist()), kind)
    for term in new:
        for pair in itertools.combinations(range(term.cliques.shape[1]), 2):
            for edge in map(tuple, np.sort(term.cliques[:, pair], axis=1).tolist()):
                found.setdefault(edge, COUPLING)
    kinds = tuple(dict.fromkeys([*lattice.kinds, COUPLING]))
    kinds = tuple(kind for kind in kinds if kind in set(found.values())) or ("nn",)
    edges = sorted(found, key=lambda edge: (kinds.index(found[edge]), edge))
    return Lattice(
        name=f"{len(kept)} sites of {lattice.name}", num_sites=len(kept), nodes=tuple(lattice.nodes[i] for i in kept),
        edges=np.array(edges, np.int32).reshape(-1, 2), edge_kinds=np.array([kinds.index(found[e]) for e in edges], int),
        kinds=kinds, positions=lattice.positions[kept],
    )  # fmt: skip
