"""Dropout whose mask is that of a whole micro-batch, whichever of its rows this rank has."""

from __future__ import annotations

import torch
from torch import nn


class Dropout(nn.Module):
    """Dropout (Hinton et al. 2012), scaled while training as Caffe and torch do.

    torch's would draw a mask of the rows at hand: a micro-batch shared out over two ranks would be treated otherwise
    than on one. This draws the mask of all its rows and takes its own. Whoever trains seeds torch from (seed, step,
    micro-batch) before each forward pass, and tells which rows come with `set_rows`.

    Args:
        p: probability of a zero.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p
        self.first_row, self.num_rows = 0, 0

    def extra_repr(self) -> str:
        """Of torch's `repr`."""
        return f"p={self.p}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zeros with probability p, the others divided by 1 - p; the identity in evaluation."""
        if not self.training or self.p == 0:
            return x
        num_rows = self.num_rows or len(x)
        u = torch.rand((num_rows, *x.shape[1:]), device=x.device)[self.first_row : self.first_row + len(x)]
        return x * ((u >= self.p).to(x.dtype) / (1 - self.p))


def set_rows(network: nn.Module, first_row: int, num_rows: int) -> None:
    """Tell all dropouts of a network which rows of the micro-batch come next.

    Args:
        network: any module.
        first_row: place of this rank's first row in the micro-batch.
        num_rows: of the micro-batch, all ranks together; 0: as many as come.
    """
    for module in network.modules():
        if isinstance(module, Dropout):
            module.first_row, module.num_rows = first_row, num_rows
