"""What a run refuses before its first step, or says when memory is too small."""

from __future__ import annotations

import torch
from torch import nn

from examples.errors import DeviceError
from examples.models import default_input
from examples.models.inputs import Input
from examples.training.config import Config
from examples.training.machine import Machine
from t4sa_data.errors import BadOption


def require_patience(config: Config, where: Machine) -> None:
    """Refuse a run of weeks that was not asked for by name.

    Raises:
        DeviceError: a real network, and only a CPU was found.
    """
    if where.device.type == "cpu" and config.device == "auto" and config.model != "smoke":
        raise DeviceError(
            f"no GPU here, and {config.model} on this CPU would take weeks",
            hint="`--recipe smoke` shows everything on a CPU; --device cpu begins all the same.",
        )


def require_size(network: nn.Module, config: Config, given: Input) -> None:
    """Refuse a --crop-px that does not go through the network.

    Raises:
        BadOption: its fully connected layers want another one.
    """
    if not config.crop_px:
        return
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, given.side_px, given.side_px))
    except RuntimeError as error:
        default = default_input(config.model).side_px
        raise BadOption(
            f"--crop-px for {config.model}", expected=f"{default}, or near it", got=given.side_px
        ) from error


def out_of_memory(config: Config, error: Exception) -> DeviceError:
    """What to lower."""
    half = max(1, config.batch_size // 2)
    return DeviceError(
        "the GPU's memory does not suffice",
        got=str(error).partition(".")[0],
        hint=f"--batch-size {half} --accumulate {config.global_batch // half} has the same global batch (another run: "
        "dropout is drawn by micro-batch); --amp bf16 halves what activations take.",
    )
