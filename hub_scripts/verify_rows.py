"""Random rows of a repository, read as researchers read them, against the sample table: by `datasets` from a stream,
and by byte range as `t4sa_data.stream` does.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hub_scripts.client import Hub, explain
from t4sa_data.errors import (
    CredentialsError,
    DownloadError,
    HubAccessError,
    HubConflict,
    HubRefused,
    HubUnreachable,
    MissingDependency,
    OutputError,
    T4SAError,
)
from t4sa_data.manifest import Manifest
from t4sa_data.shards import read_table

NOT_CONTENT = (
    CredentialsError,
    DownloadError,
    HubAccessError,
    HubConflict,
    HubRefused,
    HubUnreachable,
    MissingDependency,
    OutputError,
)
"""Errors that say nothing of what is published: the network, the Hub, this machine."""
_COMPARED = ("key", "split", "label", "tweet_id", "image_index", "width", "height", "text", "sha256")


def check_rows(
    hub: Hub, repo_id: str, tag: str, manifest: Manifest, num_samples: int, chance: random.Random
) -> tuple[list[str], int]:
    """Read random rows of a random image layer both ways.

    Returns:
        The faults, and the number of rows that were read.

    Raises:
        T4SAError: the repository cannot be opened at all, or one of `NOT_CONTENT`.
    """
    from t4sa_data.reading.cache import Cache
    from t4sa_data.reading.release import Range
    from t4sa_data.reading.remote import open_remote

    layers = [name for name, layer in manifest.layers.items() if layer.kind == "image"]
    if not layers:
        return [], 0
    layer = chance.choice(layers)
    faults: list[str] = []
    with TemporaryDirectory(prefix="t4sa-verify-") as folder:
        opened = open_remote(f"hf://datasets/{repo_id}@{tag}", Cache(Path(folder)), token=hub.token)
        table = read_table(opened.table(layer), layer=layer)
        chosen = sorted(chance.sample(range(table.num_rows), min(num_samples, table.num_rows)))
        source = opened.source()
        try:
            for row in table.take(pa.array(chosen)).to_pylist():
                try:
                    data = source.read(Range(row["file"], row["offset"], row["length"]))
                except NOT_CONTENT:
                    raise
                except T4SAError as error:
                    faults.append(f"{row['file']}: {row['key']} cannot be read by range: {error}")
                    continue
                if hashlib.sha256(data).hexdigest() != row["sha256"]:
                    faults.append(
                        f"{row['file']}: {row['key']}: the bytes at {row['offset']} are not the table's image"
                    )
        finally:
            source.abort()
            source.close()
    streamed = _check_stream(hub, repo_id, tag, manifest, layer, table, num_samples, chance, faults)
    return faults, len(chosen) + streamed


def _check_stream(
    hub: Hub,
    repo_id: str,
    tag: str,
    manifest: Manifest,
    layer: str,
    table: pa.Table,
    num_samples: int,
    chance: random.Random,
    faults: list[str],
) -> int:
    """The first rows of a random shard through `datasets.load_dataset(repo_id, streaming=True)`; how many."""
    import datasets

    config = next((name for name in manifest.configs if layer in _layers_of(name)), None)
    if config is None:  # a layer whose config needs another one that is not here
        return 0
    split = chance.choice(list(manifest.splits(config)))
    shards = manifest.shards(config, split)
    number = chance.randrange(len(shards))
    shard = shards[number]
    try:
        # An empty cache: `datasets` would go on with an old copy, where the Hub fails, and say nothing.
        with TemporaryDirectory(prefix="t4sa-verify-") as cache, explain(repo_id, tag):
            options: dict[str, Any] = {"revision": tag, "streaming": True, "token": hub.token, "cache_dir": cache}
            stream = datasets.load_dataset(repo_id, config, split=split, **options)
            if stream.num_shards != len(shards):
                faults.append(
                    f"{config}/{split}: `datasets` sees {stream.num_shards} shards, the manifest has {len(shards)}"
                )
                return 0
            one = stream.decode(False).shard(num_shards=len(shards), index=number)
            rows = list(one.take(num_samples))
    except NOT_CONTENT:
        raise
    except Exception as error:  # whatever `datasets` raises on what a researcher would load
        faults.append(f"{config}/{split}: `datasets` cannot stream it ({type(error).__name__})")
        return 0
    if shard.layer != layer:  # a config may be of several layers: only one table was fetched
        return len(rows)
    wanted = table.filter(pc.equal(table["file"], shard.name)).slice(0, len(rows)).to_pylist()
    if len(wanted) != len(rows) or not rows:
        faults.append(f"{shard.name}: `datasets` gives {len(rows)} rows, the table has {len(wanted)}")
    for got, row in zip(rows, wanted, strict=False):
        for what in _differences(_as_record(got), row):
            faults.append(f"{shard.name}: {row['key']}: {what} is not the table's, read by `datasets`")
    return len(rows)


def _layers_of(config: str) -> tuple[str, ...]:
    from t4sa_data import catalog

    return catalog.CONFIGS[config].layers


def _as_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of either format, with the image's own sha256."""
    if "jpg" in row:
        record = {**(row["json"] or {}), "key": row["__key__"].rpartition("/")[2], "label": row["cls"]}
        if isinstance(record.get("tweet_id"), str):
            record["tweet_id"] = int(record["tweet_id"])
        image = row["jpg"]
    else:
        record, image = dict(row), row["image"]
    return {**record, "sha256": hashlib.sha256((image or {}).get("bytes") or b"").hexdigest()}


def _differences(got: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    return [name for name in _COMPARED if name in row and got.get(name) != row[name]]
