"""The memory that a run will need, estimated before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import numpy as np

from ..errors import MemoryLimitError

__all__ = ["available_bytes", "readable", "record_bytes", "require_memory", "size_in_words"]

UNKNOWN = 16_000_000_000  # if the system does not report it
FRACTION = 0.8  # of the available memory that a run may plan to fill
ADVICE = (
    "Keep observables only (keep_field=False), thin the chains (thinning=10 keeps every tenth), or request fewer draws."
)


def record_bytes(record) -> int:
    """Bytes of one draw of one chain, from the shapes of what is recorded."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(record))


def available_bytes() -> int:
    """Memory that can be used without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return UNKNOWN


def readable(num_bytes: float) -> str:
    """Bytes in words: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def size_in_words(chains: int, draws: int) -> str:
    """The size of a run in words.

    Examples
    --------
    >>> size_in_words(1, 400)
    '1 chain × 400 draws'
    """
    return f"{chains} chain{'s' if chains != 1 else ''} × {draws} draw{'s' if draws != 1 else ''}"


def require_memory(record, num_chains: int, num_samples: int, limit: int | None = None, advice: str = ADVICE) -> int:
    """Bytes that the kept draws of all chains will fill; raise `MemoryLimitError` past the limit."""
    needed = record_bytes(record) * num_chains * num_samples
    limit = int(FRACTION * available_bytes()) if limit is None else limit
    if needed > limit:
        raise MemoryLimitError(
            "too_small",
            f"this run would keep {readable(needed)} ({size_in_words(num_chains, num_samples)} of "
            f"{readable(record_bytes(record))}), but the limit is {readable(limit)}. {advice}",
            {"needed_bytes": needed, "limit_bytes": limit},
        )
    return needed
