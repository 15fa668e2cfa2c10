"""Fine-tune the paper's networks on B-T4SA, straight from the streaming shards.

    python examples/train.py --recipe smoke --data demo/home --out runs/smoke           # drawn pictures, on any CPU
    python examples/train.py --recipe vgg19-ft-f --data t4sa --out runs/vgg19-ft-f      # the paper's best but one
    python examples/train.py --recipe hybrid-ft-a --init caffe:deploy.prototxt,hybridCNN.caffemodel --out runs/hybrid
    torchrun --nproc-per-node 4 examples/train.py --recipe vgg19-ft-a --out runs/vgg19-ft-a   # the same run, faster
    python examples/train.py --resume --out runs/vgg19-ft-f                             # go on where it was

The same command again goes on, too. SIGTERM and --max-hours save and end with status 0.

Shapes: B pictures of this process, C channels (3), H height, W width, S side of the network's square, K classes (3).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# OpenMP's threads spin while they wait: two runs on the same cores would each be ten times slower. Read at its start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from examples.errors import RunError
from examples.models import build, default_input, frozen_by_ft_f, head_of
from examples.models.dropout import set_rows
from examples.models.folder import Model, save_model
from examples.terminal import run
from examples.training import checkpoint, data, initial, report
from examples.training.checkpoint import BEST, Progress
from examples.training.command import CONFIG_NAME, parse
from examples.training.config import Config, require_same_run, to_toml
from examples.training.journal import Journal, describe_run, resume_command
from examples.training.machine import Machine, Stop, machine
from examples.training.optim import learning_rate, make_optimizer, set_rate
from examples.training.refusals import out_of_memory, require_patience, require_size
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import T4SAError
from t4sa_data.files import write_bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; exit status 0, also for a run that was asked to stop, 2 for a refusal."""
    try:
        command = parse(__doc__ or "", argv)
        if command is None:
            return 0
        with machine(command.config.device, command.config.amp) as where:
            Run(command.config, where, command.argv, resume=command.resume).train()
    except T4SAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(f"error: {out_of_memory(command.config, error)}", file=sys.stderr)  # type: ignore[union-attr]
        return 2
    return 0


class Run:
    """A training, from its configuration to its report.

    Args:
        config: all that decides it.
        where: device, precision, rank.
        argv: as typed, for the record.
        resume: there must be something to go on with.
    """

    def __init__(self, config: Config, where: Machine, argv: Sequence[str] = (), *, resume: bool = False) -> None:
        self.config, self.where, self.argv = config, where, argv
        data.require_learnable(config)
        self.labels_sha256 = data.labels_digest(config)
        data.require_whole(config.data)
        require_patience(config, where)
        self.saved = checkpoint.read_checkpoint(config.out)
        if self.saved is None and resume:
            raise RunError("no checkpoint to go on with", where=config.out, hint="Leave out --resume to begin.")
        if self.saved is not None:
            require_same_run(config, self.saved[checkpoint.KEY]["config"], config.out)
            checkpoint.require_same_labels(self.saved, self.labels_sha256, config.labels)
        self.make_model()
        self.make_data()
        self.say_what()

    def make_model(self) -> None:
        """Network, initial weights, optimiser; compiled and wrapped for the steps, bare for the files."""
        config, where = self.config, self.where
        torch.manual_seed(config.seed)  # fresh weights; everything later is seeded where it is drawn
        network = build(config.model, len(CLASSES), width=config.width)
        given = default_input(config.model)
        given = replace(
            given, view=config.eval_crop, resize_px=config.resize_px, side_px=config.crop_px or given.side_px
        )
        fresh_run = self.saved is None
        loaded = initial.initialise(network, config, given) if fresh_run else initial.Loaded(source="the checkpoint")
        if config.finetune == "fc6+":
            frozen = set(frozen_by_ft_f(network))
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name not in frozen)
        require_size(network, config, given)
        memory = torch.channels_last if config.channels_last else torch.contiguous_format
        network = network.to(where.device, memory_format=memory)  # type: ignore[call-overload]
        self.model = Model(
            network=network,
            architecture=config.model,
            width=config.width,
            input=given,
            source={"recipe": config.to_json(), "initial": str(loaded), **self.labels_source()},
        )
        self.prepare = self.model.prepare().to(where.device)
        self.optimizer = make_optimizer(network, head_of(network), config, where.device)
        self.scaler = torch.amp.GradScaler(where.device.type, enabled=where.amp == "fp16")
        stepped: Any = torch.compile(network) if config.compile else network
        if where.world_size > 1:
            stepped = DistributedDataParallel(stepped, gradient_as_bucket_view=True)
        self.network, self.loaded = stepped, loaded

    def labels_source(self) -> dict[str, str]:
        """sha256 of the file of labels, where there is one."""
        return {"labels_sha256": self.labels_sha256} if self.labels_sha256 else {}

    def make_data(self) -> None:
        """The streams, the number of steps, and where this run is."""
        config = self.config
        self.batches = data.train_stream(config, self.model.input.side_px, self.where)
        data.require_probabilities(config, self.batches)
        self.eval_batches = data.eval_stream(config, self.model.input, self.where)
        self.steps_per_epoch = len(self.batches)
        self.schedule_steps = config.epochs * self.steps_per_epoch
        self.total_steps = min(config.max_steps or self.schedule_steps, self.schedule_steps)
        self.progress = Progress(num_samples=self.batches.num_samples)
        if self.saved is not None:
            self.progress = checkpoint.restore_checkpoint(
                config.out, self.saved, self.model, self.optimizer, self.batches
            )
            if self.progress.scaler:  # empty where the run was in another precision before
                self.scaler.load_state_dict(self.progress.scaler)

    def say_what(self) -> None:
        """The run folder explains itself, and so do the first lines."""
        config, where = self.config, self.where
        counts = data.count_classes(self.batches)
        digests = {
            "train": self.batches.selection.content_digest,
            "plan": self.batches.plan_digest,
            "eval": self.eval_batches.selection.content_digest,
            **self.labels_source(),
        }
        if not where.is_main:
            return
        config.out.mkdir(parents=True, exist_ok=True)
        more = {"release": self.batches.release.where, "digests": digests, "step": self.progress.step}
        write_bytes(config.out / CONFIG_NAME, to_toml(config).encode())
        describe_run(config, self.argv, where, more)
        learning = sum(p.numel() for p in self.model.network.parameters() if p.requires_grad)
        everything = sum(p.numel() for p in self.model.network.parameters())
        lines = [
            to_toml(config).rstrip(),
            "",
            f"device     {where.device}, {where.world_size} process(es); precision {where.amp}: {where.reason}",
            f"network    {config.model}: {everything:,} parameters, {learning:,} of them learn; {self.loaded}",
            f"input      {self.model.input.side_px} px, {self.model.input.channels}, mean {self.model.input.mean}",
            f"pictures   {sum(counts.values()):,}: {', '.join(f'{name} {n:,}' for name, n in counts.items())}",
            *([self.labels_line()] if config.labels != data.OWN_LABELS else []),
            f"steps      {self.total_steps:,} of {config.global_batch} pictures, {self.steps_per_epoch:,} an epoch",
            f"run        {config.out}; to go on after a stop: {resume_command(config)}",
        ]
        if self.progress.step:
            best = f", best accuracy {self.progress.best_accuracy:.2%}" if self.progress.best_step else ""
            lines.append(f"going on   at step {self.progress.step:,}{best}")
        print("\n".join(lines), flush=True)

    def labels_line(self) -> str:
        """How many pictures the file of labels names."""
        named = (
            f"{len(one.selection):,} of {one.selection.num_split:,} of {split}"
            for one, split in (
                (self.batches, self.config.train_split),
                (self.eval_batches, self.config.eval_split),
            )
        )
        return f"labels     {self.config.labels}: {', '.join(named)}; the test split keeps the release's own"

    def train(self) -> dict[str, Any]:
        """All steps that are left, then the report; the results (empty where it was stopped before)."""
        config, progress = self.config, self.progress
        if progress.is_finished and progress.step >= self.total_steps:
            self.say(f"Nothing to do: {progress.step:,} steps are done. {config.out / 'report.md'}")
            return {}
        steps = {"first_step": progress.step, "total_steps": self.total_steps}
        self.journal = Journal(config, self.where, **steps, num_samples=progress.num_samples)
        self.saved_at = time.perf_counter()
        progress.is_finished = False
        stop = Stop(config.max_hours)
        try:
            while progress.step < self.total_steps:
                if reason := self.train_epoch(stop):
                    self.save()
                    self.say(f"Stopped ({reason}) at step {progress.step:,}. To go on: {resume_command(config)}")
                    return {}
            if progress.validated_step < progress.step:  # fewer --max-steps than before, in the middle of an epoch
                self.validate()
            results = report.finish(config, self.where, progress)
            progress.is_finished = True
            self.save()
            self.say(f"Report: {config.out / 'report.md'}")
            return results
        finally:
            stop.close()
            self.journal.close()

    def train_epoch(self, stop: Stop) -> str:
        """The steps of an epoch, or what is left of one, then a look at the other split; why it stopped, or ''."""
        config, progress, first = self.config, self.progress, self.progress.step
        self.model.network.train()
        batches = iter(self.batches)
        while progress.step < self.total_steps:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            waited = time.perf_counter() - asked if self.device_is_idle() else 0.0
            self.train_step(batch, waited)
            if progress.step % self.steps_per_epoch == 0 or progress.step == self.total_steps:
                break
            if reason := stop.asked(self.where, progress.step):
                return reason
            if progress.step % config.checkpoint_every == 0:
                self.save()
        batches.close()
        if progress.step > first:
            self.validate()
            self.save()
        return stop.asked(self.where, 0) if progress.step < self.total_steps else ""

    def train_step(self, batch: dict[str, Any], waited: float) -> None:
        """One step of the optimiser: this rank's micro-batches of a global batch, forward and backward."""
        config, where, progress = self.config, self.where, self.progress
        rate = learning_rate(progress.step, config, self.schedule_steps)
        set_rate(self.optimizer, rate, keep_velocity=config.caffe_momentum and config.optimizer == "sgd")
        parts = list(data.micro_batches(batch, config, where))
        total = torch.zeros((), device=where.device)
        right = torch.zeros((), device=where.device)
        for i, part in enumerate(parts):
            torch.manual_seed(checkpoint.dropout_seed(config.seed, progress.step, part.number))
            set_rows(self.model.network, part.first_row, part.num_rows)
            x_BCSS = self.prepare(part.pictures)
            if progress.step == 0 and i == 0 and where.is_main:
                labels = part.label[: report.SHOWN].tolist()
                report.draw_inputs(x_BCSS, self.model.input, batch["key"], labels, config.out / report.INPUTS)
            is_last = i == len(parts) - 1
            waiting = where.world_size > 1 and not is_last  # gradients are exchanged once a step
            with self.network.no_sync() if waiting else nullcontext():
                with where.autocast():
                    logits_BK = self.network(x_BCSS)
                loss_B = nn.functional.cross_entropy(logits_BK.float(), part.target, reduction="none")
                loss = (loss_B * part.weight).sum() / config.global_batch
                # DistributedDataParallel divides by the ranks, the loss was divided by the global batch.
                self.scaler.scale(loss * where.world_size).backward()
            total += loss.detach()
            right += (logits_BK.argmax(1) == part.label).sum()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.mark_done()
        progress.step += 1
        self.journal.add(progress.step, total, right, len(batch["label"]), batch["key"], waited)
        if self.journal.is_due(progress.step):
            scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
            row = self.journal.line(progress.step, rate, scale)
            if progress.step == 1:
                self.say(f"    first loss {row['loss']:.4f}; ln 3 = 1.0986 is what guessing costs")
                self.say(f"    a checkpoint takes {self.checkpoint_gb():.2f} GB")

    def mark_done(self) -> None:
        """Note on the device's queue where this step ends."""
        self.done = torch.cuda.Event() if self.where.device.type == "cuda" else None
        if self.done is not None:
            self.done.record()

    def device_is_idle(self) -> bool:
        """Whether the device had nothing to do when the batch came: only then was it waited for."""
        done = getattr(self, "done", None)
        return done is None or bool(done.query())

    def validate(self) -> None:
        """Look at the other split; keep these weights if they are the best so far."""
        self.require_finite()
        with self.journal.pause():
            confusion, loss = data.confusion_and_loss(self.model.network, self.prepare, self.eval_batches, self.where)
        accuracy = int(confusion.trace()) / int(confusion.sum())
        self.journal.validation(self.progress.step, loss, accuracy)
        self.progress.validated_step = self.progress.step
        if accuracy > self.progress.best_accuracy:
            self.progress.best_accuracy, self.progress.best_step = accuracy, self.progress.step
            if self.where.is_main:
                save_model(self.config.out / BEST, self.model, name=f"model-{self.progress.step:08d}")
        self.where.barrier()

    def save(self) -> None:
        """Write the checkpoint."""
        self.require_finite()
        now = time.perf_counter()
        self.progress.seconds, self.saved_at = self.progress.seconds + now - self.saved_at, now
        self.progress.scaler = self.scaler.state_dict()
        with self.journal.pause():
            if self.where.is_main:
                more = {"config": self.config.to_json(), "world_size": self.where.world_size, **self.labels_source()}
                checkpoint.save_checkpoint(
                    self.config.out, self.model, self.optimizer, self.batches, self.progress, more
                )
            self.where.barrier()

    def require_finite(self) -> None:
        """Nothing is kept of a network that is no longer numbers: a finite loss may have had an infinite gradient."""
        self.journal.require_finite(all(bool(one.isfinite().all()) for one in self.model.network.parameters()))

    def checkpoint_gb(self) -> float:
        """Size of a checkpoint: weights, and what the optimiser keeps of each that learns."""
        kept = 2 if self.config.optimizer == "adamw" else 1
        parameters = self.model.network.parameters()
        return sum(p.numel() * p.element_size() * (1 + kept * p.requires_grad) for p in parameters) / 1e9

    def say(self, words: str) -> None:
        """A line, of the main process."""
        if self.where.is_main:
            print(words, flush=True)


if __name__ == "__main__":
    run(main)
