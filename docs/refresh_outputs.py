"""Compare the outputs that a page shows with what its code prints now; ``--write`` puts them in place.

python docs/refresh_outputs.py docs/quickstart.md [more pages] [--write]

A ``text`` block that follows a ``python`` block is that block's output. Lines that the
page breaks by hand count as equal. The code runs in a temporary folder.
"""

import contextlib
import difflib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```python\n(?P<code>.*?)^```\n"
    r"(?P<gap>\n```text\n)?(?P<shown>(?(gap).*?^(?=```$)))",
    re.DOTALL | re.MULTILINE,
)


def refreshed(page: str) -> str:
    """The page with the outputs of its code in place."""
    namespace: dict = {"__name__": "__main__"}

    def run(block: re.Match) -> str:
        if block["file"]:
            Path(block["file"]).write_text(block["code"], encoding="utf-8")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], "page", "exec"), namespace)
        new = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
        if not block["gap"] or new.split() == block["shown"].split():
            return block[0]
        return block[0][: len(block[0]) - len(block["shown"])] + new + "\n"

    return BLOCK.sub(run, page)


def main(arguments: list[str]) -> None:
    for path in [Path(name).resolve() for name in arguments if name != "--write"]:
        old = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            new = refreshed(old)
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), lineterm="", fromfile=path.name, n=0
        )
        print("\n".join(lines) or f"{path.name}: as shown", flush=True)
        if "--write" in arguments:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    main(sys.argv[1:])
