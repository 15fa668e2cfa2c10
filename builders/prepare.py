"""Official packages in, a release out: `t4sa prepare`. Read `prepare` for the order of things."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders import layers as make
from builders import ledger as status
from builders import output, small, twitter_testing, write
from builders import report as tell
from builders.engine import Local
from builders.images import image_layers
from builders.inspection import clear_small
from builders.layers import LayerRows
from builders.ledger import IMAGES
from builders.run import PrepareConfig, Run, Silent
from builders.sealing import ROWS, Outcome, as_input, digests, unchanged, write_build_notes, write_release
from builders.sources import official
from builders.sources.passed import PassedArchive
from builders.sources.tables import Sentiment, Texts, read_sentiment, read_texts
from builders.state import State, fingerprint, stamp
from t4sa_data import release
from t4sa_data.catalog import CONFIGS
from t4sa_data.errors import ConfigUnavailable, InputMissing
from t4sa_data.manifest import FOLDERS, FileEntry

PREPARE_VERSION = 1
"""Bump when equal inputs and settings would give another release."""


def prepare(
    config: PrepareConfig, *, say: Callable[[str], None] = lambda _: None, bar: Callable[[str, int], Any] | None = None
) -> Outcome:
    """Build a release from the official packages. Killed anywhere and run again, it gives the same bytes.

    Args:
        config: what to build from what.
        say: gets a line now and then.
        bar: makes a progress bar from a title and a total; it has `update(n)` and `close()`.

    Raises:
        InputMissing, ConfigUnavailable, UnknownConfig: from the inputs given, this cannot be built.
        ArchiveError, TableError: an input is damaged or not what it should be; the message says where.
        OutputError: the output folder cannot be used (foreign files, locked, no space).
        StrictFailure: `strict`, and this is not the published dataset.
    """
    if twitter_testing.LAYER in config.configs:
        return twitter_testing.prepare(config, say=say, bar=bar)
    raw, wanted = _choose(config)
    if config.in_place and small.LAYER in config.configs:
        raise ConfigUnavailable(
            "small pictures are made, not found in the archive: there are none in place", got=small.LAYER,
            where=raw.folder, hint=CONFIGS[small.LAYER].needs,
        )  # fmt: skip
    state = State(_state_folder(config))
    out = config.raw if config.in_place else config.out
    bar = bar or (lambda _title, _total: Silent())
    with state.locked(), Local(config.workers) as engine:
        run = Run(config=config, out=out, state=state, engine=engine, say=say, bar=bar)
        key = _fingerprint(config, raw, wanted)
        if config.in_place:
            output.guard_in_place(out / FOLDERS["in-place"])
        else:
            output.guard(out, state)
            output.require_source(out, state, None)
        if (before := unchanged(run, key)) is not None:
            clear_small(state)
            return before
        if config.in_place:
            outcome = _prepare_in_place(run, raw)
            state.save("done", key, digests(run))
            return outcome
        manifests = write_release(run, _build_layers(run, raw, wanted))
        state.save("done", key, digests(run))
        clear_small(state)
        return Outcome(manifests=manifests, report=run.report, seconds=run.seconds)


def _choose(config: PrepareConfig) -> tuple[official.Raw, list[str]]:
    """The inputs, and the configs to build of them."""
    raw = official.discover(config.raw, further=config.images, unique_list=config.unique_list, removals=config.removals)
    return raw, official.choose_configs(raw, config.configs, text=config.text, formats=config.formats)


def _state_folder(config: PrepareConfig) -> Path:
    out = config.raw / FOLDERS["in-place"] if config.in_place else config.out
    return out / output.BUILD / "state"


def stands(config: PrepareConfig) -> bool:
    """Whether `prepare` would find nothing to do.

    Raises:
        InputMissing, ConfigUnavailable, UnknownConfig: as `prepare`.
    """
    raw, wanted = _choose(config)
    state = State(_state_folder(config))
    out = config.raw if config.in_place else config.out
    run = Run(config=config, out=out, state=state, engine=Local(1), say=lambda _: None, bar=lambda _t, _n: Silent())
    return unchanged(run, _fingerprint(config, raw, wanted)) is not None


def _fingerprint(config: PrepareConfig, raw: official.Raw, wanted: Sequence[str]) -> str:
    inputs = [stamp(path) for path in raw.files]
    return fingerprint(
        PREPARE_VERSION,
        write.WRITE_VERSION,
        inputs,
        wanted,
        config.formats,
        config.settings(),
        small.settings() if small.LAYER in wanted else None,
        config.strict,
        dict(release.toolchain()),
    )


def _read_tables(run: Run, raw: official.Raw, wanted: Sequence[str]) -> tuple[Sentiment | None, Texts | None]:
    """The TSV and the CSV, as far as the wanted configs need them."""
    with run.timed("tables"):
        sentiment = read_sentiment(raw.sentiment) if raw.sentiment and set(wanted) != {"raw-text"} else None
        if raw.text is None or run.config.text == "none":
            return sentiment, None
        ids = None if "raw-text" in wanted or sentiment is None else np.sort(sentiment.tweet_id)
        return sentiment, read_texts(raw.text, ids)


def _build_layers(run: Run, raw: official.Raw, wanted: Sequence[str]) -> list[LayerRows]:
    """The layers to write, each put away into a file as it is made: the largest alone fill half a GB."""
    sentiment, texts = _read_tables(run, raw, wanted)
    rows = run.state.folder / ROWS
    made = chain(
        _image_layers(run, raw, wanted, sentiment, texts),
        _text_layers(run, raw, wanted, sentiment, texts),
    )
    chosen = _choose_layers(run, [make.store(layer, rows) for layer in made], wanted)
    chosen = [replace(layer, provenance=_provenance(run, raw, layer)) for layer in chosen]
    _finish_report(run, wanted, {layer.name: layer for layer in chosen}, sentiment, texts)
    return chosen


def _image_layers(
    run: Run, raw: official.Raw, wanted: Sequence[str], sentiment: Sentiment | None, texts: Texts | None
) -> list[LayerRows]:
    if sentiment is None or all(CONFIGS[name].kind == "text" for name in wanted):
        return []
    return image_layers(run, raw, sentiment, texts, wanted)


def _text_layers(
    run: Run, raw: official.Raw, wanted: Sequence[str], sentiment: Sentiment | None, texts: Texts | None
) -> Iterator[LayerRows]:
    if "t4sa-text" in wanted and sentiment is not None:
        yield _fewer_tweets(run, raw, make.t4sa_text_layer(sentiment, texts))
    if "raw-text" in wanted and texts is not None:
        run.ledger.drop("tweet", pa.array(texts.repeated), status.REPEATED)
        yield _fewer_tweets(run, raw, make.raw_text_layer(texts))


def _fewer_tweets(run: Run, raw: official.Raw, layer: LayerRows) -> LayerRows:
    """A text layer without the removed tweets and those beyond the limit."""
    tweets, _ = official.read_removals(raw.removals) if raw.removals else (np.zeros(0, np.int64), None)
    if len(tweets):
        kept = _kept(run, layer, make.without(layer, tweets.tolist()), status.REMOVED)
        checks, name = run.report.checks, "tweets removed from the text layers"
        checks[name] = checks.get(name, 0) + layer.table.num_rows - kept.table.num_rows
        layer = kept
    if run.config.limit is not None:
        layer = _kept(run, layer, make.limit_rows(layer, run.config.limit), status.BEYOND_LIMIT)
    return layer


def _kept(run: Run, before: LayerRows, after: LayerRows, reason: str) -> LayerRows:
    """`after`; the ledger learns why its other tweets went."""
    ids = before.table["tweet_id"]
    gone = ids.filter(pc.invert(pc.is_in(ids, after.table["tweet_id"].combine_chunks())))
    run.ledger.drop("tweet", gone, reason)
    return after


def _choose_layers(run: Run, built: Sequence[LayerRows], wanted: Sequence[str]) -> list[LayerRows]:
    """The layers of the wanted configs; the ledger learns who is in and who was left out."""
    names = {layer for name in wanted for layer in CONFIGS[name].layers}
    for layer in built:
        is_image = layer.source is not None
        kind = "image" if is_image else "tweet"
        if small.LAYER in names:  # each image of B-T4SA is kept twice, or in this layer only
            if layer.name == "b-t4sa" and layer.name not in names:
                continue
            kind = IMAGES[1] if layer.name == small.LAYER and "b-t4sa" in names else kind
        keys = layer.table["key" if is_image else "tweet_id"]
        if layer.name in names:
            run.ledger.keep(kind, keys, layer.name, layer.table["split"])
        else:
            run.ledger.drop(kind, keys, status.NOT_BUILT)
    return [layer for layer in built if layer.name in names]


def _finish_report(
    run: Run, wanted: Sequence[str], layers: dict[str, LayerRows], sentiment: Sentiment | None, texts: Texts | None
) -> None:
    run.report.counts = tell.count_rows(wanted, layers)
    run.report.checks = tell.text_checks(sentiment, texts) | run.report.checks
    run.report.funnel = run.ledger.funnel()


def _provenance(run: Run, raw: official.Raw, layer: LayerRows) -> dict[str, Any]:
    """What a layer was made from; only the inputs and settings that bear on it, so that equal layers say the same."""
    archive = raw.passed or raw.images
    tables = [raw.sentiment, *([raw.text] if run.config.text == "full" else [])]
    given: list[Path | PassedArchive | None] = [archive, *raw.lists.values(), *tables]
    if layer.name in ("unique", "duplicates"):
        given += [*raw.further, raw.unique_list]
    elif layer.name == "t4sa-text":
        given = [*tables]
    elif layer.name == "raw-text":
        given = [raw.text]
    named = [
        one.as_input() if isinstance(one, PassedArchive) else as_input(run, one) for one in given if one is not None
    ]
    chosen = ("text", "limit", "shard_bytes")
    settings = {
        name: value for name, value in run.config.settings().items() if layer.source is not None or name in chosen
    }
    settings |= {} if layer.name in ("unique", "duplicates") else {"unique_list": False}
    settings |= {"small": small.settings()} if layer.name == small.LAYER else {}
    # That there was a list, and no hash of it: manifests are published, and a short list can be guessed from its hash.
    settings |= {"removals": True} if raw.removals is not None else {}
    return {"inputs": named, "settings": settings, "fingerprint": fingerprint(PREPARE_VERSION, named, settings)}


def _prepare_in_place(run: Run, raw: official.Raw) -> Outcome:
    """`--in-place`: the sample table over the official archive, and nothing copied."""
    if raw.images is None or raw.sentiment is None:  # an archive that only passed by lies nowhere
        raise InputMissing(
            "an in-place release needs images and the TSV", where=raw.folder, hint=CONFIGS["b-t4sa"].needs
        )
    sentiment, texts = _read_tables(run, raw, ["b-t4sa"])
    assert sentiment is not None
    (layer,) = image_layers(run, raw, sentiment, texts, ["b-t4sa"])
    layer = make.store(layer, run.state.folder / ROWS)
    layer = replace(layer, provenance=_provenance(run, raw, layer))
    assert layer.source is not None
    run.ledger.keep("image", layer.table["key"], layer.name, layer.table["split"])
    _finish_report(run, ["b-t4sa"], {layer.name: layer}, sentiment, texts)
    sha256 = run.sha256[raw.images]
    assert sha256 is not None  # it was read whole
    archive = FileEntry(name=raw.images.name, bytes=raw.images.stat().st_size, sha256=sha256)
    sealed = release.Layer(
        name=layer.name,
        table=layer.table,
        tasks=[],
        written=[],
        image_bytes=layer.row_bytes,
        listed=layer.listed,
        quarantined=layer.quarantined,
        provenance=layer.provenance,
    )
    files = [raw.images.name] * layer.table.num_rows
    manifest = release.seal_in_place(raw.folder, sealed, files, layer.source["offset"].to_numpy(), [archive])
    write_build_notes(run)
    return Outcome(manifests={"in-place": manifest}, report=run.report, seconds=run.seconds)
