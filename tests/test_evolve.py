"""The machinery around processes: records, checkpoints, interrupts, memory, pictures, films and the command line."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest
from PIL import Image

import phi4ppl as p4
from phi4ppl.cli.entry import main
from phi4ppl.dynamics import Diffusion, Drift, GradientFlow, animate, evolve, plot
from phi4ppl.dynamics.snapshots import recorded_field
from phi4ppl.dynamics.time_grid import time_grid
from phi4ppl.errors import ArgumentError, CheckpointError, EvolutionError, MemoryLimitError, Phi4pplWarning

RING = p4.lattice.chain(8)
NOISY = Drift(RING, lambda u, t: -u, 1.0)
QUICK = dict(time=3.0, step_size=0.125, every=0.5, num_replicas=3, seed=5)


@pytest.fixture(scope="module")
def noisy():
    return evolve(NOISY, np.ones(8), **QUICK)


def test_a_tree_begins_with_the_start_and_has_the_times(noisy):
    group = noisy["evolution"]
    assert dict(group["phi"].sizes) == {"replica": 3, "time": 7, "site": 8}
    np.testing.assert_allclose(group["time"], np.arange(7) * 0.5)
    assert np.all(group["phi"].values[:, 0] == 1) and group["phi"].values[:, -1].std(0).min() > 0
    np.testing.assert_allclose(group["magnetization"], group["phi"].mean("site"), rtol=1e-5, atol=1e-6)
    settings = p4.settings(noisy)
    assert settings["process"].startswith("Drift") and settings["step_size"] == 0.125 and settings["every"] == 0.5


def test_numbers_depend_on_the_seed_alone(noisy):
    """Not on the distance of records: keys belong to fused blocks of steps between records, so that is fixed here."""
    again = evolve(NOISY, np.ones(8), **QUICK)
    other = evolve(NOISY, np.ones(8), **QUICK | {"seed": 6})
    assert np.array_equal(noisy["evolution"]["phi"], again["evolution"]["phi"])
    assert not np.array_equal(noisy["evolution"]["phi"], other["evolution"]["phi"])


def test_a_run_resumes_from_its_checkpoint_bit_for_bit(noisy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("phi4ppl.sampling.chains._Chunks.next", lambda self, most: min(2, most))
        patch.setattr("phi4ppl.sampling.chains.SECONDS_PER_CHECKPOINT", 0.0)
        patch.setattr(importlib.import_module("phi4ppl.dynamics.evolve")._Watch, "energy", _stop_at(2))
        with pytest.raises(KeyboardInterrupt):
            evolve(NOISY, np.ones(8), **QUICK, checkpoint=tmp_path / "run")
    partly = p4.load_run(tmp_path / "run")
    assert 1 <= partly["evolution"].sizes["time"] < 7
    resumed = evolve(NOISY, np.ones(8), **QUICK, checkpoint=tmp_path / "run")
    assert np.array_equal(noisy["evolution"]["phi"], resumed["evolution"]["phi"])
    whole = p4.load_run(tmp_path / "run")
    assert np.array_equal(noisy["evolution"]["phi"], whole["evolution"]["phi"])
    with pytest.raises(CheckpointError, match="belongs to a different run"):
        evolve(NOISY, np.full(8, 2.0), **QUICK, checkpoint=tmp_path / "run")


def _stop_at(number: int):
    calls = []

    def energy(self, harvest):
        calls.append(None)
        if len(calls) > number:
            raise KeyboardInterrupt

    return energy


def test_ctrl_c_returns_what_there_is(monkeypatch):
    monkeypatch.setattr("phi4ppl.sampling.chains._Run.asked", True)
    monkeypatch.setattr("phi4ppl.sampling.chains._Chunks.next", lambda self, most: min(2, most))
    with pytest.warns(Phi4pplWarning, match="up to time 1 of 3 is returned"):
        tree = evolve(NOISY, np.ones(8), **QUICK)
    assert tree["evolution"].sizes["time"] == 3


def test_what_is_not_finite_is_refused_with_its_time():
    with pytest.raises(EvolutionError, match="replica 0 is not finite at time") as caught:
        evolve(Drift(RING, lambda u, t: u**3), np.full(8, 2.0), time=4, step_size=0.25, every=1)
    assert caught.value.code == "evolution.not_finite"


def test_memory_is_asked_for_before_a_run(monkeypatch):
    monkeypatch.setattr("phi4ppl.sampling.memory.available_bytes", lambda: 1000)
    with pytest.raises(MemoryLimitError, match="larger every"):
        evolve(NOISY, np.ones(8), time=100, step_size=0.125, every=0.5)


def test_observables_by_name_and_by_function(tmp_path):
    square = p4.lattice.square(4)
    tree = evolve(
        Diffusion(square), np.eye(4), time=1, every=0.5, keep_field=False,
        observables={"structure_factor": "structure_factor", "largest": lambda phi: phi.max()},
    )  # fmt: skip
    group = tree["evolution"]
    assert "phi" not in group and group["structure_factor"].dims[:2] == ("replica", "time")
    assert np.all(np.diff(group["largest"].values[0]) < 0)
    again = p4.load_run(p4.save_run(tree, tmp_path / "run.nc"))
    assert again["evolution"].identical(group)
    with pytest.raises(ArgumentError, match="keep_field=True"):
        plot(tree)


def test_other_couplings_and_times_compile_nothing():
    ring, start = p4.lattice.chain(6), np.ones(6)
    models = [p4.gaussian(ring, w=0.5, a=a) for a in (1.0, 1.2)]
    evolve(GradientFlow(models[0]), start, time=1, step_size=0.5, every=0.5)
    with _counted() as count:
        evolve(GradientFlow(models[1]), start, time=1.5, step_size=0.25, every=0.5)
    assert count.calls == []


class _counted:
    """Counts programs that are traced."""

    def __enter__(self):
        from phi4ppl.sampling.program import Program

        self.calls, self.kind, self.usual = [], Program, Program._iterate

        def iterate(program, *arguments):
            self.calls.append("_advance")
            return self.usual(program, *arguments)

        Program._iterate = iterate
        return self

    def __exit__(self, *error):
        self.kind._iterate = self.usual


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1.0, 0.25, 0.5), (0.25, 0.5, 2, 2, 1)),
        ((1.0, None, None), None),
        ((64.0, 0.125, 32.0), (0.125, 32.0, 2, 64, 4)),
        ((13.0, 0.1, 13.0), (0.1, 13.0, 1, 26, 5)),
    ],
)
def test_grid_of_time(arguments, expected):
    grid = time_grid(Diffusion(RING), *arguments)
    assert grid.records * grid.fused * grid.thinning * grid.step_size == pytest.approx(grid.time)
    assert grid.time == pytest.approx(arguments[0]) and (expected is None or grid[1:] == pytest.approx(expected))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"time": -1.0}, "argument.time"),
        ({"time": 1.1, "every": 0.5}, "argument.time.multiple"),
        ({"step_size": 0.3, "every": 0.5}, "argument.every.multiple"),
        ({"num_replicas": 0}, "argument.num_replicas"),
        ({"observables": ["nothing"]}, "argument.observables.name"),
        ({"start": np.ones(7)}, "argument.start.shape"),
        ({"process": np.sin}, "argument.process"),
        ({"devices": {"replica": 5}}, "argument.devices.divisor"),
    ],
)
def test_wrong_arguments(change, code):
    given = {"process": Diffusion(RING), "start": np.ones(8), "time": 1.0} | change
    with pytest.raises(ArgumentError) as caught:
        evolve(given.pop("process"), given.pop("start"), **given)
    assert caught.value.code == code


# --- pictures and films


def test_snapshots_share_one_scale_and_a_line_is_shown_whole(noisy):
    square = evolve(Diffusion(p4.lattice.square(6)), np.eye(6) - 0.2, time=1, every=0.25)
    figure = plot(square, snapshots=3)
    limits = {artist.get_clim() for ax in figure.axes[:3] for artist in ax.collections}
    assert len(figure.axes) == 4 and len(limits) == 1
    shown = recorded_field(square)
    assert limits == {shown.limits} and shown.limits[1] == pytest.approx(0.8)
    line = plot(noisy).axes[0]
    assert line.images[0].get_array().shape == (7, 8) and line.get_ylabel() == "time"


def test_films_have_a_frame_per_record(noisy, tmp_path):
    with Image.open(animate(noisy, tmp_path / "film.gif")) as film:
        assert film.n_frames == 7
    page = animate(noisy, tmp_path / "film.html", max_frames=4).read_text()
    assert len(re.findall(r'"iVBOR[^"]+"', page)) == 4 and "http" not in page
    with pytest.raises(ArgumentError, match="gif or .html"):
        animate(noisy, tmp_path / "film.mp4")


def test_graphs_are_drawn_on_their_positions(tmp_path):
    wheel = p4.lattice.complete(5)
    figure = plot(evolve(Diffusion(wheel), np.eye(5)[0], time=1, every=1), snapshots=2)
    np.testing.assert_allclose(figure.axes[1].collections[-1].get_offsets(), wheel.positions)


# --- the command line


def test_a_model_and_a_process_evolve_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "evolve",
                "phi4_square",
                "--set",
                "size=6",
                "--time",
                "1",
                "--every",
                "0.5",
                "--film",
                "out.gif",
                "--quiet",
            ]
        )
        == 0
    )
    told = capsys.readouterr().out
    first, last = map(float, re.search(r"energy: (\S+) → (\S+)", told).groups())
    assert last < first and (tmp_path / "out.gif").exists()
    assert p4.load_run(tmp_path / "evolutions/phi4_square/evolution.nc")["evolution"].sizes["time"] == 3
    (tmp_path / "spread.py").write_text(
        "'''Heat on a ring.'''\nimport numpy as np, phi4ppl as p4\n"
        "process = p4.dynamics.Diffusion(p4.lattice.chain(8))\nstart = np.eye(8)[0]\n"
    )
    assert main(["evolve", "spread.py", "--time", "1", "--quiet"]) == 0
    assert "process: Diffusion" in capsys.readouterr().out
    assert main(["evolve", "spread.py", "--time", "1", "--film", "out.mp4", "--quiet", "--overwrite"]) == 2
    assert "--film: expected a name that ends in .gif or .html" in capsys.readouterr().err


def test_langevin_and_waves_on_the_command_line(tmp_path, monkeypatch, capsys):
    """An exact step says its rate of acceptance, another one its error; wrong combinations are refused in words of options."""
    monkeypatch.chdir(tmp_path)
    small = ["evolve", "phi4_square", "--set", "size=4", "--time", "1", "--every", "0.5", "--quiet", "--overwrite"]
    assert main([*small, "--process", "langevin", "--step", "mala"]) == 0
    told = capsys.readouterr().out
    assert "process: Langevin" in told and "acceptance_rate" in told and "error of its size" not in told
    assert main([*small, "--process", "langevin"]) == 0
    assert "step 'euler': averages have an error of its size" in capsys.readouterr().out
    assert main([*small, "--process", "hamiltonian"]) == 0
    first, last = map(float, re.search(r"energy: (\S+) → (\S+)", capsys.readouterr().out).groups())
    assert first == pytest.approx(last, rel=0.05)
    for wrong, told in (
        (["--process", "waves"], "--process: expected one of gradient-flow, hamiltonian, langevin"),
        (["--step", "mala"], "--step: expected --process langevin"),
        (["--process", "langevin", "--step", "leap"], "--step: expected"),
    ):
        assert main([*small, *wrong]) == 2
        assert told in capsys.readouterr().err


def test_the_line_of_progress_shows_the_energy(capsys):
    model = p4.gaussian(RING, w=0.5, a=1.0)
    evolve(GradientFlow(model), np.ones(8), time=1, step_size=0.5, every=0.5, progress=True)
    assert re.search(r"energy|S ?=", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"every": 2.0}, "argument.time.multiple"),
        ({"time": float("nan")}, "argument.time"),
        ({"time": float("inf")}, "argument.time"),
        ({"step_size": -0.1}, "argument.step_size"),
        ({"start": np.full(8, np.nan)}, "argument.start.finite"),
        ({"start": np.ones((0, 8))}, "argument.start.shape"),
        ({"start": 1j * np.ones(8)}, "argument.start.complex"),
        ({"seed": -1}, "argument.seed"),
        ({"observables": {"time": lambda phi: phi.sum()}}, "argument.observables.name"),
        ({"observables": {"phi": lambda phi: phi.sum()}}, "argument.observables.name"),
        ({"observables": {"bad": lambda phi: 1 / 0}}, "argument.observable.raises"),
        ({"observables": {"bad": lambda phi: None}}, "argument.observable.returns"),
        ({"observables": {"bad": lambda phi: float(phi.sum())}}, "argument.observable.raises"),
        ({"time": "1"}, "argument.time"),
        ({"keep_field": 1}, "argument.keep_field"),
        ({"protocol": {"a": ([0, 1], [1, 1])}}, "argument.langevin"),
    ],
)
def test_more_wrong_arguments(change, code):
    given = {"process": Diffusion(RING), "start": np.ones(8), "time": 1.0} | change
    with pytest.raises(ArgumentError) as caught:
        evolve(given.pop("process"), given.pop("start"), **given)
    assert caught.value.code == code
