"""What does decoding on the GPU bring? `decode="cpu"` beside `decode="cuda"`. Called by `loader.py --gpu`; how busy the
loader keeps a GPU is the question of `train.py`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import common
import loader_input

BATCH, STEPS, WARM = 128, 60, 10


def main(chosen: argparse.Namespace) -> None:
    """Run and print it in Markdown; without CUDA say so."""
    import torch

    if not torch.cuda.is_available():
        print("GPU: not run: torch sees no CUDA device here.")
        return
    machine = common.describe_machine(("t4sa-data", "torch", "torchvision", "torchcodec"))
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as name:
        num = -(-chosen.samples * 9 // 7)
        images, line = common.photo_images(num, chosen.photos)
        loader_input.make_release(Path(name), images, num)
        folder = Path(name) / "release" / "t4sa-wds"
        decoding = [_decoding(folder, decode, chosen.rounds) for decode in ("cpu", "cuda")]
    print(f"Command: `python benchmarks/loader.py --gpu`\n\n{machine} {torch.cuda.get_device_name()}.")
    print(f"Input: {line}; batches of {BATCH}, {STEPS} steps; {chosen.rounds} rounds.\n")
    print(common.markdown_table(["decoding to the device", "images/s"], decoding))


def _batches(folder: Path, decode: str = "cpu") -> Iterable[Any]:
    """Batches on the device, epoch after epoch."""
    import t4sa_data
    from t4sa_data.streaming.device import IMAGENET

    stream = t4sa_data.stream(folder, batch_size=BATCH, augment="flip", decode=decode)
    loader = stream.to("cuda", normalize=IMAGENET)
    while True:
        yield from loader


def _rate(step: Callable[[Any], None], batches: Iterable[Any]) -> float:
    """Images a second of `STEPS` steps after `WARM` ones."""
    import torch

    for number, batch in enumerate(batches, 1 - WARM):
        step(batch)
        if number == 0:
            torch.cuda.synchronize()
            start = time.perf_counter()
        if number == STEPS:
            break
    torch.cuda.synchronize()
    return STEPS * BATCH / (time.perf_counter() - start)


def _decoding(folder: Path, decode: str, rounds: int) -> list[str]:
    """Images a second that arrive on the device, nothing done with them."""
    return [
        f'decode="{decode}"',
        common.spread([_rate(lambda _: None, _batches(folder, decode)) for _ in range(rounds)], 0),
    ]
