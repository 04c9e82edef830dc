"""Partition functions: log Z with its error, and as a function of couplings.

A model comes in; log Z with a standard error goes out. Read `log_partition` first, then `surface`.
"""

from .log_partition import log_partition
from .partition_estimate import PartitionEstimate
from .pool import Pool
from .surface import PartitionSurface, SurfaceEstimate

__all__ = ["PartitionEstimate", "PartitionSurface", "Pool", "SurfaceEstimate", "log_partition"]
