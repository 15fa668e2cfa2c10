"""The end of every build, whatever its source: is there anything to do, shards, manifests, and the build's notes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builders import givingback, output, write
from builders import report as tell
from builders.layers import LayerRows
from builders.run import Run
from t4sa_data import release
from t4sa_data.files import sha256_file, write_bytes, write_json
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, Manifest, load_manifest

ROWS = "rows"
"""Folder of the state that holds the rows of the layers while they are written."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run did."""

    manifests: dict[str, Manifest]
    """By format."""
    report: tell.Report
    seconds: dict[str, float]
    """By stage."""
    unchanged: bool = False
    """There was nothing to do."""


def digests(run: Run) -> dict[str, str]:
    """sha256 of each format's manifest, as far as there is one."""
    paths = {fmt: run.out / FOLDERS[fmt] / MANIFEST_NAME for fmt in run.formats}
    return {fmt: sha256_file(path) for fmt, path in paths.items() if path.is_file()}


def unchanged(run: Run, key: str, *, stage: str = "done") -> Outcome | None:
    """The outcome of an earlier run of this very build, if its files still stand.

    Args:
        run: its tools.
        key: fingerprint of inputs and settings.
        stage: name of the notes of builds from this source.
    """
    if run.state.load(stage, key) != digests(run):
        return None
    manifests = {}
    for fmt in run.formats:
        folder = run.out / FOLDERS[fmt]
        if not (folder / MANIFEST_NAME).is_file():
            continue  # text configs have no tar folder
        manifest = load_manifest(folder)
        for path, num_bytes in ((manifest.path(folder, file), file.bytes) for file in manifest.files):
            if not path.is_file() or path.stat().st_size != num_bytes:
                return None
        manifests[fmt] = manifest
    run.say("Nothing to do: this release was built from these files with these settings.")
    return Outcome(manifests=manifests, report=run.report, seconds={}, unchanged=True)


def carry_done(run: Run, before: dict[str, str]) -> None:
    """Let the builds that stood before a layer of another source joined them go on to stand.

    Args:
        run: its tools.
        before: `digests` at its start.
    """
    after = digests(run)
    for path in run.state.folder.glob("done-*.json"):
        told = json.loads(path.read_bytes())
        if told and all(before.get(fmt, sha256) == sha256 for fmt, sha256 in told.items()):
            write_bytes(path, json.dumps({fmt: after.get(fmt, sha256) for fmt, sha256 in told.items()}).encode())


def as_input(run: Run, path: Path) -> dict[str, Any]:
    """What a layer's provenance says of an input."""
    if path not in run.sha256:
        run.sha256[path] = sha256_file(path)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": run.sha256[path]}


def write_release(
    run: Run, layers: Sequence[LayerRows], notes: Path | None = None, *, stay: Collection[str] | None = None
) -> dict[str, Manifest]:
    """Write the shards, seal the folders, then report, ledger and times.

    Args:
        run: its tools.
        layers: in release order, stored (`layers.store`).
        notes: folder of report, ledger and times; None for `DIR/build`.
        stay: of the layers that stand there and are not among these, those that stay; None: all.
    """
    config, state, out = run.config, run.state, run.config.out
    with run.timed("plan"):
        jobs = write.plan_jobs(layers, out, config.formats, config.shard_bytes, state)
        needed = output.bytes_needed(jobs) - givingback.bytes_given_back(jobs, out, config.workers)
        free = output.require_space(out, needed, len(config.formats))
        run.say(f"Writing {len(jobs)} shards: {needed / 1e9:.2f} GB to write, {free / 1e9:.1f} GB free")
        output.claim(out, jobs, {layer.name: layer.source is not None for layer in layers}, state)
    with run.timed("write"):
        todo = givingback.in_order([job for job in jobs if not write.is_done(job)])
        num_rows, num_left = (sum(job.task.num_rows for job in some) for some in (jobs, todo))
        bar = run.bar("write", num_rows)
        bar.update(num_rows - num_left)
        write.write_jobs(todo, engine=run.engine, progress=bar.update, on_done=givingback.GivingBack(todo).done)
        bar.close()
    output.sweep(out)  # what a worker left that was killed while the others went on
    with run.timed("seal"):
        finished = write.as_layers(layers, jobs)
        manifests = {}
        for fmt in config.formats:
            if fmt == "parquet" or any(layer.source is not None for layer in layers):
                output.withdraw(out, fmt, state)  # README and tables are about to change under it
                keep = output.standing_release(out, fmt, state)
                if keep is not None and stay is not None:
                    keep = replace(keep, layers={name: one for name, one in keep.layers.items() if name in stay})
                manifests[fmt] = release.seal(out, fmt, finished, keep=keep)
        output.settle(out, manifests, state)
    write_build_notes(run, notes)
    return manifests


def write_build_notes(run: Run, folder: Path | None = None) -> None:
    """Write ledger, report and times into `folder` (None: `DIR/build`)."""
    folder = folder or run.state.folder.parent
    run.ledger.write(folder)
    write_json(folder / "report.json", run.report.to_json())
    write_json(folder / "times.json", {"workers": run.config.workers, "seconds": run.seconds})
    shutil.rmtree(run.state.folder / ROWS, ignore_errors=True)  # Windows keeps mapped files; the next run replaces them
