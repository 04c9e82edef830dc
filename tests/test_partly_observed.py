"""Couplings and fields at once: partly observed fields, noisy ones, and missing sites, on the ring of four.

Exact answers by matrices on the nodes of the fields. False alarms: scores of means and variances beyond 3.9 with probability
1e-4 each; keys are fixed. Planted faults: without log Z, and a missing site taken for a zero.
"""

import functools

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from blackjax.adaptation.base import get_filter_adapt_info_fn
from numpyro.infer.util import constrain_fn, potential_energy
from raising import raises
from scipy import stats
from test_natural_priors import NODES, RING, log_z, scores

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.errors.streams import stream_key

pytestmark = [pytest.mark.compile_quickly, pytest.mark.rank_promotion]

RUN = {"num_warmup": 400, "num_samples": 2000, "progress": False, "kernel": "nuts"}
STEP = NODES[1] - NODES[0]
WS = np.linspace(0.0, 1.4, 57)
SITE = np.exp(-(NODES**2) - 0.2 * NODES**4)
TABLE = log_z(WS, 1.0, 0.2)


def exact_log_partition(couplings):
    """log Z by interpolation between exact values that lie dense."""
    return jnp.interp(couplings["w"], jnp.asarray(WS, jnp.float32), jnp.asarray(TABLE, jnp.float32))


def moments(weights_of_site, z=True, prior=None):
    """Mean and variance of w, and of φ at every site, given the weight on the nodes of every site (4, nodes)."""
    log_p, fields = np.empty(len(WS)), np.empty((len(WS), 4, 2))
    for k, w in enumerate(WS):
        hop = np.exp(w * np.outer(NODES, NODES)) * STEP
        for site in range(4):
            order = [(site + m) % 4 for m in range(4)]
            product = np.diag(weights_of_site[order[0]])
            for other in order[1:]:
                product = product @ hop @ np.diag(weights_of_site[other])
            marginal = np.diag(product @ hop)
            total = marginal.sum()
            fields[k, site] = marginal @ NODES / total, marginal @ NODES**2 / total
        log_p[k] = np.log(total) - (TABLE[k] if z else 0)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = p @ WS
    first, second = np.einsum("k,ksm->ms", p, fields)
    return [mean, *first], [np.sqrt(p @ (WS - mean) ** 2), *np.sqrt(np.maximum(second - first**2, 0))]


def delta(value):
    """All weight on the nearest node."""
    return (np.arange(len(NODES)) == np.abs(NODES - value).argmin()).astype(float)


Y = NODES[[np.abs(NODES - v).argmin() for v in (0.9, 0.6, -0.4, 1.1)]]


def seen_at(sites):
    return np.where(np.isin(np.arange(4), sites), Y, np.nan)


def partly(data, log_partition=exact_log_partition):
    w = numpyro.sample("w", dist.Uniform(0.0, 1.4))
    p4.observe_field("phi", p4.GibbsField(RING.replace(w=w), log_partition=log_partition), data)


def unpacked(tree, sites):
    """The tree with one variable per site."""
    posterior = tree["posterior"].to_dataset()
    name = next(n for n in posterior if posterior[n].ndim == 3 and posterior[n].shape[2] == 4)
    axis = posterior[name].dims[2]
    return {"posterior": {"w": posterior["w"]} | {f"phi{k}": posterior[name].isel({axis: k}) for k in sites}}


def test_couplings_of_partly_observed_fields_are_those_of_quadrature():
    tree = p4.sample(partly, seen_at([0, 1]), **RUN)
    weights = np.stack([delta(Y[0]), delta(Y[1]), SITE, SITE])
    means, widths = moments(weights)
    kept = [0, 3, 4]
    truth = [means[k] for k in kept], [widths[k] for k in kept]
    found, names = unpacked(tree, (2, 3)), ("w", "phi2", "phi3")
    assert scores(found, names, truth) < 3.9
    wrong = moments(weights, z=False)
    assert scores(found, names, ([wrong[0][k] for k in kept], [wrong[1][k] for k in kept])) > 6
    zeros = moments(np.stack([delta(Y[0]), delta(Y[1]), delta(0.0), SITE]))
    assert scores(found, ["w"], (zeros[0][:1], zeros[1][:1])) > 6
    np.testing.assert_array_equal(tree["posterior"]["phi"][..., 0], np.float32(Y[0]))
    assert tree["posterior"]["phi_missing"].shape[2] == 2


def noisy(y, log_partition=exact_log_partition):
    w = numpyro.sample("w", dist.Uniform(0.0, 1.4))
    phi = numpyro.sample("phi", p4.GibbsField(RING.replace(w=w), log_partition=log_partition))
    with numpyro.handlers.mask(mask=~np.isnan(y)):
        numpyro.sample("y", dist.Normal(phi, 0.3), obs=y)


def test_couplings_of_noisy_fields_with_missing_sites_are_those_of_quadrature():
    y = seen_at([0, 1, 3])
    tree = p4.sample(noisy, y, **RUN)
    seen = np.exp(-((NODES - Y[:, None]) ** 2) / (2 * 0.3**2))
    weights = SITE * np.where(np.isnan(y)[:, None], 1.0, seen)
    names = ("w", "phi0", "phi1", "phi2", "phi3")
    found = unpacked(tree, range(4))
    assert scores(found, names, moments(weights)) < 3.9
    assert scores(found, names, moments(weights, z=False)) > 6
    assert scores(found, names, moments(SITE * np.where(np.isnan(y)[:, None], delta(0.0), seen))) > 6


def test_masks_and_labels_say_what_is_missing():
    lattice = RING.lattice
    field = p4.GibbsField(RING)

    def whole(data, **options):
        def zeros(site):
            return jnp.zeros(site["fn"].event_shape) if site["name"] == "phi_missing" else None

        model = numpyro.handlers.substitute(
            lambda: p4.observe_field("phi", field, data, **options), substitute_fn=zeros
        )
        sites = numpyro.handlers.trace(model).get_trace()
        return np.asarray(sites["phi"]["value"]), "phi_missing" in sites

    series = pd.Series([3.0, np.nan, 1.0, 0.0], index=[3, 2, 1, 0])
    phi, latent = whole(series)
    assert latent and phi[[0, 1, 3]].tolist() == [0.0, 1.0, 3.0]
    phi, latent = whole(np.arange(4.0), mask=np.array([True, True, False, True]))
    assert latent and phi[[0, 1, 3]].tolist() == [0.0, 1.0, 3.0]
    phi, latent = whole(np.ma.masked_array(np.arange(4.0), mask=[False, False, True, False]))
    assert latent and phi[[0, 1, 3]].tolist() == [0.0, 1.0, 3.0]
    phi, latent = whole(series.fillna(9.0), mask=series.notna())  # both in the order of the labels
    assert latent and phi[[0, 1, 3]].tolist() == [0.0, 1.0, 3.0]
    assert not whole(np.arange(4.0))[1] and lattice.num_sites == 4
    for data, options, code in (
        (np.zeros(3), {}, "argument.data.shape"),
        ([np.inf, 0, 0, 0], {}, "argument.data.finite"),
        (["a", "b", "c", "d"], {}, "argument.data.numbers"),
        (np.full(4, 1j), {}, "argument.data.numbers"),
        ([np.nan, 0, 0, 0], {"mask": np.ones(4, bool)}, "argument.data.missing"),
        (np.zeros(4), {"mask": np.ones(4)}, "argument.mask.shape"),
    ):
        with raises(code):
            whole(data, **options)
    with raises("argument.field"):
        p4.observe_field("phi", RING, np.zeros(4))
    with numpyro.plate("copies", 2), raises("argument.observe_field.plate", "loop"):
        p4.observe_field("phi", field, np.zeros(4))
    with raises("draw_not_available.missing_sites"):
        numpyro.infer.Predictive(lambda: p4.observe_field("phi", field, series), num_samples=2)(jax.random.key(0))


def test_data_may_be_traced_under_a_mask():
    """One program for many data sets: the potential is that of numbers. Values that are masked do not count, NaN or not."""
    mask = np.array([True, True, False, True])

    def potential(data, **options):
        def model():
            p4.observe_field("phi", p4.GibbsField(RING), data, **options)

        return potential_energy(model, (), {}, {"phi_missing": jnp.array([0.7])})

    data = np.array([[0.1, 0.2, np.nan, 0.4], [1.0, -1.0, 5.0, 0.0]], np.float32)
    found = jax.jit(jax.vmap(lambda y: potential(y, mask=mask)))(data)
    np.testing.assert_allclose(found, [potential(y, mask=mask) for y in data], rtol=1e-6)
    with raises("argument.data.traced", "mask"):
        jax.vmap(potential)(data)


# --- calibration by simulation

REPEATS, LEVELS, NUM_RANKS = 200, (0.5, 0.8, 0.95), 20
LONG = p4.phi4(p4.lattice.chain(48), w=0.5, a=1.0, b=0.2)
PRIOR, NOISE = (0.2, 1.2), 0.3
SEEN = np.arange(48) % 3 != 2  # two of three sites
WATCHED = 5  # a site that is not seen


def noisy_chain(y, log_partition, noise=NOISE):
    w = numpyro.sample("w", dist.Uniform(*PRIOR))
    phi = numpyro.sample("phi", p4.GibbsField(LONG.replace(w=w), log_partition=log_partition))
    numpyro.sample("y", dist.Normal(phi, noise), obs=y)
    numpyro.deterministic("watched", phi[WATCHED])


def partly_observed_chain(y, log_partition):
    w = numpyro.sample("w", dist.Uniform(*PRIOR))
    field = p4.GibbsField(LONG.replace(w=w), log_partition=log_partition)
    phi = p4.observe_field("phi", field, y, mask=SEEN)
    numpyro.deterministic("watched", phi[WATCHED])


def chains_at(rng, w, num_sites):
    """An exact field of a ring at every coupling: the first site from the diagonal of T^n, then site by site."""
    fields = np.empty((len(w), num_sites))
    for field, coupling in zip(fields, w, strict=True):
        hop = np.sqrt(np.outer(SITE, SITE)) * np.exp(coupling * np.outer(NODES, NODES))
        hop /= np.linalg.norm(hop, 2)
        p = np.diag(np.linalg.matrix_power(hop, num_sites))
        first = last = rng.choice(len(NODES), p=p / p.sum())
        back = [hop[:, first]]  # T^k(x, first), k = 1, 2, …
        for _ in range(num_sites - 2):
            back.append(hop @ back[-1])
        field[0] = NODES[first]
        for k in range(1, num_sites):
            p = hop[last] * back[num_sites - k - 1]
            last = rng.choice(len(NODES), p=p / p.sum())
            field[k] = NODES[last]
    return fields


def posteriors(model, data, start, num_warmup=300, num_samples=800, num_steps=5):
    """Draws of w and of the watched site given each of many data sets, shape (data sets, draws, 2), by one program of HMC."""

    def one(y, z, key):
        def logdensity(z):
            return -potential_energy(model, (y,), {}, z)

        warmup = blackjax.window_adaptation(
            blackjax.hmc, logdensity, num_integration_steps=num_steps, adaptation_info_fn=get_filter_adapt_info_fn()
        )
        warmup_key, key = jax.random.split(key)
        (state, tuning), _ = warmup.run(warmup_key, z, num_warmup)
        kernel = blackjax.hmc(logdensity, **tuning)

        def body(state, key):
            state, _ = kernel.step(key, state)
            found = constrain_fn(model, (y,), {}, state.position, return_deterministic=True)
            return state, jnp.stack([found["w"], found["watched"]])

        return jax.lax.scan(body, state, jax.random.split(key, num_samples))[1]

    keys = jax.random.split(stream_key(7, "calibration"), len(data))
    starts = jax.vmap(lambda y: start(y) | {"w": jnp.float32(0.0)})(data)
    return np.asarray(jax.jit(jax.vmap(one))(data, starts, keys), float)


@functools.lru_cache
def simulated():
    """Couplings from the prior, a field at each, and the same with noise."""
    rng = np.random.default_rng(5)
    w = rng.uniform(*PRIOR, REPEATS)
    fields = chains_at(rng, w, 48)
    return w, fields, fields + NOISE * rng.normal(size=fields.shape)


def calibration(design, log_partition, **options):
    """p-values of uniform ranks and of the coverage of intervals, and the coverage, of w and of the watched site."""
    w, fields, noisy_fields = simulated()
    if design == "noisy":
        data, start = noisy_fields, lambda y: {"phi": y}
        model = functools.partial(noisy_chain, log_partition=log_partition, **options)
    else:
        data, start = fields, lambda y: {"phi_missing": jnp.zeros(int((~SEEN).sum()))}
        model = functools.partial(partly_observed_chain, log_partition=log_partition)
    draws = posteriors(model, jnp.asarray(data, jnp.float32), start)
    taus = np.array([gamma_method(each[None]).tau_int for each in draws])
    assert draws.shape[1] // NUM_RANKS > 4 * taus.max()  # the draws that are ranked are independent
    p_values, coverage = {}, {}
    for k, (name, truth) in enumerate({"w": w, "watched": fields[:, WATCHED]}.items()):
        below = draws[:, :, k] < truth[:, None]
        ranks = below[:, :: draws.shape[1] // NUM_RANKS][:, 1:].sum(axis=1)  # 19 draws, 20 ranks
        p_values[name, "ranks"] = stats.chisquare(np.bincount(ranks // 2, minlength=NUM_RANKS // 2)).pvalue
        for level in LEVELS:
            inside = int(np.sum(np.abs(below.mean(axis=1) - 0.5) <= level / 2))
            p_values[name, level] = stats.binomtest(inside, REPEATS, level).pvalue
            coverage[name, level] = inside / REPEATS
    return p_values, coverage


@pytest.mark.slow
@pytest.mark.compile_quickly(False)  # it runs for much longer than it compiles
def test_couplings_of_noisy_and_partly_observed_fields_are_calibrated():
    """Posteriors of w and of a site given 200 noisy and 200 partly observed fields of 48 sites, log Z from a surface.

    χ² of ten bins of ranks, and the number of intervals of 50, 80 and 95 % that cover the truth: 16 p-values above 1e-4, so a
    false alarm has probability 1.6e-3. Planted faults: no log Z, and noise of a third of the width.
    """
    surface = p4.PartitionSurface(LONG, {"w": PRIOR}, num_samples=500, progress=False)
    for design in ("noisy", "partly observed"):
        p_values, coverage = calibration(design, surface)
        assert min(p_values.values()) > 1e-4, (design, p_values, coverage)
        assert calibration(design, lambda couplings: 0.0)[0]["w", "ranks"] < 1e-10
    assert min(calibration("noisy", surface, noise=NOISE / 3)[0].values()) < 1e-10
