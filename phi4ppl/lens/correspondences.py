"""The dictionary between field theory and machine learning: where each entry is exact, and where it is an analogy."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CORRESPONDENCES", "Correspondence"]


class Correspondence(NamedTuple):
    """One entry: words of both fields, ``exact`` where it is a theorem or a definition, and what it is otherwise."""

    field: str
    learning: str
    kind: str
    where: str


CORRESPONDENCES = (
    Correspondence(
        "field configuration φ(x)", "an example, or the activations of a layer", "definition",
        "Both are arrays of numbers on sites. That data are draws of exp(−S) of a known S is exact for fields of this "
        "library, "
        "and an assumption for images.",
    ),
    Correspondence(
        "vacuum", "baseline input: zeros, the mean, or one that is given", "choice",
        "All occupations and attributions are relative to it. Another vacuum gives other numbers.",
    ),
    Correspondence(
        "occupation of a mode ⟨δ²⟩", "second moment of a unit; eigenvalue of the covariance of a layer", "exact",
        "The same second moment. There are no quanta: it need not be a whole number.",
    ),
    Correspondence(
        "two-point function", "covariance of units; kernel of examples", "exact", "One matrix from two sides "
        "(features, examples).",
    ),
    Correspondence(
        "Wick's theorem", "outputs of a wide network as a Gaussian process", "limit",
        "Exact at infinite width over draws of the weights, with corrections 1/width. That it “is” the Gaussian "
        "kernel is exact "
        "only as the Fock expansion of that kernel. Over examples it is a question to the data.",
    ),
    Correspondence(
        "linear response, susceptibility", "squared Jacobian of a layer", "exact",
        "A derivative. That χ = 1 is a critical point is exact at infinite width, over draws of the weights.",
    ),
    Correspondence(
        "symmetry, irreducible representation", "invariance and equivariance of layers", "exact",
        "Where the difference is one of rounding. Approximate symmetry is a number, not a group.",
    ),
    Correspondence(
        "renormalization", "layers that forget details", "analogy",
        "Exact for fields that are blocked by a rule. A layer is no blocking rule, and nothing says that depth has a "
        "fixed point.",
    ),
    Correspondence(
        "action, Hamiltonian", "loss", "limit",
        "Exact for weights drawn from exp(−nβL), as in a posterior. Stochastic gradient descent draws from no such "
        "density.",
    ),
    Correspondence(
        "path integral", "average over an ensemble of networks", "limit",
        "Exact for draws of a posterior; for checkpoints or seeds it is an average over what training happens to reach.",
    ),
    Correspondence(
        "phase transition", "kink or jump of a curve of training", "analogy",
        "A finite model in finite time has none: every curve is rounded. A kink here is one at the resolution of the "
        "record.",
    ),
    Correspondence(
        "specific heat at low temperature", "local learning coefficient", "exact",
        "nβ(⟨L⟩ − L₀) → N/2 is equipartition; singular minima have less, and reach it as 1/ln(nβ).",
    ),
)  # fmt: skip
