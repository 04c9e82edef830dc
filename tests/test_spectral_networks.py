"""Kernels compared, features of estimators, random labels and attention, against closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from phi4ppl import networks
from phi4ppl.errors import ArgumentError
from phi4ppl.spectral.attention import attention_spectrum, collapse_residual
from phi4ppl.spectral.comparison import compare_kernels
from phi4ppl.spectral.features import features_of, kernel_from_features
from phi4ppl.spectral.random_labels import random_label_test
from phi4ppl.spectral.spectra import spectrum

pytestmark = pytest.mark.compile_quickly


def orthogonal(number, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(number, number)))[0]


def test_turned_and_stretched_eigenvectors_give_known_ratios_and_angles():
    basis, angle = orthogonal(60), 0.3
    turned = np.stack([np.cos(angle) * basis[:, 0] + np.sin(angle) * basis[:, 2], basis[:, 1]], axis=1)
    before = basis[:, :2] * [5.0, 2.0] @ basis[:, :2].T
    found = compare_kernels(before, turned * [15.0, 1.0] @ turned.T, num_eigenvalues=2)
    np.testing.assert_allclose(found.ratios, [3.0, 0.5], rtol=1e-10)
    np.testing.assert_allclose(found.angles, [0.0, angle], atol=1e-7)
    assert found.trace_ratio == pytest.approx(16 / 7)


def kernel_with_targets(seed=0):
    rng = np.random.default_rng(seed)
    y, features = rng.choice([-1.0, 1.0], 80), rng.normal(size=(80, 30))
    return features @ features.T, y


def test_alignment_with_targets_is_one_for_their_own_kernel_and_that_of_shuffled_ones_is_beside_it():
    """The mean over all orders of the targets is tr(K)/((n−1)|K|) exactly. A baseline from targets that are not shuffled would
    be the alignment itself, and is caught."""
    plain, y = kernel_with_targets()
    found = compare_kernels(plain, plain + 50 * np.outer(y, y), y)
    own = compare_kernels(np.outer(y, y), np.outer(y, y), y, num_eigenvalues=1)
    assert own.after.value == pytest.approx(1.0) and own.alignment == pytest.approx(1.0)
    middle = np.eye(80) - 1 / 80
    kernel = middle @ plain @ middle
    exact = np.trace(kernel) / (79 * np.linalg.norm(kernel))
    assert found.before.shuffled_mean == pytest.approx(exact, rel=1e-10)
    drawn = [
        y_ @ kernel @ y_ / (np.linalg.norm(kernel) * (y_ @ y_))
        for y_ in (middle @ np.random.default_rng(k).permutation(y) for k in range(400))
    ]
    assert np.mean(drawn) == pytest.approx(exact, abs=4 * np.std(drawn) / 20)  # false alarm: once in 16,000 seeds
    assert found.before.shuffled_sd == pytest.approx(np.std(drawn), rel=0.3)
    assert abs(found.before.z) < 4 < 10 < found.after.z
    assert abs(found.after.value - found.after.shuffled_mean) > 10 * found.after.shuffled_sd  # the planted fault
    assert "shuffled targets" in str(found)


def test_errors_of_the_comparison_are_those_of_new_points():
    """Standard deviation over 60 draws of points (known to 9 %) against the mean jackknife error, within a factor of 1.5."""
    values, errors = [], []
    for seed in range(60):
        x = np.random.default_rng(seed).normal(size=(100, 4))
        found = compare_kernels(x @ x.T, np.tanh(2 * x) @ np.tanh(2 * x).T, num_eigenvalues=2)
        values.append([found.alignment, found.trace_ratio])
        errors.append([found.alignment_error, found.trace_ratio_error])
    ratio = np.std(values, axis=0) / np.mean(errors, axis=0)
    assert (1 / 1.5 < ratio).all() and (ratio < 1.5).all()


def test_what_cannot_be_compared_is_refused():
    kernel, y = kernel_with_targets()
    for arguments, options, code in [
        ((kernel, kernel[:50, :50]), {}, "argument.after.shape"),
        ((kernel[:20, :20], kernel[:20, :20]), {}, "argument.before.small"),
        ((kernel, np.ones((80, 80))), {}, "argument.after.constant"),
        ((kernel, np.outer(y, y)), {}, "argument.after.rank"),
        ((kernel, kernel, np.ones(80)), {}, "argument.targets.constant"),
    ]:
        with pytest.raises(ArgumentError) as caught:
            compare_kernels(*arguments, **options)
        assert caught.value.code == code


def test_features_of_estimators_and_machines():
    x = np.random.default_rng(0).normal(size=(40, 3))
    fitted = MLPRegressor(
        hidden_layer_sizes=(5, 4), activation="tanh", n_iter_no_change=1, tol=1e9, random_state=0
    ).fit(x, x[:, 0])
    last = features_of(fitted, x)
    np.testing.assert_allclose(
        last @ fitted.coefs_[-1] + fitted.intercepts_[-1], fitted.predict(x)[:, None], rtol=1e-10
    )
    assert features_of(fitted, x, layer=0).shape == (40, 5)
    machine = networks.Phi4RBM(4, n_epochs=1, n_chains=4, random_state=0).fit(x)
    np.testing.assert_allclose(features_of(machine, x), machine.transform(x))
    scaled = StandardScaler().fit(x)
    np.testing.assert_allclose(kernel_from_features(scaled, x), scaled.transform(x) @ scaled.transform(x).T)
    standard = (x - machine.mean_) / machine.scale_
    np.testing.assert_allclose(features_of(machine.machine_, standard), machine.transform(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ArgumentError, match="hidden layers"):
        features_of(fitted, x, layer=2)


def test_estimators_are_sources_with_baselines_on_their_inputs():
    x = np.random.default_rng(0).normal(size=(40, 3))
    scaled = StandardScaler().fit(x)
    found = spectrum(scaled, x, baseline="rbf")
    expected = spectrum("linear", scaled.transform(x))
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues)
    assert found.label == "features of StandardScaler"
    kernel = kernel_from_features(scaled, x)
    beside = spectrum(kernel, x, baseline="rbf").baseline.spectrum
    np.testing.assert_allclose(found.baseline.spectrum.eigenvalues, beside.eigenvalues, rtol=1e-10)


def test_a_linear_model_trains_exactly_as_predicted(x64):
    x = np.random.default_rng(0).normal(size=(15, 4))
    found = random_label_test(lambda w, x: x @ w, jnp.ones((4, 2)), x, num_steps=30)
    np.testing.assert_allclose(found.measured, found.predicted, rtol=1e-10)
    assert found.linear and 0 < found.fitted_share < 1


def two_layers(params, x):
    return params["scale"] * (jnp.tanh(x @ params["w"]) @ params["v"])


@pytest.mark.parametrize(("width", "scale", "linear"), [(2000, 2000**-0.5, True), (3, 0.5, False)])
def test_wide_networks_are_linear_and_narrow_ones_are_not(width, scale, linear):
    one, two, three = jax.random.split(jax.random.key(0), 3)
    params = {"w": jax.random.normal(one, (3, width)), "v": jax.random.normal(two, (width,)), "scale": scale}
    x = jax.random.normal(three, (20, 3))
    found = random_label_test(two_layers, params, x, num_steps=200)
    assert found.linear is linear, str(found)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [5, 12, 32])
def test_uniform_attention_has_exactly_nothing(size, dtype):
    uniform = softmax(np.zeros((2, 3, size, size), dtype))
    found = attention_spectrum(uniform)
    assert found.singular_values.max() == 0 and found.residuals.max() == 0 and np.isnan(found.head_alignment).all()
    nudged = softmax(1e-3 * np.eye(size, dtype=dtype))
    assert attention_spectrum(nudged).singular_values.max() > 1e-5


def test_attention_to_oneself_and_to_neighbors_has_known_spectra():
    """A = (1−ε) 11ᵀ/T + ε P: the rest has T − 1 singular values ε, that of l layers ε^l √(T−1)."""
    size, share = 6, 0.3
    shift = np.roll(np.eye(size), 1, axis=1)
    heads = np.stack([(1 - share) / size + share * p for p in (np.eye(size), shift)])
    found = attention_spectrum(np.stack([heads[:1], heads[:1]]))
    np.testing.assert_allclose(found.singular_values[0, 0], [share] * (size - 1) + [0.0], atol=1e-12)
    powers = share ** np.array([1, 2])
    root = np.sqrt(size - 1) * powers
    np.testing.assert_allclose(found.residuals, root / np.sqrt(1 + root**2))
    both = attention_spectrum(heads)
    np.testing.assert_allclose(both.head_alignment[0], [[1, -1 / (size - 1)], [-1 / (size - 1), 1]], atol=1e-12)
    assert np.isnan(both.residual_errors).all()


def test_errors_over_inputs_are_standard_errors():
    logits = np.random.default_rng(0).normal(size=(50, 1, 1, 4, 4))
    found = attention_spectrum(softmax(logits))
    alone = np.array([attention_spectrum(one).singular_values[0, 0] for one in softmax(logits)])
    np.testing.assert_allclose(found.singular_value_errors[0, 0], alone.std(axis=0, ddof=1) / np.sqrt(50))
    np.testing.assert_allclose(found.singular_values[0, 0], alone.mean(axis=0))


def test_collapse_is_the_distance_from_equal_tokens():
    states = np.random.default_rng(0).normal(size=(7, 3))
    nearest = np.linalg.norm(states - states.mean(axis=0)) / np.linalg.norm(states)
    assert collapse_residual(states) == pytest.approx(nearest)
    weights = softmax(np.zeros((1, 1, 7, 7)))
    assert attention_spectrum(weights, hidden=np.tile(states[:1], (1, 7, 1))).residuals[0] == 0
    with pytest.raises(ArgumentError, match="add up to 1"):
        attention_spectrum(2 * weights)
    with pytest.raises(ArgumentError, match="as the weights"):
        attention_spectrum(weights, hidden=states)
