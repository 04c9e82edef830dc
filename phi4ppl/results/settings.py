"""The settings of a run, stored as text in the attributes of its tree because netCDF attributes cannot be nested."""

from __future__ import annotations

import json

import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked

__all__ = ["add_settings", "mark_groups", "metadata", "settings", "tree_of", "write_metadata"]

KEY = "phi4ppl"  # of the attribute of the tree


@call_checked
def settings(tree: xr.DataTree) -> dict:
    """The settings of a run and the provenance of its numbers, stored next to its draws.

    Parameters
    ----------
    tree : xarray.DataTree or Posterior
        Of `sample`, `infer_couplings` or `average`, or read by `load_run`.

    Returns
    -------
    dict
        Of a run: its arguments and what they became (``num_warmup``, ``num_samples``, ``num_chains``, ``seed``, ``thinning``,
        ``kernel`` and ``kernel_reason``, ``dtype``, …), how it went (``seconds``, ``interrupted``, ``incomplete``), the
        ``model`` in words with its ``couplings``, ``fields`` and ``checks``, and ``versions``, ``python``, ``machine`` and the
        time when it was ``created``. `infer_couplings` adds ``normalizer``, how it was found, its errors and ``warnings``. Of
        an average: the ``weights`` of the models.

    Raises
    ------
    ArgumentError
        If the tree was made by something else.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> tree = p4.sample(p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0), num_warmup=50, num_samples=50, thinning=2)
    >>> found = p4.settings(tree)
    >>> found["thinning"], found["couplings"]["a"], found["fields"]["phi"]["num_sites"]
    (2, 1.0, 4)
    """
    facts = metadata(tree)
    return facts.pop("settings") | {name: value for name, value in facts.items() if name != "draws"}


def tree_of(source):
    """A DataTree as it is, or that of a result that holds one in ``source.tree``, such as `phi4ppl.Posterior`."""
    return source if isinstance(source, xr.DataTree) else getattr(source, "tree", source)


def metadata(tree: xr.DataTree) -> dict:
    """The provenance of a run as it is stored: ``settings`` by themselves, and the digest of the ``draws``.

    Raises
    ------
    ArgumentError
        If the tree was made by something else.
    """
    text = getattr(tree, "attrs", {}).get(KEY)
    if text is None:
        raise ArgumentError("tree", "a DataTree made by phi4ppl.sample", f"{type(tree).__name__} without its metadata")
    return json.loads(text)


def write_metadata(tree: xr.DataTree, facts: dict) -> None:
    """Store what `metadata` reads."""
    tree.attrs[KEY] = json.dumps(facts)


def add_settings(tree: xr.DataTree, more: dict) -> None:
    """Add to the settings of a run."""
    facts = metadata(tree)
    write_metadata(tree, facts | {"settings": facts["settings"] | more})


def mark_groups(tree: xr.DataTree) -> None:
    """Add the attributes that ArviZ knows of a run to those that it gave the groups, all with the time of the run."""
    facts = metadata(tree)
    common = {
        "created_at": facts["created"], "inference_library": "phi4ppl",
        "inference_library_version": facts["versions"]["phi4ppl"], "sampling_time": facts["settings"]["seconds"],
        "tuning_steps": facts["settings"]["num_warmup"],
    }  # fmt: skip
    for group in tree.children.values():
        group.attrs |= common
