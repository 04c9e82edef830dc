"""Commands and their options. Nothing is imported to parse them: defaults and choices come from the library when needed.

An option that stands for an argument of a function borrows its default; `Command.fill` looks it up when the command runs, and
`Command.format_help` when its help is shown.
"""

from __future__ import annotations

import argparse
import inspect
from importlib import import_module

from .._version import __version__

__all__ = ["Command", "parser"]

EXAMPLES = {
    "phi4ppl": ("phi4ppl run phi4_square", "phi4ppl models", "phi4ppl run --help"),
    "check": ("phi4ppl check phi4_square --set size=8",),
    "run": (
        "phi4ppl run phi4_square --set size=32 --samples 4000",
        "phi4ppl run mine.py --kernel tempering:8 --output runs/cold",
        "phi4ppl run random_field.py --realizations 100",
    ),
    "report": ("phi4ppl report runs/phi4_square",),
    "fit": (
        "phi4ppl fit mine.py --data fields.npy --method pseudolikelihood",
        "phi4ppl fit phi4_square --target other.py",
    ),
    "infer": ("phi4ppl infer mine.py --data fields.npy --prior w=uniform:0.4,1.2",),
    "compare": ("phi4ppl compare one.py other.py --data fields.npy --prior b=halfnormal:0.5",),
    "scan": ("phi4ppl scan phi4_square --vary a=1.4:1.7:7 --sizes 8,16,32",),
    "renormalize": (
        "phi4ppl renormalize phi4_square --set size=64",
        "phi4ppl renormalize phi4_square --set size=128 --levels 4 --rule majority",
    ),
    "cascade": ("phi4ppl cascade phi4_square --to 512",),
    "spectrum": ("phi4ppl spectrum digits.npz --target y", "phi4ppl spectrum runs/phi4_square/samples.nc"),
    "lens": ("phi4ppl lens classifier.py",),
    "evolve": (
        "phi4ppl evolve phi4_square --time 20 --film out.gif",
        "phi4ppl evolve phi4_square --process langevin --step mala --time 20",
    ),
    "models": ("phi4ppl models --settings",),
    "doctor": ("phi4ppl doctor", "phi4ppl doctor --clear-cache"),
}
DATA_FILES = ".npy, .npz, .nc, .csv or .parquet"
PRIOR = "a prior, such as w=uniform:0.4,1.2 or b=halfnormal:0.5; may be repeated"
ETA = "exponent of the scale of the field (default: that of the Ising class)"
SAMPLE = "results.run:sample"
INFER = "inference.couplings:infer_couplings"
COMPARE = "inference.compare:compare"
SCAN = "renormalization.finite_size:finite_size_scaling"
RG = "renormalization.monte_carlo_rg:monte_carlo_rg"
FLOW = "renormalization.flow:flow"
SPECTRUM = "spectral.spectral_page:report"
LENS = "lens.lens_page:report"
EVOLVE = "dynamics.evolve:evolve"
CASCADE = "renormalization.cascade:cascade"
FITS = ("learning.likelihood", "learning.variational")


def _epilog(name: str) -> str:
    shown = "\n".join(f"  {line}" for line in EXAMPLES[name])
    return f"example{'s' * (len(EXAMPLES[name]) > 1)}:\n{shown}"


def _found(place: str):
    """The object at ``module:name`` of this package."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"..{module}", __package__), name)


class _Set(argparse.Action):
    """Collect NAME=VALUE pairs."""

    def __call__(self, parser, namespace, text, option_string=None):
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            parser.error(f"--set {text}: expected NAME=VALUE, for example --set a=1.9")
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), name: value})


class Command(argparse.ArgumentParser):
    """The parser of one command, with options that borrow from functions of the library."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        self.borrowed, self.choices_of = {}, {}

    def borrow(self, option: str, place: str, text: str, *, choices: str | None = None, **options) -> None:
        """Add an option whose default is that of an argument: ``module:function.argument``, inside this package.

        ``choices`` names a dict or tuple, or a function that returns one or a text: what stands for ``%(known)s`` in the
        help.
        """
        action = self.add_argument(option, help=f"{text} (default: %(default)s)", **options)
        self.borrowed[action.dest] = (action, *place.rsplit(".", 1))
        if choices is not None:
            self.choices_of[action] = choices

    def defaults(self) -> dict[str, object]:
        """The defaults of the borrowed options by name, as the functions have them now."""
        return {
            dest: inspect.signature(_found(function)).parameters[argument].default
            for dest, (_, function, argument) in self.borrowed.items()
        }

    def fill(self, arguments: argparse.Namespace) -> None:
        """Give options that were not typed the defaults of their functions."""
        for dest, default in self.defaults().items():
            if getattr(arguments, dest) is None:
                setattr(arguments, dest, default)

    def format_help(self) -> str:
        for dest, default in self.defaults().items():
            self.borrowed[dest][0].default = default
        for action, place in self.choices_of.items():
            names = _found(place)
            names = names() if callable(names) else names
            action.known = names if isinstance(names, str) else ", ".join(names)
        return super().format_help()


def parser() -> argparse.ArgumentParser:
    """The parser of the console script."""
    whole = argparse.ArgumentParser(
        prog="phi4ppl", description="Lattice actions and other Markov random fields as probabilistic programs.",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_epilog("phi4ppl"),
    )  # fmt: skip
    whole.add_argument("--version", action="version", version=f"phi4ppl {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Command)

    def command(name: str, text: str) -> Command:
        description = text[0].upper() + text[1:] + "."
        sub = commands.add_parser(name, help=text, description=description, epilog=_epilog(name))
        sub.set_defaults(parser=sub, command=name)
        return sub

    _with_model(command("check", "check a model against the Hammersley–Clifford theorem"))
    _run(command("run", "check and sample a model, diagnose convergence, write a report"))
    sub = command("report", "check the convergence of a run again and write its report")
    sub.add_argument(
        "run", metavar="RUN", help="the folder of a run, its samples.nc, or a checkpoint (also of a run in progress)"
    )
    _fit(command("fit", "fit the couplings of a model to data or to another action"))
    _infer(command("infer", "infer couplings of a model from fields, with a report"))
    _compare(command("compare", "compare models by evidence and prediction on fields"))
    _scan(command("scan", "find the critical coupling of a model by finite-size scaling"))
    _renormalize(command("renormalize", "block fields of a model: exponents, and the flow of couplings"))
    _cascade(command("cascade", "make fields of large lattices from those of small ones"))
    _spectrum(command("spectrum", "count the features of a table, a kernel matrix or the fields of a run"))
    _lens(command("lens", "read a trained model as a field theory, in eight steps"))
    _evolve(command("evolve", "move a field in time, with a film"))
    sub = command("models", "list the shipped models")
    sub.add_argument("--settings", action="store_true", help="also list what --set can change")
    sub = command("doctor", "show installed versions and run a self-test")
    sub.add_argument("--clear-cache", action="store_true", help="remove compiled programs kept on disk, and stop")
    return whole


def _with_model(sub: Command) -> None:
    sub.add_argument("model", metavar="MODEL", help="a Python file, or the name of a shipped model")
    sub.add_argument("--set", action=_Set, metavar="NAME=VALUE", help="a setting of the model; may be repeated")


def _with_folder(sub: Command, folder: str, what: str) -> None:
    sub.add_argument("--output", metavar="FOLDER", help=f"where results go (default: {folder})")
    sub.add_argument("--overwrite", action="store_true", help=f"replace {what} in that folder")
    sub.add_argument("--quiet", action="store_true", help="no progress line")


def _with_chains(sub: Command, function: str) -> None:
    sub.borrow("--chains", f"{function}.num_chains", "number of chains", type=int)
    sub.borrow("--samples", f"{function}.num_samples", "kept draws per chain", type=int)
    sub.borrow("--warmup", f"{function}.num_warmup", "warm-up steps", type=int)


def _run(sub: Command) -> None:
    _with_model(sub)
    _with_chains(sub, SAMPLE)
    sub.borrow("--thinning", f"{SAMPLE}.thinning", "kernel steps per kept draw", type=int)
    names = "%(known)s, or tempering:N for N copies"
    sub.borrow("--kernel", f"{SAMPLE}.kernel", names, choices="kernels.kernel:kernels")
    sub.borrow("--seed", f"{SAMPLE}.seed", "seed of the run", type=int)
    sub.add_argument("--checkpoint", metavar="FOLDER", help="save the state of the run there, or resume from it")
    sub.add_argument("--no-field", action="store_true", help="keep observables only, not the fields")
    text = "of a model file that declares `disorder`: draws of the couplings (default: 50)"
    sub.add_argument("--realizations", type=int, metavar="N", help=text)
    text = "of such a file: independent chains of each realisation (default: 2)"
    sub.add_argument("--replicas", type=int, metavar="N", help=text)
    text = "leave out the exact sign flip of even models"
    sub.add_argument("--no-symmetry-moves", action="store_true", help=text)
    _with_folder(sub, "runs/MODEL", "an earlier run")


def _fit(sub: Command) -> None:
    _with_model(sub)
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="FILE", help=f"samples of the field: {DATA_FILES}")
    source.add_argument("--target", metavar="MODEL", help="another model, whose action is to be matched")
    action = sub.add_argument("--method", help="%(known)s (the first of each is the default)")
    sub.choices_of[action] = "cli.options:fit_methods"
    text = "fit one coupling per clique instead of one per term"
    sub.add_argument("--inhomogeneous", action="store_true", help=text)
    sub.add_argument("--steps", type=int, help="maximum number of steps of an iterative method")
    sub.borrow("--seed", f"{FITS[0]}:fit_likelihood.seed", "seed of the fit", type=int)
    _with_folder(sub, "fits/MODEL", "an earlier fit")


def fit_methods() -> str:
    """What ``phi4ppl fit --method`` can be, from data and from a target."""
    of_data, of_target = (
        ", ".join(_found(place)) for place in ("learning.methods:METHODS", "learning.variational:METHODS")
    )
    return f"with --data {of_data}; with --target {of_target}"


def _infer(sub: Command) -> None:
    _with_model(sub)
    sub.add_argument("--data", metavar="FILE", required=True, help=f"fields: {DATA_FILES}")
    sub.add_argument("--prior", action="append", metavar="COUPLING=PRIOR", help=PRIOR)
    sub.borrow("--normalizer", f"{INFER}.normalizer", "%(known)s", choices="inference.couplings:NORMALIZERS")
    text = "steps of each auxiliary chain of --normalizer exchange"
    sub.borrow("--num-auxiliary", f"{INFER}.num_auxiliary", text, type=int, metavar="STEPS")
    _with_chains(sub, INFER)
    sub.borrow("--seed", f"{INFER}.seed", "seed", type=int)
    _with_folder(sub, "inferences/MODEL", "earlier results")


def _compare(sub: Command) -> None:
    sub.add_argument("models", nargs="+", metavar="MODEL", help="Python files, or names of shipped models")
    sub.add_argument("--data", metavar="FILE", required=True, help=f"fields: {DATA_FILES}")
    sub.add_argument("--prior", action="append", metavar="[MODEL.]COUPLING=PRIOR", help=PRIOR)
    sub.borrow("--seed", f"{COMPARE}.seed", "seed", type=int)
    _with_folder(sub, "comparisons/MODELS", "earlier results")


def _scan(sub: Command) -> None:
    _with_model(sub)
    text = "the coupling, and the range and number of values among which the curves of the two smallest sizes cross"
    sub.add_argument("--vary", metavar="NAME=FIRST:LAST:NUMBER", required=True, help=text)
    text = "sides of the lattice; the model file is a function build(size=…, …), which is called for each"
    sub.add_argument("--sizes", metavar="L,L,…", required=True, help=text)
    sub.add_argument(
        "--omega", type=float, help="exponent of corrections to scaling (default: fitted, with a prior of 1.3 ± 0.5)"
    )
    _with_chains(sub, SCAN)
    sub.borrow("--seed", f"{SCAN}.seed", "seed", type=int)
    _with_folder(sub, "scans/MODEL", "an earlier scan")


def _renormalize(sub: Command) -> None:
    _with_model(sub)
    sub.add_argument("--levels", type=int, help="how many times to block (default: as many as the lattice allows)")
    text = "rule of blocking, or several with commas, one per level: %(known)s"
    action = sub.add_argument("--rule", metavar="RULE,…", help=text)
    sub.choices_of[action] = "cli.options:blocking_rules"
    sub.add_argument("--eta", type=float, help=ETA)
    sub.add_argument("--no-check", action="store_true", help="do not sample the fitted models again")
    _with_chains(sub, FLOW)
    sub.borrow("--seed", f"{RG}.seed", "seed", type=int)
    _with_folder(sub, "renormalizations/MODEL", "earlier results")


def blocking_rules() -> str:
    """What ``phi4ppl renormalize --rule`` can be, and what it is."""
    usual = inspect.signature(_found(RG)).parameters["rule"].default
    return f"{', '.join(_found('renormalization.rules:RULES'))} (default: {','.join(usual)})"


def _cascade(sub: Command) -> None:
    _with_model(sub)
    text = "side of the last lattice, that of the start times a power of two; the model file is a function build(size=…, …)"
    sub.add_argument("--to", metavar="L", type=int, required=True, help=text)
    sub.borrow("--start", f"{CASCADE}.start", "side of the lattice that is sampled", metavar="L", type=int)
    sub.borrow("--fields", f"{CASCADE}.fields", "number of independent fields", type=int)
    sub.borrow("--lift", f"{CASCADE}.lift", "%(known)s", choices="renormalization.cascade:LIFTS")
    sub.add_argument("--eta", type=float, help=ETA)
    sub.borrow("--seed", f"{CASCADE}.seed", "seed", type=int)
    _with_folder(sub, "cascades/MODEL", "earlier results")


def _spectrum(sub: Command) -> None:
    sub.add_argument("data", metavar="DATA", help="points in a .npz or .csv file, one a row, or the .nc file of a run")
    text = "rbf, laplace, matern, polynomial, linear, or precomputed for a kernel matrix (rbf where it is not given)"
    sub.add_argument("--kernel", help=text)
    sub.add_argument("--target", metavar="COLUMN", help="the column, or array, with classes or values to be learned")
    sub.borrow("--baseline", f"{SPECTRUM}.baseline", "auto, rbf, laplace, matern or polynomial")
    sub.borrow("--seed", f"{SPECTRUM}.seed", "seed of the sub-samples", type=int)
    _with_folder(sub, "spectra/DATA", "an earlier spectrum")


def _lens(sub: Command) -> None:
    text = "a Python file that defines apply, params and data; labels, other, training and more are optional"
    sub.add_argument("model", metavar="MODEL.py", help=text)
    sub.borrow("--seed", f"{LENS}.seed", "seed of groups, folds and directions", type=int)
    _with_folder(sub, "lenses/MODEL", "an earlier report")


def _evolve(sub: Command) -> None:
    sub.add_argument(
        "model",
        metavar="MODEL|PROCESS.py",
        help="a model, or a Python file with a `process` (and a `start`, if it likes)",
    )
    sub.add_argument("--set", action=_Set, metavar="NAME=VALUE", help="a setting of the model; may be repeated")
    sub.add_argument("--time", type=float, required=True, help="how long, in units of the process")
    action = sub.add_argument("--process", help="of a model: %(known)s (the first where none is given)")
    sub.choices_of[action] = "cli.evolve_command:PROCESSES"
    action = sub.add_argument("--step", help="of --process langevin: %(known)s (the first where none is given)")
    sub.choices_of[action] = "dynamics.langevin:STEPS"
    sub.add_argument("--start", metavar="FILE", help=f"fields to start from: {DATA_FILES} (default: small random ones)")
    sub.add_argument("--step-size", type=float, help="time of a step (default: the process's own)")
    sub.add_argument("--every", type=float, help="time between records (default: a hundredth of --time)")
    sub.add_argument("--replicas", type=int, help="how many fields move (default: as many as the start has)")
    sub.borrow("--seed", f"{EVOLVE}.seed", "seed of the noise and of a random start", type=int)
    sub.add_argument("--film", metavar="FILE", help="a film, .gif or .html")
    sub.add_argument("--checkpoint", metavar="FOLDER", help="save the state of the run there, or resume from it")
    _with_folder(sub, "evolutions/MODEL", "earlier results")
