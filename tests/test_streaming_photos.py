"""The one rule for pixels on real pictures: one of each kind there is, always; the rest is `test_pixels_fast`'s."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("torch")
from t4sa_data.streaming.images import FastDecoder
from t4sa_data.streaming.jpeg import is_plain_jpeg
from tests.test_pixels_fast import PHOTOS, assert_same

ORIENTATION = 0x0112


def kind_of(path: Path) -> tuple[object, ...]:
    """What decoders treat apart: format, mode, progressive, orientation."""
    try:
        with Image.open(path) as image:
            return image.format, image.mode, bool(image.info.get("progressive")), image.getexif().get(ORIENTATION)
    except Exception as error:
        return (type(error).__name__,)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no real photos (../shared/data/photos)")
def test_every_kind_of_picture_that_is_there() -> None:
    fast, kinds = FastDecoder(), {}
    for path in sorted(path for path in PHOTOS.rglob("*") if path.is_file()):
        kinds.setdefault(kind_of(path), path)
    for path in kinds.values():
        assert_same(fast, path.read_bytes(), path.name)
    modes = {kind[1] for kind in kinds if len(kind) == 4}
    assert modes >= {"RGB", "L", "P", "RGBA", "CMYK", "1", "LA"} and len(kinds) > 20
    assert 3 <= sum(is_plain_jpeg(path.read_bytes()) for path in kinds.values()) < len(kinds) / 2
