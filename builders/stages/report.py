"""`report`: the build's page with its funnel, for people. The work is `builders.build_report`'s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builders import output
from builders.build_config import settings_of
from builders.build_report import BuildReport, write_build_report
from builders.building import Build
from builders.funnel import funnels_of
from builders.stages import collect, fetch, label, write
from t4sa_data.manifest import FOLDERS
from t4sa_data.release import toolchain

NAME = "report"
VERSION = 1


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    return [VERSION, build.config.dedup.distance]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `report.md`, `report.html` and `funnel.svg` into `DIR/build`."""
    folder = build.run.out / output.BUILD
    told = json.loads((folder / "report.json").read_bytes())
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
        ),
    )
    return {}


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
