"""Messages name what the caller can change: arguments of functions in Python, options on the command line."""

import argparse
import ast
import copy
import enum
import inspect
import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.cli import option_names
from phi4ppl.cli.option_names import ARGUMENTS, ELSEWHERE, OPTIONS, for_command_line
from phi4ppl.cli.options import parser
from phi4ppl.cli.run_command import _kernel
from phi4ppl.errors import CallError, Phi4pplError
from phi4ppl.errors.arguments import call_checked, finite_array
from phi4ppl.inference.couplings import NORMALIZERS
from phi4ppl.lattice.labels import MISSING_FIELDS

PACKAGES = (p4, p4.exact, p4.lattice, p4.networks, p4.observables, p4.quartic, p4.sampling)


def public_callables() -> dict[str, object]:
    """Functions, classes and public methods that users can call by name; exceptions and enumerations take what Python gives."""
    found = {}
    for package in PACKAGES:
        for name in package.__all__:
            thing = getattr(package, name)
            if inspect.ismodule(thing) or not callable(thing):
                continue
            if isinstance(thing, type) and (
                issubclass(thing, Exception | enum.Enum) or getattr(thing, "_is_protocol", False)
            ):
                continue  # nobody calls the methods of a protocol
            found[f"{package.__name__}.{name}"] = thing
            if isinstance(thing, type):
                for base in thing.__mro__:
                    if base.__module__.startswith("phi4ppl"):
                        fields = ("_", *vars(base).get("__annotations__", {}))
                        methods = {k: getattr(thing, k) for k, v in vars(base).items() if not k.startswith(fields)
                                   and isinstance(v, type(public_callables) | classmethod | staticmethod)}  # fmt: skip
                        found |= {f"{package.__name__}.{name}.{k}": m for k, m in methods.items()}
    return found


CALLABLES = public_callables()


def parameters_of(thing) -> dict:
    return dict(inspect.signature(thing).parameters)


def test_all_that_is_public_is_found():
    assert {"phi4ppl.sample", "phi4ppl.lattice.square", "phi4ppl.networks.train", "phi4ppl.GibbsField.sample",
            "phi4ppl.networks.Phi4RBM", "phi4ppl.networks.Phi4RBM.fit", "phi4ppl.sampling.tempering",
            "phi4ppl.MarkovRandomField.energy"} <= set(CALLABLES)  # fmt: skip
    assert len(CALLABLES) > 140


@pytest.mark.parametrize("name", CALLABLES)
def test_an_unknown_argument_names_the_nearest(name):
    """Every argument of every public callable, misspelled at its end and in its middle; and one that is near to none."""
    thing, parameters = CALLABLES[name], parameters_of(CALLABLES[name])
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return  # it takes any name, and passes it on or checks it itself
    with pytest.raises(CallError, match=r"expected the arguments .*; got 'xyzzy_0'\.") as caught:
        thing(xyzzy_0=1)
    of_model = " Keyword arguments of a NumPyro model go in model_kwargs={'xyzzy_0': …}."
    assert str(caught.value).endswith("got 'xyzzy_0'." + (of_model if "model_kwargs" in parameters else ""))
    assert isinstance(caught.value, Phi4pplError) and isinstance(caught.value, TypeError)
    assert name.split(".")[-1] in str(caught.value) and caught.value.__cause__ is None
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL or len(parameter.name) < 4 or parameter.name == "self":
            continue
        for wrong in (parameter.name[:-1], parameter.name[:2] + "x" + parameter.name[2:]):
            if wrong not in parameters:
                with pytest.raises(CallError, match=rf"got '{wrong}'\. Did you mean '\w+'\?$") as caught:
                    thing(**{wrong: 1})
                near = re.search(r"mean '(\w+)'", str(caught.value)).group(1)
                assert near == parameter.name


def test_the_message_of_the_review():
    model = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)
    with pytest.raises(TypeError, match=r"^sample: expected the arguments model, \*args, num_warmup, .*; got 'num_sample'\. "
                       r"Did you mean 'num_samples'\?$"):  # fmt: skip
        p4.sample(model, num_sample=10)
    with pytest.raises(
        CallError, match=r"^square: expected the arguments nx, ny, .*; missing a required argument: 'nx'\.$"
    ):
        p4.lattice.square()
    with pytest.raises(
        CallError, match=r"^plaquettes: expected the arguments lattice; too many positional arguments\.$"
    ):
        p4.lattice.plaquettes(1, 2)
    with pytest.raises(CallError, match=r"^Phi4RBM: .*Did you mean 'n_components'\?$"):
        p4.networks.Phi4RBM(n_component=3)
    with pytest.raises(CallError, match=r"^MarkovRandomField\.energy: expected the arguments phi; got 'ph'"):
        model.energy(ph=1)


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda: p4.phi4(p4.lattice.chain(4), W=1.0, a=1.4, b=0.2), "Did you mean 'w'?"),
        (lambda: p4.lattice.chain(4, PERIODIC=False), "Did you mean 'periodic'?"),
        (lambda: p4.lattice.chain(4, Periodc=False), "Did you mean 'periodic'?"),
        (lambda: p4.sample(lambda y: None, y=3), "Keyword arguments of a NumPyro model go in model_kwargs={'y': …}."),
        (lambda: p4.sample(lambda y: None, Seed=3), "Did you mean 'seed'?"),
    ],
)
def test_advice_on_names_in_another_case_and_on_arguments_of_a_model(call, advice):
    with pytest.raises(CallError) as caught:
        call()
    assert str(caught.value).endswith(f". {advice}")


def test_an_error_inside_a_function_stays_what_it_is():
    """A TypeError that a call which fits its signature raises is of the function, with its traceback."""

    @call_checked
    def outer(function):
        return function(1, 2)

    with pytest.raises(TypeError, match="takes 1 positional argument") as caught:
        outer(lambda x: x)
    assert not isinstance(caught.value, Phi4pplError)
    assert [frame.name for frame in caught.traceback][-2:] == ["checked", "outer"]

    @call_checked
    def passing(**options):
        return len("abc", **options)

    with pytest.raises(TypeError) as caught:
        passing(length=3)
    assert not isinstance(caught.value, CallError)


def test_decorated_functions_and_classes_stay_what_they_are():
    assert str(inspect.signature(p4.exact.quadrature)).startswith("(model: 'MarkovRandomField', observables:")
    assert p4.sample.__doc__.startswith("Draws of a field") and p4.sample.__module__ == "phi4ppl.results.run"
    for thing in (p4.sample, p4.lattice.square, p4.Term, p4.networks.Phi4Units):
        assert pickle.loads(pickle.dumps(thing)) is thing
    moments = p4.quartic.moments(0.1, 1.0, 0.2)
    assert type(copy.copy(moments)) is type(moments._replace(second=0.0)) is p4.quartic.Moments
    model = p4.gaussian(p4.lattice.chain(3), w=0.2, a=1.0)
    gradient = jax.jit(jax.grad(p4.exact.gaussian_log_partition))(model)
    assert isinstance(gradient, p4.MarkovRandomField) and jnp.isfinite(gradient.couplings["w"])
    assert jax.vmap(lambda w: model.replace(w=w).energy(jnp.ones(3)))(jnp.ones(2)).shape == (2,)


def test_complex_numbers_are_refused_without_dropping_a_part():
    with pytest.raises(p4.errors.ArgumentError, match="Give its real and its imaginary part one at a time"):
        finite_array("series", np.ones(3) * 1j, "Remove the draw.")


# --- on the command line

ROOT = Path(p4.__file__).parent
INFER = (
    "couplings",
    "problem",
    "log_z",
    "interpolated",
    "exchange",
    "mode",
    "corrected_pseudolikelihood",
    "predictive_check",
)
SPOKEN = {  # where the messages come from that a command can show
    "run": ("results/verdict.py", "results/run.py", "sampling/*.py", "kernels/*.py"),
    "report": ("results/verdict.py",),
    "infer": ("results/verdict.py", *(f"inference/{name}.py" for name in INFER)),
    "compare": tuple(f"inference/{name}.py" for name in ("compare", "average", "importance", "mode")),
    "fit": ("learning/*.py",),
    "renormalize": tuple(f"renormalization/{name}.py" for name in ("blocking", "flow_result", "monte_carlo_rg*")),
    "cascade": tuple(f"renormalization/{name}.py" for name in ("cascade", "cascade_result", "lifts")),
    "spectrum": tuple(
        f"spectral/{name}.py" for name in ("spectral_*", "spectra", "dense_spectra", "field_modes", "gram")
    ),
}
CALLED = {  # what a command calls, and arguments that it gives without an option
    "run": (p4.sample, {"observables", "model_kwargs", "devices", "coords", "dims", "predictive", "start"}),
    "infer": (p4.infer_couplings, set()),
    "compare": (p4.compare, {"prior_weights", "num_draws"}),
    "fit": (p4.fit_likelihood, {"ridge", "initial", "num_chains", "kernel", "batch_size", "sweeps", "optimizer",
                                "average_last"}),
    "cascade": (p4.renormalization.cascade, {"eta", "correction", "sweeps", "kernel", "keep_fields"}),
    "renormalize": (p4.renormalization.flow, {"eta", "basis", "factor", "method", "kernel", "lattice", "subtract_mean"}),
    "spectrum": (p4.spectral.report, {"path", "ridge"}),
}  # fmt: skip


def options_of(command: str) -> set[str]:
    """What the parser of a command takes."""
    (subparsers,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name for action in subparsers.choices[command]._actions for name in (*action.option_strings, action.metavar)
    }


def texts_of(path: Path) -> list[str]:
    """Strings of a module that are no docstrings, with 7 for every value inside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    docs = {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(v.value if isinstance(v, ast.Constant) else "7" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (inside | docs):
            found.append(node.value)
    return found


def wrong_words(text: str, command: str) -> list[str]:
    """Arguments of Python, and options that the command does not have, in what a command would show."""
    options = options_of("run" if command == "report" else command)  # its advice is for the next run
    shown = for_command_line(f"What is wrong. {text.strip()}", command)
    python = re.findall(rf"\b(?:{'|'.join(ARGUMENTS)})=\S+|phi4ppl\.sampling\.[a-z]\w*", shown)
    return python + [option for option in re.findall(r"(?<![=\w])--[a-z][a-z-]+", shown) if option not in options]


@pytest.mark.parametrize("command", SPOKEN)
def test_advice_on_the_command_line_names_options_that_the_command_has(command):
    """Every text of the modules behind a command, whatever is written there: planted advice is caught in the test below."""
    texts = [(p.name, text) for pattern in SPOKEN[command] for p in sorted(ROOT.glob(pattern)) for text in texts_of(p)]
    assert len(texts) > 20
    assert [(name, text, wrong) for name, text in texts if (wrong := wrong_words(text, command))] == []


def test_planted_advice_is_caught(monkeypatch):
    with monkeypatch.context() as patch:  # an option that the command lacks
        patch.setitem(OPTIONS, "infer", OPTIONS["infer"] | {"thinning": "--thinning"})
        assert wrong_words("Take thinning=4.", "infer") == ["--thinning"]
    with monkeypatch.context() as patch:  # an argument that nobody translates
        patch.setitem(OPTIONS, "run", {k: v for k, v in OPTIONS["run"].items() if k != "num_samples"})
        patch.setattr(option_names, "_without", lambda text, names: text)
        assert wrong_words("Take num_samples=4000.", "run") == ["num_samples=4000."]


@pytest.mark.parametrize("command", OPTIONS)
def test_options_are_those_of_the_parser(command):
    known = options_of("run" if command == "report" else command)
    assert set(OPTIONS[command].values()) <= known
    if command in CALLED:
        function, without = CALLED[command]
        arguments = {n for n, p in parameters_of(function).items() if p.kind is p.KEYWORD_ONLY} | {"priors", "data"}
        arguments &= set(parameters_of(function))
        assert arguments <= set(OPTIONS[command]) | without | set(ELSEWHERE)


@pytest.mark.parametrize(
    ("text", "command", "shown"),
    [
        ("num_chains: expected 1, got 0.", "run", "--chains: expected 1, got 0."),
        ("seed: expected an integer", "fit", "--seed: expected an integer"),
        ("run longer (num_samples, num_warmup), and look", "run", "run longer (--samples, --warmup), and look"),
        ("(num_samples=4000, or thinning=2 for the same memory).", "run",
         "(--samples 4000, or --thinning 2 for the same memory)."),
        ("(num_samples=4000, or thinning=2 for the same memory).", "infer", "(--samples 4000)."),
        ("Stuck. Try kernel=phi4ppl.sampling.tempering(12).", "run", "Stuck. Try --kernel tempering:12."),
        ("Stuck. Try kernel=phi4ppl.sampling.tempering(12).", "infer", "Stuck."),
        ("Sample with symmetry_moves=True.", "run", "Sample without --no-symmetry-moves."),
        ("Moved. Pass a PartitionSurface of more num_samples as normalizer.", "infer",
         "Moved. Try --normalizer exchange, which needs no surface."),
        ("data: expected shape (num_samples, 4, 4), got shape (3, 5).", "fit",
         "--data: expected shape (num_samples, 4, 4), got shape (3, 5)."),
        ("is of another run: num_samples is 40 there, 60 here.", "run", "is of another run: --samples is 40 there, 60 here."),
        ("  FAIL  ESS  7\n        → Few draws. Take kernel='nuts'.\n  pass  E-BFMI", "infer",
         "  FAIL  ESS  7\n        → Few draws.\n  pass  E-BFMI"),
        ("d.csv: got 'z'. If the order is that of lattice.nodes, give the bare array: d.csv.to_numpy().", "infer",
         "d.csv: got 'z'. If the order is that of lattice.nodes, save the numbers alone as a .npy file and give that."),
        ("a: got 'z'. If the order is that of lattice.nodes, give the bare array: a.to_numpy().", "infer",
         "a: got 'z'. If the order is that of lattice.nodes, give the bare array: a.to_numpy()."),
        ("x y.csv: expected one row per sample. Transpose it: x y.csv.T.", "fit",
         "x y.csv: expected one row per sample. Transpose the table."),
        (f"d.csv: got nan. {MISSING_FIELDS}", "fit", "d.csv: got nan. Leave out fields with missing values, or fill them in."),
        ("the seed of the kernel is a method of thinning", "run", "the seed of the kernel is a method of thinning"),
    ],
)  # fmt: skip
def test_messages_in_the_words_of_the_command_line(text, command, shown):
    assert for_command_line(text, command) == shown


def test_infer_leaves_the_normalizer_to_the_library():
    arguments = parser().parse_args(["infer", "ring.py", "--data", "fields.npy"])
    arguments.parser.fill(arguments)
    assert arguments.normalizer == "auto" and "auto" in NORMALIZERS


def test_copies_of_parallel_tempering_can_be_asked_for():
    kernel = _kernel("tempering:5")
    assert kernel.name == "tempering" and "5 copies" in kernel.summary and _kernel("nuts") == "nuts"


def test_names_of_kernels_in_help_and_message_are_all_that_the_option_takes(capsys):
    with pytest.raises(p4.errors.ArgumentError) as caught:
        _kernel("nutts")
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--help"])
    shown = re.search(r"--kernel KERNEL\s+(.*?)\(default", capsys.readouterr().out, re.DOTALL).group(1)
    for text in (" ".join(shown.split()), str(caught.value).replace("--kernel: expected one of ", "")):
        assert text.startswith(", ".join(p4.kernels()) + ", or tempering:N")
    assert "got 'nutts'" in str(caught.value)
