"""From the bytes of a picture to uint8 tensors of one size: decoding, geometry, and the randomness of augmentation.

Pixels follow the one rule (`t4sa_data.pixels`): EXIF rotation applied, first frame, RGB. Plain JPEGs take the fast
decoder, whose pixels are the same to the bit; everything else goes through PIL.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from t4sa_data import plan
from t4sa_data.errors import BadOption
from t4sa_data.pixels import decode_rgb
from t4sa_data.streaming.jpeg import is_plain_jpeg
from t4sa_data.streaming.placing import Placement, put

Resize = Literal["squash", "center_crop", "random_resized_crop", "none"]
RESIZES = ("squash", "center_crop", "random_resized_crop", "none")

NUM_UNIFORMS = 43
"""Random numbers an augmentation takes for a sample: 10 tries of 4 for `random_resized_crop`, then crop row, crop
column, mirror."""
_NUM_LAST = 3
"""Of them, for crop row, crop column and mirror: all that is drawn for other geometries."""
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
                return self._decode(as_tensor(data))
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


def as_tensor(data: bytes) -> torch.Tensor:
    """The bytes as uint8 [n], not copied; nobody writes to it."""
    return torch.frombuffer(data, dtype=torch.uint8)


with warnings.catch_warnings():  # torch warns once in a process that the bytes must not be written to
    warnings.simplefilter("ignore")
    as_tensor(b"\0")


def draw(geometry: Geometry, seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64] | None:
    """The random numbers of some samples.

    Args:
        geometry: what they are for.
        seeds: f(seed, epoch, position) of each, shape (n,).

    Returns:
        In [0, 1), shape (n, NUM_UNIFORMS), or of those the last 3, where no box is drawn; None where nothing is.
    """
    if not geometry.is_random:
        return None
    num = NUM_UNIFORMS if geometry.resize == "random_resized_crop" else _NUM_LAST
    return plan.uniforms(seeds, num, first=NUM_UNIFORMS - num)


def place(
    sizes: Sequence[tuple[int, int]], geometry: Geometry, uniforms: npt.NDArray[np.float64] | None
) -> list[Placement]:
    """Where pictures go.

    Args:
        sizes: height and width of n decoded pictures.
        geometry: not `none`.
        uniforms: of `draw`.
    """
    size, augment = geometry.size, geometry.augment
    crops, flips, side = [(0, 0)] * len(sizes), [False] * len(sizes), size
    if uniforms is not None and not augment.on_device:
        crop, flip = crop_and_flip_of(geometry, uniforms)
        crops, flips, side = crop.tolist(), flip.tolist(), augment.crop or size
    placements = []
    for i, (height, width) in enumerate(sizes):
        top, left, box_height, box_width = 0, 0, height, width
        if geometry.resize == "random_resized_crop":
            assert uniforms is not None
            top, left, box_height, box_width = _random_box(height, width, augment, uniforms[i])
        y, x = crops[i]
        goal_height, goal_width = size, size
        if geometry.resize == "center_crop":  # short side to size, then the middle: torchvision's Resize and CenterCrop
            if height < width:
                goal_width = max(size, int(size * width / height))
            else:
                goal_height = max(size, int(size * height / width))
            y, x = y + round((goal_height - size) / 2), x + round((goal_width - size) / 2)
        box = (top, left, box_height, box_width)
        placements.append(Placement(height, width, *box, goal_height, goal_width, y, x, side, flips[i]))
    return placements


def fit(image: torch.Tensor, geometry: Geometry, uniforms: npt.NDArray[np.float64] | None) -> torch.Tensor:
    """Resize, crop and mirror one picture.

    Args:
        image: uint8 [3, H, W].
        geometry: what to do.
        uniforms: its row of what `draw` gives.

    Returns:
        uint8 [3, side, side], or [3, H, W] for `none`.
    """
    row = None if uniforms is None else uniforms[None]
    if geometry.resize != "none":
        return put(image, place([(image.shape[1], image.shape[2])], geometry, row)[0])
    return image.flip(2) if row is not None and crop_and_flip_of(geometry, row)[1][0] else image


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
        uniforms: of `draw`.

    Returns:
        Top and left of each crop, shape (B, 2), 0 where nothing is cropped; whether each is mirrored, shape (B,).
    """
    side = geometry.augment.crop or geometry.size
    last = uniforms[:, -_NUM_LAST:]
    return (last[:, :2] * (geometry.size - side + 1)).astype(np.int64), (last[:, 2] < 0.5) & geometry.augment.flip


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
