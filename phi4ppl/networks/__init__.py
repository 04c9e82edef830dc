"""φ⁴ neural networks: restricted Boltzmann machines whose units are quartic, Gaussian, binary or spins, in any mixture."""

from ..errors import MissingPackageError
from .machine import RestrictedBoltzmannMachine
from .normalizer import annealed
from .training import Epoch, TrainingState, train
from .units import BernoulliUnits, GaussianUnits, Phi4Units, SpinUnits

ESTIMATORS = ("BernoulliBernoulliRBM", "GaussianBernoulliRBM", "GaussianGaussianRBM", "Phi4BernoulliRBM", "Phi4RBM")

__all__ = [
    "BernoulliUnits",
    "Epoch",
    "GaussianUnits",
    "Phi4Units",
    "RestrictedBoltzmannMachine",
    "SpinUnits",
    "TrainingState",
    "annealed",
    "train",
    *ESTIMATORS,
]


def __getattr__(name):
    if name not in ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import sklearn  # noqa: F401  only when an estimator is asked for
    except ImportError as error:
        raise MissingPackageError(
            f"phi4ppl.networks.{name} is a scikit-learn estimator, and scikit-learn is not installed. Install it with "
            "pip install 'phi4ppl[sklearn]', or use RestrictedBoltzmannMachine and train, which do not need it."
        ) from error
    from . import estimators

    return getattr(estimators, name)
