"""From `load_dataset` to a few dozen optimisation steps of a small network, on the CPU, in seconds.

    python examples/quickstart.py                                # config "miniature": drawn pictures, offline
    python examples/quickstart.py --config b-t4sa                # the release that `t4sa where` finds
    python examples/quickstart.py --config b-t4sa --data DIR/t4sa

Needs the extra [train]. Returns the losses, so that a test can watch them fall.

Shapes: B batch, C channels (3), H height, W width, K classes (3).
"""

from __future__ import annotations

import argparse
import random
from typing import Any

SIDE_PX = 48
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
SEED = 0


def to_tensors(rows: Any) -> tuple[Any, Any]:
    """Pictures squashed to SIDE_PX x SIDE_PX in [-1, 1] and labels: x_BCHW float32, y_B int64."""
    import numpy as np
    import torch

    pictures = [np.asarray(image.resize((SIDE_PX, SIDE_PX)), dtype=np.float32) for image in rows["image"]]
    x_BHWC = torch.from_numpy(np.stack(pictures))
    return x_BHWC.permute(0, 3, 1, 2) / 127.5 - 1, torch.tensor(rows["label"])


def small_network() -> Any:
    """Three strided convolutions and a linear layer: x_BCHW -> logits_BK."""
    from torch import nn

    layers: list[nn.Module] = []
    for num_in, num_out in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(num_in, num_out, 3, stride=2, padding=1), nn.BatchNorm2d(num_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3))


def train(train_set: Any, test_set: Any, *, num_steps: int) -> tuple[list[float], float]:
    """Train for `num_steps` batches; the loss of each step, and the accuracy on `test_set` (0 to 1)."""
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    network = small_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    losses = []
    for step in range(num_steps):
        x_BCHW, y_B = to_tensors(train_set[rng.sample(range(len(train_set)), min(BATCH_SIZE, len(train_set)))])
        logits_BK = network(x_BCHW)
        loss = nn.functional.cross_entropy(logits_BK, y_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0 or step == num_steps - 1:
            print(f"step {step:3d}  loss {losses[-1]:.3f}")
    network.eval()
    num_right = 0
    with torch.no_grad():
        for start in range(0, len(test_set), BATCH_SIZE):
            x_BCHW, y_B = to_tensors(test_set[start : start + BATCH_SIZE])
            num_right += int((network(x_BCHW).argmax(dim=1) == y_B).sum())
    return losses, num_right / len(test_set)


def main(argv: list[str] | None = None) -> list[float]:
    """Parse the command line, load, train, print; the loss of each step."""
    parser = argparse.ArgumentParser(description="A few optimisation steps from load_dataset.")
    parser.add_argument("--data", default="t4sa", help='a release folder, or "t4sa": the places of `t4sa where`')
    parser.add_argument("--config", default="miniature", help="miniature, b-t4sa, t4sa-unique, t4sa")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args(argv)
    from t4sa_data import load_dataset

    train_set, test_set = (load_dataset(options.data, options.config, split=split) for split in ("train", "test"))
    print(f"{options.config}: {len(train_set)} images to train on, {len(test_set)} to test")
    losses, accuracy = train(train_set, test_set, num_steps=options.steps)
    print(f"accuracy on the test split: {accuracy:.1%} (chance: 33.3%)")
    return losses


if __name__ == "__main__":
    main()
