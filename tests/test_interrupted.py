"""Runs that are thinned, stopped, killed and resumed: the numbers must be those of an undisturbed run, bit for bit."""

import dataclasses
import errno
import json
import os
import signal
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from blackjax.base import SamplingAlgorithm
from jax.flatten_util import ravel_pytree
from raising import raises, warns

import phi4ppl as p4
from phi4ppl.cli.entry import main
from phi4ppl.results import run_page
from phi4ppl.results.datatree import metadata
from phi4ppl.sampling import Kernel, WindowAdaptation, chains, checkpoint, get_kernel, harvest
from phi4ppl.sampling.identity import function_digest

MODEL = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)
RUN = dict(num_warmup=40, num_samples=60, num_chains=3, seed=5, kernel="local_hmc", thinning=3)


def arrays_of(tree) -> dict:
    return {f"{group}/{name}": v.values for group, part in tree.children.items() for name, v in part.data_vars.items()}


GROUPS = ("posterior", "sample_stats", "streamed", "schwinger_dyson", "constant_data")


def assert_same(first, second, groups=GROUPS):
    one, two = arrays_of(first), arrays_of(second)
    assert one.keys() == two.keys() and {name.split("/")[0] for name in one} == set(groups)
    for name, values in one.items():
        assert values.dtype == two[name].dtype
        np.testing.assert_array_equal(values, two[name], err_msg=name)


@pytest.fixture(autouse=True)
def usual_ctrl_c():
    """Python's own handler, also where the shell that started the tests has Ctrl-C ignored (as for jobs in its background)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole():
    """The undisturbed run."""
    return p4.sample(MODEL, **RUN)


class Stop(Exception):
    """What ends a run here, in the place of a crash."""


def crash_after(monkeypatch, chunks: int, raising=Stop):
    """Let the next run end after so many chunks, each of them a checkpoint."""
    left, pause = [chunks], chains._Run.pause

    def counting(self):
        pause(self)
        left[0] -= 1
        if left[0] < 0:
            raise raising

    monkeypatch.setattr(chains, "SECONDS_PER_CHECKPOINT", 0.0)
    monkeypatch.setattr(chains._Run, "pause", counting)


# --- what is streamed


def test_streamed_statistics_are_of_every_iteration(whole):
    every = p4.sample(MODEL, **RUN | {"num_samples": 180, "thinning": 1})
    np.testing.assert_array_equal(every["posterior"]["phi"][:, 2::3], whole["posterior"]["phi"])
    for name, values in every["streamed"].data_vars.items():
        if name != "phi":  # whose errors come from blocks of another length
            np.testing.assert_array_equal(values, whole["streamed"][name], err_msg=name)
    for name, values in every["posterior"].data_vars.items():
        values, streamed = values.values.astype(float), whole["streamed"][name]
        assert (streamed.sel(statistic="count") == 540).all()
        error = streamed.sel(statistic="error").values
        np.testing.assert_allclose(streamed.sel(statistic="mean"), values.mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            streamed.sel(statistic="variance"), values.var(axis=(0, 1)) + error**2, rtol=1e-4, atol=1e-6
        )
    blocks = whole["schwinger_dyson"]["block_means"].values
    mean = whole["streamed"]["schwinger_dyson"].sel(statistic="mean")
    np.testing.assert_allclose(blocks.mean(), mean, rtol=1e-5)


def test_estimates_of_a_thinned_run_are_those_of_all_iterations(whole):
    table = p4.estimate(whole)
    row, streamed = table.loc["phi_squared"], whole["streamed"]["phi_squared"]
    for name in ("mean", "error", "tau_int", "tau_int_error"):
        assert row[name] == streamed.sel(statistic=name)
    assert np.isclose(row["effective_sample_size"], 540 / (2 * row["tau_int"]))
    assert table["reliable"].dtype == bool
    sites = p4.estimate(whole, "phi")
    np.testing.assert_array_equal(sites["mean"], whole["streamed"]["phi"].sel(statistic="mean"))
    every = p4.sample(MODEL, **RUN | {"thinning": 1})
    gamma = p4.estimate(every, "phi_squared").iloc[0]
    assert np.isclose(gamma["mean"], every["posterior"]["phi_squared"].mean())
    assert gamma["error"] != every["streamed"]["phi_squared"].sel(statistic="error")


def test_the_memory_of_a_run_does_not_grow_with_the_iterations_between_kept_draws(monkeypatch):
    """200 and 20,000 iterations a chain: the same buffers on the device and the same draws on the host."""
    sizes, result = [], harvest.Harvest.result

    def counting(self, sums, settings):
        run = {name: v.nbytes for name, v in self.storage.items()}
        levels = max(series.state()["waiting"].shape[0] for series in self.series.values())
        sizes.append((run, levels, {name: part.state()["mean"].nbytes for name, part in self.sites.items()}))
        return result(self, sums, settings)

    monkeypatch.setattr(harvest.Harvest, "result", counting)
    live = []
    for thinning in (10, 1000):
        tree = p4.sample(MODEL, **RUN | {"num_samples": 20, "thinning": thinning})
        assert (tree["streamed"]["phi"].sel(statistic="count") == 60 * thinning).all()
        live.append(sum(x.nbytes for x in jax.live_arrays()))
    (small, low, sites), (large, high, more) = sizes
    assert small == large and sites == more
    assert (low, high) == (8, 15)  # the logarithm of 200 and of 20,000
    assert live[1] <= live[0] + 1000


# --- cut, crash, resume


@pytest.mark.parametrize("cut", ["one at a time", "small buffer"])
def test_a_thinned_run_repeats_bit_for_bit_however_it_is_cut(whole, cut, monkeypatch):
    monkeypatch.setattr(chains, "SECONDS_PER_CHUNK", 1e-9 if cut == "one at a time" else 0.7)
    if cut == "small buffer":
        monkeypatch.setattr(chains, "BUFFER_BYTES", 3000)
    assert_same(whole, p4.sample(MODEL, **RUN))


def test_a_run_that_crashes_again_and_again_ends_with_the_same_numbers(whole, monkeypatch, tmp_path):
    """Crashes in warm-up, at its end, inside a kept draw, at ends of blocks, and right after the start."""
    path, crashes = tmp_path / "run", 0
    monkeypatch.setattr(chains, "SECONDS_PER_CHUNK", 1e-9)
    for count in [0, 3, 12, 20, 0, 1, 0, 17, 20, 0, 0, 25, 1000]:
        with monkeypatch.context() as patch:
            crash_after(patch, count)
            try:
                tree = p4.sample(MODEL, checkpoint=path, **RUN)
                break
            except Stop:
                crashes += 1
    assert crashes > 9
    assert_same(whole, tree)
    assert metadata(tree)["settings"]["interrupted"] is False
    # complete: returned as it is, and read without the model
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir() if p.name != "lock"}
    monkeypatch.setattr(chains._Run, "draw", None)
    assert_same(whole, p4.sample(MODEL, checkpoint=path, **RUN))
    assert_same(whole, p4.load_run(path))
    assert {p.name: p.stat().st_mtime_ns for p in path.iterdir() if p.name != "lock"} == before
    assert metadata(p4.load_run(path))["settings"] == metadata(tree)["settings"]


class Position(NamedTuple):
    position: object
    logdensity: jax.Array
    logdensity_grad: object


class Tuned(NamedTuple):
    step_size: jax.Array
    share: jax.Array


class Wandering:
    """A warm-up with a state of its own, a random key in it."""

    def begin(self, target, position):
        return {"key": jax.random.key(1), "log": jnp.zeros(()), "count": 0}

    def update(self, target, state, stage, is_window_end, chain_state, statistics):
        key, noise = jax.random.split(state["key"])
        change = statistics["acceptance_rate"] - 0.4 + 0.01 * jax.random.normal(noise)
        return {"key": key, "log": state["log"] + 0.1 * change, "count": state["count"] + 1}

    def tuning(self, state):
        return Tuned(jnp.exp(state["log"]), state["count"] / 1000)

    final = tuning


def random_walk(target, tuning):
    def init(position):
        return Position(position, *target.init(position))

    def step(key, state):
        flat, unravel = ravel_pytree(state.position)
        key, accept = jax.random.split(key)
        new = init(unravel(flat + tuning.step_size * jax.random.normal(key, flat.shape)))
        rate = jnp.minimum(1, jnp.exp(new.logdensity - state.logdensity))
        take = jax.random.uniform(accept) < rate
        state = jax.tree.map(lambda a, b: jnp.where(take, a, b), new, state)
        return state, {"acceptance_rate": rate, "diverging": False, "energy": -state.logdensity, "n_steps": 1}

    return SamplingAlgorithm(init, step)


@pytest.mark.rank_promotion
def test_a_numpyro_model_and_a_kernel_of_ones_own_resume(monkeypatch, tmp_path):
    def model(y):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
        phi = numpyro.sample("psi", p4.GibbsField(p4.gaussian(p4.lattice.chain(3), w=0.5, a=1.5)))
        numpyro.deterministic("largest", jnp.max(phi))
        numpyro.sample("y", dist.Normal(phi, scale).to_event(1), obs=y)

    kernel = Kernel("walk", "random steps", random_walk, lambda info: jax.tree.map(jnp.asarray, info), Wandering())
    options = dict(num_warmup=30, num_samples=12, num_chains=2, kernel=kernel, thinning=2, checkpoint=tmp_path / "run")
    y = np.array([0.1, -0.4, 0.3])
    whole = p4.sample(model, y, **options | {"checkpoint": None})
    assert {"scale", "largest", "psi", "schwinger_dyson"} == set(whole["streamed"].data_vars)
    monkeypatch.setattr(chains, "SECONDS_PER_CHUNK", 1e-9)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(patch, 12)  # in the middle of warm-up
        p4.sample(model, y, **options)
    with raises("checkpoint.other_run", "density, steps, start"):
        p4.sample(model, y + 1e-6, **options)  # other data
    assert_same(whole, p4.sample(model, y, **options), (*GROUPS, "log_likelihood", "observed_data"))


def test_another_run_is_not_gone_on_with(whole, monkeypatch, tmp_path):
    path = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(patch, 2)
        p4.sample(MODEL, checkpoint=path, **RUN)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    for model, changes, told in (
        (MODEL, {"seed": 6}, ("checkpoint.other_run", "seed", "5", "6")),
        (MODEL, {"thinning": 2}, ("checkpoint.other_run", "thinning", "3", "2")),
        (MODEL, {"kernel": "hmc"}, ("checkpoint.other_run", "kernel", "'local_hmc'", "'hmc'")),
        (
            MODEL,
            {"observables": {"m2": lambda phi: phi.mean() ** 2}},
            ("checkpoint.other_run", "observables m2 is only here"),
        ),
        (MODEL.replace(a=1.41), {}, ("checkpoint.other_run", "couplings, density, start")),
        (p4.phi4(p4.lattice.chain(5), w=0.8, a=1.4, b=0.2), {}, ("checkpoint.other_run", "lattice, terms, density")),
    ):
        with raises(*told):
            p4.sample(model, checkpoint=path, **RUN | changes)
        assert {p.name: p.read_bytes() for p in path.iterdir()} == before


def test_a_statistic_of_the_users_own_is_known_by_what_it_computes():
    def digest(factor):
        return function_digest(
            lambda phi: factor * jnp.sum(phi * np.arange(3.0)), jax.ShapeDtypeStruct((3,), "float32")
        )

    assert digest(2.0) == digest(2.0) != digest(2.000001)
    one, two = (function_digest(lambda x, c=c: x * c, np.zeros(3)) for c in (np.ones(3), np.array([1, 1, 1.1])))
    assert one != two


@pytest.mark.parametrize("inside", [jax.jit, jax.checkpoint, lambda f: lambda x: jax.lax.map(f, x[None])[0]])
def test_arrays_that_inner_functions_hold_are_known_too(inside):
    """A jitted function keeps them to itself, and the text of the outer one shows their shapes only."""

    def digest(second):
        weights = jnp.array([1.0, second])
        inner = inside(lambda x: jnp.sum(x * weights))
        return function_digest(lambda x: inner(x), np.zeros(2))

    assert digest(2.0) == digest(2.0) != digest(2.5)


def test_a_kernel_with_another_adaptation_is_known_by_what_it_computes(tmp_path):
    run = RUN | {"checkpoint": tmp_path, "num_samples": 10}
    hmc = get_kernel("hmc")
    p4.sample(MODEL, **run | {"kernel": hmc})
    other = dataclasses.replace(hmc, adaptation=WindowAdaptation(0.9))
    with raises("checkpoint.other_run", "steps"):
        p4.sample(MODEL, **run | {"kernel": other})


def test_a_run_on_a_full_disk_ends_and_goes_on_when_there_is_room(whole, monkeypatch, tmp_path):
    left, write = [150], checkpoint._Hashed.write

    def full(self, data):
        left[0] -= "draws" in self.file.name
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    with monkeypatch.context() as patch, raises("checkpoint.unwritable", "No space left"):
        patch.setattr(chains, "SECONDS_PER_CHECKPOINT", 0.0)
        patch.setattr(chains, "SECONDS_PER_CHUNK", 1e-9)
        patch.setattr(checkpoint._Hashed, "write", full)
        p4.sample(MODEL, checkpoint=tmp_path / "run", **RUN)
    assert 0 < metadata(p4.load_run(tmp_path / "run"))["settings"]["num_samples"] < 60
    assert_same(whole, p4.sample(MODEL, checkpoint=tmp_path / "run", **RUN))


# --- Ctrl-C


def press_ctrl_c(monkeypatch, after: int, times: int = 1):
    """A real signal, after so many chunks of the run."""
    left, tell = [after], chains._Run._tell

    def counting(self, *arguments):
        tell(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(chains, "SECONDS_PER_CHUNK", 1e-9)
    monkeypatch.setattr(chains._Run, "_tell", counting)


def test_ctrl_c_returns_the_draws_so_far(whole, monkeypatch, tmp_path):
    with (
        monkeypatch.context() as patch,
        warns("sampling.interrupted", "60"),
    ):
        press_ctrl_c(patch, 120)
        tree = p4.sample(MODEL, checkpoint=tmp_path / "run", **RUN)
    settings = metadata(tree)["settings"]
    kept = settings["num_samples"]
    assert settings["interrupted"] and settings["incomplete"] and 30 <= kept < 40
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for name, values in arrays_of(tree).items():
        if name.split("/")[0] in ("posterior", "sample_stats"):
            np.testing.assert_array_equal(values, arrays_of(whole)[name][:, :kept], err_msg=name)
    report = p4.diagnose(tree)
    assert f"INTERRUPTED after {kept} of 60 draws per chain" in str(report).splitlines()[0]
    monkeypatch.setattr(run_page, "figures", lambda tree: {})  # they take their time
    report.to_html(tmp_path / "report.html")
    assert f"INTERRUPTED after {kept} of 60 draws per chain" in (tmp_path / "report.html").read_text()
    loaded = p4.load_run(p4.save_run(tree, tmp_path / "run.nc"))
    assert "INTERRUPTED" in p4.diagnose(loaded).verdict
    assert "INTERRUPTED" not in str(p4.diagnose(whole))
    # and the run goes on
    assert_same(whole, p4.sample(MODEL, checkpoint=tmp_path / "run", **RUN))


def test_ctrl_c_before_the_first_draw_leaves_a_checkpoint(whole, monkeypatch, tmp_path):
    for after in (15, 1):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            press_ctrl_c(patch, after)
            p4.sample(MODEL, checkpoint=tmp_path / "run", **RUN)
    assert checkpoint.read_saved(tmp_path / "run").progress["warmed"] > 15
    with raises("checkpoint.no_draws", "of 40 warm-up steps"):
        p4.load_run(tmp_path / "run")
    assert_same(whole, p4.sample(MODEL, checkpoint=tmp_path / "run", **RUN))


def test_a_second_ctrl_c_is_not_swallowed(monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c(monkeypatch, 120, times=2)
        p4.sample(MODEL, **RUN)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_runs_in_threads_and_under_other_handlers_leave_signals_alone(whole):
    found = []
    thread = threading.Thread(target=lambda: found.append(p4.sample(MODEL, **RUN)))
    thread.start()
    thread.join()
    assert_same(whole, found[0])
    own = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert_same(whole, p4.sample(MODEL, **RUN))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, own)


# --- killed, and read meanwhile


LONG = RUN | {"num_samples": 150, "thinning": 5}
KILLING = f"""
import os, signal, time, numpy as np, phi4ppl as p4
from phi4ppl.results.datatree import metadata
from phi4ppl.results import run_page
from phi4ppl.sampling import chains

def child():
    chains.SECONDS_PER_CHECKPOINT, chains.SECONDS_PER_CHUNK = 0.0, 0.0005
    model = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)
    p4.save_run(p4.sample(model, checkpoint="run", **{LONG!r}), "run.nc")

def written():
    return os.stat("run/head.ckpt").st_mtime_ns if os.path.exists("run/head.ckpt") else 0

random, read, unfinished = np.random.default_rng(0), 0, 0
for writes in [1, 5, 20]:
    seen, process = written(), os.fork()
    if not process:
        child()
        os._exit(0)
    # wait until it has written so often, then for a random time
    while writes:
        time.sleep(0.0005)
        writes, seen = writes - (written() != seen), written()
    time.sleep(random.uniform(0.0, 0.02))
    os.kill(process, signal.SIGSTOP)  # it is read while it is in the middle of something
    unfinished += any(name.endswith(".tmp") for name in os.listdir("run"))
    if p4.sampling.checkpoint.read_saved("run").files:
        read += metadata(p4.load_run("run"))["settings"]["incomplete"]
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
child()
print(read, unfinished)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_ends_with_the_same_numbers(tmp_path, run_python):
    """Killed at times that do not depend on what it is doing, mostly while it writes, and read just before."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    read, _ = run_python(["-c", KILLING], cwd=tmp_path, **cache).stdout.split()
    assert int(read) > 0
    assert_same(p4.sample(MODEL, **LONG), p4.load_run(tmp_path / "run.nc"))


def test_the_command_line_resumes_and_reports_a_checkpoint(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run_page, "figures", lambda tree: {})  # they take their time
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("import phi4ppl as p4\n\nmodel = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)\n")
    run = ["run", "mine.py", "--warmup", "40", "--samples", "60", "--chains", "3", "--thinning", "3", "--seed", "5",
           "--kernel", "local_hmc", "--checkpoint", "kept"]  # fmt: skip
    with monkeypatch.context() as patch, warns("sampling.interrupted"):
        press_ctrl_c(patch, 120)
        assert main(run) == 130
    assert "INTERRUPTED after" in capsys.readouterr().out
    before = {p.name: p.read_bytes() for p in Path("kept").iterdir()}
    assert main(["report", "kept"]) in (0, 1)
    assert "INTERRUPTED after" in capsys.readouterr().out
    assert Path("kept", "report.html").exists()
    assert main(["report", "kept"]) in (0, 1)  # again: its own report only
    reports = ("report.html", "report.json")
    assert {p.name: p.read_bytes() for p in Path("kept").iterdir() if p.name not in reports} == before
    draws = Path("runs", "mine", "samples.nc").read_bytes()
    capsys.readouterr()
    for other in (
        run[:-2],
        [*run[:-2], "--seed", "6"],
        [*run[:-1], "another"],
    ):  # its draws are kept, but for its own run
        assert main(other) == 2
        assert "holds results of an unfinished phi4ppl run" in capsys.readouterr().err
    assert Path("runs", "mine", "samples.nc").read_bytes() == draws
    assert main(run) in (0, 1)
    assert "INTERRUPTED" not in capsys.readouterr().out
    record = json.loads(Path("runs", "mine", "run.json").read_text())
    assert record["num_samples"] == 60 and not record["interrupted"]
    assert_same(p4.sample(MODEL, **RUN), p4.load_run("runs/mine/samples.nc"))
    assert main(run) == 2 and "holds finished results" in capsys.readouterr().err
    assert main([*run, "--overwrite", "--seed", "6"]) == 2
    assert "belongs to a different run: seed is 5 there, 6 here" in capsys.readouterr().err
