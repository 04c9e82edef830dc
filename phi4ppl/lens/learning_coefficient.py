"""The local learning coefficient of a trained model: half the number of parameters that matter, by sampling around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jax.flatten_util import ravel_pytree

from ..analysis.derived import derive
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..kernels.kernel import Kernel
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..results.run import sample
from ..results.verdict import ConvergenceReport, diagnose
from ..spectral.matrices import told

__all__ = ["LearningCoefficient", "local_learning_coefficient"]

SIGMAS = 3.0  # by which λ has to be below 0, or its change away from 0, to be told
QUANTITIES = {"value": lambda m: m["x"], "drift": lambda m: m["x"] - (m["x2"] - m["x"] ** 2)}


@dataclass(frozen=True, repr=False, eq=False)
class LearningCoefficient:
    """What `local_learning_coefficient` finds.

    Attributes
    ----------
    value, error : float
        λ = nβ(⟨L⟩ − L(w*)), and its standard error by the Γ-method.
    drift, drift_error : float
        dλ/d ln(nβ) = λ − (nβ)² Var L, exact at a fixed prior: 0 for a homogeneous loss, and about (m − 1)/ln²(nβ) at a
        crossing of multiplicity m, where λ is still (m − 1)/ln(nβ) below its limit.
    num_parameters : int
    scale : float
        nβ.
    localization, radius : float
        Of the prior around w*; radius is inf without a box.
    excess : array, shape ``(chains, draws)``
        nβ(L − L(w*)).
    verdict : ConvergenceReport
        R̂, effective sample size and the checks of the sampler, for the excess.
    notes : tuple of str
    """

    value: float
    error: float
    drift: float
    drift_error: float
    num_parameters: int
    scale: float
    localization: float
    radius: float
    excess: np.ndarray
    verdict: ConvergenceReport
    notes: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        """Whether the chains passed all checks, and w* is a minimum as far as they tell."""
        return bool(self.verdict.passed) and self.value > -SIGMAS * self.error

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, as a table shows them."""
        return [
            ("local learning coefficient λ", value_with_error(self.value, self.error)),
            ("regular model: half the parameters", f"{self.num_parameters / 2:g}"),
            ("change with ln(nβ)", value_with_error(self.drift, self.drift_error)),
            ("nβ", f"{self.scale:.4g}"),
            (
                "prior",
                f"box of radius {self.radius:g}" if np.isfinite(self.radius) else f"localization {self.localization:g}",
            ),
            ("chains", f"{self.excess.shape[0]} × {self.excess.shape[1]} draws"),
        ]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        lines = [f"{name.ljust(width)}  {value}" for name, value in self.rows()]
        lines += [f"NOT RELIABLE: {check}" for check in _failed(self.verdict)]
        return "\n".join([*lines, *(f"note: {text}" for text in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        outcome = "chains passed all checks" if self.verdict.passed else "NOT RELIABLE"
        warnings = (*_failed(self.verdict), *self.notes)
        return card(
            "Local learning coefficient", (), self.rows(), good=self.reliable, outcome=outcome, warnings=warnings
        )


def _failed(verdict: ConvergenceReport) -> list[str]:
    return [f"{check.name} {check.value} ({check.threshold})" for check in verdict.checks if not check.passed]


@call_checked
def local_learning_coefficient(
    loss: Callable, params, data=None, *, num_data: int | None = None, beta: float | None = None, localization: float = 1.0,
    radius: float | None = None, num_warmup: int = 1000, num_samples: int = 2000, num_chains: int = 4,
    kernel: Kernel | str = "nuts", seed: int = 0, progress: bool | None = None,
) -> LearningCoefficient:  # fmt: skip
    """λ = nβ(⟨L⟩ − L(w*)), the mean over exp(−nβ L(w)) times a prior around w*: half the number of parameters that matter.

    Parameters
    ----------
    loss : callable
        ``loss(params)``, or ``loss(params, data)`` if there are data: L, the mean over the data of −log p or of another
        loss, in JAX.
    params : pytree
        w*, a minimum: a trained model.
    data : pytree, optional
        Passed on to ``loss``, all at once.
    num_data : int, optional
        n; by default the length of the first array of ``data``.
    beta : float, optional
        Inverse temperature β; by default 1/ln n.
    localization : float
        γ ≥ 0 of the prior exp(−γ|w − w*|²/2). 0 is for losses that grow in all directions.
    radius : float, optional
        In place of ``localization`` a uniform prior: ``|w_i − w*_i|`` at most this.
    num_warmup, num_samples, num_chains, kernel, seed, progress
        As in `phi4ppl.sample`, which draws the weights.

    Returns
    -------
    LearningCoefficient

    Raises
    ------
    ArgumentError
    SamplingError
        If the loss is not finite around w*.

    Notes
    -----
    A homogeneous loss of degree k in N parameters has λ = N/k at every nβ, so that a regular minimum has N/2, and
    Σ ½ nβh/(nβh + γ) with a localization, h the eigenvalues of its Hessian. A normal crossing Π w_i^(2k_i) in a box has
    λ → 1/(2 max k), from below: if m of the exponents are the largest, λ(nβ) = 1/(2 max k) − (m − 1)/ln(nβ) + …, which is
    slow. For w₁²w₂² it is 0.348, 0.411 and 0.451 at nβ = 10², 10⁴ and 10⁸, the limit 1/2. ``drift`` shows that λ still
    changes. Float32 resolves L − L(w*) to about 10⁻⁷ L(w*): for a large nβ call it within ``jax.enable_x64(True)``.

    Source: E. Lau, Z. Furman, G. Wang, D. Murfet and S. Wei, arXiv:2308.12108; S. Watanabe, arXiv:1208.6338 (β = 1/ln n).

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> found = p4.lens.local_learning_coefficient(
    ...     lambda w: jnp.sum(w**4), jnp.zeros(3), num_data=50, beta=1.0, localization=0.0, num_warmup=200, num_samples=500)
    >>> bool(abs(found.value - 3 / 4) < 5 * found.error), found.num_parameters
    (True, 3)
    """
    if not callable(loss):
        raise ArgumentError("loss", "a function of params, or of params and data", f"a {type(loss).__name__}")
    seed_within(seed)
    number = _number_of(data, num_data)
    beta = 1 / np.log(max(number, 3)) if beta is None else _positive("beta", beta)
    localization = _positive("localization", localization, zero=True)
    box = np.inf if radius is None else _positive("radius", radius)
    center, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), params))
    if not center.size:
        raise ArgumentError("params", "at least one number", "none", reason="shape")
    of = (lambda w: loss(unravel(w))) if data is None else (lambda w: loss(unravel(w), data))
    _checked_loss(of, center)
    scale = float(number * beta)
    model = _model(of, center, scale, localization, box)
    tree = sample(
        model,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        kernel=kernel,
        seed=seed,
        progress=progress,
    )
    kept = tree.copy()
    kept["posterior"] = xr.DataTree(tree["posterior"].to_dataset()[["excess"]])
    excess = tree["posterior"]["excess"].transpose("chain", "draw").values.astype(float)
    found = derive({"x": excess, "x2": excess**2}, QUANTITIES)
    numbers = [part for name in QUANTITIES for part in (found[name].value, found[name].error)]
    value, error, drift, spread = (float(np.ravel(part)[0]) for part in numbers)
    notes = _notes(value, error, drift, spread)
    return LearningCoefficient(
        value,
        error,
        drift,
        spread,
        center.size,
        scale,
        localization if radius is None else 0.0,
        box,
        excess,
        diagnose(kept),
        notes,
    )


def _model(of: Callable, center, scale: float, localization: float, radius: float) -> Callable:
    """exp(−nβ(L(w) − L(w*))) times the prior, as a NumPyro model of z = w − w*, scaled."""
    size, unit = center.size, radius if np.isfinite(radius) else localization**-0.5 if localization else 1.0
    least = of(center)

    def model():
        if np.isfinite(radius):
            prior = dist.Uniform(-jnp.ones(size, center.dtype), jnp.ones(size, center.dtype)).to_event(1)
        elif localization:
            prior = dist.Normal(jnp.zeros(size, center.dtype), jnp.ones(size, center.dtype)).to_event(1)
        else:
            prior = dist.ImproperUniform(dist.constraints.real_vector, (), (size,))
        z = numpyro.sample("weights", prior)
        excess = scale * (of(center + unit * z) - least)
        numpyro.factor("loss", -excess)
        numpyro.deterministic("excess", excess)

    return model


def _notes(value: float, error: float, drift: float, spread: float) -> tuple[str, ...]:
    found = []
    if value < -SIGMAS * error:
        found.append(
            "λ is negative: the loss is lower elsewhere, so that params is no minimum. Train on, or localize more."
        )
    if abs(drift) > SIGMAS * spread:
        found.append("λ still changes with nβ: it belongs to this scale of the loss, and its limit is another.")
    return tuple(found)


def _number_of(data, num_data) -> int:
    if num_data is not None:
        return positive_int("num_data", num_data)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    if not shapes or not shapes[0]:
        raise ArgumentError("num_data", "the number of data, where data have no first axis", "None", reason="missing")
    return int(shapes[0][0])


def _positive(name: str, value, zero: bool = False) -> float:
    number = finite_array(name, value)
    if number.ndim or not (number > 0 or (zero and number == 0)):
        raise ArgumentError(name, "a number that is not negative" if zero else "a positive number", repr(value))
    return float(number)


def _checked_loss(of: Callable, center) -> None:
    with told("loss", "a JAX function of params (and of data, if they are given)"):
        shape = jax.eval_shape(of, center)
    if getattr(shape, "shape", None) != ():
        got = f"shape {shape.shape}" if hasattr(shape, "shape") else f"a {type(shape).__name__}"
        raise ArgumentError(
            "loss", "a function that returns one number", got, "Take the mean over the data.", "returns"
        )
    if not np.isfinite(of(center)):
        raise ArgumentError("loss", "a finite value at params", str(float(of(center))), reason="finite")
