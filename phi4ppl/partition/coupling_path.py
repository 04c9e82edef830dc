"""The path from independent sites to a model: S_λ = S_0 + λ (S − S_0), which is linear in the couplings."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.exact.independent_sites import IndependentSites
from ..model.field import MarkovRandomField
from ..model.term import Term, mass

__all__ = ["Path", "path_to"]

REFERENCE = "reference_"  # name of a mass term that stands in where the sites alone are not normalizable


@dataclass(frozen=True)
class Path:
    """S_λ of a model, with everything known at λ = 0.

    Attributes
    ----------
    model : MarkovRandomField
        At λ = 1; with one more term (of coupling zero) if the reference needs it.
    start, change : MarkovRandomField
        At λ = 0, and how the couplings change to λ = 1.
    sites : IndependentSites
        The ensemble at λ = 0.
    """

    model: MarkovRandomField
    start: MarkovRandomField
    change: MarkovRandomField
    sites: IndependentSites

    @property
    def is_constant(self) -> bool:
        """Whether the sites of the model are independent, so that the reference is the model."""
        return not any(np.any(c) for c in jax.tree.leaves(self.change))

    def models(self, lambdas) -> MarkovRandomField:
        """The models at each λ, as one whose couplings have a leading axis."""
        grid, dtype = np.asarray(lambdas, float), jnp.result_type(float)
        return jax.tree.map(
            lambda s, c: jnp.asarray(s + grid.reshape(-1, *(1,) * np.ndim(c)) * c, dtype), self.start, self.change
        )

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
        """Independent fields at λ = 0, with leading axes ``shape``."""
        phi = self.sites.draw(rng, int(np.prod(shape)))
        return jnp.asarray(phi.reshape(*shape, *self.model.field_shape), jnp.result_type(float))


def path_to(model: MarkovRandomField) -> Path:
    """The path that switches all terms of several sites on together.

    Where the terms of single sites are not normalizable alone, the path starts from unit Gaussians instead and switches all
    terms on. By Hölder's inequality Z_λ ≤ Z_0^(1−λ) Z_1^λ: all ensembles between exist.
    """
    values = [np.asarray(v, float) for _, v in model.interactions]
    sites = IndependentSites.of(model)
    if sites is not None:
        alone = [form.cliques.shape[1] == 1 for form in model.forms]
        start = tuple(v if own else np.zeros_like(v) for v, own in zip(values, alone, strict=True))
    else:
        everywhere = np.arange(model.lattice.num_sites)[:, None]
        sites = IndependentSites.of(MarkovRandomField(model.lattice, [Term(REFERENCE, everywhere, mass, 0.5)]))
        model = MarkovRandomField(model.lattice, [*model.terms, Term(REFERENCE, everywhere, mass, 0.0)])
        start = (*(np.zeros_like(v) for v in values), np.array(0.5))
        values.append(np.array(0.0))
    change = [v - s for v, s in zip(values, start, strict=True)]
    return Path(model, model.structure.at(start), model.structure.at(change), sites)
