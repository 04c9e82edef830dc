"""Layers as blocking steps of a free field, whose numbers are exact; alignment and probes with planted faults.

"Within 4.5 errors" of a jackknife over 20 groups is wrong once in 4,000; keys are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from raising import raises

import phi4ppl as p4

pytestmark = pytest.mark.compile_quickly

ERRORS = 4.5


def near(found, exact) -> bool:
    return abs(found.value - exact) < ERRORS * found.error


def half(x):
    n = x.shape[1] // 2
    return x.reshape(len(x), n, 2, n, 2).mean(axis=(2, 4))


def squared(x):
    return x**2


def averages(n: int) -> np.ndarray:
    """The matrix of block averages from n×n sites to (n/2)×(n/2)."""
    return half(np.eye(n * n).reshape(n * n, n, n)).reshape(n * n, -1).T


@pytest.fixture(scope="module")
def free():
    """Exact covariances by level, and the flow of 1,000 fields through two layers that block."""
    model = p4.gaussian(p4.lattice.square(8), w=1.0, a=2.25)  # m² = 1/2
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model), float))
    fields = (np.random.default_rng(0).normal(size=(1000, 64)) @ np.linalg.cholesky(covariance).T).reshape(-1, 8, 8)
    net = [("half", half), ("quarter", half), ("squares", squared)]
    labels = fields[:, :2, :2].sum(axis=(1, 2)) > 0
    flow = p4.lens.renormalization(net, None, fields, labels=labels, levels=2, max_examples=200, channels=None)
    return covariance, flow


def test_blocking_a_free_field_is_exact(free):
    covariance, flow = free
    steps = [np.eye(64), averages(8), averages(4) @ averages(8)]
    for name, blocks in zip(("input", "half", "quarter"), steps, strict=True):
        own, cross = blocks @ covariance @ blocks.T, covariance @ blocks.T
        norm = np.linalg.norm
        found = flow[name]
        assert near(found.participation, np.trace(own) ** 2 / norm(own) ** 2), name
        exact = norm(cross) ** 2 / (norm(covariance) * norm(own))
        assert name == "input" or near(found.with_input, exact), name
        assert found.cumulants.is_gaussian and near(found.cumulants.average["kurtosis"], 0.0)
    own = averages(8) @ covariance @ averages(8).T
    power = np.abs(np.fft.fft2(own[0].reshape(4, 4)))
    assert near(flow["half"].correlation_length, np.sqrt(power[0, 0] / power[0, 1] - 1) / (2 * np.sin(np.pi / 4)))
    assert near(flow["input"].correlation_length, 2**0.5)


def test_blocked_fields_beside_the_layers_are_these_layers(free):
    _, flow = free
    for level, layer in (("blocked 1", "half"), ("blocked 2", "quarter")):
        assert flow[level].participation == pytest.approx(flow[layer].participation)
        assert flow[level].with_input == pytest.approx(flow[layer].with_input)
        assert (
            flow[level].correlation_length == pytest.approx(flow[layer].correlation_length, nan_ok=True)
            or layer == "quarter"
        )
    assert flow.nearest() == {"blocked 1": "half", "blocked 2": "quarter"}


def test_a_planted_layer_that_is_no_blocking_is_told_apart(free):
    _, flow = free
    assert not flow["squares"].cumulants.is_gaussian
    assert abs(flow["squares"].with_input.value) < 0.2 < flow["quarter"].with_input.value


def test_probes_read_what_is_there(free):
    """The sign of one block mean is a linear function of the first layer, and not of the squares."""
    _, flow = free
    assert flow["half"].probe.value > 0.9 and flow["input"].probe.value > 0.85
    assert flow["squares"].probe.value < flow.chance + 4 * flow["squares"].probe.error
    assert 0.4 < flow.chance < 0.65 and "a probe without features" in str(flow)


def test_probes_of_random_labels_stay_at_chance():
    """30 sets: the mean accuracy of a fair coin from 20 features of 100 examples is 1/2 to 4.5 errors."""
    from phi4ppl.lens.alignment import label_columns, probe

    found = []
    for k in range(30):
        rng = np.random.default_rng(k)
        columns, classes = label_columns(rng.integers(0, 2, 100), 100)
        found.append(probe(rng.normal(size=(100, 20)), columns, classes, k).value)
    assert abs(np.mean(found) - 0.5) < 4.5 * np.std(found, ddof=1) / 30**0.5 + 0.01


def test_probes_of_real_labels_have_their_r_squared():
    """y = x + ξ: R² = 1/2; with more features than examples the kernel is decomposed, and no more is read than is there."""
    from phi4ppl.lens.alignment import label_columns, probe

    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 3))
    columns, classes = label_columns(x[:, 0] + rng.normal(size=400), 400)
    assert classes is None and near(probe(x, columns, classes, 0), 0.5)
    wide = np.concatenate([30 * x, rng.normal(size=(400, 500))], axis=1)
    assert 0.3 < probe(wide, columns, classes, 0).value < 0.6


def test_alignment_has_no_bias_and_ignores_rotations():
    """Independent features, 60 examples in 300 dimensions: plain estimates near 0.8, the mean of 40 unbiased ones near 0."""
    rng, found, plain = np.random.default_rng(6), [], []
    for _ in range(40):
        x, y = rng.normal(size=(2, 60, 300))
        found.append(p4.lens.alignment(x, y).value)
        kernels = [(a - a.mean(axis=0)) @ (a - a.mean(axis=0)).T for a in (x, y)]
        plain.append((kernels[0] * kernels[1]).sum() / np.prod([np.linalg.norm(k) for k in kernels]))
    assert abs(np.mean(found)) < 4.5 * np.std(found) / 40**0.5 and np.mean(plain) > 0.7
    x = rng.normal(size=(100, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert p4.lens.alignment(x, 3 * x @ turn + 1).value == pytest.approx(1.0, rel=1e-12)


def test_alignment_of_gaussians_against_the_covariances():
    """‖C_xy‖²/(‖C_xx‖ ‖C_yy‖) of y = x A + ξ."""
    rng = np.random.default_rng(7)
    a = rng.normal(size=(4, 3))
    x = rng.normal(size=(500, 4)) * [1.0, 2.0, 0.5, 1.0]
    y = x @ a + rng.normal(size=(500, 3))
    own = np.diag([1.0, 4.0, 0.25, 1.0])
    exact = np.linalg.norm(own @ a) ** 2 / (np.linalg.norm(own) * np.linalg.norm(a.T @ own @ a + np.eye(3)))
    assert near(p4.lens.alignment(x, y), exact)
    assert not near(p4.lens.alignment(x, y[::-1]), exact)  # planted: examples in another order


def test_constant_layers_and_channels():
    images = np.random.default_rng(8).normal(size=(60, 4, 4, 2))
    net = [("zero", lambda x: 0 * x), ("mean", lambda x: x.mean(axis=(1, 2)) + np.ones(2))]
    found = p4.lens.renormalization(net, None, images, levels=1)
    assert np.isnan(found["zero"].participation.value) and found["zero"].cumulants is None
    assert found["blocked 1"].size == 8 and "constant" in str(found)
    assert found._repr_html_().count("<tr>") == 5


def test_what_cannot_be_measured_is_refused():
    x = np.random.default_rng(9).normal(size=(50, 3))
    for arguments, code in (
        ({"labels": np.zeros(50)}, "argument.labels.constant"), ({"labels": np.zeros(3)}, "argument.labels.shape"),
        ({"max_examples": 3}, "argument.max_examples"), ({"levels": -1}, "argument.levels"), ({"levels": 1}, "argument.*"),
    ):  # fmt: skip
        with raises(code):
            p4.lens.renormalization([np.tanh], None, x, **arguments)
    with raises("argument.data.small"):
        p4.lens.renormalization([np.tanh], None, x[:20])
    with raises("argument.two.shape"):
        p4.lens.alignment(x, x[:-1])
