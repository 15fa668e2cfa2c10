"""From the bytes of a picture to uint8 tensors of one size: decoding, geometry, and the randomness of augmentation.

Pixels follow the one rule (`t4sa_data.pixels`): EXIF rotation applied, first frame, RGB. Plain JPEGs take the fast
decoder, whose pixels are the same to the bit; everything else goes through PIL.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from t4sa_data.errors import BadOption
from t4sa_data.pixels import MAX_PIXELS, decode_rgb

Resize = Literal["squash", "center_crop", "random_resized_crop", "none"]
RESIZES = ("squash", "center_crop", "random_resized_crop", "none")

NUM_UNIFORMS = 43
"""Random numbers an augmentation takes for a sample: 10 tries of 4 for `random_resized_crop`, then crop row, crop
column, mirror."""
_TRIES = 10  # as torchvision's RandomResizedCrop, and GoogLeNet's training before it (Szegedy et al. 2015, section 6)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is drawn anew for each sample in each epoch."""

    flip: bool = False
    """Mirror left to right with probability 1/2."""
    crop: int | None = None
    """Side of a random square cut out of the resized picture, px (DIGITS: 227 of 256)."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the area that `random_resized_crop` cuts out (Szegedy et al. 2015)."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width to height of it."""
    on_device: bool = False
    """Leave crop and mirror to the device: batches hold the whole pictures, and `crop` and `flip` that say what to do;
    `Stream.to(device)` does it. The result is the same to the bit."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a decoded picture becomes a picture of the batch."""

    size: int
    """Side of the resized picture, px."""
    resize: Resize
    augment: Augment

    def __post_init__(self) -> None:
        """Raise `BadOption` for what cannot be meant."""
        if self.resize not in RESIZES:
            raise BadOption("no such resize", expected=" | ".join(RESIZES), got=self.resize)
        if self.size < 1:
            raise BadOption("size is in pixels", expected="1 or more", got=self.size)
        crop = self.augment.crop
        if crop is not None and not 0 < crop <= self.size:
            raise BadOption("the crop does not fit", expected=f"1 to {self.size} px", got=crop)
        if self.resize == "none" and (crop is not None or self.augment.on_device):
            raise BadOption("pictures of different sizes are not cropped in a batch", got='resize="none"')

    @property
    def side(self) -> int:
        """Side of the pictures in a batch, px."""
        crop = self.augment.crop
        return self.size if crop is None or self.augment.on_device else crop

    @property
    def is_random(self) -> bool:
        """Whether anything is drawn."""
        return self.augment.flip or self.augment.crop is not None or self.resize == "random_resized_crop"


class FastDecoder:
    """The fastest exact decoder of plain JPEGs that is installed.

    Attributes: `name`: torchcodec, torchvision, or PIL where neither is installed.
    """

    def __init__(self) -> None:
        self.name, self._decode = _find_decoder()

    def __call__(self, data: bytes) -> torch.Tensor:
        """Decode by the rule.

        Args:
            data: the picture's bytes.

        Returns:
            uint8 [3, H, W], stored as H, W, 3.

        Raises:
            BadImage: it does not decode.
        """
        if self._decode is not None and is_plain_jpeg(data):
            try:
                return self._decode(_as_tensor(data))
            except RuntimeError:  # PIL has the last word, and says what is wrong
                pass
        return torch.from_numpy(np.array(decode_rgb(data))).permute(2, 0, 1)


def _find_decoder() -> tuple[str, Callable[[torch.Tensor], torch.Tensor] | None]:
    try:
        from torchcodec.decoders import decode_jpeg

        return "torchcodec", lambda data: decode_jpeg(data, mode="RGB")
    except (ImportError, RuntimeError, OSError):  # not installed, too old, or built for another torch
        pass
    try:  # deprecated since 0.29: that is why it comes second
        from torchvision.io import ImageReadMode
        from torchvision.io import decode_jpeg as decode

        return "torchvision", lambda data: decode(data, mode=ImageReadMode.RGB)
    except (ImportError, RuntimeError, OSError):
        return "PIL", None


def _as_tensor(data: bytes) -> torch.Tensor:
    """The bytes as uint8 [n], not copied; nobody writes to it."""
    return torch.frombuffer(data, dtype=torch.uint8)


with warnings.catch_warnings():  # torch warns once in a process that the bytes must not be written to
    warnings.simplefilter("ignore")
    _as_tensor(b"\0")


def is_plain_jpeg(data: bytes) -> bool:
    """Whether bytes are a baseline or progressive JPEG, grey or YCbCr, 8 bits, not rotated, of a usual size.

    Reads the markers up to the first scan (ITU-T T.81, annex B), as PIL does. Any bytes may come; a doubt is a no.
    """
    if data[:2] != b"\xff\xd8":
        return False
    at, adobe, frame = 2, None, b""
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return _is_plain_frame(frame, adobe)
        length = data[at + 2] << 8 | data[at + 3]
        if marker in _WITHOUT_LENGTH or length < 2:
            return False
        segment = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker > 0xC2:  # lossless, hierarchical or arithmetic
                return False
            frame = segment
        elif (marker == 0xE1 and _is_rotated(segment)) or (marker == 0xE2 and segment[:4] == b"MPF\0"):
            return False
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) > 11:
            adobe = segment[11]
        at += 2 + length
    return False


_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))
"""Markers that have no length, and none of which belongs before a scan: TEM, RST, SOI, EOI."""


def _is_plain_frame(frame: bytes, adobe: int | None) -> bool:
    """Whether a frame header (T.81, B.2.2) is of 8 bits, a usual size, and grey or, beyond doubt, YCbCr: Adobe's marker
    says so, or the components' ids are 1, 2, 3."""
    if len(frame) < 6:
        return False
    precision, height, width, components = struct.unpack_from(">BHHB", frame)
    if precision != 8 or not 0 < height * width <= MAX_PIXELS or len(frame) != 6 + 3 * components:
        return False
    if components == 3:
        return adobe == 1 if adobe is not None else frame[6::3] == b"\1\2\3"
    return bool(components == 1)


_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def _is_rotated(segment: bytes) -> bool:
    """Whether an APP1 segment says an orientation other than 1, or cannot be read: EXIF (TIFF 6.0, section 2), or XMP,
    which counts for PIL where EXIF is silent."""
    if segment.startswith(_XMP):
        return any(found != b"1" for found in re.findall(rb"tiff:Orientation(?:=\"|>)([0-9])", segment))
    if not segment.startswith(b"Exif\0\0"):
        return False
    exif = segment[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return True
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == 0x0112 and (kind != 3 or struct.unpack_from(f"{order}H", exif, entry + 8)[0] != 1):
                return True
    except struct.error:
        return True
    return False


def fit(image: torch.Tensor, geometry: Geometry, uniforms: npt.NDArray[np.float64] | None) -> torch.Tensor:
    """Resize, crop and mirror one picture.

    Resizing is bilinear with antialiasing, as PIL's (within 1 of 255).

    Args:
        image: uint8 [3, H, W].
        geometry: what to do.
        uniforms: random numbers in [0, 1), shape (NUM_UNIFORMS,); None where nothing is drawn.

    Returns:
        uint8 [3, side, side], or [3, H, W] for `none`.
    """
    augment = geometry.augment
    if geometry.resize == "random_resized_crop":
        assert uniforms is not None
        top, left, height, width = _random_box(image.shape[1], image.shape[2], augment, uniforms)
        image = image[:, top : top + height, left : left + width]
    if geometry.resize != "none":
        image = _resized(image, geometry)
    if uniforms is None or augment.on_device:
        return image
    crop, flip = crop_and_flip_of(geometry, uniforms[None])
    if augment.crop is not None:
        top, left = crop[0].tolist()
        image = image[:, top : top + augment.crop, left : left + augment.crop]
    return image.flip(2) if flip[0] else image


def _resized(image: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    size = geometry.size
    height, width = image.shape[1:]
    if geometry.resize == "center_crop":  # short side to size, then the middle: torchvision's Resize and CenterCrop
        if height < width:
            goal = size, max(size, int(size * width / height))
        else:
            goal = max(size, int(size * height / width)), size
    else:
        goal = size, size
    # As stored, H, W, 3: without this view torch takes a batch of one for contiguous and copies it.
    x_1CHW = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    if (height, width) != goal:
        x_1CHW = F.interpolate(x_1CHW, size=goal, mode="bilinear", antialias=True)
    top, left = round((goal[0] - size) / 2), round((goal[1] - size) / 2)
    return x_1CHW[0, :, top : top + size, left : left + size]


def _random_box(
    height: int, width: int, augment: Augment, uniforms: npt.NDArray[np.float64]
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part: area and ratio are drawn until it fits, else the middle."""
    low, high = (math.log(one) for one in augment.ratio)
    for one, two, three, four in uniforms[: 4 * _TRIES].reshape(_TRIES, 4).tolist():
        area = height * width * (augment.scale[0] + one * (augment.scale[1] - augment.scale[0]))
        ratio = math.exp(low + two * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(three * (height - h + 1)), int(four * (width - w + 1)), h, w
    shape = width / height
    w = width if shape < augment.ratio[1] else round(height * augment.ratio[1])
    h = height if shape > augment.ratio[0] else round(width / augment.ratio[0])
    return (height - h) // 2, (width - w) // 2, h, w


def crop_and_flip_of(
    geometry: Geometry, uniforms: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Crops and mirrors of a batch.

    Args:
        geometry: of the loader.
        uniforms: shape (B, NUM_UNIFORMS).

    Returns:
        Top and left of each crop, shape (B, 2), 0 where nothing is cropped; whether each is mirrored, shape (B,).
    """
    side = geometry.augment.crop or geometry.size
    crop = (uniforms[:, 4 * _TRIES : 4 * _TRIES + 2] * (geometry.size - side + 1)).astype(np.int64)
    return crop, (uniforms[:, 4 * _TRIES + 2] < 0.5) & geometry.augment.flip


def crop_and_flip(x_BCHW: torch.Tensor, crop: torch.Tensor, flip: torch.Tensor, side: int) -> torch.Tensor:
    """Cut a square out of each picture of a batch and mirror some: one gather, on any device, bit for bit what a loop
    over the pictures gives.

    Args:
        x_BCHW: any type, [B, C, H, W].
        crop: top and left, int64 [B, 2].
        flip: which are mirrored, bool [B].
        side: of the square, px.

    Returns:
        [B, C, side, side], channels_last.
    """
    steps = torch.arange(side, device=x_BCHW.device)
    rows_BS = crop[:, :1] + steps
    columns_BS = crop[:, 1:] + torch.where(flip[:, None], side - 1 - steps, steps)
    batch_B = torch.arange(len(x_BCHW), device=x_BCHW.device)
    x_BSSC = x_BCHW.permute(0, 2, 3, 1)[batch_B[:, None, None], rows_BS[:, :, None], columns_BS[:, None, :]]
    return x_BSSC.permute(0, 3, 1, 2)
