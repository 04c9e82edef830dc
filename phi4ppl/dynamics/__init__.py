"""Fields that move: processes on lattices and graphs, evolved in time by the loops of sampling, drawn and filmed.

A process and a field come in; a `DataTree` with a dimension ``time``, pictures and films go out. Read `process` first.
"""

from .complex_langevin import ComplexLangevin
from .diffusion import Diffusion
from .evolve import evolve
from .langevin import Langevin, free_variance
from .process import Process, process

__all__ = ["ComplexLangevin", "Diffusion", "Langevin", "Process", "evolve", "free_variance", "process"]
