"""The command line: argument parsing only; one file per command does the work.

Exit status: 0 all well, 1 the verdict or check failed, 2 the input cannot be used (one message, no traceback),
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys

from .._version import __version__
from ..errors import Phi4pplError
from ..kernels.kernel import kernels
from .check_command import check
from .compare_command import compare
from .doctor_command import doctor
from .fit_command import fit
from .infer_command import infer
from .model_files import failure_in_model
from .models_command import models
from .option_names import for_command_line
from .outcome import INTERRUPTED, UNUSABLE
from .report_command import report
from .run_command import run

__all__ = ["main"]


class _Set(argparse.Action):
    """Collect NAME=VALUE pairs."""

    def __call__(self, parser, namespace, text, option_string=None):
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            parser.error(f"--set {text}: expected NAME=VALUE, for example --set a=1.9")
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), name: value})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="phi4ppl", description="Lattice actions and other Markov random fields as probabilistic programs."
    )
    parser.add_argument("--version", action="version", version=f"phi4ppl {__version__}")
    commands_of = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name, function, text):
        sub = commands_of.add_parser(name, help=text, description=function.__doc__)
        sub.set_defaults(function=function, command=name)
        return sub

    def with_model(sub):
        sub.add_argument("model", metavar="MODEL", help="a Python file, or the name of a shipped model")
        sub.add_argument("--set", action=_Set, metavar="NAME=VALUE", help="a setting of the model; may be repeated")

    with_model(command("check", check, "check a model against the Hammersley–Clifford theorem"))
    run_parser = command("run", run, "check, sample, judge and report a model")
    with_model(run_parser)
    run_parser.add_argument("--chains", type=int, default=4, help="number of chains (default: %(default)s)")
    run_parser.add_argument("--samples", type=int, default=2000, help="kept draws per chain (default: %(default)s)")
    run_parser.add_argument("--warmup", type=int, default=1000, help="warm-up steps (default: %(default)s)")
    run_parser.add_argument("--thinning", type=int, default=1, help="kernel steps per kept draw (default: %(default)s)")
    names = f"{', '.join(kernels())}, or tempering:N for N copies (default: %(default)s)"
    run_parser.add_argument("--kernel", default="auto", help=names)
    run_parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: %(default)s)")
    run_parser.add_argument("--output", metavar="FOLDER", help="where results go (default: runs/MODEL)")
    run_parser.add_argument(
        "--checkpoint", metavar="FOLDER", help="keep the state of the run there, and continue from it"
    )
    run_parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    run_parser.add_argument("--no-field", action="store_true", help="keep observables only, not the fields")
    run_parser.add_argument(
        "--no-symmetry-moves", action="store_true", help="leave out the exact sign flip of even models"
    )
    run_parser.add_argument("--quiet", action="store_true", help="no progress line")
    report_parser = command("report", report, "judge a run again and write its report")
    report_parser.add_argument(
        "run", metavar="RUN", help="the folder of a run, its samples.nc, or a checkpoint, also a live one"
    )
    fit_parser = command("fit", fit, "fit the couplings of a model to data or to another action")
    with_model(fit_parser)
    source = fit_parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="FILE", help="samples of the field: .npy, .npz, .nc, .csv or .parquet")
    source.add_argument("--target", metavar="MODEL", help="another model, whose action is to be matched")
    fit_parser.add_argument("--method", help="a method of phi4ppl.fit_likelihood or phi4ppl.fit_variational")
    fit_parser.add_argument(
        "--inhomogeneous", action="store_true", help="fit one coupling per clique instead of one per term"
    )
    fit_parser.add_argument("--steps", type=int, help="the most steps, for methods that make several")
    fit_parser.add_argument("--seed", type=int, default=0, help="seed of the fit (default: %(default)s)")
    fit_parser.add_argument("--output", metavar="FOLDER", help="where results go (default: fits/MODEL)")
    fit_parser.add_argument("--overwrite", action="store_true", help="replace an earlier fit in that folder")
    fit_parser.add_argument("--quiet", action="store_true", help="no progress line")
    _with_evidence(command, with_model)
    models_parser = command("models", models, "list the shipped models")
    models_parser.add_argument("--settings", action="store_true", help="also list what --set can change")
    command("doctor", doctor, "say what is installed and test the whole path")
    return parser


def _with_evidence(command, with_model) -> None:
    """``infer`` and ``compare``."""
    prior = "a prior, such as w=uniform:0.4,1.2 or b=halfnormal:0.5; may be repeated"

    def with_data(sub, folder):
        sub.add_argument("--data", metavar="FILE", required=True, help="fields: .npy, .npz, .nc, .csv or .parquet")
        sub.add_argument("--seed", type=int, default=0, help="seed (default: %(default)s)")
        sub.add_argument("--output", metavar="FOLDER", help=f"where results go (default: {folder})")
        sub.add_argument("--overwrite", action="store_true", help="replace earlier results in that folder")
        sub.add_argument("--quiet", action="store_true", help="no progress line")

    infer_parser = command("infer", infer, "infer couplings of a model from fields, with a report")
    with_model(infer_parser)
    infer_parser.add_argument("--prior", action="append", metavar="COUPLING=PRIOR", help=prior)
    infer_parser.add_argument("--normalizer", default="auto", help="of phi4ppl.infer_couplings (default: %(default)s)")
    text = "steps of each auxiliary chain of --normalizer exchange (default: %(default)s)"
    infer_parser.add_argument("--num-auxiliary", type=int, default=50, metavar="STEPS", help=text)
    infer_parser.add_argument("--chains", type=int, default=4, help="number of chains (default: %(default)s)")
    infer_parser.add_argument("--samples", type=int, default=1000, help="draws per chain (default: %(default)s)")
    infer_parser.add_argument("--warmup", type=int, default=500, help="warm-up steps (default: %(default)s)")
    with_data(infer_parser, "inferences/MODEL")
    compare_parser = command("compare", compare, "compare models by evidence and prediction on fields")
    compare_parser.add_argument("models", nargs="+", metavar="MODEL", help="Python files, or names of shipped models")
    compare_parser.add_argument("--prior", action="append", metavar="[MODEL.]COUPLING=PRIOR", help=prior)
    with_data(compare_parser, "comparisons/MODELS")


def _of_the_system(error: OSError) -> str:
    return f"{error.filename or ''}: {error.strerror or error}"


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script ``phi4ppl``; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.function(arguments)
    except Phi4pplError as error:
        print(f"phi4ppl: {for_command_line(str(error), arguments.command)}", file=sys.stderr)
        return UNUSABLE
    except Exception as error:
        if (failure := failure_in_model(error)) is None and not isinstance(error, OSError):
            raise
        print(f"phi4ppl: {failure or _of_the_system(error)}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("\nphi4ppl: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
