"""What a model says about a split of a release, exact on any number of ranks: the part that needs torch and images.

Shapes: B rows of a forward pass, C channels (3), H height, W width, K classes (3).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.distributed as dist
from tqdm import tqdm

from examples.errors import DeviceError, PredictionsError, WeightsMismatch
from examples.evaluation.predictions import make_table, read_truth
from examples.models.folder import Model
from t4sa_data import stream
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption
from t4sa_data.reading import open_release

Amp = Literal["none", "bf16", "fp16"]
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Forward:
    """A model in evaluation: pictures in, logits out, columns in the order of the catalog's classes.

    Args:
        model: its network is moved to `device`.
        device: to work on.
        amp: precision of matrix products: `none` (float32), `bf16`, `fp16`.

    Raises:
        WeightsMismatch: the model has other classes.
        BadOption: no such precision.
    """

    def __init__(self, model: Model, device: torch.device | str = "cpu", amp: str = "none") -> None:
        if amp not in get_args(Amp):
            raise BadOption("no such precision", expected=" | ".join(get_args(Amp)), got=amp)
        self.columns, self.device, self.amp = class_columns(model.classes), torch.device(device), amp
        self.network = model.network.to(self.device)
        self.prepare = model.prepare().to(self.device)

    @torch.inference_mode()
    def __call__(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits of pictures.

        Args:
            x_BCHW: uint8, RGB, of the size that the model's `input.stream_px` says.

        Returns:
            logits_BK, float32, on the CPU.

        Raises:
            DeviceError: the device's memory does not suffice.
        """
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.autocast(self.device.type, _TYPES.get(self.amp), enabled=self.amp != "none"):
                logits_BK = self.network(self.prepare(x_BCHW.to(self.device)))
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                "out of memory", got=f"a batch of {len(x_BCHW)}", where=self.device, hint="Lower the batch size."
            ) from error
        finally:
            self.network.train(was_training)
        return logits_BK.float().cpu()[:, self.columns]


def class_columns(classes: tuple[str, ...]) -> list[int]:
    """Which column of a model is which class of the catalog.

    Raises:
        WeightsMismatch: they are other classes.

    >>> class_columns(("positive", "negative", "neutral"))
    [1, 2, 0]
    """
    if sorted(classes) != sorted(CLASSES):
        raise WeightsMismatch(
            "the model has other classes", expected=", ".join(CLASSES), got=", ".join(classes), hint="See model.json."
        )
    return [classes.index(name) for name in CLASSES]


def predict(
    model: Model,
    data: str | os.PathLike[str],
    *,
    config: str = "b-t4sa",
    split: str = "test",
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    amp: str = "none",
    workers: int | str | None = None,
) -> pa.Table | None:
    """Predictions for every sample of a split, each once, in release order.

    A row always stands in the same place of a forward pass of the same size, with what others beside it ever: so its
    logits are the same to the bit on any number of ranks, on equal devices and threads.

    Args:
        model: to ask; its network is moved to `device`, its mode is left as it was.
        data: a release, as for `stream`.
        config: an image config.
        split: of the config.
        device: of this rank.
        batch_size: rows of a forward pass, on each rank.
        amp: see `Forward`.
        workers: of the stream.

    Returns:
        columns as `predictions.SCHEMA`; None on ranks other than 0.

    Raises:
        WeightsMismatch: the model has other classes.
        PredictionsError: logits that are no numbers.
        T4SAError: what `stream` raises.
    """
    is_distributed = dist.is_available() and dist.is_initialized()
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if is_distributed else (0, 1)
    forward = Forward(model, device, amp)
    truth = read_truth(open_release(data), config, split)
    batches = stream(
        data,
        config=config,
        split=split,
        batch_size=batch_size * world_size,
        size=model.input.stream_px,
        resize="squash",
        shuffle=False,
        tail="ragged",
        rank=rank,
        world_size=world_size,
        workers=workers,
    )
    shown = tqdm(batches, desc=f"{config}/{split}", unit="batch", disable=None if rank == 0 else True)
    logits_NK, times_seen_N = _of_this_rank(forward, shown, truth.num_rows, batch_size)
    if is_distributed:
        logits_NK, times_seen_N = _from_all_ranks(logits_NK, times_seen_N)
    return _table_of(truth, logits_NK.numpy(), times_seen_N.numpy()) if rank == 0 else None


def _of_this_rank(
    forward: Forward, batches: Iterable[dict[str, Any]], num: int, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the rows that come here, float32 [num, K], 0 for the others; how often each came, int32 [num]."""
    logits_NK, times_seen_N = torch.zeros(num, len(CLASSES)), torch.zeros(num, dtype=torch.int32)
    for batch in batches:
        position = batch["position"]
        for rows, slots in _places(position, batch_size):
            images = batch["image"][rows]
            x_BCHW = images.new_zeros(batch_size, *images.shape[1:])
            x_BCHW[slots] = images
            logits_NK[position[rows]] = forward(x_BCHW)[slots]
        times_seen_N[position] += 1
    return logits_NK, times_seen_N


def _places(position: torch.Tensor, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each forward pass, which rows of a batch go into it, and into which of its rows: position modulo its size.

    >>> [(rows.tolist(), slots.tolist()) for rows, slots in _places(torch.tensor([2, 3, 4]), 4)]
    [([0, 1], [2, 3]), ([2], [0])]
    """
    number = position // batch_size
    for one in number.unique().tolist():
        rows = torch.nonzero(number == one)[:, 0]
        yield rows, position[rows] % batch_size


def _from_all_ranks(logits_NK: torch.Tensor, times_seen_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the ranks' rows together: a row is zero bits on all ranks but one, and bits are added as integers."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.cat([logits_NK.view(torch.int32), times_seen_N[:, None]], dim=1).to(device)
    dist.all_reduce(sums)
    sums = sums.cpu()
    return sums[:, :-1].contiguous().view(torch.float32), sums[:, -1]


def _table_of(truth: pa.Table, logits: npt.NDArray[np.float32], times_seen: npt.NDArray[np.int32]) -> pa.Table:
    if (times_seen != 1).any():
        raise PredictionsError(
            "not every sample was seen once", got=f"{int((times_seen != 1).sum()):,} of {len(logits):,} were not"
        )
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise PredictionsError(
            "logits that are no numbers",
            got=f"{len(bad):,} of {len(logits):,} rows, the first is {truth['key'][int(bad[0])]}",
            hint="Half precision overflows in some networks: --amp none.",
        )
    return make_table(truth, softmax(logits), logits)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities [n, K] of logits [n, K], in double precision.

    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def find_device(name: str = "auto") -> torch.device:
    """A device by name: `auto` (the best here), `cuda`, `cuda:1`, `mps`, `cpu`; under torchrun this rank's GPU.

    Raises:
        DeviceError: it is not here.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError("no such device", expected="auto, cuda, mps, cpu", got=name) from error
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    num_devices = {"cuda": torch.cuda.device_count() if has_cuda else 0, "mps": int(has_mps), "cpu": 1}
    if (device.index or 0) >= num_devices.get(device.type, 0):
        raise DeviceError("no such device here", got=name, hint="--device cpu works everywhere.")
    return device


@contextmanager
def all_ranks(device: torch.device) -> Iterator[tuple[int, int]]:
    """Rank and world size of this process; under torchrun with a process group, NCCL on GPUs, else gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()
