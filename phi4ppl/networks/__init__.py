"""φ⁴ neural networks: restricted Boltzmann machines of quartic, Gaussian, binary and spin units, in any mixture.

Layers of units and data come in; trained machines, their log Z, densities and samples go out. Read `units` first, then
`machine` and `training`.
"""

import importlib

from ..errors import MissingPackageError
from .machine import RestrictedBoltzmannMachine
from .marginal import VisibleMarginal
from .mean_field import MeanField, critical_scale, mean_field
from .normalizer import annealed
from .phase_detection import CascadeStep, Transition
from .phases import phases
from .phases_result import Phases
from .training import TrainingState, train
from .training_log import Epoch, plot_training
from .units import BernoulliUnits, GaussianUnits, Phi4Units, SpinUnits, Units

ESTIMATORS = {
    "BernoulliBernoulliRBM": "estimators",
    "DeepPhi4Network": "stacks",
    "GaussianBernoulliRBM": "estimators",
    "GaussianGaussianRBM": "estimators",
    "Phi4BernoulliRBM": "estimators",
    "Phi4RBM": "estimators",
    "StackBound": "stacks",
}

__all__ = [
    "BernoulliUnits",
    "CascadeStep",
    "Epoch",
    "GaussianUnits",
    "MeanField",
    "Phases",
    "Phi4Units",
    "RestrictedBoltzmannMachine",
    "SpinUnits",
    "TrainingState",
    "TrainingWarning",
    "Transition",
    "Units",
    "VisibleMarginal",
    "annealed",
    "critical_scale",
    "mean_field",
    "phases",
    "plot_training",
    "train",
    *ESTIMATORS,
]


def __getattr__(name):
    if name == "TrainingWarning":  # where scikit-learn is installed, a subclass of its warning
        return importlib.import_module(".training_warning", __name__).TrainingWarning
    if name not in ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import sklearn  # noqa: F401  only when an estimator is asked for
    except ImportError as error:
        raise MissingPackageError(
            "sklearn",
            f"phi4ppl.networks.{name} needs scikit-learn, which is not installed. Install it with "
            "pip install 'phi4ppl[sklearn]', or use RestrictedBoltzmannMachine and train, which do not need it.",
        ) from error
    return getattr(importlib.import_module(f".{ESTIMATORS[name]}", __name__), name)
