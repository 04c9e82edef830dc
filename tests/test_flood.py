"""One cluster of a square lattice by words of bits, against networkx."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from scipy import stats

import phi4ppl as p4
from phi4ppl.kernels.flood import TRIES, Blocks, blocks_of, large_cluster

pytestmark = pytest.mark.compile_quickly

SHAPES = {  # with their blocks
    (8, 8): (8, 8),
    (9, 31): (9, 31),
    (32, 32): (32, 32),
    (16, 40): (16, 20),
    (33, 64): (11, 32),
    (96, 17): (32, 17),
}


def some_bonds(shape, number, seed=0):
    """Bonds across and down of several fields, from few to many, as all bits or none."""
    rng = np.random.default_rng(seed)
    share = np.linspace(0.3, 0.8, number)[:, None, None]
    return [-(rng.random((number, *shape)) < share).astype(np.int32) for _ in range(2)]


def components(across, down):
    """The clusters of one field as sets of sites."""
    rows, columns = across.shape
    graph = nx.empty_graph(0)
    graph.add_nodes_from((r, c) for r in range(rows) for c in range(columns))
    graph.add_edges_from(((r, c), (r, (c + 1) % columns)) for r, c in np.argwhere(across).tolist())
    graph.add_edges_from(((r, c), ((r + 1) % rows, c)) for r, c in np.argwhere(down).tolist())
    return list(nx.connected_components(graph))


def find(blocks, across, down, anywhere=False, enough=1, seed=0):
    number = len(across)
    words = jnp.asarray(np.random.default_rng(seed).integers(2**32, size=(number, 2), dtype=np.uint32))
    found = jax.jit(large_cluster, static_argnums=0)(
        blocks, jnp.asarray(across), jnp.asarray(down), words, jnp.full(number, anywhere), jnp.full(number, enough)
    )
    return [np.asarray(part) for part in found]


def agrees(across, down, masks, sizes) -> bool:
    """Whether every mask is one of the clusters of its field, and its size that of the cluster."""
    for field in range(len(masks)):
        sites = set(map(tuple, np.argwhere(masks[field]).tolist()))
        if sites not in components(across[field], down[field]) or len(sites) != sizes[field]:
            return False
    return True


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cluster_is_a_connected_component(shape):
    blocks = blocks_of(p4.lattice.square(*shape), [(0, 1), (1, 0)])
    assert blocks == SHAPES[shape]
    across, down = some_bonds(shape, 12)
    masks, sizes = find(blocks, across, down)
    assert agrees(across, down, masks, sizes)
    assert sizes.max() > 10  # else nothing was tested
    # planted faults: bonds of the row above, bonds mirrored
    assert not agrees(across, np.roll(down, 1, axis=1), masks, sizes)
    assert not agrees(across[:, ::-1], down, masks, sizes)


def test_open_lattices_have_no_bonds_around_their_boundary():
    across, down = some_bonds((16, 16), 6, seed=1)
    across[:, :, -1] = down[:, -1] = 0
    assert agrees(across, down, *find(Blocks(16, 16), across, down))


def test_the_site_has_four_bonds_if_any_has():
    shape = (16, 24)
    across, down = some_bonds(shape, 40)
    crossing = (across & down & np.roll(across, 1, axis=2) & np.roll(down, 1, axis=1)) != 0
    masks, _ = find(Blocks(16, 24), across, down)
    exists = crossing.any(axis=(1, 2))
    assert exists.sum() > 20
    assert (masks & crossing)[exists].any(axis=(1, 2)).all()


def test_any_site_is_chosen_with_the_same_probability():
    number, shape = 20_000, (8, 8)
    nothing = np.zeros((number, *shape), np.int32)
    masks, sizes = find(Blocks(8, 8), nothing, nothing, anywhere=True, enough=1)
    assert (sizes == 1).all() and (masks.sum(axis=(1, 2)) == 1).all()
    counts = masks.sum(axis=0).ravel()
    assert stats.chisquare(counts).pvalue > 1e-4
    assert (
        stats.chisquare(np.where(np.arange(64) < 8, counts + 80, counts)).pvalue < 1e-4
    )  # a quarter too often in one row


def test_small_clusters_are_passed_over():
    """Two squares of 3 × 3 and one of 6 × 6: with enough = 20 the last is found unless six tries meet the others."""
    number, shape = 200, (16, 16)
    across, down = np.zeros((2, number, *shape), np.int32)
    for top, left, side in ((0, 0, 3), (0, 8, 3), (8, 4, 6)):
        across[:, top : top + side, left : left + side - 1] = -1
        down[:, top : top + side - 1, left : left + side] = -1
    blocks = Blocks(16, 16)
    _, first = find(blocks, across, down)
    _, sizes = find(blocks, across, down, enough=20)
    assert set(first.tolist()) == {9, 36} and set(sizes.tolist()) == {36}
    _, sizes = find(blocks, across, down, enough=100)  # there is none
    assert set(sizes.tolist()) == {36} and TRIES > 3


@pytest.mark.parametrize(
    "lattice",
    [
        p4.lattice.square(7),
        p4.lattice.square(37),
        p4.lattice.square(16, 512),
        p4.lattice.square(16, diagonals=True),
        p4.lattice.triangular(16),
        p4.lattice.hypercubic((8, 8, 8)),
        p4.lattice.chain(32),
    ],
    ids=["short", "prime", "long", "diagonals", "triangular", "cubic", "chain"],
)
def test_other_lattices_have_no_words(lattice):
    offsets = [tuple(offset) for kind in lattice.kinds for offset in lattice.offsets[kind]]
    assert blocks_of(lattice, offsets) is None
