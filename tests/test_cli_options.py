"""Options of the command line: what they show, whose defaults they have, and the programs that commands keep on disk."""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import phi4ppl as p4
from phi4ppl.cli import compile_cache, options, outcome
from phi4ppl.cli.entry import main
from phi4ppl.inference.couplings import NORMALIZERS
from phi4ppl.learning import methods as methods_of_data
from phi4ppl.learning import variational
from phi4ppl.results.estimates import EstimateTable
from phi4ppl.results.verdict import Check, ConvergenceReport
from phi4ppl.sampling.progress import Progress

LINES = [line for lines in options.EXAMPLES.values() for line in lines if "--help" not in line]
NEEDED = {
    "run": ["m.py"],
    "fit": ["m.py", "--data", "d.npy"],
    "infer": ["m.py", "--data", "d.npy"],
    "compare": ["m.py", "--data", "d.npy"],
}
RUNS = {"run": p4.sample, "infer": p4.infer_couplings}


def commands() -> dict[str, options.Command]:
    (subparsers,) = (a for a in options.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return subparsers.choices


def test_without_arguments_the_help_is_shown_with_an_example(capsys):
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert "examples:\n  phi4ppl run phi4_square\n" in shown and all(name in shown for name in commands())


@pytest.mark.parametrize("name", sorted(options.EXAMPLES.keys() - {"phi4ppl"}))
def test_help_of_a_command_shows_its_examples_in_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = commands()[name].format_help()
    assert all(f"\n  {line}\n" in shown for line in options.EXAMPLES[name])
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("line", LINES)
def test_examples_are_understood(line):
    program, *words = shlex.split(line)
    assert program == "phi4ppl" and options.parser().parse_args(words).command == words[0]


def filled(command: str) -> argparse.Namespace:
    arguments = options.parser().parse_args([command, *NEEDED[command]])
    arguments.parser.fill(arguments)
    return arguments


@pytest.mark.parametrize("command", RUNS)
def test_defaults_are_those_of_the_functions(command):
    arguments, parameters = filled(command), inspect.signature(RUNS[command]).parameters
    for name in ("samples", "warmup", "chains"):
        assert getattr(arguments, name) == parameters[f"num_{name}"].default
    assert arguments.seed == parameters["seed"].default


def test_a_default_that_changes_in_the_function_changes_on_the_command_line(monkeypatch):
    def sample(*, num_samples=77, num_warmup=1, num_chains=1, thinning=1, kernel="auto", seed=0):
        return None

    monkeypatch.setattr("phi4ppl.results.run.sample", sample)
    assert filled("run").samples == 77
    assert "kept draws per chain (default: 77)" in " ".join(commands()["run"].format_help().split())


@pytest.mark.parametrize("name", sorted(options.EXAMPLES.keys() - {"phi4ppl"}))
def test_no_default_is_stated_twice(name):
    """An option has no default of its own: it is a switch, or borrows, or means that nothing was asked for."""
    own = {a.dest: a.default for a in commands()[name]._actions if a.default not in (None, False, argparse.SUPPRESS)}
    assert own == {}


def test_choices_are_shown_in_the_help():
    shown = {name: " ".join(commands()[name].format_help().split()) for name in ("run", "infer", "fit")}
    assert ", ".join(p4.kernels()) in shown["run"]
    assert ", ".join(NORMALIZERS) in shown["infer"]
    for function, methods, source in (
        (p4.fit_likelihood, methods_of_data.METHODS, "data"),
        (p4.fit_variational, variational.METHODS, "target"),
    ):
        assert f"with --{source} {', '.join(methods)}" in shown["fit"]
        assert next(iter(methods)) == inspect.signature(function).parameters["method"].default


def test_place_of_the_cache(monkeypatch, tmp_path):
    for name in (compile_cache.FOLDER, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for platform, below in (("linux", ".cache/phi4ppl"), ("darwin", "Library/Caches/phi4ppl")):
        monkeypatch.setattr(sys, "platform", platform)
        assert compile_cache.cache_folder() == tmp_path / below
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compile_cache.cache_folder() == tmp_path / "xdg" / "phi4ppl"
    monkeypatch.setenv(compile_cache.FOLDER, str(tmp_path / "mine"))  # JAX's own variable goes first
    assert compile_cache.cache_folder() == tmp_path / "mine"


def test_a_program_that_has_imported_jax_is_left_alone(monkeypatch):
    monkeypatch.delenv(compile_cache.FOLDER, raising=False)
    compile_cache.use_compile_cache()  # JAX is loaded in this process
    assert compile_cache.FOLDER not in os.environ


def test_without_a_place_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.delitem(sys.modules, "jax")
    for parent, kept in (("file", False), ("free", True)):
        monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / parent)})
        compile_cache.use_compile_cache()
        assert (compile_cache.FOLDER in os.environ) is kept


def test_clearing_the_cache_leaves_other_files(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(compile_cache.FOLDER, str(tmp_path))
    for name in ("jit_f-0a-cache", "jit_f-0a-atime", "notes.txt"):
        (tmp_path / name).write_bytes(b"12345")
    assert main(["doctor", "--clear-cache"]) == 0
    assert "2 files removed, 10 B" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# a console script, with an ear at the compiler
LISTENING = """
import collections, json, sys
from phi4ppl.cli.compile_cache import use_compile_cache
use_compile_cache()
import jax
heard = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: heard.update([event.rpartition("/")[2]]))
from phi4ppl.cli.entry import main
status = main(sys.argv[1:])
print(json.dumps([status, heard["cache_hits"], heard["cache_misses"]]))
"""


def test_a_second_run_of_the_same_shapes_compiles_nothing(run_python, tmp_path):
    words = ["run", "phi4_square", "--set", "size=4", "--samples", "20", "--warmup", "20", "--quiet", "--output"]
    environment = {compile_cache.FOLDER: "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    found = []
    for seed in ("1", "2"):  # other numbers, the same programs
        run = run_python(["-c", LISTENING, *words, seed, "--seed", seed], cwd=tmp_path, **environment)
        found.append(json.loads(run.stdout.splitlines()[-1]))
    (_, hits, misses), (_, hits_again, misses_again) = found
    assert hits == 0 and misses > 10
    assert hits_again == misses and misses_again == 0
    assert list((tmp_path / "cache" / "phi4ppl").glob("*-cache"))


def verdict_of(checks):
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"m": (("chain", "draw"), np.zeros((2, 20)))})})
    return ConvergenceReport(tuple(checks), tree, EstimateTable())


CHECKS = (
    Check("R-hat", True, "1.003 (worst: phi[3,12] of the field)", "at most 1.01 for every variable and site"),
    Check(
        "sign changes", False, "3 in chain 2", "at least 10 in every chain", "Chains are stuck. " + "Run longer. " * 12
    ),
)


@pytest.mark.parametrize("columns", [60, 80])
def test_verdicts_fit_the_terminal_and_lose_no_word(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = str(verdict_of(CHECKS))
    assert max(map(len, text.splitlines())) > 80
    shown = outcome.wrapped(text)
    assert max(map(len, shown.splitlines())) <= columns and shown.split() == text.split()


@pytest.mark.parametrize(("terminal", "no_color", "wanted"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_outcomes_are_colored_on_a_terminal_only(terminal, no_color, wanted, monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setenv("NO_COLOR", no_color)
    text = str(verdict_of(CHECKS))
    shown = outcome.colored(text)
    assert (shown == text) is not wanted
    if wanted:
        assert "\x1b[32mpass\x1b[0m  R-hat" in shown and "\x1b[31mFAIL\x1b[0m  sign changes" in shown
        assert shown.startswith("Convergence \x1b[31mFAILED\x1b[0m: sign changes")


def test_long_tables_are_cut():
    def table(rows):
        return EstimateTable({"mean": np.arange(rows, dtype=float)}, index=[f"county[{k}]" for k in range(rows)])

    long, short = outcome.shortened(table(117)), outcome.shortened(table(12))
    assert long.endswith("\n… 105 more in estimates.csv") and "county[11]" in long and "county[12]" not in long
    assert short == str(table(12)) and "more" not in short


def test_a_warning_is_one_line_of_options_without_its_place_in_the_code(run_python, tmp_path):
    code = (
        "import warnings, sys\nfrom phi4ppl.cli import run_command\nfrom phi4ppl.cli.entry import main\n"
        "text = 'interrupted:\\n 40 of 60 draws (num_samples), or take kernel=\\'tempering\\'.'\n"
        "run_command.run = lambda arguments: warnings.warn(text) or 0\n"
        "sys.exit(main(['run', 'glass.py']))"
    )
    told = run_python(["-c", code], cwd=tmp_path).stderr
    assert told == "phi4ppl: interrupted: 40 of 60 draws (--samples), or take --kernel tempering.\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_progress_fits_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with Progress(1000, None, stream) as progress:
        progress.message("compiling cluster, " + "which takes a while " * 6)
        for _ in range(10):
            progress.advance(100, "sampling", 0.95, 3)
    lines = [line.rstrip() for line in stream.getvalue().replace("\n", "\r").split("\r") if line.strip()]
    assert len(lines) > 5 and max(map(len, lines)) < columns
    assert "100%" in lines[-1] and "3 divergences" in lines[-1]
    assert ("acceptance" in lines[-1]) == (columns > 60) and ("steps/s" in lines[-1]) == (columns > 80)
