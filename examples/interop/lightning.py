"""Lightning: the stream is the train_dataloader; Lightning saves and loads its state with the model's, unasked.

    python -m examples.interop.lightning --steps 5
    python -m examples.interop.lightning --steps 10 --resume
    torchrun --nproc-per-node 2 -m examples.interop.lightning --steps 10 --resume

Needs the extra [torch], and lightning.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

if not __package__:
    sys.exit("Run it as a module: python -m examples.interop.lightning (see shared.py)")

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from examples.interop import shared
from t4sa_data import stream


class T4SA(LightningDataModule):
    """The stream. A DataLoader around it would only be in the way: it has workers, batches and ranks of its own."""

    def __init__(self, path: Path | str, batch_size: int) -> None:
        super().__init__()
        self.path, self.batch_size = path, batch_size

    def train_dataloader(self) -> Any:
        """Called once, before the first epoch."""
        return stream(self.path, batch_size=self.batch_size, size=64, augment="flip")


class Classifier(LightningModule):
    """The small network with an optimizer."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.network, self.out = shared.SmallNetwork(), out

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Loss of a batch."""
        loss: torch.Tensor = self.network(batch["image"] / 127.5 - 1, batch["label"])["loss"]
        shared.note(self.out, self.global_step + 1, loss.item(), batch)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(argv: list[str] | None = None) -> None:
    """Train up to `--steps`, from the beginning or from the last checkpoint."""
    options = shared.parse(__doc__, argv)
    seed_everything(0, verbose=False)
    trainer = Trainer(
        max_steps=options.steps,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        callbacks=[ModelCheckpoint(options.out, every_n_train_steps=options.steps, save_last=True)],
        logger=False,
        enable_progress_bar=False,
    )
    last = options.out / "last.ckpt" if options.resume else None
    trainer.fit(Classifier(options.out), datamodule=T4SA(options.data, options.batch_size), ckpt_path=last)


if __name__ == "__main__":
    main()
