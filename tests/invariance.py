"""Exact independent fields of small models, and whether a step of a kernel leaves their distribution as it is.

The idea is that of J. Geweke, J. Am. Stat. Assoc. 99 (2004) 799: begin at an exact draw x of p, make a step to y, and compare
averages of functions f before and after. ⟨f(y) − f(x)⟩ = 0 holds for every step that leaves p as it is, whether it mixes or
not, and for one that is reversible also ⟨f(x) g(y) − g(x) f(y)⟩ = 0. Starts are independent, so the errors are plain ones.

False alarms: all K scores of one comparison are one test of level 1e-4, shared equally among them (`exact_runs.rejected`).
"""

import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from scipy import stats

import phi4ppl as p4
from phi4ppl.kernels.learned_mass import Spikes, Triangle
from phi4ppl.kernels.metrics import Factored, FreeField
from phi4ppl.model.term import hopping, mass
from phi4ppl.sampling import target_of

NUMBER = 20_000


def _graph(edges, size):
    graph = nx.empty_graph(size)
    graph.add_edges_from(edges)
    return p4.lattice.from_networkx(graph)


def _two_hoppings():
    """Two hopping terms that share an edge, with opposite signs, and a mass term on some sites only."""
    chain = p4.lattice.chain(3, periodic=False)
    terms = p4.phi4(chain, w=0.7, a=0.2, b=0.2, r=0.15).terms
    return p4.MarkovRandomField(chain, [
        *terms, p4.Term("v", [[1, 2]], hopping, -0.9), p4.Term("c", [[2]], mass, -0.5),
    ])  # fmt: skip


def _own_terms():
    chain = p4.lattice.complete(4)
    terms = p4.phi4(chain, w=[0.3, -0.2, 0.4, 0.0, 0.1, 0.5], a=0.2, b=0.2).terms
    return p4.MarkovRandomField(chain, [
        *terms,
        p4.Term("three", [[0, 1, 2], [3, 1, 0]], lambda x, y, z: jnp.sin(2 * x * y * z + 0.5), [0.8, -0.6]),
        p4.Term("one", [[2]], lambda x: jnp.cos(3 * x), 0.7),
    ])  # fmt: skip


MODELS = {
    "open chain": lambda: p4.phi4(
        p4.lattice.chain(4, periodic=False), w=[0.8, -0.5, 0.6], a=[0.4, -0.6, 0.9, 0.1], b=[0.25, 0.3, 0.2, 0.4],
        r=[0.3, 0.0, -0.5, 0.1],
    ),  # antiferromagnetic triangle, an edge without coupling, a site without edges
    "graph": lambda: p4.phi4(
        _graph([(0, 1), (0, 2), (1, 2), (2, 3)], 5), w=[-0.7, -0.5, 0.9, 0.0], a=0.1, b=0.2, r=[0, 0, 0.2, 0, -0.4]
    ),
    "torus": lambda: p4.phi4(p4.lattice.square(3), w=0.2, a=0.0, b=0.2),
    "smallest torus": lambda: p4.phi4(p4.lattice.square(2), w=[0.6, -0.4, 0.3, 0.5], a=0.3, b=0.2),
    "diagonals": lambda: p4.phi4(
        p4.lattice.square(3, 2, periodic=False, diagonals=True), w={"diagonal": -0.3, "nn": 0.4}, a=0.3, b=0.2, r=0.1
    ),
    "ring of triangles": lambda: p4.phi4(
        p4.lattice.triangular(3, 2, periodic=False), w=[0.5, -0.4, 0.3, 0.2, 0.6, -0.5, 0.1, 0.2, 0.3], a=0.3, b=0.2
    ),
    "two layers": lambda: p4.phi4(p4.lattice.bipartite(2, 2), w=[0.5, -0.7, 0.2, 0.4], a=0.2, b=0.25, r=[0.1, 0, 0, -2.0]),
    "one site": lambda: p4.phi4(p4.lattice.chain(1), a=-1.5, b=0.3, r=4.0),
    "two hoppings": _two_hoppings,
    "own terms": _own_terms,
    "gaussian": lambda: p4.gaussian(p4.lattice.square(3, 4), w=0.9, a=2.1),
    "gaussian graph": lambda: p4.gaussian(_graph([(0, 1), (1, 2), (0, 2)], 4), w=[0.8, -0.7, 0.5], a=[1.3, 1.1, 1.2, 0.4]),
}  # fmt: skip


@functools.cache
def model_and_draws(name: str):
    """A model by name, exact draws to start from, and as many others to compare with."""
    model = MODELS[name]()
    drawn = exact_draws(model, 2 * NUMBER)
    return model, drawn[:NUMBER], drawn[NUMBER:]


def tables(model):
    """Couplings of a model with NumPy alone: ``(powers, pairs, own)``.

    ``powers`` are arrays over sites by built-in name, ``pairs`` tuples (i, j, w), ``own`` pairs (term, couplings).
    """
    size = model.lattice.num_sites
    powers = {name: np.zeros(size) for name in ("source", "mass", "quartic")}
    pairs, own = [], []
    for term in model.terms:
        theta = np.broadcast_to(np.asarray(term.coupling, float), len(term.cliques))
        if (kind := getattr(term.form.built_in, "name", None)) == "hopping":
            pairs += [(int(i), int(j), float(w)) for (i, j), w in zip(term.cliques, theta, strict=True)]
        elif kind:
            np.add.at(powers[kind], term.cliques[:, 0], theta)
        else:
            own.append((term, theta))
    return powers, pairs, own


def exact_draws(model, number=NUMBER, seed=0):
    """Independent draws of p, shape ``(number, *field_shape)``, float64.

    A Gaussian field by Cholesky. Any other by rejection: w φφ′ = |w|/2 (φ² + φ′²) − |w|/2 (φ ∓ φ′)², of which the first part
    goes to the sites, whose own distributions are inverted on a fine grid, and the second is the probability to keep a draw.
    Own terms must lie between −1 and 1.
    """
    rng, (powers, pairs, own) = np.random.default_rng(seed), tables(model)
    size = model.lattice.num_sites
    if not own and not np.any(powers["quartic"]):
        precision = np.diag(2 * powers["mass"])
        for i, j, w in pairs:
            precision[i, j] -= w
            precision[j, i] -= w
        noise = np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal((size, number)))
        drawn = noise.T - np.linalg.solve(precision, powers["source"])
        return drawn.reshape(number, *model.field_shape)
    mass = powers["mass"].copy()
    for i, j, w in pairs:
        mass[[i, j]] -= abs(w) / 2
    grid = np.linspace(-9, 9, 2**15 + 1)
    inverse = []
    for k in range(size):
        log_weight = -(powers["source"][k] * grid + mass[k] * grid**2 + powers["quartic"][k] * grid**4)
        weight = np.exp(log_weight - log_weight.max())
        assert max(weight[0], weight[-1]) < 1e-12
        total = np.concatenate([[0], np.cumsum(weight[1:] + weight[:-1])])
        inverse.append(total / total[-1])
    kept, found = [], 0
    while found < number:
        phi = np.stack([np.interp(rng.random(100_000), cumulative, grid) for cumulative in inverse], axis=1)
        log_keep = np.zeros(len(phi))
        for i, j, w in pairs:
            log_keep -= abs(w) / 2 * (phi[:, i] - np.sign(w) * phi[:, j]) ** 2
        for term, theta in own:
            values = np.asarray(term.statistic(*(phi[:, column] for column in term.cliques.T)), float)
            log_keep -= (np.abs(theta)[None] + theta[None] * values).sum(axis=1)
        assert log_keep.max() < 1e-5
        kept.append(phi[np.log(rng.random(len(phi))) < log_keep])
        found += len(kept[-1])
    return np.concatenate(kept)[:number].reshape(number, *model.field_shape)


def energy_of(model, phi):
    """S of many fields, with NumPy in float64 and not by the library's layouts."""
    powers, pairs, own = tables(model)
    phi = np.asarray(phi, float).reshape(len(phi), -1)
    total = phi @ powers["source"] + phi**2 @ powers["mass"] + phi**4 @ powers["quartic"]
    for i, j, w in pairs:
        total -= w * phi[:, i] * phi[:, j]
    for term, theta in own:
        total += np.asarray(term.statistic(*(phi[:, column] for column in term.cliques.T)), float) @ theta
    return total


def functions_of(model, phi) -> dict:
    """Test functions of many fields: moments of sites up to the fourth, products along edges, m, |m|, m² and S."""
    flat = np.asarray(phi, float).reshape(len(phi), -1)
    m, found = flat.mean(axis=1), {}
    for k in (1, 2, 4):
        found |= {f"φ{i}^{k}": flat[:, i] ** k for i in range(flat.shape[1])}
    found |= {f"φ{i}φ{j}": flat[:, i] * flat[:, j] for i, j, _ in tables(model)[1]}
    return found | {"m": m, "|m|": np.abs(m), "m²": m**2, "m⁴": m**4, "S": energy_of(model, phi)}


def score(values) -> float:
    """Mean over its standard error; 0 if all values are 0."""
    spread = values.std()
    return float(np.sqrt(len(values)) * values.mean() / spread) if spread else float(np.inf * values.mean() or 0)


def invariance_scores(model, before, after, fresh, *, reversible=False) -> dict:
    """Scores that are standard normal if the step leaves p as it is.

    ``before`` are exact draws, ``after`` the fields one step on, ``fresh`` exact draws that the kernel has never seen, for a
    comparison of whole distributions (Kolmogorov and Smirnov).
    """
    old, new = functions_of(model, before), functions_of(model, after)
    scores = {name: score(new[name] - old[name]) for name in old}
    if reversible:
        names = ["φ0^1", "φ0^2", "φ0^4", "m", "|m|", "m²", "S"]
        for k, f in enumerate(names):
            scores |= {f"{f}→{g}": score(old[f] * new[g] - old[g] * new[f]) for g in names[:k]}
    fresh = functions_of(model, fresh)
    for name in ("φ0^1", "m", "|m|", "S"):
        scores[f"law of {name}"] = float(stats.norm.isf(stats.ks_2samp(new[name], fresh[name]).pvalue / 2))
    return scores


def fixed_tuning(kernel, model, width=1.0):
    """Uneven tuning of a kernel with an acceptance well below 1, for every kind of adaptation there is.

    What warm-up finds does not matter for exactness; here it is large, so that accept/reject has work to do. ``width`` is
    the standard deviation of the sites, to which step sizes of sites are scaled.
    """
    target = target_of(p4.compile(model))
    position = jnp.ones(model.field_shape)
    return _stronger(kernel.adaptation.tuning(kernel.adaptation.begin(target, position)), model, width)


def _stronger(tuning, model, width):
    rng, shape = np.random.default_rng(5), model.field_shape
    if hasattr(tuning, "inverse_temperature"):
        number = len(tuning.inverse_temperature)
        ladder = jnp.asarray(np.geomspace(1, 0.3, number), tuning.inverse_temperature.dtype)
        return tuning._replace(inner=_stronger(tuning.inner, model, width), inverse_temperature=ladder)
    if hasattr(tuning, "inverse_mass_matrix"):
        mass = tuning.inverse_mass_matrix
        if isinstance(mass, FreeField):
            mass = FreeField(jnp.full_like(mass.amplitude, 1.8), jnp.full_like(mass.mass_squared, 1.3))
        elif isinstance(mass, Factored):
            mass = Factored(_uneven(mass.factor, rng))
        else:
            mass = jnp.asarray(rng.uniform(0.2, 0.9, mass.shape), mass.dtype)
        return tuning._replace(step_size=jnp.full_like(tuning.step_size, 0.8), inverse_mass_matrix=mass)
    step = width * rng.uniform(0.5, 1.1, shape)
    return tuning._replace(step_size=jnp.broadcast_to(step, tuning.step_size.shape).astype(tuning.step_size.dtype))


def _uneven(factor, rng):
    """A triangle or spikes that are far from the identity."""
    size, dtype = len(factor[0]), factor[0].dtype
    if isinstance(factor, Triangle):
        triangle = np.tril(rng.normal(size=(size, size)), -1) / 3 + np.diag(rng.uniform(0.5, 0.9, size))
        return Triangle(jnp.asarray(triangle, dtype))
    vectors = np.linalg.qr(rng.normal(size=factor.vectors.shape))[0]
    parts = rng.uniform(0.5, 0.9, size), vectors, rng.uniform(0.5, 1.5, vectors.shape[1])
    return Spikes(*(jnp.asarray(part, dtype) for part in parts))


def states_after(model, kernel, before, *, steps=1, seed=3, tuning=None, target=None):
    """The states after ``steps`` steps of a kernel from each of many fields, and the info of the last one."""
    tuning = fixed_tuning(kernel, model, np.std(before, axis=0)) if tuning is None else tuning
    target = target_of(p4.compile(model)) if target is None else target

    def walk(key, position):
        algorithm = kernel.build(target, tuning)
        state = algorithm.init(position)
        for k in range(steps):
            state, info = algorithm.step(jax.random.fold_in(key, k), state)
        return state, kernel.statistics(info)

    start = jnp.asarray(before, jnp.result_type(float))
    return jax.jit(jax.vmap(walk))(jax.random.split(jax.random.key(seed), len(start)), start)


def mapped(function, before, seed=3):
    """``function(key, field)`` of many fields, each with its own key."""
    start = jnp.asarray(before, jnp.result_type(float))
    return jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(seed), len(start)), start)
