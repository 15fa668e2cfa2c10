"""Hugging Face Accelerate: `prepare` takes model and optimizer, the stream stays as it is and is saved beside them.

    python -m examples.interop.accelerate --steps 5
    python -m examples.interop.accelerate --steps 10 --resume
    torchrun --nproc-per-node 2 -m examples.interop.accelerate --steps 10 --resume

Needs the extra [torch], and accelerate.
"""

from __future__ import annotations

import sys

if not __package__:
    sys.exit("Run it as a module: python -m examples.interop.accelerate (see shared.py)")

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from examples.interop import shared
from t4sa_data import stream
from t4sa_data.streaming.device import IMAGENET


def main(argv: list[str] | None = None) -> None:
    """Train up to `--steps`, from the beginning or from the last checkpoint."""
    options = shared.parse(__doc__, argv)
    accelerator = Accelerator(cpu=shared.ON_CPU)
    set_seed(0)
    model = shared.SmallNetwork()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=2e-3))
    # The stream copies batches to the device ahead of the step, and knows its rank: it needs no `prepare`.
    batches = stream(options.data, batch_size=options.batch_size, size=64, augment="flip")
    loader = batches.to(accelerator.device, normalize=IMAGENET)
    accelerator.register_for_checkpointing(loader)
    if options.resume:
        accelerator.load_state(options.out / "checkpoint")
    step = loader.epoch * len(loader) + loader.state_dict()["batches"]
    while step < options.steps:
        for batch in loader:  # an epoch, or what is left of one
            optimizer.zero_grad()
            loss = model(batch["image"], batch["label"])["loss"]
            accelerator.backward(loss)
            optimizer.step()
            step += 1
            shared.note(options.out, step, loss.item(), batch)
            if step == options.steps:
                break
    accelerator.save_state(options.out / "checkpoint")
    accelerator.end_training()


if __name__ == "__main__":
    main()
