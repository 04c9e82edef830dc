"""The command line, as a user meets it: what it prints, what it leaves behind, and its exit status."""

import json
import subprocess
import sys

import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.cli.entry import main
from phi4ppl.cli.model_files import load_model_file, shipped_models

pytestmark = pytest.mark.compile_quickly

FAST = ["--samples", "40", "--warmup", "40", "--chains", "2", "--kernel", "hmc", "--quiet"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model_file(folder, text, name="mine.py"):
    (folder / name).write_text("import phi4ppl as p4\n" + text)
    return name


PLAIN = "model = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)\n"


def test_run_leaves_draws_report_and_record(folder, capsys):
    status = main(["run", model_file(folder, PLAIN), "--set", "a=1.9", "--seed", "7", *FAST])
    printed = capsys.readouterr()
    assert status in (0, 1)  # so few draws may fail their verdict
    assert "Hammersley–Clifford check: satisfied" in printed.out
    assert ("Convergence PASSED" in printed.out) == (status == 0)
    tree = p4.load_run(folder / "runs" / "mine" / "samples.nc")
    assert float(tree["constant_data"]["coupling_a"]) == 1.9
    record = json.loads((folder / "runs" / "mine" / "run.json").read_text())
    assert record["seed"] == 7 and record["settings"] == {"a": 1.9} and record["passed"] == (status == 0)
    assert "<h1>mine</h1>" in (folder / "runs" / "mine" / "report.html").read_text()
    assert printed.err == ""


RANDOM = """import numpyro.distributions as dist
model = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.6, b=0.25, r=0.0)
disorder = {"r": dist.Normal(0, 0.5)}
"""


def test_a_file_that_declares_disorder_has_realisations_run(folder, capsys):
    options = ["--realizations", "12", "--samples", "60", "--warmup", "60", "--kernel", "local_hmc", "--quiet"]
    status = main(["run", model_file(folder, RANDOM), *options])
    printed = capsys.readouterr().out
    assert status in (0, 1) and ("Chains PASSED" in printed) == (status == 0)  # so few draws may fail their verdict
    assert "12 realisations of r, 2 replicas each of 60 draws" in printed and "overlap q" in printed
    results = folder / "runs" / "mine"
    assert p4.load_run(results / "samples.nc")["posterior"].sizes["realization"] == 12
    assert "[<O>^2] error" in (results / "estimates.csv").read_text().splitlines()[0]
    record = json.loads((results / "run.json").read_text())
    assert (
        record["num_chains"] == 2
        and record["disorder"]["r"].startswith("Normal(")
        and record["passed"] == (status == 0)
    )
    page = (results / "report.html").read_text()
    assert "<h1>mine</h1>" in page and "Averages over the disorder" in page and "data:image/png" in page
    assert main(["report", "runs/mine"]) == status
    assert "12 realisations of r, 2 replicas each of 60 draws" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PLAIN, ["--realizations", "5"], "--realizations: expected a model file that declares `disorder`"),
        (RANDOM, ["--checkpoint", "here"], "--checkpoint: expected no such option with disorder"),
        (RANDOM, ["--replicas", "1"], "--replicas: expected an integer of at least 2"),
        (RANDOM.replace('"r"', '"h"'), [], "disorder: expected names among w, a, b, r"),
        (PLAIN + "disorder = 3\n", [], "`disorder` is a int"),
        (RANDOM.replace('"r": dist.Normal(0', '"b": dist.Normal(0.5'), [], "each with probability"),
    ],
)
def test_disorder_that_cannot_be_run_gets_one_message(folder, capsys, text, options, message):
    assert main(["run", model_file(folder, text), "--quiet", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_finished_run_is_not_overwritten_unasked(folder, capsys):
    name = model_file(folder, PLAIN)
    main(["run", name, "--output", "here", *FAST])
    before = (folder / "here" / "samples.nc").read_bytes()
    assert main(["run", name, "--output", "here", "--seed", "9", *FAST]) == 2
    assert "here holds finished results. Give another folder with --output, or replace them" in capsys.readouterr().err
    assert (folder / "here" / "samples.nc").read_bytes() == before
    assert main(["run", name, "--output", "here", "--seed", "9", "--overwrite", *FAST]) in (0, 1)
    assert (folder / "here" / "samples.nc").read_bytes() != before
    capsys.readouterr()
    # the report of a finished run can be made again
    (folder / "here" / "report.html").unlink()
    assert main(["report", "here"]) in (0, 1)
    assert (folder / "here" / "report.html").exists()


def test_a_failed_verdict_is_exit_status_one(folder, capsys):
    text = "model = p4.phi4(p4.lattice.square(6), a=1.0, b=0.2)\n"
    assert main(["run", model_file(folder, text), "--no-symmetry-moves", "--no-field", *FAST]) == 1
    out = capsys.readouterr().out
    assert "FAIL  sign changes" in out and "Sample without --no-symmetry-moves" in out
    page = (folder / "runs" / "mine" / "report.html").read_text()
    assert "without --no-symmetry-moves" in page and "num_samples=" not in page and "num_samples=" not in out
    assert "phi" not in p4.load_run(folder / "runs" / "mine" / "samples.nc")["posterior"].data_vars


def test_check_reports_and_sets_the_exit_status(folder, capsys):
    assert main(["check", model_file(folder, PLAIN)]) == 0
    assert "normalizable         yes" in capsys.readouterr().out
    intrinsic = "lattice = p4.lattice.square(4)\nmodel = p4.gaussian(lattice, w=1.0, a=lattice.degree / 2)\n"
    assert main(["check", model_file(folder, intrinsic)]) == 1
    assert "improper (intrinsic): S does not change along the constant field" in capsys.readouterr().out


def test_build_takes_settings_of_the_types_of_its_defaults(folder):
    text = "def build(size=4, a=1.5, open=False, kind='square'):\n"
    text += "    make = getattr(p4.lattice, kind)\n    return p4.phi4(make(size, periodic=not open), a=a, b=0.2)\n"
    name = model_file(folder, text)
    loaded = load_model_file(name, {"size": "5", "a": "2", "open": "True", "kind": "triangular"})
    assert loaded.model.lattice.name == "triangular 5×5, open"
    assert loaded.model.couplings["a"] == 2.0
    assert loaded.parameters == {"size": 5, "a": 2.0, "open": True, "kind": "triangular"}


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("x = 1 / 0\n", {}, ("model_file.fails", "mine.py", "2", "ZeroDivisionError")),
        ("def build(:\n", {}, ("model_file.fails", "mine.py", "2", "SyntaxError")),
        (
            "import no_such_module\n",
            {},
            ("model_file.fails", "mine.py", "2", "ModuleNotFoundError", "'no_such_module'"),
        ),
        ("raise SystemExit(3)\n", {}, ("model_file.fails", "mine.py", "2", "SystemExit", "3")),
        ("", {}, ("model_file.no_model", "mine.py")),
        ("model = 3\n", {}, ("model_file.type", "mine.py")),
        ("def build(size):\n    pass\n", {}, ("model_file.no_default", "mine.py", "'size'")),
        ("def build(size=4):\n    return None\n", {}, ("model_file.type", "mine.py", "NoneType")),
        ("def build(size=4):\n    return p4.lattice.square(-size)\n", {}, ("model_file.fails", "mine.py", "3")),
        ("build = 3\n", {}, ("model_file.build", "mine.py")),
        (PLAIN, {"q": "1"}, ("model_file.setting", "mine.py", "'q'")),
        (PLAIN, {"a": "big"}, ("model_file.fails", "mine.py", "a='big'")),
        (PLAIN, {"a": "float('nan')"}, ("model_file.fails", "mine.py")),
        ("def build(size=4):\n    pass\n", {"size": "2.5"}, ("model_file.setting_type", "mine.py", "size='2.5'")),
        ("def model():\n    pass\n", {"a": "1"}, ("model_file.no_settings", "mine.py", "NumPyro")),
    ],
)
def test_a_bad_model_file_gets_one_clear_message(folder, text, settings, message):
    name = model_file(folder, text)
    with raises(*message):
        load_model_file(name, settings)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    raise KeyError('data')\n", "mine.py, line 3: KeyError: 'data'"),
        (
            "    with numpyro.plate('p', 9, subsample_size=2):\n        numpyro.sample('x', dist.Normal())\n",
            "Remove subsample_size from its plates.",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_model_that_fails_when_it_runs_gets_one_message_too(folder, capsys, command, body, words):
    (folder / "mine.py").write_text(f"import numpyro, numpyro.distributions as dist\ndef model():\n{body}")
    assert main([command, "mine.py", *(FAST if command == "run" else [])]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("phi4ppl: ") and words in printed.err


def test_an_error_of_our_own_stays_one(folder, monkeypatch):
    monkeypatch.setattr("phi4ppl.cli.models_command.summary_of", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


def test_bad_input_is_one_line_and_no_traceback(folder, capsys):
    bad, good = model_file(folder, "raise ValueError('of my own')\n", "bad.py"), model_file(folder, PLAIN, "good.py")
    for arguments, words in (
        (["run", bad], "bad.py, line 2: ValueError: of my own"),
        (["run", "no_such_model"], "neither a file nor a shipped model. Shipped models: "),
        (["check", "gone/mine.py"], "gone/mine.py: no such file"),
        (
            ["report", "nowhere"],
            "expected a netCDF file written by phi4ppl, or a checkpoint directory, got no file nowhere",
        ),
        # before the run, whose draws would be lost
        (["run", good, "--output", bad, "--samples", "1000000"], f"{bad} is no folder that can be written to"),
        (["run", good, "--output", f"{bad}/below"], "Give another one with --output"),
        (["run", good, "--chains", "0"], ": --chains: expected an integer of at least 1, got 0"),
        (["run", good, "--samples", "3"], ": --samples: expected an integer of at least 10, got 3"),
        (["run", good, "--kernel", "gibbs"], ": --kernel: expected one of auto, nuts, nuts_fourier, hmc"),
        (
            ["run", good, "--kernel", "tempering:many"],
            "or tempering:N with the number of copies, got 'tempering:many'",
        ),
    ):
        assert main(arguments) == 2, arguments
        printed = capsys.readouterr()
        assert printed.err.startswith("phi4ppl: ") and words in printed.err
        assert printed.err.count("\n") == 1 and "Traceback" not in printed.err


def test_usage_errors_exit_with_two(capsys):
    for arguments in (
        ["fly"],
        ["run"],
        ["run", "phi4_square", "--set", "a"],
        ["run", "phi4_square", "--samples", "x"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
    assert "expected NAME=VALUE" in capsys.readouterr().err


def test_models_lists_every_shipped_model(capsys):
    assert main(["models", "--settings"]) == 0
    out = capsys.readouterr().out
    for name in shipped_models():
        assert name in out
    assert "size=" in out


def test_doctor_tests_the_whole_path(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "agrees" in out and "all well" in out and "numpyro" in out


@pytest.mark.smoke
def test_console_script_and_module_are_the_same_program(folder):
    result = subprocess.run([sys.executable, "-m", "phi4ppl", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"phi4ppl {p4.__version__}"
