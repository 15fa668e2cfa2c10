"""Caffe's solver in torch: groups of parameters, the rate of each step, and the velocity at a drop of the rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from examples.training.config import Config


def learning_rate(step: int, config: Config, total_steps: int) -> float:
    """Base rate of a step (from 0).

    `step`: DIGITS' policy: rate * gamma^floor(step / size), size = ceil(percent of all steps).

    >>> from examples.training.config import Config
    >>> [learning_rate(s, Config(), 86_400) for s in (0, 28_511, 28_512, 57_024)]  # doctest: +ELLIPSIS
    [0.001, 0.001, 0.0001, 1.0...e-05]
    """
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.lr_policy == "step":
        return rate * config.lr_gamma ** (step // drop_steps(config, total_steps))
    share = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def drop_steps(config: Config, total_steps: int) -> int:
    """Steps between drops.

    >>> from examples.training.config import Config
    >>> drop_steps(Config(), 86_400)
    28512
    """
    return max(1, math.ceil(config.lr_step_percent * total_steps / 100 - 1e-9))


def make_optimizer(network: nn.Module, head: str, config: Config, device: torch.device) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that learn, with Caffe's multipliers: `lr_mult` and decay in each group.

    Args:
        network: parameters that do not require a gradient are left out.
        head: module name of the last layer.
        config: rates and decay.
        device: fused kernels where there are some.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.endswith(".bias"), name.startswith(f"{head}.")), []).append(parameter)
    described = [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_bias else config.weight_decay,
            "lr_mult": (config.bias_lr_mult if is_bias else 1.0) * (config.head_lr_mult if is_head else 1.0),
        }
        for (is_bias, is_head), parameters in sorted(groups.items())
    ]
    fused = device.type in ("cuda", "cpu")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(described, lr=config.learning_rate, fused=fused)
    optimizer = torch.optim.SGD(described, lr=config.learning_rate, momentum=config.momentum, fused=fused)
    for parameter in (one for parameters in groups.values() for one in parameters):
        # Made by the fused kernel, it would stay whatever the memory held where fp16's first step is skipped.
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float, *, keep_velocity: bool) -> None:
    """Set the base rate of the next step.

    Caffe's velocity holds the rate it was made with (v = m v + lr g, w -= v); torch's does not (v = m v + g,
    w -= lr v). They are the same while the rate is; at a change torch's velocity is scaled by old rate / new rate.

    Args:
        optimizer: of `make_optimizer`.
        rate: base rate; each group multiplies it by its `lr_mult`.
        keep_velocity: do as Caffe.
    """
    for group in optimizer.param_groups:
        new = rate * group["lr_mult"]
        if keep_velocity and new != group["lr"] and new > 0:
            for parameter in group["params"]:
                velocity = optimizer.state.get(parameter, {}).get("momentum_buffer")
                if velocity is not None:
                    velocity.mul_(group["lr"] / new)
        group["lr"] = new


def optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state by `<what>/<parameter name>`."""
    tensors = {}
    for name, parameter in network.named_parameters():
        for what, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{what}/{name}"] = value
    return tensors


def restore_optimizer(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], rates: list[float]
) -> None:
    """Put back what `optimizer_tensors` took, laid out in memory as the parameters are, and each group's rate."""
    by_name = dict(network.named_parameters())
    for full, value in tensors.items():
        what, _, name = full.partition("/")
        parameter = by_name[name]
        same_shape = value.shape == parameter.shape
        mine = torch.empty_like(parameter) if same_shape else torch.empty_like(value, device=parameter.device)
        optimizer.state[parameter][what] = mine.detach().copy_(value)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
