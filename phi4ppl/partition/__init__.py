"""Partition functions: log Z with its error."""

from .estimate import log_partition
from .result import PartitionEstimate

__all__ = ["PartitionEstimate", "log_partition"]
