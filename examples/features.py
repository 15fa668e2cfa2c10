"""What a network of Caffe's kind sees in pictures: any blob of it, a row a picture, by image key.

    python examples/features.py --model MODEL --data DIR --out scores.npz                 # the last blob: probabilities
    python examples/features.py --model MODEL --blob fc7 --data DIR --out fc7.npz
    python examples/features.py --model MODEL --blob fc7 --data DIR --config b-t4sa --split train --out fc7.parquet

MODEL is a folder of examples/convert.py (with --any-classes where the outputs are no sentiment), or RUN/best. The file
is what `benchmark_table.py --init "DeepSentiBank=scores.npz"` reads. `.npz` holds `keys` and `scores`, put together in
memory; `.parquet` (columns `key`, `scores`) is written as it comes. Needs the extra [train].
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from examples.terminal import run
from t4sa_data.errors import BadOption
from t4sa_data.files import atomic_file, write_bytes

if TYPE_CHECKING:
    from examples.models.folder import Model

SUFFIXES = (".npz", ".parquet")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="features.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", type=Path, required=True, help="a model folder")
    made.add_argument("--blob", help="of the network; default: its last, probabilities where it ends in a softmax")
    made.add_argument("--data", required=True, help="a release, as for t4sa_data.stream")
    made.add_argument("--config", default="twitter-testing", help="of the release; default: twitter-testing")
    made.add_argument("--split", default="test", help="of the config; default: test")
    made.add_argument("--out", type=Path, required=True, help=f"file, {' or '.join(SUFFIXES)}")
    made.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    made.add_argument("--batch-size", type=int, default=64, help="pictures at a time; default: 64")
    return made


def main(argv: list[str] | None = None) -> None:
    """Write the table."""
    options = parser().parse_args(argv)
    if options.out.suffix not in SUFFIXES:
        raise BadOption("--out: no such kind of file", expected=" | ".join(SUFFIXES), got=options.out.name)
    from examples.evaluation.predicting import find_device
    from examples.models.folder import load_model

    rows = features(
        load_model(options.model),
        options.data,
        blob=options.blob,
        config=options.config,
        split=options.split,
        device=find_device(options.device),
        batch_size=options.batch_size,
    )
    write = write_npz if options.out.suffix == ".npz" else write_parquet
    num, width = write(options.out, rows)
    print(f"{num:,} pictures, {width:,} numbers each: {options.out}")


def features(
    model: Model,
    data: str | Path,
    *,
    blob: str | None = None,
    config: str = "twitter-testing",
    split: str = "test",
    device: Any = "cpu",
    batch_size: int = 64,
) -> Iterator[tuple[list[str], Any]]:
    """A blob for every picture of a split, in release order; see `examples.models.blobs`.

    Args:
        model: of a network of Caffe's kind; fed as its `input` says.
        data: a release, as for `stream`.
        blob: name of the blob; None: the last.
        config: an image config.
        split: of the config.
        device: to work on.
        batch_size: pictures at a time.

    Returns:
        keys of B pictures, and their features, float32 [B, D], batch by batch.

    Raises:
        BadOption, ModelFileError, PredictionsError: see `blobs`; when the first is asked for.
        T4SAError: what `stream` raises.
    """
    from examples.models.blobs import blobs, pictures_for

    return blobs(model, blob, pictures_for(model, data, config=config, split=split, batch_size=batch_size), device)


def write_npz(path: Path, rows: Iterator[tuple[list[str], Any]]) -> tuple[int, int]:
    """Write keys and scores as NumPy's archive; how many pictures, how many numbers each."""
    keys, parts = list[str](), list[Any]()
    for names, found in rows:
        keys += names
        parts.append(found)
    scores = np.concatenate(parts)
    buffer = io.BytesIO()
    np.savez(buffer, keys=np.array(keys), scores=scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return scores.shape


def write_parquet(path: Path, rows: Iterator[tuple[list[str], Any]]) -> tuple[int, int]:
    """Write keys and scores (lists of one length) as Parquet, a batch at a time; as `write_npz`."""
    num = width = 0
    writer = None
    with atomic_file(path) as sink:
        for keys, found in rows:
            num, width = num + len(keys), found.shape[1]
            scores = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), width)
            table = pa.table({"key": pa.array(keys), "scores": scores})
            writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return num, width


if __name__ == "__main__":
    run(main)
