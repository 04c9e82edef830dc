"""Every line shown to users runs: the code blocks of README.md and docs/, and the scripts in examples/.

All blocks of a page run in order in one process of their own and in one namespace, in an empty folder. The process is a
fork of one that has imported the libraries and done nothing with them. The blocks become one program with the page's own
line numbers, so a traceback points into the page. Two kinds of block count:

* ``python``: run as it stands. Directly under a comment ``<!-- file: NAME -->`` it is saved as NAME first.
* ``bash``: each line is a ``phi4ppl …`` command that must succeed, or the block is one of the README's two
  set-up lines, which ``.ci/run`` runs.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>.*)")
RST_CODE = re.compile(r"\s*\.\. (code|code-block|sourcecode|testcode)::")
FILE_COMMENT = re.compile(r"\s*<!-- file: (\S+) -->\s*")
CI_COMMENT = re.compile(r"<!-- ci: (\w+) -->")
SLOW_EXAMPLES = {  # even on tiny data, for what they compile; the pages that show them use the same functions
    "complete_digits.py", "faces.py", "images_by_level.py", "lip_cancer_fields.py", "machine_as_matter.py",
    "restore_digits.py", "stacked_digits.py",
}  # fmt: skip
RUNNABLE = {"python", "bash"}
LOOKS_RUNNABLE = re.compile(r"i?py|bash|z?sh\b|shell|console|doctest|\{(code|doctest|testcode)", re.I)
COMMANDS = {"phi4ppl", ".venv/bin/phi4ppl"}


class Block(NamedTuple):
    """A fenced block: its fence's words, the number of its first line, its dedented text, the line above."""

    info: str
    line: int
    text: str
    above: str


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a Markdown page, outermost ones only."""
    lines = page.splitlines()
    blocks, start, opening = [], 0, None
    for number, line in enumerate(lines, start=1):
        fence = FENCE.fullmatch(line)
        if fence is None:
            continue
        if opening is None:
            start, opening = number, fence
        elif not fence["info"].strip() and fence["ticks"].startswith(opening["ticks"]):
            content = textwrap.dedent("\n".join([*lines[start : number - 1], ""]))
            above = lines[start - 2] if start > 1 else ""
            blocks.append(Block(opening["info"].strip(), start + 1, content, above))
            opening = None
    assert opening is None, f"line {start}: this block never ends"
    return blocks


def unrunnable_fences(page: str) -> list[str]:
    """Fences of code that would escape this test: not plain ``python`` or ``bash``, or inside another."""
    found = []
    for block in blocks_of(page):
        if block.info not in RUNNABLE:
            lines = block.text.splitlines()
            inside = [fence["info"] for line in lines if (fence := FENCE.fullmatch(line))]
            escaping = [info for info in [block.info, *inside] if LOOKS_RUNNABLE.match(info)]
            escaping += [line.strip() for line in lines if RST_CODE.match(line)]
            found += [f"line {block.line - 1}: {what}" for what in escaping]
    return found


def command_statement(line: str, number: int) -> str:
    """One shown shell line as a Python statement that runs it with this Python."""
    complaint = f"line {number}: not a one-line phi4ppl command: {line}"
    assert not line.endswith("\\"), complaint
    words = shlex.split(line, comments=True)
    if not words:
        return ""
    assert words[0] in COMMANDS, complaint
    arguments = ["-m", "phi4ppl", *words[1:]]
    return f"__import__('subprocess').run([__import__('sys').executable, *{arguments!r}], check=True)"


def program_of(page: str, setup_lines: set[str]) -> str:
    """The page as one Python program with the page's line numbers; empty when the page has nothing to run."""
    program = [""] * len(page.splitlines())
    for block in blocks_of(page):
        if block.info == "python":
            program[block.line - 1 : block.line - 1 + len(block.text.splitlines())] = block.text.splitlines()
            if saved := FILE_COMMENT.fullmatch(block.above):
                path = f"__import__('pathlib').Path({saved[1]!r})"
                program[block.line - 2] = f"{path}.write_text({block.text!r}, encoding='utf-8')"
        elif block.info == "bash" and block.text.strip() not in setup_lines:
            for number, line in enumerate(block.text.splitlines(), start=block.line):
                program[number - 1] = command_statement(line, number)
    return "\n".join(program) + "\n" if any(program) else ""


def setup_lines() -> dict[str, str]:
    """The README's two set-up lines, by the name in the comment above them."""
    blocks = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))
    return {mark[1]: block.text.strip() for block in blocks if (mark := CI_COMMENT.fullmatch(block.above))}


PROGRAMS = {
    page.relative_to(ROOT).as_posix(): program
    for page in PAGES
    if (program := program_of(page.read_text(encoding="utf-8"), set(setup_lines().values())))
}
SMOKE_PAGES = {"README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_code_fence_is_one_that_runs(page):
    assert unrunnable_fences(page.read_text(encoding="utf-8")) == []


def smoke_if(is_smoke: bool) -> list:
    return [pytest.mark.smoke] if is_smoke else []


def slow_if(is_slow: bool) -> list:
    return [pytest.mark.slow] if is_slow else []


@pytest.mark.parametrize("name", [pytest.param(name, marks=smoke_if(name in SMOKE_PAGES)) for name in PROGRAMS])
def test_page_runs(name, run_warm, tmp_path):
    script = tmp_path / "page.py"
    script.write_text(PROGRAMS[name], encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    run_warm(script, cwd=folder)


@pytest.mark.parametrize(
    "example", [pytest.param(path, marks=slow_if(path.name in SLOW_EXAMPLES), id=path.name) for path in EXAMPLES]
)
def test_example_runs(example, run_warm, tmp_path):
    run_warm(example, cwd=tmp_path, PHI4PPL_TINY="1")


def test_readme_shows_code():
    assert "README.md" in PROGRAMS


def test_ci_runs_the_two_lines_of_the_readme():
    lines = setup_lines()
    assert set(lines) == {"run", "test"}
    command = [ROOT / ".ci" / "run", "--dry-run"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, _, main_job = lines["run"].partition(" && cd phi4ppl && ")
    assert f"+ {main_job}\n+ {lines['test']}\n" in shown


PAGE = """\
Text.

```python
x = 1
```

<!-- file: model.py -->
```python
y = x
```

1. indented

   ```python
   if y == 1:
       z = 2
   ```

```bash
phi4ppl check model.py --set a=1.9  # a remark
```

```text
not run
```
"""


def test_program_keeps_the_line_numbers_of_the_page():
    lines = program_of(PAGE, set()).splitlines()
    assert len(lines) == len(PAGE.splitlines())
    assert lines[3] == "x = 1" and lines[8] == "y = x" and lines[14:16] == ["if y == 1:", "    z = 2"]
    assert lines[7] == "__import__('pathlib').Path('model.py').write_text('y = x\\n', encoding='utf-8')"
    assert lines[19].endswith("*['-m', 'phi4ppl', 'check', 'model.py', '--set', 'a=1.9']], check=True)")
    assert sum(map(bool, lines)) == 6


UNRUN = [
    "python no-run",
    "py",
    "python3",
    "pycon",
    "Python",
    "bash x",
    "sh",
    "console",
    "{code-block} python",
]


@pytest.mark.parametrize("info", UNRUN)
def test_planted_fence_that_would_not_run_is_caught(info):
    assert unrunnable_fences(f"```{info}\n1 / 0\n```\n") == [f"line 1: {info}"]


def test_planted_fence_inside_a_fence_is_caught():
    assert unrunnable_fences("````{note}\n```python\n1 / 0\n```\n````\n") == ["line 1: python"]
    rst = "```{eval-rst}\n.. code-block:: python\n\n   1 / 0\n```\n"
    assert unrunnable_fences(rst) == ["line 1: .. code-block:: python"]


@pytest.mark.parametrize("info", ["python", "bash", "", "text", "{include} ../x.md", "{toctree}", "{eval-rst}"])
def test_other_fences_pass(info):
    assert unrunnable_fences(f"```{info}\nx\n```\n") == []


@pytest.mark.parametrize("line", ["pip install phi4ppl", "rm -rf x", "phi4ppl run \\"])
def test_planted_shell_line_that_is_no_command_is_refused(line):
    with pytest.raises(AssertionError, match="line 2: not a one-line phi4ppl command"):
        program_of(f"```bash\n{line}\n```\n", set())


def test_a_set_up_line_is_left_to_ci():
    assert program_of("```bash\npip install x\n```\n", {"pip install x"}) == ""


def test_planted_error_fails_the_page(run_warm, tmp_path):
    script = tmp_path / "page.py"
    script.write_text(program_of("\n```python\nx = 1 / 0\n```\n", set()), encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="line 3, in <module>"):
        run_warm(script, cwd=tmp_path)


LEAVES_THINGS_BEHIND = """\
import os, sys, jax, numpy, phi4ppl as p4
from pathlib import Path

assert not jax._src.xla_bridge._backends, "this interpreter is not fresh"
x = jax.numpy.ones(3)
jax.config.update("jax_enable_x64", True)
numpy.planted = p4.planted = sys.modules["planted"] = x
os.environ["PLANTED"] = "x"
Path("planted").touch()
"""
NEEDS = {
    "a name": "x",
    "an import": "p4",
    "a module": "import planted",
    "an attribute of a library": "import numpy; numpy.planted",
    "an attribute of the package": "import phi4ppl; phi4ppl.planted",
    "the environment": "import os; os.environ['PLANTED']",
    "a file": "open('planted')",
    "a setting": "import jax; assert jax.config.jax_enable_x64",
    "a backend": "import jax; assert jax._src.xla_bridge._backends",
}


def test_planted_page_that_needs_another_fails(run_warm, tmp_path):
    """What one program leaves behind, in its interpreter or its folder, no other finds."""
    first, other = tmp_path / "first.py", tmp_path / "other.py"
    first.write_text(LEAVES_THINGS_BEHIND, encoding="utf-8")
    (tmp_path / "first").mkdir()
    run_warm(first, cwd=tmp_path / "first")
    for line in NEEDS.values():
        other.write_text(line + "\n", encoding="utf-8")
        with pytest.raises(pytest.fail.Exception, match="line 1, in <module>"):
            run_warm(other, cwd=tmp_path)
