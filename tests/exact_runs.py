"""Runs of the cases of reference.json and their comparison with the exact values, shared by the tests of samplers."""

import re

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from scipy import stats

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method

ALARM = 1e-4


# --- the comparison


def z_scores(series: dict, exact: dict) -> dict:
    """(mean − exact)/error of every quantity; ``series`` have shape (chain, draw).

    Infinite where less than 400 effective draws leave the error uncertain: such a run is no evidence of exactness.
    """
    scores = {}
    for name, values in series.items():
        estimate = gamma_method(np.asarray(values, float))
        score = (estimate.mean - exact[name]) / estimate.error
        scores[name] = float(score) if estimate.effective_sample_size > 400 else np.inf
    return scores


def rejected(scores: dict, alarm=ALARM) -> dict:
    """The scores that a right sampler would not show, at a family-wise level ``alarm``."""
    bound = stats.norm.isf(alarm / 2 / len(scores))
    return {name: round(z, 2) for name, z in scores.items() if not abs(z) <= bound}


@jax.jit  # couplings are arguments: models that differ in them only share one program
def virials(model, fields):
    return jax.vmap(lambda f: f * jax.grad(lambda g: model.energy(g))(f))(fields)


def schwinger_dyson(model, phi) -> dict:
    """φ_i ∂S/∂φ_i at every site, (chain, draw) each, from the stored fields alone; the exact averages are 1."""
    values = np.asarray(virials(model, jnp.asarray(phi.reshape(-1, *model.field_shape)))).reshape(*phi.shape[:2], -1)
    return {f"SD {i}": values[:, :, i] for i in range(values.shape[2])}


# --- the cases of reference.json


def lattice_of(case):
    definition = case["definition"]
    special = {"single": (p4.lattice.chain, 1), "chain_periodic": (p4.lattice.chain, 8), "square_L3": (p4.lattice.square, 3),
               "free_8x8": (p4.lattice.square, 8)}  # fmt: skip
    for prefix, (make, size) in special.items():
        if case["name"].startswith(prefix):
            return make(size)
    graph = nx.empty_graph(definition["n_sites"])
    graph.add_edges_from((i, j) for i, j, _ in definition["edges"])
    return p4.lattice.from_networkx(graph)


def model_of(case):
    definition = case["definition"]
    lattice = lattice_of(case)
    weights = {(i, j): w for i, j, w in definition["edges"]}
    w = [weights[tuple(sorted(edge))] for edge in lattice.edges.tolist()]

    def shortest(values):
        return values[0] if len(set(values)) == 1 else np.array(values)

    couplings = {"a": shortest(definition["a"])} | ({"w": shortest(w)} if w else {})
    if not any(definition["b"]):
        return p4.gaussian(lattice, **couplings)
    source = definition["r"] if any(definition["r"]) else None
    model = p4.phi4(lattice, b=shortest(definition["b"]), r=source and shortest(source), **couplings)
    if "three_body" in definition:
        *sites, g = definition["three_body"][0]
        term = p4.Term("g", [sites], lambda a, b, c: a * b * c, coupling=g)
        model = p4.MarkovRandomField(lattice, [*model.terms, term])
    return model


def series_of(name: str, phi, energy):
    """The series of a quantity as reference.json names it, or None; ``phi`` (chain, draw, site), ``energy`` (chain, draw)."""
    inside = re.fullmatch(r"<(.+?)>(/V)?", name)
    if inside is None:
        return None
    what, per_site = inside[1], inside[2]
    size = round(phi.shape[2] ** 0.5)
    if what == "S":
        return energy / (phi.shape[2] if per_site else 1)
    if what == "|m|":
        return np.abs(phi.mean(axis=2))
    if power := re.fullmatch(r"(phi|m|phi_0|[A-D])(?:\^(\d))?", what):
        base, k = power[1], int(power[2] or 1)
        if k > 4:
            return None
        if base == "m":
            return phi.mean(axis=2) ** k
        if base == "phi":
            return (phi**k).mean(axis=2)
        return phi[:, :, 0 if base == "phi_0" else "ABCD".index(base)] ** k
    if pair := re.fullmatch(r"phi_0 phi_(\w+)", what):
        other = {"nn": 1, "nn_x": 1, "nn_y": size, "diag": size + 1}.get(pair[1])
        return phi[:, :, 0] * phi[:, :, int(pair[1]) if other is None else other]
    if re.fullmatch(r"[A-D]+", what):
        return np.prod([phi[:, :, "ABCD".index(letter)] for letter in what], axis=0)
    return None


CASES = {  # with the number of moments up to the fourth order
    "single_a1.52425_b0.175_r0.0": 5,
    "single_a-2.0_b0.25_r0.1": 5,
    "chain_periodic_N8_w0.8_a1.4_b0.2_r0.0": 11,
    "chain_open_N5_inhomogeneous": 11,
    "square_L3_w1_a1.2_b0.175": 8,
    "square_L3_w1_a1.52425_b0.175": 8,
    "square_L3_w1_a1.9_b0.175": 8,
    "toy4_threebody": 20,
    "free_8x8_w1.0_a2.5_g0.0_r0.0": 7,
}


def scores_of_run(case, model, tree) -> dict:
    """Scores of all moments, and of the Schwinger–Dyson identity at every site and on average."""
    phi = tree["posterior"]["phi"].values.astype(float)
    flat = phi.reshape(*phi.shape[:2], -1)
    energy = tree["posterior"]["energy_density"].values.astype(float) * flat.shape[2]
    exact = {name: entry["value"] for name, entry in case["quantities"].items()}
    series = {name: values for name in exact if (values := series_of(name, flat, energy)) is not None}
    assert len(series) == CASES[case["name"]], sorted(series)
    identities = schwinger_dyson(model, phi) | {"SD mean": tree["sample_stats"]["schwinger_dyson"].values}
    return z_scores(series | identities, exact | dict.fromkeys(identities, 1.0))


def run_case(case, kernel, seed, num_samples=4000, **options):
    model = model_of(case)
    tree = p4.sample(model, num_warmup=500, num_samples=num_samples, kernel=kernel, seed=seed, **options)
    return model, tree
