"""The couplings of a model as one vector θ, and the statistics T(φ) conjugate to it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike, JaxTheta, Labeled, NumpyTheta, Statistics, Theta
from ..errors import ArgumentError
from ..lattice.labels import aligned_fields
from .field import MarkovRandomField

__all__ = ["CouplingVector", "sign_notes", "statistics_matrix"]

CHUNK = 1 << 22  # numbers worked on at once by `statistics_matrix`


@dataclass(frozen=True)
class CouplingVector:
    """The couplings of a model as a vector: terms in their order, the cliques of an inhomogeneous term in theirs.

    Dictionaries of couplings, of statistics and of their errors all have this form; leading axes are batches.

    Attributes
    ----------
    template : MarkovRandomField
        Gives lattice, terms and which couplings are homogeneous; its numbers do not matter.
    slices : dict
        Where each term is in the vector, by name; terms that are not there keep the couplings of the template.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> from phi4ppl.model.coupling_vector import CouplingVector
    >>> model = p4.phi4(p4.lattice.chain(3), w=[0.1, 0.2, 0.3], a=1.0, b=0.5)
    >>> vector = CouplingVector.of(model)
    >>> vector.names
    ('w[0]', 'w[1]', 'w[2]', 'a', 'b')
    >>> vector.model(2 * vector.flatten(model.couplings))
    MarkovRandomField(chain of 3, periodic; w=3 numbers, mean 0.4, range [0.2, 0.6], a=2, b=1)
    """

    template: MarkovRandomField
    slices: dict[str, slice]

    @classmethod
    def of(cls, model: MarkovRandomField, names=None) -> CouplingVector:
        """The vector of all couplings of a model, or of the terms ``names`` in their order."""
        if not isinstance(model, MarkovRandomField):
            raise ArgumentError("model", "a MarkovRandomField", type(model).__name__)
        slices, start = {}, 0
        for name in model.couplings if names is None else names:
            stop = start + int(np.size(model.couplings[name]))
            slices[name], start = slice(start, stop), stop
        return cls(model, slices)

    @property
    def size(self) -> int:
        """Number of couplings."""
        return max((part.stop for part in self.slices.values()), default=0)

    @property
    def bounded(self) -> np.ndarray:
        """Which couplings cannot be negative: those of the highest power, where no user-defined term could hold the field."""
        bounded, structure = np.zeros(self.size, bool), self.template.structure
        for form in structure.forms if structure.is_built_in and structure.highest_power else ():
            if form.name in self.slices:
                bounded[self.slices[form.name]] = form.power == structure.highest_power
        return bounded

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every entry: ``w`` of a homogeneous coupling, ``w[3]`` of the fourth clique of an inhomogeneous one."""
        names = []
        for name, part in self.slices.items():
            wide = self.is_inhomogeneous(name)
            names += [f"{name}[{k}]" for k in range(part.stop - part.start)] if wide else [name]
        return tuple(names)

    def is_inhomogeneous(self, name: str) -> bool:
        """Whether a term has one coupling per clique."""
        return np.ndim(self.template.couplings[name]) == 1

    def flatten(self, values: dict) -> NumpyTheta:
        """Dictionary → vector on the host in double precision, shape ``(..., size)``."""
        return np.concatenate([np.asarray(part, float) for part in self._parts(values)], axis=-1)

    def stack(self, values: dict) -> JaxTheta:
        """The same as `flatten`, of JAX arrays and inside a trace."""
        return jnp.concatenate(self._parts(values), axis=-1)

    def _parts(self, values: dict) -> list:
        wide = self.is_inhomogeneous
        return [values[name] if wide(name) else values[name][..., None] for name in self.slices]

    def unflatten(self, theta: Theta) -> dict:
        """Vector → dictionary, of NumPy or JAX arrays; ``theta`` has shape ``(..., size)``."""
        wide = self.is_inhomogeneous
        return {name: theta[..., part] if wide(name) else theta[..., part.start] for name, part in self.slices.items()}

    def model(self, theta: ArrayLike) -> MarkovRandomField:
        """The model at couplings ``theta``, shape ``(size,)``."""
        return self.template.replace(
            **self.unflatten(theta if isinstance(theta, jax.Array) else np.asarray(theta, float))
        )


def sign_notes(model: MarkovRandomField) -> list[str]:
    """A note for fits on an antiperiodic lattice, where w and −w count as two couplings."""
    notes = []
    for turned, kind in model.lattice.sign_kinds.items():
        pair = [f"w_{kind}", f"w_{turned}"]
        if set(pair) <= set(model.couplings):
            found = " and ".join(f"{np.mean(np.asarray(model.couplings[name])):.4g}" for name in pair)
            notes.append(
                f"{pair[0]} and {pair[1]} were fitted as two couplings, {found}; in an antiperiodic field the second equals "
                "minus the first."
            )
    return notes


def statistics_matrix(model: MarkovRandomField, fields: Labeled) -> Statistics:
    """T(φ) of every field in double precision: row n is ∂S/∂θ at ``fields[n]``, in the order of `CouplingVector`.

    Built-in statistics are computed and summed in double precision whatever JAX is set to; custom ones are computed in the
    precision of JAX and summed in double precision.

    Parameters
    ----------
    model : MarkovRandomField
    fields : array of shape ``(num_fields, *field_shape)``, or labeled as for `fit_likelihood`

    Returns
    -------
    array, shape ``(num_fields, num_couplings)``

    Examples
    --------
    >>> import phi4ppl as p4
    >>> from phi4ppl.model.coupling_vector import statistics_matrix
    >>> statistics_matrix(p4.phi4(p4.lattice.chain(3), a=1.0, b=0.5), [[1.0, 2.0, 3.0]]).tolist()
    [[-11.0, 14.0, 98.0]]
    """
    vector = CouplingVector.of(model)
    shape = model.field_shape
    fields = aligned_fields("fields", fields, model.lattice, samples=1)
    if fields.shape[1:] != shape or fields.ndim < 1:
        raise ArgumentError("fields", f"shape (num_fields, {', '.join(map(str, shape))})", f"shape {fields.shape}")
    flat = fields.reshape(len(fields), -1).astype(float)
    matrix = np.empty((len(flat), vector.size))
    for term in model.terms:
        part, values = vector.slices[term.name], _clique_values(term.form)
        rows = max(1, CHUNK // term.cliques.size)
        for start in range(0, len(flat), rows):
            here = slice(start, start + rows)
            found = values(flat[here])
            matrix[here, part] = found if vector.is_inhomogeneous(term.name) else found.sum(axis=1, keepdims=True)
    return matrix


def _clique_values(form):
    """``values(flat)``: T of every clique of every field, shape ``(rows, num_cliques)``."""
    if form.built_in:  # plain arithmetic, which NumPy arrays do as well
        return lambda flat: form.statistic(*(flat[:, column] for column in form.cliques.T))
    batch = jax.jit(jax.vmap(form.values))
    return lambda flat: np.asarray(batch(jnp.asarray(flat)), float)
