"""Blocking: what block averages conserve, inverses, seeded coins, partitions of graphs, and inputs that cannot be blocked."""

from __future__ import annotations

import json

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl.renormalization import Average, BellWilson, Decimate, StencilKernel, block
from phi4ppl.renormalization.blocking import alignment

pytestmark = pytest.mark.compile_quickly


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(2, 30, 8, 8)) + 0.3


def test_averages_conserve_the_sum_to_rounding(fields):
    blocked = block(fields, "average", levels=2)
    for level in (1, 2):
        total = blocked[level].sum(axis=(2, 3)) * 4**level
        assert np.max(np.abs(total - fields.sum(axis=(2, 3)))) < 1e-12


def test_averages_with_eta_conserve_it_times_the_scale(fields):
    blocked = block(fields, Average(eta=0.25), levels=2)
    total = blocked[2].sum(axis=(2, 3)) * (4 * 2**-0.125) ** 2
    assert np.max(np.abs(total - fields.sum(axis=(2, 3)))) < 1e-12
    cubic = block(np.ones((1, 8, 4, 4, 4)), "average", eta=0.0)  # s = b^((d - 2 + eta)/2)
    assert cubic[1] == pytest.approx(2**0.5, rel=1e-15)


def test_blocks_written_out(fields):
    phi = fields[0, 0]
    expected = {
        "average": phi[2:4, 4:6].mean(), "decimate": phi[2, 4], "sign": np.sign(phi[2:4, 4:6].sum()),
    }  # fmt: skip
    for rule, value in expected.items():
        assert block(fields, rule)[1][0, 0, 1, 2] == pytest.approx(value, rel=1e-14)
    three = block(fields[..., :6, :6], "average", factor=3)
    assert three[1][1, 2, 1, 0] == pytest.approx(fields[1, 2, 3:6, :3].mean(), rel=1e-14)


def test_majority_follows_signs_and_ties_are_fair_seeded_coins():
    """A fair coin is outside five standard errors once in 1.7 million seeds; ties that are always +1 are 50 away."""
    spins = np.ones((1, 8, 40, 40))
    spins[:, :, ::2] = -1  # every block has two of each
    spins[:, :, :2, :2] = [[1, 1], [1, -1]]
    one, again, other = (block(spins, "majority", seed=seed)[1] for seed in (1, 1, 2))
    assert np.all(one[:, :, 0, 0] == 1)
    assert set(np.unique(one)) == {-1.0, 1.0}
    number = one.size - 8
    assert abs(one.sum() - 8) < 5 * np.sqrt(number)
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_signs_of_fields_differ_from_majorities_of_signs():
    phi = np.array([[3.0, -1.0], [-1.0, -0.5]]) * np.ones((1, 8, 1, 1))
    phi = np.tile(phi, (1, 1, 2, 2))
    assert np.all(block(phi, "sign")[1] == 1) and np.all(block(phi, "majority")[1] == -1)


def test_the_inverse_of_a_kernel_gives_back_block_means(fields):
    for rule in (
        StencilKernel(eta=0.25),
        StencilKernel(stencil=((0.0, -0.1, 0.0), (-0.1, 1.5, -0.1), (0.0, -0.1, 0.0))),
    ):
        blocked = block(fields, rule)
        means = blocked.blocks[0].mean(fields.reshape(-1, 8, 8))
        back = rule.inverse(blocked[1].reshape(-1, 4, 4), blocked.blocks[0])
        assert np.max(np.abs(back - means)) < 1e-13
        scale = 4 / rule.scale(blocked.blocks[0])
        assert blocked[1].sum(axis=(2, 3)) * scale == pytest.approx(fields.sum(axis=(2, 3)), rel=1e-12)


def test_a_stencil_is_applied_as_written(fields):
    stencil = np.array([[0.1, 0.2, 0.1], [0.0, 1.0, 0.0], [0.1, 0.2, 0.1]])
    got = block(fields, StencilKernel(stencil=tuple(map(tuple, stencil))))[1]
    means = block(fields, "average")[1]
    expected = sum(
        stencil[1 + i, 1 + j] * np.roll(means, (-i, -j), axis=(2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)
    )
    assert np.max(np.abs(got - expected / stencil.sum())) < 1e-13


def test_bell_wilson_noise_has_the_variance_of_its_formula(fields):
    """Mean and variance of 1,920 normal numbers: each outside 4.5 standard errors once in 147,000 seeds."""
    noise = block(fields, BellWilson(alpha=4.0), seed=5)[1] - block(fields, "average")[1]
    number = noise.size
    assert abs(noise.mean()) < 4.5 * 0.5 / np.sqrt(number)
    assert abs(noise.var() / 0.25 - 1) < 4.5 * np.sqrt(2 / number)


def test_functions_equal_the_rule_they_write_out_and_shifted_ones_are_caught(fields):
    mean = lambda phi: phi.reshape(4, 2, 4, 2).mean(axis=(1, 3))  # noqa: E731
    right = block(fields.astype(np.float32), mean)
    assert np.allclose(right[1], block(fields, "average")[1], atol=1e-6) and not right.warnings
    wrong = block(fields.astype(np.float32), lambda phi: mean(jnp.roll(phi, 1, axis=0)))
    assert "shifted" in wrong.warnings[0]
    found = alignment(fields.reshape(-1, 8, 8), wrong[1].reshape(-1, 4, 4), wrong.blocks[0])
    assert tuple(np.abs(found)) == (1, 0)


def test_a_partition_of_a_graph_makes_a_graph(fields):
    graph = p4.lattice.from_networkx(nx.path_graph(6))
    phi = np.random.default_rng(0).normal(size=(2, 10, 6))
    blocked = block(phi, "average", lattice=graph, partition=[[0, 0, 1, 1, 1, 2], [0, 0, 1]], levels=2)
    assert blocked.lattices[1].edges.tolist() == [[0, 1], [1, 2]] and blocked.lattices[2].num_sites == 2
    assert blocked[1][0, 0] == pytest.approx([phi[0, 0, :2].mean(), phi[0, 0, 2:5].mean(), phi[0, 0, 5]], rel=1e-14)
    assert np.sum(blocked[1] * [2, 3, 1], axis=2) == pytest.approx(phi.sum(axis=2), rel=1e-12)
    assert (
        block(phi, "decimate", lattice=graph, partition=[0, 0, 1, 1, 1, 2])[1][1, 2].tolist()
        == phi[1, 2, [0, 2, 5]].tolist()
    )


def test_a_partition_into_squares_is_the_blocking_of_the_square_lattice(fields):
    square = p4.lattice.square(8)
    partition = (np.arange(8)[:, None] // 2) * 4 + np.arange(8) // 2
    parts, cubes = (block(fields, "average", lattice=square, partition=p) for p in (partition, None))
    assert np.max(np.abs(parts[1].reshape(cubes[1].shape) - cubes[1])) < 1e-15
    assert np.array_equal(np.sort(parts.lattices[1].edges, axis=0), np.sort(cubes.lattices[1].edges, axis=0))


def test_the_tree_of_a_run_brings_its_lattice():
    for lattice in (p4.lattice.triangular(4), p4.lattice.square(4, 6, periodic=(True, False)), p4.lattice.chain(8)):
        facts = {"lattice": lattice.name, "num_sites": lattice.num_sites, "digest": lattice.digest}
        facts |= {"shape": lattice.shape, "periodic": lattice.periodic}
        phi = np.random.default_rng(0).normal(size=(2, 10, *lattice.field_shape))
        dims = ("chain", "draw", *"xy"[: phi.ndim - 2]) if phi.ndim > 3 else ("chain", "draw", "site")
        tree = xr.DataTree.from_dict(
            {
                "posterior": xr.Dataset({"phi": (dims, phi)}),
                "constant_data": xr.Dataset({"edges": (("e", "k"), lattice.edges)}),
            }
        )
        tree.attrs["phi4ppl"] = json.dumps({"fields": {"phi": facts}})
        blocked = block(tree, "average")
        assert blocked.lattices[0] == lattice and np.array_equal(blocked[0], phi)
        assert blocked.lattices[1].kinds == lattice.kinds and blocked.lattices[1].periodic == lattice.periodic
        assert blocked.lattices[1].name.split()[0] == lattice.name.split()[0]
    with raises("argument.fields.run"):
        block(xr.DataTree.from_dict({"posterior": xr.Dataset()}))


def test_a_wrong_eta_is_said(fields):
    """⟨φ²⟩ of independent sites falls by 4 at each step, as at eta = 2; eta = 0.25 is 1.75 away, 8 errors at least."""
    found = block(np.random.default_rng(1).normal(size=(2, 400, 8, 8)), "average", eta=0.25, levels=2)
    assert "eta" in found.warnings[0]
    for rule in ("average", "bell_wilson"):  # the noise is known, and is taken off first
        assert not block(np.random.default_rng(1).normal(size=(2, 400, 8, 8)), rule, eta=2.0, levels=2).warnings
        assert block(np.random.default_rng(1).normal(size=(2, 400, 8, 8)), rule, eta=0.25, levels=2).warnings


def test_what_cannot_be_blocked(fields):
    with raises("argument.fields.sides"):
        block(fields[..., :7])
    with raises("argument.fields.sides"):
        block(fields, levels=3)
    with raises("argument.fields.shape"):
        block(fields[0])
    with raises("argument.fields.shape"):
        block(fields, lattice=p4.lattice.square(4))
    with raises("argument.fields.finite"):
        block(np.full((1, 8, 4, 4), np.nan))
    with raises("argument.rule"):
        block(fields, "avrage")
    with raises("argument.rule.returns"):
        block(fields, lambda phi: phi)
    with raises("argument.rule.count"):
        block(fields, ("sign", "majority"))
    with raises("argument.eta.unused"):
        block(fields, "majority", eta=0.25)
    with raises("argument.eta"):
        block(fields, "average", eta=np.nan)
    with raises("argument.stencil"):
        StencilKernel(stencil=((1.0, 2.0, 3.0),))
    with raises("argument.stencil.singular"):
        block(fields, StencilKernel(stencil=((0.25, 0.5, 0.25),)))
    with raises("argument.alpha"):
        BellWilson(alpha=0.0)
    with raises("argument.partition.empty"):
        block(fields, partition=np.where(np.arange(64) < 5, 0, 2), lattice=p4.lattice.square(8))
    with raises("argument.eta.partition"):
        block(fields, Decimate(eta=0.25), partition=np.arange(64) // 4, lattice=p4.lattice.square(8))
    with raises("argument.lattice.antiperiodic"):
        block(fields, lattice=p4.lattice.square(8, periodic="antiperiodic"))


def test_named_axes_may_come_in_any_order():
    fields = np.random.default_rng(3).normal(size=(2, 20, 8, 8))
    labeled = xr.DataArray(fields, dims=("chain", "draw", "x", "y"))
    for order in (("draw", "chain", "x", "y"), ("x", "draw", "y", "chain")):
        assert np.array_equal(block(labeled.transpose(*order), "average")[1], block(fields, "average")[1])
