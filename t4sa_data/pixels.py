"""One rule for pixels everywhere: EXIF rotation applied, first frame, RGB. And what a build learns from a picture."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from t4sa_data.errors import BadImage

# Reasons a picture is quarantined; the ledger counts them.
EMPTY = "empty"
NOT_AN_IMAGE = "not-an-image"
TRUNCATED = "truncated"
TOO_MANY_PIXELS = "too-many-pixels"
TOO_SLOW = "decode-timeout"
UNDECODABLE = "undecodable"

MAX_PIXELS = 89_478_485
"""Pixels a picture may have: Pillow's own limit (`Image.MAX_IMAGE_PIXELS`), a quarter of a GiB as 24-bit RGB."""

DECODE_SECONDS = 60.0
"""Processor seconds a decode may take. Generous: a photo takes hundredths, and a verdict must not depend on load."""

# A multi-picture JPEG (MPO) comes in by way of JPEG.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
# Decoded by value, not by clipping: Pillow's own conversion of 16-bit and float pictures to RGB cuts at 255.
_DEEP_MODES = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I": 65535.0, "F": 1.0}


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What one decode of a picture says."""

    width: int
    """Pixels as shown."""
    height: int
    """Pixels as shown."""
    mode: str
    """Pillow's mode before conversion: RGB, L, CMYK, P, ..."""
    format: str
    """JPEG, PNG, ... as found in the bytes, whatever the name says."""
    phash: str
    """64-bit perceptual hash, 16 hex digits."""


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture by the rule: first frame, EXIF rotation applied, RGB.

    Raises:
        BadImage: with `.reason`, one of this module's constants.
    """
    return _to_rgb(_decode(data, max_pixels)[0])


def inspect_image(data: bytes, *, max_pixels: int = MAX_PIXELS, max_seconds: float = DECODE_SECONDS) -> Inspected:
    """Decode once; size, mode, format and hash.

    Raises:
        BadImage: with `.reason`, one of this module's constants.
    """
    return inspect_pixels(data, max_pixels=max_pixels, max_seconds=max_seconds)[0]


def inspect_pixels(
    data: bytes, *, max_pixels: int = MAX_PIXELS, max_seconds: float = DECODE_SECONDS
) -> tuple[Inspected, Image.Image]:
    """`inspect_image`, and the picture by the rule, for who goes on with it: it is decoded once.

    Raises:
        BadImage: with `.reason`, one of this module's constants.
    """
    with _time_limit(max_seconds):
        shown, image_format, mode = _decode(data, max_pixels)
        rgb = _to_rgb(shown)
        seen = Inspected(width=shown.width, height=shown.height, mode=mode, format=image_format, phash=phash_of(rgb))
        return seen, rgb


def _decode(data: bytes, max_pixels: int) -> tuple[Image.Image, str, str]:
    """The first frame as shown, in its own mode; its format; its mode as stored."""
    if not data:
        raise BadImage("zero bytes", reason=EMPTY)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise BadImage("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: half pictures would pass", reason=UNDECODABLE)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > max_pixels:
            raise BadImage(f"{image.width} x {image.height} pixels, limit {max_pixels}", reason=TOO_MANY_PIXELS)
        mode, image_format = image.mode, str(image.format)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image, image_format, mode
    except (BadImage, MemoryError, TimeoutError, Warning):  # a warning is raised only where the user made it an error
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(str(error), reason=TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        start = bytes(data[:16])
        raise BadImage(f"no known picture format, starts with {start!r}", reason=NOT_AN_IMAGE) from error
    except OSError as error:
        reason = TRUNCATED if "truncated" in str(error).lower() else UNDECODABLE
        raise BadImage(f"{type(error).__name__}: {error}", reason=reason) from error
    except Exception as error:  # Pillow's plugins raise what they please on broken bytes; each is told in the ledger
        raise BadImage(f"{type(error).__name__}: {error}", reason=UNDECODABLE) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        values = np.asarray(image, dtype=np.float64) / _DEEP_MODES[image.mode]
        image = Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _dct_rows(size: int, rows: int) -> npt.NDArray[np.float64]:
    """The first `rows` rows of the unnormalised DCT-II matrix, shape (rows, size)."""
    k, x = np.arange(rows)[:, None], np.arange(size)[None, :]
    return np.asarray(2 * np.cos(np.pi * k * (2 * x + 1) / (2 * size)))


_DCT = _dct_rows(32, 8)


def phash_of(image: Image.Image) -> str:
    """The 64-bit perceptual hash of a picture, 16 hex digits: `imagehash.phash`, bit for bit (a test holds them equal).

    Grey, 32 x 32 by Lanczos, the 8 x 8 lowest frequencies of its DCT-II against their median
    (N. Krawetz, "Looks Like It", 2011). Written out because imagehash brings scipy and PyWavelets (150 MB).
    """
    grey_HW = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    low_88 = _DCT @ grey_HW @ _DCT.T
    # What is below a millionth is rounding, not picture: without this a flat picture would hash noise.
    low_88 = np.round(low_88, 6)
    bits = (low_88 > np.median(low_88)).flatten()
    return f"{int.from_bytes(np.packbits(bits).tobytes(), 'big'):016x}"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Stop a decode after `seconds` of processor time; only where signals can be had (main thread, not Windows)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except TimeoutError as error:
        raise BadImage(f"not decoded within {seconds:g} s of processor time", reason=TOO_SLOW) from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
