"""From the image archives to the image layers: walk, inspect, set aside, group. No release is written here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from builders import layers as make
from builders import ledger as status
from builders import output
from builders import report as tell
from builders.inspection import good, inspect_archive, try_inspect
from builders.layers import LayerRows
from builders.quarantine import Quarantined, write_quarantine
from builders.run import Run
from builders.sources import official
from builders.sources.archive import ArchiveIndex, index_archive
from builders.sources.tables import Sentiment, SplitList, Texts
from t4sa_data.catalog import IMAGE_LAYERS, published_count
from t4sa_data.schema import make_key
from t4sa_data.shards import RangeReader

SAMPLED_IMAGES = 24
"""Images decoded to tell how long the rest will take."""
WRITE_SHARE = 0.1
"""Time that writing one format takes, as a share of inspection's (benchmarks/build.py)."""


def image_layers(
    run: Run, raw: official.Raw, sentiment: Sentiment, texts: Texts | None, *, with_further: bool
) -> list[LayerRows]:
    """The image layers that RAW gives, before a byte of them is written.

    Args:
        run: gets the counts, the ledger's rows and the archives' sha256.
        raw: the inputs; its `images` is there.
        sentiment: the TSV.
        texts: the CSV, or None.
        with_further: look at the further archives too.

    Raises:
        ArchiveError, TableError, InputMissing: what is wrong with an input, and where.
        StrictFailure: `--strict`, and this is not the published dataset.
    """
    assert raw.images is not None
    with run.timed("index"):
        run.say(f"Walking {raw.images.name} ({raw.images.stat().st_size / 1e9:.2f} GB)")
        indices = [index_archive(path, run.state) for path in (raw.images, *(raw.further if with_further else ()))]
        run.report.checks["other files in the archives"] = sum(len(index.others) for index in indices)
    lists = official.read_lists(raw, indices[0])
    candidates = _candidates(run, raw, indices, lists, sentiment)
    _announce(run, indices, candidates)
    inspected = _inspect(run, indices, candidates)
    bad = _quarantine(run, indices, candidates, inspected)
    _check_strict(run, lists, bad)
    with run.timed("near-duplicates"):
        unique = None if raw.unique_list is None else official.read_unique(raw.unique_list)
        which = pa.array(good(inspected))
        made = make.image_layers(candidates.filter(which), inspected.filter(which), sentiment, texts, unique)
    listed = {split: len(one.tweet_id) for split, one in lists.items()} if run.config.limit is None else {}
    quarantined = {s: [row.key for row in bad if row.split == s and row.archive == raw.images.name] for s in lists}
    run.report.checks |= tell.image_checks({layer.name: layer for layer in made}, inspected, sentiment)
    further_bad = sum(row.archive != raw.images.name for row in bad)
    run.report.checks["images of further archives that do not decode"] = further_bad
    run.report.checks["blank lines in the lists"] = sum(one.num_blank for one in lists.values())
    return [
        replace(layer, listed=listed, quarantined=quarantined) if layer.name == "b-t4sa" else layer for layer in made
    ]


def _candidates(
    run: Run,
    raw: official.Raw,
    indices: Sequence[ArchiveIndex],
    lists: Mapping[str, SplitList],
    sentiment: Sentiment,
) -> pa.Table:
    """Who may enter a layer, archive by archive, each in its order; the ledger learns who may not."""
    candidates = official.listed_candidates(lists, indices[0], run.ledger)
    more = official.further_candidates(indices[1:], candidates, sentiment, run.ledger)
    candidates = pa.concat_tables([candidates, more]).combine_chunks()
    if raw.removals is not None:
        candidates = official.apply_removals(candidates, official.read_removals(raw.removals), run.ledger)
    if run.config.limit is not None:
        beyond = ~make.limit_per_stratum(candidates, run.config.limit)
        candidates = official.drop_rows(candidates, beyond, status.BEYOND_LIMIT, run.ledger)
    return candidates


def _announce(run: Run, indices: Sequence[ArchiveIndex], candidates: pa.Table) -> None:
    """Say what is to come, disk and time, before a byte is written; time is that of a few images, scaled.

    Raises:
        DiskSpaceError: the disk is too small.
    """
    num_bytes = int(candidates["length"].to_numpy().sum())
    formats = () if run.config.in_place else run.config.formats
    needed = output.image_bytes_needed(run.out, num_bytes, IMAGE_LAYERS, formats)
    free = output.require_space(run.out, needed, len(formats))
    step = max(1, candidates.num_rows // SAMPLED_IMAGES)
    sampled = candidates.take(np.arange(0, candidates.num_rows, step)[:SAMPLED_IMAGES]).to_pylist()
    start = time.perf_counter()
    for row in sampled:
        path = indices[row["archive"]].path
        with RangeReader(path.parent) as reader:
            try_inspect(reader.read(path.name, row["offset"], row["length"]), run.config.max_pixels)
    per_image = (time.perf_counter() - start) / max(1, len(sampled))
    minutes = per_image * candidates.num_rows / run.config.workers / 60 * (1 + WRITE_SHARE * len(formats))
    run.say(
        f"{candidates.num_rows:,} images, {num_bytes / 1e9:.2f} GB: needs {needed / 1e9:.2f} GB of disk for "
        f"{' and '.join(formats) or 'nothing but a table'} ({free / 1e9:.1f} GB free), "
        f"about {minutes:.0f} min with {run.config.workers} worker(s)"
    )


def _inspect(run: Run, indices: Sequence[ArchiveIndex], candidates: pa.Table) -> pa.Table:
    """Inspection's rows for the candidates, row for row."""
    tables = []
    number = candidates["archive"].to_numpy()
    with run.timed("inspection"):
        bar = run.bar("inspect", candidates.num_rows)
        for i, index in enumerate(indices):
            mine = candidates.filter(pa.array(number == i)).sort_by("offset")
            table, run.sha256[index.path] = inspect_archive(
                index.path,
                mine["offset"].to_numpy(),
                mine["length"].to_numpy(),
                state=run.state,
                engine=run.engine,
                max_pixels=run.config.max_pixels,
                progress=bar.update,
            )
            tables.append(table)
        bar.close()
    # Candidates stand archive by archive, each in its order: so do the tables.
    return pa.concat_tables(tables).combine_chunks()


def _quarantine(
    run: Run, indices: Sequence[ArchiveIndex], candidates: pa.Table, inspected: pa.Table
) -> list[Quarantined]:
    """Set aside what did not decode; the ledger and the report learn of each."""
    bad = pa.array(~good(inspected))
    rows = []
    joined = zip(candidates.filter(bad).to_pylist(), inspected.filter(bad).to_pylist(), strict=True)
    for candidate, seen in joined:
        key = make_key(candidate["tweet_id"], candidate["image_index"])
        rows.append(
            Quarantined(
                key=key,
                split=candidate["split"],
                label=candidate["label"],
                reason=seen["reason"],
                detail=seen["detail"],
                sha256=seen["sha256"].hex(),
                archive=indices[candidate["archive"]].path.name,
                offset=candidate["offset"],
                length=candidate["length"],
            )
        )
        run.ledger.drop("image", pa.array([key]), status.QUARANTINED + seen["reason"])
    if not run.config.in_place:
        write_quarantine(run.config.out, rows, {index.path.name: index.path for index in indices})
    run.report.quarantined = [{"key": row.key, "reason": row.reason, "detail": row.detail} for row in rows]
    return rows


def _check_strict(run: Run, lists: Mapping[str, SplitList], bad: Sequence[Quarantined]) -> None:
    if not run.config.strict:
        return
    counts = [
        {
            "config": "b-t4sa",
            "split": split,
            "listed": len(one.tweet_id),
            "paper": published_count("b-t4sa", split),
        }
        for split, one in lists.items()
    ]
    missing = run.ledger.num_dropped(status.NOT_IN_ARCHIVE)
    faults = tell.strict_faults(counts, [row.key for row in bad], missing)
    tell.require_strict(faults, run.config.raw)
