"""phi4ppl: lattice φ⁴ actions, and any Markov random field on a graph, as probabilistic programs.

Declare a model on a graph, check it against the Hammersley–Clifford theorem, compile it to a NumPyro potential, sample it
with BlackJAX, and report through ArviZ.
"""

from importlib import import_module

from ._version import __version__ as __version__

# What the root offers, and where it is: a package is imported when one of its names is first asked for, so that importing
# phi4ppl costs nothing. `__init__.pyi` states the same for editors and type checkers; a test compares the two.
PACKAGES = (
    "analysis", "disorder", "dynamics", "energy", "errors", "inference", "kernels", "lattice", "learning", "lens", "model",
    "networks", "numpyro_plugin", "partition", "renormalization", "reports", "results", "reweighting", "sampling", "spectral",
)  # fmt: skip
MODULES = {
    "exact": ".energy.exact",
    "observables": ".analysis.observables",
    "quartic": ".energy.onesite",
    "terms": ".model.term",
}
NAMES = {
    ".energy": ("CompiledModel",),
    ".inference": ("Comparison", "Posterior", "average", "compare", "infer_couplings", "laplace"),
    ".learning": (
        "FitStatus",
        "LikelihoodFit",
        "VariationalFit",
        "fit_likelihood",
        "fit_variational",
        "held_out_score",
        "plot_history",
    ),
    ".model": ("MarkovRandomField", "Term", "gaussian", "load_model", "phi4", "phi4_from_lagrangian"),
    ".model.hammersley_clifford": ("HammersleyCliffordReport", "check_action"),
    ".numpyro_plugin": ("GibbsField", "bym2", "compile", "leroux", "observe_field", "proper_car", "scaling_factors"),
    ".partition": ("PartitionEstimate", "PartitionSurface", "log_partition"),
    ".renormalization": ("FiniteSizeScaling", "finite_size_scaling"),
    ".results": (
        "ConvergenceReport",
        "diagnose",
        "estimate",
        "integrated_log_likelihood",
        "load_run",
        "loo",
        "sample",
        "sample_ensemble",
        "save_run",
        "settings",
    ),
    ".reweighting": ("combine_ensembles", "plot_scans", "reweight", "scan_reweighting"),
}
HOME = {name: home for home, names in NAMES.items() for name in names}

__all__ = sorted(["__version__", *PACKAGES, *MODULES, *HOME])


def __getattr__(name: str):
    if name in HOME:
        found = getattr(import_module(HOME[name], __name__), name)
    elif name in PACKAGES or name in MODULES:
        found = import_module(MODULES.get(name, f".{name}"), __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
