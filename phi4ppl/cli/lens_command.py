"""``phi4ppl lens``: a trained model that a file defines, read in eight steps; a report in one folder."""

from __future__ import annotations

from pathlib import Path

from .model_files import names_in
from .outcome import REPORT, result_folder, wrapped
from .status import FAILED, PASSED

__all__ = ["lens"]

RECORD, TEXT = "lens.json", "lens.txt"
NEEDED = ("apply", "params", "data")
OPTIONAL = ("labels", "other", "transformations", "symmetry", "training", "members", "coefficient", "output")


def lens(arguments) -> int:
    """Read the model, print what was measured, and write the report."""
    path = Path(arguments.model)
    results = result_folder(arguments, "lens", Path("lenses") / path.stem, RECORD, (TEXT, REPORT))
    path, given = names_in(arguments.model, NEEDED, OPTIONAL)
    from ..lens.lens_page import report

    made = report(**given, seed=arguments.seed)
    print(wrapped(str(made)))
    results.add(TEXT, lambda at: at.write_text(f"{made}\n", encoding="utf-8"))
    facts = {"model": str(path), "seed": arguments.seed}
    page = results.add(REPORT, lambda at: made.to_html(at, heading=f"{path.stem} read as a field theory", facts=facts))
    results.finish(facts | {
        "measured": sorted(made.results), "findings": [f.text for f in made.findings],
        "missing": [text for step in made.steps for text in step.missing],
    })  # fmt: skip
    print(f"\nresults: {results.path}\nreport: {page.resolve().as_uri()}")
    return PASSED if made.passed else FAILED
