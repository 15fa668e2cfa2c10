"""Everything that can go wrong in a loader is a named error, soon, with shard, key and byte, and nothing stays behind.

What may stay is Python's own resource tracker, one process, which `multiprocessing` starts and keeps.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from t4sa_data import stream
from t4sa_data.errors import BadImage, ChecksumMismatch, LoaderStalled, ShardError, T4SAError, WorkerDied
from t4sa_data.reading import open_release
from t4sa_data.streaming import engine, options
from t4sa_data.testing import make_release
from tests.streaming_helpers import FailsAt, HangsUntil, children, halved, keys_of, nothing_left

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc: what is left cannot be seen")
pytestmark = needs_proc
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    make_release(folder, 60, shard_bytes=30_000)
    return folder


@pytest.fixture(autouse=True)
def log_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """import-linter, which another test calls, switches off every logger that it does not know."""
    monkeypatch.setattr(engine.log, "disabled", False)


@pytest.fixture(params=["t4sa", "t4sa-wds"])
def path(sound: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy to be damaged, in each format."""
    return Path(shutil.copytree(sound / request.param, tmp_path / request.param))


def loader_of(path: Path, **options: Any) -> Any:
    return stream(path, **{"batch_size": 6, "size": 16, "workers": 2, "shuffle": False, **options})


def assert_names(error: Exception, loader: Any, row: int) -> None:
    """One line, with the sample's key, shard and byte."""
    text, wanted = str(error), loader.selection.ranges([row])[0]
    assert len(text.splitlines()) == 1
    assert loader.selection.keys[row].as_py() in text
    assert wanted.file in text and f"byte {wanted.offset}" in text


def overwrite(path: Path, loader: Any, row: int, start: int, data: bytes) -> None:
    """Change bytes of a sample's image where it lies."""
    wanted = loader.selection.ranges([row])[0]
    with (path / wanted.file).open("r+b") as file:
        file.seek(wanted.offset + start)
        file.write(data)


def fails(loader: Any, kind: type[Exception], batches_before: int = 0) -> Exception:
    """The error of an epoch; the batches before the damaged one come, none after it, and nothing is left."""
    taken = []
    with nothing_left():
        with pytest.raises(kind) as caught:
            for batch in loader:
                taken.append(batch["key"])
        error = caught.value
        del caught
    assert len(taken) == batches_before == loader.state_dict()["batches"]
    return error


# Damaged releases.
@pytest.mark.parametrize("row", [0, 20])
def test_a_picture_that_does_not_decode(path: Path, row: int) -> None:
    loader = loader_of(path)
    overwrite(path, loader, row, 0, bytes(300))
    error = fails(loader, BadImage, row // 6)
    assert isinstance(error, BadImage) and error.reason == "not-an-image"
    assert_names(error, loader, row)
    without = loader_of(path, where={"removals": [loader.selection.keys[row].as_py()]})
    assert len(keys_of(without)) == len(loader.selection) - 1, "what the hint says"


def test_a_flipped_byte_is_found_where_it_is_asked_for(path: Path) -> None:
    loader = loader_of(path, verify=True, decode=None)
    whole = keys_of(loader_of(path, verify=True))
    assert len(whole) == len(loader.selection)
    wanted = loader.selection.ranges([14])[0]
    with (path / wanted.file).open("rb") as file:
        file.seek(wanted.offset + wanted.length // 2)
        byte = file.read(1)[0]
    overwrite(path, loader, 14, wanted.length // 2, bytes([byte ^ 1]))
    error = fails(loader, ChecksumMismatch, 2)
    assert_names(error, loader, 14)
    assert keys_of(loader_of(path, decode=None)) == whole, "local, so not checked unless asked for"


def test_a_shard_that_is_cut(path: Path) -> None:
    """webdataset #142: a cut tar gave fewer rows."""
    loader = loader_of(path)
    last = loader.selection.ranges([len(loader.selection) - 1])[0].file
    row = next(r for r in range(len(loader.selection)) if loader.selection.ranges([r])[0].file == last)
    os.truncate(path / last, (path / last).stat().st_size - 700)
    error = fails(loader, ShardError, row // 6)
    assert "size that the manifest says" in str(error)
    assert_names(error, loader, row)


def test_a_shard_that_is_cut_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "CHUNKS_AHEAD", 1)
    loader = loader_of(path, batch_size=1, workers=1, decode=None)
    with nothing_left():
        iterator = iter(loader)
        next(iterator)
        for file in loader.selection.files:
            os.truncate(path / file, 10)
        with pytest.raises(ShardError, match="past the end of its file") as caught:
            list(iterator)
        assert "sample " in str(caught.value) and "byte " in str(caught.value)
        del iterator, caught


def test_a_shard_that_is_missing(path: Path) -> None:
    loader = loader_of(path)
    file = loader.selection.ranges([30])[0].file
    row = next(r for r in range(31) if loader.selection.ranges([r])[0].file == file)
    (path / file).unlink()
    error = fails(loader, ShardError, row // 6)
    assert "cannot be opened" in str(error)
    assert_names(error, loader, row)


# Transforms.
def test_an_error_of_a_transform_tells_of_the_sample(sound: Path) -> None:
    loader = loader_of(sound, transform=FailsAt("value", 120), resize="none")
    width = loader_of(sound, columns=("width",), decode=None)
    row = next(i for i, w in enumerate(w for batch in width for w in batch["width"]) if w > 120)
    error = fails(loader, ValueError, row // 6)
    assert str(error) == "no way" and loader.selection.where(row) in "".join(error.__notes__)


def test_stop_iteration_in_a_transform_does_not_end_an_epoch(sound: Path) -> None:
    fails(loader_of(sound, transform=FailsAt("stop")), RuntimeError)


@pytest.mark.slow
def test_errors_of_processes(sound: Path) -> None:
    """One that pickle cannot read again is told all the same; one that decodes badly is the same as in a thread."""
    error = fails(loader_of(sound, transform=FailsAt("two words"), workers="processes:1"), RuntimeError)
    assert "TwoWords: no way" in str(error)
    notes = "".join(error.__notes__)
    assert "streaming_helpers" in notes and "sample 757" in notes


@pytest.mark.slow
def test_a_picture_that_does_not_decode_in_a_process(path: Path) -> None:
    loader = loader_of(path, workers="processes:2")
    overwrite(path, loader, 20, 0, bytes(300))
    assert_names(fails(loader, BadImage, 3), loader, 20)


# Deaths and stalls.
def test_a_worker_that_is_killed(sound: Path) -> None:
    with nothing_left():
        before = children()
        iterator = iter(loader_of(sound, transform=halved, workers="processes:1", batch_size=1))
        next(iterator)
        (worker,) = children() - before
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(WorkerDied, match="exit code -9") as caught:
            for _ in iterator:
                pass
        assert time.monotonic() - killed < 30, "seconds, on the busiest machine"
        del iterator, caught


@pytest.mark.slow
def test_a_worker_that_ends_by_itself(sound: Path) -> None:
    error = fails(loader_of(sound, transform=FailsAt("exit"), workers="processes:2"), WorkerDied)
    assert "exit code 3" in str(error)


def test_a_transform_that_hangs_in_a_thread(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """litData #398, streaming #417: it hung for ever. Every wait speaks, and ends."""
    monkeypatch.setattr(engine, "SPEAK_SECONDS", 0.1)
    monkeypatch.setattr(engine, "STALL_SECONDS", 0.5)
    loader = loader_of(sound, transform=HangsUntil(tmp_path / "go on", passes=1))
    with nothing_left(), caplog.at_level(logging.WARNING):
        with pytest.raises(LoaderStalled, match=r"within 0\.5 s") as caught:
            next(iter(loader))
        assert loader.selection.keys[0].as_py() in str(caught.value)
        del caught
        (tmp_path / "go on").touch()  # what was left behind ends too
    said = [record.getMessage() for record in caplog.records]
    assert any("waiting for a batch" in one and "sample 757" in one for one in said)
    assert any("2 thread(s) of the loader are stuck" in one for one in said)


def test_leaving_a_loop_does_not_wait_for_ever(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "LEAVE_SECONDS", 0.2)
    transform = HangsUntil(tmp_path / "go on", passes=2)  # one of them tries whether it draws random numbers
    with nothing_left(), caplog.at_level(logging.WARNING):
        iterator = iter(loader_of(sound, transform=transform, workers=1, batch_size=1))
        next(iterator)
        assert transform.is_stuck.wait(30)
        iterator.close()
        transform.path.touch()
        del iterator
    assert any("1 thread(s) of the loader are stuck" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_a_transform_that_hangs_in_a_process(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STALL_SECONDS", 8.0)
    monkeypatch.setattr(engine, "SPEAK_SECONDS", 1.0)
    fails(loader_of(sound, transform=FailsAt("hang"), workers="processes:2"), T4SAError)


def run_script(tmp_path: Path, sound: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nPATH = {str(sound)!r}\n" + textwrap.dedent(text))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=90)


@pytest.mark.slow
def test_a_program_ends_though_a_transform_hangs(sound: Path, tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        sound,
        """
        import time
        from t4sa_data import stream
        from t4sa_data.streaming import engine
        engine.SPEAK_SECONDS, engine.STALL_SECONDS = 0.2, 0.4
        seen = []
        def hangs(image):
            seen.append(1)
            time.sleep(3600 if len(seen) > 1 else 0)
        next(iter(stream(PATH, batch_size=6, size=16, workers=2, transform=hangs)))
        """,
    )
    assert done.returncode == 1 and "LoaderStalled" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [3, "processes:1"])
def test_a_program_ends_in_the_middle_of_an_epoch(sound: Path, tmp_path: Path, workers: Any) -> None:
    done = run_script(
        tmp_path,
        sound,
        f"""
        from t4sa_data import stream
        if __name__ == "__main__":
            iterator = iter(stream(PATH, batch_size=1, size=16, workers={workers!r}))
            print(len(next(iterator)["key"]))
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.slow
def test_workers_end_with_a_program_that_is_killed(sound: Path, tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        sound,
        """
        import os, signal
        from t4sa_data import stream
        from tests.streaming_helpers import children
        if __name__ == "__main__":
            iterator = iter(stream(PATH, batch_size=1, size=16, workers="processes:2"))
            next(iterator)
            print(*children(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert done.returncode == -signal.SIGKILL
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) >= 2
    until = time.monotonic() + 30
    while any(_is_alive(pid) for pid in workers):
        assert time.monotonic() < until, "a worker outlived its program"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Leaving.
@pytest.mark.parametrize("workers", [3, pytest.param("processes:1", marks=pytest.mark.slow)])
def test_leaving_the_loop_leaves_nothing(sound: Path, workers: Any) -> None:
    """streaming #332, #767: named shared memory that stayed. There is no named object here at all."""
    options = {"workers": workers, "batch_size": 2, "transform": halved}
    shared = Path("/dev/shm")
    before = set(shared.iterdir()) if shared.is_dir() else set()

    def by_break() -> None:
        for _ in loader_of(sound, **options):
            break

    def by_an_error() -> None:
        with pytest.raises(KeyError):
            for _ in loader_of(sound, **options):
                raise KeyError

    def by_ctrl_c() -> None:
        """streaming #802, #884: what Ctrl-C left was in the way of the next run."""
        with pytest.raises(KeyboardInterrupt):
            for _ in loader_of(sound, **options):
                raise KeyboardInterrupt

    def by_close() -> None:
        iterator = iter(loader_of(sound, **options))
        next(iterator)
        iterator.close()

    def by_del() -> None:
        iterator = iter(loader_of(sound, **options))
        next(iterator)
        del iterator

    def at_the_end() -> None:
        list(loader_of(sound, **options))

    def never_begun() -> None:
        iter(loader_of(sound, **options))

    def of_two_at_once() -> None:
        loader = loader_of(sound, **options)
        for _ in zip(itertools.islice(loader, 2), loader, strict=False):
            pass

    leaves = [by_break, by_an_error, by_ctrl_c, by_close, by_del, at_the_end, never_begun, of_two_at_once]
    for leave in leaves if workers == 3 else leaves[:1]:
        with nothing_left():
            leave()
    assert not shared.is_dir() or not [one for one in set(shared.iterdir()) - before if "t4sa" in one.name]


def test_a_reader_that_was_closed_opens_nothing(sound: Path) -> None:
    """A thread that was left behind must not open files anew."""
    release = open_release(sound)
    source = release.source()
    wanted = loader_of(sound).selection.ranges([0])[0]
    assert len(source.read(wanted)) == wanted.length
    source.close()
    with nothing_left(), pytest.raises(ShardError, match="closed"):
        source.read(wanted)
