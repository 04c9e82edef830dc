"""Fields that move: processes on lattices and graphs, evolved in time by the loops of sampling, drawn and filmed.

A process and a field come in; a `DataTree` with a dimension ``time``, pictures and films go out. Read `process` first.
"""

from .complex_langevin import ComplexLangevin, ComplexState
from .corrected import correct
from .diffusion import Diffusion
from .drift import Drift
from .drive import DriveTo
from .driven import Driven, DrivenState, WorkEstimate, free_energy_difference
from .evolve import evolve
from .film import animate
from .gradient_flow import FlowState, GradientFlow
from .growth import Growth, count_domains, domain_size, growth_exponent, return_probability
from .hamiltonian import Hamiltonian, WaveState
from .kinks import Kink, Kinks, track_kinks
from .langevin import Langevin, LangevinState, free_variance
from .laplacian import exponential, laplacian
from .moves import Modes, Move
from .neural_field import NeuralField, NeuralState
from .noising import Noising
from .process import Process, process
from .reverse_diffusion import DiffusionState, ReverseDiffusion, Weighed, noise_times, weigh
from .score import FittedScore, GaussianScore, GridScore, exact_score, fit_score
from .snapshots import plot
from .stationary import Extrapolated, extrapolate, time_averages
from .stiffness import largest_frequency

__all__ = [
    "GridScore",
    "GaussianScore",
    "Move",
    "Modes",
    "DiffusionState",
    "LangevinState",
    "DrivenState",
    "ComplexState",
    "ComplexLangevin",
    "Diffusion",
    "Drift",
    "DriveTo",
    "Driven",
    "Extrapolated",
    "FittedScore",
    "FlowState",
    "GradientFlow",
    "Growth",
    "Hamiltonian",
    "Kink",
    "Kinks",
    "Langevin",
    "NeuralField",
    "NeuralState",
    "Noising",
    "Process",
    "ReverseDiffusion",
    "WaveState",
    "Weighed",
    "WorkEstimate",
    "animate",
    "correct",
    "count_domains",
    "domain_size",
    "evolve",
    "exact_score",
    "exponential",
    "extrapolate",
    "fit_score",
    "free_energy_difference",
    "free_variance",
    "growth_exponent",
    "laplacian",
    "largest_frequency",
    "noise_times",
    "plot",
    "process",
    "return_probability",
    "time_averages",
    "track_kinks",
    "weigh",
]
