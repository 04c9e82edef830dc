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
        self.total, self.done, self.started, self.length = total, 0, time.monotonic(), 0

    def message(self, text: str) -> None:
        """Replace the line by ``text``."""
        if self.show:
            self.stream.write("\r" + text.ljust(self.length))
            self.stream.flush()
            self.length = len(text)

    def advance(self, steps: int, phase: str, acceptance: float, divergences: int | None) -> None:
        """Count ``steps`` more iterations and redraw the line."""
        self.done += steps
        elapsed = time.monotonic() - self.started
        left = elapsed * (self.total - self.done) / max(self.done, 1)
        filled = WIDTH * self.done // self.total
        bar = "█" * filled + "░" * (WIDTH - filled)
        parts = [f"{phase:<8} {bar} {100 * self.done // self.total:3d}%", f"{self.done / elapsed:.0f} it/s a chain"]
        parts.append(f"acceptance {acceptance:.2f}")
        if divergences is not None:
            parts.append(f"{divergences} divergences")
        parts.append(f"{left:.0f} s left" if self.done < self.total else f"{elapsed:.0f} s")
        self.message(" · ".join(parts))

    def close(self) -> None:
        if self.show and self.length:
            self.stream.write("\n")
            self.stream.flush()
