"""From the image archives to the image layers: walk, inspect, set aside, group. No release is written here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders import layers as make
from builders import ledger as status
from builders import output, small
from builders import report as tell
from builders.inspection import Inspection, SmallFile, good, inspect_archive, try_inspect
from builders.layers import SOURCE, LayerRows
from builders.quarantine import Quarantined, write_quarantine
from builders.run import Run
from builders.sources import official
from builders.sources.archive import ArchiveIndex, index_archive
from builders.sources.passed import PassedArchive
from builders.sources.tables import Sentiment, SplitList, Texts
from t4sa_data.catalog import CONFIGS, IMAGE_LAYERS, SPLITS, published_count
from t4sa_data.errors import InputMissing
from t4sa_data.schema import make_key

SAMPLED_IMAGES = 24
"""Images decoded to tell how long the rest will take."""
WRITE_SHARE = 0.1
"""Time that writing one format takes, as a share of inspection's (benchmarks/build.py)."""


def image_layers(
    run: Run, raw: official.Raw, sentiment: Sentiment, texts: Texts | None, wanted: Sequence[str]
) -> list[LayerRows]:
    """The image layers that RAW gives, before a byte of them is written.

    Args:
        run: gets the counts, the ledger's rows and the archives' sha256.
        raw: the inputs; its `images` is there, or has passed by.
        sentiment: the TSV.
        texts: the CSV, or None.
        wanted: the configs to build; further archives are looked at, and small pictures made, where one needs them.

    Raises:
        ArchiveError, TableError, InputMissing: what is wrong with an input, and where.
        StrictFailure: `--strict`, and this is not the published dataset.
    """
    with run.timed("index"):
        further = raw.further if {"t4sa", "t4sa-unique"} & set(wanted) else ()
        indices = [_index_first(run, raw), *(index_archive(path, run.state) for path in further)]
        run.report.checks["other files in the archives"] = sum(len(index.others) for index in indices)
    lists = official.read_lists(raw, indices[0])
    candidates = _candidates(run, raw, indices, lists, sentiment)
    _announce(run, indices, candidates, wanted)
    seen = _inspect(run, indices, candidates, wanted)
    inspected = seen.rows
    bad = _quarantine(run, indices, candidates, inspected)
    _check_strict(run, lists, bad)
    with run.timed("near-duplicates"):
        unique = None if raw.unique_list is None else official.read_unique(raw.unique_list)
        which = pa.array(good(inspected))
        made = make.image_layers(candidates.filter(which), inspected.filter(which), sentiment, texts, unique)
    listed = {split: len(one.tweet_id) for split, one in lists.items() if split in run.config.splits}
    listed = listed if run.config.limit is None else {}
    quarantined = {s: [row.key for row in bad if row.split == s and row.archive == indices[0].name] for s in lists}
    originals = {layer.name: layer for layer in made if layer.name != small.LAYER}
    run.report.checks |= tell.image_checks(originals, inspected, sentiment)
    further_bad = sum(row.archive != indices[0].name for row in bad)
    run.report.checks["images of further archives that do not decode"] = further_bad
    run.report.checks["blank lines in the lists"] = sum(one.num_blank for one in lists.values())
    made = [replace(one, archives=seen.files) if one.name == small.LAYER else _placed(one, indices) for one in made]
    made = [replace(one, gives_back=indices[0].kept is not None) for one in made]
    return [
        replace(layer, listed=listed, quarantined=quarantined) if layer.name in ("b-t4sa", small.LAYER) else layer
        for layer in made
    ]


def _index_first(run: Run, raw: official.Raw) -> ArchiveIndex:
    """Where the images of the official archive are."""
    if raw.passed is not None:
        _require_passed(raw.passed, run.config.splits)
        return raw.passed.index()
    assert raw.images is not None
    run.say(f"Walking {raw.images.name} ({raw.images.stat().st_size / 1e9:.2f} GB)")
    return index_archive(raw.images, run.state)


def _require_passed(passed: PassedArchive, splits: Sequence[str]) -> None:
    """Raise `InputMissing` where what is needed of an archive that passed by was not kept."""
    if passed.is_cleared or set(splits) - set(passed.wanted.splits):
        raise InputMissing(
            "the image archive has passed by, and what this needs of it was not kept",
            expected=f"splits {', '.join(splits)}",
            got="nothing any more" if passed.is_cleared else f"splits {', '.join(passed.wanted.splits)}",
            where=passed.folder,
            hint="`t4sa get` with the same choices lets it pass again; or fetch it: `t4sa download b-t4sa`.",
        )


def _placed(layer: LayerRows, indices: Sequence[ArchiveIndex]) -> LayerRows:
    """A layer of originals with its files: the archives, or what was kept of one that passed by, whose further
    archives then follow it."""
    files: list[Path] = []
    assert layer.source is not None
    archive, offset = (layer.source[name].to_numpy() for name in ("archive", "offset"))
    number, place = np.zeros(len(archive), np.int64), np.array(offset)
    for i, index in enumerate(indices):
        mine = archive == i
        number[mine] = len(files)
        if index.kept is not None:
            found, place[mine] = index.kept.locate(offset[mine])
            number[mine] += found
        files += [index.path] if index.kept is None else index.kept.files
    source = pa.table([number, place, layer.source["length"]], names=list(SOURCE))
    return replace(layer, source=source, archives=tuple(files))


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
    if other := set(SPLITS) - set(run.config.splits):
        elsewhere = pc.is_in(candidates["split"], pa.array(sorted(other))).to_numpy()
        candidates = official.drop_rows(candidates, elsewhere, status.OTHER_SPLIT, run.ledger)
    if run.config.limit is not None:
        beyond = ~make.limit_per_stratum(candidates, run.config.limit)
        candidates = official.drop_rows(candidates, beyond, status.BEYOND_LIMIT, run.ledger)
    return candidates


def _announce(run: Run, indices: Sequence[ArchiveIndex], candidates: pa.Table, wanted: Sequence[str]) -> None:
    """Say what is to come, disk and time, before a byte is written; time is that of a few images, scaled.

    Raises:
        DiskSpaceError: the disk is too small.
    """
    num_bytes = int(candidates["length"].to_numpy().sum())
    formats = () if run.config.in_place else run.config.formats
    if indices[0].kept is not None:  # it was inspected as it passed; the room for small pictures is taken
        run.say(f"{candidates.num_rows:,} images of {indices[0].name} were seen as it passed")
        return
    start = time.perf_counter()
    small_bytes = _try_some(run, indices, candidates, small.LAYER in wanted)
    per_image = (time.perf_counter() - start) / max(1, min(SAMPLED_IMAGES, candidates.num_rows))
    layers = [layer for layer in IMAGE_LAYERS if any(layer in CONFIGS[name].layers for name in wanted)]
    needed = output.image_bytes_needed(run.out, num_bytes, layers, formats) if layers else 0
    if small.LAYER in wanted:  # and once more while they wait for their shards
        needed += output.image_bytes_needed(run.out, small_bytes, [small.LAYER], formats) + small_bytes
    free = output.require_space(run.out, needed, len(formats))
    minutes = per_image * candidates.num_rows / run.config.workers / 60 * (1 + WRITE_SHARE * len(formats))
    run.say(
        f"{candidates.num_rows:,} images, {num_bytes / 1e9:.2f} GB: needs {needed / 1e9:.2f} GB of disk for "
        f"{' and '.join(formats) or 'nothing but a table'} ({free / 1e9:.1f} GB free), "
        f"about {minutes:.0f} min with {run.config.workers} worker(s)"
    )


def _try_some(run: Run, indices: Sequence[ArchiveIndex], candidates: pa.Table, with_small: bool) -> int:
    """Inspect a few images; about the bytes of all small pictures of B-T4SA."""
    step = max(1, candidates.num_rows // SAMPLED_IMAGES)
    sampled = candidates.take(np.arange(0, candidates.num_rows, step)[:SAMPLED_IMAGES]).to_pylist()
    smalls, num_small = SmallFile(), 0
    for row in sampled:
        data = indices[row["archive"]].read(row["offset"], row["length"])
        _, picture = try_inspect(data, run.config.max_pixels)
        if with_small and row["archive"] == 0:
            smalls.add(picture)
            num_small += 1
    num_listed = int((candidates["archive"].to_numpy() == 0).sum())
    return len(smalls.data) * num_listed // max(1, num_small)


def _inspect(run: Run, indices: Sequence[ArchiveIndex], candidates: pa.Table, wanted: Sequence[str]) -> Inspection:
    """What is seen of the candidates, row for row; small pictures are made of B-T4SA's only."""
    seen = []
    number = candidates["archive"].to_numpy()
    with run.timed("inspection"):
        bar = run.bar("inspect", candidates.num_rows)
        for i, index in enumerate(indices):
            mine = candidates.filter(pa.array(number == i)).sort_by("offset")
            if index.kept is not None:
                seen.append(PassedArchive(index.path).inspection(mine["offset"].to_numpy()))
                bar.update(mine.num_rows)
                continue
            seen.append(
                inspect_archive(
                    index.path,
                    mine["offset"].to_numpy(),
                    mine["length"].to_numpy(),
                    state=run.state,
                    engine=run.engine,
                    max_pixels=run.config.max_pixels,
                    with_small=i == 0 and small.LAYER in wanted,
                    progress=bar.update,
                )
            )
            run.sha256[index.path] = seen[-1].sha256
        bar.close()
    # Candidates stand archive by archive, each in its order: so do the tables.
    rows = pa.concat_tables([one.rows for one in seen], promote_options="default").combine_chunks()
    return replace(seen[0], rows=rows)


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
                archive=indices[candidate["archive"]].name,
                offset=candidate["offset"],
                length=candidate["length"],
            )
        )
        run.ledger.drop("image", pa.array([key]), status.QUARANTINED + seen["reason"])
    if not run.config.in_place:
        write_quarantine(run.config.out, rows, {index.name: index for index in indices})
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
