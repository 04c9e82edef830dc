"""The folder of a command's results, and the record of what the command wrote there: nothing else is ever replaced.

A record is a JSON file, such as ``run.json``, with the digest of every file that the command wrote, and of itself. A file that
is not listed, that has changed since, that is read-only, and whatever is a link or a directory, belongs to the user.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import ResultFileError

__all__ = ["FINISHED", "ResultFolder", "read_record"]

PIECE = 1 << 20
WRITTEN_BY, FILES, FINISHED, DIGEST = "written_by", "files", "finished", "digest"


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _digest(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()


def _is_plain(path: Path) -> bool:
    """Whether this is a regular file, and no link, whose owner may write to it."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IWUSR)


def _sealed(record: dict) -> bytes:
    """A record as it is on the disk, with the digest of the rest at its end."""
    plain = json.loads(json.dumps({name: value for name, value in record.items() if name != DIGEST}))
    return (json.dumps(plain | {DIGEST: _hash(json.dumps(plain).encode())}, indent=2) + "\n").encode()


def read_record(path: Path, command: str) -> dict | None:
    """The record that ``phi4ppl command`` left at this path; None if there is none, or anything else."""
    try:
        text = path.read_bytes() if _is_plain(path) else b""
        record = json.loads(text)
    except (OSError, ValueError):
        return None
    good = isinstance(record, dict) and isinstance(record.get(FILES), dict)
    return record if good and record.get(WRITTEN_BY) == f"phi4ppl {command}" and _sealed(record) == text else None


class ResultFolder:
    """A folder that one command writes its results to.

    Parameters
    ----------
    path : Path
        A folder, or where one can be made.
    command : str
        For example ``"run"``.
    record : str
        Name of the record.
    names : tuple of str
        Everything that the command may write, without the record.
    overwrite : bool
        Whether files that the record lists may be replaced.
    continues : callable, optional
        Says of a record (a dict) whether its command is now continued, so that its files may be replaced too.
    amend : bool
        Whether the record keeps what it says: some of its files are written again, and no result is new.

    Raises
    ------
    ResultFileError
        If a file that the command did not write is in the way, or one that it is not to replace; or if the folder cannot be
        written to. Nothing has been changed.
    """

    def __init__(
        self, path: Path, command: str, record: str, names: tuple[str, ...], *, overwrite: bool,
        continues: Callable[[dict], bool] = lambda record: False, amend: bool = False,
    ):  # fmt: skip
        self.path, self.command, self.record = path, command, record
        self._require_writable()
        old = read_record(path / record, command)
        self._old = {} if old is None else dict(old[FILES])
        self._files, self._written = dict(self._old), set()
        self._amend, self._facts = amend, {} if old is None or not amend else old
        self._seal = None if old is None else _digest(path / record)
        there = [name for name in (*names, record) if os.path.lexists(path / name)]
        if there and not overwrite and old is not None and not continues(old):
            what = "finished results" if old.get(FINISHED) else f"results of an unfinished phi4ppl {command}"
            raise ResultFileError(
                "holds_results",
                f"{path} holds {what}. Give another folder with --output, or replace them with --overwrite.",
            )
        for name in there:
            if not self._is_own(name):
                way = "." if amend else ", or give another folder with --output."
                raise ResultFileError(
                    "foreign",
                    f"{path / name}: not a file that phi4ppl {command} wrote here, or changed or made read-only since. "
                    f"Move it away{way}",
                )

    def _require_writable(self) -> None:
        there = self.path
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ResultFileError(
                "unwritable", f"{self.path} is no folder that can be written to. Give another one with --output."
            )

    def _is_own(self, name: str) -> bool:
        path, digest = self.path / name, self._seal if name == self.record else self._files.get(name)
        return digest is not None and _is_plain(path) and _digest(path) == digest

    def add(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write one file, all of it or nothing: ``write`` gets a path. Returns the path of the file.

        Where somebody has put another file under this name meanwhile, that one stays, and this one gets another name.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".phi4ppl-") as folder:
            fresh = Path(folder) / name
            write(fresh)
            digest, target = _digest(fresh), self._target(name)
            self._files[target.name] = digest
            self._written.add(target.name)
            self._write_record({FINISHED: False} | self._facts)  # first: a file without a record would belong to nobody
            os.replace(fresh, target)
        return target

    def finish(self, facts: dict, *, finished: bool = True) -> None:
        """Write the record; files of an earlier command that this one did not write again are removed."""
        for name in set() if self._amend else set(self._old) - self._written:
            if self._is_own(name):
                (self.path / name).unlink()
            self._files.pop(name)
        self._write_record({FINISHED: finished} | self._facts | facts)

    def _write_record(self, facts: dict) -> None:
        text = _sealed(facts | {WRITTEN_BY: f"phi4ppl {self.command}", FILES: self._files})
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".phi4ppl-") as folder:
            fresh = Path(folder) / self.record
            fresh.write_bytes(text)
            target = self._target(self.record)
            os.replace(fresh, target)
        self.record, self._seal = target.name, _hash(text)

    def _target(self, name: str) -> Path:
        """The path of this name, or of one like it that is free."""
        path, number = self.path / name, 1
        while os.path.lexists(path) and not self._is_own(path.name):
            number += 1
            path = (self.path / name).with_stem(f"{Path(name).stem}-{number}")
        if number > 1:
            print(f"{self.path / name} is another file meanwhile, and is left alone: see {path}", file=sys.stderr)
        return path
