"""A model compiled: a fast energy whose derivative is as cheap as itself, the one-site density, and exact answers.

Three layouts of the neighbor sums (Wφ)_i = Σ_j w_ij φ_j, chosen by what the edges are:

* *stencil*, regular lattices: shifts of the whole field, no gathers;
* *gather*, any graph: padded neighbor lists, no scatters;
* *dense*, complete bipartite and small complete graphs: a matrix-vector product, or a plain sum.

With them S = Σ_i φ_i (r_i + a_i φ_i + b_i φ_i³ − ½ (Wφ)_i) and ∂S/∂φ_i = r_i + 2 a_i φ_i + 4 b_i φ_i³ − (Wφ)_i come out
of one pass. Terms of the user are vmapped and differentiated automatically in any layout. A model comes in; functions of one
field go out. Read `functions` first, then a layout; `exact` is by itself.
"""

from .compiled import CompiledModel, compile_field
from .functions import energy, energy_change, layout_of, log_density

__all__ = ["CompiledModel", "compile_field", "energy", "energy_change", "layout_of", "log_density"]
