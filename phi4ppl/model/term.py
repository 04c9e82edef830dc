"""The energy of ONE clique; the library vmaps.

The action is S(φ; θ) = Σ_t Σ_{c ∈ C_t} θ_{t,c} T_t(φ_c). A `Term` holds one t: its cliques C_t, its statistic T_t and its
coupling θ_t.
"""

from __future__ import annotations

import copy
import hashlib
import keyword
from collections.abc import Hashable
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import FlatField, PerClique
from ..errors import ArgumentError
from ..errors.arguments import LEAVE_OUT, call_checked, finite_array, present, refuse_missing, refuse_missing_objects
from ..lattice.cliques import as_cliques
from ..lattice.frozen import Lattice
from ..lattice.labels import aligned_coupling, aligned_fields, is_labeled
from .statistic import BUILT_IN, Statistic, hopping, mass, quartic, sextic, source

__all__ = ["BUILT_IN", "Term", "TermForm", "hopping", "mass", "quartic", "sextic", "source"]


class TermForm:
    """A term without its coupling: name, cliques and statistic, immutable and hashable by content."""

    def __init__(self, name: str, cliques: np.ndarray, statistic):
        self.name, self.cliques, self.statistic = name, cliques, statistic

    @cached_property
    def _key(self):
        digest = hashlib.blake2b(self.cliques.tobytes(), digest_size=16).digest()
        function = self.statistic if isinstance(self.statistic, Hashable) else id(self.statistic)
        return self.name, function, self.cliques.shape, digest

    def __eq__(self, other):
        return self is other or (isinstance(other, TermForm) and self._key == other._key)

    def __hash__(self):
        return hash(self._key)

    @property
    def statistic_is_concrete(self) -> bool:
        """Whether the statistic depends on nothing but its fields: it does not close over values of a JAX trace."""
        if self.built_in:
            return True
        scalars = [jax.ShapeDtypeStruct((), jnp.result_type(float))] * self.cliques.shape[1]
        return all(map(is_concrete, jax.make_jaxpr(self.statistic)(*scalars).consts))

    @property
    def built_in(self) -> Statistic | None:
        """The built-in statistic, or None for a user-defined one."""
        return self.statistic if isinstance(self.statistic, Statistic) else None

    @property
    def power(self) -> int | None:
        """k of a built-in statistic φ^k of one site; None for any other."""
        return self.built_in.power if self.built_in else None

    @property
    def is_hopping(self) -> bool:
        return self.statistic is hopping

    @property
    def is_gaussian(self) -> bool:
        """Whether the term is known to be at most quadratic."""
        return self.built_in is not None and self.built_in.is_gaussian

    @property
    def is_on_all_sites(self) -> bool:
        """Whether the cliques are the first sites of the lattice, 0, 1, …, in order."""
        return self.cliques.shape[1] == 1 and np.array_equal(self.cliques[:, 0], np.arange(len(self.cliques)))

    def values(self, phi_flat: FlatField) -> PerClique:
        """T_t(φ_c) for every clique; ``phi_flat`` has shape ``(num_sites,)``, the result ``(num_cliques,)``."""
        return jax.vmap(self.statistic)(*(phi_flat[self.cliques[:, m]] for m in range(self.cliques.shape[1])))


@call_checked
class Term:
    """One kind of interaction of a Markov random field.

    Parameters
    ----------
    name : str
        A Python identifier; the key of the coupling in ``model.couplings``.
    cliques : int array, shape (num_cliques, k)
        Site numbers of every clique on which the term acts.
    statistic : callable
        ``statistic(phi_1, …, phi_k) -> scalar``: T_t for the fields of ONE clique, traceable by JAX. Fields come in the
        order of the columns of ``cliques``.
    coupling : float, array of shape (num_cliques,), or labeled
        θ_t: one number (homogeneous) or one per clique (inhomogeneous). A Series, a DataArray or a dict is put in order by its
        labels when the term becomes part of a model: nodes for a term of single sites, tuples of nodes (in any order) for
        others.

    Raises
    ------
    ArgumentError
        If the name is not an identifier, the cliques are malformed, the statistic does not map k scalars to a scalar, or
        the coupling has the wrong shape or is not finite.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> lattice = p4.lattice.square(4, diagonals=True)
    >>> p4.Term("g", p4.lattice.plaquettes(lattice), lambda p, q, r, s: p * q * r * s, coupling=0.1)
    Term('g', 16 cliques of 4 sites, coupling 0.1)
    """

    def __init__(self, name: str, cliques, statistic, coupling=1.0):
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ArgumentError("name", "a Python identifier, such as 'g'", repr(name))
        cliques = as_cliques(name, cliques)
        _require_scalar_statistic(name, statistic, cliques.shape[1])
        self.form = TermForm(name, cliques, statistic)
        # labels name sites of a lattice, which comes with the model: until then the coupling stays as it is
        self.coupling = copy.copy(coupling) if is_labeled(coupling) else as_coupling(self.form, coupling)

    name = property(lambda self: self.form.name)
    cliques = property(lambda self: self.form.cliques)
    statistic = property(lambda self: self.form.statistic)

    def __repr__(self):
        number, size = self.cliques.shape
        if is_labeled(self.coupling):
            value = f"by the labels of a {type(self.coupling).__name__}"
        else:
            shape = np.shape(self.coupling)
            value = f"{self.coupling:.6g}" if shape == () and is_concrete(self.coupling) else f"of shape {shape}"
        sites = "site" if size == 1 else "sites"
        return f"Term({self.name!r}, {number} cliques of {size} {sites}, coupling {value})"


def is_concrete(value) -> bool:
    """Whether ``value`` holds numbers rather than standing for them in a JAX trace."""
    return not isinstance(value, jax.core.Tracer)


def as_field(phi, name: str = "phi", lattice: Lattice | None = None):
    """``phi`` as a JAX array of real floating-point numbers, with sites in the order of the lattice where it carries labels.

    Integers are converted; complex numbers and missing values (masked, NA, NaN) are rejected, except in what JAX is tracing.
    """
    if not isinstance(phi, jax.Array):
        if is_labeled(phi) and lattice is not None:
            phi = aligned_fields(name, phi, lattice)
        phi = present(name, phi)
        if isinstance(phi, np.ndarray) and phi.dtype.kind == "f":  # numbers, also where JAX makes them part of a trace
            refuse_missing(name, np.isnan(phi))
    try:
        array = jnp.asarray(phi)
    except (TypeError, ValueError) as error:
        if isinstance(phi, np.ndarray | list | tuple):
            refuse_missing_objects(name, np.array(phi, object))
        raise ArgumentError(name, "an array of real numbers", type(phi).__name__) from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ArgumentError(name, "an array of real numbers", f"dtype {array.dtype}", reason="dtype")
    array = array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
    if is_concrete(array):
        _refuse_nan(name, array)
    return array


def _refuse_nan(name: str, array) -> None:
    with jax.ensure_compile_time_eval():
        if not jnp.isnan(array).any():
            return
    where = tuple(int(i) for i in np.argwhere(np.isnan(np.atleast_1d(np.asarray(array, float))))[0])
    raise ArgumentError(name, "numbers", f"nan at index {where}", LEAVE_OUT, reason="finite")


def as_coupling(form: TermForm, coupling, lattice: Lattice | None = None):
    """Return a coupling of shape ``()`` or ``(num_cliques,)``, put in order by its labels if it has any.

    A field-shaped one is accepted for a term of single sites. Python and NumPy numbers stay NumPy, so that fixed couplings
    remain constants inside a trace.
    """
    name, num_cliques = f"coupling {form.name!r}", len(form.cliques)
    if lattice is not None:
        coupling = aligned_coupling(name, coupling, lattice, form.cliques)
    if isinstance(coupling, (list, tuple)) and not all(map(is_concrete, coupling)):
        coupling = jnp.stack([jnp.asarray(value) for value in coupling])
    if not isinstance(coupling, jax.Array):
        coupling = finite_array(name, coupling)
    elif is_concrete(coupling):
        finite_array(name, coupling)
    elif jnp.issubdtype(coupling.dtype, jnp.complexfloating):
        raise ArgumentError(name, "a real number or an array of them", f"dtype {coupling.dtype}", reason="dtype")
    if not jnp.issubdtype(coupling.dtype, jnp.floating):
        coupling = coupling.astype(float)
    shape = coupling.shape
    field_shape = None if lattice is None else lattice.field_shape
    if form.cliques.shape[1] == 1 and shape == field_shape != (num_cliques,):
        coupling = coupling.reshape(-1)[form.cliques[:, 0]]
        shape = coupling.shape
    if shape in ((), (num_cliques,)):
        if isinstance(coupling, np.ndarray):
            coupling.setflags(write=False)
        return coupling
    expected = f"one number, or an array of shape ({num_cliques},) with one number per clique"
    raise ArgumentError(
        name, expected, f"shape {shape}", "Rows of the term's `cliques` give the order.", reason="shape"
    )


def _require_scalar_statistic(name: str, statistic, size: int) -> None:
    what = f"statistic of term {name!r}"
    expected = f"a JAX function of {size} scalar field{'s' if size > 1 else ''} (the cliques have {size} sites)"
    if not callable(statistic):
        raise ArgumentError(what, expected, repr(statistic))
    try:
        result = jax.eval_shape(statistic, *[jax.ShapeDtypeStruct((), jnp.result_type(float))] * size)
    except Exception as error:  # the user should read whatever the function raises under tracing
        raise ArgumentError(what, expected, f"{type(error).__name__}: {error}", reason="raises") from error
    if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
        got = f"a function that returns {result}"
        raise ArgumentError(
            what, "a real scalar returned for one clique", got, "The library vmaps over cliques.", reason="returns"
        )
