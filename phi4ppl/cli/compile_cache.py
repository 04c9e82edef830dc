"""Compiled programs are kept on disk between commands, in the cache of JAX, so that the second run of a shape starts at once.

Only the command line does so: a library does not set the configuration of JAX for a program that imports it. The environment
variables of JAX are obeyed where they are set: ``JAX_COMPILATION_CACHE_DIR`` says where, and
``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder", "cached_files", "clear_cache", "use_compile_cache"]

FOLDER = "JAX_COMPILATION_CACHE_DIR"
MIN_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
SUFFIXES = ("-cache", "-atime")  # of the files that JAX writes there


def cache_folder() -> Path:
    """Where JAX is told to keep programs, or the place for caches on this platform."""
    if chosen := os.environ.get(FOLDER):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "phi4ppl" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "phi4ppl"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "phi4ppl"


def use_compile_cache() -> None:
    """Have JAX, once it is imported, keep what it compiles; nothing if it is imported already, or has no place for it."""
    if "jax" in sys.modules:
        return
    if not os.environ.get(FOLDER):
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK):  # JAX would warn of every program
            return
        os.environ[FOLDER] = str(folder)
    os.environ.setdefault(MIN_SECONDS, "0")  # most programs of a run are small, and it needs all of them
    # jaxlib 0.10.1 calls features of the processor that only its compiler knows an error, with every program that it loads
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def cached_files() -> list[Path]:
    """The files of the cache; others in the same folder are left out."""
    return sorted(path for path in cache_folder().glob("*") if path.name.endswith(SUFFIXES) and path.is_file())


def clear_cache() -> int:
    """Remove the files of the cache; returns how many bytes they had."""
    freed = 0
    for path in cached_files():
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed
