"""Fields that move: processes on lattices and graphs, evolved in time by the loops of sampling, drawn and filmed.

A process and a field come in; a `DataTree` with a dimension ``time``, pictures and films go out. Read `process` first.
"""

from .langevin import Langevin, free_variance
from .process import Process, process

__all__ = ["Langevin", "Process", "free_variance", "process"]
