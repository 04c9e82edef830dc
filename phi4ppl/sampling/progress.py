"""Progress of a run: one line, redrawn in place, on a terminal; a bar in a notebook; whole lines now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

__all__ = ["Progress"]

WIDTH = 16  # of the bar, in characters
LEAVE_FIRST = ("speed", "acceptance", "divergences", "time")  # where the line is longer than the terminal
SECONDS_PER_LINE = 30  # where lines stay


class Progress:
    """Progress of the chains on standard error, as a context manager: the line ends with the block, also after an error.

    Parameters
    ----------
    total : int or None
        Iterations of all phases together; None if there are only messages.
    show : bool or None
        None shows it on a terminal and in a notebook only.
    """

    def __init__(self, total: int | None, show: bool | None, stream=None):
        self.stream = sys.stderr if stream is None else stream
        self.is_notebook = in_notebook()
        self.redraws = self.is_notebook or self.stream.isatty()
        self.show = self.redraws if show is None else bool(show)
        self.total, self.done = total, 0
        self.acceptance: float | None = None
        self.bar: Any = None
        self.began = time.monotonic()
        self.started: float | None = None
        self.written = -float("inf")
        self.scale, self.runner = 1, "chain"  # steps in one that is counted; what makes them
        self.skipped = 0  # iterations done before the clock of speed and time left

    def message(self, text: str) -> None:
        """Replace the line by ``text``; where lines stay, write it as one."""
        if not self.show:
            return
        text = text if len(text) <= self.room else text[: int(self.room) - 1] + "…"
        if not self.redraws:
            self.stream.write(text + "\n")
            self.stream.flush()
        elif self.bar is None:
            from tqdm.auto import tqdm

            percent = None if self.total is None else 100  # of a total that may grow
            self.bar = tqdm(total=percent, desc=text, bar_format="{desc}", file=self.stream)
        else:
            self.bar.n = self.bar.n if self.total is None else 100 * self.done // self.total
            self.bar.set_description_str(text)
        self.written = time.monotonic()

    def note(self, text: str) -> None:
        """Write a line that stays, above the one that is redrawn."""
        if not self.show:
            return
        if self.bar is not None:
            self.bar.write(text, file=None if self.is_notebook else self.stream)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()

    @property
    def room(self) -> float:
        """Characters that fit on one line: a line that wraps cannot be redrawn, and every redraw would leave one behind."""
        return shutil.get_terminal_size().columns - 1 if self.redraws and not self.is_notebook else float("inf")

    @property
    def is_due(self) -> bool:
        """Whether the line may be drawn again: always on a terminal, now and then where lines stay."""
        return self.redraws or time.monotonic() - self.written >= SECONDS_PER_LINE

    def resume(self, done: int) -> None:
        """Begin with so many iterations done already."""
        self.done = done

    def advance(
        self, steps: int, phase: str, acceptance: float | None, divergences: int | None, energy: float | None = None
    ) -> None:
        """Count ``steps`` more iterations and redraw the line; without a new ``acceptance`` it shows the last.

        The first ones were also compiled, so speed and time left are of those after them.
        """
        self.done += steps
        now = time.monotonic()
        if self.started is None:
            self.started, self.skipped = now, self.done
        self.acceptance = self.acceptance if acceptance is None else acceptance
        last = self.done == self.total
        if not (last or self.is_due):
            return
        timed = self.done - self.skipped
        rate = timed / max(now - self.started, 1e-9)
        filled = WIDTH * self.done // self.total
        bar = "" if self.is_notebook else "█" * filled + "░" * (WIDTH - filled) + " "
        parts = {"phase": f"{phase:<8} {bar}{100 * self.done // self.total:3d}%"}
        if timed:
            parts["speed"] = f"{rate * self.scale:.0f} steps/s per {self.runner}"
        if self.acceptance is not None:
            parts["acceptance"] = f"acceptance {self.acceptance:.2f}"
        if energy is not None:
            parts["energy"] = f"energy {energy:.6g}"
        if divergences is not None:
            parts["divergences"] = f"{divergences} divergences"
        if last:
            parts["time"] = _duration(now - self.began)
        elif timed:
            parts["time"] = f"{_duration((self.total - self.done) / rate)} left"
        for name in LEAVE_FIRST:
            if len(" · ".join(parts.values())) > self.room:
                parts.pop(name, None)
        self.message(" · ".join(parts.values()))

    def close(self) -> None:
        """End the line; nothing if there is none."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, whose streams are no terminals."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def _duration(seconds: float) -> str:
    """Seconds in the units in which people read them: 90 s, 12 min, 5.2 h, 3.1 d."""
    for unit, size, most, digits in (("s", 1, 120, 0), ("min", 60, 7200, 0), ("h", 3600, 172800, 1)):
        if seconds < most:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} d"
