"""`t4sa prepare TTD --configs twitter-testing`: the user's own copy of the Twitter Testing Dataset becomes a layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from builders import dedup, folds, output, write
from builders import layers as make
from builders import ledger as status
from builders import report as tell
from builders.engine import Local
from builders.inspection import good, inspect_files
from builders.layers import SOURCE, LayerRows
from builders.quarantine import ALONE, Quarantined, write_quarantine
from builders.run import PrepareConfig, Run, Silent
from builders.sealing import ROWS, Outcome, as_input, carry_done, digests, unchanged, write_release
from builders.sources import official
from builders.sources.twitter_testing import LEVELS, Copy, Picture, read_copy
from builders.state import State, fingerprint, stamp
from t4sa_data import release
from t4sa_data.catalog import CLASSES, CONFIGS, TWITTER_TESTING
from t4sa_data.errors import BadOption, ConfigUnavailable, NoRows
from t4sa_data.schema import TWITTER_TESTING_RECORD
from t4sa_data.shards import RangeReader

LAYER = "twitter-testing"
SPLIT = "test"
VERSION = 1
"""Bump when equal inputs and settings would give another layer."""
DONE = "twitter-testing-done"
"""Stage of the state that says which builds of the layer stand."""

Folds = Mapping[str, Mapping[str, int]]
"""Word of a level -> file name -> fold."""


def prepare(config: PrepareConfig, *, say: Callable[[str], None], bar: Callable[[str, int], Any] | None) -> Outcome:
    """Add the layer to the release in `config.out`, or begin one with it. The other layers stay as they are.

    Report and ledger go to `DIR/build/twitter-testing/`: those beside are of the official packages.

    Args:
        config: `raw` is the copy of the dataset.
        say: gets a line now and then.
        bar: makes a progress bar, or None.

    Raises:
        InputMissing, TableError, BadKey: what is wrong with the copy; see `sources.twitter_testing.read_copy`.
        ConfigUnavailable, BadOption: options that do not go together.
        NoRows: not one picture decodes.
        OutputError, StrictFailure: as `builders.prepare.prepare`.
    """
    _require_sense(config)
    copy = read_copy(config.raw)
    state = State(config.out / output.BUILD / "state")
    with state.locked(), Local(config.workers) as engine:
        run = Run(
            config=config,
            out=config.out,
            state=state,
            engine=engine,
            say=say,
            bar=bar or (lambda _title, _total: Silent()),
        )
        key = _fingerprint(config, copy)
        output.guard(config.out, state)
        if (before := unchanged(run, key, stage=DONE)) is not None:
            return before
        stood, notes = digests(run), config.out / output.BUILD / LAYER
        manifests = write_release(run, [_layer(run, copy)], notes)
        carry_done(run, stood)
        state.save(DONE, key, digests(run))
        run.say(f"Report and ledger of this layer: {notes}")
        return Outcome(manifests=manifests, report=run.report, seconds=run.seconds)


def _require_sense(config: PrepareConfig) -> None:
    needs = CONFIGS[LAYER].needs
    if set(config.configs) != {LAYER}:
        raise ConfigUnavailable(
            f"{LAYER} has a source of its own: build it in a run of its own", got=", ".join(config.configs), hint=needs
        )
    if config.in_place:
        raise ConfigUnavailable("an in-place release is over the official archive only", got=LAYER, hint=needs)
    if SPLIT not in config.splits:
        raise ConfigUnavailable(
            f"{LAYER} has one split", expected=SPLIT, got=", ".join(config.splits), hint="Leave --split out."
        )
    if config.images or config.unique_list:
        raise BadOption("--images and --unique-list are of the official packages", got=LAYER, hint="Leave them out.")


def _settings(config: PrepareConfig) -> dict[str, Any]:
    """The choices that bear on the layer."""
    names = ("limit", "shard_bytes", "max_pixels", "near_duplicate_bits")
    return {name: config.settings()[name] for name in names} | {"fold_seed": folds.FOLD_SEED}


def _fingerprint(config: PrepareConfig, copy: Copy) -> str:
    return fingerprint(
        VERSION,
        write.WRITE_VERSION,
        [stamp(path) for path in copy.files],
        [stamp(config.removals)] if config.removals else [],
        {word: sorted(found.items()) for word, found in copy.folds.items()},
        copy.unlisted,
        config.formats,
        _settings(config),
        config.strict,
        dict(release.toolchain()),
    )


def _layer(run: Run, copy: Copy) -> LayerRows:
    """The layer's rows, before a byte of them is written; ledger, report and quarantine learn of the others."""
    pictures = _candidates(run, copy)
    inspected = _inspect(run, copy, pictures)
    keep = good(inspected)
    if not keep.any():
        raise NoRows("not one picture is left that decodes", got=f"{len(keep)} pictures", where=copy.folder)
    bad = _quarantine(run, copy, [one for one, ok in zip(pictures, keep, strict=True) if not ok], inspected)
    chosen = {word: copy.folds.get(word) or _own_folds(copy, word) for word in copy.levels}
    provenance = _provenance(run, copy, pictures, inspected)
    pictures = [one for one, ok in zip(pictures, keep, strict=True) if ok]
    inspected = inspected.filter(pa.array(keep))
    table = _records(pictures, inspected, chosen)
    files = tuple(copy.folder / one.name for one in pictures)
    source = [np.arange(len(files)), np.zeros(len(files), np.int64), [one.num_bytes for one in pictures]]
    made = LayerRows(
        name=LAYER,
        table=table,
        source=pa.table([pa.array(column, pa.int64()) for column in source], names=list(SOURCE)),
        archives=files,
        listed={SPLIT: len(copy.pictures)} if run.config.limit is None else {},
        quarantined={SPLIT: [row.key for row in bad]},
        provenance=provenance,
    )
    run.ledger.keep("image", table["key"], LAYER, table["split"])
    _report(run, copy, made, inspected, chosen)
    if run.config.strict:
        tell.require_strict(_strict_faults(copy, bad), run.config.raw)
    return make.store(made, run.state.folder / ROWS)


def _candidates(run: Run, copy: Copy) -> list[Picture]:
    """The listed pictures without the removed ones and those beyond the limit; the ledger learns who went."""
    run.ledger.drop("image", pa.array(copy.unlisted, pa.string()), status.UNLISTED_PICTURE)
    columns = {
        "tweet_id": pa.array([one.tweet_id for one in copy.pictures], pa.int64()),
        "image_index": pa.array([one.image_index for one in copy.pictures], pa.int8()),
        "label": pa.array([one.label for one in copy.pictures], pa.int64()),
        "split": pa.repeat(SPLIT, len(copy.pictures)),
        "number": pa.array(range(len(copy.pictures)), pa.int64()),
    }
    table = pa.table(columns)
    if run.config.removals is not None:
        table = official.apply_removals(table, official.read_removals(run.config.removals), run.ledger)
    if run.config.limit is not None:
        beyond = ~make.limit_per_stratum(table, run.config.limit)
        table = official.drop_rows(table, beyond, status.BEYOND_LIMIT, run.ledger)
    return [copy.pictures[number] for number in table["number"].to_pylist()]


def _inspect(run: Run, copy: Copy, pictures: Sequence[Picture]) -> pa.Table:
    num_bytes = sum(one.num_bytes for one in pictures)
    needed = output.image_bytes_needed(run.out, num_bytes, [LAYER], run.config.formats)
    free = output.require_space(run.out, needed, len(run.config.formats))
    run.say(
        f"{len(pictures):,} pictures, {num_bytes / 1e6:.1f} MB: needs {needed / 1e6:.1f} MB of disk "
        f"({free / 1e9:.1f} GB free)"
    )
    with run.timed("inspection"):
        bar = run.bar("inspect", len(pictures))
        seen = inspect_files(
            copy.folder,
            [one.name for one in pictures],
            state=run.state,
            engine=run.engine,
            max_pixels=run.config.max_pixels,
            progress=bar.update,
        )
        bar.close()
    return seen


@dataclass(frozen=True)
class _File:
    """A picture's file, as quarantine reads it."""

    path: Path

    def read(self, offset: int, length: int) -> bytes:
        """Its bytes.

        Raises:
            ShardError: it went since it was found.
        """
        with RangeReader(self.path.parent) as reader:
            return reader.read(self.path.name, offset, length)


def _quarantine(run: Run, copy: Copy, bad: Sequence[Picture], inspected: pa.Table) -> list[Quarantined]:
    """Set aside what did not decode."""
    rows = []
    for picture, seen in zip(bad, inspected.filter(pa.array(~good(inspected))).to_pylist(), strict=True):
        rows.append(
            Quarantined(
                key=picture.key,
                split=SPLIT,
                label=picture.label,
                reason=seen["reason"],
                detail=seen["detail"],
                sha256=seen["sha256"].hex(),
                archive=ALONE + picture.name,
                offset=0,
                length=picture.num_bytes,
            )
        )
        run.ledger.drop("image", pa.array([picture.key]), status.QUARANTINED + seen["reason"])
    write_quarantine(run.config.out, rows, {ALONE + one.name: _File(copy.folder / one.name) for one in bad}, alone=True)
    run.report.quarantined = [{"key": row.key, "reason": row.reason, "detail": row.detail} for row in rows]
    return rows


def _own_folds(copy: Copy, word: str) -> dict[str, int]:
    """Our folds of the images of a level."""
    made = folds.clean_folds(copy.pictures)
    return {one.name: made[one.name] for one in copy.pictures if one.agreement >= LEVELS[word]}


def _records(pictures: Sequence[Picture], inspected: pa.Table, chosen: Folds) -> pa.Table:
    """Rows as `schema.TWITTER_TESTING_RECORD`."""
    num = len(pictures)
    keys = [one.key for one in pictures]
    first = dedup.group(inspected["phash"].to_numpy())
    nothing = pa.nulls(num, pa.float32())
    columns: dict[str, Any] = {
        "label": [one.label for one in pictures],
        "key": keys,
        "split": [SPLIT] * num,
        "tweet_id": [one.tweet_id for one in pictures],
        "image_index": [one.image_index for one in pictures],
        **dict.fromkeys((*CLASSES, "confidence"), nothing),
        "text": pa.nulls(num, pa.string()),
        "width": inspected["width"],
        "height": inspected["height"],
        **make.hashes(inspected),
        "duplicate_group": [keys[i] for i in first.tolist()],
        "media_key": [one.media_key for one in pictures],
        "agreement": [one.agreement for one in pictures],
    }
    for word, least in LEVELS.items():
        fold = chosen.get(word, {})
        columns[f"fold_{least}"] = [fold.get(one.name) if one.agreement >= least else None for one in pictures]
    return pa.table([columns[name] for name in TWITTER_TESTING_RECORD.names], schema=TWITTER_TESTING_RECORD)


def _provenance(run: Run, copy: Copy, pictures: Sequence[Picture], inspected: pa.Table) -> dict[str, Any]:
    """What the layer was made from. The pictures are told as one input: sha256 over a line `key sha256` each."""
    lines = [f"{one.key} {seen.hex()}\n" for one, seen in zip(pictures, inspected["sha256"].to_pylist(), strict=True)]
    images = {
        "name": "pictures",
        "bytes": sum(one.num_bytes for one in pictures),
        "sha256": None,
        "members_sha256": hashlib.sha256("".join(sorted(lines)).encode()).hexdigest(),
    }
    named = [as_input(run, path) for path in copy.lists]
    used = {word: "published" if word in copy.folds else "seeded" for word in copy.levels}
    settings = {**_settings(run.config), "folds": used, **({"removals": True} if run.config.removals else {})}
    inputs = [images, *named]
    return {"inputs": inputs, "settings": settings, "fingerprint": fingerprint(VERSION, inputs, settings)}


def _report(run: Run, copy: Copy, layer: LayerRows, inspected: pa.Table, chosen: Folds) -> None:
    """Counts beside the published ones, twins, contradictions, folds: what the lists say, whatever decodes."""
    report, pictures = run.report, copy.pictures
    report.counts = tell.count_rows([LAYER], {LAYER: layer})
    pairs = folds.twins_of(pictures)
    sha256 = dict(zip(layer.table["key"].to_pylist(), layer.table["sha256"].to_pylist(), strict=True))
    both = [(a, b) for a, b in pairs if a.key in sha256 and b.key in sha256]
    for word in copy.levels:
        report.checks[f"listed, {TWITTER_TESTING[word].name}"] = _counted(copy, word)
    report.checks |= {
        "twins (a media key in two tweets)": _shown(pairs),
        "twins whose labels contradict each other": _shown([(a, b) for a, b in pairs if a.label != b.label]),
        "twins whose bytes differ": _shown([(a, b) for a, b in both if sha256[a.key] != sha256[b.key]]),
        "pictures that no list names": _named(copy.unlisted),
    }
    for word, fold in chosen.items():
        whose = "published folds (UPC)" if word in copy.folds else f"our folds (seed {folds.FOLD_SEED})"
        report.checks[f"{whose}, {TWITTER_TESTING[word].name}"] = {
            "images": sum(1 for one in pictures if one.agreement >= LEVELS[word] and one.name in fold),
            "twin pairs on both sides": len(folds.split_twins(_among(pairs, word), fold)),
        }
    if copy.other_folds:
        names = [path.relative_to(run.config.raw).as_posix() for path in copy.other_folds]
        report.checks["fold lists that are not the published ones, not used"] = _named(names)
    _, sizes = np.unique(layer.table["duplicate_group"].to_numpy(), return_counts=True)
    report.checks |= {
        "near-duplicate groups of two and more": int((sizes > 1).sum()),
        "formats": tell.tally(inspected["format"]),
        "modes": tell.tally(inspected["mode"]),
    }
    report.funnel = run.ledger.funnel()


def _counted(copy: Copy, word: str) -> dict[str, int]:
    """Listed images of a level, and the published counts."""
    labels = [one.label for one in copy.pictures if one.agreement >= LEVELS[word]]
    made, told = {"negative": labels.count(0), "positive": labels.count(2)}, TWITTER_TESTING[word]
    return made | {"published negative": told.negative, "published positive": told.positive}


def _among(pairs: Sequence[tuple[Picture, Picture]], word: str) -> list[tuple[Picture, Picture]]:
    least = LEVELS[word]
    return [(a, b) for a, b in pairs if min(a.agreement, b.agreement) >= least]


def _shown(pairs: Sequence[tuple[Picture, Picture]]) -> dict[str, Any]:
    """Number of pairs, and all of them: there are few."""
    return {"count": len(pairs), "examples": [f"{a.key} = {b.key}" for a, b in pairs]}


def _named(names: Sequence[str]) -> dict[str, Any]:
    return {"count": len(names), "examples": list(names[: tell.NUM_EXAMPLES])}


def _strict_faults(copy: Copy, bad: Sequence[Quarantined]) -> list[str]:
    """What `--strict` does not let pass: counts that are not the published ones, and pictures that do not decode."""
    faults = []
    for word, told in TWITTER_TESTING.items():
        found = _counted(copy, word) if word in copy.levels else {}
        for name in ("negative", "positive"):
            if found.get(name) != (published := getattr(told, name)):
                faults.append(f"{told.name}: {found.get(name)} {name} listed, published {published}")
    if bad:
        faults.append(f"{len(bad)} pictures do not decode, e.g. {bad[0].key}")
    return faults
