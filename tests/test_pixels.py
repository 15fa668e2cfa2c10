"""One rule for pixels: what decodes, to what, and what a build learns of a picture."""

from __future__ import annotations

import io
import random
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from t4sa_data import pixels
from t4sa_data.errors import BadImage
from t4sa_data.miniature import KINDS, draw, make_samples
from t4sa_data.pixels import decode_rgb, inspect_image, phash_of
from t4sa_data.testing.archive import _bomb

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
NUM_PHOTOS = 160
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tiff"}


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_decodes_to_rgb_as_shown(kind: str) -> None:
    for seed in range(3):
        plain = draw(seed, random.Random(seed))
        data = draw(seed, random.Random(seed), kind)
        with Image.open(io.BytesIO(plain)) as expected:
            image, seen = decode_rgb(data), inspect_image(data)
            assert image.mode == "RGB"
            assert image.size == expected.size == (seen.width, seen.height)
            # The same picture, whatever it went through: pixels differ by compression and palette only.
            close = np.abs(
                np.asarray(image, dtype=int)
                - np.asarray(expected.convert("L" if kind == "grey" else "RGB").convert("RGB"))
            )
            assert close.mean() < (25 if kind == "cmyk" else 14)
    formats = {"palette-png": "PNG", "animated-gif": "GIF", "webp": "WEBP", "rgba-png": "PNG"}
    modes = {"grey": "L", "cmyk": "CMYK", "palette-png": "P", "animated-gif": "P", "rgba-png": "RGBA"}
    assert (seen.format, seen.mode) == (formats.get(kind, "JPEG"), modes.get(kind, "RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(orientation: int) -> None:
    corners = Image.new("RGB", (64, 32), "white")
    corners.paste("red", (0, 0, 16, 16))
    corners.paste("blue", (48, 0, 64, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(corners, "JPEG", quality=95, exif=exif)
    image, seen = decode_rgb(data), inspect_image(data)
    size = (32, 64) if orientation >= 5 else (64, 32)
    assert image.size == (seen.width, seen.height) == size
    with Image.open(io.BytesIO(data)) as stored:
        assert np.array_equal(np.asarray(image), np.asarray(ImageOps.exif_transpose(stored)))
    # Where the red corner is shown, by the EXIF standard: (right?, bottom?).
    right, bottom = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[
        orientation
    ]
    red = image.getpixel((8 if not right else size[0] - 8, 8 if not bottom else size[1] - 8))
    assert red[0] > 200 and red[1] < 80 and red[2] < 80


def test_deep_pictures_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    image = decode_rgb(encoded(Image.fromarray(ramp.astype(np.uint16))))
    values = np.asarray(image)[..., 0].astype(int)
    assert values.min() == 0 and values.max() == 255 and np.abs(values - ramp / 257).max() <= 1
    real = decode_rgb(encoded(Image.fromarray((ramp / 65535).astype(np.float32)), "TIFF"))
    assert np.abs(np.asarray(real)[..., 0].astype(int) - ramp / 257).max() <= 1


PLAIN = draw(2, random.Random(1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", pixels.EMPTY),
        (b"<!DOCTYPE html><html></html>", pixels.NOT_AN_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", pixels.NOT_AN_IMAGE),
        (b"P6 1 1 255 abc", pixels.NOT_AN_IMAGE),  # Pillow could, no browser would
        (bytes(500), pixels.NOT_AN_IMAGE),
        (PLAIN[: len(PLAIN) // 2], pixels.TRUNCATED),
        (encoded(Image.effect_noise((99, 99), 90))[:-4000], pixels.TRUNCATED),
        (_bomb(), pixels.TOO_MANY_PIXELS),
    ],
    ids=["empty", "html", "svg", "ppm", "zeros", "cut-jpeg", "cut-png", "bomb"],
)
def test_broken_pictures_have_a_reason(data: bytes, reason: str) -> None:
    for decode in (decode_rgb, inspect_image):
        with pytest.raises(BadImage) as caught:
            decode(data)
        assert caught.value.reason == reason, caught.value
        assert len(str(caught.value).splitlines()) == 1


def test_damaged_in_the_middle() -> None:
    data = bytearray(encoded(Image.effect_noise((120, 120), 90)))
    data[len(data) // 2] ^= 0xFF  # zlib's stream no longer adds up
    with pytest.raises(BadImage) as caught:
        inspect_image(bytes(data))
    assert caught.value.reason in (pixels.UNDECODABLE, pixels.TRUNCATED)


def test_random_damage_is_a_bad_image_or_a_picture() -> None:
    rng = random.Random(0)
    bad = 0
    for sample in make_samples(27, seed=9):
        for _ in range(6):
            data = bytearray(sample.image)
            for _ in range(rng.randrange(1, 12)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                inspect_image(bytes(data[: rng.randrange(1, len(data) + 1)]))
            except BadImage:
                bad += 1
    assert bad > 50


def test_pixel_limit_is_the_callers() -> None:
    with pytest.raises(BadImage, match="limit 100") as caught:
        decode_rgb(PLAIN, max_pixels=100)
    assert caught.value.reason == pixels.TOO_MANY_PIXELS


def test_half_pictures_never_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadImage, match="LOAD_TRUNCATED_IMAGES"):
        decode_rgb(PLAIN[: len(PLAIN) // 2])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_time_limit() -> None:
    slow = encoded(Image.effect_noise((1500, 1500), 90), compress_level=1)
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(BadImage, match=r"not decoded within 0\.005 s") as caught:
        inspect_image(slow, max_seconds=0.005)
    assert caught.value.reason == pixels.TOO_SLOW
    assert signal.getsignal(signal.SIGVTALRM) == before and signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert inspect_image(slow).width == 1500
    seen: list[int] = []  # in a thread there are no signals: decoded without a limit, not refused
    thread = threading.Thread(target=lambda: seen.append(inspect_image(PLAIN, max_seconds=1e-9).width))
    thread.start()
    thread.join()
    assert seen == [inspect_image(PLAIN).width]


# The hash.
def test_phash_is_imagehash_on_drawn_pictures() -> None:
    imagehash = pytest.importorskip("imagehash")
    for sample in make_samples(81, seed=4):
        image = decode_rgb(sample.image)
        expected = str(imagehash.phash(image))
        assert phash_of(image) == inspect_image(sample.image).phash == expected, sample.kind


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no real photos (../shared/data/photos)")
def test_phash_is_imagehash_on_photos() -> None:
    imagehash = pytest.importorskip("imagehash")
    files = sorted(path for path in PHOTOS.rglob("*") if path.suffix.lower() in SUFFIXES)
    compared = 0
    for path in files[:: max(1, len(files) // (NUM_PHOTOS + 10))]:
        try:
            image = decode_rgb(path.read_bytes())
        except BadImage:
            continue  # a few are broken on purpose
        assert phash_of(image) == str(imagehash.phash(image)), path.name
        compared += 1
    assert compared >= NUM_PHOTOS


def test_phash_of_flat_pictures_is_no_noise() -> None:
    hashes = {
        phash_of(Image.new("RGB", (w, h), (v, v, v))) for v in (0, 1, 127, 200, 255) for w, h in ((50, 70), (9, 9))
    }
    # The mean stands out where there is light; black has not even that.
    assert hashes == {"8000000000000000", "0000000000000000"}


def test_bad_image_crosses_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BadImage("x", reason=pixels.EMPTY)))
    assert (type(error), error.reason, str(error)) == (BadImage, pixels.EMPTY, "x")
