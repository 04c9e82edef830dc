"""Partition functions: log Z with its error, and as a function of couplings."""

from .estimate import log_partition
from .result import PartitionEstimate
from .surface import PartitionSurface, SurfaceEstimate

__all__ = ["PartitionEstimate", "PartitionSurface", "SurfaceEstimate", "log_partition"]
