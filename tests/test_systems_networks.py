"""The deep rows of table 2: training on rows in hand, initial weights, what a row needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.errors import Needs
from examples.models import default_input
from examples.models.folder import Model, save_model
from examples.systems import finetune, fitting
from examples.systems.data import Ints, Pictures
from examples.training.config import Config
from t4sa_data.catalog import TABLE_2
from t4sa_data.errors import BadOption

# isort: split
from tests.systems_helpers import TEST, TRAIN, drawn, options, small

# Training on rows in hand.

LEARNING = Config(
    batch_size=4, accumulate=2, epochs=4, learning_rate=2e-3, resize_px=72, weight_decay=5e-4, lr_step_percent=60.0
)


def test_every_row_comes_once_an_epoch_over_the_ends_of_steps() -> None:
    config = replace(LEARNING, epochs=3, seed=2)
    seen = list(fitting.visits(13, config))
    assert len(seen) == fitting.num_steps(13, config) == 5  # ceil(39 / 8)
    position, epoch = (np.concatenate([getattr(one, name) for one in seen]) for name in ("position", "epoch"))
    assert len(position) == 40 and (np.diff(epoch) >= 0).all()
    orders = [position[epoch == one].tolist() for one in range(3)]
    assert all(sorted(order) == list(range(13)) for order in orders) and orders[0] != orders[1]
    tiny = list(fitting.visits(3, replace(LEARNING, epochs=8)))  # a batch holds several epochs
    assert [one.epoch.tolist() for one in tiny] == [
        [0, 0, 0, 1, 1, 1, 2, 2],
        [2, 3, 3, 3, 4, 4, 4, 5],
        [5, 5, 6, 6, 6, 7, 7, 7],
    ]


def trained(data: Pictures, config: Config, rows: Ints = TRAIN) -> Model:
    model = fitting.with_new_head(small())
    fitting.learn(model, data, rows, data.label[rows], config, fitting.place_of("cpu"))
    return model


def test_a_network_learns() -> None:
    where, data = fitting.place_of("cpu"), drawn()
    torch.manual_seed(0)
    model = trained(data, LEARNING)
    table = fitting.probabilities(model, data, TEST, where)
    assert table.shape == (len(TEST), 2) and table.sum(axis=1) == pytest.approx(1.0)
    assert ((table[:, 1] > 0.5) == (data.label[TEST] == 1)).all()


def test_a_training_is_of_its_rows_and_seed_alone() -> None:
    where, short = fitting.place_of("cpu"), replace(LEARNING, epochs=1)
    made = []
    for data, config in ((drawn(), short), (drawn(num_turned=len(TEST)), short), (drawn(), replace(short, seed=1))):
        torch.manual_seed(0)
        made.append(fitting.probabilities(trained(data, config), data, TEST, where))
    assert (made[0] == made[1]).all(), "labels of rows it is tested on changed what it says"
    assert (made[0] != made[2]).any()


def test_rates_drop_and_no_drawn_number_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    set_rate, crops = fitting.set_rate, list[tuple[int, ...]]()
    cut = fitting.crop_and_flip

    def watched(optimizer: torch.optim.Optimizer, rate: float, *, keep_velocity: bool) -> None:
        rates.append(rate)
        set_rate(optimizer, rate, keep_velocity=keep_velocity)

    def watched_cut(x_BCHW: torch.Tensor, crop: torch.Tensor, flip: torch.Tensor, side: int) -> torch.Tensor:
        crops.extend((*one, int(turned)) for one, turned in zip(crop.tolist(), flip.tolist(), strict=True))
        return cut(x_BCHW, crop, flip, side)

    monkeypatch.setattr(fitting, "set_rate", watched)
    monkeypatch.setattr(fitting, "crop_and_flip", watched_cut)
    trained(drawn(), replace(LEARNING, epochs=3), TRAIN[:8])
    assert rates == pytest.approx([2e-3, 2e-3, 2e-4])  # 60 % of three steps
    assert len(crops) == 24 and len(set(crops)) > 16 and {turned for *_, turned in crops} == {0, 1}
    assert all(0 <= place <= 72 - 64 for *places, _ in crops for place in places)


def test_a_micro_batch_more_or_less_is_the_same_step() -> None:
    """Without dropout, whose mask is of the micro-batch: gradients add up."""
    made = []
    for config in (replace(LEARNING, batch_size=8, accumulate=1, epochs=1), replace(LEARNING, epochs=1)):
        torch.manual_seed(0)
        model = fitting.with_new_head(small())
        for module in model.network.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        fitting.learn(model, drawn(), TRAIN[:8], drawn().label[TRAIN[:8]], config, fitting.place_of("cpu"))
        made.append(model.network.state_dict())
    for name, one in made[0].items():
        assert torch.allclose(one, made[1][name], rtol=1e-3, atol=1e-6), name


def test_a_new_head_is_all_that_is_new() -> None:
    model = small()
    made = fitting.with_new_head(model)
    before, after = model.network.state_dict(), made.network.state_dict()
    assert made.classes == fitting.CLASSES_2 and after["fc8-retrain.weight"].shape[0] == 2
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("fc8-retrain"))
    assert not after["fc8-retrain.bias"].any() and 0.005 < float(after["fc8-retrain.weight"].std()) < 0.02


def test_ten_crops_are_the_mean_of_ten_answers() -> None:
    model, data, where = small(2), drawn(), fitting.place_of("cpu")
    ten = fitting.probabilities(model, data, TEST[:2], where, crops="ten")
    x_BCHW = fitting.squashes(data, 72)(TEST[:2])
    assert x_BCHW.shape == (2, 3, 72, 72) and x_BCHW.dtype == torch.uint8
    total = torch.zeros(2, 2, dtype=torch.float64)
    with torch.inference_mode():
        for top, left in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4)):
            for mirrored in (False, True):
                cut = x_BCHW[:, :, top : top + 64, left : left + 64]
                total += model.network(model.prepare()(cut.flip(3) if mirrored else cut)).double().softmax(1)
    assert ten == pytest.approx((total / 10).numpy(), abs=1e-6)


def test_pictures_beyond_memory_are_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn()
    all_kept = fitting.Squashes(data, 16)
    monkeypatch.setattr(fitting, "KEPT_BYTES", 3 * 16 * 16 * 5)
    few_kept = fitting.Squashes(data, 16)
    rows = np.array([3, 9, 3, 0, 30, 31, 8])
    for _ in range(2):
        assert torch.equal(all_kept(rows), few_kept(rows))
    assert len(few_kept.kept) == 5 and len(all_kept.kept) == 6


# The deep rows.


def test_every_deep_row_of_table_2_is_made_here() -> None:
    deep = [row.system for row in TABLE_2 if row.block == "deep"]
    assert [name for name in deep if name not in ("CNN", "PCNN")] == list(finetune.ROWS)
    assert finetune.UPC.global_batch == 256 and fitting.num_steps(704, finetune.UPC) == 179
    assert Config() == finetune.T4SA, "the paper's"


@pytest.mark.parametrize("system", list(finetune.ROWS))
def test_a_row_says_what_the_user_has_to_bring(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for init in (None, tmp_path / "nothing"):
        with pytest.raises(Needs, match="initial weights") as raised:
            finetune.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, system, smoke=False, init=init))
        assert finetune.ROWS[system].needs in str(raised.value)


@pytest.mark.parametrize("system", ["AlexNet", "GoogleNet", "HybridNet", "VGG-19"])
def test_each_network_goes_through_in_smoke(system: str, tmp_path: Path) -> None:
    data = drawn()
    made = finetune.fit_predict(data, TRAIN, TEST, options(tmp_path, system))
    assert made.shape == TEST.shape and ((made >= 0) & (made <= 1)).all()
    assert (finetune.fit_predict(data, TRAIN, TEST, options(tmp_path, system)) == made).all()
    assert (finetune.fit_predict(data, TRAIN, TEST, options(tmp_path, system, seed=1)) != made).any()


def test_a_row_begins_with_the_network_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mean = torch.full((3, 72, 72), 90.0)
    brought = replace(small(), mean_image=mean, input=replace(default_input("smoke"), view="center"))
    save_model(tmp_path / "model", brought)
    began: list[Model] = []

    def learn(model: Model, data: Pictures, rows: Ints, label: Ints, *_: Any) -> None:
        assert (rows == TRAIN).all() and (label == data.label[TRAIN]).all()
        began.append(model)

    monkeypatch.setattr(finetune, "learn", learn)
    asked = options(tmp_path, "PlaceCNN", smoke=False, init=tmp_path / "model")
    made = finetune.fit_predict(drawn(), TRAIN, TEST, asked)
    for seed in (0, 1):
        finetune.fit_predict(drawn(), TRAIN, TEST, replace(asked, seed=seed))
    model, again, other = began
    heads = [one.network.get_parameter("fc8-retrain.weight") for one in began]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert again.classes == other.classes == fitting.CLASSES_2
    assert model.architecture == "smoke" and model.input == brought.input and torch.equal(model.mean_image, mean)
    for name, value in brought.network.state_dict().items():
        is_head = name.startswith("fc8-retrain")
        assert is_head or torch.equal(value, model.network.state_dict()[name]), name
    assert made.shape == TEST.shape


def test_all_weights_learn_from_a_folder(tmp_path: Path) -> None:
    save_model(tmp_path / "model", small())
    before = small().network.state_dict()
    seen: dict[str, Any] = {}
    learn = finetune.learn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "learn", lambda model, *rest: (learn(model, *rest), seen.update(model=model)))
        finetune.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, "VGG-T4SA FT-F", init=tmp_path / "model"))
    after = seen["model"].network.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before if not name.startswith("fc8"))


def test_no_such_row(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="no such row"):
        finetune.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, "ResNet"))
