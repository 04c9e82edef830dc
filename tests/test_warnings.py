"""Warnings are issued at the line that called the library, whatever lies between: wrappers, base classes, other functions."""

import ast
import signal
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from test_interrupted import press_ctrl_c

import phi4ppl as p4
from phi4ppl import errors, networks
from phi4ppl.inference import couplings
from phi4ppl.partition import surface
from phi4ppl.partition.partition_estimate import PartitionEstimate
from phi4ppl.results import predictive_groups

pytestmark = pytest.mark.compile_quickly

RING = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.5, b=0.2)
RUN = {"num_warmup": 40, "num_samples": 60, "num_chains": 2, "progress": False}
ROWS = np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 2.0, 3.0]
BITS = (ROWS > 0).astype(float)


def interrupted_run(monkeypatch):
    press_ctrl_c(monkeypatch, 60)
    p4.sample(RING, **RUN)


def prediction(monkeypatch):
    def refuse(*_, **__):
        raise p4.errors.MemoryLimitError("test", "for a test")

    def model(y):
        phi = numpyro.sample("phi", p4.GibbsField(RING))
        numpyro.sample("y", dist.Normal(phi, 0.5), obs=y)

    monkeypatch.setattr(predictive_groups, "require_memory", refuse)  # sampling takes its time
    with pytest.raises(p4.errors.MemoryLimitError):
        p4.sample(model, np.ones(4), **RUN, predictive=True)


def far_target(_, pooled=False):
    phi = jax.random.normal(jax.random.key(0), (2, 100, 4))
    source, target, options = lambda f: jnp.sum(f**2) / 2, lambda f: 8 * jnp.sum(f**2), {"on_poor_overlap": "warn"}
    if pooled:
        p4.combine_ensembles([phi], [source]).reweight(target, **options)
    else:
        p4.reweight(phi, source, target, **options)


def disagreement(monkeypatch):
    def estimated(value):
        return lambda *_, **__: PartitionEstimate(value, 0.1, "integration", "for a test")

    estimate = sys.modules["phi4ppl.partition.log_partition"]  # the package has a function of that name
    monkeypatch.setattr(estimate, "exact_log_partition", lambda model: None)
    monkeypatch.setattr(estimate, "integrate", estimated(1.0))
    monkeypatch.setattr(estimate, "anneal", estimated(2.0))
    p4.log_partition(RING)


def short_surface(monkeypatch):
    monkeypatch.setattr(surface.Pool, "complaints", ["chains are short"])
    p4.PartitionSurface(RING, {"w": (0.45, 0.5)}, num_samples=100, num_chains=2, progress=False)


def noisy_posterior(monkeypatch):
    tree = p4.sample(RING, **RUN, observables={"w": lambda phi: phi.mean()})
    found = tree, {}, ["may have moved the posterior"]
    monkeypatch.setattr(couplings, "_by_log_partition", lambda *_: found)
    p4.infer_couplings(RING, np.ones((1, 4)), {"w": dist.Uniform(0.0, 1.0)})


def interrupted_training(_):
    machine = networks.GaussianBernoulliRBM(2, n_epochs=1).fit(ROWS).machine_
    networks.train(machine, ROWS, epochs=3, on_epoch=lambda *_: signal.raise_signal(signal.SIGINT))


def diverging_training(_):
    networks.GaussianBernoulliRBM(2, learning_rate=50.0, n_epochs=20).fit(ROWS)


def diverging_gaussian(_):
    networks.GaussianGaussianRBM(1, learning_rate=50.0, n_epochs=20).fit(ROWS)


def interrupted_stack(monkeypatch):
    learn = networks.BernoulliBernoulliRBM.partial_fit

    def interrupted(machine, *arguments):
        signal.raise_signal(signal.SIGINT)
        return learn(machine, *arguments)

    monkeypatch.setattr(networks.BernoulliBernoulliRBM, "partial_fit", interrupted)
    networks.DeepPhi4Network([networks.BernoulliBernoulliRBM(2, n_epochs=5)]).fit(BITS)


def diverging_stack(_):
    networks.DeepPhi4Network([networks.GaussianBernoulliRBM(2, learning_rate=50.0, n_epochs=20)]).fit(ROWS)


CASES = {
    "sampling/chains.py": [interrupted_run],
    "results/predictive_groups.py": [prediction],
    "reweighting/reweighted.py": [far_target, lambda _: far_target(_, pooled=True)],
    "partition/log_partition.py": [disagreement],
    "partition/surface.py": [short_surface],
    "inference/couplings.py": [noisy_posterior],
    "networks/training.py": [interrupted_training, diverging_training, diverging_stack],
    "networks/estimators.py": [diverging_gaussian],
    "networks/stacks.py": [interrupted_stack],
}


@pytest.mark.parametrize(("module", "cause"), [(module, cause) for module, causes in CASES.items() for cause in causes])
def test_warnings_point_at_the_caller(module, cause, monkeypatch):
    """The planted fault counts frames, as `warnings.warn` by itself does: it names a file of the package."""
    issued, plain = [], errors.warn

    def watched(warning):
        issued.append(Path(sys._getframe(1).f_code.co_filename).as_posix())
        with warnings.catch_warnings(record=True) as counted:
            warnings.simplefilter("always")
            warnings.warn(warning, stacklevel=3)
        assert counted[0].filename.startswith(errors.PACKAGE)
        plain(warning)

    (place,) = [found for name, found in sys.modules.items() if name == "phi4ppl." + module[:-3].replace("/", ".")]
    monkeypatch.setattr(place, "warn", watched)
    with pytest.warns(UserWarning) as told:
        cause(monkeypatch)
    assert issued and all(path.endswith(module) for path in issued)
    assert {warning.filename for warning in told} == {__file__}


def test_every_warning_of_the_package_is_among_these():
    """`errors.warn` is the only way to warn, and what calls it is tested above."""
    root, calling = Path(errors.PACKAGE), set()
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called != "warnings.warn" or name == "errors/__init__.py", name
                calling |= {name} if called == "warn" else set()
    assert calling == set(CASES)


def test_a_program_without_other_frames_warns_at_its_outermost_one(run_python, tmp_path):
    code = (
        "import runpy, phi4ppl.errors as e; exec(compile('e.warn(UserWarning(\"alone\"))', e.PACKAGE + 'x.py', 'exec'))"
    )
    told = run_python(["-W", "always", "-c", code], cwd=tmp_path).stderr
    assert "<string>:1: UserWarning: alone" in told
