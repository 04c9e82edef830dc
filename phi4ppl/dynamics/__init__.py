"""Fields that move: processes on lattices and graphs, evolved in time by the loops of sampling, drawn and filmed.

A process and a field come in; a `DataTree` with a dimension ``time``, pictures and films go out. Read `process` first.
"""

from .complex_langevin import ComplexLangevin
from .diffusion import Diffusion
from .drift import Drift
from .drive import DriveTo
from .driven import Driven, WorkEstimate, free_energy_difference
from .evolve import evolve
from .gradient_flow import GradientFlow
from .hamiltonian import Hamiltonian
from .langevin import Langevin, free_variance
from .laplacian import laplacian
from .neural_field import NeuralField
from .process import Process, process
from .stationary import Extrapolated, extrapolate, time_averages
from .stiffness import largest_frequency

__all__ = [
    "ComplexLangevin",
    "Diffusion",
    "Drift",
    "DriveTo",
    "Driven",
    "Extrapolated",
    "GradientFlow",
    "Hamiltonian",
    "Langevin",
    "NeuralField",
    "Process",
    "WorkEstimate",
    "evolve",
    "extrapolate",
    "free_energy_difference",
    "free_variance",
    "laplacian",
    "largest_frequency",
    "process",
    "time_averages",
]
