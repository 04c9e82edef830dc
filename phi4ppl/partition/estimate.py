"""`log_partition`: one call, several ways."""

from __future__ import annotations

import warnings

from ..errors import ArgumentError, one_of, positive_int
from ..model import MarkovRandomField
from .determinate import exact_log_partition
from .integration import integrate
from .path import path_to
from .result import PartitionEstimate

__all__ = ["log_partition"]

METHODS = ("auto", "exact", "integration")
NUM_WARMUP = 200


def log_partition(
    model: MarkovRandomField, *, method: str = "auto", num_samples: int = 1000, num_chains: int = 4, seed: int = 0,
    progress: bool | None = None,
) -> PartitionEstimate:  # fmt: skip
    """log Z of a field, Z = ∫ exp(−S(φ; θ)) dφ with the Lebesgue measure on all sites, with its error.

    Parameters
    ----------
    model : MarkovRandomField
    method : str
        ``"exact"``: Gaussian fields by determinant; any other model whose graph is small or narrow (chains, trees, strips) by
        eliminating sites on quadrature nodes, which on a strip is its transfer matrix.
        ``"integration"``: log Z = log Z_0 − ∫₀¹ ⟨Σ_t θ_t T_t⟩_λ dλ, t over the terms of several sites, which enter S_λ with
        λθ_t; Z_0 of the independent sites left at λ = 0 is a product of one-dimensional integrals.
        ``"auto"``: exact where that takes no more than a few seconds, else by integration.
    num_samples, num_chains : int
        Draws a chain, and chains, at every node of the integration.
    seed : int
    progress : bool, optional
        Draw a line of progress on standard error; by default only on a terminal.

    Returns
    -------
    PartitionEstimate
        ``value``, ``error`` (one standard error, quadrature errors included), ``method``, and how it came about;
        ``print`` it.

    Raises
    ------
    HammersleyCliffordError
        If the model is not normalizable: Z is infinite.
    ArgumentError
        If ``"exact"`` is asked for and would take too long, and for arguments out of range.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> result = p4.log_partition(p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2))
    >>> result.method, round(result.value, 8)
    ('exact', 3.00172532)
    """
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    one_of("method", method, METHODS)
    num_samples = positive_int("num_samples", num_samples, minimum=50)
    num_chains = positive_int(
        "num_chains", num_chains, minimum=2, mend="Chains that disagree can only be seen by others."
    )
    seed = positive_int("seed", seed, minimum=0)
    model.check().raise_if_violated()
    if method in ("auto", "exact"):
        result = exact_log_partition(model)
        if result is not None:
            return result
        if method == "exact":
            got = f"{model!r}, whose graph is too wide for the memory of a few seconds' sum"
            mend = "method='integration' takes any model."
            raise ArgumentError("model", "a Gaussian field, or a small or narrow graph", got, mend)
    result = integrate(
        path_to(model),
        num_warmup=NUM_WARMUP,
        num_samples=num_samples,
        num_chains=num_chains,
        seed=seed,
        progress=progress,
    )
    for text in result.warnings:
        warnings.warn(f"log_partition: {text}", stacklevel=2)
    return result
