"""`report`: the build's page with its funnel and leak report, and the sheets of near-duplicates, for people. The work
is `builders.build_report`'s, `builders.leaks`' and `builders.sheets`'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from builders import output
from builders.build_config import settings_of
from builders.build_report import BuildReport, write_build_report
from builders.building import Build
from builders.leaks import Columns, find_leaks
from builders.ledger.funnel import funnels_of
from builders.sheets import Rows, write_sheets
from builders.split import alone_where_null
from builders.stages import balance, collect, dedup, fetch, inspection, label, selection, split, write
from builders.write import MOST_OPEN
from t4sa_data.files import write_json
from t4sa_data.manifest import FOLDERS
from t4sa_data.release import toolchain
from t4sa_data.shards import RangeReader

NAME = "report"
VERSION = 1
SHEETS = "duplicates"
"""Folder of the sheets, beside the report."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    return [build.config.dedup.distance]  # around which pairs are shown


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `report.md`, `report.html`, `funnel.svg`, `leaks.json` and `duplicates/` into `DIR/build`."""
    folder = build.run.out / output.BUILD
    told = json.loads((folder / "report.json").read_bytes())
    leaks = find_leaks(_columns(build))
    write_json(folder / "leaks.json", leaks.to_json())
    page = _write_sheets(build, folder / SHEETS)
    sections = ("collect", "label", "select", "fetch", "inspection", "dedup", "balance", "split", "write")
    write_build_report(
        folder,
        BuildReport(
            funnels=funnels_of(told["funnel"], of_build=True),
            counts=told["counts"],
            input_counts=_lines(build.counts[collect.NAME]["told"]),
            checks=told["checks"],
            quarantined=told["quarantined"],
            seconds={name: counts["seconds"] for name, counts in build.counts.items()},
            stage_bytes=_bytes(build),
            settings={name: settings_of(getattr(build.config, name)) for name in sections},
            toolchain=dict(toolchain()),
            leak_report=leaks.as_text(),
            duplicates_page=page.relative_to(folder).as_posix(),
        ),
    )
    return {}


def _columns(build: Build) -> Columns:
    """The balanced set, for the leak report."""
    images, inspected = build.table(selection.NAME, "images"), build.table(inspection.NAME, "inspected")
    split_of = build.table(split.NAME, "split")["split"].to_numpy()
    rows = np.flatnonzero(split_of >= 0)
    mine, seen = images.take(rows), inspected.take(rows)
    author = None
    if mine["author"].null_count < len(mine):
        author = alone_where_null(mine["author"].fill_null(0).to_numpy(), np.asarray(mine["author"].is_null()))
    return Columns(
        split=split_of[rows],
        label=build.table(balance.NAME, "drawn")["label"].take(rows).to_numpy(),
        tweet_id=mine["tweet_id"].to_numpy(),
        phash=seen["phash"].to_numpy().astype(np.uint64),
        sha256=np.unique(np.array(seen["sha256"].to_pylist()), return_inverse=True)[1].astype(np.int64),
        author=author,
    )


def _write_sheets(build: Build, folder: Path) -> Path:
    """Picture sheets of the groups, and of pairs around the threshold."""
    images, inspected = build.table(selection.NAME, "images"), build.table(inspection.NAME, "inspected")
    fetched, files = build.table(fetch.NAME, "fetched"), fetch.files_of(build)
    representative = build.table(dedup.NAME, "groups")["representative"].to_numpy()
    good = np.flatnonzero(representative >= 0)
    places = [fetched[name].take(good).to_numpy() for name in ("file", "offset", "length")]
    with RangeReader(Path(), most_open=MOST_OPEN) as reader:

        def read(row: int) -> bytes:
            file, offset, length = (int(column[row]) for column in places)
            return bytes(reader.read(str(files[file].absolute()), offset, length))

        rows = Rows(
            tweet_id=images["tweet_id"].take(good).to_numpy(),
            image_index=images["image_index"].take(good).to_numpy(),
            phash=inspected["phash"].take(good).to_numpy().astype(np.uint64),
            group=np.searchsorted(good, representative[good]),
        )
        return write_sheets(folder, rows, read, distance=build.config.dedup.distance)


def _lines(told: dict[str, Any]) -> dict[str, int]:
    """How the lines of the input became tweets."""
    notices = {f"- no tweet: {kind}": num for kind, num in told["no_tweets"].items()}
    return {
        "lines": told["lines"],
        "- no JSON object": told["bad_lines"],
        **notices,
        "- repeated": told["repeated"],
        "tweets": told["tweets"],
    }


def _bytes(build: Build) -> dict[str, int]:
    """What the larger stages wrote."""

    def size(*paths: Path) -> int:
        return sum(path.stat().st_size for path in paths if path.is_file())

    folders = [build.run.out / FOLDERS[fmt] for fmt in build.config.write.formats]
    return {
        collect.NAME: size(build.path(collect.NAME, "tweets.parquet")),
        label.NAME: size(build.path(label.NAME, "labels.arrow")),
        fetch.NAME: size(*fetch.files_of(build)),
        write.NAME: size(*(path for folder in folders for path in folder.rglob("*"))),
    }
