"""One line of progress, redrawn in place; silent when nobody is looking."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]

WIDTH = 24


class Progress:
    """Progress of the chains on standard error.

    Parameters
    ----------
    total : int
        Iterations of all phases together.
    show : bool or None
        None shows it on a terminal only.
    """

    def __init__(self, total: int, show: bool | None, stream=None):
        self.stream = sys.stderr if stream is None else stream
        self.show = self.stream.isatty() if show is None else bool(show)
        self.total, self.done, self.length = total, 0, 0
        self.began = self.started = time.monotonic()
        self.skipped = 0  # iterations done before the clock of `start`

    def message(self, text: str) -> None:
        """Replace the line by ``text``."""
        if self.show:
            self.stream.write("\r" + text.ljust(self.length))
            self.stream.flush()
            self.length = len(text)

    def start(self) -> None:
        """Start the clock for speed and time left, when compiling is done; what comes before does not count."""
        self.started = time.monotonic()

    def advance(self, steps: int, phase: str, acceptance: float, divergences: int | None) -> None:
        """Count ``steps`` more iterations and redraw the line."""
        if self.done == 0:
            self.skipped = steps
        self.done += steps
        timed = self.done - self.skipped
        rate = timed / max(time.monotonic() - self.started, 1e-9)
        filled = WIDTH * self.done // self.total
        bar = "█" * filled + "░" * (WIDTH - filled)
        parts = [f"{phase:<8} {bar} {100 * self.done // self.total:3d}%"]
        if timed:
            parts.append(f"{rate:.0f} steps/s a chain")
        parts.append(f"acceptance {acceptance:.2f}")
        if divergences is not None:
            parts.append(f"{divergences} divergences")
        if self.done == self.total:
            parts.append(f"{time.monotonic() - self.began:.0f} s")
        elif timed:
            parts.append(f"{(self.total - self.done) / rate:.0f} s left")
        self.message(" · ".join(parts))

    def close(self) -> None:
        if self.show and self.length:
            self.stream.write("\n")
            self.stream.flush()
