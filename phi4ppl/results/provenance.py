"""Versions, machine and time, as results store them."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

from .._version import __version__

__all__ = ["software"]

PACKAGES = ("jax", "jaxlib", "numpyro", "blackjax", "arviz-base", "arviz-stats", "numpy")


def software() -> dict:
    """What made the numbers, and when."""
    return {
        "versions": {"phi4ppl": __version__} | {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
