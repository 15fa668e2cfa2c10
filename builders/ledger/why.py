"""The story of one id in words: of a tweet what became of it and of each of its images, of an image where it is or why
it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from builders.collect import MAX_IMAGES
from builders.ledger import COLLECTED, IMAGES, SELECTED, TWEET
from builders.ledger.reading import BUILD, find_ledger, is_of_build, open_ledger
from builders.ledger.words import BUILD_STAGES, STAGES, configs_with, finished_words, meaning_of, place_of, stage_of
from t4sa_data.errors import BadOption, UnknownCandidate
from t4sa_data.manifest import FOLDERS

Row = Mapping[str, Any]
_TWEET_ID = re.compile("[0-9]{1,19}")


def why(place: Path, key: str) -> str:
    """What a ledger says of one candidate.

    Args:
        place: a build's DIR, its `build` folder, or a ledger.
        key: of a tweet or an image; of pictures of the Twitter Testing Dataset that no list names, the file name.

    Raises:
        InputMissing: no ledger there.
        BadOption: not a key.
        UnknownCandidate: the ledger does not have it.
        TableError: as `open_ledger`.
    """
    path = find_ledger(place)
    if not key or not key.isprintable():
        raise BadOption("no key", expected="a tweet id, or <tweet id>-<1..4>", got=repr(key))
    rows = _rows(path, _family(key))
    mine = [row for row in rows if row["key"] == key]
    images = [row for row in _images(rows) if row["key"] != key]
    tweet = [row for row in rows if row["kind"] == TWEET and row["key"] != key]
    if not mine and tweet and tweet[0]["reason"]:
        return "\n".join(
            [f"image {key}: no candidate, for its tweet left before its images", *_tell(path, tweet, "  ")]
        )
    if not mine and not images:
        raise UnknownCandidate("the ledger does not have it", got=key, where=path)
    if not mine:  # prepare has images whose tweets are of no text layer
        return "\n".join([f"tweet {key}: it has no row of its own, its images have", *_tell(path, images, "  ")])
    lines = _tell(path, mine)
    if mine[0]["kind"] == TWEET:
        lines += _tell(path, images, "  ")
    return "\n".join(lines)


def _family(key: str) -> list[str]:
    """A key; of a tweet those of its images, too, and of an image its tweet's."""
    if (tweet_id := key.rpartition("-")[0]) and _TWEET_ID.fullmatch(tweet_id):
        return [key, tweet_id]
    if not _TWEET_ID.fullmatch(key):
        return [key]
    return [key, *(f"{key}-{k}" for k in range(1, MAX_IMAGES + 1))]


def _rows(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of these keys; of row groups whose keys are others nothing is read."""
    with open_ledger(path):  # for its errors
        pass
    rows = ds.dataset(path, format="parquet").to_table(filter=pc.field("key").isin(list(keys))).to_pylist()
    return sorted(rows, key=lambda row: (keys.index(row["key"]), row["kind"]))


def _images(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] in IMAGES]


def _tell(path: Path, rows: Sequence[Row], indent: str = "") -> list[str]:
    return [indent + line for row in rows for line in _story(path, row)]


def _story(path: Path, row: Row) -> list[str]:
    """Lines of one candidate."""
    layer, split, reason, kind = row["layer"], row["split"], row["reason"], row["kind"]
    stage = stage_of(layer, reason)
    passed = _passed(kind, stage, row) if is_of_build(path) else []
    lines = [f"{kind} {row['key']}", *(f"  it {words}" for words in passed)]
    if reason is not None:
        words = meaning_of(reason)
        lines.append(f"  it left at {stage}: " + (f"{words} ({reason})" if words else reason))
        return lines + _left_with_its_tweet(kind, stage)
    if layer == COLLECTED:
        return [*lines, "  it is kept by collect; of no release yet"]
    if layer == SELECTED:
        return [*lines, "  its images are candidates; this build wrote no text layer"]
    sample = _sample(path, layer, row["key"]) if kind in IMAGES else None
    lines += [f"  {words}" for words in _aside(layer, sample)]
    configs = ", ".join(configs_with(layer, split))
    lines.append(f"  it is in the layer {layer}, split {split}" + (f"; of the configs {configs}" if configs else ""))
    return lines + ([f"  {words}" for words in _said(sample)] if sample else [])


def _passed(kind: str, end: str, row: Row) -> Iterator[str]:
    """What a candidate of a build got through before the stage in which it ended."""
    stages = BUILD_STAGES.get(kind, ()) if end in STAGES else ()
    for stage in (one for one in stages if place_of(one) < place_of(end)):
        if stage == "fetch" and row["sha256"]:
            status = f"HTTP status {row['status']}, " if row["status"] is not None else ""
            yield f"was fetched: {status}{row['bytes']:,} bytes, sha256 {row['sha256']}"
        elif (words := finished_words(stage)) is not None:
            yield words
    if end == "fetch" and row["status"] is not None:
        yield f"was asked for: the last answer had the HTTP status {row['status']}"


def _left_with_its_tweet(kind: str, stage: str) -> list[str]:
    is_of_tweet = kind in IMAGES and stage in BUILD_STAGES[TWEET]
    return ["  it left with its tweet: no image was asked for"] if is_of_tweet else []


def _aside(layer: str, sample: Row | None) -> Iterator[str]:
    if layer == "duplicates":
        group = sample and sample["duplicate_group"]
        yield f"it is a near-duplicate of {group or 'another image'}: set aside on the way to B-T4SA"
    elif layer == "unique":
        yield "it was not drawn into the balanced set: set aside on the way to B-T4SA"


def _sample(path: Path, layer: str, key: str) -> dict[str, Any] | None:
    """The row of the sample table beside the ledger, if there is one."""
    folder = path.parent.parent if path.parent.name == BUILD else path.parent
    for name in FOLDERS.values():
        table = folder / name / layer / "index.parquet"
        if table.is_file():
            found = ds.dataset(table, format="parquet").to_table(filter=pc.field("key") == key).to_pylist()
            return found[0] if found else None
    return None


def _said(sample: Row) -> Iterator[str]:
    """What the sample table says of an image; never its text."""
    from t4sa_data.catalog import CLASSES

    label, confidence = sample.get("label"), sample.get("confidence")
    if label is not None:
        sure = "" if confidence is None else f", confidence {confidence:.3f}"
        yield f"its label is {CLASSES[label]}{sure}"
    if sample.get("duplicate_group") == sample["key"]:
        yield "its group of near-duplicates is named after it"
    elif sample.get("duplicate_group"):
        yield f"its group of near-duplicates is {sample['duplicate_group']}"
