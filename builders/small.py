"""The small picture of `b-t4sa-256`: one resize and one encoding, the same for every image."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageFile

from t4sa_data.pixels import decode_rgb

SMALL_VERSION = 1
"""Bump when the same picture would be made small as other bytes."""
LAYER = "b-t4sa-256"
SHORT_SIDE_PX = 256
"""What the authors' models see is cut from 256 x 256 (`catalog.results`)."""
MOST_PX = 65_500
"""Longest side that libjpeg encodes (JPEG_MAX_DIMENSION)."""
QUALITY = 85
"""Chosen by measurement: `benchmarks/small_quality.py`, figures in benchmarks/RESULTS.md."""
SHARE = 0.19
"""Bytes of a small picture for each of its original, about; from the same measurement."""
SUBSAMPLING = "4:2:0"
"""What nearly every original has, so that nothing is left to gain by more."""


def settings() -> dict[str, Any]:
    """How small pictures are made, for fingerprints and a layer's provenance; the encoder's version is in the
    manifest's `toolchain` (pillow, libjpeg-turbo)."""
    return {
        "version": SMALL_VERSION,
        "short_side_px": SHORT_SIDE_PX,
        "filter": "lanczos",
        "format": "JPEG",
        "quality": QUALITY,
        "subsampling": SUBSAMPLING,
        "optimize": True,
    }


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the small picture: short side `SHORT_SIDE_PX`, never more than it had.

    >>> small_size(1024, 768), small_size(200, 3000), small_size(256, 131_000)
    ((341, 256), (200, 3000), (128, 65500))
    """
    scale = min(1.0, SHORT_SIDE_PX / min(width, height), MOST_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(picture: Image.Image) -> Image.Image:
    """The small picture's pixels: Lanczos over the whole footprint of each new pixel (antialiased).

    Args:
        picture: RGB, as `pixels.decode_rgb` gives it.
    """
    size = small_size(*picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def encode(picture: Image.Image, quality: int = QUALITY, subsampling: str = SUBSAMPLING) -> bytes:
    """JPEG with every setting fixed, and without metadata: neither EXIF nor comment nor colour profile."""
    picture = Image.frombytes("RGB", picture.size, picture.tobytes())  # without the `info` that `save` would take over
    # With `optimize` the encoder must have room for the whole file at once, and Pillow gives it a byte a pixel: noise
    # takes more.
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 4 * picture.width * picture.height)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True, progressive=False)
    return buffer.getvalue()


def make_small(data: bytes) -> bytes:
    """The small picture of an image's bytes.

    Raises:
        BadImage: it does not decode.
    """
    return encode(resize(decode_rgb(data)))
