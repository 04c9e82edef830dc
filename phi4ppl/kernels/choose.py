"""``kernel="auto"``: choose a kernel that suits the model, and give the reason."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import polynomial

from ..energy.compiled import CompiledModel
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..lattice.coloring import colors
from .kernel import Kernel, get_kernel

__all__ = ["choose", "resolve"]

MAX_COLORS = 16  # a sweep costs a force for every color
DEEP = 15.0  # Σ_j w_ij φ² of the mean field; 5 at the critical point of the square lattice with λ = 0.7


def choose(compiled: CompiledModel, symmetry_moves: bool = True) -> tuple[str, str]:
    """Name of the kernel for a model, and the reason in words; without kernels that change signs if that is not wanted."""
    model = compiled.model
    if model is None:
        if compiled.fields:
            return (
                "nuts",
                "a NumPyro model; 'nuts_curvature' finds its mode first, and moves intercepts and scales faster",
            )
        return "nuts", "a NumPyro model has no graph to exploit"
    terms = model.interactions
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
    if _signs_compete(model):
        return "cluster", (
            "sweeps move the sites; the signs of w compete and no field satisfies them all, so clusters help little: "
            "use kernel='tempering' if the chains disagree"
        )
    return "cluster", "clusters over the hopping terms move long waves, sweeps the short ones"


def _signs_compete(model) -> bool:
    """Whether no signs of φ make w_ij φ_i φ_j > 0 on every edge (frustration).

    In two copies of the graph where negative w cross over, such signs cut every component in two (F. Harary, Michigan Math.
    J. 2 (1953) 143).
    """
    hopping = [(form.cliques, value) for form, value in model.interactions if form.is_hopping]
    edges = np.concatenate([cliques for cliques, _ in hopping])
    w = np.concatenate([np.broadcast_to(np.asarray(value, float), len(cliques)) for cliques, value in hopping])
    edges, w, number = edges[w != 0], w[w != 0], model.lattice.num_sites
    if (w > 0).all():
        return False

    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def components(edges, size):
        ones = np.ones(len(edges))
        return connected_components(coo_array((ones, edges.T), shape=(size, size)), directed=False)[0]

    crossed = np.stack([edges[:, 0], edges[:, 1] + number * (w < 0)], axis=1)
    back = np.stack([edges[:, 0] + number, edges[:, 1] + number * (w > 0)], axis=1)
    return components(np.concatenate([crossed, back]), 2 * number) < 2 * components(edges, number)


def _mean_field_order(model) -> float:
    """Σ_j w_ij φ² at the minimum of S over constant fields, with couplings averaged over sites; 0 if that is at φ = 0.

    Negative w count as positive ones: where fields of alternating signs can follow them, that is the same model.
    """
    hopping, action = 0.0, np.zeros(1)  # Σ_j w_ij/2 of a site, and S of a site as a polynomial in x = φ²
    for form, value in model.interactions:
        mean = np.sum(np.broadcast_to(np.asarray(value, float), len(form.cliques))) / model.lattice.num_sites
        if form.is_hopping:
            hopping += abs(mean)
        elif form.power and form.power % 2 == 0:
            action = polynomial.polyadd(action, mean * np.eye(form.power // 2 + 1)[-1])
    action = polynomial.polytrim(polynomial.polyadd(action, [0.0, -hopping]))
    if len(action) < 3 or action[-1] <= 0:
        return 0.0
    flat = polynomial.polyroots(polynomial.polyder(action))
    places = np.append(0.0, flat.real[(np.abs(flat.imag) < 1e-9) & (flat.real > 0)])
    return 2 * hopping * float(places[np.argmin(polynomial.polyval(places, action))])


@call_checked
def resolve(kernel: str | Kernel, compiled: CompiledModel, symmetry_moves: bool = True) -> tuple[Kernel, str]:
    """The kernel that will run, and why.

    Raises
    ------
    ArgumentError
        If there is no kernel of that name, or it cannot sample this model.
    SamplingError
        If a kernel that begins at the mode of a NumPyro model finds none.
    """
    name, reason = choose(compiled, symmetry_moves) if kernel == "auto" else (kernel, "asked for")
    kernel = get_kernel(name)
    objection = kernel.objection(compiled)
    if objection is not None:
        fix = "kernel='auto' finds one that suits the model."
        raise ArgumentError(
            "kernel", "one that can sample this model", f"{kernel.name!r}, which {objection}", fix, reason="unsuited"
        )
    return kernel if kernel.prepare is None else kernel.prepare(compiled), reason
