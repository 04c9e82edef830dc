"""A model as notebooks show it: the action in LaTeX, and a table of its terms."""

from __future__ import annotations

import html

import numpy as np

__all__ = ["action_in_latex", "model_html"]

SITE, PAIR = r"\sum_i", r"\sum_{\langle ij\rangle}"


def action_in_latex(model) -> str:
    r"""The action as LaTeX without dollar signs; couplings that differ from clique to clique have an index.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> print(action_in_latex(p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)))
    S(\phi) = -w \sum_{\langle ij\rangle} \phi_i \phi_j + a \sum_i \phi_i^{2} + b \sum_i \phi_i^{4}
    """
    text = ""
    for form, value in model.interactions:
        sign, part = _term(form, np.ndim(value) == 0)
        text += f" {sign} {part}" if text else f"-{part}" if sign == "-" else part
    return rf"S(\phi) = {text}"


def _term(form, single: bool) -> tuple[str, str]:
    """Sign and LaTeX of one term: a coupling of all cliques stands in front of the sum."""
    if form.is_hopping:
        sign, total, index, field = "-", PAIR, "ij", r"\phi_i \phi_j"
    elif form.power:
        sign, total, index, field = "+", SITE, "i", r"\phi_i" + (f"^{{{form.power}}}" if form.power > 1 else "")
    else:
        sign, total, index, field = "+", r"\sum_c", "c", rf"T_{{{_name(form.name)}}}(\phi_c)"
    return sign, f"{_name(form.name)} {total} {field}" if single else f"{total} {_name(form.name, index)} {field}"


def _name(name: str, index: str = "") -> str:
    """A coupling's name: of ``w_nn`` the first part with the others above it, and the clique's index below."""
    letter, _, rest = name.partition("_")
    letter, rest = letter if len(letter) == 1 else _upright(letter), f"^{{{_upright(rest)}}}" if rest else ""
    return letter + rest + (f"_{{{index}}}" if index else "")


def _upright(text: str) -> str:
    return rf"\mathrm{{{text}}}".replace("_", r"\_")


def model_html(model, summary) -> str:
    """For ``_repr_html_``: the action, the lattice, and a row per term; ``summary`` puts a coupling into words."""
    rows = ["<tr><th>term</th><th>statistic</th><th>cliques</th><th>coupling</th></tr>"]
    for form, value in model.interactions:
        number, size = form.cliques.shape
        statistic = form.built_in or f"user-defined {getattr(form.statistic, '__name__', form.statistic)}"
        cells = (form.name, statistic, f"{number} of {size} site{'s' if size > 1 else ''}", summary(value))
        rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return (
        f"<div class='phi4ppl'><div><b>Markov random field on {html.escape(repr(model.lattice))}</b></div>"
        f"<div>$${html.escape(action_in_latex(model))}$$</div><table>{''.join(rows)}</table></div>"
    )
