"""What several tests of releases need: the truth of an archive, and readers of a release that share no code with ours.

Readers return rows as `schema.RECORD` names them, plus `image`, in the order of the files.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageOps

from builders.prepare import Outcome, prepare
from builders.run import PrepareConfig
from t4sa_data.manifest import load_manifest
from t4sa_data.testing import OfficialArchive, check_release
from t4sa_data.testing.archive import EXTRA_NAME

Rows = list[dict[str, Any]]
FOLDERS = {"parquet": "t4sa", "wds": "t4sa-wds"}
RELEASE_FOLDERS = ("t4sa", "t4sa-wds", "quarantine")
PROBABILITIES = ("negative", "neutral", "positive")
FLOATS = (*PROBABILITIES, "confidence")
TRUTH = ("image", "label", "split", "tweet_id", "image_index", *FLOATS, "text", "sha256")
"""Columns that follow from the archive alone."""
NUM_IMAGES, NUM_EXTRA = 66, 15
"""Of the archive that the fixture `archive` makes."""
IMAGE_LAYERS = ("b-t4sa", "unique", "duplicates")
CONFIGS = ("b-t4sa", "t4sa-unique", "t4sa", "raw-text", "t4sa-text")
SHARD = re.compile(r"(train|validation|test)-(\d{5})-of-(\d{5})\.(parquet|tar)")


def build(archive: OfficialArchive | Path, out: Path, **choices: Any) -> Outcome:
    """Run `prepare` here, in small shards; the further archive is taken where there is one, unless `images` is given.

    Args:
        archive: what `make_official_archive` made, or RAW.
        out: DIR.
        choices: of `PrepareConfig`.
    """
    raw = archive.folder if isinstance(archive, OfficialArchive) else archive
    further = (raw / EXTRA_NAME,) if (raw / EXTRA_NAME).exists() else ()
    return prepare(PrepareConfig(raw=raw, out=out, **{"images": further, "shard_bytes": 60_000, **choices}))


def assert_sound(path: Path, *, deep: bool = True) -> None:
    """`check_release` finds nothing."""
    report = check_release(path, deep=deep)
    assert report.ok, "\n".join(map(str, report.faults[:10]))


def float32(value: float) -> float:
    """The float32 nearest to a decimal, as a float; by `struct`, which is not what the builder rounds with."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def truth_of(archive: OfficialArchive) -> dict[str, dict[str, Any]]:
    """Key -> what a release must say of each image that is not broken, the further archive's included.

    `split` and `label` of a further image are train and the argmax.
    """
    made = {}
    for key, data in (dict(archive.images) | dict(archive.extra)).items():
        if key in archive.broken:
            continue
        tweet_id, image_index = map(int, key.split("-"))
        exact = archive.probabilities[tweet_id]
        rounded = [float32(float(f"{value:.12g}")) for value in exact]  # the TSV has twelve digits
        made[key] = {
            "image": data,
            "label": archive.labels.get(key, exact.index(max(exact))),
            "split": archive.splits.get(key, "train"),
            "tweet_id": tweet_id,
            "image_index": image_index,
            **dict(zip(PROBABILITIES, rounded, strict=True)),
            "confidence": max(rounded),
            "text": archive.texts.get(tweet_id),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    return made


def duplicates_of(archive: OfficialArchive) -> set[str]:
    """Keys of the further images that are near-duplicates of listed ones: every third, as the archive promises."""
    return set(list(archive.extra)[2::3])


def layer_truth(archive: OfficialArchive, layer: str) -> dict[str, dict[str, Any]]:
    truth, copies = truth_of(archive), duplicates_of(archive)
    wanted = {
        "b-t4sa": set(archive.images),
        "unique": set(archive.extra) - copies,
        "duplicates": copies,
    }[layer]
    return {key: row for key, row in truth.items() if key in wanted}


def layer_digest(out: Path, layer: str, folder: str = "t4sa") -> str:
    return load_manifest(out / folder).layers[layer].content_digest


def ledger_of(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "build" / "ledger.parquet").to_pylist()


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "build" / "report.json").read_bytes())


def shards(out: Path, fmt: str, layer: str) -> list[Path]:
    """A layer's shards in release order; fails where their numbers leave a gap."""
    found = {}
    for path in (out / FOLDERS[fmt] / layer).iterdir():
        match = SHARD.fullmatch(path.name)
        if match and match[4] == ("tar" if fmt == "wds" else fmt):
            found[("train", "validation", "test").index(match[1]), int(match[2])] = (int(match[3]), path)
    for split in {split for split, _ in found}:
        counts = {count for (s, _), (count, _) in found.items() if s == split}
        assert counts == {sum(s == split for s, _ in found)}, f"{fmt} {layer}: gaps or leftovers among the shards"
    return [path for _, (_, path) in sorted(found.items())]


def read_parquet(out: Path, layer: str) -> Rows:
    """The rows of a layer's Parquet shards, by pyarrow alone."""
    rows = [row for path in shards(out, "parquet", layer) for row in pq.ParquetFile(path).read().to_pylist()]
    for row in rows:
        if "image" in row:
            assert row["image"]["path"] == f"{row['key']}.jpg"
            row["image"] = row["image"]["bytes"]
    return rows


def read_tars(out: Path, layer: str) -> Rows:
    """The rows of a layer's tar shards, by `tarfile` and `json` alone."""
    return [row for path in shards(out, "wds", layer) for row in _read_tar(path)]


def _read_tar(path: Path) -> Iterator[dict[str, Any]]:
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    assert len(members) % 3 == 0
    for i in range(0, len(members), 3):
        (image_name, image), (json_name, record), (label_name, label) = members[i : i + 3]
        row = json.loads(record)
        names = [f"{row['key']}{suffix}" for suffix in (".jpg", ".json", ".cls")]
        assert [image_name, json_name, label_name] == names
        assert label == str(row["label"]).encode()
        assert isinstance(row["tweet_id"], str)
        floats = {name: None if row[name] is None else float32(row[name]) for name in FLOATS}  # shortest decimals
        yield row | floats | {"image": image, "tweet_id": int(row["tweet_id"])}


def read_by_table(folder: Path, layer: str, data_root: str = ".") -> Rows:
    """The rows of a layer's sample table, each image read from the file, offset and length that it names."""
    rows = pq.read_table(folder / layer / "index.parquet", partitioning=None).to_pylist()
    for row in rows:
        with (folder / data_root / row["file"]).open("rb") as file:
            file.seek(row["offset"])
            row["image"] = file.read(row["length"])
    return [{name: value for name, value in row.items() if name not in ("file", "offset", "length")} for row in rows]


def read_text(out: Path, layer: str) -> dict[int, dict[str, Any]]:
    """A text layer's rows by tweet id; fails where an id stands twice."""
    rows = read_parquet(out, layer)
    made = {row["tweet_id"]: row for row in rows}
    assert len(made) == len(rows)
    return made


def assert_truth(rows: Rows, expected: Mapping[str, Mapping[str, Any]]) -> None:
    """Rows hold exactly the expected keys, once each, and say of each what the archive says."""
    assert sorted(row["key"] for row in rows) == sorted(expected)
    for row in rows:
        got = {name: row[name] for name in TRUTH}
        assert got == {name: expected[row["key"]][name] for name in TRUTH}, row["key"]


def assert_pixels(row: Mapping[str, Any]) -> None:
    """Width and height of a row are those of its picture as shown."""
    with Image.open(io.BytesIO(row["image"])) as image:
        assert ImageOps.exif_transpose(image).size == (row["width"], row["height"]), row["key"]


def digests(folder: Path, *names: str, leave_out: tuple[str, ...] = ("/times.json",)) -> dict[str, str]:
    """Path below `folder` -> sha256 of every file, or of those below some of its folders.

    Args:
        folder: DIR.
        names: of its folders or files; none for all.
        leave_out: ends of paths that may differ between equal builds.
    """
    roots = [folder / name for name in names] or [folder]
    paths = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(named.items())
        if not name.endswith(leave_out)
    }


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Paths that only one of two `digests` has, or whose bytes differ: short enough to be read in a failed test."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
