"""What the three examples have in common: options, data, a small network, a record of what each rank saw.

Run them as modules, from the checkout: `python -m examples.interop.accelerate`. As a script, the folder of the file
would come first in Python's path, and `import accelerate` would find the example in place of the library.

Shapes: B batch, C channels (3), H height, W width, K classes (3).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from t4sa_data.testing import make_release

NUM_DRAWN = 60
ON_CPU = not torch.accelerator.is_available()
"""Accelerate and Trainer have to be told: without a GPU they join torchrun's processes only then."""


def parse(description: str | None, argv: list[str] | None) -> argparse.Namespace:
    """The options; `data` is made where it is not given."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--data", help="a release, as `stream` takes it; default: a miniature, drawn on the spot")
    parser.add_argument("--out", type=Path, default=Path("runs/interop"), help="folder of checkpoints")
    parser.add_argument("--steps", type=int, default=5, help="steps in all, those before a resume included")
    parser.add_argument("--batch-size", type=int, default=8, help="of all ranks together")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        options.data = options.out / f"miniature-{rank()}"  # every rank draws the same one
        if not options.data.exists():
            make_release(options.data, NUM_DRAWN)
    return options


def rank() -> int:
    """Of this process, as torchrun says."""
    return int(os.environ.get("RANK", "0"))


def note(out: Path | str, step: int, loss: float, batch: dict[str, Any]) -> None:
    """Print a step, and add the samples it was made of to `out/seen-RANK.jsonl`."""
    print(f"rank {rank()}  step {step}  loss {loss:.3f}", flush=True)
    with (Path(out) / f"seen-{rank()}.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "position": batch["position"].tolist()}) + "\n")


class SmallNetwork(nn.Module):
    """Two strided convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for num_in, num_out in ((3, 16), (16, 32)):
            layers += [nn.Conv2d(num_in, num_out, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))

    def forward(self, image: torch.Tensor, label: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Loss and logits_BK of a batch of the stream: normalised x_BCHW and y_B."""
        logits_BK = self.layers(image)
        return {"loss": nn.functional.cross_entropy(logits_BK, label), "logits": logits_BK}
