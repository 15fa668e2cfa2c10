"""What the output folder, the disk, other processes and a changing input can do to a build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builders.cli import app
from t4sa_data import errors
from t4sa_data.files import TEMPORARY
from t4sa_data.shards import walk
from t4sa_data.testing import OfficialArchive, check_release, make_official_archive

from tests.raw_faults import SHARD_BYTES, TAR, TRAIN, Raw, assert_nothing_written, build, files_of  # isort: skip

resource = pytest.importorskip("resource", reason="limits and users are POSIX's")
FORMATS = ("parquet", "wds")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> OfficialArchive:
    return make_official_archive(tmp_path_factory.mktemp("archive"), 40)


@pytest.fixture(scope="module")
def undisturbed(archive: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build of the archive gives where nothing happens."""
    out = tmp_path_factory.mktemp("undisturbed")
    build(archive.folder, out, formats=FORMATS)
    return out


@pytest.fixture
def raw(archive: OfficialArchive, tmp_path: Path) -> Raw:
    return Raw.copy(archive, tmp_path / "raw")


@pytest.fixture
def built(archive: OfficialArchive, undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed build."""
    shutil.copytree(undisturbed, tmp_path / "out")
    return tmp_path / "out"


def release_files(out: Path) -> dict[str, bytes]:
    """Files of both release folders and of the quarantine."""
    return {name: data for name, data in files_of(out).items() if not name.startswith("build/")}


# Foreign files.
FOREIGN = ("t4sa/notes.txt", "t4sa/b-t4sa/train-00000-of-00001.parquet", "t4sa-wds/.hidden", "quarantine/mine.jpg")
FOREIGN_ROWS = ("quarantine/quarantine.jsonl",)


@pytest.mark.parametrize("name", [*FOREIGN, *FOREIGN_ROWS])
def test_a_folder_with_files_of_others_is_refused(name: str, raw: Raw, undisturbed: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "out" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"not yours")
    with pytest.raises(errors.ForeignFiles) as caught:
        build(raw.folder, tmp_path / "out", formats=FORMATS)
    assert foreign.name in str(caught.value) and str(tmp_path / "out" / name.split("/")[0]) in str(caught.value)
    assert release_files(tmp_path / "out") == {name: b"not yours"}
    foreign.unlink()
    build(raw.folder, tmp_path / "out", formats=FORMATS)
    assert release_files(tmp_path / "out") == release_files(undisturbed)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("options", [{}, {"shard_bytes": SHARD_BYTES // 2}], ids=["nothing to do", "to be rebuilt"])
def test_a_release_with_files_of_others_is_left_as_it_is(
    name: str, options: dict[str, Any], archive: OfficialArchive, built: Path
) -> None:
    (built / name).write_bytes(b"not yours")
    before = release_files(built)
    with pytest.raises(errors.ForeignFiles) as caught:
        build(archive.folder, built, formats=FORMATS, **options)
    assert Path(name).name in str(caught.value)
    assert release_files(built) == before


def test_leftovers_of_killed_writers_are_swept(archive: OfficialArchive, built: Path) -> None:
    before = release_files(built)
    places = [path for path in [built / "build", *built.rglob("*")] if path.is_dir()]
    for place in places:
        (place / f".shard.123-abc{TEMPORARY}").write_bytes(b"half")
    assert len(places) > 6
    assert build(archive.folder, built, formats=FORMATS).unchanged
    assert list(built.rglob(f"*{TEMPORARY}")) == []
    assert release_files(built) == before


# The folder itself.
def test_the_output_is_a_file(raw: Raw, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(errors.OutputError, match=r"out"):
        build(raw.folder, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"a file"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user reaches (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("there", ["out", "out/build/state", "out/t4sa-wds", "out/quarantine"])
def test_the_output_is_read_only(there: str, archive: OfficialArchive, open_folder: Path) -> None:
    raw, out = Raw.copy(archive, open_folder / "raw").folder, open_folder / "out"
    build(raw, open_folder / "first")  # loads every module
    (out / "build/state").mkdir(parents=True)
    (open_folder / there).mkdir(exist_ok=True)
    for folder in (path for path in open_folder.rglob("*") if path.is_dir()):
        folder.chmod(0o777)
    (open_folder / there).chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:  # permissions mean nothing to root
            os.seteuid(65534)
        with pytest.raises(errors.OutputError, match=rf"cannot write .*{there}"):
            build(raw, out)
    finally:
        if user == 0:
            os.seteuid(0)
    assert_nothing_written(out)
    (open_folder / there).chmod(0o777)
    build(raw, out)


def test_another_process_holds_the_folder(raw: Raw, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from builders.state import State\n"
        "with State(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out/build/state")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(errors.OutputLocked, match="another process") as caught:
            build(raw.folder, tmp_path / "out")
        assert str(tmp_path / "out") in str(caught.value)
        assert_nothing_written(tmp_path / "out")
        other.kill()  # a killed holder holds nothing
    build(raw.folder, tmp_path / "out")


# The disk.
def test_too_little_free_disk_is_said_before_a_byte(raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as short:
        short.setattr(shutil, "disk_usage", lambda _: real._replace(free=100_000))
        with pytest.raises(errors.DiskSpaceError) as caught:
            build(raw.folder, tmp_path / "out", formats=FORMATS)
        for way_out in ("--formats parquet", "--in-place", "--limit", "--out"):
            assert way_out in str(caught.value)
        assert_nothing_written(tmp_path / "out")
    build(raw.folder, tmp_path / "out", formats=FORMATS)


def run_cli(
    raw: Path, out: Path, workers: int, *, max_file_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    arguments = ["prepare", str(raw), "--out", str(out), "--workers", str(workers), "--configs", "b-t4sa"]
    return subprocess.run(
        [sys.executable, "-m", "t4sa_data.cli", *arguments, "--shard-size", str(SHARD_BYTES)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_the_disk_runs_full(archive: OfficialArchive, undisturbed: Path, tmp_path: Path) -> None:
    whole = release_files(undisturbed)
    largest = max(whole, key=lambda name: len(whole[name]))
    full = run_cli(archive.folder, tmp_path / "out", 2, max_file_bytes=len(whole[largest]) - 1)
    assert full.returncode == 2, full.stderr
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: the disk is full") and Path(largest).name in line and "goes on" in line
    assert "Traceback" not in full.stderr
    left = release_files(tmp_path / "out")
    assert left.items() <= whole.items()
    assert not any(name.endswith(("manifest.json", largest)) for name in left)
    assert list((tmp_path / "out").rglob(f"*{TEMPORARY}")) == []
    again = run_cli(archive.folder, tmp_path / "out", 1)
    assert again.returncode == 0, again.stderr
    assert release_files(tmp_path / "out") == whole


@pytest.mark.parametrize("num", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_the_disk_runs_full_at_every_stage(
    archive: OfficialArchive, undisturbed: Path, tmp_path: Path, num: int
) -> None:
    """Files may grow a little more each time, so that each kind of file is the one that does not fit."""
    whole, out = release_files(undisturbed), tmp_path / "out"
    sizes = sorted({len(data) for data in files_of(undisturbed).values()} - {0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    said = set()
    for size in sizes[::num]:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
            with pytest.raises(errors.DiskSpaceError) as caught:
                build(archive.folder, out, formats=FORMATS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        said.add(Path(str(caught.value.where)).name.split("-")[0])
        assert list(out.rglob(f"*{TEMPORARY}")) == []
        assert release_files(out).items() <= whole.items()
    assert len(said) > 3, said
    build(archive.folder, out, formats=FORMATS)
    assert release_files(out) == whole


# What was asked for.
@pytest.mark.parametrize("formats", ["zip", "parquet,zip", "wds;parquet", ""])
def test_an_unknown_format(formats: str, raw: Raw, tmp_path: Path) -> None:
    arguments = [str(raw.folder), "--out", str(tmp_path / "out"), "--formats", formats]
    error = CliRunner().invoke(app, arguments).exception
    assert type(error) is errors.UnknownConfig
    assert "parquet | wds" in str(error) and formats.split(",")[-1] in str(error)
    assert not (tmp_path / "out").exists()


def test_strict_says_why_it_refuses(raw: Raw, tmp_path: Path) -> None:
    raw.append(TRAIN, "data/79999/799999999999999999-1.jpg 1\n")
    with pytest.raises(errors.StrictFailure) as caught:
        build(raw.folder, tmp_path / "out", strict=True)
    message = str(caught.value)
    for split, num_listed, paper in (("train", 32, 368_586), ("validation", 6, 51_000), ("test", 3, 51_000)):
        assert f"b-t4sa/{split}: listed {num_listed}, paper {paper}" in message
    assert "4 images do not decode" in message and sorted(raw.archive.broken)[0] in message
    assert_nothing_written(tmp_path / "out")
    build(raw.folder, tmp_path / "out")
    assert check_release(tmp_path / "out").faults == ()


# An input that changes under the build.
def _overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes and leave size and time as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _forget_shards(out: Path) -> None:
    """As if killed after inspection."""
    for path in (out / "build/state").glob("done-*"):
        path.unlink()
    for path in (out / "build/state").glob("write-*"):
        shutil.rmtree(path)
    for name in ("t4sa", "t4sa-wds"):
        for path in (out / name / "b-t4sa").glob("*-of-*"):
            path.unlink()


@pytest.mark.parametrize("kind", ["good", "broken"])
def test_an_image_changes_between_two_passes(kind: str, raw: Raw, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(raw.folder, out, formats=FORMATS)
    key = next(k for k in raw.keys if (k in raw.archive.broken) == (kind == "broken") and raw.archive.images[k])
    member = next(member for member in walk(raw.folder / TAR) if key in member.name)
    _forget_shards(out)
    _overwrite(raw.folder / TAR, member.offset + 40, b"\0changed\0")
    with pytest.raises(errors.SourceChanged) as caught:
        build(raw.folder, out, formats=FORMATS)
    message = str(caught.value)
    assert key in message and TAR in message and f"byte {member.offset}" in message
    assert list(out.rglob(f"*{TEMPORARY}")) == []
    if kind == "good":  # the manifests that named the shards were taken back first
        assert release_files(out).items() < release_files(undisturbed).items()
        assert not list(out.glob("*/manifest.json"))
    _overwrite(raw.folder / TAR, member.offset + 40, raw.archive.images[key][40:49])
    build(raw.folder, out, formats=FORMATS)
    assert release_files(out) == release_files(undisturbed)
