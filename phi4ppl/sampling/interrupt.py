"""Ctrl-C between two chunks of a run instead of in the middle of one."""

from __future__ import annotations

import signal
import threading

__all__ = ["Interrupts"]


class Interrupts:
    """While this context lasts, the first Ctrl-C is only noted; from the second on all is as usual.

    Where a handler other than Python's default is installed, or outside the main thread, nothing is changed.

    Attributes
    ----------
    asked : bool
        Whether there has been a Ctrl-C.
    """

    def __init__(self):
        self.asked = False

    def __enter__(self) -> Interrupts:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._installed = usual and threading.current_thread() is threading.main_thread()
        if self._installed:
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number, frame) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once
        self.asked = True

    def __exit__(self, *_) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
