"""Chains and lattice dimensions over several devices and processes: the numbers must be those of one device.

Devices are simulated, and have to be before JAX starts: the runs are made in other processes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.results.datatree import metadata

MODEL = p4.phi4(p4.lattice.square(8, 4), w=1.0, a=1.9, b=0.175)
RUN = dict(num_warmup=40, num_samples=20, num_chains=8, seed=5, kernel="local_hmc", thinning=2)
HEAD = f"""
import numpy as np, re, phi4ppl as p4
from phi4ppl.results.datatree import metadata
from phi4ppl.sampling import devices, program

model = p4.phi4(p4.lattice.square(8, 4), w=1.0, a=1.9, b=0.175)
run = {RUN!r}

def arrays(tree):
    return {{f"{{g}}/{{n}}": v.values for g, part in tree.children.items() for n, v in part.data_vars.items()}}

def differing(one, two):
    assert one.keys() == two.keys()
    return [name for name in one if not np.array_equal(one[name], two[name], equal_nan=True)]

def close(one, two):
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-4, err_msg=name)
"""
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
QUICK = EIGHT | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # where bits do not matter: compiling is most of the time


@pytest.mark.parametrize(
    ("devices", "complaint"),
    [
        ({"z": 1}, ("argument.devices.name", "'chain'", "'x'", "'y'", "got 'z'")),
        ({"chain": 3}, ("argument.devices.divisor", "num_chains", "8", "1", "2", "4", "devices['chain']", "got 3")),
        ({"x": 3}, ("argument.devices.divisor", "8", "devices['x']", "got 3")),
        ({"x": 0}, ("argument.devices", "1", "devices['x']")),
        ({"chain": 8, "x": 8, "y": 4}, ("argument.devices.too_many", "1", "got 256")),
        ({}, ("argument.devices",)),
        (4, ("argument.devices",)),
    ],
)
def test_what_cannot_be_spread_is_told_at_once(devices, complaint):
    if jax.device_count() > 1:
        pytest.skip("counts on one device")
    with raises(*complaint):
        p4.sample(MODEL, devices=devices, **RUN)


def test_numpyro_models_have_chains_only():
    with raises("argument.devices.name"):
        p4.sample(lambda: numpyro.sample("x", dist.Normal()), devices={"x": 2})


@pytest.mark.parametrize("kernel", [name for name in p4.kernels() if name.endswith("_fourier")])
def test_fourier_kernels_have_chains_only(kernel):
    with raises("argument.devices.kernel", f"'{kernel}'", got="'x'"):
        p4.sample(MODEL, devices={"x": 1}, **RUN | {"kernel": kernel})


CHAINS = """
for kernel in ("cluster", "chees"):  # a cluster step ends in the sweeps of "local_hmc"
    run["kernel"] = kernel
    one = arrays(p4.sample(model, **run))
    two = p4.sample(model, devices={"chain": 2}, **run)
    assert differing(one, arrays(two)) == [], kernel
    assert metadata(two)["settings"]["devices"] == {"chain": 2}
    if kernel == "cluster":
        eight = arrays(p4.sample(model, devices={"chain": 8}, **run))
        assert np.array_equal(one["posterior/phi"], eight["posterior/phi"])
        close(one, eight)  # one chain a device: sums in another order
        # a planted fault: every device has the keys of the first
        put = devices._put
        def same(leaf, sharding):
            if devices.jax.dtypes.issubdtype(leaf.dtype, devices.jax.dtypes.prng_key):
                leaf = devices.jnp.tile(leaf[:4], 2)
            return put(leaf, sharding)
        devices._put = same
        assert "posterior/phi" in differing(one, arrays(p4.sample(model, devices={"chain": 2}, **run)))
        devices._put = put
"""


def test_spread_chains_have_the_numbers_of_one_device(run_python, tmp_path):
    run_python(["-c", HEAD + CHAINS], cwd=tmp_path, **EIGHT)


LATTICE = """
one = arrays(p4.sample(model, **run))
for spread in ({"chain": 2, "x": 4}, {"x": 2, "y": 2}):
    close(one, arrays(p4.sample(model, devices=spread, **run)))
# a field of blocks of bits, which are joined over the devices
square = p4.phi4(p4.lattice.square(8), w=1.0, a=1.5, b=0.175)
two = [arrays(p4.sample(square, **run | dict(kernel="cluster"), devices=d)) for d in (None, {"chain": 2, "x": 4})]
close(*two)
# trajectories amplify rounding: another sample of the same distribution
run |= dict(kernel="hmc", num_warmup=300, num_samples=1000, thinning=1)
one, two = (p4.estimate(p4.sample(model, **run, devices=spread)) for spread in (None, {"x": 2}))
for name in ("phi_squared", "energy_density"):
    a, b = one.loc[name], two.loc[name]
    assert abs(a["mean"] - b["mean"]) < 5 * np.hypot(a["error"], b["error"]), (name, a, b)
"""


def test_spread_lattices_agree_up_to_rounding(run_python, tmp_path):
    run_python(["-c", HEAD + LATTICE], cwd=tmp_path, **QUICK)


COMMUNICATION = """
compiled = []
jit = devices.jax.jit
def remember(function, **options):
    jitted = jit(function, **options)
    def call(*arguments):
        if "donate_argnums" in options and not compiled:
            compiled.append(jitted.lower(*arguments).compile().as_text())
        return jitted(*arguments)
    return call
devices.jax.jit = remember
for spread, expected in (({"chain": 4}, False), ({"x": 2}, True)):
    compiled.clear()
    p4.sample(model, devices=spread, **run)
    found = re.findall("all-gather|all-reduce|collective-permute|all-to-all", compiled[0])
    assert bool(found) == expected, (spread, found)
"""


def test_spread_chains_do_not_communicate(run_python, tmp_path):
    run_python(["-c", HEAD + COMMUNICATION], cwd=tmp_path, **QUICK)


PROCESS = """
import os, signal, sys, jax
from phi4ppl.sampling import chains
jax.config.update("jax_cpu_collectives_implementation", "gloo")
number, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(coordinator_address=f"localhost:{port}", num_processes=2, process_id=number)
"""
KILLED = """
chains.SECONDS_PER_CHECKPOINT, chains.SECONDS_PER_CHUNK = 0.0, 0.0
save = chains._Run.save
def killed(self, settings=None):
    if number == 0 and self.harvest.kept >= 7:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, settings)
chains._Run.save = killed
p4.sample(model, devices={"chain": 4}, checkpoint="kept", **run)
"""
RESUMED = """
opened = chains._Run.open
def told(self, *arguments):
    opened(self, *arguments)
    print("resumed at", self.harvest.kept)
chains._Run.open = told
tree = p4.sample(model, devices={"chain": 4}, checkpoint="kept", progress=True, **run)
again = p4.sample(model, devices={"chain": 4}, checkpoint="kept", **run)
assert again["posterior"].equals(tree["posterior"])
assert metadata(tree)["settings"]["num_processes"] == 2
p4.save_run(tree, f"{number}.nc")
close(arrays(tree), arrays(p4.sample(model, devices={"chain": 2, "x": 2}, **run)))
"""


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return str(probe.getsockname()[1])


def two_processes(code: str, folder: Path, dies: bool = False) -> list[tuple]:
    """Exit status, output and messages of two processes; ``dies``: the first does, and the second, which waits, is killed."""
    if not hasattr(jax._src.lib._jax, "make_gloo_tcp_collectives"):
        pytest.skip("this jaxlib has no gloo, by which processes on CPUs talk")
    path = os.pathsep.join(filter(None, [str(Path(p4.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HEAD + PROCESS + code, str(number), port],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        for number in range(2)
    ]
    try:
        if dies:
            processes[0].wait(timeout=300)
            processes[1].kill()
        told = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def test_two_processes_that_were_killed_have_the_numbers_of_one(tmp_path):
    """The first dies in the middle of the draws, the other is killed then; both are started again."""
    (status, _, told), _ = two_processes(KILLED, tmp_path, dies=True)
    assert status == -signal.SIGKILL, told[-3000:]
    kept = p4.load_run(tmp_path / "kept")
    assert metadata(kept)["settings"]["incomplete"] and kept["posterior"].sizes["draw"] == 6
    ended = two_processes(RESUMED, tmp_path)
    assert [status for status, _, _ in ended] == [0, 0], "\n".join(told[-3000:] for _, _, told in ended)
    assert all("resumed at 6\n" in out for _, out, _ in ended)
    assert "sampling" in ended[0][2] and "sampling" not in ended[1][2]  # progress
    one = p4.sample(MODEL, **RUN)
    for number in range(2):
        tree = p4.load_run(tmp_path / f"{number}.nc")
        np.testing.assert_array_equal(tree["posterior"]["phi"], one["posterior"]["phi"])
        assert metadata(tree)["settings"]["devices"] == {"chain": 4}
