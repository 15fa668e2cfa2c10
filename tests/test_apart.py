"""An engine in a process of its own: the same batches, the same state, the same errors, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from t4sa_data import stream
from t4sa_data.errors import BadImage, WorkerDied
from t4sa_data.streaming.images import Augment
from t4sa_data.testing import make_release
from tests.streaming_helpers import children, frozen, nothing_left

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd (Linux)")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    make_release(folder, 120, formats=("wds",))
    return folder


def loader_of(path: Path, *, is_apart: bool = True, **options: Any) -> Any:
    made = stream(path, **{"batch_size": 8, "size": 32, "workers": 3, "seed": 5, **options})
    return made.to("cpu", apart=is_apart)


def test_batches_epochs_and_states_are_those_of_threads(path: Path) -> None:
    options = {"augment": Augment(crop=24, flip=True), "columns": ("confidence",), "tail": "wrap"}
    with nothing_left():
        loaders = [loader_of(path, is_apart=one, **options) for one in (True, False)]
        for _ in range(3):  # one process for all of them
            for ours, theirs in zip(*loaders, strict=True):
                assert frozen(ours) == frozen(theirs)
                assert loaders[0].state_dict() == loaders[1].state_dict()
        # Broken off in the middle, and gone on with from a state, in the same process.
        batches = iter(loaders[0])
        first = [frozen(next(batches)) for _ in range(3)]
        state = loaders[0].state_dict()
        second = frozen(next(batches))
        batches.close()
        process = loaders[0]._apart._child._process.pid
        loaders[0].load_state_dict(state)
        assert frozen(next(iter(loaders[0]))) == second and second not in first
        assert loaders[0]._apart._child._process.pid == process
        loaders[0].close()


def test_pictures_that_were_taken_stay_as_they_are(path: Path) -> None:
    """A slot is used again for other batches; what was given out is a copy."""
    loader = loader_of(path)
    kept = [*loader, *loader]
    assert len(kept) > loader._apart._slots.shape[0]
    other = loader_of(path, is_apart=False)
    assert [frozen(one) for one in kept] == [frozen(one) for one in (*other, *other)]
    loader.close()


def test_an_error_is_that_of_threads_and_the_process_goes_on(path: Path, tmp_path: Path) -> None:
    make_release(tmp_path, 60, formats=("wds",))
    loader = loader_of(tmp_path, shuffle=False)
    wanted = loader.selection.ranges([19])[0]
    file = tmp_path / "t4sa-wds" / wanted.file
    sound = file.read_bytes()
    with file.open("r+b") as out:
        out.seek(wanted.offset + 20)
        out.write(bytes(wanted.length - 20))
    taken = []
    with pytest.raises(BadImage) as caught:
        for batch in loader:
            taken.append(batch["key"])
    assert len(taken) == 2 and loader.selection.keys[19].as_py() in str(caught.value)
    file.write_bytes(sound)
    assert len([frozen(batch) for batch in loader]) == len(loader)
    loader.close()


def test_a_process_that_is_killed_is_named_and_the_next_epoch_starts_another(path: Path) -> None:
    with nothing_left():
        loader = loader_of(path)
        list(loader)
        process = loader._apart._child._process.pid
        os.kill(process, signal.SIGSTOP)  # else it might have sent the whole epoch before it is killed
        threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()
        with pytest.raises(WorkerDied, match="exit code -9"):
            next(iter(loader))
        loader.set_epoch(0)
        assert len(list(loader)) == len(loader)
        loader.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_job_does_not_end_the_process(path: Path, number: signal.Signals) -> None:
    """A scheduler's SIGTERM reaches all processes; the trainer goes on to the end of its step, and saves."""
    loader = loader_of(path)
    batches = iter(loader)
    next(batches)
    os.kill(loader._apart._child._process.pid, number)
    assert len(list(batches)) == len(loader) - 1
    assert len(list(loader)) == len(loader)
    loader.close()


def test_who_forgets_to_close_leaves_nothing(path: Path) -> None:
    with nothing_left():
        loader = loader_of(path)
        next(iter(loader))
        del loader


def test_the_process_ends_with_the_training(path: Path) -> None:
    """Killed for real: nobody says good-bye to the process."""
    code = (
        "import sys, t4sa_data, time\n"
        f"loader = t4sa_data.stream({str(path)!r}, batch_size=8, size=32, workers=3).to('cpu', apart=True)\n"
        "batches = iter(loader)\nnext(batches)\nprint(loader._apart._child._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)  # it is there
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # ended; whoever inherited it has not looked yet
        time.sleep(0.05)
    pytest.fail("the process is still there")


def test_where_it_cannot_be_threads_do_it(path: Path) -> None:
    before = children()
    for options in ({"workers": 2}, {"decode": None}, {"transform": lambda x: x}, {"resize": "none"}):
        loader = loader_of(path, **options)
        assert not loader._is_apart
    next(iter(loader_of(path, workers=2)))
    assert children() == before
