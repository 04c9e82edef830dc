"""A run on disk: a directory that holds one complete state of the run at every moment, however the writer is stopped.

``head.ckpt``
    The state of the chains, the settings that determine the numbers, and a list of the files below. Replaced as a whole.
``frame.ckpt``
    Metadata of the results (lattice, couplings, names of dimensions). Written once.
``draws-FIRST-STOP.ckpt``
    Kept draws, each file written once; a file that the head does not list is left over and is removed.

A file has a line that says what it is, a line with the version of the format, a line with the BLAKE2b digest of all that
follows (and of the version), one line of JSON, and arrays in NumPy's npy format. Nothing in it is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from ..errors import CheckpointError
from ..errors.arguments import call_checked

try:
    import fcntl
except ImportError:  # Windows has none: there nothing stops two runs from writing to one directory
    fcntl = None

__all__ = ["Saved", "Store", "is_checkpoint", "pack", "read_file", "read_saved", "unpack", "write_file"]

FORMAT = 1
WHAT = b"phi4ppl checkpoint\n"
HEAD, FRAME, LOCK = "head.ckpt", "frame.ckpt", "lock"
UNFINISHED = ".tmp"
OWN_NAMES = re.compile(r"lock|(head|frame|draws-\d{9,}-\d{9,})\.ckpt(\.tmp)?")
PIECE = 1 << 20
MAX_SHOWN = 40  # characters of a setting in a message
DIGEST = re.compile("[0-9a-f]{32}")
FRESH = "Choose another directory, or remove this one to start over."


# --- one file


def write_file(path: Path, header: dict, arrays: dict[str, np.ndarray]) -> str:
    """Write a file atomically: the previous one stays until the new one is safely on the disk.

    Parameters
    ----------
    header : dict
        Values that JSON can represent.
    arrays : dict
        NumPy or JAX arrays, PRNG keys among them.

    Returns
    -------
    str
        The digest of the content.

    Raises
    ------
    CheckpointError
        If the disk is full or cannot be written to; the file is as it was.
    """
    plain = {name: _plain(value) for name, value in arrays.items()}
    text = json.dumps(header | {"arrays": [[name, kind] for name, (_, kind) in plain.items()]})
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            version = b"format %d\n" % FORMAT
            file.write(WHAT + version + b"0" * 64 + b"\n")
            hashed = _Hashed(file, version)
            hashed.write(text.encode() + b"\n")
            for array, _ in plain.values():
                np.lib.format.write_array(hashed, array, allow_pickle=False)
            digest = hashed.hash.hexdigest()
            file.seek(len(WHAT + version))
            file.write(digest.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_directory(path.parent)
    except OSError as error:
        fix = "What was written before is intact: free some space or fix the disk, then repeat the call to resume."
        raise CheckpointError(path, f"could not be written ({error.strerror or error})", fix, "unwritable") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return digest


def read_file(path: Path) -> tuple[dict, dict, str]:
    """Header, arrays and digest of a file that `write_file` wrote; anything else is rejected and left unchanged.

    Raises
    ------
    CheckpointError
        If it is not there, cut short, damaged, of another kind, or of a newer format.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(WHAT)) != WHAT:
                raise CheckpointError(
                    path, "is not a phi4ppl checkpoint, or its beginning is damaged", FRESH, "foreign"
                )
            version, digest = file.readline(PIECE), file.readline(PIECE).strip().decode(errors="replace")
            start, found = file.tell(), _hash(version)
            while piece := file.read(PIECE):
                found.update(piece)
            if found.hexdigest() != digest:
                raise CheckpointError(path, "is damaged: cut short, or changed since it was written", FRESH, "damaged")
            if version != b"format %d\n" % FORMAT:
                told = f"has {version.decode().strip()}, and this phi4ppl reads format {FORMAT}"
                raise CheckpointError(path, told, "Use the phi4ppl that wrote it, or a newer one.", "format")
            file.seek(start)
            header = json.loads(file.readline())
            # in the order of the file
            arrays = {n: _restored(np.lib.format.read_array(file, allow_pickle=False), k) for n, k in header["arrays"]}
    except FileNotFoundError as error:
        raise CheckpointError(
            path, "is not there", "Check that this is the directory of a run, and that the run has started.", "missing"
        ) from error
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror or error})", FRESH, "unreadable") from error
    except (ValueError, KeyError, TypeError) as error:  # intact, so written by other software
        raise CheckpointError(path, f"has arrays that cannot be read ({error})", FRESH, "damaged") from error
    return header, arrays, digest


class _Hashed:
    """A file for writing that hashes what is written."""

    def __init__(self, file, first: bytes):
        self.file, self.hash = file, _hash(first)

    def write(self, data) -> None:
        self.hash.update(data)
        self.file.write(data)


def _hash(first: bytes):
    return hashlib.blake2b(first, digest_size=32)


def _sync_directory(path: Path) -> None:
    """Make the new name of a file durable; a replaced name is otherwise only in memory."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _plain(value) -> tuple[np.ndarray, str]:
    """An array that npy can store, and what it represents: a PRNG key, or a dtype unknown to NumPy."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(value)), f"key {jax.random.key_impl(value)}"
    array = np.asarray(value)
    if array.dtype.isbuiltin == 2:
        return array.view(f"u{array.dtype.itemsize}"), array.dtype.name
    if array.dtype.kind not in "biufcU":
        raise TypeError(f"an array of dtype {array.dtype} cannot be part of the state of a run")
    return array, ""


def _restored(array: np.ndarray, kind: str):
    if kind.startswith("key "):
        return jax.random.wrap_key_data(array, impl=kind.removeprefix("key "))  # type: ignore[arg-type]
    return array.view(jax.numpy.dtype(kind)) if kind else array


def pack(tree) -> dict:
    """The leaves of a pytree by their path in it."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unpack(like, arrays: dict, path: Path):
    """The pytree of which ``arrays`` are the leaves, in the structure, shapes and dtypes of ``like``."""
    expected = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in pack(like).items()}
    found = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in arrays.items()}
    if expected != found:
        name = next(n for n in [*expected, *found] if expected.get(n) != found.get(n))
        words = (" and dtype ".join(map(str, e)) if e else "nothing" for e in (found.get(name), expected.get(name)))
        problem = "has a state of other arrays: at {} shape {}, where this run has shape {}".format(name, *words)
        raise CheckpointError(path, problem, f"The kernel may have changed. {FRESH}", "other_state")
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])


# --- a directory


@dataclass(frozen=True)
class Saved:
    """The contents of a checkpoint directory.

    Attributes
    ----------
    identity : dict
        What determines the numbers: the model's digests and the settings.
    progress : dict
        How far the run is.
    state : dict of arrays
        The state from which the run resumes.
    frame : tuple of dict and dict of arrays
        Metadata of the results.
    """

    path: Path
    identity: dict
    progress: dict
    state: dict
    frame: tuple[dict, dict]
    files: list

    def draws(self) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
        """Kept draws, file by file: number of the first, of the one after the last, arrays (chain, draw, …) by name."""
        for name, digest, first, stop in self.files:
            yield first, stop, _listed(self.path / name, digest)[1]


def _is_own(path: Path) -> bool:
    """Whether a file with one of our names can be ours: a regular file, not a link, with our first line or its start."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            first = file.read(len(WHAT))
    except OSError:
        return False
    if path.name == LOCK:
        return not first
    return first == WHAT or path.name.endswith(UNFINISHED) and WHAT.startswith(first)


@call_checked
def is_checkpoint(path) -> bool:
    """Whether there is a directory of a `Store` at this path; what is in it may still be damaged."""
    return (Path(path) / HEAD).exists()


@call_checked
def read_saved(path) -> Saved:
    """The state that a directory holds now; the run may keep writing to it.

    Raises
    ------
    CheckpointError
        If there is none, or it cannot be trusted. Nothing is changed.
    """
    path = Path(path)
    header, state, _ = read_file(path / HEAD)
    if "identity" not in header:
        raise CheckpointError(path / HEAD, "is intact, but not a head file", FRESH, "not_a_head")
    frame = _listed(path / FRAME, header["frame"])
    return Saved(path, header["identity"], header["progress"], state, frame, header["files"])


def _listed(path: Path, digest: str) -> tuple[dict, dict]:
    header, arrays, found = read_file(path)
    if found != digest:
        raise CheckpointError(path, "belongs to a different run than the head of its directory", FRESH, "mixed_runs")
    return {name: value for name, value in header.items() if name != "arrays"}, arrays


class Store:
    """A directory that one run writes to.

    Parameters
    ----------
    path : path-like
        A directory that does not exist yet, or is empty, or holds a state of the very same run.
    identity : dict
        What determines the numbers, by name; plain values.
    frame : tuple of dict and dict of arrays
        As in `Saved`.

    Attributes
    ----------
    saved : Saved or None
        The state to resume from, checked; None at the start of a run.

    Raises
    ------
    CheckpointError
        If the directory is another run's or no checkpoint at all, or damaged, or in use by another process. Nothing in
        it is changed.
    """

    def __init__(self, path, identity: dict, frame: tuple[dict, dict]):
        self.path = Path(path).absolute()
        self.identity = json.loads(json.dumps(identity))  # as it will come back: tuples are lists
        self._require_ours()
        self._lock = self._locked()
        try:
            # a broken link must not be taken for the start of a run
            self.saved = read_saved(self.path) if os.path.lexists(self.path / HEAD) else None
            if self.saved is None:
                self._files, self._frame = [], write_file(self.path / FRAME, *frame)
            else:
                self._require_same(self.saved.identity)
                self._files = list(self.saved.files)
                self._frame = read_file(self.path / FRAME)[2]
        except BaseException:
            self.close()
            raise

    def _require_ours(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
        except FileExistsError as error:
            raise CheckpointError(
                self.path, "is a file, not a directory", "Choose another name.", "not_a_directory"
            ) from error
        except OSError as error:
            problem = f"is not a writable directory ({error.strerror or error})"
            raise CheckpointError(self.path, problem, "Choose another one.", "unwritable") from error
        foreign = names - {LOCK, FRAME, FRAME + UNFINISHED, HEAD + UNFINISHED}
        if HEAD not in names and foreign:
            problem = f"holds other files ({', '.join(sorted(foreign)[:3])}) and no {HEAD}"
            raise CheckpointError(self.path, problem, "Choose an empty or a new directory.", "other_files")
        for name in sorted(filter(OWN_NAMES.fullmatch, names - {HEAD})):  # they would be replaced or removed on the way
            if not _is_own(self.path / name):
                problem = "is not a phi4ppl checkpoint, or its beginning is damaged"
                raise CheckpointError(
                    self.path / name, problem, "Move it away, or choose another directory.", "foreign"
                )

    def _locked(self):
        try:
            file = (self.path / LOCK).open("a")
        except OSError as error:
            problem = f"is not writable ({error.strerror or error})"
            raise CheckpointError(self.path, problem, "Choose another directory.", "unwritable") from error
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError as error:
            file.close()
            fix = "Wait for it, or stop it; phi4ppl report shows its progress."
            raise CheckpointError(self.path, "is being written by another run", fix, "locked") from error
        except OSError:
            pass  # a file system without locks
        return file

    def _require_same(self, saved: dict) -> None:
        if told := _differences(saved, self.identity):
            fix = "Repeat the identical call to resume it, or choose another directory; this one is unchanged."
            raise CheckpointError(self.path, f"belongs to a different run: {told}", fix, "other_run")

    def save(self, progress: dict, state: dict, first: int, stop: int, draws: dict) -> None:
        """Write the state of the run, with the kept draws ``first`` to ``stop − 1``, which are those since the last time."""
        files = list(self._files)
        if stop > first:
            name = f"draws-{first:09d}-{stop:09d}.ckpt"
            files.append([name, write_file(self.path / name, {}, draws), first, stop])
        header = {"identity": self.identity, "progress": progress, "frame": self._frame, "files": files}
        write_file(self.path / HEAD, header, state)
        self._files = files
        self._remove_unlisted()

    def _remove_unlisted(self) -> None:
        listed = {name for name, *_ in self._files}
        for found in self.path.iterdir():
            left = OWN_NAMES.fullmatch(found.name) and found.name not in (*listed, LOCK, FRAME, HEAD)
            if left and _is_own(found):
                found.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the directory for other runs."""
        self._lock.close()


def _differences(there: dict, here: dict) -> str:
    """The differences between two identities in words; digests mean nothing to readers, so only their names are given."""
    told, digests = [], []

    def compare(there, here, within=""):
        for name in {**there, **here}:
            label, old, new = f"{within}{name}", there.get(name), here.get(name)
            if name not in there or name not in here:
                told.append(f"{label} is only {'here' if name in here else 'there'}")
            elif old == new:
                pass
            elif isinstance(old, dict) and isinstance(new, dict):
                compare(old, new, f"{label} ")
            elif _are_names(old) and _are_names(new) and set(old) != set(new):
                compare(dict.fromkeys(old), dict.fromkeys(new), f"{label} ")
            elif all(isinstance(value, str) and DIGEST.fullmatch(value) for value in (old, new)):
                digests.append(label)
            else:
                told.append(f"{label} is {_short(old)} there, {_short(new)} here")

    compare(there, here)
    return "; ".join(told + ([f"not the same: {', '.join(digests)}"] if digests else []))


def _are_names(value) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
