"""All steps of a training on real pictures, of every size and kind: nothing is learned from so few, all has to run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
from examples import train
from t4sa_data import release
from t4sa_data.pixels import inspect_image
from t4sa_data.schema import RECORD, make_key

# isort: split
from tests.evaluation_helpers import _layer
from tests.test_pixels_fast import PHOTOS

SPLITS = ("train", "train", "train", "validation", "test")


def make_photo_release(folder: Path, num: int = 120) -> int:
    """A release of the pictures that are readable, labels in turn; how many there are."""
    rows, images = [], {}
    for path in sorted(path for path in PHOTOS.rglob("*") if path.is_file()):
        data = path.read_bytes()
        try:
            seen = inspect_image(data)
        except Exception:
            continue
        if len(rows) == num:
            break
        number, confidence = len(rows), 0.9
        key = make_key(757_000_000_000_000_000 + 97 * number, 1)
        images[key] = data
        others = [0.05, 0.05]
        others.insert(number % 3, confidence)
        rows.append(
            dict(zip(("negative", "neutral", "positive"), others, strict=True))
            | {"label": number % 3, "key": key, "split": SPLITS[number // 3 % 5], "tweet_id": int(key[:-2])}
            | {"image_index": 1, "confidence": confidence, "text": path.name, "phash": seen.phash}
            | {"width": seen.width, "height": seen.height, "duplicate_group": key}
            | {"sha256": hashlib.sha256(data).hexdigest()}
        )
    table = pa.Table.from_pylist(rows, schema=RECORD)
    release.seal(folder, "parquet", [_layer(folder, "b-t4sa", table, images)])
    return len(rows)


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no real photos (../shared/data/photos)")
def test_real_photos_go_through_all_steps(tmp_path: Path) -> None:
    num, out = make_photo_release(tmp_path / "data"), tmp_path / "run"
    typed = ["--recipe", "smoke", "--device", "cpu", "--epochs", "2", "--data", str(tmp_path / "data")]
    assert train.main([*typed, "--out", str(out)]) == 0
    found = json.loads((out / "evaluation" / "results.json").read_text())["b-t4sa"]
    assert num > 80 and found["n"] == sum(SPLITS[n // 3 % 5] == "test" for n in range(num))
    assert all((out / name).exists() for name in ("report.md", "inputs.png", "curves.png", "confusion.png"))
    assert (out / "evaluation" / "grid-b-t4sa.png").exists()
