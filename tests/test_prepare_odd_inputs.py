"""What is odd in the input is built and counted; images that do not decode are set aside, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from t4sa_data.manifest import load_manifest
from t4sa_data.miniature import encode
from t4sa_data.shards import read_table
from t4sa_data.testing import OfficialArchive, check_release, make_official_archive
from t4sa_data.testing.archive import member_name

from tests.raw_faults import (  # isort: skip
    CSV,
    TAR,
    TEST,
    TRAIN,
    TSV,
    Built,
    Raw,
    build,
    encoded,
    files_of,
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
class Counted:
    """An input that is built all the same, and what is counted."""

    name: str
    damage: Callable[[Raw], Any]
    checks: Callable[[Raw], dict[str, Any]] = lambda _: {}
    """Entries of the report; (count, examples) where there are examples."""
    dropped: Callable[[Raw], dict[str, set[str]]] = lambda _: {}
    """Reason -> keys in the ledger."""
    released: int = NUM_IMAGES
    same_bytes: bool = False
    """The shards are those of the undamaged archive."""


ODD = "labels that are not the most probable class"
NOT_IN_TSV = "images whose tweet is not in the TSV"


def _unlist(r: Raw) -> None:
    key = r.key_of("test")
    r.replace(TEST, f"{member_name(key)} {r.archive.labels[key]}\n", "")


def _missing_images(r: Raw) -> None:
    r.rebuild(lambda members: [members.pop(member_name(key)) for key in r.keys[4:6]])


def _of_tweet(r: Raw, n: int) -> list[str]:
    return [key for key in r.keys if key.startswith(f"{r.tweet(n)}-")]


def _drop_row(r: Raw, n: int) -> None:
    r.edit(TSV, lambda data: b"".join(line for i, line in enumerate(data.splitlines(True)) if i != n + 1))


def _flip(r: Raw) -> None:
    """The probabilities of tweet 1 in another order, so that another class is the most probable."""
    lines = (r.folder / TSV).read_text().splitlines()
    tweet, *values = lines[2].split("\t")
    lines[2] = "\t".join([tweet, *values[1:], values[0]])
    r.edit(TSV, lambda _: "\n".join(lines).encode())


def _crlf(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")


COUNTED = [
    Counted(
        "unknown files in the tar",
        lambda r: [r.add("notes.txt"), r.add("b-t4sa/README")],
        lambda _: {"other files in the archives": 2},
        same_bytes=True,
    ),
    Counted("list with CRLF and BOM", lambda r: r.edit(TRAIN, _crlf), same_bytes=True),
    Counted("list without a last line break", lambda r: r.edit(TRAIN, bytes.rstrip), same_bytes=True),
    Counted(
        "blank lines in a list",
        lambda r: r.append(TRAIN, "\n  \n\n", ""),
        lambda _: {"blank lines in the lists": 3},
        same_bytes=True,
    ),
    Counted(
        "listed, not in the tar",
        _missing_images,
        dropped=lambda r: {"official/not-in-archive": set(r.keys[4:6])},
        released=38,
    ),
    Counted(
        "in the tar, not listed", _unlist, dropped=lambda r: {"official/not-listed": {r.key_of("test")}}, released=39
    ),
    Counted("TSV with BOM and CRLF", lambda r: r.edit(TSV, _crlf), same_bytes=True),
    Counted(
        "sum not 1",
        lambda r: r.field(3, 1, "0.5"),
        lambda _: {"rows of the TSV whose probabilities do not sum to 1": 1},
    ),
    Counted(
        "row twice",
        lambda r: r.edit(TSV, lambda data: data + data.splitlines(True)[5]),
        lambda _: {"repeated rows of the TSV": 1},
        same_bytes=True,
    ),
    Counted(
        "tweet not in the TSV",
        lambda r: _drop_row(r, 0),
        lambda r: {NOT_IN_TSV: (len(_of_tweet(r, 0)), _of_tweet(r, 0))},
    ),
    Counted("argmax disagrees", _flip, lambda r: {ODD: (len(_of_tweet(r, 1)), _of_tweet(r, 1))}),
    Counted("CSV with BOM and CRLF", lambda r: r.replace(CSV, "id,text\n", "\ufeffid,text\r\n"), same_bytes=True),
    Counted(
        "text twice",
        lambda r: r.edit(CSV, lambda data: data + data.splitlines(True)[1]),
        lambda _: {"repeated ids in the CSV": 1, "of these, with another text": 0},
        same_bytes=True,
    ),
    Counted(
        "another text of one tweet",
        lambda r: r.append(CSV, f"{r.tweet(0)},another\n"),
        lambda _: {"repeated ids in the CSV": 1, "of these, with another text": 1},
        same_bytes=True,
    ),
    Counted(
        "no CSV",
        lambda r: r.remove(CSV),
        lambda _: {"text": "none: without raw_tweets_text.csv (or with --text none) `text` is null"},
    ),
    Counted(
        "fewer texts",
        lambda r: r.edit(CSV, lambda _: b"id,text\n"),
        lambda r: {"tweets of the TSV without a text": len(r.archive.probabilities)},
    ),
]


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case.name)
def test_what_is_odd_is_counted_and_built(case: Counted, raw: Raw, undisturbed: Path, tmp_path: Path) -> None:
    case.damage(raw)
    built = Built(tmp_path / "out", build(raw.folder, tmp_path / "out"))
    built.assert_adds_up()
    assert built.table.num_rows == case.released
    assert built.dropped() == case.dropped(raw)
    for name, expected in case.checks(raw).items():
        found = built.report["checks"][name]
        assert ((found["count"], found["examples"]) if isinstance(found, dict) else found) == expected, name
    assert (shards(tmp_path / "out") == shards(undisturbed)) == case.same_bytes


def shards(out: Path) -> dict[str, bytes]:
    """Shards and sample tables; manifest and card name the inputs' sums and differ."""
    return {name: data for name, data in files_of(out / "t4sa-wds").items() if name.endswith((".tar", "index.parquet"))}


def test_a_tweet_outside_the_tsv_has_no_probabilities(raw: Raw, tmp_path: Path) -> None:
    _drop_row(raw, 0)
    built = Built(tmp_path / "out", build(raw.folder, tmp_path / "out"))
    for row in built.table.to_pylist():
        values = [row[name] for name in ("negative", "neutral", "positive", "confidence")]
        assert (values == [None] * 4) == (row["tweet_id"] == raw.tweet(0))
        assert row["label"] == raw.archive.labels[row["key"]]


def test_the_first_text_of_a_tweet_counts(raw: Raw, tmp_path: Path) -> None:
    raw.append(CSV, f"{raw.tweet(0)},another\n")
    built = Built(tmp_path / "out", build(raw.folder, tmp_path / "out"))
    assert {row["text"] for row in built.table.to_pylist() if row["tweet_id"] == raw.tweet(0)} == {
        raw.archive.texts[raw.tweet(0)]
    }


AWKWARD = (
    'she said "hello", twice',
    "one line\nand another\r\nand a third\n",
    "tab\there, comma, 'quote' \\n no escape",
    "  spaces kept  ",
    "&amp; kept, caf\u00e9 \U0001f600 \u2028 \x00 \x1c",
    "",
    '"',
    ",,,",
)


def test_texts_come_out_as_they_went_in(raw: Raw, tmp_path: Path) -> None:
    texts = {raw.tweet(n): text for n, text in enumerate(AWKWARD)}
    rows = [f'{tweet},"{text.replace(chr(34), chr(34) * 2)}"\n' for tweet, text in texts.items()]
    raw.edit(CSV, lambda _: ("id,text\n" + "".join(rows)).encode())
    options = {"configs": ("b-t4sa", "raw-text"), "formats": ("parquet", "wds")}
    built = Built(tmp_path / "out", build(raw.folder, tmp_path / "out", **options))
    stored = pq.read_table(tmp_path / "out/t4sa/raw-text/train-00000-of-00001.parquet").to_pylist()
    assert {row["tweet_id"]: row["text"] for row in stored} == texts
    for row in built.table.to_pylist():
        assert row["text"] == texts.get(row["tweet_id"])
    assert check_release(tmp_path / "out").faults == ()


# Images: what does not decode is set aside, what is only odd is kept.
def _picture() -> Image.Image:
    return Image.effect_noise((96, 80), 90).convert("RGB")


def _wreck(data: bytes, marker: bytes) -> bytes:
    """Garbage over a segment of a JPEG's header."""
    at = data.index(marker) + 4
    return data[:at] + b"\xff" * 12 + data[at + 12 :]


def _png(width: int, height: int) -> bytes:
    """A picture that claims to be larger than it is."""
    data = encoded(_picture())
    header = data[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


JPEG = encode(_picture(), "rgb")
SET_ASIDE = {
    "zero bytes": (b"", "empty"),
    "web page": (HTML, "not-an-image"),
    "text": (b"404 page not found\n", "not-an-image"),
    "a JPEG's first bytes only": (JPEG[:3], "not-an-image"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "truncated"),
    "truncated PNG": (encoded(_picture())[:4000], "truncated"),
    "40,000 x 40,000": (_png(40_000, 40_000), "too-many-pixels"),
    "wrecked header": (_wreck(JPEG, b"\xff\xc4"), "undecodable"),
    "wrecked PNG data": (encoded(_picture()).replace(b"IDAT", b"IDAT" + b"\xff" * 8, 1), "undecodable"),
    "zip": (b"PK\x03\x04" + bytes(60), "not-an-image"),
}
KEPT = {
    "GIF": (encode(_picture(), "animated-gif"), "GIF"),
    "WebP": (encode(_picture(), "webp"), "WEBP"),
    "PNG": (encode(_picture(), "palette-png"), "PNG"),
    "CMYK": (encode(_picture(), "cmyk"), "JPEG"),
    # Flipped bytes behind the header still decode, to a picture with a stripe: no decoder can tell.
    "JPEG with a damaged stripe": (JPEG[:2000] + bytes(40) + JPEG[2040:], "JPEG"),
}


@pytest.fixture(scope="module")
def with_bad_images(archive: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Built]:
    """A build in which some images are what `SET_ASIDE` and `KEPT` say: name -> key, and what came out."""
    folder = tmp_path_factory.mktemp("images")
    raw = Raw.copy(archive, folder / "raw")
    keys = dict(zip([*SET_ASIDE, *KEPT], raw.keys[1::2], strict=False))
    made = {member_name(keys[name]): data for name, (data, _) in (SET_ASIDE | KEPT).items()}
    raw.rebuild(lambda members: members.update(made))
    return keys, Built(folder / "out", build(raw.folder, folder / "out", formats=("parquet", "wds")))


@pytest.mark.parametrize("name", SET_ASIDE)
def test_what_does_not_decode_is_set_aside(name: str, with_bad_images: tuple[dict[str, str], Built]) -> None:
    keys, built = with_bad_images
    key, (data, reason) = keys[name], SET_ASIDE[name]
    folder = built.out / "quarantine"
    assert (folder / f"{key}.jpg").read_bytes() == data
    rows = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["key"] == key]
    assert (row["reason"], row["length"], row["sha256"]) == (reason, len(data), hashlib.sha256(data).hexdigest())
    assert row["detail"] and row["archive"] == TAR and row["split"] and row["label"] is not None
    assert key in built.dropped()[f"inspection/{reason}"]
    assert {"key": key, "reason": reason, "detail": row["detail"]} in built.report["quarantined"]
    for folder_name in ("t4sa", "t4sa-wds"):
        assert key not in read_table(built.out / folder_name / "b-t4sa/index.parquet")["key"].to_pylist()
        manifest = load_manifest(built.out / folder_name)
        assert key in manifest.layers["b-t4sa"].splits[row["split"]].quarantined
        for path, content in files_of(built.out / folder_name).items():
            assert key.encode() not in content or path in ("manifest.json", "README.md"), path
            assert len(data) < 32 or data not in content, path


@pytest.mark.parametrize("name", KEPT)
def test_what_is_odd_but_decodes_is_kept(name: str, with_bad_images: tuple[dict[str, str], Built]) -> None:
    keys, built = with_bad_images
    row, (data, _) = built.row(keys[name]), KEPT[name]
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    shard = (built.out / "t4sa-wds" / row["file"]).read_bytes()
    assert shard[row["offset"] : row["offset"] + row["length"]] == data
    assert not (built.out / "quarantine" / f"{keys[name]}.jpg").exists()


def test_counts_with_bad_images_add_up(with_bad_images: tuple[dict[str, str], Built]) -> None:
    _, built = with_bad_images
    built.assert_adds_up()
    assert built.table.num_rows == NUM_IMAGES - len(SET_ASIDE)
    assert sum(row["listed"] for row in built.report["counts"]) == NUM_IMAGES
    assert sum(row["quarantined"] for row in built.report["counts"]) == len(SET_ASIDE)
    assert len(files_of(built.out / "quarantine")) == len(SET_ASIDE) + 1
    formats = dict.fromkeys((image_format for _, image_format in KEPT.values()), 0)
    assert formats.keys() <= built.report["checks"]["formats"].keys()
    assert check_release(built.out, deep=True).faults == ()
