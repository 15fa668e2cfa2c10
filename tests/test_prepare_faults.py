"""Every malformed input has its named error, with file and place; nothing is half-written; a mended one is built."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from t4sa_data import errors
from t4sa_data.manifest import load_manifest
from t4sa_data.testing import OfficialArchive, make_official_archive
from t4sa_data.testing.archive import member_name

from tests.raw_faults import (  # isort: skip
    CSV,
    TAR,
    TEST,
    TRAIN,
    TSV,
    VALIDATION,
    Raw,
    assert_nothing_written,
    build,
)

NUM_IMAGES = 40
HTML = b"<!DOCTYPE html><html><head><title>Please log in</title></head><body>members only</body></html>\n" * 20


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> OfficialArchive:
    return make_official_archive(tmp_path_factory.mktemp("archive"), NUM_IMAGES, num_broken=0)


@pytest.fixture(scope="module")
def undisturbed(archive: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build of the undamaged archive gives."""
    out = tmp_path_factory.mktemp("undisturbed")
    build(archive.folder, out)
    return out


@pytest.fixture
def raw(archive: OfficialArchive, tmp_path: Path) -> Raw:
    return Raw.copy(archive, tmp_path / "raw")


@dataclass(frozen=True)
class Refused:
    """An input that stops the build."""

    name: str
    file: str
    """Named in the message."""
    damage: Callable[[Raw], Any]
    """Returns more that the message must hold."""
    error: type[errors.T4SAError]
    says: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()


FIRST = "757000849735321549-1"  # a key of the miniature
UNSAFE = f"data/75700/{FIRST}.jpg"


def _cut_in_data(r: Raw) -> tuple[str, ...]:
    member = r.member(9)
    return *r.cut(member.offset + 50, 8), f"byte {member.offset + 50}", f"{member.name}: 50 of {member.length} bytes"


def _flip_checksum(r: Raw) -> tuple[str, ...]:
    at, last = r.member(5).header_offset, r.member(4).name
    flipped = r.edit(TAR, lambda data: data[: at + 3] + bytes([data[at + 3] ^ 1]) + data[at + 4 :])
    return *flipped, f"byte {at}", f"last good: {last}"


def _duplicate_member(r: Raw) -> tuple[str, ...]:
    before, at = r.member(1).offset, (r.folder / TAR).stat().st_size - 1024 + 512
    r.add(member_name(r.keys[0]))
    return f"bytes {before} and {at}", r.keys[0]


def _add_image(r: Raw, stem: str) -> tuple[str, ...]:
    return r.add(f"data/75700/{stem}.jpg")[1:]


def _list_in_tar_twice(r: Raw) -> tuple[str, ...]:
    (r.folder / TRAIN).rename(r.folder / "aside.txt")
    lines = (r.folder / "aside.txt").read_bytes()
    r.add(TRAIN, lines)
    return r.add(f"again/{TRAIN}", lines)


def _same_list_twice(r: Raw) -> tuple[str, ...]:
    num_lines = (r.folder / TRAIN).read_bytes().count(b"\n")
    r.append(TRAIN, r.line(3) + "\n")
    return f"lines 3 and {num_lines + 1}", Path(r.line(3).split()[0]).stem


def _two_lists(r: Raw) -> tuple[str, ...]:
    r.append(TEST, r.line(3) + "\n")
    return TEST, Path(r.line(3).split()[0]).stem


def _two_rows(r: Raw) -> tuple[str, ...]:
    r.append(TSV, f"{r.tweet(4)}\t0.2\t0.3\t0.5\n")
    return f"tweet {r.tweet(4)}", f"data rows 5 and {len(r.archive.probabilities) + 1}"


def _unbalanced_quote(r: Raw) -> tuple[str, ...]:
    said = r.append(CSV, '799999999999999999,"never closed\n')
    r.append(CSV, "799999999999999998,on and on\n" * 3)
    return said


def _nothing_listed(r: Raw) -> None:
    r.rebuild(lambda members: members.clear())


REMOVALS = (("removals", Path("raw", "removals.txt")),)
REFUSED = [
    # The archive.
    Refused(
        "cut in a header",
        TAR,
        lambda r: (*r.cut(r.member(9).header_offset + 99, 8), "99 bytes of a header"),
        errors.TruncatedArchive,
    ),
    Refused("cut in data", TAR, _cut_in_data, errors.TruncatedArchive),
    Refused(
        "cut at a block boundary",
        TAR,
        lambda r: (*r.cut(r.member(9).header_offset, 8), f"byte {r.size(TAR)}"),
        errors.TruncatedArchive,
    ),
    Refused(
        "cut in the end mark",
        TAR,
        lambda r: r.cut(r.size(TAR) - 512, NUM_IMAGES),
        errors.TruncatedArchive,
        ("half an end mark",),
    ),
    Refused("without an end mark", TAR, lambda r: r.cut(r.size(TAR) - 1024, NUM_IMAGES), errors.TruncatedArchive),
    Refused("compressed", TAR, lambda r: r.edit(TAR, gzip.compress, "byte 0"), errors.BadHeader, ("compressed",)),
    Refused("web page", TAR, lambda r: r.edit(TAR, lambda _: HTML, "byte 0"), errors.BadHeader, ("web page",)),
    Refused("empty file", TAR, lambda r: r.edit(TAR, lambda _: b"", "byte 0"), errors.TruncatedArchive),
    Refused("no members", TAR, _nothing_listed, errors.InputMissing, ("none of the listed",)),
    Refused("flipped header", TAR, _flip_checksum, errors.BadHeader),
    Refused("dotted key", TAR, lambda r: _add_image(r, "7570008.49735-1"), errors.BadKey),
    Refused("image index 5", TAR, lambda r: _add_image(r, "757000849735321549-5"), errors.BadKey),
    Refused("image index 0", TAR, lambda r: _add_image(r, "757000849735321549-0"), errors.BadKey),
    Refused("id of 63 bits", TAR, lambda r: _add_image(r, f"{2**62}-1"), errors.BadKey),
    Refused("png suffix", TAR, lambda r: r.add(f"data/75700/{FIRST}.png"), errors.BadKey),
    Refused("duplicate member", TAR, _duplicate_member, errors.DuplicateMember),
    Refused("list twice inside", TAR, _list_in_tar_twice, errors.DuplicateMember),
    Refused("absolute path", TAR, lambda r: r.add(f"/{UNSAFE}"), errors.UnsafeMember, ("absolute",)),
    Refused("drive letter", TAR, lambda r: r.add(f"C:/{UNSAFE}"), errors.UnsafeMember, ("absolute",)),
    Refused("climbing path", TAR, lambda r: r.add(f"data/../../{UNSAFE}"), errors.UnsafeMember, ("climbs",)),
    Refused("symlink", TAR, lambda r: r.add(UNSAFE, kind=tarfile.SYMTYPE, link="/etc/passwd"), errors.UnsafeMember),
    Refused("hard link", TAR, lambda r: r.add(UNSAFE, kind=tarfile.LNKTYPE, link=UNSAFE), errors.UnsafeMember),
    Refused("device", TAR, lambda r: r.add(UNSAFE, kind=tarfile.CHRTYPE), errors.UnsafeMember, ("device",)),
    Refused("pipe", TAR, lambda r: r.add("data/pipe", kind=tarfile.FIFOTYPE), errors.UnsafeMember, ("fifo",)),
    # The split lists.
    Refused("missing", VALIDATION, lambda r: (r.folder / VALIDATION).unlink(), errors.InputMissing, (TAR,)),
    Refused("unknown label", TEST, lambda r: r.append(TEST, f"{UNSAFE} 3\n"), errors.UnknownLabel, ("'3'",)),
    Refused("label as a float", TEST, lambda r: r.append(TEST, f"{UNSAFE} 2.0\n"), errors.UnknownLabel, ("'2.0'",)),
    Refused("three fields", TEST, lambda r: r.append(TEST, f"{UNSAFE} 1 0.9\n"), errors.MalformedRow),
    Refused("no label", TEST, lambda r: r.append(TEST, f"{UNSAFE}\n"), errors.MalformedRow),
    Refused("no key", TEST, lambda r: r.append(TEST, "data/75700/cat.jpg 1\n"), errors.BadKey, ("cat",)),
    Refused("id of 63 bits", TEST, lambda r: r.append(TEST, f"data/1/{2**62}-1.jpg 1\n"), errors.BadKey),
    Refused("listed twice", TRAIN, _same_list_twice, errors.ConflictingRows),
    Refused("in two lists", TRAIN, _two_lists, errors.ConflictingRows),
    Refused("no UTF-8", TEST, lambda r: r.append(TEST, "\udcff\udcfe 1\n", "position"), errors.MalformedRow),
    # The TSV.
    Refused("float id", TSV, lambda r: r.field(3, 0, "7.68e+17"), errors.MalformedRow, ("float",)),
    Refused("decimal id", TSV, lambda r: r.field(3, 0, "767724493873516544.0"), errors.MalformedRow, ("float",)),
    Refused("id of 63 bits", TSV, lambda r: r.field(3, 0, str(2**62)), errors.MalformedRow),
    Refused("endless id", TSV, lambda r: r.field(3, 0, "9" * 5000)[:1], errors.MalformedRow),
    Refused("text probability", TSV, lambda r: r.field(3, 2, "high"), errors.MalformedRow, ("0 to 1",)),
    Refused("nan", TSV, lambda r: r.field(3, 2, "nan"), errors.MalformedRow, ("0 to 1",)),
    Refused("negative probability", TSV, lambda r: r.field(3, 1, "-0.1"), errors.MalformedRow, ("0 to 1",)),
    Refused("probability above 1", TSV, lambda r: r.field(3, 3, "1.5"), errors.MalformedRow, ("0 to 1",)),
    Refused("four probabilities", TSV, lambda r: r.append(TSV, "7\t.1\t.2\t.3\t.4\n"), errors.MalformedRow, ("got 5",)),
    Refused("two probabilities", TSV, lambda r: r.append(TSV, "7\t0.5\t0.5\n"), errors.MalformedRow, ("got 3",)),
    Refused("missing column", TSV, lambda r: r.replace(TSV, "TWID\tNEG", "TWID", "line 1"), errors.MissingColumn),
    Refused("renamed header", TSV, lambda r: r.replace(TSV, "NEU", "MID", "line 1", "MID"), errors.MissingColumn),
    Refused("rows that conflict", TSV, _two_rows, errors.ConflictingRows),
    Refused("empty file", TSV, lambda r: r.edit(TSV, lambda _: b""), errors.MissingColumn),
    Refused("web page", TSV, lambda r: r.edit(TSV, lambda _: HTML, "line 1"), errors.MissingColumn),
    Refused("no UTF-8", TSV, lambda r: r.append(TSV, "7\t0.1\t0.2\t0.7\udcff\n"), errors.MalformedRow, ("UTF-8",)),
    # The CSV.
    Refused("unbalanced quote", CSV, _unbalanced_quote, errors.MalformedRow),
    Refused("extra field", CSV, lambda r: r.append(CSV, "7,hello, world\n"), errors.MalformedRow, ("got 3",)),
    Refused("quote inside", CSV, lambda r: r.append(CSV, '7,"a" b\n'), errors.MalformedRow),
    Refused("float id", CSV, lambda r: r.append(CSV, "7.68E+17,hello\n"), errors.MalformedRow, ("float",)),
    Refused("renamed header", CSV, lambda r: r.replace(CSV, "id,text", "id,tweet", "line 1"), errors.MissingColumn),
    Refused("no UTF-8", CSV, lambda r: r.append(CSV, "7,caf\udce9\n"), errors.MalformedRow, ("UTF-8",)),
    # The folder, and what was asked for.
    Refused("no folder", "raw", lambda r: shutil.rmtree(r.folder), errors.InputMissing),
    Refused("empty folder", "raw", lambda r: r.remove(*r.names), errors.InputMissing, (TAR, TSV)),
    Refused("images only", "raw", lambda r: r.remove(TSV, CSV), errors.InputMissing, (TAR, TSV), (("configs", ()),)),
    Refused("no TSV", "raw", lambda r: r.remove(TSV), errors.ConfigUnavailable, (TSV,)),
    Refused("unknown config", "b-t4sa2", lambda _: None, errors.UnknownConfig, (), (("configs", ("b-t4sa2",)),)),
    Refused(
        "needs --images",
        "t4sa-unique",
        lambda _: None,
        errors.ConfigUnavailable,
        ("--images",),
        (("configs", ("t4sa-unique",)),),
    ),
    Refused(
        "neither id nor key",
        "removals.txt",
        lambda r: r.make("removals.txt", b"# gone\n\n7.57e17\n", "line 3"),
        errors.BadKey,
        options=REMOVALS,
    ),
    Refused(
        "id of 63 bits",
        "removals.txt",
        lambda r: r.make("removals.txt", b"%d\n" % 2**62, "line 1"),
        errors.MalformedRow,
        options=REMOVALS,
    ),
    Refused(
        "key of 63 bits",
        "removals.txt",
        lambda r: r.make("removals.txt", b"%d-1\n" % 2**62, "line 1"),
        errors.BadKey,
        options=REMOVALS,
    ),
    Refused(
        "no UTF-8",
        "removals.txt",
        lambda r: r.make("removals.txt", b"\xff\xfe7\n"),
        errors.MalformedRow,
        options=REMOVALS,
    ),
    Refused("missing", "removals.txt", lambda _: None, errors.InputMissing, options=REMOVALS),
    Refused(
        "two archives of one name",
        TAR,
        lambda _: None,
        errors.ConflictingRows,
        options=(("images", (Path("raw", TAR),)), ("configs", ())),
    ),
    Refused("folder as archive", "raw", lambda _: None, errors.InputMissing, (), (("images", (Path("..", "raw"),)),)),
]


NOT_MENDED, MENDED = False, True
MENDED_FAST = 9
"""Of the rows, every so many-th is mended and built in the fast suite too."""


def rows() -> Iterator[Any]:
    for number, case in enumerate(REFUSED):
        name = f"{case.file.removesuffix('.txt')}: {case.name}"
        yield pytest.param(case, NOT_MENDED, id=name)
        slow = () if number % MENDED_FAST == 0 else (pytest.mark.slow,)
        yield pytest.param(case, MENDED, id=f"{name}, mended", marks=slow)


@pytest.mark.parametrize(("case", "mended"), list(rows()))
def test_what_cannot_be_built_is_refused_by_name(
    case: Refused,
    mended: bool,
    raw: Raw,
    archive: OfficialArchive,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = case.damage(raw) or ()
    with pytest.raises(errors.T4SAError) as caught:
        build(raw.folder, tmp_path / "out", **dict(case.options))
    assert type(caught.value) is case.error, caught.value
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900
    for words in (case.file, *case.says, *said):
        assert words in message
    assert_nothing_written(tmp_path / "out")
    if not mended:
        return
    Raw.copy(archive, tmp_path / "raw")
    build(tmp_path / "raw", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(undisturbed)


def digests(out: Path) -> tuple[str, int]:
    """Content and number of files of the tar release."""
    manifest = load_manifest(out / "t4sa-wds")
    return manifest.content_digest, len(manifest.files)
