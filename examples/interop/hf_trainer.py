"""Hugging Face Trainer: it takes the stream as its loader, and a callback keeps the stream's state in its checkpoints.

    python -m examples.interop.hf_trainer --steps 5
    python -m examples.interop.hf_trainer --steps 10 --resume
    torchrun --nproc-per-node 2 -m examples.interop.hf_trainer --steps 10 --resume

Needs the extra [torch], transformers and accelerate.
"""

from __future__ import annotations

import sys
from typing import Any

if not __package__:
    sys.exit("Run it as a module: python -m examples.interop.hf_trainer (see shared.py)")

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from examples.interop import shared
from t4sa_data import stream


class StreamState(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Puts the stream's state into `trainer_state.json`; the Trainer makes this anew from there, with `saved` set."""

    saved: dict[str, Any] | None = None
    stream: Any = None

    def state(self) -> dict[str, Any]:
        """What the Trainer saves."""
        saved = self.saved if self.stream is None else self.stream.state_dict()
        return {"args": {}, "attributes": {"saved": saved}}

    def on_train_begin(self, *_: Any, train_dataloader: Any, **__: Any) -> None:
        """The checkpoint was read: the stream goes on where it was."""
        self.stream = train_dataloader
        if self.saved is not None:
            self.stream.load_state_dict(self.saved)


class StreamTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loader is the stream: through `train_dataset` it would share out the batches once more."""

    def __init__(self, *args: Any, loader: Any, **options: Any) -> None:
        super().__init__(*args, **options, callbacks=[StreamState()])
        self.loader = loader

    def get_train_dataloader(self) -> Any:
        """The stream, which knows its rank."""
        return self.loader

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """Loss of a batch of the stream."""
        loss = model(inputs["image"] / 127.5 - 1, inputs["label"])["loss"]
        shared.note(self.args.output_dir, self.state.global_step + 1, loss.item(), inputs)
        return loss


def main(argv: list[str] | None = None) -> None:
    """Train up to `--steps`, from the beginning or from the last checkpoint."""
    options = shared.parse(__doc__, argv)
    arguments = TrainingArguments(
        output_dir=str(options.out),
        max_steps=options.steps,
        use_cpu=shared.ON_CPU,
        save_steps=options.steps,
        restore_callback_states_from_checkpoint=True,
        ignore_data_skip=True,  # the stream goes on by itself
        report_to=[],
    )
    loader = stream(options.data, batch_size=options.batch_size, size=64, augment="flip")
    trainer = StreamTrainer(shared.SmallNetwork(), arguments, loader=loader)
    trainer.train(resume_from_checkpoint=options.resume or None)


if __name__ == "__main__":
    main()
