"""Partition functions: log Z with its error, and as a function of couplings."""

from .estimate import log_partition
from .posterior import infer_couplings
from .result import PartitionEstimate
from .surface import PartitionSurface, SurfaceEstimate

__all__ = ["PartitionEstimate", "PartitionSurface", "SurfaceEstimate", "infer_couplings", "log_partition"]
