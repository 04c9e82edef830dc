"""Commands replace what they wrote themselves, when they are told to, and nothing else."""

import functools
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl.cli.entry import main
from phi4ppl.cli.result_files import ResultFolder, read_record
from phi4ppl.inference import pages
from phi4ppl.results import run_page

pytestmark = pytest.mark.compile_quickly

MODEL = "import phi4ppl as p4\nmodel = p4.gaussian(p4.lattice.chain(4), w={w}, a=1.0)\n"
COMMANDS = {  # each leaves its results in the folder "out"
    "run": ["run", "ring.py", "--samples", "40", "--warmup", "40", "--chains", "2", "--kernel", "hmc", "--quiet"],
    "fit": ["fit", "flat.py", "--data", "fields.npy", "--method", "pseudolikelihood", "--quiet"],
    "infer": ["infer", "ring.py", "--data", "fields.npy", "--prior", "w=uniform:0.2,0.95", "--normalizer", "exact",
              "--samples", "60", "--warmup", "60", "--quiet"],
    "compare": ["compare", "ring.py", "flat.py", "--data", "fields.npy", "--quiet"],
    "report": ["report", "out/draws.nc"],
}  # fmt: skip
KINDS = ("file", "empty file", "directory", "link", "link to nothing", "read-only file")


def call(command: str, *more) -> int:
    return main([*COMMANDS[command], *([] if command == "report" else ["--output", "out"]), *more])


def inputs(folder: Path) -> None:
    (folder / "ring.py").write_text(MODEL.format(w=0.5))
    (folder / "flat.py").write_text(MODEL.format(w=0.0))
    field = p4.GibbsField(p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0))
    np.save(folder / "fields.npy", np.asarray(field.sample(jax.random.key(0), (60,))))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What every command leaves, by command: whatever it writes is covered by the tests below."""
    here, found = Path.cwd(), {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (run_page, pages):  # they take their time
            patch.setattr(module, "figures", lambda tree: {})
        for command in COMMANDS:
            folder = found[command] = tmp_path_factory.mktemp(command)
            inputs(folder)
            os.chdir(folder)
            try:
                if command == "report":
                    (folder / "out").mkdir()
                    shutil.copy(found["run"] / "out" / "samples.nc", folder / "out" / "draws.nc")
                assert call(command) in (0, 1)
            finally:
                os.chdir(here)
    return found


@pytest.fixture
def no_work(monkeypatch):
    """The work of every command fails the test, if it is started."""

    def stand_in(function):
        @functools.wraps(function)  # options borrow its defaults
        def started(*_, **__):
            raise AssertionError("the work has started")

        return started

    for module, name in (
        ("results.run", "sample"), ("learning.likelihood", "fit_likelihood"), ("learning.variational", "fit_variational"),
        ("inference.couplings", "infer_couplings"), ("inference.compare", "compare"), ("results.verdict", "diagnose"),
    ):  # fmt: skip
        home = sys.modules[f"phi4ppl.{module}"]
        monkeypatch.setattr(home, name, stand_in(getattr(home, name)))


@pytest.fixture(params=COMMANDS)
def command(request):
    return request.param


def names_of(results, command) -> list[str]:
    return sorted(p.name for p in (results[command] / "out").iterdir() if p.name != "draws.nc")


def put(path: Path, kind: str) -> None:
    """Something of the user's at this path."""
    thesis = path.parent.parent / "thesis.tex"
    thesis.write_text("years of work")
    match kind:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(thesis)
        case "link to nothing":
            path.symlink_to(path.parent.parent / "nothing")
        case _:
            path.write_text("" if kind == "empty file" else "years of work")
            path.chmod(0o444 if kind == "read-only file" else 0o644)


def state(folder: Path) -> dict:
    return {
        p.name: (p.lstat().st_mode, os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else None)
        for p in folder.parent.rglob("*")
    }


def test_every_command_writes_what_its_record_lists(results, command):
    listed = {"run": "run.json", "fit": "fit.json", "infer": "infer.json", "compare": "compare.json",
              "report": "report.json"}[command]  # fmt: skip
    record = read_record(results[command] / "out" / listed, command)
    assert sorted([*record["files"], listed]) == names_of(results, command) and record["finished"]
    if command == "fit":
        assert {"model.npz", "couplings.csv", "history.nc", "history.png", "report.html"} == set(record["files"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_file_is_refused_before_the_work(results, command, kind, tmp_path, monkeypatch, no_work, capsys):
    """Under every name that the command writes, with and without --overwrite."""
    for number, name in enumerate(names_of(results, command)):
        folder = tmp_path / str(number)
        shutil.copytree(results[command], folder, ignore=shutil.ignore_patterns("out"))
        (folder / "out").mkdir()
        if command == "report":
            shutil.copy(results[command] / "out" / "draws.nc", folder / "out")
        put(folder / "out" / name, kind)
        monkeypatch.chdir(folder)
        before = state(folder / "out")
        for options in ([], ["--overwrite"]) if command != "report" else ([],):
            assert call(command, *options) == 2, (name, options)
            err = capsys.readouterr().err
            assert f"out/{name}: not a file that phi4ppl {command} wrote here" in err and err.count("\n") == 1
            assert ("--output" in err) == (command != "report")
            assert state(folder / "out") == before


def test_without_anything_in_the_way_the_work_starts(results, command, tmp_path, monkeypatch, no_work):
    """So the test above does not pass because no command ever gets as far."""
    shutil.copytree(results[command], tmp_path / "x", ignore=shutil.ignore_patterns(*names_of(results, command)))
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(AssertionError, match="the work has started"):
        call(command)


@pytest.mark.parametrize("change", ["edited", "replaced by a link", "made read-only"])
def test_a_file_that_was_changed_since_is_the_users(results, command, change, tmp_path, monkeypatch, no_work, capsys):
    """Any of the results, the record too; the others are the command's own and may be replaced."""
    for number, name in enumerate(names_of(results, command)):
        folder = tmp_path / str(number)
        shutil.copytree(results[command], folder)
        path = folder / "out" / name
        if change == "edited":
            path.write_bytes(path.read_bytes() + b" ")
        elif change == "made read-only":
            path.chmod(0o444)
        else:
            path.rename(folder / "elsewhere")
            path.symlink_to(folder / "elsewhere")
        monkeypatch.chdir(folder)
        before = state(folder / "out")
        if command == "report" and name == "report.json":
            name = "report.html"  # without its record, the report is nobody's
        assert call(command, *([] if command == "report" else ["--overwrite"])) == 2
        assert "not a file that phi4ppl" in capsys.readouterr().err and state(folder / "out") == before


def test_finished_results_stay_without_overwrite(results, command, tmp_path, monkeypatch, no_work, capsys):
    shutil.copytree(results[command], tmp_path / "x")
    monkeypatch.chdir(tmp_path / "x")
    before = state(tmp_path / "x" / "out")
    if command == "report":  # its own report is made again
        with pytest.raises(AssertionError, match="the work has started"):
            call(command)
    else:
        assert call(command) == 2
        assert "out holds finished results. Give another folder with --output, or" in capsys.readouterr().err
        with pytest.raises(AssertionError, match="the work has started"):
            call(command, "--overwrite")
    assert state(tmp_path / "x" / "out") == before


def test_overwrite_replaces_the_results_and_nothing_beside_them(results, tmp_path, monkeypatch, capsys):
    """A fit without steps: the history of the earlier fit would be taken for its own, and goes."""
    shutil.copytree(results["fit"], tmp_path / "x")
    out = tmp_path / "x" / "out"
    (out / "notes.txt").write_text("mine")
    put(out / "samples.nc", "link")
    monkeypatch.chdir(tmp_path / "x")
    old = (out / "model.npz").read_bytes()
    fitted, module = p4.fit_likelihood, sys.modules["phi4ppl.learning.likelihood"]

    @functools.wraps(fitted)  # options borrow its defaults
    def without_steps(*args, **options):
        return replace(fitted(*args, **options), history=xr.Dataset())

    monkeypatch.setattr(module, "fit_likelihood", without_steps)
    assert main(["fit", "flat.py", "--data", "fields.npy", "--output", "out", "--overwrite", "--quiet"]) == 0
    assert (out / "notes.txt").read_text() == "mine" and (out / "samples.nc").is_symlink()
    assert (out / "model.npz").read_bytes() != old
    expected = {"notes.txt", "samples.nc", "model.npz", "couplings.csv", "report.html", "fit.json"}
    assert {p.name for p in out.iterdir()} == expected


def test_report_rewrites_the_report_of_its_run_only(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_page, "figures", lambda tree: {})
    shutil.copytree(results["run"], tmp_path / "x")
    monkeypatch.chdir(tmp_path / "x")
    before = json.loads(Path("out/run.json").read_text())
    assert main(["report", "out"]) in (0, 1)
    record = read_record(Path("out/run.json"), "run")  # it says what it said, and the run can be replaced as a whole
    assert {k: v for k, v in record.items() if k not in ("files", "digest")} == {
        k: v for k, v in before.items() if k not in ("files", "digest")
    }
    ResultFolder(Path("out"), "run", "run.json", ("samples.nc", "report.html"), overwrite=True)
    shutil.copy("out/samples.nc", "out/other.nc")
    report = Path("out/report.html").read_bytes()
    assert main(["report", "out/other.nc"]) == 2  # the page is that of samples.nc
    Path("out/report.html").write_text("<h1>My own report</h1>")
    assert main(["report", "out"]) == 2
    assert Path("out/report.html").read_text() == "<h1>My own report</h1>" and report
    Path("out/report.html").unlink()
    assert main(["report", "out/other.nc"]) in (0, 1)
    (tmp_path / "x" / "out" / "third.nc").write_bytes(Path("out/samples.nc").read_bytes())
    capsys.readouterr()
    assert main(["report", "out/third.nc"]) == 2 and "is the report of other.nc" in capsys.readouterr().err


def test_reports_of_other_commands_stay(results, tmp_path, monkeypatch, capsys):
    """``phi4ppl report`` of the draws of an inference would replace the page with the couplings."""
    shutil.copytree(results["infer"], tmp_path / "x")
    monkeypatch.chdir(tmp_path / "x")
    before = state(tmp_path / "x" / "out")
    assert main(["report", "out"]) == 2
    assert "out/report.html: not a file that phi4ppl report wrote here" in capsys.readouterr().err
    assert state(tmp_path / "x" / "out") == before


@pytest.mark.parametrize("name", ["notes.txt", "head.ckpt", "frame.ckpt", "draws-000000000-000000010.ckpt", "lock"])
def test_a_checkpoint_is_refused_where_other_files_are(results, name, tmp_path, monkeypatch, capsys):
    """Before the work, and before there is a folder for results."""
    shutil.copytree(results["run"], tmp_path / "x", ignore=shutil.ignore_patterns("out"))
    monkeypatch.chdir(tmp_path / "x")
    Path("kept").mkdir()
    put(Path("kept").absolute() / name, "file")
    before = state(tmp_path / "x" / "kept")
    assert call("run", "--checkpoint", "kept") == 2
    assert "phi4ppl: checkpoint " in capsys.readouterr().err
    assert state(tmp_path / "x" / "kept") == before and not Path("out").exists()


# --- the folder by itself


def folder_of(path: Path, **options) -> ResultFolder:
    return ResultFolder(path, "run", "run.json", ("a.txt", "b.txt"), **{"overwrite": False} | options)


def test_a_file_that_appears_during_the_work_stays(tmp_path, capsys):
    results = folder_of(tmp_path)
    (tmp_path / "a.txt").write_text("mine")
    assert results.add("a.txt", lambda path: path.write_text("result")) == tmp_path / "a-2.txt"
    results.finish({})
    assert (tmp_path / "a.txt").read_text() == "mine" and (tmp_path / "a-2.txt").read_text() == "result"
    assert "is another file meanwhile, and is left alone" in capsys.readouterr().err
    with raises("result_file.foreign", "a.txt"):
        folder_of(tmp_path, overwrite=True)


def test_what_fails_in_the_middle_leaves_whole_files_that_can_be_replaced(tmp_path):
    results = folder_of(tmp_path)
    results.add("a.txt", lambda path: path.write_text("first"))

    def fails(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        results.add("b.txt", fails)
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", "run.json"}
    with raises("result_file.holds_results"):
        folder_of(tmp_path)
    again = folder_of(tmp_path, overwrite=True)
    with pytest.raises(OSError, match="disk full"):
        again.add("a.txt", fails)
    assert (tmp_path / "a.txt").read_text() == "first"
    again.add("b.txt", lambda path: path.write_text("second"))
    again.finish({"seed": 1})
    assert {p.name for p in tmp_path.iterdir()} == {"b.txt", "run.json"}  # a.txt was of the earlier run
    assert read_record(tmp_path / "run.json", "run")["seed"] == 1


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_an_output_that_is_no_folder_is_refused(tmp_path, kind):
    (tmp_path / "in").mkdir()
    put(tmp_path / "in" / "out", kind)
    for path in (tmp_path / "in" / "out", tmp_path / "in" / "out" / "below"):
        with raises("result_file.unwritable"):
            folder_of(path)


def test_a_record_is_one_of_its_command_unchanged(tmp_path):
    results = folder_of(tmp_path)
    results.finish({"seed": 1, "bound": float("nan")})
    path = tmp_path / "run.json"
    assert read_record(path, "run")["seed"] == 1
    assert read_record(path, "fit") is None and read_record(tmp_path / "no.json", "run") is None
    for text in (path.read_text().replace('"seed": 1', '"seed": 2'), "[]", "{}", '{"files": {}}', "", "\xff"):
        path.write_text(text)
        assert read_record(path, "run") is None
