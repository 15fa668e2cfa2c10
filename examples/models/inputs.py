"""What a network is fed: size, order of channels, mean, scale; and how a picture becomes that.

Shapes: B batch, C channels (3), H height, W width, S side of the network's square.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from examples.errors import ModelFileError
from t4sa_data import catalog
from t4sa_data.errors import BadOption

Channels = Literal["BGR", "RGB"]
View = Literal["squash", "center"]
VIEWS: tuple[View, ...] = get_args(View)

RESIZE_PX = 256
"""Side that DIGITS squashes the pictures of a dataset to (its form's default; unknown for T4SA)."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a network is fed: `(pixels - mean) * scale`, pixels in 0..255."""

    side_px: int
    """Of the square it takes."""
    channels: Channels = "BGR"
    mean: tuple[float, float, float] = catalog.TRAINING["mean_bgr"].value
    """In the order of `channels`; that of T4SA's training images by default (published with the converted nets)."""
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """In the order of `channels`; 1 for Caffe's nets, 1 / (255 std) for torchvision's."""
    view: View = "squash"
    """How a picture becomes the square: `squash` resizes it straight to S x S, as the authors' predict.py does;
    `center` takes the middle of a squash to `resize_px`, as DIGITS' validation does."""
    resize_px: int = RESIZE_PX

    def __post_init__(self) -> None:
        """Refuse what no network takes."""
        if self.view not in VIEWS or self.channels not in get_args(Channels):
            raise BadOption("no such input", expected=f"{VIEWS}, {get_args(Channels)}", got=(self.view, self.channels))
        if not 0 < self.side_px <= self.resize_px:
            raise BadOption("the network's side is in pixels", expected=f"1 to {self.resize_px}", got=self.side_px)

    @property
    def stream_px(self) -> int:
        """Size to ask `stream(resize="squash")` for in evaluation."""
        return self.side_px if self.view == "squash" else self.resize_px

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Input:
        """The input that `to_json` wrote.

        Raises:
            ModelFileError: it is none.
        """
        try:
            return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in value.items()})
        except (TypeError, ValueError) as error:
            raise ModelFileError("the description of the network's input is none", got=str(error)) from error


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of R, G, B in 0..1: what torchvision's weights were trained with (its documentation of the weights' transforms)."""


def torchvision_input(side_px: int, *, view: View = "squash") -> Input:
    """Input of torchvision's ImageNet networks: RGB, (pixels / 255 - mean) / std."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    return Input(
        side_px=side_px,
        channels="RGB",
        mean=(255 * mean[0], 255 * mean[1], 255 * mean[2]),
        scale=(1 / (255 * std[0]), 1 / (255 * std[1]), 1 / (255 * std[2])),
        view=view,
    )


class Prepare(nn.Module):
    """From the pictures of a stream to the input of a network: RGB x_BCHW uint8 -> x_BCSS float32, channels_last.

    Pictures larger than the network's square are cut to their middle, as Caffe does outside training.

    Args:
        given: what the network is fed.
        mean_image: float32 [C, H, W] in the order of `given.channels`, in place of `given.mean` (DIGITS' file
            mean.binaryproto). Its middle is used where its size is that of the pictures, else it is resized to the
            network's square, as DIGITS does.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, given: Input, mean_image: torch.Tensor | None = None) -> None:
        super().__init__()
        self.given = given
        self.flips = given.channels == "BGR"
        mean = torch.tensor(given.mean)[:, None, None] if mean_image is None else mean_image.float()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", torch.tensor(given.scale)[:, None, None], persistent=False)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The network's input."""
        side, size = self.given.side_px, x_BCHW.shape[-1]
        mean = self.mean if self.mean.shape[-1] in (1, size) else self._resized_mean(side)
        x = center(x_BCHW, side)
        x = x.flip(1) if self.flips else x
        x = (x.float() - center(mean, side)) * self.scale
        return x.contiguous(memory_format=torch.channels_last)

    def _resized_mean(self, side: int) -> torch.Tensor:
        """DIGITS resizes the mean image as a picture: bytes in, bytes out."""
        small = F.interpolate(self.mean[None], size=(side, side), mode="bilinear", antialias=True)[0]
        return small.round().clamp(0, 255)


def center(x: torch.Tensor, side: int) -> torch.Tensor:
    """The middle of the last two dimensions, offset (size - side) // 2 as in Caffe's DataTransformer; of size 1: as is.

    >>> center(torch.arange(25).view(5, 5), 3)[0].tolist()
    [6, 7, 8]
    """
    if x.shape[-1] in (1, side):
        return x
    top = (x.shape[-1] - side) // 2
    return x[..., top : top + side, top : top + side]
