"""The command line: argument parsing only; one file per command does the work.

Exit status: 0 all well, 1 the verdict or check failed, 2 the input cannot be used (one message, no traceback),
130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from importlib import import_module

from .compile_cache import use_compile_cache
from .options import parser
from .status import INTERRUPTED, UNUSABLE

__all__ = ["main"]


def _of_the_system(error: OSError) -> str:
    return f"{error.filename or ''}: {error.strerror or error}"


def _explained(error: Exception, command: str) -> str | None:
    """One message for an error that is the user's to fix; None for a fault of this library."""
    from ..errors import Phi4pplError
    from .model_files import failure_in_model
    from .option_names import for_command_line

    if isinstance(error, Phi4pplError):
        return for_command_line(str(error), command)
    if (failure := failure_in_model(error)) is not None:
        return str(failure)
    return _of_the_system(error) if isinstance(error, OSError) else None


def _one_line(command: str, message, category, filename, lineno, line=None) -> str:
    """A warning as the command line shows it: in the words of the command, without the place in the code."""
    from .option_names import for_command_line

    return f"phi4ppl: {' '.join(for_command_line(str(message), command).split())}\n"


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script ``phi4ppl``; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        parser().print_help()
        return UNUSABLE
    arguments = parser().parse_args(argv)
    usual, warnings.formatwarning = warnings.formatwarning, partial(_one_line, arguments.command)
    try:
        use_compile_cache()
        arguments.parser.fill(arguments)
        return getattr(import_module(f".{arguments.command}_command", __package__), arguments.command)(arguments)
    except Exception as error:
        if (text := _explained(error, arguments.command)) is None:
            raise
        print(f"phi4ppl: {text}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("\nphi4ppl: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        warnings.formatwarning = usual


if __name__ == "__main__":
    sys.exit(main())
