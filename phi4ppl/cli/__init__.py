"""The command line: parsing and printing, one file per command.

A command and its options come in; text and files go out. Read `entry` first.
"""

from .entry import main

__all__ = ["main"]
