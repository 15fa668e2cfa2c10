"""Any blob of a network of Caffe's kind, for the pictures of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from examples.errors import PredictionsError
from examples.models.folder import Model
from examples.models.graph import Net
from t4sa_data import stream
from t4sa_data.errors import BadOption


def pictures_for(model: Model, data: str | Path, **more: Any) -> Iterable[Mapping[str, Any]]:
    """Batches of pictures as a model is fed them, in release order, each once, all to this process.

    Args:
        model: its `input` says the size.
        data: a release, as for `stream`.
        more: of `stream`: `config`, `split`, `batch_size`, `where`, `labels`, `workers`.
    """
    fixed: dict[str, Any] = {"shuffle": False, "tail": "ragged", "rank": 0, "world_size": 1}
    return stream(data, size=model.input.stream_px, resize="squash", **fixed, **more)


def blobs(
    model: Model, blob: str | None, batches: Iterable[Mapping[str, Any]], device: torch.device | str
) -> Iterator[tuple[list[str], npt.NDArray[np.float32]]]:
    """A blob for each batch of pictures.

    Args:
        model: fed as its `input` says.
        blob: name of the blob; None: the last, probabilities where the network ends in a softmax.
        batches: of `pictures_for`.
        device: to work on.

    Yields:
        keys of B pictures, and the blob, flat: float32 [B, D].

    Raises:
        BadOption: the network is of another kind.
        ModelFileError: it has no such blob; the message names those that it has.
        PredictionsError: a number that is not finite.
    """
    if not isinstance(model.network, Net):
        raise BadOption("a network of Caffe's kind", got=model.architecture, hint="Its blobs have names.")
    network, prepare = model.network.to(device).eval(), model.prepare().to(device)
    wanted = blob or next(reversed(network.softmaxes), network.output_blob)
    for batch in batches:
        with torch.inference_mode():
            value = network.features(prepare(batch["image"].to(device)), wanted)
        found = value.flatten(1).float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            raise PredictionsError("features that are no numbers", got=wanted, where=batch["key"][int(bad[0])])
        yield batch["key"], found
