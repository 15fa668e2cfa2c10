"""Whether two networks that take the same weights are the same network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.caffe.net import WEIGHTED, module_name
from examples.models.graph import IGNORED, Layer, pair

_SILENT = IGNORED | {"Dropout", "Softmax", "Flatten", "Split"}
"""Kinds that change no logits in use, or that names alone tell apart."""


@dataclass(frozen=True, kw_only=True)
class _Weighted:
    """A layer with weights, and what it is fed."""

    what: str
    fed: str
    """Operations since the last layers with weights, in order."""


def compare_graph(found: Sequence[Layer], expected: Sequence[Layer]) -> list[str]:
    """Differences that change numbers, one a line; an empty list: the same network.

    Weights fit AlexNet with LRN before pooling and after it alike: only the graph tells. Layers with weights are
    matched by name; names of the others, of the head, dropout and the number of classes do not count.

    Args:
        found: of a deploy file.
        expected: of the net it is taken for.
    """
    ours, theirs = _describe(found), _describe(expected)
    lines = [f"{name}: only in the one given" for name in ours if name not in theirs]
    lines += [f"{name}: missing in the one given" for name in theirs if name not in ours]
    for name in ours:
        if name in theirs:
            lines += [
                f"{name}: {word} {getattr(ours[name], field)}, expected {getattr(theirs[name], field)}"
                for field, word in (("what", "is"), ("fed", "is fed by"))
                if getattr(ours[name], field) != getattr(theirs[name], field)
            ]
    return lines


def _describe(layers: Sequence[Layer]) -> dict[str, _Weighted]:
    """Layers with weights by name, the last as `head`."""
    made: dict[str, _Weighted] = {}
    blobs: dict[str, str] = {}
    last = [layer.name for layer in layers if layer.kind in WEIGHTED][-1:]
    for layer in layers:
        fed = [blobs.get(blob, "input") for blob in layer.bottoms]
        one = fed[0] if fed else "input"
        if layer.kind in WEIGHTED:
            name = "head" if layer.name in last else module_name(layer.name)
            made[name] = _Weighted(what=_weighted(layer, is_head=layer.name in last), fed=one)
            one = name
        elif layer.kind == "Concat":
            one = f"[{' | '.join(fed)}]"
        elif layer.kind not in _SILENT:
            one = f"{one} > {_operation(layer)}"
        for top in layer.tops:
            blobs[top] = one
    return made


def _weighted(layer: Layer, *, is_head: bool) -> str:
    """A layer with weights in words."""
    options = layer.options
    outputs = "" if is_head else f" {options.get('num_output')}"
    bias = "" if options.get("bias_term", True) else " without bias"
    if layer.kind == "InnerProduct":
        return f"fully connected{outputs}{bias}"
    window = _window(options, pair(options, "kernel_size", None, short="kernel"))
    group, dilation = options.get("group", 1), pair(options, "dilation", 1)
    more = (f", {group} groups" if group != 1 else "") + (f", dilation {dilation}" if dilation != (1, 1) else "")
    return f"convolution{outputs} {window}{more}{bias}"


def _operation(layer: Layer) -> str:
    """A layer without weights in words; options as numbers, defaults filled in."""
    options = layer.options
    if layer.kind == "Pooling":
        kind = {"MAX": "max", "AVE": "mean"}.get(options.get("pool", "MAX"), options.get("pool"))
        if options.get("global_pooling", False):
            return f"{kind} of all"
        floor = " rounded down" if options.get("round_mode", "CEIL") == "FLOOR" else ""
        return f"{kind} {_window(options, pair(options, 'kernel_size', None, short='kernel'))}{floor}"
    if layer.kind == "LRN":
        numbers = (options.get("alpha", 1.0), options.get("beta", 0.75), options.get("k", 1.0))
        return f"LRN {options.get('local_size', 5)} {' '.join(f'{one:.6g}' for one in numbers)}"
    slope = options.get("negative_slope", 0.0)
    return layer.kind + (f" {slope:.6g}" if slope else "")


def _window(options: Any, kernel: tuple[int, int]) -> str:
    """`3x3/2 pad 1`."""
    stride, pad = pair(options, "stride", 1), pair(options, "pad", 0)
    step = f"{stride[0]}" if stride[0] == stride[1] else f"{stride[0]}x{stride[1]}"
    edge = "" if pad == (0, 0) else f" pad {pad[0]}" + (f"x{pad[1]}" if pad[0] != pad[1] else "")
    return f"{kernel[0]}x{kernel[1]}/{step}{edge}"
