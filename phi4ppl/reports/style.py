"""How figures look: colors that readers with any color vision can tell apart, line styles, and a grid of panels."""

from __future__ import annotations

__all__ = ["DIVERGING", "GRAY", "LINE_STYLES", "OKABE_ITO", "SEQUENTIAL", "panels"]

# M. Okabe and K. Ito, "Color universal design" (2008); the pale yellow, which is lost on white, comes last
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LINE_STYLES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))  # a second mark of what the colors say, for prints in gray
GRAY = "0.55"
DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"  # color maps of values around zero, and of positive values
COLUMNS = 3


def panels(number: int, *, width: float = 3.5, height: float = 2.6, columns: int = COLUMNS, sharex: bool = False):
    """A figure with ``number`` panels, at most ``columns`` in a row; each draws in the colors of `OKABE_ITO`.

    Parameters
    ----------
    number : int
    width, height : float
        Of one panel, in inches.
    columns : int
    sharex : bool

    Returns
    -------
    matplotlib.figure.Figure
    list of matplotlib.axes.Axes
        ``number`` panels. Places that are left over at the end are hidden.
    """
    from matplotlib.figure import Figure  # slow to import

    columns = max(1, min(columns, number))
    rows = -(-number // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    places = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex).ravel())
    for axes in places:
        axes.set_prop_cycle(color=OKABE_ITO)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[number:]:
        axes.set_visible(False)
    return figure, places[:number]
