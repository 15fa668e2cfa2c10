"""What the tests of the card share: layers made by the code that makes real ones, fresh interpreters for readers."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa

from t4sa_data import catalog, release
from t4sa_data.schema import TEXT_RECORD, TWITTER_TESTING_RECORD
from t4sa_data.shards import read_table
from t4sa_data.testing.releases import record_table

COLUMNS = ["key", "split", "label", "sha256"]


def rows(folder, *layers):
    """(key, split, label, sha256) of layers' rows, in release order."""
    tables = [read_table(Path(folder) / layer / "index.parquet", layer=layer).select(COLUMNS) for layer in layers]
    return [list(row.values()) for table in tables for row in table.to_pylist()]


def of_split(found, split):
    return [row for row in found if row[1] == split]


def image_layer(name, samples, out, formats=release.FORMATS, *, table=None, settings=None):
    images = {sample.key: sample.image for sample in samples}
    table = release.in_release_order(record_table(samples) if table is None else table)
    keys = table["key"].to_pylist()
    sizes = np.array([len(images[key]) for key in keys], dtype=np.int64)
    tasks = release.plan_shards(name, table, sizes, 20_000)
    written = [
        release.write_shard(
            out, t, table.slice(t.start, t.stop - t.start), [images[k] for k in keys[t.start : t.stop]], formats
        )
        for t in tasks
    ]
    inputs = [{"name": "b-t4sa_imgs.tar", "bytes": 12345, "sha256": "ab" * 32}]
    provenance = {"inputs": inputs, "settings": settings or {"text": "full"}, "fingerprint": "cd" * 32}
    listed = {"test": 4} if name == "b-t4sa" else {}
    left_out = {"test": [next(iter(catalog.KNOWN_BAD))]} if name == "b-t4sa" else {}
    return release.Layer(
        name=name,
        table=table,
        tasks=tasks,
        written=written,
        image_bytes=sizes,
        listed=listed,
        quarantined=left_out,
        provenance=provenance,
    )


def text_layer(table, out):
    table = table.select(TEXT_RECORD.names).set_column(7, "split", pa.array(["train"] * table.num_rows))
    tasks = release.plan_shards("t4sa-text", table, np.full(table.num_rows, 100), 1000)
    written = [release.write_text_shard(out, t, table.slice(t.start, t.stop - t.start)) for t in tasks]
    sizes = np.full(table.num_rows, 100)
    return release.Layer(name="t4sa-text", table=table, tasks=tasks, written=written, image_bytes=sizes)


def run(script, cwd, **environment):
    """Run `script` in a fresh, offline interpreter; `datasets` and mlcroissant read their settings on import."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **offline, **{k: str(v) for k, v in environment.items()}}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((Path(cwd) / "result.json").read_text())


def by_people(samples):
    """The records of samples as `twitter-testing` has them: no probabilities, no text, votes and folds instead."""
    table = record_table(samples).set_column(2, "split", pa.array(["test"] * len(samples)))
    for name in ("negative", "neutral", "positive", "confidence", "text"):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.nulls(len(samples), table.schema.field(name).type))
    for name in TWITTER_TESTING_RECORD.names[table.num_columns :]:
        kind = TWITTER_TESTING_RECORD.field(name).type
        table = table.append_column(
            name, pa.array(["B"] * len(samples) if kind == pa.string() else [3] * len(samples), kind)
        )
    return table
