"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from t4sa_data.errors import DiskSpaceError, OutputError
from t4sa_data.files import TEMPORARY, atomic_file, sha256_file, sweep_temporary, write_bytes, write_json


def test_hash_size_and_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "file"
    data = [bytes([i]) * (1 << 12) for i in range(64)]
    with atomic_file(path) as sink:
        for part in data:
            assert sink.write(part) == len(part)
        assert sink.tell() == sink.num_bytes == 64 << 12
        assert not path.exists() and [p.name.endswith(TEMPORARY) for p in path.parent.iterdir()] == [True]
    assert path.read_bytes() == b"".join(data)
    assert sink.hexdigest() == sha256_file(path) == hashlib.sha256(b"".join(data)).hexdigest()
    assert list(path.parent.iterdir()) == [path]


def test_buffers_that_change_after_the_write(tmp_path: Path) -> None:
    """The hash is taken later, in a thread: of what was written, not of what the buffer became."""
    buffer = bytearray(b"a" * 100_000)
    with atomic_file(tmp_path / "x") as sink:
        for letter in b"bcdefgh":
            sink.write(memoryview(buffer))
            buffer[:] = bytes([letter]) * len(buffer)
    assert sink.hexdigest() == sha256_file(tmp_path / "x")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_file(tmp_path / "x") as sink:
        sink.write(b"half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    with pytest.raises(ValueError), atomic_file(tmp_path / "x") as sink:
        sink.write(b"new")
        raise ValueError
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x", b"old")]
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


_FILL = """
import resource, sys
from pathlib import Path
from t4sa_data.errors import DiskSpaceError
from t4sa_data.files import atomic_file
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with atomic_file(Path(sys.argv[1])) as sink:
        for _ in range(100):
            sink.write(bytes(int(sys.argv[2])))
except DiskSpaceError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
@pytest.mark.parametrize("size", [1000, 3 << 20])  # fails when flushed at the end, fails in the first write
def test_a_full_disk(tmp_path: Path, size: int) -> None:
    path = tmp_path / "shard.tar"
    done = subprocess.run([sys.executable, "-c", _FILL, path, str(size)], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"the disk is full [{path}]. Free some space and run the same command again: it goes on.\n"
    ), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "folder" / "x"):
        with pytest.raises(OutputError, match="cannot write") as caught:
            write_bytes(path, b"")
        assert not isinstance(caught.value, DiskSpaceError) and str(path) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write_bytes(tmp_path / "x", b"")
    finally:
        tmp_path.chmod(0o700)


_DIE = """
import os, sys
from pathlib import Path
from t4sa_data.files import atomic_file
with atomic_file(Path(sys.argv[1])) as sink:
    sink.write(bytes(3 << 20))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_writer_leaves_only_what_a_sweep_removes(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "whole", b"x")
    assert subprocess.run([sys.executable, "-c", _DIE, tmp_path / "a" / "shard.tar"], check=False).returncode == -9
    assert not (tmp_path / "a" / "shard.tar").exists()
    assert sweep_temporary(tmp_path) == 1 and sweep_temporary(tmp_path) == 0
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["whole"]


def test_json_is_stable_and_readable(tmp_path: Path) -> None:
    value = {"b": 1, "a": ["caf\u00e9", None, 0.1]}
    digest = write_json(tmp_path / "x.json", value)
    data = (tmp_path / "x.json").read_bytes()
    assert json.loads(data) == value and list(json.loads(data)) == ["b", "a"]
    assert data.endswith(b"}\n") and "caf\u00e9".encode() in data
    assert digest == hashlib.sha256(data).hexdigest() == write_json(tmp_path / "y.json", value)
