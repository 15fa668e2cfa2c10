"""What an image model says of samples: a folder of `examples/convert.py`, or RUN/best. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from examples.evaluation.metrics import three_way_scores
from examples.evaluation.predictions import logits_of, probabilities_of
from examples.relabelling.samples import Found, Samples, labels_of
from t4sa_data.catalog import TABLE_1


def from_model(
    folder: Path, data: str, samples: Samples, *, device: str = "auto", batch_size: int = 32, workers: int | None = None
) -> Found:
    """What an image model says of every sample, in float32.

    Args:
        folder: of the model.
        data: the release that `samples` are of.
        samples: to label.
        device: see `find_device`.
        batch_size: pictures of a forward pass.
        workers: threads that decode; None: one a core.

    Raises:
        InputMissing, ModelFileError, WeightsMismatch, DeviceError: of the model.
        PredictionsError: logits that are no numbers.
    """
    from examples.evaluation.predicting import find_device, predict
    from examples.models.folder import load_model, read_json

    model, place, description = load_model(folder), find_device(device), read_json(folder)
    notes, tables = own_pictures(model.source, samples), []
    for note in notes:  # before hours of work
        print(f"warning: {note}", flush=True)
    for split in samples.splits:
        found = predict(
            model, data, config=samples.config, split=split, device=place, batch_size=batch_size, workers=workers
        )
        assert found is not None, "one process relabels"
        tables.append(found)
    table = pa.concat_tables(tables)
    assert table["key"].combine_chunks().equals(samples.keys.cast(pa.string())), "both are in release order"
    probabilities = probabilities_of(table)
    about = {
        "model": f"{folder.name}, {model.architecture}",
        "sha256": description["files"][description["weights"]],
    }
    return Found(
        label=labels_of(three_way_scores(probabilities, logits_of(table))),
        probabilities=probabilities.astype(np.float32),
        about=about,
        notes=notes,
    )


def own_pictures(source: Mapping[str, Any], samples: Samples) -> list[str]:
    """A warning where a model learned from the very pictures it labels: it mostly repeats what it was told.

    Args:
        source: of `model.json`.
        samples: to label.
    """
    recipe = source.get("recipe") if isinstance(source.get("recipe"), Mapping) else {}
    assert isinstance(recipe, Mapping)
    is_t4sa = any(row.system == source.get("system") for row in TABLE_1 if "T4SA" in row.system)
    learned = str(recipe.get("train_split", "train" if is_t4sa else ""))
    if learned not in samples.splits:
        return []
    who = f"{recipe.get('config')}/{learned}" if recipe else f"the pictures of B-T4SA's {learned} split"
    return [
        f"this model learned from {who}, which it labels here: on them it mostly repeats the labels it was given. "
        "Relabel with a text model, or with an image model that learned from other pictures"
    ]
