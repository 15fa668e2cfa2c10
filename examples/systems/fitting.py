"""Training on rows of pictures held in hand, for the networks among the systems: the folds of a cross-validation.

The trainer of `examples/train.py` learns from splits of a release, and refuses the Twitter Testing Dataset on purpose;
here the rows are given. Solver, rates, crops, mirrors, dropout and precision are the trainer's own parts; order and
draws are functions of (seed, epoch, row) as there. Steps run over the ends of epochs, as Caffe's do: ceil(epochs x n /
batch) of them.

Shapes: B batch, C channels, H height, W width, S side of the network's square, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from examples.errors import TrainingDiverged
from examples.models import head_of
from examples.models.dropout import set_rows
from examples.models.folder import Model
from examples.models.graph import Net
from examples.models.inputs import Input, Prepare
from examples.models.parts import HEAD_FILLER
from examples.systems.data import Floats, Ints, Pictures
from examples.systems.protocol import Crops
from examples.training.checkpoint import dropout_seed
from examples.training.config import Config
from examples.training.machine import Machine, choose_amp, choose_device
from examples.training.optim import learning_rate, make_optimizer, set_rate
from t4sa_data import plan
from t4sa_data.streaming.images import Augment, Geometry, crop_and_flip, crop_and_flip_of, draw, fit
from t4sa_data.streaming.options import parse_workers

CLASSES_2 = ("negative", "positive")
SMOKE = Config(batch_size=12, accumulate=1, epochs=1, learning_rate=2e-3, resize_px=72, head_lr_mult=10.0)
SMOKE_INPUT = Input(side_px=64, resize_px=72, view="center")
SMOKE_ROWS = 24
"""What `smoke` learns from and is fed: two steps, hundredths of a second; its numbers mean nothing."""
KEPT_BYTES = 1 << 30
"""Of decoded pictures: the Twitter Testing Dataset at 256 px takes a quarter of it; of larger sets the first rows stay,
the others are decoded each time."""


class Squashes:
    """Pictures squashed to a square, by row.

    Args:
        data: the pictures.
        side_px: of the square.
    """

    def __init__(self, data: Pictures, side_px: int) -> None:
        self.data, self.side_px = data, side_px
        self.geometry = Geometry(size=side_px, resize="squash", augment=Augment())
        self.kept: dict[int, torch.Tensor] = {}
        self.most = KEPT_BYTES // (3 * side_px * side_px)
        self.threads = ThreadPoolExecutor(parse_workers(None)[0])

    def __call__(self, rows: Ints) -> torch.Tensor:
        """x_BCHW uint8, RGB; a row may come more than once."""
        missing = [int(row) for row in np.unique(rows) if int(row) not in self.kept]
        made = dict(zip(missing, self.threads.map(self._read, missing), strict=True))
        for row in missing[: max(0, self.most - len(self.kept))]:
            self.kept[row] = made[row]
        return torch.stack([made[row] if row in made else self.kept[row] for row in rows.tolist()])

    def _read(self, row: int) -> torch.Tensor:
        pixels = np.array(self.data.rgb(row))
        return fit(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), self.geometry, None)


_SQUASHES: list[Squashes] = []
_MOST_SETS = 2
"""Sizes that are held at a time: of training, of testing."""


def squashes(data: Pictures, side_px: int) -> Squashes:
    """Those of the last folds, where they are of the same pictures: nothing is decoded twice."""
    for one in _SQUASHES:
        if one.data is data and one.side_px == side_px:
            return one
    _SQUASHES.append(Squashes(data, side_px))
    for old in _SQUASHES[:-_MOST_SETS]:
        old.threads.shutdown(wait=False)
    del _SQUASHES[:-_MOST_SETS]
    return _SQUASHES[-1]


def place_of(device: str) -> Machine:
    """Device and precision: bf16 where the GPU has it, else float32.

    Raises:
        DeviceError: the device is not here.
    """
    chosen = choose_device(device)
    amp, reason = choose_amp("auto", chosen)
    return Machine(device=chosen, amp="none" if amp == "fp16" else amp, reason=reason)


def with_new_head(model: Model, classes: Sequence[str] = CLASSES_2) -> Model:
    """The same network with a fresh last layer (gaussian 0.01, biases 0), drawn from torch's generator.

    Args:
        model: of Caffe's kind; its weights are kept but for the last layer's.
        classes: the new last layer's.
    """
    network = model.network
    assert isinstance(network, Net), "networks of Caffe's kind"
    head = head_of(network)
    fresh = {
        "num_output": len(classes),
        "weight_filler": HEAD_FILLER,
        "bias_filler": {"type": "constant", "value": 0.0},
    }
    layers = [
        replace(one, options={**one.options, **fresh}) if one.name.replace(".", "_") == head else one
        for one in network.layers
    ]
    made = Net(layers, network.side_px)
    kept = {name: value for name, value in network.state_dict().items() if not name.startswith(f"{head}.")}
    made.load_state_dict(kept, strict=False)
    return replace(model, network=made, classes=tuple(classes))


def few(rows: Ints, seed: int) -> Ints:
    """Some of the rows, for `smoke`."""
    return rows[plan.epoch_order(rows, seed=seed, epoch=0, shuffle="full")[:SMOKE_ROWS]]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A place of the training: which row comes, in which epoch."""

    position: Ints
    """Place among the rows to learn from, shape (B,)."""
    epoch: Ints
    """shape (B,)."""


def visits(num: int, config: Config) -> Iterator[Visit]:
    """The rows of each step: whole epochs after one another, each in an order of its own.

    Args:
        num: rows to learn from.
        config: batch, epochs, seed.
    """
    batch, orders = config.global_batch, dict[int, Ints]()
    for step in range(num_steps(num, config)):
        at = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
        epoch, place = np.divmod(at, num)
        for one in np.unique(epoch).tolist():
            if one not in orders:
                orders[one] = plan.epoch_order(np.arange(num), seed=config.seed, epoch=one, shuffle="full")
        position = np.array([orders[e][p] for e, p in zip(epoch.tolist(), place.tolist(), strict=True)], dtype=np.int64)
        orders = {int(epoch[-1]): orders[int(epoch[-1])]}
        yield Visit(position=position, epoch=epoch)


def num_steps(num: int, config: Config) -> int:
    """Steps of a training on so many rows.

    >>> num_steps(704, Config(batch_size=256, accumulate=1, epochs=65))
    179
    """
    return math.ceil(config.epochs * num / config.global_batch)


def learn(model: Model, data: Pictures, rows: Ints, label: Ints, config: Config, where: Machine) -> None:
    """Train a network in place.

    Args:
        model: its network is moved to the device.
        data: the pictures.
        rows: to learn from, shape (n,).
        label: class of each, shape (n,), in the order of `model.classes`.
        config: solver, sizes and seed.
        where: device and precision.

    Raises:
        TrainingDiverged: a loss was no number.
    """
    network = model.network.to(where.device, memory_format=torch.channels_last)
    prepare, side = model.prepare().to(where.device), model.input.side_px
    cut = Geometry(size=config.resize_px, resize="squash", augment=Augment(crop=side, flip=config.flip))
    pictures, total = squashes(data, config.resize_px), num_steps(len(rows), config)
    optimizer = make_optimizer(network, head_of(network), config, where.device)
    is_finite = torch.ones((), dtype=torch.bool, device=where.device)
    target_N = torch.from_numpy(np.asarray(label, dtype=np.int64))
    network.train()
    steps = tqdm(visits(len(rows), config), total=total, desc="training", unit="step", leave=False, disable=None)
    for step, visit in enumerate(steps):
        set_rate(optimizer, learning_rate(step, config, total), keep_velocity=config.caffe_momentum)
        crop, flip = crop_and_flip_of(cut, _draws(cut, visit, config.seed))
        for number in range(config.accumulate):
            part = slice(number * config.batch_size, (number + 1) * config.batch_size)
            x_BCHW = pictures(rows[visit.position[part]]).to(where.device)
            moves = torch.from_numpy(crop[part]).to(where.device), torch.from_numpy(flip[part]).to(where.device)
            torch.manual_seed(dropout_seed(config.seed, step, number))
            set_rows(network, 0, 0)
            with where.autocast():
                logits_BK = network(prepare(crop_and_flip(x_BCHW, *moves, side)))
            target_B = target_N[visit.position[part]].to(where.device)
            loss = nn.functional.cross_entropy(logits_BK.float(), target_B, reduction="sum") / config.global_batch
            loss.backward()
            is_finite &= loss.detach().isfinite()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    network.eval()
    if not bool(is_finite):
        raise TrainingDiverged("the loss is no number", got=f"rate {config.learning_rate}", hint="A lower rate.")


def _draws(cut: Geometry, visit: Visit, seed: int) -> Floats:
    """Uniform numbers for crop and mirror of each picture of a step."""
    hashes = np.empty(len(visit.position), dtype=np.uint64)
    for epoch in np.unique(visit.epoch).tolist():
        mine = visit.epoch == epoch
        hashes[mine] = plan.sample_hash(visit.position[mine], seed=seed, epoch=epoch, purpose=plan.AUGMENT)
    drawn = draw(cut, hashes)
    return np.full((len(hashes), 3), 1.0 - 2.0**-53) if drawn is None else drawn


def probabilities(
    model: Model, data: Pictures, rows: Ints, where: Machine, *, crops: Crops = "one", batch_size: int = 64
) -> Floats:
    """What a network says of pictures: shape (n, K), float64, rows sum to 1.

    Args:
        model: of a network.
        data: the pictures.
        rows: of them, shape (n,).
        where: device and precision.
        crops: `one`: as `model.input.view` says; `ten`: corners and middle and their mirrors, the mean of ten answers
            (Caffe's `oversample`).
        batch_size: pictures at a time.
    """
    network = model.network.to(where.device, memory_format=torch.channels_last)
    network.eval()
    prepare = model.prepare().to(where.device)
    pictures = squashes(data, model.input.resize_px if crops == "ten" else model.input.stream_px)
    made = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            x_BCHW = pictures(rows[start : start + batch_size]).to(where.device)
            views = ten_crops(x_BCHW, model.input.side_px) if crops == "ten" else [x_BCHW]
            made.append(np.mean([_softmax(network, prepare, view, where) for view in views], axis=0))
    return np.concatenate(made) if made else np.zeros((0, len(model.classes)))


def _softmax(network: nn.Module, prepare: Prepare, x_BCHW: torch.Tensor, where: Machine) -> Floats:
    with where.autocast():
        logits_BK = network(prepare(x_BCHW))
    return np.asarray(logits_BK.double().softmax(1).cpu().numpy(), dtype=np.float64)


def ten_crops(x_BCHW: torch.Tensor, side: int) -> list[torch.Tensor]:
    """Four corners, the middle, and the mirrors of the five: [B, C, side, side] each.

    >>> [int(one[0, 0, 0, 0]) for one in ten_crops(torch.arange(16).view(1, 1, 4, 4), 2)]
    [0, 2, 8, 10, 5, 1, 3, 9, 11, 6]
    """
    last = x_BCHW.shape[-1] - side
    corners = [(0, 0), (0, last), (last, 0), (last, last), (last // 2, last // 2)]
    made = [x_BCHW[..., top : top + side, left : left + side] for top, left in corners]
    return made + [one.flip(-1) for one in made]


def positive(table: Floats, classes: Sequence[str]) -> Floats:
    """Probability of positive against negative, shape (n,): a neutral class is left out, as in table 1's protocol.

    Args:
        table: shape (n, K).
        classes: names of its columns.

    >>> positive(np.array([[0.1, 0.6, 0.3]]), ("negative", "neutral", "positive")).round(6).tolist()
    [0.75]
    """
    yes, no = table[:, list(classes).index("positive")], table[:, list(classes).index("negative")]
    total = yes + no
    return np.asarray(np.divide(yes, total, out=np.full(len(table), 0.5), where=total > 0))
