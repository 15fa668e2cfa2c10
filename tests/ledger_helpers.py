"""Builds as their ledgers tell them: what the tests of ledger, funnel and report share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from builders.ledger import COLLECTED, LEDGER_NAME, PROVENANCE, Ledger

TWEET_DROPS = ("collect/no-image", "collect/retweet", "label/empty-text", "select/below-threshold")
IMAGE_DROPS = ("fetch/not-found", "fetch/timeout", "inspection/truncated")
IMAGE_PLACES = (
    ("b-t4sa", "train"), ("b-t4sa", "validation"), ("b-t4sa", "test"), ("unique", "train"), ("duplicates", "train"),
)  # fmt: skip
TWEET_PLACE = ("t4sa-text", "train")


class Fate(NamedTuple):
    """Where a candidate is, or why it is not."""

    layer: str | None = None
    split: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return self.reason or f"{self.layer}/{self.split}"


Build = Mapping[int, tuple[Fate, list[Fate]]]
"""Tweet id -> its fate, and those of its images."""


def fate(what: str | tuple[str, str]) -> Fate:
    return Fate(reason=what) if isinstance(what, str) else Fate(*what)


def candidates(build: Build) -> dict[tuple[str, str], Fate]:
    """(kind, key) -> fate: the truth, by another way than the ledger's."""
    found = {("tweet", str(number)): of_tweet for number, (of_tweet, _) in build.items()}
    return found | {
        ("image", f"{number}-{k}"): one for number, (_, images) in build.items() for k, one in enumerate(images, 1)
    }


def provenance_of(key: str, one: Fate) -> dict[str, Any]:
    """What was fetched: nothing where fetch says so."""
    if one.reason and one.reason.startswith("fetch/"):
        return {"status": 404 if one.reason == "fetch/not-found" else None, "bytes": None, "sha256": None}
    digest = hashlib.sha256(key.encode()).digest()
    return {"status": 200, "bytes": 1000 + digest[0], "sha256": digest}


def text(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.string()).dictionary_encode()


def write_build(folder: Path, build: Build) -> Ledger:
    """Write `build/ledger.parquet` as a build does: collect's ledger taken over, then images row by row."""
    first, build = Ledger(), dict(sorted(build.items()))
    left = {number: one for number, (one, _) in build.items()}
    at_collect = [(one.reason or "").startswith("collect/") for one in left.values()]
    keys, reasons = list(left), [one.reason if gone else None for one, gone in zip(left.values(), at_collect)]  # noqa: B905
    first.tell(
        "tweet", pa.array(keys, pa.int64()), layers=text([None if gone else COLLECTED for gone in at_collect]),
        splits=text([None] * len(keys)), reasons=text(reasons),
    )  # fmt: skip
    collected = folder / "collected"
    collected.mkdir(parents=True)
    first.write(collected)
    later = [(number, one) for (number, one), gone in zip(left.items(), at_collect, strict=True) if not gone]
    ledger = Ledger(of_build=True)
    ledger.take_over(
        collected / LEDGER_NAME, pa.array([number for number, _ in later], pa.int64()), **columns([f for _, f in later])
    )
    images = [(number, k, one) for number, (_, found) in build.items() for k, one in enumerate(found, 1)]
    ids = pa.table(
        {"tweet_id": [n for n, _, _ in images], "image_index": pa.array([k for _, k, _ in images], pa.int8())}
    )
    rows = [provenance_of(f"{number}-{k}", one) for number, k, one in images]
    provenance = pa.Table.from_pylist(rows, pa.schema([*list(PROVENANCE)[:2], ("sha256", pa.binary(32))]))
    if images:
        ledger.tell("image", ids, **columns([one for _, _, one in images]), provenance=provenance)
    (folder / "build").mkdir()
    ledger.write(folder / "build")
    return ledger


def columns(fates: list[Fate]) -> dict[str, pa.Array]:
    return {
        "layers": text([one.layer for one in fates]),
        "splits": text([one.split for one in fates]),
        "reasons": text([one.reason for one in fates]),
    }
