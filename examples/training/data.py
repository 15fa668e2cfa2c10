"""The streams of a run: training batches with DIGITS' crops and mirrors, cut on the device; evaluation without any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from examples.errors import RunError
from examples.models.inputs import Input, Prepare
from examples.training.config import Config
from examples.training.machine import Machine
from t4sa_data import stream
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, InputMissing, NoRows, ShardError
from t4sa_data.files import sha256_file
from t4sa_data.reading import open_release
from t4sa_data.reading.local import LocalRelease
from t4sa_data.streaming import Labels
from t4sa_data.streaming.images import Augment
from t4sa_data.streaming.options import parse_workers

OWN_LABELS = Config.labels


def require_learnable(config: Config) -> None:
    """Refuse to learn from what models are tested on.

    Raises:
        RunError: says why.
    """
    if config.train_split == "test" or config.config == "twitter-testing":
        raise RunError(
            "training on a test split",
            expected="--train-split train",
            got=f"{config.config}, split {config.train_split}",
            hint="Its numbers would mean nothing. Choose weights by --eval-split validation; test comes once, at the "
            "end.",
        )
    if config.eval_split == config.train_split:
        raise RunError("the split to look at is the one that is learned from", got=config.eval_split)
    if config.eval_split == "test":
        raise RunError(
            "choosing weights by the test split", expected="--eval-split validation", got="--eval-split test"
        )


def require_whole(path: str) -> None:
    """Refuse a release whose files are not there, or not as long as they were, before a step is spent on it.

    Raises:
        ReleaseNotFound, ManifestError: there is none.
        ShardError: names the file.
    """
    release = open_release(path)
    if not isinstance(release, LocalRelease):
        return
    for file in release.manifest.files:
        at = release.manifest.path(release.folder, file)
        found = at.stat().st_size if at.is_file() else None
        if found != file.bytes:
            raise ShardError(
                "a file of the release is not as it was built",
                expected=f"{file.bytes} bytes",
                got="no file" if found is None else f"{found} bytes",
                where=at,
                hint="`t4sa check` says all that is wrong; build or fetch the release again.",
            )


def train_stream(config: Config, side_px: int, machine: Machine) -> Any:
    """Whole batches of a step, this rank's part, cropped and mirrored on the device.

    The last batch of an epoch is filled from its beginning: ceil(N / batch) steps, as Caffe counts them.

    Raises:
        BadOption: ranks and micro-batches do not go into one another.
    """
    rows, micro = config.global_batch / machine.world_size, config.batch_size
    if rows != int(rows) or (rows % micro and micro % rows):
        raise BadOption(
            "micro-batches and processes do not go into one another",
            expected=f"a number of processes that shares out {config.accumulate} micro-batches of {micro} evenly",
            got=machine.world_size,
        )
    return stream(
        config.data,
        config=config.config,
        split=config.train_split,
        batch_size=config.global_batch,
        size=config.resize_px,
        resize="squash",
        augment=Augment(crop=side_px, flip=config.flip, on_device=machine.device.type != "cpu"),
        shuffle=config.shuffle,
        tail="wrap",
        seed=config.seed,
        where=conditions(config) or None,
        labels=other_labels(config),
        columns=("confidence",) if config.confidence_weight else (),
        workers=num_workers(config, machine),
    ).to(machine.device)


def conditions(config: Config) -> dict[str, Any]:
    """Which pictures are learned from, as `stream(where=)` has it; empty: all.

    Raises:
        InputMissing: the file of keys is not there.
    """
    chosen: dict[str, Any] = {"min_confidence": config.min_confidence} if config.min_confidence else {}
    if config.keep != "all":
        if not Path(config.keep).is_file():
            raise InputMissing("no such file of keys", where=config.keep, hint="--keep takes one key a line.")
        chosen["keys"] = Path(config.keep)
    return chosen


def other_labels(config: Config) -> Labels | None:
    """The table of labels to learn, as `stream(labels=)` has it; None: the release's own.

    Raises:
        InputMissing: the file is not there.
        RunError: `min_confidence`, which is about the release's labels, beside other ones.
    """
    if config.labels == OWN_LABELS:
        return None
    path = Path(config.labels)
    if not path.is_file():
        raise InputMissing("no such file of labels", where=path, hint="examples/relabel.py makes one.")
    if config.min_confidence:
        raise RunError(
            "--min-confidence is about the release's labels, not about those of --labels",
            got=config.min_confidence,
            hint="examples/relabel.py --min-confidence leaves doubtful ones out of the file.",
        )
    return Labels(path=path, unmatched="drop")


def require_probabilities(config: Config, batches: Any) -> None:
    """Refuse to learn the release's probabilities where the labels are another source's.

    Raises:
        RunError: a table of labels alone does not say how sure they are.
    """
    wanted = config.soft_labels or config.confidence_weight
    if wanted and config.labels != OWN_LABELS and batches.selection.has_own_probabilities:
        raise RunError(
            "--soft-labels and --confidence-weight need probabilities",
            expected=f"columns {', '.join(CLASSES)}",
            got="labels alone",
            where=config.labels,
        )


def labels_digest(config: Config) -> str:
    """sha256 of the file of labels: what a run that goes on must find again; empty: the release's own.

    Raises:
        InputMissing, RunError: see `other_labels`.
    """
    labels = other_labels(config)
    return "" if labels is None else sha256_file(labels.path)


def num_workers(config: Config, machine: Machine) -> int:
    """Decoding threads of this process: as configured, else one for each core of its share, but for one that the steps
    need, where another device does the rest."""
    if config.workers:
        return config.workers
    share, _ = parse_workers(None)
    return max(1, share - (machine.device.type != "cpu"))


def eval_stream(config: Config, given: Input, machine: Machine) -> Any:
    """Each picture of the split to look at once, all ranks together.

    Raises:
        NoRows: `labels` names none of them.
    """
    try:
        batches = stream(
            config.data,
            config=config.config,
            split=config.eval_split,
            batch_size=config.eval_batch_size,
            size=given.stream_px,
            resize="squash",
            shuffle=False,
            tail="ragged",
            labels=other_labels(config),
            workers=config.workers or None,
        )
    except NoRows as error:
        if config.labels == OWN_LABELS:
            raise
        raise NoRows(
            f"the labels name no picture of {config.eval_split}",
            where=config.labels,
            hint="The best weights are chosen by the same kind of label: relabel that split, too.",
        ) from error
    return batches.to(machine.device)


def count_classes(batches: Any) -> dict[str, int]:
    """Selected pictures of each class."""
    counts = np.bincount(batches.selection.label, minlength=len(CLASSES))
    return dict(zip(CLASSES, counts.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What goes through the network at once."""

    number: int
    """m: rows [32 m, 32 m + 32) of the global batch, at batch_size 32."""
    first_row: int
    """Of the micro-batch; more than 0 where several ranks share one."""
    num_rows: int
    """Of the micro-batch, all ranks together."""
    pictures: torch.Tensor
    """x_BCHW, uint8, RGB."""
    target: torch.Tensor
    """BK, float32, sums to 1."""
    label: torch.Tensor
    """B."""
    weight: torch.Tensor
    """B, float32."""


def micro_batches(batch: Mapping[str, Any], config: Config, machine: Machine) -> Iterator[MicroBatch]:
    """Cut this rank's part of a global batch, whose rows are in order of rank.

    Args:
        batch: of `train_stream`.
        config: `batch_size` is that of a micro-batch.
        machine: rank.
    """
    rows, micro = len(batch["label"]), config.batch_size
    target_BK = targets(batch, config)
    weight_B = torch.ones(rows, device=target_BK.device)
    if config.confidence_weight and config.labels != OWN_LABELS:  # the column is the release's labeller's
        weight_B = batch["probabilities"].amax(1).nan_to_num(1.0)
    elif config.confidence_weight:
        confidence = np.array(batch["confidence"], dtype=np.float32)  # None, where unknown, is not a number
        weight_B = torch.from_numpy(confidence).nan_to_num(1.0).to(target_BK.device)
    for start in range(0, rows, micro):
        part = slice(start, min(start + micro, rows))
        first = machine.rank * rows + start
        yield MicroBatch(
            number=first // micro,
            first_row=first % micro,
            num_rows=micro,
            pictures=batch["image"][part],
            target=target_BK[part],
            label=batch["label"][part],
            weight=weight_B[part],
        )


def targets(batch: Mapping[str, Any], config: Config) -> torch.Tensor:
    """What the network is to say: the label's class, or the labeller's probabilities where they are known, smoothed.

    Returns:
        target_BK, float32.
    """
    label_B = batch["label"]
    target_BK = nn.functional.one_hot(label_B, len(CLASSES)).float()
    if config.soft_labels:
        known_B = ~batch["probabilities"].isnan().any(1)
        target_BK = torch.where(known_B[:, None], batch["probabilities"].nan_to_num(0.0), target_BK)
    return target_BK * (1 - config.label_smoothing) + config.label_smoothing / len(CLASSES)


def confusion_and_loss(
    network: nn.Module, prepare: Prepare, batches: Any, machine: Machine
) -> tuple[torch.Tensor, float]:
    """Evaluate a split: every picture once, whatever the number of ranks.

    Returns:
        Pictures by truth and answer, int64 [K, K]; mean cross-entropy in nats.
    """
    num = len(CLASSES)
    confusion = torch.zeros(num * num, dtype=torch.int64, device=machine.device)
    loss = torch.zeros((), dtype=torch.float64, device=machine.device)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for batch in batches:
            if not len(batch["label"]):
                continue
            with machine.autocast():
                logits_BK = network(prepare(batch["image"]))
            loss += nn.functional.cross_entropy(logits_BK.float(), batch["label"], reduction="sum").double()
            confusion += torch.bincount(batch["label"] * num + logits_BK.argmax(1), minlength=num * num)
    network.train(was_training)
    confusion, loss = machine.sum(confusion), machine.sum(loss)
    return confusion.view(num, num).cpu(), float(loss / confusion.sum())
