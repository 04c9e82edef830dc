"""Bad input to spectra is refused with words: never a number that is silently wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator
from sklearn.preprocessing import StandardScaler

import phi4ppl as p4
from phi4ppl.errors import ArgumentError
from phi4ppl.spectral.field_modes import field_spectrum
from phi4ppl.spectral.fock import fock_kernel, fock_weights
from phi4ppl.spectral.learnability import learnability, mode_learnability

POINTS = np.random.default_rng(0).normal(size=(60, 3))
KERNEL = np.exp(-((POINTS[:, None] - POINTS) ** 2).sum(-1) / 2)


@pytest.mark.parametrize(
    "matrix",
    [-KERNEL, KERNEL - 16 * np.eye(60), np.triu(KERNEL), 0 * KERNEL, np.nan * KERNEL, 1j * KERNEL],
    ids=["negative", "indefinite", "asymmetric", "zero", "nan", "complex"],
)
def test_operators_that_are_no_kernels_are_refused(matrix):
    with pytest.raises(ArgumentError):
        p4.spectral.spectrum(lambda v: matrix @ v, size=60, num_eigenvalues=5)


def test_an_estimated_trace_has_an_error_in_the_ranks():
    """20 seeds: more than 14 within two errors of the exact rank (t with 7 degrees: 92 % each; false alarms 1e-3)."""
    exact = 60 / np.linalg.eigvalsh(KERNEL)[-1]
    inside = 0
    for seed in range(20):
        value, error = p4.spectral.spectrum(aslinearoperator(KERNEL), num_eigenvalues=5, seed=seed).ranks[
            "trace_over_max"
        ]
        assert error > 0
        inside += abs(value - exact) < 2 * error
    assert inside > 14
    known = p4.spectral.spectrum(aslinearoperator(KERNEL), num_eigenvalues=5, trace=60.0)
    assert known.trace_over_max == pytest.approx(exact)


@pytest.mark.parametrize(
    "arguments",
    [{"jitter": 0.1}, {"method": "dense"}, {"points": POINTS}, {"trace": 1.0}, {"trace": np.nan}, {"size": 7},
     {"num_eigenvalues": 0}, {"max_memory": 10}],
)  # fmt: skip
def test_nothing_given_with_an_operator_is_ignored(arguments):
    with pytest.raises((ArgumentError, p4.errors.MemoryLimitError)):
        p4.spectral.spectrum(aslinearoperator(KERNEL), **arguments)


def test_nothing_given_with_a_matrix_is_ignored():
    for arguments in ({"size": 7}, {"trace": 7.0}, {"num_features": 9}):
        with pytest.raises(ArgumentError):
            p4.spectral.spectrum(KERNEL, **arguments)
    for scale in (1e-200, 1e200):
        with pytest.raises(ArgumentError, match="units"):
            p4.spectral.spectrum(scale * KERNEL)


def test_nystrom_of_a_kernel_with_few_features():
    found = p4.spectral.spectrum("linear", POINTS, method="nystrom", num_eigenvalues=5)
    assert found.eigenvalues[:3] == pytest.approx(np.linalg.svd(POINTS, compute_uv=False) ** 2)
    with pytest.raises(ArgumentError):
        p4.spectral.spectrum("rbf", POINTS, method="nystrom", num_features=61)


@pytest.mark.parametrize(
    "target",
    [["a"] * 60, np.ones(60), [None, *"ab" * 29, "a"], [f"id{k}" for k in range(60)], 3.0, np.full(60, np.nan),
     1j * np.arange(60), np.arange(60).astype("datetime64[D]")],
)  # fmt: skip
def test_targets_that_are_none_are_refused(target):
    with pytest.raises(ArgumentError):
        p4.spectral.report("rbf", POINTS, target=target)


def test_words_and_columns_of_zeros_and_ones_are_the_same_classes():
    label = np.arange(60) % 3
    words = p4.spectral.report("rbf", POINTS, target=np.array(list("abc"))[label])
    columns = p4.spectral.report("rbf", POINTS, target=np.eye(3)[label])
    assert words.learnability.predicted_error == pytest.approx(columns.learnability.predicted_error)
    assert [f.text for f in words.findings] == [f.text for f in columns.findings]


def test_learnability_at_the_edges():
    for targets, ridge in ((np.zeros(60), 0.0), (1e200 * POINTS[:, 0], 0.0), (POINTS[:, 0], [1.0, 2.0])):
        with pytest.raises(ArgumentError):
            learnability(KERNEL, targets, ridge=ridge)
    y = POINTS[:, 0]
    assert learnability(KERNEL, y, ridge=1e300).predicted_error == pytest.approx(np.mean(y**2))  # nothing is learned
    with pytest.raises(ArgumentError):
        mode_learnability([], 5)
    with pytest.raises(ArgumentError):
        mode_learnability([1.0, 2.0], 1).test_error([1.0])


def test_kernels_that_cannot_be_compared():
    for other, number in ((KERNEL - np.eye(60) / 2, 5), (KERNEL, 58), (KERNEL, 61)):
        with pytest.raises(ArgumentError):
            p4.spectral.compare_kernels(KERNEL, other, num_eigenvalues=number)


def test_attention_of_nothing_and_of_half_precision():
    with pytest.raises(ArgumentError):
        p4.spectral.attention_spectrum(np.zeros((0, 2, 3, 3)))
    weights = np.random.default_rng(0).dirichlet(np.ones(6), size=(2, 3, 4, 6))
    half, full = (p4.spectral.attention_spectrum(w) for w in (weights.astype(np.float16), weights))
    assert half.singular_values == pytest.approx(full.singular_values, abs=2e-3)
    with pytest.raises(ArgumentError):
        p4.spectral.attention_spectrum(0.9 * weights.astype(np.float16))


def test_fock_sectors_far_out():
    assert fock_kernel([[30.0]], 2000)[0, 0] == pytest.approx(1)  # Poisson of mean 900
    assert fock_weights([[1e100]], [1.0, 0.0, 1.0], max_particles=2).weights[0] == pytest.approx([0, 0, 1])
    for length in (0, -1, np.nan, "a", [1, 2]):
        with pytest.raises(ArgumentError):
            fock_kernel([[1.0]], 3, length_scale=length)


def test_laws_and_windows_that_do_not_exist():
    found = p4.spectral.spectrum(KERNEL)
    for arguments in ({"window": (30, 10)}, {"window": (0, 10)}, {"laws": ()}, {"laws": "power"}):
        with pytest.raises(ArgumentError):
            p4.spectral.fit_decay(found, **arguments)


def raises(*arguments):
    raise KeyError("weights")


def of_numpy(parameters, x):
    return np.tanh(np.asarray(x) @ np.asarray(parameters))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: p4.spectral.spectrum(raises, POINTS), "argument.source.raises"),
        (lambda: p4.spectral.spectrum(raises, size=60), "argument.source.raises"),
        (
            lambda: p4.spectral.spectrum(lambda x, y: x @ y.T if len(x) < 9 else raises(), POINTS),
            "argument.source.raises",
        ),
        (lambda: p4.spectral.spectrum(lambda x, y: (x @ y.T)[:9], POINTS), "argument.source.returns"),
        (lambda: p4.spectral.spectrum(KERNEL).estimate(raises), "argument.function.raises"),
        (lambda: p4.spectral.ntk(raises, np.ones(3), POINTS), "argument.apply.raises"),
        (lambda: p4.spectral.ntk(of_numpy, np.ones(3), POINTS), "argument.apply.raises"),
        (lambda: p4.spectral.random_label_test(of_numpy, np.ones(3), POINTS), "argument.apply.raises"),
        (lambda: p4.spectral.ntk(3, np.ones(3), POINTS), "argument.apply"),
        (lambda: p4.spectral.ntk(lambda p, x: x @ p, "weights", POINTS), "argument.params.raises"),
        (lambda: p4.spectral.ntk(lambda p, x: x @ p, np.ones(3), "words"), "argument.x.raises"),
        (lambda: p4.spectral.ntk(lambda p, x: x @ p, np.ones(3), POINTS, memory_limit="1GB"), "argument.memory_limit"),
        (lambda: p4.spectral.kernel_from_features(StandardScaler(), POINTS), "argument.source.raises"),
        (lambda: p4.spectral.spectrum(StandardScaler(), POINTS), "argument.source.raises"),
        (lambda: p4.spectral.spectrum(StandardScaler().fit(POINTS)), "argument.points.missing"),
        (lambda: p4.spectral.features_of(StandardScaler().fit(POINTS), POINTS[:, :2]), "argument.source.raises"),
        (lambda: p4.spectral.features_of(raises, POINTS), "argument.source.raises"),
        (lambda: p4.spectral.spectrum(KERNEL, max_memory="1GB"), "argument.max_memory"),
        (lambda: p4.spectral.spectrum(KERNEL, max_memory=-1), "argument.max_memory"),
        (lambda: p4.spectral.spectrum(KERNEL, jitter=[1.0, 2.0]), "argument.jitter.shape"),
        (lambda: p4.spectral.spectrum(KERNEL, sampled="no"), "argument.sampled"),
        (lambda: p4.spectral.spectrum(KERNEL).degrees_of_freedom("0.1"), "argument.ridge"),
        (lambda: p4.spectral.spectrum(KERNEL).rank_fraction("0.9"), "argument.fraction"),
        (lambda: p4.spectral.fit_decay("kernel"), "argument.spectrum"),
        (lambda: p4.spectral.fit_decay(p4.spectral.spectrum(KERNEL), window="ab"), "argument.window"),
        (lambda: p4.spectral.compare_baseline("rbf"), "argument.spectrum"),
    ],
)
def test_what_users_pass_and_what_it_raises_is_told(call, code):
    """None of these ends in a traceback of another library."""
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.code == code


def test_fields_without_fluctuations():
    tree = p4.sample(
        p4.gaussian(p4.lattice.square(4), w=1.0, a=2.5), num_warmup=20, num_samples=40, num_chains=2, seed=1
    )
    with pytest.raises(ArgumentError, match="chain"):
        field_spectrum(tree.isel(chain=0))
    with pytest.raises(ArgumentError):
        p4.spectral.spectrum(tree, jitter=0.1)
    tree["posterior"]["phi"].values[:] = 1.0
    assert field_spectrum(tree).trace_over_max == pytest.approx(1)
    with pytest.raises(ArgumentError, match="never changes"):
        field_spectrum(tree, connected=True)
