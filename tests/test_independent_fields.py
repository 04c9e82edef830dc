"""The DataTree of a run as data: thinned to independent fields, so that errors are right."""

from __future__ import annotations

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl.results.independent_fields import independent_fields, independent_step

pytestmark = pytest.mark.compile_quickly

RING = p4.lattice.chain(6)
MODEL = p4.gaussian(RING, w=0.3, a=1.0)
RHO = 0.9  # of fields from draw to draw; of their squares ρ², so τ_int of the statistics is (1 + ρ²)/(2 (1 − ρ²)) = 4.8


def run_of(seed: int, draws: int = 500, rho: float = RHO) -> xr.DataTree:
    """What a sampler of the model with autocorrelation ρ^t leaves: exact draws, mixed along each chain."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.linalg.inv(np.asarray(p4.exact.gaussian_precision(MODEL), float)))
    phi = rng.normal(size=(4, draws, 6)) @ root.T
    for t in range(1, draws):
        phi[:, t] = rho * phi[:, t - 1] + np.sqrt(1 - rho**2) * phi[:, t]
    posterior = xr.Dataset({"phi": (("chain", "draw", "site"), phi)}, {"site": range(6)})
    return xr.DataTree.from_dict({"posterior": posterior})


def test_errors_from_a_correlated_run_are_those_of_independent_fields():
    """Scores of w and a over 60 runs.

    Thinned by 2 τ_int, draws keep a correlation of e⁻² at most, which makes errors too small by 1.15; rms of 120 scores has an
    error of 9 % with correlated couplings, so it lies in 0.75 to 1.45 but for a chance of 2e-3, with keys fixed. Flattened by
    hand, the planted fault, it is √(2 τ_int) = 3.1.
    """
    thinned, flattened = [], []
    for seed in range(60):
        tree = run_of(seed)
        for data, scores in ((tree, thinned), (tree["posterior"]["phi"].values.reshape(-1, 6), flattened)):
            fit = p4.fit_likelihood(MODEL, data)
            scores += [(float(fit.model.couplings[n]) - v) / fit.standard_errors[n] for n, v in MODEL.couplings.items()]
    assert 0.75 < np.sqrt(np.mean(np.square(thinned))) < 1.45
    assert np.sqrt(np.mean(np.square(flattened))) > 2.2


def test_spacing_is_twice_the_autocorrelation_time():
    chains = run_of(0, 4000)["posterior"]["phi"].values
    assert 8 <= independent_step(chains, MODEL) <= 13  # 2 τ_int of ΣT is 9.5, of m² the same
    assert independent_step(run_of(0, 4000, 0.0)["posterior"]["phi"].values, MODEL) == 1
    assert independent_step(chains[:, :7], MODEL) == 1  # too few to tell


def test_a_slow_statistic_of_the_model_sets_the_spacing():
    """Neighbors of fixed signs that flip together slowly: m² and φ² do not move, the source does."""
    rng = np.random.default_rng(0)
    flips = np.cumprod(np.where(rng.random((4, 4000)) < 0.02, -1, 1), axis=1)
    chains = flips[..., None] + 0.1 * rng.normal(size=(4, 4000, 6))
    assert independent_step(chains, MODEL) < 3
    sourced = p4.MarkovRandomField(RING, [*MODEL.terms, p4.Term("h", np.arange(6)[:, None], p4.terms.source, 0.1)])
    assert independent_step(chains, sourced) > 30


def test_every_function_takes_the_tree_and_says_so(capsys):
    tree, priors = run_of(1), {"w": dist.Uniform(0.1, 0.45)}
    by_hand, note = independent_fields(tree, MODEL)
    fields = by_hand.values.reshape(-1, 6)
    assert note.startswith("data: one draw in ") and len(fields) < 300
    fit = p4.fit_likelihood(MODEL, tree)
    assert fit.warnings[0] == note and fit.num_fields == len(fields)
    assert fit.model.couplings == p4.fit_likelihood(MODEL, fields).model.couplings
    short = {"normalizer": "exact", "num_warmup": 100, "num_samples": 100, "progress": False}
    inferred = p4.infer_couplings(MODEL, tree, priors, **short)
    assert p4.settings(inferred)["notes"] == [note]
    np.testing.assert_array_equal(
        inferred["posterior"]["w"], p4.infer_couplings(MODEL, fields, priors, **short)["posterior"]["w"]
    )
    capsys.readouterr()
    compared = p4.compare({"one": MODEL}, tree)
    assert note in capsys.readouterr().out
    np.testing.assert_array_equal(compared.data, fields)


def test_reweighting_keeps_all_draws():
    """It has blocks of its own for autocorrelation."""
    tree = run_of(2)
    one, other = (p4.reweight(d, MODEL, MODEL.replace(w=0.32)) for d in (tree, tree["posterior"]["phi"].values))
    assert (
        one.num_fields == other.num_fields == 2000 and one.log_partition_ratio_error == other.log_partition_ratio_error
    )


def test_a_tree_without_the_field_is_refused():
    with raises("argument.data", "DataTree", "'phi'"):
        p4.fit_likelihood(MODEL, xr.DataTree.from_dict({"posterior": xr.Dataset({"w": ("draw", [1.0])})}))
