"""What `phi4ppl/__init__.py` offers, for editors and type checkers."""

from . import (
    analysis,
    dynamics,
    energy,
    errors,
    inference,
    lattice,
    learning,
    model,
    networks,
    numpyro_plugin,
    partition,
    renormalization,
    reports,
    results,
    reweighting,
    sampling,
    spectral,
)
from ._version import __version__
from .analysis import observables
from .energy import CompiledModel, exact
from .energy import onesite as quartic
from .inference import Comparison, Posterior, average, compare, infer_couplings
from .kernels import kernels
from .learning import (
    FitStatus,
    LikelihoodFit,
    VariationalFit,
    fit_likelihood,
    fit_variational,
    held_out_score,
    plot_history,
)
from .model import MarkovRandomField, Term, gaussian, load_model, phi4, phi4_from_lagrangian
from .model import term as terms
from .model.hammersley_clifford import HammersleyCliffordReport, check_action
from .numpyro_plugin import GibbsField, compile
from .partition import PartitionEstimate, PartitionSurface, log_partition
from .renormalization import FiniteSizeScaling, finite_size_scaling
from .results import (
    ConvergenceReport,
    diagnose,
    estimate,
    integrated_log_likelihood,
    load_run,
    loo,
    sample,
    sample_ensemble,
    save_run,
    settings,
)
from .reweighting import combine_ensembles, plot_scans, reweight, scan_reweighting

__all__ = [
    "Comparison",
    "CompiledModel",
    "ConvergenceReport",
    "FiniteSizeScaling",
    "FitStatus",
    "GibbsField",
    "HammersleyCliffordReport",
    "LikelihoodFit",
    "MarkovRandomField",
    "PartitionEstimate",
    "PartitionSurface",
    "Posterior",
    "Term",
    "VariationalFit",
    "__version__",
    "analysis",
    "average",
    "check_action",
    "combine_ensembles",
    "compare",
    "compile",
    "diagnose",
    "dynamics",
    "energy",
    "errors",
    "estimate",
    "exact",
    "finite_size_scaling",
    "fit_likelihood",
    "fit_variational",
    "gaussian",
    "held_out_score",
    "infer_couplings",
    "inference",
    "integrated_log_likelihood",
    "kernels",
    "lattice",
    "learning",
    "load_model",
    "load_run",
    "log_partition",
    "loo",
    "model",
    "networks",
    "numpyro_plugin",
    "observables",
    "partition",
    "phi4",
    "phi4_from_lagrangian",
    "plot_history",
    "plot_scans",
    "quartic",
    "renormalization",
    "reports",
    "results",
    "reweight",
    "reweighting",
    "sample",
    "sample_ensemble",
    "sampling",
    "save_run",
    "scan_reweighting",
    "settings",
    "spectral",
    "terms",
]
