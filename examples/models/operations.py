"""The operations of Caffe that torch has not, or has with other numbers.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from examples.errors import ModelFileError, UnsupportedLayer


class LRN(nn.Module):
    """Local response normalisation across channels (Krizhevsky et al. 2012): x / (k + alpha/n sum x^2)^beta.

    As in Caffe's lrn_layer.cpp, alpha is divided by the size n. Always in float32 at least: under fp16 the squares of
    activations above 255 are infinite and the result would be 0, without a word (600 gave 0.0 for 39.99).

    Args:
        size: n, channels in the window, odd.
        alpha, beta, k: as in the formula.
    """

    def __init__(self, size: int = 5, alpha: float = 1.0, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def extra_repr(self) -> str:
        """Of torch's `repr`."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x_BCHW normalised, in the type it came."""
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            made: torch.Tensor = _LRN.apply(wide, self.size, self.alpha, self.beta, self.k)
            return made.to(x.dtype)


class _LRN(torch.autograd.Function):
    """The formula, and its derivative: autograd's own would write a picture of zeros for each channel of the window.

    With s = k + alpha/n sum x^2, y = x s^-beta:  dx = dy s^-beta - 2 alpha beta / n  x  sum(dy y / s), sums over the
    window.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
        scale = window_sum(x * x, size).mul_(alpha / size).add_(k)
        y = x * scale**-beta
        ctx.save_for_backward(x, scale, y)
        ctx.numbers = size, alpha, beta
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        x, scale, y = ctx.saved_tensors
        size, alpha, beta = ctx.numbers
        shared = window_sum(grad * y / scale, size).mul_(x)
        return torch.addcmul(shared.mul_(-2 * alpha * beta / size), grad, scale**-beta), None, None, None, None


def window_sum(x: torch.Tensor, size: int) -> torch.Tensor:
    """Sums over `size` neighbouring channels (odd), zeros beyond the first and the last: x_BCHW -> [B, C, H, W].

    >>> window_sum(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1), 3).flatten().tolist()
    [3.0, 6.0, 9.0, 7.0]
    """
    half, num_channels = size // 2, x.shape[1]
    padded = F.pad(x, (0, 0, 0, 0, half, half))
    total = (
        padded[:, :num_channels].clone() if size == 1 else padded[:, :num_channels] + padded[:, 1 : 1 + num_channels]
    )
    for shift in range(2, size):
        total += padded[:, shift : shift + num_channels]
    return total


class CaffePool(nn.Module):
    """Pooling by Caffe's rule: windows are counted rounding up, the last one begins inside the (padded) picture.

    Means count the zeros of the padding but not what lies beyond it, as pooling_layer.cpp does.

    Args:
        kind: MAX or AVE.
        kernel, stride, pad: (height, width).
        round_mode: CEIL, or FLOOR (newer Caffe's `round_mode`).
    """

    def __init__(
        self,
        kind: str,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int] = (0, 0),
        *,
        round_mode: str = "CEIL",
    ) -> None:
        super().__init__()
        if kind not in ("MAX", "AVE") or round_mode not in ("CEIL", "FLOOR"):
            raise UnsupportedLayer("pooling", expected="MAX or AVE, CEIL or FLOOR", got=f"{kind}, {round_mode}")
        if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
            raise UnsupportedLayer("padding of a pooling above half its window", got=f"{tuple(pad)} of {tuple(kernel)}")
        self.kind, self.ceil = kind, round_mode == "CEIL"
        self.kernel, self.stride, self.pad = tuple(kernel), tuple(stride), tuple(pad)

    def extra_repr(self) -> str:
        """Of torch's `repr`."""
        return f"{self.kind}, {self.kernel}, stride={self.stride}, pad={self.pad}, ceil={self.ceil}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x_BCHW -> pooled."""
        if self.kind == "MAX":
            return F.max_pool2d(x, self.kernel, self.stride, self.pad, ceil_mode=self.ceil)
        return F.avg_pool2d(x, self.kernel, self.stride, self.pad, ceil_mode=self.ceil, count_include_pad=True)


def pooled_sizes(pool: CaffePool, sizes: Sequence[int]) -> tuple[int, ...]:
    """How many windows fit, by height and width.

    Raises:
        ModelFileError: none does.
        UnsupportedLayer: Caffe would have a window with nothing in it.

    >>> pooled_sizes(CaffePool("MAX", (3, 3), (2, 2)), (54, 55))
    (27, 27)
    """
    made = []
    for size, k, s, p in zip(sizes, pool.kernel, pool.stride, pool.pad, strict=True):
        steps, rest = divmod(size + 2 * p - k, s)
        windows = steps + 1 + (pool.ceil and rest > 0)
        if windows < 1:
            raise ModelFileError("the picture is smaller than the window", expected=f">= {k}", got=size)
        if (windows - 1) * s >= size + p:
            if not p:
                raise UnsupportedLayer("a pooling whose last window is empty", got=f"window {k}, stride {s}, {size} px")
            windows -= 1
        made.append(windows)
    return tuple(made)


class Concat(nn.Module):
    """Channels of several blobs put together."""

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        """[B, C1 + C2 + ..., H, W]."""
        return torch.cat(x, 1)
