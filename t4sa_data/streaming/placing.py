"""From a decoded picture to its place in a batch; and several, from their bytes, in one call without Python's lock.

Decoding and resizing a picture are a dozen short operations, and each takes and gives back the lock: with 16 threads
they wait for one another more than they work, and whoever trains waits with them (on 16 cores: 6,700 pictures a second
in place of 20,000, and a thirtieth of the main thread's operations). TorchScript runs the same operations without it.
It is deprecated; where it is not, or no longer, to be had, pictures go one by one through `images`, with equal pixels.
"""

# No `from __future__ import annotations`: TorchScript does not read a NamedTuple's types behind it.

import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812


class Placement(NamedTuple):
    """Which part of a decoded picture comes where: whole numbers, pixels."""

    height: int
    """Of the decoded picture."""
    width: int
    top: int
    """Of the part that is resized."""
    left: int
    box_height: int
    box_width: int
    goal_height: int
    """Of that part when resized."""
    goal_width: int
    y: int
    """Of the square that is cut out of it."""
    x: int
    side: int
    flip: bool


def put(image: torch.Tensor, placement: Placement) -> torch.Tensor:
    """Resize, crop and mirror one picture; also compiled below, so in the words that TorchScript knows.

    Resizing is bilinear with antialiasing, as PIL's (within 1 of 255).

    Args:
        image: uint8 [3, H, W], stored as H, W, 3.
        placement: of it.

    Returns:
        uint8 [3, side, side].
    """
    p = placement
    image = image[:, p.top : p.top + p.box_height, p.left : p.left + p.box_width]
    # As stored, H, W, 3: without this view torch takes a batch of one for contiguous and copies it.
    x_1CHW = image.permute(1, 2, 0).unsqueeze(0).permute(0, 3, 1, 2)
    if p.box_height != p.goal_height or p.box_width != p.goal_width:
        x_1CHW = F.interpolate(x_1CHW, size=[p.goal_height, p.goal_width], mode="bilinear", antialias=True)
    square = x_1CHW[0, :, p.y : p.y + p.side, p.x : p.x + p.side]
    return square.flip([2]) if p.flip else square


Fill = Callable[[list[torch.Tensor], list[torch.Tensor], list[Placement]], None]
_RGB = 3
"""`ImageReadMode.RGB` of torchvision and torchcodec."""
FILL_ERRORS: tuple[type[Exception], ...] = (RuntimeError, torch.jit.Error)
"""What a fill raises: of an operation, and of its own `raise`."""
_compiling = threading.Lock()


def _fill_torchcodec(out: list[torch.Tensor], data: list[torch.Tensor], placements: list[Placement]) -> None:
    for i in range(len(data)):
        image = torch.ops.torchcodec_ns.decode_jpeg(data[i], 3)
        if image.size(1) != placements[i].height or image.size(2) != placements[i].width:
            raise RuntimeError("the picture is of another size than its head says")
        out[i].copy_(put(image, placements[i]))


def _fill_torchvision(out: list[torch.Tensor], data: list[torch.Tensor], placements: list[Placement]) -> None:
    for i in range(len(data)):
        image = torch.ops.image.decode_jpeg(data[i], 3, False)
        if image.size(1) != placements[i].height or image.size(2) != placements[i].width:
            raise RuntimeError("the picture is of another size than its head says")
        out[i].copy_(put(image, placements[i]))


_FILLS: dict[str, Callable[..., None]] = {"torchcodec": _fill_torchcodec, "torchvision": _fill_torchvision}


def filler(decoder: str) -> Fill | None:
    """What fills a part of a batch, by the name of the decoder; None: it has to be done one by one.

    The result takes n places of uint8 [3, side, side], the bytes of n plain JPEGs as uint8 tensors, and where in its
    place each goes; it raises one of FILL_ERRORS where one of them does not decode, and may have filled some.

    Args:
        decoder: `FastDecoder.name`.
    """
    with _compiling:
        return _compiled(decoder)


@cache
def _compiled(decoder: str) -> Fill | None:
    if decoder not in _FILLS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.script(_FILLS[decoder])  # type: ignore[no-any-return]
    except Exception:  # whatever a Python or a torch of later says that has none
        return None
