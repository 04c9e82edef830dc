"""Chains that persist while the couplings change, against exact values."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from exact_runs import model_of, rejected, z_scores
from raising import raises

import phi4ppl as p4
from phi4ppl.model.coupling_vector import CouplingVector, statistics_matrix
from phi4ppl.sampling.engine import Engine

pytestmark = pytest.mark.compile_quickly


@pytest.fixture(scope="module")
def chains(reference):
    model = model_of(reference["fisher_chain_N4_w0.8_a1.4_b0.2"])
    elsewhere = model.replace(w=0.2, a=2.0)
    ensemble = Engine(elsewhere, kernel="local_hmc", num_chains=64, key=jax.random.key(5))
    ensemble.warm_up(elsewhere, 100)
    return ensemble


def series_of(ensemble, model) -> dict:
    ensemble.draw(model, 50)
    fields = ensemble.draw(model, 1200).fields
    matrix = statistics_matrix(model, fields.reshape(-1, *model.field_shape)).reshape(*fields.shape[:2], -1)
    return {name: matrix[:, :, k] for k, name in enumerate(CouplingVector.of(model).names)}


def test_new_couplings_are_sampled_exactly(chains, reference):
    """⟨T⟩ of the exact reference, false-alarm rate 1e-4; chains that stay at the old couplings are caught."""
    case = reference["fisher_chain_N4_w0.8_a1.4_b0.2"]
    # the reference has the statistics of exp(+θ·t)
    exact = {name: -case["quantities"][f"dlogZ/d{name}"]["value"] for name in ("w", "a", "b")}
    model = model_of(case)
    assert rejected(z_scores(series_of(chains, model), exact)) == {}
    assert rejected(z_scores(series_of(chains, model.replace(w=0.2, a=2.0)), exact)) != {}


def test_chains_forget_the_last_couplings_before_they_draw(reference):
    """⟨φ²⟩ of the very next draw of 2,000 chains, false-alarm rate 1e-4; without burn-in they still remember."""
    case = reference["fisher_chain_N4_w0.8_a1.4_b0.2"]
    model, exact = model_of(case), -case["quantities"]["dlogZ/da"]["value"]
    elsewhere, scores = model.replace(w=0.2, a=6.0), []
    for burn_in in (True, False):
        engine = Engine(elsewhere, kernel="local_hmc", num_chains=2000, key=jax.random.key(7))
        engine.warm_up(elsewhere, 100)
        squares = (engine.draw(model, 1, burn_in=burn_in).fields.astype(float) ** 2).sum(axis=(1, 2))
        scores.append(abs(squares.mean() - exact) / (squares.std() / 2000**0.5))
    assert scores[0] < 3.9 < scores[1]


def test_new_couplings_do_not_compile_again(chains, reference):
    model = model_of(reference["fisher_chain_N4_w0.8_a1.4_b0.2"])
    chains.draw(model, 3)
    before = chains._program.advance._cache_size(), chains._program.begin._cache_size()
    chains.draw(model.replace(w=0.7, b=0.3), 7)
    chains.warm_up(model.replace(a=2.0), 120)
    chains.draw(model.replace(a=2.0), 4, thinning=3)
    assert (chains._program.advance._cache_size(), chains._program.begin._cache_size()) == before


def test_observables_are_those_of_the_draws_that_are_kept(reference):
    """They are measured in the last of three iterations; those of another one, or none, would not be the fields' own."""
    model = model_of(reference["fisher_chain_N4_w0.8_a1.4_b0.2"])
    engine = Engine(
        model, kernel="local_hmc", num_chains=8, key=jax.random.key(9), observables=(("square", sum_of_squares),)
    )
    drawn = engine.draw(model, 5, thinning=3)
    squares = (drawn.fields.astype(float) ** 2).sum(axis=-1)
    np.testing.assert_allclose(drawn.observables["square"], squares, rtol=1e-5)
    assert np.all(squares > 0)


def sum_of_squares(model, phi):
    return (phi**2).sum()


def test_chains_start_and_go_on_where_they_are_told(reference):
    model = model_of(reference["fisher_chain_N4_w0.8_a1.4_b0.2"])
    start = np.arange(64 * 4, dtype=float).reshape(64, 4) / 100
    ensemble = Engine(model, kernel="local_hmc", num_chains=64, key=jax.random.key(6), start=start)
    np.testing.assert_allclose(ensemble.fields, start, rtol=1e-6)
    drawn = ensemble.draw(model, 6, thinning=2).fields
    np.testing.assert_array_equal(ensemble.fields, drawn[:, -1])
    signs = np.sign(Engine(model, kernel="local_hmc", num_chains=64, key=jax.random.key(6)).fields.mean(axis=1))
    assert 10 < (signs > 0).sum() < 54


def test_wrong_arguments_are_named(chains):
    other = p4.phi4(p4.lattice.chain(5), a=1.0, b=0.1)
    with raises("argument.model.mismatch"):
        chains.draw(other, 10)
    with raises("argument.start.shape", "(4, 5)", got="shape (4, 6)"):
        Engine(other, kernel="local_hmc", num_chains=4, key=jax.random.key(0), start=np.zeros((4, 6)))


def test_fields_without_a_finite_action_are_an_error(reference):
    model = model_of(reference["fisher_chain_N4_w0.8_a1.4_b0.2"])
    far = Engine(model, kernel="local_hmc", num_chains=64, key=jax.random.key(0), start=np.full((64, 4), 1e30))
    with raises("sampling.not_finite", "0", "3"):
        far.draw(model, 3)
