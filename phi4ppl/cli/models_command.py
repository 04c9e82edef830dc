"""``phi4ppl models``."""

from __future__ import annotations

from .model_files import load_model_file, shipped_models, summary_of
from .status import PASSED

__all__ = ["models"]


def models(arguments) -> int:
    """List the shipped models with their settings."""
    width = max(map(len, shipped_models()))
    for name, path in shipped_models().items():
        print(f"{name:<{width}}  {summary_of(path)}")
        if arguments.settings:
            parameters = load_model_file(name).parameters
            print(" " * width + "  " + ", ".join(f"{key}={value!r}" for key, value in parameters.items()))
    return PASSED
