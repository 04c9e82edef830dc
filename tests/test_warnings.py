"""Warnings are issued at the line that called the library, whatever lies between: wrappers, base classes, other functions."""

import ast
import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from test_interrupted import press_ctrl_c
from test_scaling_fits import binder, covariance_of, rows_of, table_of

import phi4ppl as p4
from phi4ppl import disorder, dynamics, errors, networks
from phi4ppl.inference import couplings
from phi4ppl.partition import surface
from phi4ppl.partition.partition_estimate import PartitionEstimate
from phi4ppl.results import predictive_groups

pytestmark = pytest.mark.compile_quickly

SITE = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5)
RING = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.5, b=0.2)
INTRINSIC = p4.gaussian(RING.lattice, w=1.0, a=1.0)
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
        phi = numpyro.sample("phi", p4.GibbsField(INTRINSIC))  # which has no density to draw from
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


def contradicted_prior(_):
    sizes, couplings = rows_of()
    values = binder(sizes, couplings, correction=-6.0)
    table = table_of(sizes, couplings, values, covariance_of(sizes, couplings, error=1e-3))
    p4.analysis.fit_scaling(table, "U4", corrections=1, omega=(1.0, 0.25))


def unsettled_search(_):
    start = p4.gaussian(p4.lattice.square(8), w=0.3, a=1.0)
    p4.renormalization.find_fixed_point(start, "average", basis=("w", "a"), eta=0.25, steps=1, num_samples=100, seed=1)


def moving_means(monkeypatch):
    lift = p4.renormalization.exact_conditional_field(p4.phi4(p4.lattice.square(4), w=0.2, a=1.0, b=0.1), alpha=10.0)
    means = (np.full((1, 4, 4), float(sweeps)) for sweeps in range(99))
    monkeypatch.setattr(type(lift), "_averaged", lambda *_: (next(means), np.full((1, 4, 4), 0.1)))
    lift.mean(np.ones((1, 2, 2)))


def far_works(_):
    trap = dynamics.Driven(dynamics.Langevin(SITE, "exponential"), {"a": ([0.0, 0.2], [0.5, 100.0])})
    tree = dynamics.evolve(trap, ROWS[:, :1], time=0.2, step_size=0.01, every=0.1)
    dynamics.free_energy_difference(tree, on_poor_overlap="warn")


def short_correction(_):
    model = p4.gaussian(p4.lattice.square(2), w=0.2, a=1.0)
    dynamics.correct(10 + np.zeros((16, 2, 2)) + np.arange(16)[:, None, None], model, sweeps=1)


def bent_growth(_):
    times = np.arange(1.0, 101.0)
    bent = np.where(times < 30, times**0.1, 30**-0.4 * times**0.5)
    sizes = bent * (1 + 0.01 * np.arange(4)[:, None])
    dynamics.growth_exponent(xr.DataArray(sizes, dims=("replica", "time"), coords={"time": times}), first=2)


def coarse_noise(_):
    noising = dynamics.Noising(RING.lattice)
    score = dynamics.exact_score(p4.gaussian(RING.lattice, w=0.0, a=2.0), noising)
    reverse = dynamics.ReverseDiffusion(noising, score, dynamics.noise_times(2.0, 4), 1.0)
    tree = dynamics.evolve(reverse, reverse.prior(60), time=4)
    dynamics.weigh(tree, p4.gaussian(RING.lattice, w=0.0, a=0.01), on_poor_overlap="warn")


def score_without_density(monkeypatch):
    def without(model, data, **options):
        found = p4.fit_likelihood(model, data, **options)
        return SimpleNamespace(converged=False, model=found.model, standard_errors=found.standard_errors)

    monkeypatch.setattr(sys.modules["phi4ppl.dynamics.score"], "fit_likelihood", without)
    model = p4.gaussian(RING.lattice, w=0.0, a=1.0)
    dynamics.fit_score(
        model, np.random.default_rng(0).normal(size=(400, 4)), dynamics.Noising(RING.lattice), [0.1, 1.0]
    )


def complex_tail(_):
    process = dynamics.ComplexLangevin(p4.phi4(SITE.lattice, w=0.0, a=-0.25, b=0.25), {"a": -0.25 + 0.5j})
    tree = dynamics.evolve(process, np.zeros((100, 1)), time=20.0, step_size=0.01, every=0.5)
    dynamics.time_averages(tree, {"phi2": lambda phi: phi[0] ** 2}, burn_in=5.0, on_wrong_limit="warn")


def off_the_critical_point(_):
    k = 2 * np.pi / 64 * np.sqrt(np.arange(400.0))
    free = 1 / (k**2 + 0.04)
    p4.spectral.momentum_exponent(p4.analysis.Correlator(k, free, np.diag((1e-3 * free) ** 2), label="k̂"))


def realizations_that_fail(monkeypatch):
    monkeypatch.setattr(disorder.Quenched, "warnings", ("realisation 0: chains disagree",))
    run = {"num_realizations": 2, "num_warmup": 20, "num_samples": 20, "progress": False}
    disorder.quenched(SITE, {"a": dist.Uniform(0.5, 1.0)}, **run)


def averages_that_disagree(_):
    one, other = ({"w": np.ones((1, 1)) * s} for s in (1, -1))
    p4.lens.average(lambda p, x: (x @ p["w"]) ** 2, [one, other], np.ones((3, 1)))


def short_chains(_):
    critical = p4.phi4(p4.lattice.square(8), w=1.0, a=1.52425, b=0.175)
    p4.GibbsField(critical, num_sweeps=40).sample(jax.random.key(0), (16,))


def frustrated_draws(_):
    model = p4.phi4(p4.lattice.complete(5), w=-4.0, a=-4.0, b=1.0)
    p4.GibbsField(model, num_sweeps=1).sample(jax.random.key(0))


def two_modes(_):
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 7.0))
        lobes = dist.Normal(jnp.stack([x, x - 4.0]), 1.0)
        numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), lobes), obs=0.0)

    p4.laplace(model, anneal=False)


def loose_map(_):
    corners = [[[0, 0], [1, 0], [1, 1], [0, 0]], [[0.5, 0.2], [2, 0.2], [2, 1], [0.5, 0.2]]]
    polygons = [{"type": "Polygon", "coordinates": [ring]} for ring in corners]
    features = [{"type": "Feature", "properties": {}, "geometry": polygon} for polygon in polygons]
    p4.lattice.from_geometry({"type": "FeatureCollection", "features": features})


CASES = {
    "lattice/geometry.py": [loose_map],
    "lens/averages.py": [averages_that_disagree],
    "analysis/scaling_fit.py": [contradicted_prior],
    "renormalization/flow.py": [unsettled_search],
    "renormalization/conditional_field.py": [moving_means],
    "disorder/quenched.py": [realizations_that_fail],
    "spectral/field_modes.py": [off_the_critical_point],
    "dynamics/corrected.py": [short_correction],
    "dynamics/driven.py": [far_works],
    "dynamics/growth.py": [bent_growth],
    "dynamics/reverse_diffusion.py": [coarse_noise],
    "dynamics/score.py": [score_without_density],
    "dynamics/stationary.py": [complex_tail],
    "numpyro_plugin/draw_check.py": [short_chains, frustrated_draws],
    "sampling/chains.py": [interrupted_run],
    "results/predictive_groups.py": [prediction],
    "reweighting/reweighted.py": [far_target, lambda _: far_target(_, pooled=True)],
    "partition/log_partition.py": [disagreement],
    "partition/surface.py": [short_surface],
    "inference/couplings.py": [noisy_posterior],
    "inference/laplace.py": [two_modes],
    "networks/training.py": [interrupted_training, diverging_training, diverging_stack],
    "networks/estimators.py": [diverging_gaussian],
    "networks/stacks.py": [interrupted_stack],
}


@pytest.mark.parametrize(("module", "cause"), [(module, cause) for module, causes in CASES.items() for cause in causes])
def test_warnings_point_at_the_caller(module, cause, monkeypatch):
    """The planted fault counts frames, as `warnings.warn` by itself does: it names a file of the package."""
    issued, plain = [], errors.warn

    def watched(warning, line=None):
        issued.append(Path(sys._getframe(1).f_code.co_filename).as_posix())
        with warnings.catch_warnings(record=True) as counted:
            warnings.simplefilter("always")
            warnings.warn(warning, stacklevel=3)
        assert counted[0].filename.startswith(errors.PACKAGE)
        plain(warning, line)

    place = import_module("phi4ppl." + module[:-3].replace("/", "."))
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
