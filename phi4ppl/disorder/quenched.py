"""`quenched`: couplings drawn at random and held fixed, and averages over many draws of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import xarray as xr

from ..errors import Phi4pplWarning, warn
from ..errors.arguments import call_checked, positive_int, seed_within
from ..errors.streams import stream_seed
from ..kernels.kernel import Kernel
from ..model.field import MarkovRandomField
from ..results.ensemble_run import sample_ensemble
from .draws import draw_couplings, names_of, require_disorder
from .improper import require_proper
from .quenched_result import Quenched
from .saved import stored_model

__all__ = ["quenched"]


@call_checked
def quenched(
    model: MarkovRandomField, disorder: dict | Callable, *, num_realizations: int = 50, num_replicas: int = 2,
    num_warmup: int = 1000, num_samples: int = 1000, kernel: Kernel | str = "auto", seed: int = 0,
    observables: dict | list[str] | None = None, overlaps: bool = True, thinning: int = 1, progress: bool | None = None,
) -> Quenched:  # fmt: skip
    """Averages over quenched couplings: [⟨O⟩], [⟨O⟩²], [⟨O²⟩], susceptibilities, overlaps and P(q), with errors.

    Couplings θ are drawn from a distribution and held fixed; ⟨·⟩ is the average over the fields at these couplings, [·] that
    over their draws. Each realisation has independent chains, its replicas a ≠ b, so that

        [⟨O⟩²] = [Ō_a Ō_b]

    is unbiased however short the chains are (Ō² of one chain is too large by its thermal variance). All realisations and
    replicas run in one compiled program, that of `phi4ppl.sample_ensemble`.

    Parameters
    ----------
    model : MarkovRandomField
        Couplings without disorder stay as they are.
    disorder : dict or callable
        A dict draws the terms independently of each other. By name of a coupling it has a NumPyro distribution, or a function
        ``key → array``. A distribution of shape () draws every site or clique independently; with a batch of ``(num_cliques,)``
        each clique has its own parameters; an event of that shape (``MultivariateNormal``) draws them together. For couplings
        of sites the lattice shape will do as well. A function may return a single number, the coupling of the whole lattice.
        ±w: ``dist.MixtureSameFamily(dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Delta(jnp.array([-w, w])))``.

        A NumPyro model, a function without arguments, draws several terms together: its sites with the name of a coupling are
        the couplings, other sample sites are variables that they depend on. A site has the shape that the function gives it,
        so that one of shape () is one number for the whole lattice.
    num_realizations : int
    num_replicas : int
        Independent chains of each realisation, at least 2.
    num_warmup, num_samples, kernel, seed, observables, thinning, progress
        As in `phi4ppl.sample_ensemble`.
    overlaps : bool
        Keep the fields, and find the overlaps q and P(q), link overlaps and correlations from them.

    Returns
    -------
    Quenched
        ``print`` it. ``averages`` is the table, ``verdict`` says which realisations cannot be trusted; ``susceptibilities``,
        ``overlap``, ``overlap_distribution()``, ``correlations()``, ``budget()``, ``annealed()``.

    Warns
    -----
    Phi4pplWarning
        If chains of realisations fail; they are named and stay in the averages, because leaving them out would favor couplings
        that are easy to sample.

    Raises
    ------
    HammersleyCliffordError
        If realisations that are not normalizable have a probability; it is stated, exact where the distribution function is
        known.
    ArgumentError, MemoryLimitError, SamplingError

    Examples
    --------
    >>> import numpyro.distributions as dist, phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.6, b=0.25, r=0.0)
    >>> result = p4.disorder.quenched(
    ...     model, {"r": dist.Normal(0, 0.5)}, num_realizations=20, num_warmup=200, num_samples=500, seed=1
    ... )
    >>> result.passed, result.realizations["magnetization"].shape
    (True, (20,))
    """
    require_disorder(model, disorder)
    num_realizations = positive_int(
        "num_realizations", num_realizations, minimum=2, fix="Errors are over realisations."
    )
    num_replicas = positive_int("num_replicas", num_replicas, minimum=2, fix="⟨O⟩² takes two independent chains.")
    seed = seed_within(seed)
    drawn = draw_couplings(model, disorder, num_realizations, seed, "realizations")
    improper = require_proper(model, disorder, drawn, seed)
    tree = sample_ensemble(
        model, drawn, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_replicas, kernel=kernel,
        seed=stream_seed(seed, "quenched"), observables=observables, keep_field=bool(overlaps), thinning=thinning,
        progress=progress,
    )  # fmt: skip
    more = {"seed": seed, "disorder": _in_words(model, disorder), "improper": improper._asdict()}
    result = Quenched(model, drawn, _by_realization(tree, more, model), improper)
    for text in result.warnings:
        warn(Phi4pplWarning("disorder.verdict", text))
    return result


def _by_realization(tree: xr.DataTree, more: dict, model: MarkovRandomField) -> xr.DataTree:
    """The tree with its members called realisations, more settings, and the model, so that `from_run` needs the file alone."""
    renamed = xr.DataTree.from_dict(
        {
            name: node.dataset.rename({"member": "realization"}) if "member" in node.dims else node.dataset
            for name, node in tree.children.items()
        }
        | stored_model(model)
    )
    facts = json.loads(tree.attrs["phi4ppl"])
    facts["settings"] |= more
    renamed.attrs = dict(tree.attrs) | {"phi4ppl": json.dumps(facts)}
    return renamed


def _in_words(model: MarkovRandomField, disorder) -> dict[str, str]:
    """By name of a coupling how it is drawn."""
    if isinstance(disorder, dict):
        return {name: _described(source) for name, source in disorder.items()}
    title = getattr(disorder, "__name__", type(disorder).__name__)
    return dict.fromkeys(names_of(model, disorder), f"NumPyro model {title}")


def _described(source) -> str:
    """A distribution in words."""
    name = type(source).__name__
    if not hasattr(source, "arg_constraints"):
        return getattr(source, "__name__", name)
    values = {n: np.asarray(getattr(source, n)) for n in source.arg_constraints if hasattr(source, n)}
    numbers = {n: v for n, v in values.items() if v.dtype != object}
    shown = (f"{n}={v:.6g}" if v.ndim == 0 else f"{n}: shape {v.shape}" for n, v in numbers.items())
    return f"{name}({', '.join(shown)})"
