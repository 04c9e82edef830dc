"""Fields that move: processes on lattices and graphs, evolved in time by the loops of sampling, drawn and filmed.

A process and a field come in; a `DataTree` with a dimension ``time``, pictures and films go out. Read `process` first.
"""

from .diffusion import Diffusion
from .drift import Drift
from .drive import DriveTo
from .evolve import evolve
from .film import animate
from .gradient_flow import FlowState, GradientFlow
from .hamiltonian import Hamiltonian, WaveState
from .laplacian import exponential, laplacian
from .neural_field import NeuralField, NeuralState
from .process import Process, process
from .snapshots import plot
from .stiffness import largest_frequency

__all__ = [
    "Diffusion", "Drift", "DriveTo", "FlowState", "GradientFlow", "Hamiltonian", "NeuralField", "NeuralState", "Process",
    "WaveState", "animate", "evolve", "exponential", "laplacian", "largest_frequency", "plot", "process",
]  # fmt: skip
