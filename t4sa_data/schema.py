"""The record: one sample is one image. Its columns, keys, Arrow schema and `datasets` features stand here, once."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadKey

if TYPE_CHECKING:
    import datasets

_KEY = re.compile(r"(?P<tweet_id>[0-9]{1,19})-(?P<image_index>[1-4])")
_MAX_ID = 2**63 - 1

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Storage of `datasets.Image`: the original bytes, and a file name for tools that want one."""

# Column -> (Arrow type, what it is). The order is the order in every file.
_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "label": (pa.int64(), "0 negative, 1 neutral, 2 positive: the official list's word"),
    "key": (pa.string(), "<tweet_id>-<image_index>, unique over all layers"),
    "split": (pa.string(), "train, validation or test"),
    "tweet_id": (pa.int64(), "Twitter's id of the tweet"),
    "image_index": (pa.int8(), "which image of the tweet, 1 to 4"),
    "negative": (pa.float32(), "the text labeller's probability; null where the tweet is not in the TSV"),
    "neutral": (pa.float32(), "as above"),
    "positive": (pa.float32(), "as above"),
    "confidence": (pa.float32(), "the largest of the three"),
    "text": (pa.string(), "the tweet's text; null where unknown or left out"),
    "width": (pa.int32(), "pixels as shown, after EXIF rotation"),
    "height": (pa.int32(), "pixels as shown, after EXIF rotation"),
    "phash": (pa.string(), "64-bit perceptual hash, 16 hex digits"),
    "duplicate_group": (pa.string(), "key of the first image of its near-duplicate group; its own where it is alone"),
    "sha256": (pa.string(), "of the image's bytes, 64 hex digits"),
}
# What `twitter-testing` has besides.
_TWITTER_TESTING_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "media_key": (pa.string(), "Twitter's name of the picture; rows that share one are twins: one picture twice"),
    "agreement": (pa.int8(), "how many of five workers agreed on the label: 5, 4 or 3"),
    "fold_5": (pa.int8(), "1 to 5: fold among the images on which five agree; null where it is in none"),
    "fold_4": (pa.int8(), "as above, among the images on which at least four agree"),
    "fold_3": (pa.int8(), "as above, among all images"),
}
DESCRIPTIONS = {
    "image": "the original bytes, never re-encoded",
    **{name: text for name, (_, text) in {**_COLUMNS, **_TWITTER_TESTING_COLUMNS}.items()},
}

RECORD = pa.schema([(name, kind) for name, (kind, _) in _COLUMNS.items()])
"""Everything about a sample but its image, in the order of the files."""

TWITTER_TESTING_RECORD = pa.schema([*RECORD, *((name, kind) for name, (kind, _) in _TWITTER_TESTING_COLUMNS.items())])
"""The same for `twitter-testing`: a person's label in place of a labeller's (its probabilities and text are null)."""

SAMPLE = pa.schema([("image", IMAGE_TYPE), *RECORD])
"""A row of an image layer's Parquet shard."""

_PLACE = (("file", pa.string()), ("offset", pa.int64()), ("length", pa.int64()))
TABLE = pa.schema([*RECORD, *_PLACE])
"""The sample table: the record, and where its bytes are (`file` below the manifest's `data_root`; bytes)."""

TEXT_RECORD = pa.schema(
    [RECORD.field(c) for c in ("tweet_id", "negative", "neutral", "positive", "confidence")]
    + [RECORD.field("label"), RECORD.field("text"), RECORD.field("split")]
)
"""A row of `t4sa-text`."""

RAW_TEXT_RECORD = pa.schema([RECORD.field("tweet_id"), RECORD.field("text"), RECORD.field("split")])
"""A row of `raw-text`."""

PROBABILITIES = CLASSES
"""The three probability columns bear the classes' names."""


def layer_schema(layer: str) -> pa.Schema:
    """The Arrow schema of a layer's Parquet shards."""
    texts = {"t4sa-text": TEXT_RECORD, "raw-text": RAW_TEXT_RECORD}
    return texts[layer] if layer in texts else pa.schema([("image", IMAGE_TYPE), *record_schema(layer)])


def record_schema(layer: str) -> pa.Schema:
    """Everything about a sample of an image layer but its image, in the order of the files."""
    return TWITTER_TESTING_RECORD if layer == "twitter-testing" else RECORD


def table_schema(layer: str) -> pa.Schema:
    """The sample table of an image layer: `TABLE`, with the columns that this layer has besides."""
    return pa.schema([*record_schema(layer), *_PLACE])


def make_key(tweet_id: int, image_index: int) -> str:
    """The key of an image.

    >>> make_key(767724493873516544, 1)
    '767724493873516544-1'
    """
    return f"{tweet_id}-{image_index}"


def parse_key(key: str, *, where: object | None = None) -> tuple[int, int]:
    """Tweet id and image index of a key.

    Raises:
        BadKey: not `<tweet id>-<1..4>`, or an id of more than 63 bits.

    >>> parse_key("767724493873516544-1")
    (767724493873516544, 1)
    """
    match = _KEY.fullmatch(key)
    if match is None or int(match["tweet_id"]) > _MAX_ID:
        raise BadKey(
            "not a key of T4SA",
            expected="<tweet id>-<1..4> without dots",
            got=repr(key[:80]),
            where=where,
            hint="Check that this is the official file.",
        )
    return int(match["tweet_id"]), int(match["image_index"])


def features(layer: str = "b-t4sa", columns: list[str] | None = None) -> datasets.Features:
    """The `datasets` features of a layer (images as RGB, labels as ClassLabel).

    Args:
        layer: any layer of the catalog; all image layers but `twitter-testing` share one set.
        columns: keep these only, in this order.
    """
    import datasets

    made = {}
    for field in layer_schema(layer):
        if field.name == "image":
            made[field.name] = datasets.Image(mode="RGB")
        elif field.name == "label":
            made[field.name] = datasets.ClassLabel(names=list(CLASSES))
        else:
            made[field.name] = datasets.Value(str(field.type).replace("float", "float32"))
    return datasets.Features({name: made[name] for name in columns} if columns else made)


def to_json(row: dict[str, Any], layer: str = "b-t4sa") -> bytes:
    """The `.json` member of a sample: every column of the layer's record, always, in its order.

    The tweet id is a string (JavaScript and many JSON readers round integers above 2^53); floats are the shortest
    decimal that gives the same float32 back.

    >>> row = dict.fromkeys(RECORD.names) | {"tweet_id": 2**60 + 1, "negative": np.float32(0.1)}
    >>> json.loads(to_json(row))["tweet_id"], json.loads(to_json(row))["negative"]
    ('1152921504606846977', 0.1)
    """
    made = {name: row[name] for name in _names(layer)}
    made["tweet_id"] = str(made["tweet_id"])
    for name in _FLOATS:
        if made[name] is not None:
            made[name] = float(str(np.float32(made[name])))
    return _ENCODER.encode(made).encode()


@cache
def _names(layer: str) -> tuple[str, ...]:
    return tuple(record_schema(layer).names)


_FLOATS = tuple(field.name for field in RECORD if field.type == pa.float32())
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def from_json(data: bytes, layer: str = "b-t4sa") -> dict[str, Any]:
    """The row that `to_json` wrote.

    Raises:
        ValueError: no JSON object with exactly the columns of the layer's record.
    """
    row, names = json.loads(data), list(_names(layer))
    if not isinstance(row, dict) or list(row) != names:
        raise ValueError(f"columns are not {names}")
    row["tweet_id"] = None if row["tweet_id"] is None else int(row["tweet_id"])
    return row
