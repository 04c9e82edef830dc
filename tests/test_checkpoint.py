"""Checkpoints on disk: bit-exact, all or nothing, and anything else refused without being touched."""

import errno
import hashlib
import json
import os
import pickle
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

from phi4ppl.errors import CheckpointError
from phi4ppl.sampling import checkpoint
from phi4ppl.sampling.checkpoint import Store, _differences, pack, read_file, read_saved, unpack, write_file

IDENTITY = {"couplings": "c0ffee", "seed": 3, "num_samples": 100, "versions": {"jax": "1"}, "shape": (4, 4)}
FRAME = ({"dims": {"phi": ["x", "y"]}}, {"edges": np.arange(6).reshape(3, 2)})


class State(NamedTuple):
    position: object
    key: object
    empty: tuple = ()


def state(value=1.0):
    position = {"phi": jnp.full((2, 3), value), "b/c": jnp.asarray(np.pi * value, jnp.bfloat16)}
    odd = np.array([np.nan, -0.0, 1e-45, np.inf], np.float32)
    return State((position, odd, np.int64(7), jnp.zeros((0, 3)), np.array([True])), jax.random.key(5))


def draws(first, stop):
    numbers = np.arange(first, stop, dtype=np.float32)
    return {
        "values/phi": np.stack([numbers, -numbers])[:, :, None],
        "statistics/diverging": np.zeros((2, stop - first), bool),
    }


def raw(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return str(leaf.dtype), np.shape(leaf), np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


def new_store(path, **changes):
    return Store(path, IDENTITY | changes, FRAME)


@pytest.fixture
def filled(tmp_path):
    """A directory with a state after 20 of 100 draws."""
    path = tmp_path / "run"
    store = new_store(path)
    store.save({"done": 0}, pack(state(0.5)), 0, 0, {})
    store.save({"done": 10}, pack(state(1.0)), 0, 10, draws(0, 10))
    store.save({"done": 20}, pack(state(2.0)), 10, 20, draws(10, 20))
    store.close()
    return path


def contents(path) -> dict:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}


def assert_holds(path, done, value):
    saved = read_saved(path)
    assert saved.progress == {"done": done}
    restored = unpack(state(), saved.state, path)
    assert jax.tree.map(raw, restored) == jax.tree.map(raw, state(value))
    parts = list(saved.draws())
    assert [(first, stop) for first, stop, _ in parts] == [(k, k + 10) for k in range(0, done, 10)]
    for first, stop, arrays in parts:
        for name, values in draws(first, stop).items():
            np.testing.assert_array_equal(arrays[name], values)


# --- what comes back


def test_everything_comes_back_bit_for_bit(filled):
    assert_holds(filled, 20, 2.0)
    saved = read_saved(filled)
    assert saved.identity == json.loads(json.dumps(IDENTITY))
    assert saved.frame[0] == FRAME[0] and np.array_equal(saved.frame[1]["edges"], FRAME[1]["edges"])
    a, b = (jax.random.normal(s.key, (3,)) for s in (state(), unpack(state(), saved.state, filled)))
    np.testing.assert_array_equal(a, b)


def test_the_same_run_goes_on(filled):
    store = new_store(filled)
    assert store.saved.progress == {"done": 20}
    store.save({"done": 30}, pack(state(3.0)), 20, 30, draws(20, 30))
    store.close()
    assert_holds(filled, 30, 3.0)


def test_a_checkpoint_writes_only_what_is_new(filled):
    before = {p.name: p.stat().st_mtime_ns for p in filled.iterdir()}
    store = new_store(filled)
    store.save({"done": 30}, pack(state(3.0)), 20, 30, draws(20, 30))
    store.close()
    after = {p.name: p.stat().st_mtime_ns for p in filled.iterdir()}
    assert {name for name, time in after.items() if before.get(name) != time} == {
        "head.ckpt",
        "draws-000000020-000000030.ckpt",
    }


def test_what_a_killed_writer_left_is_ignored_and_removed(filled):
    for name in ("draws-000000020-000000030.ckpt", "head.ckpt.tmp", "draws-000000020-000000030.ckpt.tmp"):
        (filled / name).write_bytes(b"phi4ppl checkpoint\nhalf a file")
    assert_holds(filled, 20, 2.0)
    store = new_store(filled)
    store.save({"done": 20}, pack(state(2.0)), 20, 20, {})
    store.close()
    assert_holds(filled, 20, 2.0)
    names = {"head.ckpt", "frame.ckpt", "lock", "draws-000000000-000000010.ckpt", "draws-000000010-000000020.ckpt"}
    assert {p.name for p in filled.iterdir()} == names


# --- what is refused, without being touched


def refused(path, codes, store=True):
    """Refused with one of the codes by the next run and by a reader, and every byte as before."""
    before = contents(path) if path.is_dir() else path.read_bytes()
    for attempt in [lambda: read_saved(path)] + [lambda: new_store(path)] * store:
        with pytest.raises(CheckpointError) as caught:
            attempt()
        assert caught.value.code in codes, caught.value
        assert str(caught.value).startswith("checkpoint ") and str(caught.value).endswith(".")
    after = contents(path) if path.is_dir() else path.read_bytes()
    assert after == before


@pytest.mark.parametrize("name", ["head.ckpt", "frame.ckpt"])
def test_every_cut_is_refused(filled, name):
    whole = (filled / name).read_bytes()
    for length in [0, 1, 10, 19, 25, 60, 93, 94, 200, len(whole) // 2, len(whole) - 1]:
        (filled / name).write_bytes(whole[:length])
        refused(filled, ("checkpoint.damaged", "checkpoint.foreign"))
    (filled / name).write_bytes(whole + b"x")
    refused(filled, ("checkpoint.damaged",))


@pytest.mark.parametrize("name", ["head.ckpt", "frame.ckpt"])
def test_every_flipped_bit_is_refused(filled, name):
    whole = (filled / name).read_bytes()
    at = [*range(110), *np.random.default_rng(0).integers(110, len(whole), 60).tolist()]
    for place in at:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (filled / name).write_bytes(damaged)
        refused(filled, ("checkpoint.damaged", "checkpoint.foreign"), store=place % 20 == 0)


def test_damaged_missing_and_exchanged_draws_are_refused(filled):
    path = filled / "draws-000000000-000000010.ckpt"
    whole = path.read_bytes()
    other = (filled / "draws-000000010-000000020.ckpt").read_bytes()
    for content, match in (
        (whole[:-3], ("checkpoint.damaged",)),
        (other, ("checkpoint.mixed_runs",)),
        (None, ("checkpoint.missing",)),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        with raises(*match):
            list(read_saved(filled).draws())


def test_another_run_is_refused_and_told_what_differs(filled):
    before = contents(filled)
    with raises("checkpoint.other_run", "seed is 3 there, 4 here; num_samples is 100 there, 50 here."):
        new_store(filled, seed=4, num_samples=50)
    with raises("checkpoint.other_run", "kernel is only here"):
        new_store(filled, kernel="hmc")
    assert contents(filled) == before
    new_store(filled, shape=[4, 4]).close()  # JSON knows no tuples


def test_differences_between_runs_are_told_in_words():
    one, two = "0" * 32, "1" * 32
    there = {
        "seed": 1,
        "kept": ["a", "b"],
        "observables": {"m": one, "n": one},
        "couplings": one,
        "start": one,
        "size": 4,
    }
    here = {
        "seed": 1,
        "kept": ["a", "c"],
        "observables": {"m": two, "q": one},
        "couplings": two,
        "start": one,
        "size": 5,
    }
    assert _differences(there, here) == (
        "kept b is only there; kept c is only here; observables n is only there; observables q is only here; size is 4 there, "
        "5 here; not the same: observables m, couplings"
    )
    assert _differences({"names": ["a", "b"]}, {"names": ["b", "a"]}) == "names is ['a', 'b'] there, ['b', 'a'] here"
    assert _differences(there, dict(there)) == ""


def rewritten(path, version):
    """The file as another version would have written it, with the right digest."""
    what, _, _, rest = path.read_bytes().split(b"\n", 3)
    digest = hashlib.blake2b(version + b"\n" + rest, digest_size=32).hexdigest().encode()
    path.write_bytes(b"\n".join([what, version, digest, rest]))


def test_a_newer_format_is_refused(filled):
    rewritten(filled / "head.ckpt", b"format 1")
    assert_holds(filled, 20, 2.0)  # so the digest is computed rightly here
    rewritten(filled / "head.ckpt", b"format 2")
    refused(filled, ("checkpoint.format",))


class Bomb:
    def __reduce__(self):
        return os.mkdir, (f"{os.getcwd()}/exploded",)


def test_files_of_others_are_refused_and_never_executed(filled, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    head = filled / "head.ckpt"
    head.write_bytes(pickle.dumps(Bomb()))
    refused(filled, ("checkpoint.foreign",))
    with head.open("wb") as file:
        np.savez(file, x=np.zeros(3))
    refused(filled, ("checkpoint.foreign",))
    # an object array inside a file that is right in every other way
    write_file(head, {"identity": {}}, {"a": np.zeros(2)})
    array = np.empty(1, object)
    array[0] = Bomb()
    whole = head.read_bytes()
    with head.open("wb") as file:
        file.write(whole[: whole.index(b"\x93NUMPY")])
        np.lib.format.write_array(file, array, allow_pickle=True)
    rewritten(head, b"format 1")
    refused(filled, ("checkpoint.damaged",))
    head.write_bytes((filled / "frame.ckpt").read_bytes())
    refused(filled, ("checkpoint.not_a_head",))
    head.unlink()
    head.mkdir()
    refused(filled, ("checkpoint.unreadable",))
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(TypeError, match="object"):
        write_file(tmp_path / "x", {}, {"a": array})
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.tmp").exists()


def test_directories_and_files_of_others_are_refused(tmp_path):
    file, folder = tmp_path / "thesis.tex", tmp_path / "thesis"
    file.write_text("years of work")
    folder.mkdir()
    (folder / "draws-000000000-000000010.ckpt").write_text("years of work")
    for path, match in ((file, ("checkpoint.not_a_directory",)), (folder, ("checkpoint.other_files", "head.ckpt"))):
        before = contents(folder)
        with raises(*match):
            new_store(path)
        assert contents(folder) == before and file.read_text() == "years of work"
    with raises("checkpoint.unwritable"):
        new_store(file / "below")
    (tmp_path / "empty").mkdir()
    store = new_store(tmp_path / "empty")
    store.close()
    assert store.saved is None
    with raises("checkpoint.missing", "head.ckpt"):
        read_saved(tmp_path / "empty")


@pytest.mark.parametrize("kind", ["file", "directory", "link", "link to nothing"])
@pytest.mark.parametrize(
    "name",
    ["head.ckpt.tmp", "frame.ckpt", "frame.ckpt.tmp", "lock", "draws-000000020-000000030.ckpt",
     "draws-000000020-000000030.ckpt.tmp"],
)  # fmt: skip
@pytest.mark.parametrize("begun", [True, False])
def test_a_file_of_others_under_a_name_of_ours_is_refused(filled, tmp_path, name, kind, begun):
    """Temporary files were written through links, a frame and draws were replaced, unlisted ones removed."""
    path, own = (filled if begun else tmp_path / "new"), tmp_path / "thesis.tex"
    path.mkdir(exist_ok=True)
    own.write_text("years of work")
    if (path / name).exists():
        (path / name).unlink()
    match kind:
        case "file":
            (path / name).write_text("years of work")
        case "directory":
            (path / name).mkdir()
        case "link":
            (path / name).symlink_to(own)
        case _:
            (path / name).symlink_to(tmp_path / "nothing")
    before = contents(path)
    with pytest.raises(CheckpointError):
        new_store(path)
    assert contents(path) == before and own.read_text() == "years of work"
    assert (path / name).is_symlink() == kind.startswith("link") and not (tmp_path / "nothing").exists()


def test_files_beside_a_checkpoint_stay(filled):
    """Names that only look like ours: ``*.tmp`` and ``draws-*.ckpt`` were removed."""
    for name in ("notes.tmp", "draws-best.ckpt", "report.html"):
        (filled / name).write_text("mine")
    store = new_store(filled)
    store.save({"done": 20}, pack(state(2.0)), 20, 20, {})
    store.close()
    assert_holds(filled, 20, 2.0)
    assert {(filled / name).read_text() for name in ("notes.tmp", "draws-best.ckpt", "report.html")} == {"mine"}


def test_a_head_elsewhere_that_cannot_be_reached_is_no_fresh_start(filled):
    """A link into a disk that is not there: draws were removed as nobody's."""
    head = filled / "head.ckpt"
    head.unlink()
    head.symlink_to(filled / "gone" / "head.ckpt")
    before = contents(filled)
    with raises("checkpoint.missing", "head.ckpt"):
        new_store(filled)
    assert contents(filled) == before


def test_a_state_of_other_arrays_is_refused(filled):
    saved = read_saved(filled)
    other = state()._replace(empty=(jnp.zeros(3),))
    with raises("checkpoint.other_state", "[0]", "(3,)"):
        unpack(other, saved.state, filled)


@pytest.mark.skipif(checkpoint.fcntl is None, reason="no locks on this system")
def test_two_runs_do_not_write_to_one_directory(filled):
    first = new_store(filled)
    with raises("checkpoint.locked"):
        new_store(filled)
    assert_holds(filled, 20, 2.0)  # reading needs no lock
    first.close()
    new_store(filled).close()


# --- a disk that is full


@pytest.mark.parametrize("which", ["draws", "head"])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_full_disk_is_told_and_the_last_state_stays(filled, monkeypatch, which, after):
    written, write = [], checkpoint._Hashed.write

    def full(self, data):
        if which in self.file.name:
            written.append(len(data))
            if len(written) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    store = new_store(filled)
    monkeypatch.setattr(checkpoint._Hashed, "write", full)
    arrays = draws(20, 30) | {f"values/{k}": np.zeros((2, 10)) for k in range(5)}
    with raises("checkpoint.unwritable", which, "(No space left on device)"):
        store.save({"done": 30}, pack(state(3.0)), 20, 30, arrays)
    assert_holds(filled, 20, 2.0)
    assert not list(filled.glob("*.tmp"))
    monkeypatch.undo()
    store.save({"done": 30}, pack(state(3.0)), 20, 30, draws(20, 30))  # room was made
    store.close()
    assert_holds(filled, 30, 3.0)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_late_is_told_too(filled, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store = new_store(filled)
    monkeypatch.setattr(os, call, fail)
    with raises("checkpoint.unwritable"):
        store.save({"done": 20}, pack(state(3.0)), 20, 20, {})
    monkeypatch.undo()
    store.close()
    assert_holds(filled, 20, 2.0)
    assert not list(filled.glob("*.tmp"))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_limit_of_the_system_is_told_like_a_full_disk(filled, run_python):
    program = f"""
import resource, numpy as np
from phi4ppl.errors import CheckpointError
from phi4ppl.sampling.checkpoint import Store
store = Store({str(filled)!r}, {IDENTITY!r}, ({{}}, {{}}))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save({{"done": 30}}, {{}}, 20, 30, {{"phi": np.zeros(100_000)}})
except CheckpointError as error:
    print(error)
"""
    assert "could not be written (File too large)" in run_python(["-c", program], cwd=filled.parent).stdout
    assert_holds(filled, 20, 2.0)
    assert not list(filled.glob("*.tmp"))


# --- a writer that is killed


KILLING = f"""
import os, signal, time, numpy as np
from phi4ppl.sampling.checkpoint import Store, read_saved
def write_for_ever():
    store = Store("run", {IDENTITY!r}, ({{}}, {{}}))
    if store.saved is None:  # as a run does: a head before the first draws, which would be foreign files without it
        store.save({{"done": 0}}, {{"x": np.zeros(20_000)}}, 0, 0, {{}})
    done = store.saved.progress["done"] if store.saved else 0
    while True:
        new = done + 1
        store.save({{"done": new}}, {{"x": np.full(20_000, new)}}, done, new, {{"y": np.full((1, 20_000), done)}})
        done = new
last = unfinished = killed = 0
random = np.random.default_rng(1)
os.makedirs("run", exist_ok=True)
while killed < 20 or (killed < 400 and (last <= 10 or not unfinished)):  # a busy machine needs more tries
    child = os.fork()
    if not child:
        write_for_ever()
    time.sleep(random.uniform(0.005, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    killed += 1
    unfinished += any(name.endswith(".tmp") for name in os.listdir("run"))
    if last or os.path.exists("run/head.ckpt"):
        saved = read_saved("run")
        done = saved.progress["done"]
        assert done >= last and (saved.state["x"] == done).all()
        assert [arrays["y"][0, 0] for _, _, arrays in saved.draws()] == list(range(done))
        last = done
print(last, unfinished)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_writer_killed_at_any_moment_leaves_a_whole_state(tmp_path, run_python):
    """A process that does nothing but write is killed twenty times and more, so mostly in the middle of writing."""
    states, unfinished = map(int, run_python(["-c", KILLING], cwd=tmp_path).stdout.split())
    assert states > 10 and unfinished > 0, (states, unfinished)  # it did write, and was killed in the middle of it


def test_reading_while_the_writer_goes_on_sees_whole_states(filled):
    """Every state that a reader can see between two system calls of the writer is one of those that were saved."""
    seen, replace = [], os.replace

    def watched(source, target):
        seen.append(read_saved(filled).progress["done"])
        replace(source, target)
        seen.append(read_saved(filled).progress["done"])

    store = new_store(filled)
    os.replace = watched
    try:
        store.save({"done": 30}, pack(state(3.0)), 20, 30, draws(20, 30))
    finally:
        os.replace = replace
        store.close()
    assert seen == [20, 20, 20, 30]


def test_file_digest_is_of_the_content(tmp_path):
    first = write_file(tmp_path / "a", {"x": 1}, {"v": np.arange(3)})
    assert first == write_file(tmp_path / "b", {"x": 1}, {"v": np.arange(3)}) == read_file(tmp_path / "a")[2]
    assert first != write_file(tmp_path / "b", {"x": 2}, {"v": np.arange(3)})
