"""`write`: layers, ledger, quarantine, and the release, through the writer of `prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders import layers as make
from builders import report as tell
from builders import small, twitter_testing
from builders.build_config import settings_of
from builders.building import Build
from builders.inspection import join_tables
from builders.layers import LayerRows
from builders.ledger import REMOVED
from builders.ledger.funnel import as_json, funnels_of
from builders.quarantine import Quarantined, write_quarantine
from builders.sealing import ROWS, write_release
from builders.sources.official import keys_of
from builders.sources.tables import Sentiment, Texts
from builders.stages import balance, collect, dedup, fetch, inspection, label, selection
from builders.stages.fates import LAYERS, layer_codes, names_of, split_codes, tell_ledger
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


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    chosen = build.config.write
    made_small = small.settings() if chosen.small else None
    return [settings_of(chosen), WRITE_VERSION, made_small, dict(release.toolchain())]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `DIR/t4sa`, `DIR/t4sa-wds`, `DIR/quarantine`; in `DIR/build` ledger, report and times."""
    sentiment, texts = read_tweets(build)
    made = [*_image_layers(build, sentiment, texts), *_text_layers(build, sentiment, texts)]
    layers = [make.store(layer, build.state.folder / ROWS) for layer in made]
    build.run.ledger = tell_ledger(build, {layer.name: layer for layer in layers})
    collection = as_json(funnels_of(build.run.ledger.funnel(), of_build=True))
    layers = [replace(layer, provenance=_provenance(build, layer, collection)) for layer in layers]
    _tell_report(build, layers, sentiment, texts)
    _set_aside(build)
    # Layers of an earlier build are of other pictures and splits; the Twitter Testing Dataset is of none.
    manifests = write_release(build.run, layers, stay=(twitter_testing.LAYER,))
    num_rows = {layer.name: layer.table.num_rows for layer in layers}
    total = sum(num for name, num in num_rows.items() if name in LAYERS)
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
    removed = pc.equal(tweets["reason"], REMOVED).fill_null(False)
    table = table.filter(pc.invert(removed))  # a row for each row of `tweets`
    text = table["text"].combine_chunks()
    return sentiment, Texts(tweet_id=table["tweet_id"].to_numpy(), text=text, num_rows=table.num_rows)


def _image_layers(build: Build, sentiment: Sentiment, texts: Texts | None) -> list[LayerRows]:
    images, inspected = build.table(selection.NAME, "images"), build.table(inspection.NAME, "inspected")
    fetched, drawn = build.table(fetch.NAME, "fetched"), build.table(balance.NAME, "drawn")
    representative = build.table(dedup.NAME, "groups")["representative"].to_numpy()
    layer = layer_codes(build)
    good = np.flatnonzero(layer >= 0)
    candidates = pa.table(
        {
            "tweet_id": images["tweet_id"],
            "image_index": images["image_index"],
            "label": drawn["label"],
            "split": names_of(split_codes(build), tuple(SPLITS)).cast(pa.string()),
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
    files = tuple(fetch.files_of(build))
    made = []
    for number, name in enumerate(LAYERS):
        mine = rows.filter(pa.array(layer[good] == number))
        made.append(replace(make.image_layer(name, mine), archives=files))
        if name == "b-t4sa" and build.config.write.small:
            drawn_files = fetched.take(good[layer[good] == number])
            made.append(_small_layer(build, mine, drawn_files, files))
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


def _provenance(build: Build, layer: LayerRows, collection: list[dict[str, Any]]) -> dict[str, Any]:
    """What a layer was made from; the counts of its collection go to the card.

    Raw tweets are told by what was kept of them: however they were packed into files, equal tweets give equal releases.
    """
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
    chosen["label"]["sha256"] = label.digest(build)  # a name says nothing
    removals = chosen["select"].pop("removals")  # that there was a list, and no name of it
    told = {"source": SOURCE, "text": config.write.text, "shard_bytes": config.write.shard_bytes, **chosen}
    told |= {"removals": True} if removals else {}
    told |= {"small": small.settings()} if layer.name == small.LAYER else {}
    found = fingerprint(NAME, VERSION, named, told)
    return {"inputs": named, "settings": told, "fingerprint": found, "collection": collection}


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
