"""What all fits share: the vector of couplings, the matrix of statistics, the history and its picture."""

from __future__ import annotations

import jax
import numpy as np
from raising import raises

import phi4ppl as p4
from phi4ppl.learning import FitStatus, plot_history
from phi4ppl.learning.history import History
from phi4ppl.model.coupling_vector import CouplingVector, statistics_matrix


def mixed_model():
    """One coupling a term, one a clique, and an own term."""
    lattice = p4.lattice.square(3, diagonals=True)
    model = p4.phi4(lattice, w={"nn": 0.5, "diagonal": np.linspace(0.1, 0.4, 18)}, a=1.0, b=np.linspace(0.1, 0.3, 9))
    own = p4.Term("g", p4.lattice.plaquettes(lattice), lambda p, q, r, s: p * q * r * s, coupling=0.1)
    return p4.MarkovRandomField(lattice, [*model.terms, own])


def test_vector_and_dictionary_are_inverse_to_each_other():
    model = mixed_model()
    vector = CouplingVector.of(model)
    theta = np.arange(vector.size, dtype=float)
    assert vector.size == 1 + 18 + 1 + 9 + 1 == len(vector.names) == len(set(vector.names))
    couplings = vector.unflatten(theta)
    assert couplings["w_nn"] == 0 and couplings["w_diagonal"].tolist() == list(range(1, 19)) and couplings["g"] == 29
    assert vector.names[1] == "w_diagonal[0]" and vector.names[20] == "b[0]"
    np.testing.assert_array_equal(vector.flatten(couplings), theta)
    np.testing.assert_array_equal(vector.flatten(vector.model(theta).couplings), theta)
    batch = np.stack([theta, 2 * theta])
    np.testing.assert_array_equal(vector.flatten(vector.unflatten(batch)), batch)


def test_action_is_linear_in_the_vector(x64):
    """S = θ·T at every field, by NumPy and inside a trace; a wrong order of the terms or a lost clique would break it."""
    model = mixed_model()
    vector = CouplingVector.of(model)
    fields = np.random.default_rng(1).normal(size=(7, 3, 3))
    theta = vector.flatten(model.couplings)
    matrix = statistics_matrix(model, fields)
    np.testing.assert_allclose(matrix @ theta, model.energy(fields), rtol=1e-13)
    traced = jax.jit(lambda phi: vector.stack(model.statistics(phi)))(fields)
    np.testing.assert_allclose(matrix, traced, rtol=1e-12, atol=1e-14)


def test_statistics_of_built_in_terms_are_in_double_precision():
    """Σ φ⁴ of a field near 100 needs more digits than float32 has."""
    model = p4.phi4(p4.lattice.square(8), a=1.0, b=0.1)
    field = 100 + np.random.default_rng(2).normal(size=(1, 8, 8))
    exact = [-(field * (np.roll(field, 1, 1) + np.roll(field, 1, 2))).sum(), (field**2).sum(), (field**4).sum()]
    np.testing.assert_allclose(statistics_matrix(model, field)[0], exact, rtol=1e-14)


def test_statistics_do_not_depend_on_the_chunks(monkeypatch):
    model = mixed_model()
    fields = np.random.default_rng(3).normal(size=(11, 3, 3))
    whole = statistics_matrix(model, fields)
    monkeypatch.setattr("phi4ppl.model.coupling_vector.CHUNK", 100)
    np.testing.assert_allclose(statistics_matrix(model, fields), whole, rtol=1e-6)


def test_wrong_arguments_are_named():
    model = p4.phi4(p4.lattice.square(3), a=1.0, b=0.1)
    with raises("argument.model", "MarkovRandomField", "got dict"):
        CouplingVector.of({})
    with raises("argument.fields", "num_fields", "3", "(5, 9)"):
        statistics_matrix(model, np.zeros((5, 9)))
    with raises("argument.history", "got no steps"):
        plot_history(History(CouplingVector.of(model)).dataset())


def test_history_continues_where_it_was():
    vector = CouplingVector.of(p4.phi4(p4.lattice.chain(3), a=1.0, b=0.1))
    first = History(vector)
    first.add([1.0, 2.0, 3.0], {"loss": 5.0})
    second = History(vector, first.dataset())
    second.add([1.5, 2.5, 3.5], {"loss": 4.0})
    both = second.dataset()
    assert both["step"].values.tolist() == [1, 2] and both["loss"].values.tolist() == [5.0, 4.0]
    assert both["couplings"].sel(coupling="a").values.tolist() == [2.0, 2.5]
    assert History(vector, both).dataset().identical(both)


def test_history_of_many_couplings_keeps_their_mean_and_spread():
    model = p4.phi4(p4.lattice.square(12), a=1.0, b=0.1).inhomogeneous("a", "w")
    vector = CouplingVector.of(model)
    history = History(vector)
    theta = np.random.default_rng(4).normal(size=vector.size)
    history.add(theta, {"loss": 1.0})
    data = history.dataset()
    assert "couplings" not in data and "spread_b" not in data
    assert data["mean_a"].item() == theta[288:432].mean() and data["spread_w"].item() == theta[:288].std()


def test_history_draws_positive_numbers_on_a_logarithmic_scale():
    vector = CouplingVector.of(p4.phi4(p4.lattice.chain(3), a=1.0, b=0.1))
    history = History(vector)
    for k in range(20):
        history.add([0.1 * k, 1.0, 2.0], {"loss": 10.0**-k, "change": (-1) ** k * 1.0})
    panels = {axes.get_title(): axes for axes in plot_history(history.dataset()).axes if axes.get_visible()}
    assert {name: axes.get_yscale() for name, axes in panels.items()} == {
        "loss": "log", "change": "linear", "couplings": "linear"
    }  # fmt: skip
    assert [text.get_text() for text in panels["couplings"].get_legend().get_texts()] == ["w", "a", "b"]


def test_history_leaves_out_details_and_constants_unless_asked():
    vector = CouplingVector.of(p4.phi4(p4.lattice.chain(3), a=1.0, b=0.1))
    history = History(vector)
    for k in range(3):
        history.add([0.1, 1.0, 2.0], {"improvement": 10.0**-k, "damping": 0.1 * k, "same": 6.0})

    def titles(**options):
        return [axes.get_title() for axes in plot_history(history.dataset(), **options).axes if axes.get_visible()]

    assert titles() == ["improvement", "couplings"]
    assert titles(details=True) == ["improvement", "damping", "same", "couplings"]


def test_every_status_says_what_to_do():
    assert FitStatus.CONVERGED.converged and not any(s.converged for s in FitStatus if s is not FitStatus.CONVERGED)
    assert all(len(str(status)) > 60 for status in FitStatus if not status.converged)
