"""Step size, times of records and how many steps are fused, from what a user asks for."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..errors import ArgumentError
from .process import CLOSE, Process, positive

__all__ = ["TimeGrid", "time_grid"]

RECORDS = 100  # by default
FUSED = 64  # steps between looks at Ctrl-C, where they divide those between two records


class TimeGrid(NamedTuple):
    """Attributes
    ----------
    time, step_size, every : float
        The end, and the distances between steps and between records.
    records : int
        After the start.
    fused, thinning : int
        ``fused * thinning`` steps lie between two records.
    """

    time: float
    step_size: float
    every: float
    records: int
    fused: int
    thinning: int


def time_grid(process: Process, time, step_size, every) -> TimeGrid:
    """The grid of a call of `evolve`.

    A step size that is not given is made a little smaller than the process's own, so that whole steps fit.

    Raises
    ------
    ArgumentError
        If numbers do not fit each other, or the step is past the limit of stability.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> time_grid(p4.dynamics.Diffusion(p4.lattice.chain(4)), 2.0, 0.01, 0.5)[1:4]
    (0.01, 0.5, 4)
    """
    time = float(positive("time", time))
    if step_size is not None:
        step_size = float(positive("step_size", step_size))
        process.require_step(step_size)
    if every is not None:
        every = float(positive("every", every))
        records = _whole("time", time, "every", every)
    if step_size is not None and every is not None:
        between = _whole("every", every, "step_size", step_size)
    elif step_size is not None:
        total = _whole("time", time, "step_size", step_size)
        between = min(
            (n for n in range(1, total + 1) if total % n == 0), key=lambda n: abs(math.log(n * RECORDS / total))
        )
        records = total // between
        every = between * step_size
    else:
        if every is None:
            records = min(RECORDS, max(1, math.ceil(time / float(process.default_step_size))))
            every = time / records
        between = max(1, math.ceil(every / float(process.default_step_size) * (1 - CLOSE)))
        step_size = every / between
        process.require_step(step_size)
    fused = max(n for n in range(1, min(between, FUSED) + 1) if between % n == 0)
    if fused < min(between, FUSED) / 4:  # a prime number of steps: measuring after each of them costs more than waiting
        fused = between
    return TimeGrid(records * every, step_size, every, records, fused, between // fused)


def _whole(larger: str, whole: float, smaller: str, part: float) -> int:
    """How often ``part`` fits into ``whole``."""
    number = round(whole / part)
    if number < 1 or abs(number * part - whole) > CLOSE * whole:
        near = whole / max(1, number)
        raise ArgumentError(larger, f"a multiple of {smaller} = {part:g}", f"{whole:g}", f"For example {smaller}={near:.6g}.",
                            reason="multiple")  # fmt: skip
    return number
