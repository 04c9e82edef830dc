"""A front travels on a road network: bistable spreading on a graph, with a film.

Junctions are joined where they are near. du/dt = −D Lu + u(1 − u)(u − α): at α = ⅕
a region of u = 1 grows along the roads; where D is small it is pinned. On a long
street the front has the speed of the continuum, √(D/2)(1 − 2α): that is the check.
"""

import os

import networkx as nx
import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
D, alpha = 4.0, 0.2


def spreading(lattice):
    minus_laplacian = p4.dynamics.laplacian(lattice)

    def drift(u, t):
        return -D * minus_laplacian(u) + u * (1 - u) * (u - alpha)

    return p4.dynamics.Drift(lattice, drift)


street = p4.lattice.chain(200, periodic=False)
start = 1.0 * (np.arange(200) < 30)
tree = p4.dynamics.evolve(
    spreading(street), start, time=60, step_size=0.1, every=10
)
reached = tree["evolution"]["phi"].values[0].sum(-1)
speed = (reached[-1] - reached[-4]) / 30
law = np.sqrt(D / 2) * (1 - 2 * alpha)
print(f"speed on a street {speed:.4f}, in the continuum {law:.4f}")
assert abs(speed - law) < 0.02

roads = nx.random_geometric_graph(
    60 if tiny else 300, 0.2 if tiny else 0.09, seed=4
)
at = nx.get_node_attributes(roads, "pos")
roads = nx.Graph(roads.subgraph(max(nx.connected_components(roads), key=len)))
lattice = p4.lattice.from_networkx(roads)
position = np.array([at[node] for node in lattice.nodes])
start = 1.0 * (np.linalg.norm(position - position[0], axis=1) < 0.25)
step = 0.5 / D / lattice.degree.max()
time = 200 * step if tiny else 60.0
tree = p4.dynamics.evolve(
    spreading(lattice), start, time=round(time / step) * step, step_size=step
)
mean = tree["evolution"]["magnetization"].values[0]
print(f"share of the junctions: {mean[0]:.2f} at first, {mean[-1]:.2f} in the end")
assert mean[-1] > mean[0]

p4.dynamics.plot(tree).savefig("road_front.png", dpi=120)
p4.dynamics.animate(tree, "road_front.gif", max_frames=10 if tiny else 50)
