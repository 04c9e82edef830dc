"""Partition functions: log Z with its error, and as a function of couplings.

A model comes in; log Z with a standard error goes out. Read `log_partition` first, then `surface`.
"""

from .log_partition import log_partition
from .log_z_methods import SMC, Annealing, Auto, Integration, PopulationAnnealing, Tempering
from .partition_estimate import PartitionEstimate
from .pool import Pool
from .surface import PartitionSurface, SurfaceEstimate

__all__ = [
    "Annealing",
    "Auto",
    "Integration",
    "PartitionEstimate",
    "PartitionSurface",
    "Pool",
    "PopulationAnnealing",
    "SMC",
    "SurfaceEstimate",
    "Tempering",
    "log_partition",
]
