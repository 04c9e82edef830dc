"""Exit statuses of all commands; 2 is also what argparse leaves with."""

PASSED, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
