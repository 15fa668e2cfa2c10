"""What a model says about pictures: a table, or JSON.

    python examples/predict.py photo.jpg other.png --model MODEL
    python examples/predict.py FOLDER --model RUN/best --json
    ls *.jpg | python examples/predict.py - --model MODEL --grid top.png

A picture that does not decode is named on stderr, the others are predicted all the same; the exit status is then 1.
Needs the extra [train].
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from examples.terminal import run
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadImage, InputMissing

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
"""Files of a folder that are taken for pictures."""
BATCH_SIZE = 16
GRID_PICTURES = 8
"""Of each class in `--grid`."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("images", nargs="+", help="files, folders, or - for a list on stdin, one a line")
    made.add_argument("--model", type=Path, required=True, help="a model folder: of convert.py, or RUN/best")
    made.add_argument("--json", action="store_true", help="an array of objects: name, class, probabilities by class")
    made.add_argument("--grid", type=Path, help="PNG of the pictures that are most surely of each class")
    made.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    return made


def find_images(names: Sequence[str], listed: Sequence[str] = ()) -> list[Path]:
    """Paths of the pictures, in the order given; those of a folder, and of folders in it, sorted.

    Args:
        names: files, folders, `-`.
        listed: what `-` stands for.

    Raises:
        InputMissing: there is nothing.
    """
    found: list[Path] = []
    for name in names:
        for one in listed if name == "-" else [name]:
            path = Path(one)
            if path.is_dir():
                inside = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
                found += sorted(inside)
            else:
                found.append(path)
    if not found:
        raise InputMissing(
            "no pictures", expected=f"files, or folders with {' '.join(SUFFIXES)}", where=", ".join(names)
        )
    return found


def read_pictures(paths: Sequence[Path], size: int, bad: list[str]) -> Iterator[tuple[Path, Any]]:
    """Pictures as a stream would give them, uint8 [3, size, size]; those that cannot be read are named in `bad`."""
    import numpy as np
    import torch

    from t4sa_data.pixels import decode_rgb
    from t4sa_data.streaming.images import Augment, Geometry, fit

    geometry = Geometry(size=size, resize="squash", augment=Augment())
    for path in paths:
        try:
            image_HWC = torch.from_numpy(np.array(decode_rgb(path.read_bytes())))
        except (BadImage, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"error: {path}: {reason}", file=sys.stderr)
            bad.append(str(path))
            continue
        yield path, fit(image_HWC.permute(2, 0, 1), geometry, None)


def predict_images(paths: Sequence[Path], folder: Path, device: str = "auto") -> tuple[list[dict[str, Any]], list[str]]:
    """Predictions of a model for pictures.

    Args:
        paths: of the pictures.
        folder: of the model.
        device: see `find_device`.

    Returns:
        for each that decodes: name, class, probabilities by class name; and the names of the others.
    """
    import itertools

    import torch

    from examples.evaluation.predicting import Forward, find_device, softmax
    from examples.models.folder import load_model

    model = load_model(folder)
    forward = Forward(model, find_device(device))
    found: list[dict[str, Any]] = []
    bad: list[str] = []
    pictures = read_pictures(paths, model.input.stream_px, bad)
    while batch := list(itertools.islice(pictures, BATCH_SIZE)):
        logits_BK = forward(torch.stack([picture for _, picture in batch]))
        for (path, _), row in zip(batch, softmax(logits_BK.numpy()).tolist(), strict=True):
            probabilities = dict(zip(CLASSES, row, strict=True))
            best = max(CLASSES, key=lambda name: probabilities[name])
            found.append({"name": str(path), "class": best, "probabilities": probabilities})
    return found, bad


def as_table(found: Sequence[dict[str, Any]]) -> str:
    """Name, class and probabilities in columns."""
    width = max((len(one["name"]) for one in found), default=4)
    lines = [f"{'name':<{width}}  {'class':<8}  {'  '.join(f'{name:>8}' for name in CLASSES)}"]
    for one in found:
        numbers = "  ".join(f"{one['probabilities'][name]:8.3f}" for name in CLASSES)
        lines.append(f"{one['name']:<{width}}  {one['class']:<8}  {numbers}")
    return "\n".join(lines)


def write_grid(found: Sequence[dict[str, Any]], path: Path) -> None:
    """The pictures that are most surely of each class, as a PNG."""
    from examples.evaluation.grid import PICTURE_PX, Cell, Shown, thumbnail, write_rows
    from t4sa_data.pixels import decode_rgb

    cells = []
    for name in CLASSES:
        of_class = [one for one in found if one["class"] == name]
        best = sorted(of_class, key=lambda one: -one["probabilities"][name])[:GRID_PICTURES]
        shown = [
            Shown(
                picture=thumbnail(decode_rgb(Path(one["name"]).read_bytes()), PICTURE_PX),
                probability=one["probabilities"][name],
            )
            for one in best
        ]
        cells.append(Cell(truth=None, predicted=name, n=len(of_class), shown=shown))
    write_rows(cells, path, title=f"{len(found):,} pictures by predicted class")


def main(argv: list[str] | None = None) -> int:
    """Predict and print; the exit status."""
    options = parser().parse_args(argv)
    listed = [line for line in sys.stdin.read().splitlines() if line.strip()] if "-" in options.images else []
    found, bad = predict_images(find_images(options.images, listed), options.model, options.device)
    print(json.dumps(found, indent=1, ensure_ascii=False) if options.json else as_table(found))
    if options.grid and found:
        write_grid(found, options.grid)
    return 1 if bad else 0


if __name__ == "__main__":
    run(main)
