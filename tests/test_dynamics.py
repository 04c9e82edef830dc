"""Processes of phi4ppl.dynamics against closed forms: REFERENCE values, eigenvalues and planted faults."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from scipy.linalg import expm

import phi4ppl as p4
from phi4ppl.dynamics import Diffusion, Drift, DriveTo, GradientFlow, Hamiltonian, NeuralField, evolve
from phi4ppl.dynamics.gradient_flow import FlowState
from phi4ppl.dynamics.laplacian import exponential, laplacian
from phi4ppl.dynamics.neural_field import active_share
from phi4ppl.errors import ArgumentError, EvolutionError

SEED_STENCIL = np.array([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]])


def phi(tree):
    return tree["evolution"]["phi"].values


def unit(shape, *at):
    field = np.zeros(shape)
    field[at] = 1
    return field


def matrix(lattice) -> np.ndarray:
    return nx.laplacian_matrix(lattice.graph, nodelist=range(lattice.num_sites)).toarray().astype(float)


# --- diffusion


def test_the_stencil_of_the_seed_gives_the_right_numbers():
    """Maximum after 1, 6 and 10 steps; its printed outputs are wrong."""
    process = Diffusion(p4.lattice.square(50), stencil=SEED_STENCIL)
    found = phi(evolve(process, unit((50, 50), 25, 25), time=10, every=1))[0]
    np.testing.assert_allclose(found[[1, 6, 10]].max((1, 2)), [0.4, 0.06613725, 0.0396303078578125], rtol=2e-6)
    np.testing.assert_allclose(found.sum((1, 2)), 1, rtol=1e-5)


def test_a_stencil_without_the_wrap_is_caught():
    """Planted fault: zeros beyond the border in place of the periodic wrap lose part of the sum, and the right one does not."""
    start, lattice = unit((8, 8), 0, 0), p4.lattice.square(8)
    wrapped = phi(evolve(Diffusion(lattice, stencil=SEED_STENCIL), start, time=5, every=1))[0, -1]
    from scipy.ndimage import convolve

    by_mode = {}
    for mode in ("wrap", "constant"):
        field = start
        for _ in range(5):
            field = convolve(field, SEED_STENCIL, mode=mode)
        by_mode[mode] = field
    np.testing.assert_allclose(wrapped, by_mode["wrap"], atol=1e-6)
    assert abs(by_mode["constant"].sum() - 1) > 0.3 and abs(wrapped.sum() - 1) < 1e-5


def test_an_asymmetric_stencil_is_a_correlation_as_it_is_written():
    """A weight to the right of the middle is that of the right neighbor."""
    process = Diffusion(p4.lattice.chain(7), stencil=[0.0, 0.0, 1.0])  # φ'(x) = φ(x + 1)
    found = phi(evolve(process, unit((7,), 3), time=2, every=1))[0]
    assert found.argmax(-1).tolist() == [3, 2, 1]


GRAPHS = {
    "ring": (p4.lattice.chain(12), 0.2679491924),
    "path": (p4.lattice.chain(12, periodic=False), 0.0681483474),
    "complete": (p4.lattice.complete(6), 6.0),
    "open square with diagonals": (p4.lattice.square(3, 4, periodic=False, diagonals=True), None),
    "two sites around": (p4.lattice.square(2, 5), None),
    "wheel": (p4.lattice.from_networkx(nx.wheel_graph(40)), None),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_heat_kernel_of_graphs(name):
    """exp(−tL) by the matrix, its spectral gap, and the conserved sum; long times take the Chebyshev series in parts."""
    lattice, gap = GRAPHS[name]
    dense = matrix(lattice)
    if gap is not None:
        assert np.linalg.eigvalsh(dense)[1] == pytest.approx(gap, abs=1e-9)
    start = np.random.default_rng(0).normal(size=lattice.field_shape)
    for time in (0.3, 3.0):
        found = np.asarray(jax.jit(lambda t, f: exponential(lattice, t)(f))(time, jnp.asarray(start, jnp.float32)))  # noqa: B023
        np.testing.assert_allclose(found.ravel(), expm(-time * dense) @ start.ravel(), atol=3e-6)
        assert found.sum() == pytest.approx(start.sum(), abs=1e-5)
    np.testing.assert_allclose(
        np.asarray(laplacian(lattice)(jnp.asarray(start))).ravel(), dense @ start.ravel(), atol=1e-5
    )


def test_return_probability_of_the_square_lattice():
    """(e^(−2t) I₀(2t))² at t = 1; on 40² the images contribute less than 1e-12."""
    found = phi(evolve(Diffusion(p4.lattice.square(40)), unit((40, 40), 0, 0), time=1, every=1))
    assert found[0, -1, 0, 0] == pytest.approx(0.0951773851, rel=1e-6)


@pytest.mark.parametrize(
    ("stencil", "code"),
    [
        ([0.2, 0.2, 0.2], "argument.stencil.sum"),
        ([0.5, 0.5], "argument.stencil.shape"),
        ([1.0, -1.0, 1.0], "argument.stencil.grows"),
    ],
)
def test_stencils_that_cannot_diffuse_are_refused(stencil, code):
    with pytest.raises(ArgumentError) as caught:
        Diffusion(p4.lattice.chain(8), stencil=stencil)
    assert caught.value.code == code


def test_a_mode_that_changes_sign_needs_whole_steps():
    process = Diffusion(p4.lattice.chain(8), stencil=[0.5, 0.0, 0.5])
    with pytest.raises(ArgumentError, match="multiple of 1/rate"):
        evolve(process, np.ones(8), time=1, step_size=0.5)


# --- gradient flow


def test_gradient_flow_of_a_free_field_and_its_three_forces_a_step():
    """Every mode decays as e^(−ωt); ⟨φ²⟩ of a Gaussian ensemble is 0.31623861, 0.04898112, 0.01831351 at t = 0, ½, 1."""
    m2, k = 0.5, 2 * np.pi * np.arange(16) / 16
    omega = m2 + 4 * np.sin(k[:, None] / 2) ** 2 + 4 * np.sin(k / 2) ** 2
    law = [np.mean(np.exp(-2 * omega * t) / omega) for t in (0, 0.5, 1)]
    np.testing.assert_allclose(law, [0.31623861, 0.04898112, 0.01831351], atol=1e-8)
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(3, 16, 16)))
    noise = 16 * noise / np.abs(noise)  # every mode has its mean square exactly
    start = np.fft.ifft2(noise / np.sqrt(omega)).real
    process = GradientFlow(p4.gaussian(p4.lattice.square(16), w=1.0, a=2 + m2 / 2), tolerance=1e-5)
    tree = evolve(process, start, time=1, every=0.5)
    np.testing.assert_allclose((phi(tree) ** 2).mean((2, 3)), [law] * 3, atol=1e-5)
    evaluations = tree["evolution"]["evaluations"].values
    assert np.all((evaluations - 1) % 3 == 0) and evaluations.max() < 400


def test_a_dropped_half_is_caught():
    """Planted fault: S without the ½ of the quadratic term flows with 2ω, which the same comparison sees."""
    ring, start = p4.lattice.chain(8), np.ones(8)
    decay = {}
    for factor in (0.5, 1.0):
        model = p4.gaussian(ring, w=1e-9, a=factor)  # S = ½ φ² and S = φ²
        decay[factor] = phi(evolve(GradientFlow(model), start, time=1, every=1))[0, -1, 0]
    assert decay[0.5] == pytest.approx(np.exp(-1), abs=1e-4) and abs(decay[1.0] - np.exp(-1)) > 0.2


def kink_model(h: float, sites: int, b: float = 0.25):
    """S = Σ h [½ ((φ′ − φ)/h)² + b (φ² − 1)²] on an open line, up to the constant b h per site."""
    lattice = p4.lattice.chain(sites, periodic=False)
    return p4.phi4(lattice, w=1 / h, a=np.asarray(lattice.degree) / (2 * h) - 2 * b * h, b=b * h)


@pytest.mark.parametrize(("h", "expected"), [(1.0, 0.92487007), (0.25, 0.94182288)])
def test_energy_of_a_kink(h, expected):
    """(4/3)√(2b)v³ = 0.9428090416 in the continuum, less by O(h²) on the lattice; relaxed by the flow."""
    sites = round(24 / h)
    x = (np.arange(sites) - (sites - 1) / 2) * h
    tree = evolve(GradientFlow(kink_model(h, sites)), np.tanh(np.sqrt(0.5) * x), time=40, every=20)
    energy = tree["evolution"]["energy"].values[0] + 0.25 * h * sites
    assert np.all(np.diff(energy) < 1e-5) and energy[-1] == pytest.approx(expected, abs=2e-5)
    assert 0.9428090416 - expected == pytest.approx(0.0179 * h**2 * (1 if h == 1 else 0.882), rel=0.01)


def test_a_flow_that_cannot_descend_says_so():
    """Planted fault: a force of the wrong sign; every step raises the energy, and the run is refused."""

    @p4.dynamics.process
    class Uphill(GradientFlow):
        def _force(self, phi):
            value, force = super()._force(phi)
            return value, -force

    model = p4.gaussian(p4.lattice.chain(8), w=0.5, a=1.0)
    with pytest.raises(EvolutionError) as caught:
        evolve(Uphill(model), np.ones(8), time=1, every=1)
    assert caught.value.code == "evolution.energy_rises"


def test_circle_of_allen_and_cahn_shrinks():
    """dR²/dt = −2: 64² on L = 32, ε = 1, R₀ = 10; the width of the wall gives 1 to 2 percent."""
    sites, h, eps = 64, 0.5, 1.0
    y = (np.indices((sites, sites)) - sites / 2) * h
    radius = np.sqrt((y**2).sum(0))
    model = p4.phi4(p4.lattice.square(sites), w=1 / h**2, a=2 / h**2 - 0.5 / eps**2, b=0.25 / eps**2)
    start = np.tanh((10 - radius) / (np.sqrt(2) * eps))
    tree = evolve(GradientFlow(model, tolerance=1e-3), start, time=20, every=10)
    squared = ((phi(tree)[0] + 1) / 2).sum((1, 2)) * h**2 / np.pi
    assert (squared[2] - squared[0]) / 20 == pytest.approx(-2, rel=0.03)


# --- waves


def wave(steps: int, keep: bool = False):
    model = p4.phi4(p4.lattice.square(6), w=1.0, a=1.5, b=0.25)
    rng = np.random.default_rng(1)
    process = Hamiltonian(model, momentum=rng.normal(size=(6, 6)), keep_momentum=keep)
    return process, evolve(process, rng.normal(size=(6, 6)), time=2, step_size=2 / steps, every=0.5)


def test_energy_error_of_waves_is_of_second_order_and_they_are_reversible():
    errors = []
    for steps in (32, 64):
        energy = wave(steps)[1]["evolution"]["energy"].values[0]
        errors.append(np.abs(energy - energy[0]).max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    process, tree = wave(32, keep=True)
    last = tree["evolution"].isel(replica=0, time=-1)
    back = dataclasses.replace(process, momentum=-last["momentum"].values)
    again = phi(evolve(back, last["phi"].values, time=2, step_size=2 / 32, every=0.5))
    np.testing.assert_allclose(again[0, -1], phi(tree)[0, 0], atol=2e-5)


def test_steps_past_stability_are_refused_with_the_limit():
    """2/√ω_max with ω_max = 8 + m² of a free field; power iteration."""
    process = Hamiltonian(p4.gaussian(p4.lattice.square(8), w=1.0, a=2.25))
    assert process.max_step_size == pytest.approx(2 / np.sqrt(8.5), rel=5e-3)
    with pytest.raises(ArgumentError, match="at most 0.68") as caught:
        evolve(process, np.ones((8, 8)), time=10, step_size=1.0)
    assert caught.value.code == "argument.step_size.unstable"


# --- driving


def test_driving_has_the_mean_and_the_fixed_point_of_the_closed_form():
    """The seed's third program, α = 0.1, β = 0.01: mean t̄ + (m₀ − t̄) 0.9ⁿ, t̄ = 0.1288889, maximum → 0.8."""
    x, y = np.indices((30, 30)) - 15
    disc = 0.8 * (x**2 + y**2 < 49)
    assert disc.mean() == pytest.approx(0.1288889, abs=1e-7)
    square, start = p4.lattice.square(30), np.random.default_rng(0).normal(size=(30, 30))
    process = DriveTo(square, disc, strength=0.1, smoothing=0.01, step_kind="euler")
    tree = evolve(process, start, time=200, step_size=1, every=50)
    mean = disc.mean() + (start.mean() - disc.mean()) * 0.9 ** np.arange(0, 201, 50)
    np.testing.assert_allclose(tree["evolution"]["magnetization"].values[0], mean, atol=1e-6)
    assert phi(tree)[0, -1].max() == pytest.approx(0.8, abs=1e-3)
    np.testing.assert_allclose(phi(tree)[0, -1], process.fixed_point(), atol=1e-5)


@pytest.mark.parametrize(
    "lattice", [p4.lattice.chain(9), p4.lattice.from_networkx(nx.wheel_graph(9))], ids=["ring", "wheel"]
)
def test_exact_steps_of_driving(lattice):
    """φ* + exp(−(α + βL)t)(φ₀ − φ*) by matrices, in one step and in several."""
    rng = np.random.default_rng(0)
    target, start = rng.normal(size=(2, 9))
    process = DriveTo(lattice, target, strength=0.7, smoothing=0.4)
    operator = 0.7 * np.eye(9) + 0.4 * matrix(lattice)
    fixed = np.linalg.solve(operator, 0.7 * target)
    found = phi(evolve(process, start, time=2, step_size=0.5, every=2))[0, -1]
    np.testing.assert_allclose(found, fixed + expm(-2 * operator) @ (start - fixed), atol=2e-6)
    assert found.mean() == pytest.approx(process.mean_at(2.0, start.mean()), abs=1e-6)


# --- neural fields


def mexican_hat(r):
    return (1 - r) * np.exp(-r)


def bump(width: float, threshold: float = 0.3, time: float = 30.0, h: float = 0.05, sites: int = 400):
    x = (np.arange(sites) - sites / 2) * h
    process = NeuralField(p4.lattice.chain(sites), mexican_hat, threshold, spacing=h)
    profile = np.sum([mexican_hat(abs(x - y)) for y in np.linspace(-width / 2, width / 2, 401)], 0) * width / 401
    tree = evolve(process, profile, time=time, every=time)
    return tree["evolution"]["active"].values[0, -1]


def test_bumps_of_amari():
    """D e^(−D) = h = 0.3 at 0.4894022 (unstable) and 1.7813370 (stable), reached from both sides."""
    assert bump(0.6) == pytest.approx(1.7813370, abs=4e-3)
    assert bump(2.5) == pytest.approx(1.7813370, abs=4e-3)
    assert bump(0.4) == 0


def test_no_bump_above_the_threshold_of_one_over_e():
    assert bump(1.0, threshold=0.38) == 0 and bump(1.0, threshold=0.35) > 0.9


def test_a_plain_grid_pins_bumps_where_crossed_cells_do_not():
    """Planted fault: H(u − h) at the sites alone; two starts end at widths that differ by more than a site."""
    x = (np.arange(200) - 100) * 0.1
    widths = []
    for width in (1.2, 2.6):
        process = NeuralField(p4.lattice.chain(200), mexican_hat, lambda u: 1.0 * (u > 0.3), spacing=0.1)
        profile = np.sum([mexican_hat(abs(x - y)) for y in np.linspace(-width / 2, width / 2, 401)], 0) * width / 401
        widths.append(evolve(process, profile, time=30, every=30)["evolution"]["active"].values[0, -1])
    assert abs(widths[1] - widths[0]) > 0.05


def test_front_of_amari():
    """w = e^(−|x|)/2: both fronts of an active region move at c = (1 − 2h)/(2h), h = 0.3."""
    h, sites = 0.1, 400
    x = (np.arange(sites) - sites / 2) * h
    process = NeuralField(p4.lattice.chain(sites), lambda r: np.exp(-r) / 2, 0.3, spacing=h)
    active = evolve(process, 1.0 * (abs(x) < 5), time=12, every=2)["evolution"]["active"].values[0]
    assert (active[-1] - active[-3]) / 4 / 2 == pytest.approx((1 - 0.6) / 0.6, rel=0.01)


def areas_of_discs(radius: float, share) -> np.ndarray:
    """What a share of cells adds to the area πR² of discs, at 100 random centers."""
    rng, found = np.random.default_rng(round(radius)), []
    for _ in range(100):
        at = np.indices((36, 36)) - 17 - rng.random((2, 1, 1))
        cone = jnp.asarray(radius - np.sqrt((at**2).sum(0)), jnp.float32)
        found.append(float(share(cone).sum()) - np.pi * radius**2)
    return np.array(found)


def test_share_of_a_cell_that_is_above():
    """A straight line in every cell adds π/12 to the area of a disc of any radius: an error of second order in the spacing.

    At a distance x from the middle of its cell an arc has turned away from its tangent by x²/2R. x is that of a point that is
    uniform in a square, ⟨x²⟩ = 1/12, so that 2πR · 1/24R = π/12 is added; the next order is smaller by 1/R². At 4.5 standard
    errors a false alarm in 7e-6. Planted fault: whole cells, whose area is right on average and scatters.
    """
    planes, whole = jax.jit(lambda u: active_share(u, 0.0)), lambda u: (u > 0).astype(float)
    for radius in (6.0, 12.0):
        found = areas_of_discs(radius, planes)
        assert abs(found.mean() - np.pi / 12) < 4.5 * found.std() / 10 + np.pi / 12 / radius**2
        assert found.std() < 0.03
    assert areas_of_discs(12.0, whole).std() > 1
    line = jnp.asarray([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    assert float(active_share(line, 0.25).sum()) == pytest.approx(2.5)


# --- any drift


def test_bistable_front():
    """u_t = u_xx + u(1 − u)(u − α): speed (1 − 2α)/√2 = 0.3535534; 0.35318 at spacing ¼."""
    h, line = 0.25, p4.lattice.chain(240, periodic=False)
    minus = laplacian(line)
    process = Drift(line, lambda u, t: -minus(u) / h**2 + u * (1 - u) * (u - 0.25))
    tree = evolve(process, 1.0 * (np.arange(240) * h < 15), time=50, step_size=0.025, every=10)
    place = phi(tree)[0].sum(-1) * h
    assert (place[-1] - place[-3]) / 20 == pytest.approx(0.35318, abs=4e-4)


def test_noise_of_a_drift_and_its_variance():
    """dφ = −φ dt + √2 dW has variance 1; 4,000 independent sites: false alarms 1 in 10⁵. √ε for √(2ε) is caught."""
    lattice, values = p4.lattice.square(20), {}
    for noise in (np.sqrt(2), 1.0):
        tree = evolve(Drift(lattice, lambda u, t: -u, noise), np.zeros((10, 20, 20)), time=5, step_size=0.05, every=5)
        values[noise] = phi(tree)[:, -1].var()
    error = 4.5 * np.sqrt(2 / 4000)
    assert abs(values[np.sqrt(2)] - 1) < error and abs(values[1.0] - 1) > error


def test_flow_state_is_what_the_documentation_says():
    assert FlowState._fields[:3] == ("field", "energy", "force")


# --- stiff flows


def test_implicit_steps_need_diffrax_and_few_sites(monkeypatch):
    model = p4.gaussian(p4.lattice.chain(8), w=0.5, a=1.0)
    monkeypatch.setattr("phi4ppl.dynamics.implicit.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"phi4ppl\[stiff\]") as caught:
        GradientFlow(model, solver="implicit")
    assert caught.value.code == "argument.solver.missing"
    monkeypatch.setattr("phi4ppl.dynamics.implicit.find_spec", lambda name: True)
    with pytest.raises(ArgumentError, match="2048 sites"):
        GradientFlow(p4.gaussian(p4.lattice.square(64), w=0.5, a=3.0), solver="implicit")
    with pytest.raises(ArgumentError, match="explicit"):
        GradientFlow(model, solver="other")


def test_a_stiff_flow_takes_few_implicit_steps():
    """Spacing 1/64: ω from 0.2 to 16384. The slow mode decays as e^(−0.2t).

    Once the fast modes are gone, a quarter of a unit of time takes a few steps, where explicit ones would be 1,600.
    """
    pytest.importorskip("diffrax")
    sites, h = 16, 1 / 64
    model = p4.gaussian(p4.lattice.chain(sites), w=1 / h**2, a=1 / h**2 + 0.1)
    start = 1 + 0.1 * np.random.default_rng(0).normal(size=(2, sites))
    process = GradientFlow(model, solver="implicit")
    tree = evolve(process, start, time=1.0, every=0.25)
    times = tree["evolution"]["time"].values
    law = start.mean(axis=1)[:, None] * np.exp(-0.2 * times)
    np.testing.assert_allclose(phi(tree)[:, 1:], np.broadcast_to(law[:, 1:, None], (2, 4, sites)), rtol=1e-3)
    assert np.diff(tree["evolution"]["solver_steps"].values, axis=1)[:, -1].max() < 50
    assert np.all(np.diff(tree["evolution"]["energy"].values) <= 0)
