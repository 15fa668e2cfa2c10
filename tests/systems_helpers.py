"""What the tests of the networks among the systems share: drawn pictures whose class shows, small networks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from examples.models import default_input, layers_of
from examples.models.folder import Model
from examples.models.graph import Net
from examples.systems import fitting
from examples.systems.data import Pictures, make_pictures
from examples.systems.protocol import Options

NUM = 40
TRAIN, TEST = np.arange(7, NUM), np.arange(7)
"""Odd: a row taken for its place would have the other class."""


def drawn(*, agreement: int = 5, side_px: int = 80, num_turned: int = 0) -> Pictures:
    """Pictures whose class shows: negative ones are blue, positive ones red; labels of the first rows turned round."""
    rng = np.random.default_rng(0)
    label, files = np.arange(NUM) % 2, []
    for one in label:
        pixels = rng.integers(0, 100, (side_px, side_px + 8, 3), dtype=np.uint8)
        pixels[..., 0 if one else 2] += 120
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        files.append(file.getvalue())
    label[:num_turned] = 1 - label[:num_turned]
    return make_pictures(
        keys=[f"{1000 + i}-1" for i in range(NUM)],
        label=label,
        agreement=np.full(NUM, agreement),
        read=lambda row: files[row],
        content=f"drawn {side_px}",
    )


def options(work: Path, system: str = "AlexNet", **more: Any) -> Options:
    return Options(**{"work": work, "system": system, "smoke": True, **more})


def small(num_classes: int = 3, *, name: str = "smoke") -> Model:
    """A network that can be kept in a folder and read back."""
    torch.manual_seed(5)
    given = default_input(name)
    network = Net(layers_of(name, num_classes, given.side_px, width=0.25), given.side_px)
    classes = ("negative", "neutral", "positive") if num_classes == 3 else fitting.CLASSES_2
    return Model(network=network, architecture=name, width=0.25, input=given, classes=classes)
