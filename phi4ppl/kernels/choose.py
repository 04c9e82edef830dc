"""``kernel="auto"``: choose a kernel that suits the model, and give the reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..energy.compiled import CompiledModel
from ..energy.frustration import least_square, ruggedness, signs_compete
from ..errors import ArgumentError, SamplingError
from ..errors.arguments import call_checked
from ..lattice.coloring import colors
from ..numpyro_plugin.curvature import OTHERWISE
from .kernel import Kernel, get_kernel
from .latent_nuts import NUTS_CURVATURE, fit_if_sure
from .local_hmc import MAX_COLORS

__all__ = ["choose", "resolve"]

FEW = 32  # variables of a NumPyro model that NUTS moves as it is, before a mode would be found
DEEP = 15.0  # Σ_j w_ij φ² of the mean field; 5 at the critical point of the square lattice with λ = 0.7


def choose(compiled: CompiledModel, symmetry_moves: bool = True, tempered: bool = True) -> tuple[str, str]:
    """Name of the kernel for a model, and the reason in words; without kernels that change signs if that is not wanted.

    ``tempered=False`` leaves out kernels whose state is more than the field, for those who restart chains from fields.
    """
    model = compiled.model
    if model is None:
        if compiled.fields:
            if compiled.num_dimensions < FEW:
                return (
                    "nuts",
                    f"a NumPyro model of {compiled.num_dimensions} variables, which needs no mass matrix of its own",
                )
            return NUTS_CURVATURE.name, "a NumPyro model with a field, whose graph gives the curvature of the posterior"
        return "nuts", "a NumPyro model has no graph to exploit"
    terms = model.interactions
    if symmetry_moves and tempered and (rugged := ruggedness(model)) is not None:
        energy, share = rugged
        return "tempering", (
            f"frustration: no signs of φ satisfy more than about {1 - share:.0%} of the edges, and h φ² = {energy:.0f} of "
            "a site in the field of its neighbors is so large that single chains get stuck"
        )
    num_colors = int(colors(model.lattice, model.forms).max()) + 1
    if num_colors > MAX_COLORS:
        return "chees", f"the sites need {num_colors} colors, too many for sweeps"
    own = [form.name for form, _ in terms if not form.built_in and form.cliques.shape[1] > 1]
    if own:
        return "local_hmc", f"clusters cannot cross the custom term {own[0]!r} of several sites, sweeps can"
    if not any(form.is_hopping and np.any(np.asarray(value)) for form, value in terms):
        return "local_hmc", "no hopping term couples the sites, so sweeps move each one separately"
    if not symmetry_moves:
        return "local_hmc", "clusters would change signs, and symmetry_moves=False"
    if (strength := _mean_field_order(model)) > DEEP:
        return "local_hmc", f"deep in its ordered phase (Σ w φ² = {strength:.0f}), where one cluster spans the lattice"
    if signs_compete(model):
        return "cluster", "sweeps move the sites; the signs of w compete, so clusters help little"
    return "cluster", "clusters over the hopping terms move long waves, sweeps the short ones"


def _mean_field_order(model) -> float:
    """Σ_j w_ij φ² at the minimum of S over constant fields, with couplings averaged over sites; 0 if that is at φ = 0.

    Negative w count as positive ones: where fields of alternating signs can follow them, that is the same model.
    """
    hopping = 0.0  # Σ_j w_ij/2 of a site
    for form, value in model.interactions:
        if form.is_hopping:
            hopping += (
                abs(np.sum(np.broadcast_to(np.asarray(value, float), len(form.cliques)))) / model.lattice.num_sites
            )
    return 2 * hopping * least_square(model, hopping)


def _curvature_or_nuts(compiled: CompiledModel, reason: str) -> tuple[Kernel, str]:
    try:
        kernel, how = fit_if_sure(compiled)
    except SamplingError as refusal:
        why = str(refusal).removesuffix(OTHERWISE).rstrip(". ")
        return get_kernel("nuts"), f"a NumPyro model, for which nuts_curvature is not taken: {why}"
    return kernel, f"{reason}; {how}"


@call_checked
def resolve(
    kernel: str | Kernel, compiled: CompiledModel, symmetry_moves: bool = True, tempered: bool = True,
    others: Sequence[CompiledModel] = (),
) -> tuple[Kernel, str]:  # fmt: skip
    """The kernel that will run, and why; fitted to the model where it has to be before it can be compiled.

    ``symmetry_moves`` and ``tempered`` are those of `choose`. Models of the same structure that share the kernel are
    ``others``: ``"auto"`` takes ``"tempering"`` if one of them needs it, and the kernel is fitted to all of them.

    Raises
    ------
    ArgumentError
        If there is no kernel of that name, or it cannot sample this model.
    SamplingError
        If a kernel that begins at the mode of a NumPyro model finds none.
    """
    automatic = isinstance(kernel, str) and kernel == "auto"
    name, reason = choose(compiled, symmetry_moves, tempered) if automatic else (kernel, "asked for")
    if automatic and others:
        reasons = dict(choose(each, symmetry_moves, tempered) for each in others)
        name, reason = ("tempering", reasons["tempering"]) if "tempering" in reasons else (name, reason)
    if automatic and name == NUTS_CURVATURE.name:
        return _curvature_or_nuts(compiled, reason)
    kernel = get_kernel(name)
    objection = kernel.objection(compiled)
    if objection is not None:
        fix = "kernel='auto' finds one that suits the model."
        raise ArgumentError(
            "kernel", "one that can sample this model", f"{kernel.name!r}, which {objection}", fix, reason="unsuited"
        )
    if kernel.fit is not None:
        kernel, how = kernel.fit(compiled, *others)
        reason = f"{reason}; {how}"
    return kernel, reason
