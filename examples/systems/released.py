"""Networks that are there, as they are: Hybrid-T4SA and VGG-T4SA of table 1, released by the authors. [published]

Three classes; two ways by dropping neutral, then argmax (`catalog.PROTOCOL`). `--pretrained released` fetches and
converts the archives (`fetching`); or the user imports one with `examples/convert.py` and names its folder: `--init
"VGG-T4SA FT-A=FOLDER"`. A re-implementation of CNN or PCNN that was trained on three classes goes the same way, and so
does our row among the systems since. With `--smoke` and no folder, an untrained small network does; its number is that
of guessing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa

from examples.errors import Needs
from examples.systems.protocol import MODEL_JSON, VERSION, Options, digest_of
from t4sa_data.catalog import CLASSES
from t4sa_data.reading import open_release


def predictions(data: str | Path, config: str, options: Options) -> pa.Table:
    """Predictions for the test split, columns as `examples.evaluation.predictions.SCHEMA`; kept in `work`.

    Raises:
        Needs: no model folder was named.
        T4SAError: it, or the release, cannot be read.
    """
    import pyarrow.parquet as pq

    from examples.evaluation.predicting import find_device, predict
    from examples.evaluation.predictions import save_table
    from examples.models.folder import load_model

    folder = options.init or (_untrained(options.work / "untrained") if options.smoke else None)
    if folder is None:
        raise Needs("no model folder was named", hint="Import the authors' archive with examples/convert.py.")
    content = open_release(data).manifest.content_digest
    stamp = hashlib.sha256(f"{VERSION} {content} {config} {digest_of(folder)}".encode()).hexdigest()[:24]
    path = options.work / "predictions" / f"{stamp}.parquet"
    if path.is_file():
        return pq.read_table(path, partitioning=None)
    found = predict(load_model(folder), data, config=config, device=find_device(options.device), workers=1)
    assert found is not None, "one process, one rank"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_table(path, found)
    return found


def answers_three_ways(folder: Path) -> bool:
    """Whether a model folder's network has T4SA's three classes."""
    if not (folder / MODEL_JSON).is_file():
        return False
    from examples.models.folder import read_json

    return sorted(read_json(folder)["classes"]) == sorted(CLASSES)


def _untrained(folder: Path) -> Path:
    """A folder of the small network, weights as drawn."""
    import torch

    from examples.models import build, default_input
    from examples.models.folder import Model, save_model

    if not (folder / MODEL_JSON).is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build("smoke")
        save_model(folder, Model(network=network, architecture="smoke", input=default_input("smoke")))
    return folder
