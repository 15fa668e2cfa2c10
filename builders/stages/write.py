"""`write`: layers, ledger, quarantine, and the release, through the writer of `prepare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders import layers as make
from builders import report as tell
from builders import small
from builders.build_config import settings_of
from builders.building import Build
from builders.inspection import join_tables
from builders.layers import LayerRows
from builders.ledger import QUARANTINED
from builders.quarantine import Quarantined, write_quarantine
from builders.sealing import ROWS, write_release
from builders.sources.official import keys_of
from builders.sources.tables import Sentiment, Texts
from builders.stages import balance, collect, dedup, fetch, inspection, selection, split
from builders.state import fingerprint, read_arrow
from builders.write import WRITE_VERSION
from t4sa_data import release
from t4sa_data.catalog import CLASSES, CONFIGS, SPLITS
from t4sa_data.files import sha256_file
from t4sa_data.schema import make_key
from t4sa_data.shards import RangeReader

NAME = "write"
VERSION = 1
SOURCE = "raw tweets"
"""In the provenance of every layer: what tells it from one of the official packages."""
FURTHER = "train"
"""Split of what is not in B-T4SA."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    chosen = build.config.write
    made_small = small.settings() if chosen.small else None
    return [settings_of(chosen), WRITE_VERSION, made_small, dict(release.toolchain())]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `DIR/t4sa`, `DIR/t4sa-wds`, `DIR/quarantine`; in `DIR/build` ledger, report and times."""
    sentiment, texts = read_tweets(build)
    rows = build.state.folder / ROWS
    made = [*_image_layers(build, sentiment, texts), *_text_layers(build, sentiment, texts)]
    layers = [make.store(replace(layer, provenance=_provenance(build, layer)), rows) for layer in made]
    _tell_ledger(build, {layer.name: layer for layer in layers})
    _tell_report(build, layers, sentiment, texts)
    _set_aside(build)
    manifests = write_release(build.run, layers)
    num_rows = {layer.name: layer.table.num_rows for layer in layers}
    total = sum(num for name, num in num_rows.items() if name in ("b-t4sa", "unique", "duplicates"))
    return {"in": total, "kept": total, "dropped": {}, "rows": num_rows, "formats": sorted(manifests)}


def read_tweets(build: Build) -> tuple[Sentiment, Texts | None]:
    """The selected tweets' probabilities, and the collected tweets' texts, as the official tables would hold them."""
    tweets = build.table(selection.NAME, "tweets")
    chosen = tweets.filter(tweets["reason"].is_null())
    probabilities = np.stack([chosen[name].to_numpy() for name in CLASSES], axis=1)
    sentiment = Sentiment(tweet_id=chosen["tweet_id"].to_numpy(), probabilities=probabilities)
    if build.config.write.text == "none":
        return sentiment, None
    table = pq.read_table(build.path(collect.NAME, "tweets.parquet"), columns=["tweet_id", "text"])
    removed = pc.equal(tweets["reason"], selection.REMOVED).fill_null(False)
    table = table.filter(pc.invert(removed))  # a row for each row of `tweets`
    text = table["text"].combine_chunks()
    return sentiment, Texts(tweet_id=table["tweet_id"].to_numpy(), text=text, num_rows=table.num_rows)


def _image_layers(build: Build, sentiment: Sentiment, texts: Texts | None) -> list[LayerRows]:
    images, inspected = build.table(selection.NAME, "images"), build.table(inspection.NAME, "inspected")
    fetched, drawn = build.table(fetch.NAME, "fetched"), build.table(balance.NAME, "drawn")
    representative = build.table(dedup.NAME, "groups")["representative"].to_numpy()
    number = build.table(split.NAME, "split")["split"].to_numpy()
    good = np.flatnonzero(representative >= 0)
    candidates = pa.table(
        {
            "tweet_id": images["tweet_id"],
            "image_index": images["image_index"],
            "label": drawn["label"],
            "split": pa.DictionaryArray.from_arrays(
                np.where(number < 0, SPLITS.index(FURTHER), number), list(SPLITS)
            ).cast(pa.string()),
            "archive": fetched["file"],
            "offset": fetched["offset"],
            "length": fetched["length"],
        }
    )
    keys = keys_of(images["tweet_id"].to_numpy(), images["image_index"].to_numpy())
    groups = keys.take(pa.array(representative[good]))
    rows = make.records(
        candidates.take(good), inspected.take(good), keys.take(pa.array(good)), groups, sentiment, texts
    )
    is_drawn = np.asarray(drawn["is_drawn"])[good]
    is_first = representative[good] == good
    members = {"b-t4sa": is_drawn, "unique": is_first & ~is_drawn, "duplicates": ~is_first & ~is_drawn}
    files = tuple(fetch.files_of(build))
    made = [
        replace(make.image_layer(name, rows.filter(pa.array(is_in))), archives=files) for name, is_in in members.items()
    ]
    if build.config.write.small:
        made.append(_small_layer(build, rows.filter(pa.array(is_drawn)), fetched.take(good[is_drawn]), files))
    return made


def _small_layer(build: Build, rows: pa.Table, places: pa.Table, files: Sequence[Path]) -> LayerRows:
    """`b-t4sa-256`: the drawn images are decoded once more, and made small."""
    chunks, order = inspection.chunks_of(build, places, files, NAME, with_small=True)
    inspection.inspect(build, chunks, "make small")
    seen = join_tables([read_arrow(chunk.out) for chunk in chunks], with_small=True)
    layer = make.small_layer(rows, seen.take(np.argsort(order, kind="stable")))
    return replace(layer, archives=tuple(chunk.small for chunk in chunks if chunk.small is not None))


def _text_layers(build: Build, sentiment: Sentiment, texts: Texts | None) -> list[LayerRows]:
    if "parquet" not in build.config.write.formats or texts is None:
        return []
    return [make.t4sa_text_layer(sentiment, texts), make.raw_text_layer(texts)]


def _provenance(build: Build, layer: LayerRows) -> dict[str, Any]:
    """What a layer was made from. Raw tweets are told by what was kept of them: however they were packed into files,
    equal tweets give equal releases."""
    tables = {
        "tweets.parquet": build.path(collect.NAME, "tweets.parquet"),
        "images.arrow": build.path(selection.NAME, "images.arrow"),
    }
    named = [
        {"name": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for name, path in tables.items()
        if layer.source is not None or name == "tweets.parquet"
    ]
    config = build.config
    chosen = {name: settings_of(getattr(config, name)) for name in ("collect", "label", "select")}
    if layer.source is not None:
        chosen |= {name: settings_of(getattr(config, name)) for name in ("inspection", "dedup", "balance", "split")}
    removals = chosen["select"].pop("removals")  # that there was a list, and no name of it
    told = {"source": SOURCE, "text": config.write.text, "shard_bytes": config.write.shard_bytes, **chosen}
    told |= {"removals": True} if removals else {}
    told |= {"small": small.settings()} if layer.name == small.LAYER else {}
    return {"inputs": named, "settings": told, "fingerprint": fingerprint(NAME, VERSION, named, told)}


def _tell_ledger(build: Build, layers: Mapping[str, LayerRows]) -> None:
    """Each candidate and its fate: tweets by where they left, then images."""
    ledger = build.run.ledger
    left = pq.read_table(build.path(collect.NAME, "ledger.parquet"), columns=["tweet_id", "reason"])
    left = left.filter(left["reason"].is_valid())
    _drop_by_reason(build, "tweet", left["tweet_id"], left["reason"])
    tweets = build.table(selection.NAME, "tweets")
    _drop_by_reason(build, "tweet", tweets["tweet_id"], tweets["reason"])
    ids = tweets.filter(tweets["reason"].is_null())["tweet_id"]
    ledger.keep("tweet", ids, "t4sa-text", pa.chunked_array([pa.repeat(FURTHER, len(ids))]))
    removed = build.table(selection.NAME, "removed")
    ledger.drop("image", _keys(removed), selection.REMOVED)
    images = build.table(selection.NAME, "images")
    _drop_by_reason(build, "image", _keys(images), build.table(fetch.NAME, "fetched")["reason"])
    seen = build.table(inspection.NAME, "inspected")["reason"]
    _drop_by_reason(build, "image", _keys(images), pc.binary_join_element_wise(QUARANTINED, seen, ""))
    for name, layer in layers.items():
        if layer.source is not None:
            ledger.keep(
                "small image" if name == small.LAYER else "image", layer.table["key"], name, layer.table["split"]
            )


def _keys(images: pa.Table) -> pa.Array:
    return keys_of(images["tweet_id"].to_numpy(), images["image_index"].to_numpy())


def _drop_by_reason(build: Build, kind: str, keys: Any, reasons: pa.ChunkedArray) -> None:
    for reason in sorted(reasons.drop_null().unique().to_pylist()):
        build.run.ledger.drop(kind, keys.filter(pc.equal(reasons, reason).fill_null(False)), reason)


def _tell_report(build: Build, layers: Sequence[LayerRows], sentiment: Sentiment, texts: Texts | None) -> None:
    report, named = build.run.report, {layer.name: layer for layer in layers}
    configs = [name for name, one in CONFIGS.items() if one.layers and set(one.layers) <= set(named)]
    originals = {name: layer for name, layer in named.items() if name != small.LAYER}
    inspected = build.table(inspection.NAME, "inspected")
    report.counts = tell.count_rows(configs, named)
    report.checks = tell.text_checks(sentiment, texts) | tell.image_checks(originals, inspected, sentiment)
    report.funnel = build.run.ledger.funnel()


class _File:
    """A file of fetched images, as `write_quarantine` reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, offset: int, length: int) -> bytes:
        with RangeReader(self.path.parent) as reader:
            return reader.read(self.path.name, offset, length)


def _set_aside(build: Build) -> None:
    """Bytes, row and reason of each image that does not decode go to `DIR/quarantine`."""
    inspected, fetched = build.table(inspection.NAME, "inspected"), build.table(fetch.NAME, "fetched")
    bad = np.flatnonzero(inspected["reason"].is_valid())
    files = [_File(path) for path in fetch.files_of(build)]
    rows = []
    columns = build.table(selection.NAME, "images").take(bad), inspected.take(bad), fetched.take(bad)
    for image, seen, place in zip(*(table.to_pylist() for table in columns), strict=True):
        row = Quarantined(
            key=make_key(image["tweet_id"], image["image_index"]),
            split=None,
            label=image["label"],
            reason=seen["reason"],
            detail=seen["detail"],
            sha256=seen["sha256"].hex(),
            archive=files[place["file"]].path.name,
            offset=place["offset"],
            length=place["length"],
        )
        rows.append(row)
    write_quarantine(build.run.out, rows, {file.path.name: file for file in files})
    build.run.report.quarantined = [{"key": row.key, "reason": row.reason, "detail": row.detail} for row in rows]
