"""phi4ppl: lattice φ⁴ actions, and any Markov random field on a graph, as probabilistic programs.

Declare a model on a graph, check it against the Hammersley–Clifford theorem, compile it to a NumPyro potential, sample it
with BlackJAX, and report through ArviZ.
"""

from . import lattice, networks, sampling
from ._version import __version__
from .analysis import observables
from .energy import CompiledModel, exact
from .energy import onesite as quartic
from .errors import (
    ArgumentError,
    CallError,
    CheckpointError,
    DiscreteLatentError,
    DoublyIntractableError,
    DrawNotAvailableError,
    GraphError,
    HammersleyCliffordError,
    MemoryLimitError,
    MissingPackageError,
    ModelFileError,
    OverlapError,
    Phi4pplError,
    ResultFileError,
    SamplingError,
    SingleFactorError,
)
from .inference import Comparison, average, compare, infer_couplings
from .kernels import kernels
from .lattice import plaquettes
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
    "ArgumentError",
    "CallError",
    "Comparison",
    "CheckpointError",
    "CompiledModel",
    "ConvergenceReport",
    "DiscreteLatentError",
    "DoublyIntractableError",
    "DrawNotAvailableError",
    "FitStatus",
    "GibbsField",
    "GraphError",
    "HammersleyCliffordError",
    "HammersleyCliffordReport",
    "LikelihoodFit",
    "MarkovRandomField",
    "MemoryLimitError",
    "MissingPackageError",
    "ModelFileError",
    "OverlapError",
    "PartitionEstimate",
    "PartitionSurface",
    "Phi4pplError",
    "ResultFileError",
    "SamplingError",
    "SingleFactorError",
    "Term",
    "VariationalFit",
    "__version__",
    "average",
    "check_action",
    "compare",
    "combine_ensembles",
    "compile",
    "diagnose",
    "estimate",
    "exact",
    "fit_likelihood",
    "fit_variational",
    "gaussian",
    "held_out_score",
    "infer_couplings",
    "integrated_log_likelihood",
    "kernels",
    "lattice",
    "load_model",
    "load_run",
    "log_partition",
    "loo",
    "networks",
    "observables",
    "phi4",
    "phi4_from_lagrangian",
    "plaquettes",
    "plot_history",
    "plot_scans",
    "quartic",
    "reweight",
    "sample",
    "sample_ensemble",
    "sampling",
    "save_run",
    "scan_reweighting",
    "settings",
    "terms",
]
