"""From inspected candidates to layers: near-duplicate groups, who is in which layer, and the records as released."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders import dedup, small
from builders.keys import Ints, Packed, find
from builders.sources.official import keys_of, pack_table
from builders.sources.tables import Sentiment, Texts
from builders.state import BATCH_ROWS, read_arrow, write_arrow
from t4sa_data.catalog import SPLITS
from t4sa_data.plan import release_order
from t4sa_data.release import row_order
from t4sa_data.schema import RAW_TEXT_RECORD, RECORD, TEXT_RECORD

SOURCE = ("archive", "offset", "length")
"""Columns that say where an image's bytes are in RAW."""


@dataclass(frozen=True, kw_only=True)
class LayerRows:
    """A layer before it is written: its rows, and for images where their bytes are."""

    name: str
    table: pa.Table
    """Columns as the layer's record in `t4sa_data.schema`; in release order once `store` has been there."""
    source: pa.Table | None = None
    """Columns `SOURCE`, row for row; None for a text layer."""
    archives: tuple[Path, ...] = ()
    """Files that `source` counts in its column `archive`."""
    gives_back: bool = False
    """They are cut while the layer is written (`givingback`)."""
    file: Path | None = None
    """Arrow file of both, which workers map; see `store`."""
    listed: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, list[str]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def row_bytes(self) -> Ints:
        """Bytes of each image, or about that of each text row, shape (n,)."""
        if self.source is not None:
            return np.asarray(self.source["length"].to_numpy())
        return np.full(self.table.num_rows, 160, dtype=np.int64)  # a tweet of 2016, its id and three numbers


def store(layer: LayerRows, folder: Path) -> LayerRows:
    """Put a layer's rows, in release order, into `folder/<name>.arrow`.

    Returns:
        The same layer, mapped from there: its memory can be given back, and workers map it too.
    """
    path = folder / f"{layer.name}.arrow"
    columns = [*layer.table.columns, *(layer.source.columns if layer.source else ())]
    names = [*layer.table.column_names, *(layer.source.column_names if layer.source else ())]
    rows, order = pa.table(columns, names=names).combine_chunks(), pa.array(row_order(layer.table))
    # A batch at a time: the texts of 3.4 million tweets are not there twice.
    write_arrow(path, rows.schema, (rows.take(order[i : i + BATCH_ROWS]) for i in range(0, len(order), BATCH_ROWS)))
    mapped = read_arrow(path)
    source = mapped.select(list(SOURCE)) if layer.source is not None else None
    return replace(layer, table=mapped.select(layer.table.column_names), source=source, file=path)


def limit_per_stratum(candidates: pa.Table, limit: int) -> npt.NDArray[np.bool_]:
    """Which candidates a `--limit` keeps: the first in release order of each (split, label), in proportion.

    Args:
        candidates: columns as `official.CANDIDATES`.
        limit: rows in all, kept exactly (where there are as many).
    """
    order = release_order(candidates["tweet_id"].to_numpy(), candidates["image_index"].to_numpy())
    label = candidates["label"].to_numpy()
    split = np.array([SPLITS.index(name) for name in candidates["split"].to_pylist()], dtype=np.int64)
    stratum = (split * 3 + label)[order]
    # Rank of each row inside its stratum, from 0 to 1: cutting all strata at one height keeps their proportions.
    sizes = np.bincount(stratum, minlength=9)
    rank = np.empty(len(order))
    for one in range(9):
        rank[stratum == one] = (np.arange(sizes[one]) + 0.5) / max(1, sizes[one])
    keep = np.zeros(len(order), dtype=bool)
    keep[order[np.argsort(rank, kind="stable")[:limit]]] = True
    return keep


def image_layers(
    candidates: pa.Table, inspected: pa.Table, sentiment: Sentiment, texts: Texts | None, unique: Packed | None
) -> list[LayerRows]:
    """Layers `b-t4sa`, `unique`, `duplicates` (these two where there are further archives), `b-t4sa-256` (where small
    pictures were made).

    Args:
        candidates: good images only, columns as `official.CANDIDATES`; archive 0 is B-T4SA's.
        inspected: row for row, columns as `inspection`'s.
        sentiment: the TSV.
        texts: the CSV; None leaves `text` null.
        unique: packed keys that a list calls unique; None finds near-duplicates by hash.
    """
    further = candidates["archive"].to_numpy() > 0
    # B-T4SA first, then by key: a group is named after its first member in this order.
    order = np.lexsort((candidates["image_index"].to_numpy(), candidates["tweet_id"].to_numpy(), further))
    candidates, inspected, further = candidates.take(order), inspected.take(order), further[order]
    phash = inspected["phash"].to_numpy()
    first = _groups(phash, int((~further).sum()))
    alone = first == np.arange(len(first)) if unique is None else find(pack_table(candidates), unique) >= 0
    keys = keys_of(candidates["tweet_id"].to_numpy(), candidates["image_index"].to_numpy())
    rows = records(candidates, inspected, keys, keys.take(pa.array(first)), sentiment, texts)
    members = {"b-t4sa": ~further, "unique": further & alone, "duplicates": further & ~alone}
    made = [
        image_layer(name, rows.filter(pa.array(which)))
        for name, which in members.items()
        if name == "b-t4sa" or further.any()
    ]
    if "small_file" in inspected.column_names:
        made.append(small_layer(rows.filter(pa.array(~further)), inspected.filter(pa.array(~further))))
    return made


def small_layer(rows: pa.Table, inspected: pa.Table) -> LayerRows:
    """`b-t4sa-256`: B-T4SA's rows, but what is said of the picture is said of the small one. The group is kept: it is
    found among the originals, so that both layers have the same."""
    said = {"width": inspected["small_width"], "height": inspected["small_height"], **hashes(inspected, "small_")}
    table = rows.select(RECORD.names)
    for name, column in said.items():
        table = table.set_column(table.schema.get_field_index(name), RECORD.field(name), column)
    source = pa.table([inspected[f"small_{name}"] for name in ("file", "offset", "length")], names=list(SOURCE))
    return LayerRows(name=small.LAYER, table=table, source=source)


def hashes(inspected: pa.Table, prefix: str = "") -> dict[str, pa.Array]:
    """Columns `phash` and `sha256` as hex digits."""
    return {
        "phash": _hex(inspected[f"{prefix}phash"].to_numpy().astype(">u8").tobytes(), 8),
        "sha256": _hex(b"".join(inspected[f"{prefix}sha256"].to_pylist()), 32),
    }


def _groups(phash: npt.NDArray[np.uint64], num_listed: int) -> Ints:
    """First member of each image's group; B-T4SA's groups are its own, so that its files do not depend on what else is
    built, and a further image belongs to the B-T4SA group it touches first."""
    listed = dedup.group(phash[:num_listed])
    if num_listed == len(phash):
        return listed
    further = dedup.group(phash)[num_listed:]
    inside = further < num_listed
    further[inside] = listed[further[inside]]
    return np.concatenate([listed, further])


def image_layer(name: str, rows: pa.Table) -> LayerRows:
    """A layer of some rows of `records`."""
    return LayerRows(name=name, table=rows.select(RECORD.names), source=rows.select(list(SOURCE)))


def records(
    candidates: pa.Table,
    inspected: pa.Table,
    keys: pa.Array,
    groups: pa.Array,
    sentiment: Sentiment,
    texts: Texts | None,
) -> pa.Table:
    """Records as `schema.RECORD`, then `SOURCE`.

    Args:
        candidates: columns as `official.CANDIDATES`.
        inspected: row for row, columns as `inspection`'s.
        keys: of the rows.
        groups: key of each row's near-duplicate group.
        sentiment: probabilities; null where a tweet is not in it.
        texts: of the tweets; None leaves `text` null.
    """
    tweet_id = candidates["tweet_id"].to_numpy()
    columns = {
        **{name: candidates[name] for name in ("label", "split", "tweet_id", "image_index", *SOURCE)},
        **_probabilities(tweet_id, sentiment),
        "key": keys,
        "text": _text(tweet_id, texts),
        "width": inspected["width"],
        "height": inspected["height"],
        "duplicate_group": groups,
        **hashes(inspected),
    }
    schema = pa.schema([*RECORD, *(candidates.schema.field(name) for name in SOURCE)])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _hex(data: bytes, width: int) -> pa.Array:
    """Strings of hex digits, each of `width` bytes of `data`."""
    num = len(data) // width
    offsets = np.arange(0, 2 * len(data) + 1, 2 * width, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), num, [None, pa.py_buffer(offsets), pa.py_buffer(data.hex().encode())])


def _probabilities(tweet_id: Ints, sentiment: Sentiment) -> dict[str, pa.Array]:
    row = find(tweet_id, sentiment.tweet_id)
    values = sentiment.probabilities[row] if len(sentiment.tweet_id) else np.zeros((len(row), 3), np.float32)
    named = dict(zip(("negative", "neutral", "positive"), values.T, strict=True)) | {
        "confidence": values.max(axis=1, initial=0)
    }
    return {name: pa.array(column, pa.float32(), mask=row < 0) for name, column in named.items()}


def _text(tweet_id: Ints, texts: Texts | None) -> pa.Array:
    if texts is None:
        return pa.nulls(len(tweet_id), pa.string())
    row = find(tweet_id, texts.tweet_id)
    return texts.text.take(pa.array(row, mask=row < 0))


def t4sa_text_layer(sentiment: Sentiment, texts: Texts | None) -> LayerRows:
    """The layer `t4sa-text`: every row of the TSV; label = argmax, split = train."""
    tweet_id = sentiment.tweet_id
    columns = {
        "tweet_id": tweet_id,
        **_probabilities(tweet_id, sentiment),
        "label": sentiment.probabilities.argmax(axis=1).astype(np.int64) if len(tweet_id) else np.zeros(0, np.int64),
        "text": _text(tweet_id, texts),
        "split": pa.repeat("train", len(tweet_id)),
    }
    table = pa.table([columns[name] for name in TEXT_RECORD.names], schema=TEXT_RECORD)
    return LayerRows(name="t4sa-text", table=table)


def raw_text_layer(texts: Texts) -> LayerRows:
    """The layer `raw-text`: every tweet of the CSV, split = train."""
    columns = [texts.tweet_id, texts.text, pa.repeat("train", len(texts.tweet_id))]
    return LayerRows(name="raw-text", table=pa.table(columns, schema=RAW_TEXT_RECORD))


def limit_rows(layer: LayerRows, limit: int) -> LayerRows:
    """A text layer's first `limit` rows in release order."""
    return replace(layer, table=layer.table.take(pa.array(row_order(layer.table)[:limit])))


def without(layer: LayerRows, tweets: Iterable[int]) -> LayerRows:
    """A text layer without some tweets."""
    gone = find(layer.table["tweet_id"].to_numpy(), np.array(sorted(tweets), np.int64)) >= 0
    return replace(layer, table=layer.table.filter(pa.array(~gone)))
