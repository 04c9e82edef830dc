"""Two entry points: a declared model, or any JAX function as a black box."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import ArgumentError
from ...errors.arguments import call_checked, seed_within
from ...errors.streams import stream_rng
from ...lattice.cliques import require_cliques_of
from ...lattice.frozen import Lattice
from . import normalizability
from .report import HammersleyCliffordReport
from .structure import find_violations

__all__ = ["check_action", "check_terms", "normalizability_of"]


def check_terms(structure, values, energy_of_one: Callable) -> HammersleyCliffordReport:
    """Check a declared model: its scopes against the graph, positivity and normalizability of its terms."""
    lattice, forms = structure
    for form in forms:
        require_cliques_of(lattice, form.name, form.cliques)
    action = _flat(energy_of_one, lattice)
    total = sum(len(f.cliques) for f in forms)
    markov_reason = f"all {total} scopes of {len(forms)} terms are cliques of the graph"
    if structure.is_built_in:
        verdict = normalizability.from_built_in_terms(lattice, forms, values)
        positive, positive_reason = True, "polynomial terms with finite couplings"
    else:
        positive, positive_reason = _positivity(action, lattice, seed=0)
        verdict = normalizability.Search(lambda _, phi: action(phi), lattice, seed=0)(())
    return HammersleyCliffordReport(
        lattice=lattice, is_markov=True, is_positive=positive, is_normalizable=verdict.is_normalizable,
        markov_reason=markov_reason, positive_reason=positive_reason, normalizable_reason=verdict.reason,
        null_directions=verdict.null_directions, action=action,
    )  # fmt: skip


def normalizability_of(structure) -> Callable[[tuple], normalizability.Verdict]:
    """Whether Z is finite, as a function of the values of all couplings: `check_terms` for many, compiled once."""
    lattice, forms = structure
    if structure.is_built_in:
        return lambda values: normalizability.from_built_in_terms(lattice, forms, values)
    action = lambda values, phi: structure.at(values)._energy_of_one(phi.reshape(lattice.field_shape))  # noqa: E731
    return normalizability.Search(action, lattice, seed=0)


@call_checked
def check_action(action: Callable, lattice: Lattice, *, seed: int = 0) -> HammersleyCliffordReport:
    """Decide whether a black-box action is a Markov random field on a graph.

    ∂²S/∂φ_i∂φ_j must vanish for every pair (i, j) without an edge. The mixed derivatives are probed at 4 to 64 random
    fields (fewer on larger lattices) through a few Hessian-vector products (their number depends on the degree of the
    graph, not on its size), to a relative size of 1e-5 of a typical entry in float32 and 1e-10 in float64. An interaction
    that vanishes at all these fields is not detected.

    Parameters
    ----------
    action : callable
        S(φ) of one field of shape ``lattice.shape`` (or ``(num_sites,)`` on a general graph), traceable by JAX.
    lattice : Lattice
    seed : int
        Seed of the random fields.

    Raises
    ------
    ArgumentError
        If the action cannot be traced by JAX or does not return one real number.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> lattice = p4.lattice.square(4)
    >>> local = p4.phi4(lattice, a=1.5, b=0.2).energy
    >>> report = p4.check_action(lambda phi: local(phi) + 0.01 * phi[0, 0] * phi[2, 2], lattice)
    >>> report.is_markov, report.violations[0].sites
    (False, (0, 10))
    """
    if not isinstance(lattice, Lattice):
        raise ArgumentError("lattice", "a phi4ppl Lattice", type(lattice).__name__)
    seed = seed_within(seed)
    _require_real_scalar(action, lattice)
    flat = _flat(action, lattice)
    positive, positive_reason = _positivity(flat, lattice, seed)
    if positive:
        probe = find_violations(flat, lattice, seed)
        positive = probe.finite
        positive_reason = positive_reason if positive else "S or its derivatives are not finite at a random field"
    if not positive:
        unknown = "not decided: S is not finite"
        return HammersleyCliffordReport(lattice, False, False, False, unknown, positive_reason, unknown, action=flat)
    verdict = normalizability.Search(lambda _, phi: flat(phi), lattice, seed)(())
    if probe.violations:
        reason = f"{len(probe.violations)} pair(s) without an edge interact"
    else:
        reason = (
            f"∂²S/∂φ_i∂φ_j = 0 for all pairs without an edge "
            f"({probe.num_products} Hessian products, down to {probe.tolerance:.1g})"
        )
    return HammersleyCliffordReport(
        lattice=lattice, is_markov=not probe.violations, is_positive=positive,
        is_normalizable=verdict.is_normalizable, markov_reason=reason, positive_reason=positive_reason,
        normalizable_reason=verdict.reason, violations=probe.violations,
        null_directions=verdict.null_directions, action=flat,
    )  # fmt: skip


def _flat(action: Callable, lattice: Lattice) -> Callable:
    shape = lattice.field_shape
    return lambda phi: action(phi.reshape(shape))


def _require_real_scalar(action, lattice: Lattice) -> None:
    expected = f"a JAX function of one field of shape {lattice.field_shape} that returns S, one real number"
    if not callable(action):
        raise ArgumentError("action", expected, repr(action))
    try:
        result = jax.eval_shape(action, jax.ShapeDtypeStruct(lattice.field_shape, jnp.result_type(float)))
    except Exception as error:  # an error that the user's function raises under tracing belongs in the message
        fix = "Write it with jax.numpy; float(), if on values, and NumPy functions cannot be traced."
        reason = str(error).strip().split("\n")[0]
        raise ArgumentError("action", expected, f"{type(error).__name__}: {reason}", fix, reason="raises") from error
    if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
        fix = "Sum over sites; for a complex action check its real and imaginary parts one at a time."
        raise ArgumentError("action", expected, f"a function that returns {result}", fix, reason="returns")
    try:
        field = jax.ShapeDtypeStruct(lattice.field_shape, jnp.result_type(float))
        jax.eval_shape(lambda phi: jax.jvp(jax.grad(action), (phi,), (phi,)), field)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ArgumentError(
            "action", "an action that JAX can differentiate twice", reason, reason="not_differentiable"
        ) from error


def _positivity(action: Callable, lattice: Lattice, seed: int) -> tuple[bool, str]:
    rng = stream_rng(seed, "positivity")
    scales = np.array([0.0, 0.3, 1.0, 1.0, 2.0, 5.0])
    fields = scales[:, None] * rng.standard_normal((len(scales), lattice.num_sites))
    values = np.asarray(jax.jit(lambda f: jax.lax.map(action, f))(jnp.asarray(fields, jnp.result_type(float))))
    if np.isfinite(values).all():
        return True, f"S is finite at {len(scales)} random fields (a search, not a proof)"
    scale = scales[np.flatnonzero(~np.isfinite(values))[0]]
    return False, f"S is {values[~np.isfinite(values)][0]} at a field of size {scale:g}: the density vanishes there"
