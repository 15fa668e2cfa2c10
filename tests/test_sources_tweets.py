"""Raw tweets come out of whatever they are kept in, and what is bad is counted where it stands."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("orjson")

from builders.sources import tweets as source
from builders.sources.tweets import Seen, expand, read_tweets
from t4sa_data.errors import BadOption, InputMissing, TooManyBadLines

from tests.tweet_helpers import FIRST_ID, TEXT, dump, tweet  # isort: skip

IDS = [FIRST_ID + 2 * n for n in range(12)]
LINES = dump(tweet(n) for n in IDS)
HALVES = [dump(tweet(n) for n in IDS[:6]), dump(tweet(n) for n in IDS[6:])]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return bytes(sink.getvalue())


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd,
}  # fmt: skip


def tar(members: dict[str, bytes], mode: str = "w", style: int = tarfile.GNU_FORMAT) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=mode, format=style) as archive:
        folder = tarfile.TarInfo("2016")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return whole.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("2016/", b"")
        for name, data in members.items():
            archive.writestr(name, data)
    return whole.getvalue()


def minutes(packed: str = ".bz2") -> dict[str, bytes]:
    """As archive.org has them, and what else lies about."""
    made = {f"2016/07/26/20/{i:02}.json{packed}": PACKED[packed](half) for i, half in enumerate(HALVES)}
    return {"2016/07/26/._00.json": b"\0\5", **made, "README.txt": b"words"}


def read(path: Path, seen: Seen | None = None) -> list[int]:
    return [number for number, _ in read_tweets([path], seen)]


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Containers.


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", ["tweets.jsonl", "a name that says nothing"])
def test_lines(tmp_path: Path, packed: str, name: str) -> None:
    assert read(put(tmp_path, name, PACKED[packed](LINES))) == IDS


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
def test_files_of_several_streams(tmp_path: Path, packed: str) -> None:
    assert read(put(tmp_path, f"tweets.jsonl{packed}", b"".join(map(PACKED[packed], HALVES)))) == IDS


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar(tmp_path: Path, packed: str, style: int) -> None:
    seen = Seen()
    assert read(put(tmp_path, "grab.tar", tar(minutes(packed), style=style)), seen) == IDS
    assert (seen.num_files, seen.num_skipped, seen.num_damaged) == (2, 2, 0)
    seen.require(0)


@pytest.mark.parametrize("packed", PACKED)
def test_zip(tmp_path: Path, packed: str) -> None:
    seen = Seen()
    assert read(put(tmp_path, "grab.zip", zipped(minutes(packed))), seen) == IDS
    assert (seen.num_files, seen.num_skipped, seen.num_damaged) == (2, 2, 0)


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(tar(minutes(), "w:gz"), id="tar.gz"),
        pytest.param(zstd(tar(minutes())), id="tar.zst"),
        pytest.param(zipped({"a/day.tar": tar(minutes())}), id="a tar in a zip"),
        pytest.param(tar({"a/day.zip": zipped(minutes())}), id="a zip in a tar"),
        pytest.param(tar({"day.tar.gz": tar(minutes(".gz"), "w:gz")}, "w:bz2"), id="a tar.gz in a tar.bz2"),
    ],
)
def test_containers_in_containers(tmp_path: Path, whole: bytes) -> None:
    seen = Seen()
    assert read(put(tmp_path, "grab", whole), seen) == IDS
    assert seen.num_damaged == 0


def test_containers_without_an_end(tmp_path: Path) -> None:
    data = LINES
    for _ in range(9):
        data = gzip.compress(data)
    seen = Seen()
    assert read(put(tmp_path, "deep", data), seen) == []
    assert seen.num_damaged == 1 and "containers in containers" in seen.first_damaged[0]


def test_folders_give_what_is_named_like_tweets_sorted_by_path(tmp_path: Path) -> None:
    for name, data in minutes().items():
        put(tmp_path / "grab", name, data)
    seen = Seen()
    found = expand([tmp_path / "grab", tmp_path / "grab/2016/07/26/20/01.json.bz2"], seen)
    assert [path.name for path in found] == ["00.json.bz2", "01.json.bz2"] and seen.num_skipped == 2
    assert read(tmp_path / "grab") == IDS
    assert read(tmp_path / "grab/README.txt") == []  # by itself it is read
    with pytest.raises(InputMissing):
        expand([tmp_path / "absent"])


# Lines.


def test_empty_files(tmp_path: Path) -> None:
    seen = Seen()
    for name, data in {
        "a": b"",
        "b.gz": gzip.compress(b""),
        "c.bz2": b"",
        "d.zip": zipped({}),
        "e": b"\r\n\n \n",
    }.items():
        assert read(put(tmp_path, name, data), seen) == []
    assert read(put(tmp_path, "f.tar", tar({"00.json.bz2": b""})), seen) == []
    assert (seen.num_lines, seen.num_damaged) == (0, 0)
    seen.require(0)


def test_ends_of_lines(tmp_path: Path) -> None:
    windows = b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n").rstrip()
    seen = Seen()
    assert read(put(tmp_path, "a", windows), seen) == IDS
    assert (seen.num_lines, seen.num_bad) == (12, 0)


BAD = {
    "cut": LINES.splitlines()[0][:90],
    "no JSON": b"<html>",
    "a list": b"[1]",
    "null": b"null",
    "a number": b"7",
    "NaN": b'{"id": 7, "text": NaN}',
    "Latin-1": '{"id": 7, "text": "é"}'.encode("latin-1"),
    "deep": b"[" * 100_000,
    "two on a line": b'{"id": 7, "text": "a"}{"id": 8, "text": "a"}',
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_counted_where_they_stand(tmp_path: Path, name: str) -> None:
    seen = Seen()
    path = put(tmp_path, "grab.tar", tar({"a/00.json": HALVES[0] + BAD[name] + b"\n" + HALVES[1]}))
    assert read(path, seen) == IDS
    assert (seen.num_bad, seen.num_lines, seen.num_tweets) == (1, 13, 12)
    assert seen.first_bad[0].endswith(f"[{path}!a/00.json, line 7]")
    seen.require(1 / 13 + 1e-9)
    with pytest.raises(TooManyBadLines):
        seen.require(1 / 13 - 1e-9)


def test_a_line_without_an_end_is_one_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 1000)
    seen = Seen()
    data = HALVES[0] + b" " * 2500 + b"\n" + HALVES[1] + b"x" * 1000
    assert read(put(tmp_path, "a", data), seen) == IDS
    assert (seen.num_bad, seen.num_lines) == (2, 14)


def test_half_a_surrogate_pair_is_json(tmp_path: Path) -> None:
    line = json.dumps(tweet(7, text=f"{TEXT} \ud83d"))
    assert "\\ud83d" in line
    seen = Seen()
    assert read(put(tmp_path, "a", line.encode()), seen) == [7] and seen.num_bad == 0


def test_what_is_no_tweet_is_counted_by_its_kind(tmp_path: Path) -> None:
    others = [
        {"delete": {"status": {"id": 7, "id_str": "7", "user_id": 3}}},
        {"delete": {"status": {"id_str": str(FIRST_ID)}}}, {"delete": None},
        {"scrub_geo": {}}, {"limit": {"track": 5}}, {"status_withheld": {"id": 7}}, {},
        {"id": 5, "name": "a user"}, {"text": "no id"}, {"id": "x", "text": "a"}, {"unknown": {}},
    ]  # fmt: skip
    seen = Seen()
    assert read(put(tmp_path, "a", dump([*others, tweet(7)])), seen) == [7]
    assert seen.notices == {"delete": 3, "scrub_geo": 1, "limit": 1, "status_withheld": 1, "other": 5}
    assert list(seen.deleted) == [7, FIRST_ID]


def test_repeated_tweets_come_again(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a", LINES + LINES)) == IDS + IDS


def test_a_share_that_is_none() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(BadOption):
            Seen().require(share)


# Damage.

BIG = dump(tweet(n, text=os.urandom(300).hex()) for n in range(1, 400))


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
def test_a_cut_file_is_read_as_far_as_it_goes(tmp_path: Path, packed: str) -> None:
    whole = bz2.compress(BIG, 1) if packed == ".bz2" else PACKED[packed](BIG)
    seen = Seen()
    found = read(put(tmp_path, f"a{packed}", whole[: len(whole) * 9 // 10]), seen)
    assert found == list(range(1, len(found) + 1)) and len(found) > 100
    assert (seen.num_damaged, seen.num_files) == (1, 1)
    assert f"a{packed}, after line {len(found)}]" in seen.first_damaged[0]
    with pytest.raises(TooManyBadLines, match="cut or damaged"):
        seen.require()
    seen.require(1)


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_cut_minute_does_not_stop_the_others(tmp_path: Path, packed: str, pack: Callable[..., bytes]) -> None:
    cut = PACKED[packed](BIG)[:-40]
    members = {f"{i:03}.json{packed}": PACKED[packed](dump([tweet(IDS[i % 12])])) for i in range(120)}
    seen = Seen()
    found = read(put(tmp_path, "grab", pack({f"000.json{packed}": cut, **dict([*members.items()][1:])})), seen)
    assert found[-119:] == [IDS[i % 12] for i in range(1, 120)]
    assert (seen.num_damaged, seen.num_files) == (1, 120)
    seen.require(0.01)


@pytest.mark.parametrize("cut", [0.3, 0.8])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_cut_tar_is_never_a_shorter_one(tmp_path: Path, cut: float, packed: str) -> None:
    whole = PACKED[packed](tar({f"{i}.json": BIG for i in range(4)}))
    seen = Seen()
    found = read(put(tmp_path, f"grab.tar{packed}", whole[: int(len(whole) * cut)]), seen)
    assert 0 < len(found) < 4 * 399 and seen.num_damaged >= 1
    with pytest.raises(TooManyBadLines):
        seen.require()


def test_a_tar_without_its_end_mark(tmp_path: Path) -> None:
    whole = tar({"a.json": LINES}).rstrip(b"\0")
    seen = Seen()
    assert read(put(tmp_path, "grab.tar", whole + bytes(-len(whole) % 512)), seen) == IDS
    assert seen.num_damaged == 1


@pytest.mark.parametrize("data", [zipped(minutes())[:-30], b"PK\x03\x04 no zip", b"\x1f\x8b no gzip", b"BZh no bzip2"])
def test_no_archive_at_all(tmp_path: Path, data: bytes) -> None:
    seen = Seen()
    assert read(put(tmp_path, "grab", data), seen) == []
    assert (seen.num_damaged, seen.num_files) == (1, 1)


def test_a_member_with_a_password(tmp_path: Path) -> None:
    whole = bytearray(zipped({"a.json": LINES, "b.json": LINES}))
    local = whole.index(b"a.json")
    for mark, place, end in ((b"PK\x03\x04", 6, local), (b"PK\x01\x02", 8, whole.index(b"a.json", local + 1))):
        whole[whole.rindex(mark, 0, end) + place] |= 1
    seen = Seen()
    assert read(put(tmp_path, "grab.zip", bytes(whole)), seen) == IDS
    assert (seen.num_damaged, seen.num_files) == (1, 2)


def test_links_are_not_followed(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        link = tarfile.TarInfo("a.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    seen = Seen()
    assert read(put(tmp_path, "grab.tar", whole.getvalue()), seen) == []
    assert (seen.num_skipped, seen.num_files) == (1, 0)


MEMORY = """
import resource, sys
from builders.sources.tweets import Seen, read_tweets
seen = Seen()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
num = sum(1 for _ in read_tweets(sys.argv[1:], seen))
print(num, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_memory_is_flat(tmp_path: Path) -> None:
    minute = bz2.compress(dump(tweet(n, text="x" * 3000) for n in range(500)))
    path = put(tmp_path, "grab.tar.gz", gzip.compress(tar({f"{i}.json.bz2": minute for i in range(40)})))
    root = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    line = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=root, env=env, check=True)
    num, grown_kb = map(int, done.stdout.split())
    assert num == 20_000 and grown_kb < 24_000  # 64 MB of lines went by; bzip2 alone takes 4 MB


def test_what_the_system_does_not_let_us_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a", LINES)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(source, "tweet_id", broken)  # in the middle of a file
    with pytest.raises(InputMissing, match=r"cannot be read: got Input/output error \[.*/a\]"):
        read(path)
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(InputMissing, match=r"cannot be read: got Permission denied \[.*/a\]"):
        read(path)
