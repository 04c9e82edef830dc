"""The result of a check, as a readable report."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from ...errors import HammersleyCliffordError
from ...errors.arguments import call_checked
from ...lattice.frozen import Lattice
from .factorization import CliquePotentials

__all__ = ["HammersleyCliffordReport", "Violation"]


@dataclass(frozen=True)
class Violation:
    """Two sites that interact although no edge joins them.

    Attributes
    ----------
    sites : tuple of int
        The pair (i, j), i < j.
    strength : float
        Largest ``|∂²S/∂φ_i∂φ_j|`` seen at the probed fields.
    labels : tuple
        The same pair as labels of the graph.
    """

    sites: tuple[int, int]
    strength: float
    labels: tuple = ()

    def __str__(self) -> str:
        named = f" (labels {self.labels[0]!r}, {self.labels[1]!r})" if self.labels and self.labels != self.sites else ""
        return f"sites {self.sites}{named} interact with strength {self.strength:.3g} but share no edge"


@call_checked
@dataclass(frozen=True, repr=False)
class HammersleyCliffordReport:
    """Result of ``model.check()`` or `check_action`.

    Attributes
    ----------
    is_markov : bool
        ∂²S/∂φ_i∂φ_j vanishes for every pair without an edge.
    is_positive : bool
        Every clique potential exp(−S_c) is strictly positive (S is finite).
    is_normalizable : bool
        Z is finite: S grows in every direction.
    satisfied : bool
        All three.
    violations : tuple of Violation
        Strongest first; for a thoroughly non-local action only the strongest are listed.
    markov_reason : str
        How that answer was reached.
    positive_reason : str
        The same for ``is_positive``.
    normalizable_reason : str
        The same for ``is_normalizable``.
    null_directions : tuple of str
        Directions along which an improper (intrinsic) density is flat.
    maximal_cliques : tuple of tuple of int
    clique_potentials : CliquePotentials
        The factorization, reconstructed from the action by Möbius inversion when first asked for.
    """

    lattice: Lattice
    is_markov: bool
    is_positive: bool
    is_normalizable: bool
    markov_reason: str
    positive_reason: str
    normalizable_reason: str
    violations: tuple[Violation, ...] = ()
    null_directions: tuple[str, ...] = ()
    action: Callable = field(default=None)

    @property
    def satisfied(self) -> bool:
        return self.is_markov and self.is_positive and self.is_normalizable

    @property
    def maximal_cliques(self) -> tuple[tuple[int, ...], ...]:
        return self.lattice.maximal_cliques()

    @cached_property
    def clique_potentials(self) -> CliquePotentials:
        return CliquePotentials(self.action, self.lattice)

    @property
    def _conditions(self) -> list[tuple[str, bool, str]]:
        return [
            ("Markov on the graph", self.is_markov, self.markov_reason),
            ("positive potentials", self.is_positive, self.positive_reason),
            ("normalizable", self.is_normalizable, self.normalizable_reason),
        ]

    @property
    def _outcome(self) -> str:
        return f"Hammersley–Clifford check: {'satisfied' if self.satisfied else 'NOT satisfied'}"

    def __str__(self) -> str:
        sizes = Counter(map(len, self.maximal_cliques))
        cliques = ", ".join(f"{n} of {k} site{'s' if k > 1 else ''}" for k, n in sorted(sizes.items()))
        lines = [self._outcome]
        lines += [
            f"  graph                {self.lattice.name}: {self.lattice.num_sites} sites, {self.lattice.num_edges} edges"
        ]
        lines += [f"  maximal cliques      {cliques}"]
        lines += [f"  {name:<20} {'yes' if ok else 'NO '}  {reason}" for name, ok, reason in self._conditions]
        lines += [f"    {violation}" for violation in self.violations[:5]]
        if len(self.violations) > 5:
            lines.append(f"    … and {len(self.violations) - 5} weaker pairs")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        color = {True: "#117733", False: "#aa3300"}
        rows = "".join(
            f"<tr><td>{name}</td><td style='color:{color[ok]}'>{'yes' if ok else 'NO'}</td><td>{html.escape(reason)}</td></tr>"
            for name, ok, reason in self._conditions
        )
        violations = "".join(f"<div>{html.escape(str(violation))}</div>" for violation in self.violations[:5])
        return (
            f"<div class='phi4ppl'><div style='color:{color[self.satisfied]}'><b>{self._outcome}</b></div>"
            f"<div>{html.escape(repr(self.lattice))}</div><table>{rows}</table>{violations}</div>"
        )

    def raise_if_violated(self) -> HammersleyCliffordReport:
        """Return the report, or raise `HammersleyCliffordError` with its text if a condition fails."""
        if not self.satisfied:
            reason = "not_positive" if self.is_markov else "not_markov"
            if self.is_markov and self.is_positive:
                reason = "not_normalizable"
            raise HammersleyCliffordError(reason, str(self))
        return self
