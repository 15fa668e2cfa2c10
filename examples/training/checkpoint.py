"""Checkpoints: a model folder that also holds the optimiser and where the loader is. All of it tensors and JSON.

There is no state of a random generator to lose: order, crops and mirrors are functions of (seed, epoch, position),
dropout of (seed, step, micro-batch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.errors import ModelFileError, RunError, WeightsMismatch
from examples.models.folder import Model, read_json, read_tensors, save_model
from examples.training.optim import optimizer_tensors, restore_optimizer
from t4sa_data import plan

LAST, BEST = "last", "best"
KEY = "training"
"""Of the checkpoint's part of `model.json`."""


@dataclass(kw_only=True)
class Progress:
    """Where a run is."""

    step: int = 0
    """Steps done."""
    best_accuracy: float = -1.0
    """Of the split to look at, 0 to 1."""
    best_step: int = 0
    validated_step: int = 0
    """The last one after which the other split was looked at."""
    num_samples: int = 0
    """Pictures of an epoch."""
    is_finished: bool = False
    """All steps done, the report written."""
    seconds: float = 0.0
    """Of training so far, looking at the other split included; what was lost by a kill is not."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """Of fp16's loss scaling; empty without it."""


def save_checkpoint(
    out: Path, model: Model, optimizer: torch.optim.Optimizer, loader: Any, progress: Progress, more: Mapping[str, Any]
) -> None:
    """Write `out/last`: the old checkpoint stays whole until the new one is.

    Args:
        out: folder of the run.
        model: the bare network in it, neither compiled nor wrapped.
        optimizer: its tensors are kept beside the weights.
        loader: a stream: its state says which batch comes next.
        progress: of the run.
        more: what a reader of the checkpoint has to know (configuration, world size); JSON values.
    """
    training = {
        **asdict(progress),
        "loader": loader.state_dict(),
        "rates": [float(group["lr"]) for group in optimizer.param_groups],
        **more,
    }
    tag = f"{progress.step:08d}"
    save_model(
        out / LAST,
        model,
        name=f"model-{tag}",
        more={f"optimizer-{tag}": optimizer_tensors(model.network, optimizer)},
        extra={KEY: training},
    )


def read_checkpoint(out: Path) -> dict[str, Any] | None:
    """What `out/last` says; None where there is none.

    Raises:
        ModelFileError: it is damaged.
    """
    if not (out / LAST / "model.json").is_file():
        return None
    description = read_json(out / LAST)
    if KEY not in description:
        raise ModelFileError("the last checkpoint has no state of a training", where=out / LAST)
    return description


def require_same_labels(description: Mapping[str, Any], digest: str, where: object) -> None:
    """Refuse to go on with a file of labels that is no longer the one the run was begun with.

    Args:
        description: of `read_checkpoint`.
        digest: sha256 of the file now; empty: there is none.
        where: the file.

    Raises:
        RunError: names both.
    """
    then = description[KEY].get("labels_sha256", "")
    if then != digest:
        raise RunError(
            "the labels are not those that this run was begun with",
            expected=f"sha256 {then or 'of no file'}",
            got=digest or "no file",
            where=where,
            hint="Put the old file back, or begin another run (--out).",
        )


def restore_checkpoint(
    out: Path, description: Mapping[str, Any], model: Model, optimizer: torch.optim.Optimizer, loader: Any
) -> Progress:
    """Put network, optimiser and loader back to where `out/last` left them.

    Raises:
        ModelFileError: a file is damaged or missing.
        WeightsMismatch: it is of another network.
        StateMismatch: the release, its order or the global batch are others.
    """
    training = description[KEY]
    weights = read_tensors(out / LAST, description["weights"], description)
    try:
        model.network.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsMismatch("the checkpoint is of another network", got=str(error), where=out / LAST) from error
    tensors = read_tensors(out / LAST, description["more"][f"optimizer-{training['step']:08d}"], description)
    restore_optimizer(model.network, optimizer, tensors, training["rates"])
    loader.load_state_dict(training["loader"])
    return Progress(**{name: training[name] for name in asdict(Progress())})


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """Seed of torch's generator before the forward pass of a micro-batch: whichever rank has it.

    >>> dropout_seed(0, 5, 1) == dropout_seed(0, 5, 1) != dropout_seed(0, 6, 1)
    True
    """
    hashed = plan.sample_hash(np.array([micro_batch], dtype=np.int64), seed=seed, epoch=step, purpose=plan.DROPOUT)
    return int(hashed[0])
