"""Complex Langevin dynamics: fields at complex couplings, which leave the real axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from .moves import white_noise
from .process import Process, positive, process

__all__ = ["ComplexLangevin", "ComplexState"]


class ComplexState(NamedTuple):
    """A complex field with its drift."""

    field: jax.Array
    force: jax.Array  # ∂S/∂φ, the drift with the opposite sign


@call_checked
@process
class ComplexLangevin(Process):
    """Langevin dynamics at complex couplings: the field leaves the real axis, its noise stays real.

        dφ = −∂S/∂φ dt + √2 dW,        φ complex, W real

    (G. Parisi, Phys. Lett. B 131 (1983) 393; J. R. Klauder, Phys. Rev. A 29 (1984) 2036.) Averages of holomorphic observables
    O(φ) are those of the complex density exp(−S)/Z, as long as the drift is large with a probability that falls exponentially
    or faster (K. Nagata, J. Nishimura and S. Shimasaki, Phys. Rev. D 94 (2016) 114515). Where it falls as a power, the
    averages converge to something else: `time_averages` measures the tail and refuses.

    Parameters
    ----------
    action : MarkovRandomField or callable
        S: a model, or a JAX function of one field that is holomorphic in it, such as
        ``lambda phi: model.energy(phi) + …`` written with complex numbers.
    couplings : dict, optional
        Complex couplings in place of those of the model, one number or one per clique.
    lattice : Lattice, optional
        Of a callable action.
    max_move : float, optional
        The largest change of a site by its drift in one step, 1 by default. A step with a larger one is divided (adaptive
        step size: G. Aarts, F. A. James, E. Seiler and I.-O. Stamatescu, Phys. Lett. B 687 (2010) 154): rare excursions do
        not run away.

    Raises
    ------
    ArgumentError
        If the density of the real part of the couplings has no finite integral, a coupling is unknown, or the action is not a
        holomorphic function.

    Notes
    -----
    Of a Gaussian, S = ½ σφ², an Euler step gives ⟨φ²⟩ = 1/(σ(1 − σε/2)) exactly: `extrapolate` takes averages to ε = 0.
    Averages over several integration cycles are not noticed by the tail: one site with S = λφ⁴/4 and ``|arg λ|`` near π
    has such (E. Seiler, EPJ Web Conf. 175 (2018) 01019), hence the real parts of couplings must confine the field.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> from phi4ppl.dynamics import ComplexLangevin
    >>> one = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5)
    >>> ComplexLangevin(one, {"a": 0.5 + 0.5j}).couplings
    {'a': (0.5+0.5j)}
    """

    action: Any = field(metadata={})
    couplings: Any = None
    lattice: Any = field(default=None, metadata={"static": True})
    max_move: Any = 1.0
    _function: Any = field(default=None, repr=False, metadata={"static": True})

    def __post_init__(self):
        max_move = positive("max_move", self.max_move)
        if isinstance(self.action, MarkovRandomField):
            values = _complex_couplings(self.action, self.couplings or {})
            vars(self).update(couplings=values, lattice=self.action.lattice, max_move=max_move)
        elif callable(self.action) and isinstance(self.lattice, Lattice) and self.couplings is None:
            vars(self).update(action=None, _function=self.action, max_move=max_move)
        else:
            expected = "a MarkovRandomField, or a JAX function of one field with lattice= and without couplings="
            raise ArgumentError("action", expected, repr(self.action)[:80])
        _require_holomorphic(self.energy, self.lattice.field_shape)

    is_complex: ClassVar[bool] = True

    def energy(self, phi) -> jax.Array:
        """S of one complex field."""
        if self._function is not None:
            return self._function(phi)
        total = jnp.zeros((), phi.dtype)
        for form, _ in self.action.interactions:
            coupling = jnp.asarray(self.couplings[form.name], phi.dtype)
            total += jnp.sum(coupling * form.values(phi.reshape(-1)))
        return total

    def force(self, phi) -> jax.Array:
        """∂S/∂φ of one complex field."""
        return jax.grad(self.energy, holomorphic=True)(phi)

    @property
    def default_step_size(self) -> float:
        return 0.01

    def start(self, field, key) -> ComplexState:
        phi = jnp.asarray(field, jnp.result_type(field, jnp.complex64))
        return ComplexState(phi, self.force(phi))

    def prepare(self, step_size) -> Callable:
        def advance(state, key, time):
            def unfinished(carry):
                return carry[1] > 0

            def part(carry):
                state, left, number = carry
                largest = jnp.max(jnp.abs(state.force))
                size = jnp.minimum(left, self.max_move / jnp.maximum(largest, 1e-30)).astype(left.dtype)
                size = jnp.where(size > 0, size, left)  # a force that is not finite: go on, and be told
                noise = white_noise(jax.random.fold_in(key, number), state.field.real)
                phi = state.field - size * state.force + jnp.sqrt(2 * size) * noise
                return ComplexState(phi, self.force(phi)), left - size, number + 1

            left = jnp.asarray(step_size, state.field.real.dtype)
            return jax.lax.while_loop(unfinished, part, (state, left, jnp.int32(0)))[0]

        return advance

    def observe(self, state):
        return state.field

    def measured(self, state):
        """The largest drift of a site, and the mean of φ ∂S/∂φ over sites, whose average is 1 where the answer is right."""
        return {"largest_drift": jnp.max(jnp.abs(state.force)), "virial": jnp.mean(state.field * state.force)}


def _complex_couplings(model: MarkovRandomField, given: dict) -> dict[str, Any]:
    unknown = [name for name in given if name not in model.couplings]
    if unknown:
        known = ", ".join(map(repr, model.couplings))
        raise ArgumentError("couplings", f"names among {known}", repr(unknown[0]), reason="name")
    values = {name: np.asarray(value, complex) for name, value in (model.couplings | given).items()}
    real = model.replace(**{name: value.real for name, value in values.items()})
    report = real.check()
    if not report.is_normalizable:
        fix = "The real part of the action has to confine the field, or the noise drives it away along the real axis."
        got = f"{real!r}: {report.normalizable_reason}"
        raise ArgumentError("couplings", "real parts that make a density", got, fix, reason="not_normalizable")
    return {name: value if value.ndim else complex(value) for name, value in values.items()}


def _require_holomorphic(energy: Callable, shape: tuple[int, ...]) -> None:
    """Refuse actions that do not take complex fields, or use conj, real, imag or abs: ∂S(φ + iδ)/∂δ has to be i ∂S/∂φ."""
    expected = "a JAX function of one complex field that is holomorphic in it and returns one number"
    rng = np.random.default_rng(0)
    phi, direction = rng.normal(size=(2, *shape)) + 1j * rng.normal(size=(2, *shape))
    phi, direction = jnp.asarray(phi, jnp.result_type(complex)), jnp.asarray(direction, jnp.result_type(complex))
    try:
        along = jax.jvp(energy, (phi,), (direction,))[1]
        across = jax.jvp(energy, (phi,), (1j * direction,))[1]
    except Exception as error:  # the user should read whatever the function raises under tracing
        raise ArgumentError("action", expected, f"{type(error).__name__}: {error}"[:300], reason="raises") from error
    if jnp.shape(along) != () or not np.allclose(across, 1j * along, rtol=1e-3, atol=1e-5):
        got = f"∂S along φ + iδ is {across}, and i ∂S along φ + δ is {1j * along}"
        raise ArgumentError(
            "action", expected, got[:300], "Write |φ|² as φ², without abs, conj, real or imag.", reason="holomorphic"
        )
