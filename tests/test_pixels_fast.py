"""The fast decoder gives the pixels of the one rule (`pixels.decode_rgb`), bit for bit, whatever the picture."""

from __future__ import annotations

import io
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from t4sa_data.errors import BadImage
from t4sa_data.miniature import KINDS, draw
from t4sa_data.pixels import decode_rgb

pytest.importorskip("torch")
from t4sa_data.streaming import jpeg
from t4sa_data.streaming.images import FastDecoder
from t4sa_data.streaming.jpeg import is_plain_jpeg

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
DECODERS = ("torchcodec", "torchvision", "PIL")
XMP = b"http://ns.adobe.com/xap/1.0/\0"


@pytest.fixture(params=DECODERS)
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FastDecoder:
    """Each of the decoders in turn, found as on a machine without the ones before it."""
    for name in DECODERS[: DECODERS.index(request.param)]:
        monkeypatch.setitem(sys.modules, {"torchcodec": "torchcodec.decoders"}.get(name, "torchvision.io"), None)
    made = FastDecoder()
    if made.name != request.param:
        pytest.skip(f"no {request.param} here")
    return made


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours, edges and noise: what makes chroma upsampling and rounding show."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + y / (5 + c) + c) * 90 + 128 + 60 * ((x // 9 + y // 11 + c) % 2) for c in range(3)]
    noisy = np.stack(waves, axis=2) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def put_first(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments behind its start marker."""
    return data[:2] + b"".join(segments) + data[2:]


def put_behind_frame(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments behind its frame header, where markers may stand too."""
    at = next(i for i in range(len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return data[:at] + b"".join(segments) + data[at:]


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return segment(0xE1, b"Exif\0\0" + made.tobytes().removeprefix(b"Exif\0\0"))


def outcome(decode: object, data: bytes) -> object:
    """Pixels, or that it does not decode."""
    try:
        made = decode(data)  # type: ignore[operator]
    except BadImage as error:
        return error.reason
    return np.asarray(made) if isinstance(made, Image.Image) else made.permute(1, 2, 0).numpy()


def assert_same(fast: FastDecoder, data: bytes, name: object = "") -> None:
    expected, got = outcome(decode_rgb, data), outcome(fast, data)
    if isinstance(expected, str) or isinstance(got, str):
        assert isinstance(got, str) and isinstance(expected, str) and got == expected, (name, fast.name)
        return
    assert got.shape == expected.shape and got.dtype == np.uint8, (name, fast.name)
    assert np.array_equal(got, expected), (name, fast.name, int(np.abs(got.astype(int) - expected).max()))


JPEG = encoded(picture(131, 97), quality=90)


def variants() -> dict[str, bytes]:
    """Name -> bytes of every kind of picture that the fast decoder must take, or leave to PIL."""
    image = picture(131, 97)
    made = {
        f"{name}{' progressive' * progressive}{' restarts' * restarts}": encoded(
            image, quality=85, subsampling=subsampling, progressive=progressive, restart_marker_blocks=3 * restarts
        )
        for name, subsampling in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2), ("4:1:1", "4:1:1"))
        for progressive in (False, True)
        for restarts in (0, 1)
    }
    made |= {f"orientation {n}": encoded(image, exif=exif(n)[4:]) for n in range(1, 9)}
    made |= {f"orientation {n} in XMP": put_first(JPEG, _xmp(n)) for n in (1, 3, 6)}
    made |= {f"orientation {n} behind the frame header": put_behind_frame(JPEG, exif(n)) for n in (1, 6)}
    made |= {"EXIF 1, XMP 6": put_first(JPEG, exif(1), _xmp(6)), "EXIF 6, XMP 1": put_first(JPEG, exif(6), _xmp(1))}
    made |= {"EXIF without orientation": encoded(image, exif=Image.Exif().tobytes())}
    made |= {"torn EXIF": put_first(JPEG, segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x09"))}
    made |= {
        "grey": encoded(image.convert("L")),
        "grey progressive": encoded(image.convert("L"), progressive=True),
        "CMYK": encoded(image.convert("CMYK")),
        "RGB by Adobe's marker": encoded(image, keep_rgb=True),
        "ids R G B, no Adobe": _without_adobe(encoded(image, keep_rgb=True)),
        "optimised": encoded(image, optimize=True),
        "garbage behind": JPEG + bytes(range(256)) * 3,
        "another JPEG behind": JPEG + encoded(picture(20, 30)),
        "fill bytes": put_first(JPEG, b"\xff\xff\xff" + segment(0xFE, b"a comment")),
        "MPO": encoded(image, "MPO", save_all=True, append_images=[picture(131, 97, 1)]),
        "16 bit PNG": encoded(Image.fromarray(np.arange(131 * 97, dtype=np.uint16).reshape(97, 131) * 5), "PNG"),
        "palette GIF": encoded(image.quantize(64), "GIF"),
        "RGBA PNG": encoded(image.convert("RGBA"), "PNG"),
        "1 bit PNG": encoded(image.convert("1"), "PNG"),
        "TIFF": encoded(image, "TIFF"),
        "WebP": encoded(image, "WEBP"),
        "empty": b"",
        "HTML": b"<!DOCTYPE html><html></html>",
        "start marker only": b"\xff\xd8",
    }
    made |= {f"cut by {n}": JPEG[:-n] for n in (1, 2, 3, 50, 2000, len(JPEG) - 200, len(JPEG) - 30)}
    return made


def _xmp(orientation: int) -> bytes:
    return segment(0xE1, XMP + b'<rdf:Description tiff:Orientation="%d"/>' % orientation)


def _without_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :]


VARIANTS = variants()
PLAIN = ("4:", "grey", "optimised", "garbage", "another JPEG", "fill", "orientation 1", "EXIF without")


def test_every_kind_of_picture(fast: FastDecoder) -> None:
    for name, data in VARIANTS.items():
        assert_same(fast, data, name)


def test_drawn_kinds(fast: FastDecoder) -> None:
    for number, kind in enumerate(KINDS):
        assert_same(fast, draw(number % 3, random.Random(number), kind), kind)


def test_what_is_plain_takes_the_fast_way() -> None:
    """Otherwise the tests above would compare PIL with PIL."""
    for name, data in VARIANTS.items():
        cut_in_the_scan = name in ("cut by 1", "cut by 2", "cut by 3", "cut by 50", "cut by 2000")
        assert is_plain_jpeg(data) == (name.startswith(PLAIN) or cut_in_the_scan), name


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from([0, 1, 2, "4:1:1"]),
    progressive=st.booleans(),
    grey=st.booleans(),
    orientation=st.integers(0, 8),
)
def test_every_size_quality_and_subsampling(
    width: int, height: int, quality: int, subsampling: object, progressive: bool, grey: bool, orientation: int
) -> None:
    image = picture(width, height, quality)
    data = encoded(
        image.convert("L") if grey else image, quality=quality, subsampling=subsampling, progressive=progressive
    )
    for decode in _all_decoders():
        assert_same(decode, data)
        assert_same(decode, put_first(data, exif(orientation)) if orientation else data)


def _all_decoders() -> list[FastDecoder]:
    if not _DECODERS:
        with pytest.MonkeyPatch.context() as patch:
            for module in (None, "torchcodec.decoders", "torchvision.io"):
                if module:
                    patch.setitem(sys.modules, module, None)
                _DECODERS.append(FastDecoder())
    return _DECODERS


_DECODERS: list[FastDecoder] = []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    data=st.data(),
    name=st.sampled_from(["4:2:0", "4:4:4 progressive", "4:2:2 restarts", "grey", "orientation 6", "EXIF 1, XMP 6"]),
)
def test_damaged_pictures_give_the_same_or_an_error(data: st.DataObject, name: str) -> None:
    """Without `verify=` a flipped byte may pass: then the pixels are still those of the rule."""
    damaged = bytearray(VARIANTS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(2, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(damaged)), st.integers(2, len(damaged))))
    assume(_claimed_pixels(bytes(damaged[:cut])) < 300_000)  # 80 million would take seconds
    for decode in _all_decoders():
        assert_same(decode, bytes(damaged[:cut]), name)


def _claimed_pixels(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height
    except Exception:  # whatever a plugin raises
        return 0


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.binary(max_size=60).map(lambda data: b"\xff\xd8" + data),
        st.lists(
            st.tuples(st.sampled_from([0xC0, 0xC2, 0xDA, 0xE1, 0xE2, 0xEE, 0xFE, 0xFF, 0xD0]), st.binary(max_size=24)),
            max_size=5,
        ).map(lambda parts: b"\xff\xd8" + b"".join(segment(marker, body) for marker, body in parts)),
        st.binary(max_size=40).map(lambda data: put_first(JPEG, segment(0xE1, b"Exif\0\0II*\0" + data))),
        st.integers(0, len(JPEG)).map(lambda cut: JPEG[:cut]),
        st.binary(max_size=20).map(lambda data: b"\xff\xd8" + segment(0xEE, b"Adobe") + data),
    )
)
def test_is_plain_jpeg_never_raises(data: bytes) -> None:
    assert is_plain_jpeg(data) in (True, False)


def test_every_cut_and_every_short_header() -> None:
    for cut in range(700):
        assert is_plain_jpeg(JPEG[:cut]) in (True, False)
    for body in (b"Adobe123", b"\x08\0\x10\0\x10\x03\x01"):
        for marker in (0xEE, 0xC0):
            for behind in range(20):
                head = b"\xff\xd8" + segment(marker, body)[:-1] + bytes(behind)
                assert is_plain_jpeg(head) is False


def test_pictures_are_stored_as_rows_of_rgb(fast: FastDecoder) -> None:
    """[3, H, W] over H, W, 3: so that batches are channels_last without a copy."""
    for data in (JPEG, VARIANTS["RGBA PNG"]):
        assert fast(data).permute(1, 2, 0).is_contiguous()


def test_a_limit_of_pixels_holds_on_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_plain_jpeg(JPEG)
    monkeypatch.setattr(jpeg, "MAX_PIXELS", 131 * 97 - 1)
    assert not is_plain_jpeg(JPEG)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no real photos (../shared/data/photos)")
@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_photos(fast: FastDecoder, part: int) -> None:
    """All of them where slow tests run, every twentieth always."""
    files = sorted(path for path in PHOTOS.rglob("*") if path.is_file() and path.suffix.lower() not in (".md", ".csv"))
    taken = [path for i, path in enumerate(files) if (i % 20 == 0) == (part == 0)]
    plain = 0
    for path in taken:
        data = path.read_bytes()
        plain += is_plain_jpeg(data)
        assert_same(fast, data, path.name)
    assert plain > len(taken) / 2, "the fast way was hardly taken"
