"""Parts of the trainer against other words for the same: Caffe's solver, targets, micro-batches, what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
import torch
from torch import nn

from examples.models import build, default_input, frozen_by_ft_f, head_of
from examples.models.dropout import Dropout, set_rows
from examples.models.inputs import Prepare
from examples.training import report
from examples.training.checkpoint import dropout_seed
from examples.training.config import Config
from examples.training.data import micro_batches, targets
from examples.training.machine import Machine
from examples.training.optim import learning_rate, make_optimizer, set_rate
from t4sa_data.errors import BadOption

# isort: split
from tests.training_helpers import run_of, words

CPU = torch.device("cpu")
STEPS = 60


class Two(nn.Module):
    """Two layers by name, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body, self.head = nn.Linear(4, 3).double(), nn.Linear(3, 2).double()


def gradient(name: str, w: Any, step: int) -> Any:
    """Of some loss that is no parabola; of numpy arrays and of tensors."""
    return np.sin(3 * w + step) + 0.3 * w if isinstance(w, np.ndarray) else torch.sin(3 * w + step) + 0.3 * w


def trained(config: Config, *, keep_velocity: bool) -> dict[str, np.ndarray]:
    network = Two()
    optimizer = make_optimizer(network, "head", config, CPU)
    for step in range(STEPS):
        set_rate(optimizer, learning_rate(step, config, STEPS), keep_velocity=keep_velocity)
        for name, parameter in network.named_parameters():
            parameter.grad = gradient(name, parameter.detach(), step)
        optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}


def multiplier(name: str, config: Config) -> float:
    is_bias, is_head = name.endswith(".bias"), name.startswith("head.")
    return (config.bias_lr_mult if is_bias else 1.0) * (config.head_lr_mult if is_head else 1.0)


def by_caffe(config: Config) -> dict[str, np.ndarray]:
    """SGDSolver::ComputeUpdateValue in words: v = momentum v + local_rate (g + local_decay w); w -= v."""
    weights = {name: parameter.detach().numpy().copy() for name, parameter in Two().named_parameters()}
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(STEPS):
        base = config.learning_rate * config.lr_gamma ** (step // 20)
        for name, w in weights.items():
            rate = base * multiplier(name, config)
            decay = 0.0 if name.endswith(".bias") else config.weight_decay
            velocity[name] = config.momentum * velocity[name] + rate * (gradient(name, w, step) + decay * w)
            weights[name] = w - velocity[name]
    return weights


def by_adamw(config: Config) -> dict[str, np.ndarray]:
    """Loshchilov and Hutter 2019, algorithm 2, with torch's default moments."""
    weights = {name: parameter.detach().numpy().copy() for name, parameter in Two().named_parameters()}
    m, v = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    for step in range(STEPS):
        base = config.learning_rate * config.lr_gamma ** (step // 20)
        for name, w in weights.items():
            rate = base * multiplier(name, config)
            decay = 0.0 if name.endswith(".bias") else config.weight_decay
            g = gradient(name, w, step)
            m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.999 * v[name] + 0.001 * g * g
            unbiased, scale = m[name] / (1 - 0.9 ** (step + 1)), np.sqrt(v[name] / (1 - 0.999 ** (step + 1)))
            weights[name] = w - rate * decay * w - rate * unbiased / (scale + 1e-8)
    return weights


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(np.abs(one[name] - other[name]).max() for name in one)


def test_sgd_is_caffes_through_two_drops_of_the_rate() -> None:
    config = Config(learning_rate=0.02, weight_decay=0.1, head_lr_mult=5.0)
    caffe = by_caffe(config)
    assert distance(trained(config, keep_velocity=True), caffe) < 1e-12
    assert distance(trained(config, keep_velocity=False), caffe) > 1e-3, "torch's own shrinks the velocity at a drop"


def test_adamw_has_the_same_multipliers() -> None:
    config = Config(optimizer="adamw", learning_rate=0.02, weight_decay=0.1, head_lr_mult=5.0)
    assert distance(trained(config, keep_velocity=False), by_adamw(config)) < 1e-12


def test_biases_learn_at_twice_the_rate_without_decay() -> None:
    network = build("smoke", width=0.25)
    for kind in ("sgd", "adamw"):
        optimizer = make_optimizer(network, head_of(network), Config(optimizer=kind), CPU)
        of = {id(one): group for group in optimizer.param_groups for one in group["params"]}
        for name, parameter in network.named_parameters():
            group, is_bias = of[id(parameter)], name.endswith(".bias")
            assert (group["lr_mult"], group["weight_decay"]) == ((2.0, 0.0) if is_bias else (1.0, 1e-5)), name


def batch_of(rows: int, *, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    probabilities = torch.from_numpy(rng.dirichlet(np.ones(3), rows).astype(np.float32))
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (rows, 3, 8, 8), dtype=np.uint8)),
        "label": torch.arange(rows) % 3,
        "probabilities": probabilities,
        "key": [f"{row}-1" for row in range(rows)],
        "confidence": [None if row == 2 else 0.5 + row / 100 for row in range(rows)],
    }


def test_targets() -> None:
    batch = batch_of(6)
    plain = torch.eye(3)[batch["label"]]
    assert torch.equal(targets(batch, Config()), plain)
    smooth = targets(batch, Config(label_smoothing=0.3))
    assert torch.allclose(smooth, 0.7 * plain + 0.1) and torch.allclose(smooth.sum(1), torch.ones(6))
    batch["probabilities"][1] = float("nan")
    soft = targets(batch, Config(soft_labels=True))
    assert torch.equal(soft[1], plain[1]), "unknown probabilities: the label"
    assert torch.equal(soft[[0, 2, 3, 4, 5]], batch["probabilities"][[0, 2, 3, 4, 5]])
    both = targets(batch, Config(soft_labels=True, label_smoothing=0.3))
    assert torch.allclose(both, 0.7 * soft + 0.1)


def test_smoothing_is_torchs() -> None:
    batch, logits = batch_of(6), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    ours = nn.functional.cross_entropy(logits, targets(batch, Config(label_smoothing=0.2)))
    assert torch.allclose(ours, nn.functional.cross_entropy(logits, batch["label"], label_smoothing=0.2))


def test_confidence_is_the_weight_where_it_is_known() -> None:
    config, where = (
        Config(batch_size=4, accumulate=2, confidence_weight=True),
        Machine(device=CPU, amp="none", reason=""),
    )
    weight = torch.cat([part.weight for part in micro_batches(batch_of(8), config, where)])
    assert torch.allclose(weight, torch.tensor([0.5, 0.51, 1.0, 0.53, 0.54, 0.55, 0.56, 0.57]))
    plain = replace(config, confidence_weight=False)
    assert all(bool((part.weight == 1).all()) for part in micro_batches(batch_of(8), plain, where))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_micro_batches_are_rows_of_the_global_batch(world_size: int) -> None:
    config, batch, seen = Config(batch_size=4, accumulate=2), batch_of(8), []
    for rank in range(world_size):
        rows = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
        mine = {name: value[rows] for name, value in batch.items()}
        for part in micro_batches(
            mine, config, Machine(device=CPU, amp="none", reason="", rank=rank, world_size=world_size)
        ):
            assert part.num_rows == 4
            first = 4 * part.number + part.first_row
            seen += range(first, first + len(part.label))
            assert torch.equal(part.pictures, batch["image"][first : first + len(part.label)])
    assert seen == list(range(8))


def test_a_dropout_mask_is_that_of_the_micro_batch_whoever_has_its_rows() -> None:
    layer, x = Dropout(0.5).train(), torch.ones(8, 50)
    torch.manual_seed(dropout_seed(0, 5, 1))
    set_rows(layer, 0, 8)
    whole = layer(x)
    for first in (0, 4):
        torch.manual_seed(dropout_seed(0, 5, 1))
        set_rows(layer, first, 8)
        assert torch.equal(layer(x[:4]), whole[first : first + 4])
    assert set(whole.unique().tolist()) == {0.0, 2.0} and 100 < int((whole == 0).sum()) < 300
    seeds = {dropout_seed(*one) for one in [(0, 5, 1), (0, 5, 0), (0, 6, 1), (1, 5, 1), (0, 1, 5)]}
    assert len(seeds) == 5


def gradients(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: object) -> dict[str, torch.Tensor]:
    """Of the first step, dropout off."""
    found: dict[str, torch.Tensor] = {}
    with run_of(*words(data, out, "--init", "scratch", *more)) as run:
        for module in run.model.network.modules():
            if isinstance(module, Dropout):
                module.p = 0.0
        named = dict(run.model.network.named_parameters())

        def keep(*_: Any) -> None:
            found.update({name: parameter.grad.clone() for name, parameter in named.items()})  # type: ignore[union-attr]

        monkeypatch.setattr(run.scaler, "step", keep)
        monkeypatch.setattr(report, "draw_inputs", lambda *_: None)
        run.journal = _Silent()
        run.model.network.train()
        run.train_step(next(iter(run.batches)), 0.0)
    return found


class _Silent:
    def add(self, *_: Any) -> None: ...

    def is_due(self, _step: int) -> bool:
        return False


def test_accumulation_is_the_large_batch(releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many, one = (
        gradients(releases, tmp_path / f"{size}", monkeypatch, "--batch-size", size, "--accumulate", number)
        for size, number in ((32 // 4, 4), (32, 1))
    )
    for name, whole in one.items():
        assert whole.abs().max() > 0
        assert (many[name] - whole).abs().max() < 1e-5 * whole.abs().max(), name


@pytest.mark.parametrize("finetune", ["fc6+", "all"])
def test_which_layers_learn(releases: Path, tmp_path: Path, finetune: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw_inputs", lambda *_: None)
    with run_of(*words(releases, tmp_path, "--finetune", finetune)) as run:
        network = run.model.network
        before = {name: one.detach().clone() for name, one in network.named_parameters()}
        frozen = set(frozen_by_ft_f(network)) if finetune == "fc6+" else set()
        assert {name.partition(".")[0] for name in frozen} == ({"conv1", "conv2", "conv3"} if frozen else set())
        run.journal = _Silent()
        network.train()
        batches = iter(run.batches)
        for _ in range(3):
            run.train_step(next(batches), 0.0)
        for name, after in network.named_parameters():
            assert torch.equal(after, before[name]) == (name in frozen), name
        held = {id(one) for group in run.optimizer.param_groups for one in group["params"]} | set(
            map(id, run.optimizer.state)
        )
        assert held == {id(one) for name, one in network.named_parameters() if name not in frozen}


def test_drawn_inputs_are_what_the_network_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanged channels, or a wrong mean, show in the picture; the right rule gives back the pictures."""
    from matplotlib.axes import Axes

    given, shown = default_input("smoke"), []
    monkeypatch.setattr(Axes, "imshow", lambda _self, picture: shown.append(picture.copy()))
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 3, 64, 64), dtype=np.uint8))
    right = Prepare(given)
    exchanged = Prepare(given)
    exchanged.flips = False
    brighter = Prepare(replace(given, mean=(60.0, 60.0, 60.0)))
    for prepare in (right, exchanged, brighter):
        report.draw_inputs(prepare(pictures), given, ["1-1"] * 9, [0] * 9, tmp_path / "inputs.png")
    true = pictures.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack(shown[:9]), true)
    assert not np.array_equal(np.stack(shown[9:18]), true)
    assert not np.array_equal(np.stack(shown[18:]), true)
    assert (tmp_path / "inputs.png").read_bytes().startswith(b"\x89PNG")


def test_another_crop_goes_through_or_is_refused(releases: Path, tmp_path: Path) -> None:
    with run_of(*words(releases, tmp_path, "--crop-px", 63)) as run:
        assert run.model.input.side_px == 63
        batch = next(iter(run.batches))
        assert batch["image"].shape[-1] == 63
    with pytest.raises(BadOption, match="--crop-px for smoke: expected 64, or near it, got 40"):
        run_of(*words(releases, tmp_path, "--crop-px", 40)).__enter__()
    with pytest.raises(BadOption, match="side is in pixels: expected 1 to 72, got 80"):
        run_of(*words(releases, tmp_path, "--crop-px", 80)).__enter__()
