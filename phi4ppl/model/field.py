"""A Markov random field: lattice + terms + couplings, immutable, a JAX pytree whose leaves are the couplings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Batch, Labeled, PathLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..lattice.cliques import require_cliques_of
from ..lattice.frozen import Lattice
from ..lattice.labels import is_labeled
from . import io as storage
from .hammersley_clifford.check import check_terms
from .hammersley_clifford.report import HammersleyCliffordReport
from .pytree import rebuilt, register_checked
from .term import Term, TermForm, as_coupling, as_field, is_concrete
from .typeset import model_html

__all__ = ["MarkovRandomField", "Structure", "load_model"]


class Structure(NamedTuple):
    """A model without its couplings: hashable, so that one compiled program serves all couplings."""

    lattice: Lattice
    forms: tuple[TermForm, ...]

    def at(self, couplings) -> MarkovRandomField:
        """The model of this structure at couplings in the order of the terms, which may be traced or have leading axes."""
        return rebuilt(MarkovRandomField, structure=self, _values=tuple(couplings))

    @property
    def is_built_in(self) -> bool:
        """Whether there are no user-defined statistics, whose code may read values that change."""
        return all(form.built_in for form in self.forms)

    @property
    def highest_power(self) -> int:
        """The largest k > 2 of terms φ^k, whose couplings hold the field and cannot be negative; 0 where there is none."""
        return max((form.power for form in self.forms if form.power and form.power > 2), default=0)


@call_checked
@register_checked
@dataclass(frozen=True, init=False, repr=False, eq=False)
class MarkovRandomField:
    """A Markov random field S(φ; θ) = Σ_t Σ_{c ∈ C_t} θ_{t,c} T_t(φ_c), with p(φ; θ) = exp(−S)/Z.

    Parameters
    ----------
    lattice : Lattice
    terms : iterable of Term

    Attributes
    ----------
    lattice : Lattice
    couplings : dict
        θ_t by name: shape ``()`` (homogeneous) or ``(num_cliques,)`` (inhomogeneous).

    Raises
    ------
    HammersleyCliffordError
        If a term couples sites that are not a clique of the lattice.
    ArgumentError
        For names used twice, sites that do not exist, wrong shapes and non-finite couplings.

    Notes
    -----
    A model never changes; `replace` and `inhomogeneous` return new ones. It is a pytree: pass it through ``jax.jit``,
    ``jax.vmap`` and ``jax.grad`` (derivatives are taken with respect to the couplings).

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)
    >>> float(model.energy(jnp.ones(4)).round(4))
    3.2
    """

    structure: Structure = field(metadata={"static": True})
    _values: tuple

    def __init__(self, lattice: Lattice, terms: Iterable[Term]):
        if not isinstance(lattice, Lattice):
            fix = "Build one with phi4ppl.lattice, for example lattice.from_networkx(graph)."
            raise ArgumentError("lattice", "a phi4ppl Lattice", type(lattice).__name__, fix)
        terms = tuple(terms)
        if not terms or not all(isinstance(t, Term) for t in terms):
            raise ArgumentError("terms", "at least one phi4ppl.Term", repr(terms))
        names = [t.name for t in terms]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise ArgumentError("terms", "a different name for every term", f"{twice!r} twice", reason="duplicate")
        for term in terms:
            require_cliques_of(lattice, term.name, term.cliques)
        couplings = (as_coupling(t.form, t.coupling, lattice) if is_labeled(t.coupling) else t.coupling for t in terms)
        vars(self).update(structure=Structure(lattice, tuple(t.form for t in terms)), _values=tuple(couplings))

    lattice = property(lambda self: self.structure.lattice)
    forms = property(lambda self: self.structure.forms, doc="The terms without their couplings.")

    @property
    def couplings(self) -> dict[str, Any]:
        return {form.name: value for form, value in self.interactions}

    @property
    def interactions(self) -> tuple[tuple[TermForm, Any], ...]:
        """Pairs of a term without its coupling and that coupling."""
        return tuple(zip(self.forms, self._values, strict=True))

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms with their present couplings."""
        return tuple(rebuilt(Term, form=form, coupling=value) for form, value in self.interactions)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Shape of one field, ``lattice.shape`` or, on a general graph, ``(num_sites,)``."""
        return self.lattice.field_shape

    def replace(self, /, **couplings: Labeled) -> MarkovRandomField:
        """The same model at other couplings; each is one number or one number per clique.

        A Series, a DataArray or a dict with labels is put in order by them, as in `phi4`.

        Raises
        ------
        ArgumentError
            For unknown names, wrong shapes, labels that are not those of the lattice, and missing or non-finite values.
        """
        self._require_names(couplings)
        self._require_signs(couplings)
        values = tuple(
            as_coupling(f, couplings[f.name], self.lattice) if f.name in couplings else v for f, v in self.interactions
        )
        return self.structure.at(values)

    def select(self, keep: Callable[[TermForm], bool]) -> MarkovRandomField:
        """The model of those terms for which ``keep(form)`` is true; it may have none."""
        kept = [(form, value) for form, value in self.interactions if keep(form)]
        forms, values = zip(*kept, strict=True) if kept else ((), ())
        return Structure(self.lattice, forms).at(values)

    def inhomogeneous(self, *names: str) -> MarkovRandomField:
        """The same model with the named couplings (default: all) written out as one number per clique."""
        self._require_names(names)
        chosen = set(names or self.couplings)
        values = []
        for form, value in self.interactions:
            wide = form.name in chosen and np.ndim(value) == 0
            library = jnp if isinstance(value, jax.Array) else np
            values.append(library.broadcast_to(value, (len(form.cliques),)) if wide else value)
        return self.structure.at(values)

    def _require_names(self, names) -> None:
        unknown = [n for n in names if n not in self.couplings]
        if unknown:
            known = ", ".join(repr(n) for n in self.couplings)
            raise ArgumentError(
                "couplings", f"names among {known}", repr(unknown[0]), "model.describe() lists them.", reason="name"
            )

    def _require_signs(self, couplings) -> None:
        """Reject one of a pair of couplings w and −w: the boundary would be neither periodic nor antiperiodic."""
        for turned, kind in self.lattice.sign_kinds.items():
            pair = {f"w_{kind}", f"w_{turned}"}
            if pair <= set(self.couplings) and len(given := pair & set(couplings)) == 1:
                missing = (pair - given).pop()
                fix = f"Give {missing} too, with the opposite sign: across the boundary the field is antiperiodic."
                raise ArgumentError(
                    "couplings", f"both of {', '.join(sorted(pair))}", repr(given.pop()), fix, reason="pair"
                )

    def energy(self, phi: Labeled) -> Batch:
        """The action S(φ; θ).

        Parameters
        ----------
        phi : array, shape ``(..., *field_shape)``
            Or a Series, DataFrame, DataArray or dict with labels, which is put in order by them. Missing values are rejected;
            inside a JAX trace a NaN makes the energy NaN.

        Returns
        -------
        array, shape ``(...)``
        """
        return self._over_batch(self._energy_of_one, phi)

    def statistics(self, phi: Labeled) -> dict[str, jax.Array]:
        """Statistics conjugate to the couplings: ∂S/∂θ, so that S = Σ θ·T.

        Summed over cliques (shape ``(...)``) for a homogeneous coupling, per clique (``(..., num_cliques)``) otherwise.
        """
        return self._over_batch(self._statistics_of_one, phi)

    def _over_batch(self, function, phi):
        phi = as_field(phi, lattice=self.lattice)
        shape, rank = self.field_shape, len(self.field_shape)
        if phi.shape[phi.ndim - rank :] != shape or phi.ndim < rank:
            raise ArgumentError(
                "phi", f"trailing axes {shape}", f"shape {phi.shape}", "Leading axes are batches.", reason="shape"
            )
        for _ in range(phi.ndim - rank):
            function = jax.vmap(function)
        return function(phi)

    def _statistics_of_one(self, phi):
        flat = phi.reshape(-1)
        values = {form.name: form.values(flat) for form in self.forms}
        return {name: jnp.sum(v) if np.ndim(self.couplings[name]) == 0 else v for name, v in values.items()}

    def _energy_of_one(self, phi):
        statistics = self._statistics_of_one(phi)
        total = jnp.zeros((), phi.dtype)
        for name, coupling in self.couplings.items():
            total += jnp.sum(jnp.asarray(coupling, phi.dtype) * statistics[name])
        return total

    def check(self) -> HammersleyCliffordReport:
        """Check the model against the Hammersley–Clifford theorem (structure, positivity, normalizability)."""
        if not all(is_concrete(v) for v in self._values):
            raise ArgumentError("model", "couplings that are numbers", "couplings inside a JAX trace", reason="traced")
        return check_terms(self.structure, self._values, self._energy_of_one)

    def describe(self) -> str:
        """A few lines of text: the lattice, and each term with its cliques and coupling."""
        lines = [f"Markov random field on {self.lattice!r}"]
        for form, value in self.interactions:
            number, size = form.cliques.shape
            kind = form.built_in or f"custom statistic {getattr(form.statistic, '__name__', form.statistic)!r}"
            where = f"{number} {'site' if size == 1 else 'clique'}{'s' if number > 1 else ''}"
            where += f" of {size}" if size > 1 else ""
            lines.append(f"  {form.name}: {kind} on {where}, coupling {_summary(value)}")
        return "\n".join(lines + self._unused_attributes())

    def _unused_attributes(self) -> list[str]:
        """Edge attributes of the graph that the model does not use: users expect ``weight`` to count."""
        used = [np.asarray(v) for f, v in self.interactions if np.ndim(v) and is_concrete(v)]
        lines = []
        for name in self.lattice.edge_attributes:
            given = self.lattice._edge_attributes[name]
            kinds = [given[self.lattice._edge_kinds == k] for k in range(len(self.lattice.kinds))]
            if not any(np.array_equal(value, part) for value in used for part in (given, *kinds)):
                lines.append(
                    f"  The edge attribute {name!r} of the graph is not used. To use it as couplings, pass w={name!r}."
                )
        return lines

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={_summary(value)}" for name, value in self.couplings.items())
        return f"MarkovRandomField({self.lattice.name}; {parts})"

    def _repr_html_(self) -> str:
        return model_html(self, _summary)

    def save(self, path: PathLike) -> Path:
        """Write the model to one file (built-in terms only); `load_model` reads it. Returns the path."""
        return storage.write_terms(path, self.lattice, self.terms)


@call_checked
def load_model(path: PathLike) -> MarkovRandomField:
    """Read a model written by `MarkovRandomField.save`.

    Raises
    ------
    ArgumentError
        If the file does not exist or was not written by ``save``.
    """
    return MarkovRandomField(*storage.read_terms(path))


def _summary(value) -> str:
    if not is_concrete(value) or not (hasattr(value, "shape") or isinstance(value, float)):
        return "traced"
    if np.ndim(value) == 0:
        return f"{float(value):.6g}"
    array = np.asarray(value)
    return f"{array.shape[0]} numbers, mean {array.mean():.6g}, range [{array.min():.6g}, {array.max():.6g}]"
