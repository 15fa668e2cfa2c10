"""The networks of table 2: progressive selection by known probabilities, the CNN's shapes, fine-tuning on folds."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from examples.errors import Needs, RunError, WeightsMismatch
from examples.models import default_input, layers_of
from examples.models.folder import Model, load_model, save_model
from examples.models.graph import Net
from examples.systems import finetune, fitting, progressive, you_cnn
from examples.systems.data import Ints, Pictures, make_pictures
from examples.systems.protocol import Options
from examples.training.config import Config
from t4sa_data.catalog import TABLE_2
from t4sa_data.errors import BadOption

NUM = 40
TRAIN, TEST = np.arange(0, 32), np.arange(32, NUM)


def drawn(*, agreement: int = 5, side_px: int = 80, flip_from: int = NUM) -> Pictures:
    """Pictures whose class shows: negative ones are blue, positive ones red; labels from a row on turned round."""
    rng = np.random.default_rng(0)
    label, files = np.arange(NUM) % 2, []
    for one in label:
        pixels = rng.integers(0, 100, (side_px, side_px + 8, 3), dtype=np.uint8)
        pixels[..., 0 if one else 2] += 120
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        files.append(file.getvalue())
    label[flip_from:] = 1 - label[flip_from:]
    return make_pictures(
        keys=[f"{1000 + i}-1" for i in range(NUM)],
        label=label,
        agreement=np.full(NUM, agreement),
        read=lambda row: files[row],
        content=f"drawn {side_px}",
    )


def options(work: Path, system: str = "AlexNet", **more: Any) -> Options:
    return Options(**{"work": work, "system": system, "smoke": True, **more})


def small(num_classes: int = 3, *, name: str = "smoke") -> Model:
    """A network that can be kept in a folder and read back."""
    torch.manual_seed(5)
    given = default_input(name)
    network = Net(layers_of(name, num_classes, given.side_px, width=0.25), given.side_px)
    classes = ("negative", "neutral", "positive") if num_classes == 3 else fitting.CLASSES_2
    return Model(network=network, architecture=name, width=0.25, input=given, classes=classes)


# Progressive selection.


def test_the_rule_on_known_probabilities() -> None:
    for larger, expected in ((0.5, 1.0), (0.6, 2 - math.exp(0.2)), (0.75, 2 - math.exp(0.5)), (0.85, 0.0), (1.0, 0.0)):
        both = np.array([[larger, 1 - larger], [1 - larger, larger]])
        assert progressive.drop_probability(both) == pytest.approx([expected, expected], abs=1e-12)
    edge = (1 + math.log(2)) / 2  # where the difference is ln 2
    below, above = progressive.drop_probability(np.array([[edge - 1e-6, 1 - edge + 1e-6], [edge, 1 - edge]]))
    assert 0 < below < 1e-5 and above == pytest.approx(0.0, abs=1e-12)


def test_three_classes_go_by_the_two_largest() -> None:
    three = np.array([[0.45, 0.10, 0.45], [0.05, 0.60, 0.35], [0.9, 0.05, 0.05], [1 / 3, 1 / 3, 1 / 3]])
    expected = [1.0, 2 - math.exp(0.25), 0.0, 1.0]
    assert progressive.drop_probability(three) == pytest.approx(expected, abs=1e-12)


def test_as_many_stay_as_the_rule_says() -> None:
    num = 20_000
    d = np.linspace(0, 1, num)  # uniform differences: 1 - integral of 2 - exp(d) from 0 to ln 2 = 2 - 2 ln 2 stay
    both = np.stack([(1 + d) / 2, (1 - d) / 2], axis=1)
    keys = [f"{i}-1" for i in range(num)]
    kept = progressive.choose(both, keys, seed=3)
    assert kept.mean() == pytest.approx(2 - 2 * math.log(2), abs=0.012)
    assert kept[d >= math.log(2)].all() and not kept[0]
    ambiguous, clearer = kept[d < 0.1].mean(), kept[(d > 0.5) & (d < 0.6)].mean()
    assert ambiguous < 0.1 and clearer > 0.6


def test_a_draw_is_of_seed_and_key_alone() -> None:
    keys, both = [f"{i}-1" for i in range(500)], np.tile([0.65, 0.35], (500, 1))
    kept = progressive.choose(both, keys)
    assert (progressive.choose(both[::-1], keys[::-1]) == kept[::-1]).all()
    assert (progressive.choose(both[:100], keys[:100]) == kept[:100]).all()
    assert (progressive.choose(both, keys, seed=1) != kept).any()
    first = int.from_bytes(hashlib.sha256(b"0/0-1").digest()[:8], "big") / 2**64
    assert progressive.draws(["0-1"], 0)[0] == pytest.approx(first, abs=1e-15)


def test_the_kept_list_is_a_file(tmp_path: Path) -> None:
    sha256 = progressive.write_kept(tmp_path / "a" / "kept.txt", ["1-1", "2-1", "3-2"], np.array([True, False, True]))
    data = (tmp_path / "a" / "kept.txt").read_bytes()
    assert data == b"1-1\n3-2\n" and hashlib.sha256(data).hexdigest() == sha256


@pytest.mark.parametrize("bad", [[[0.5, 0.6]], [[1.0]], [[1.2, -0.2]], [[float("nan"), 0.5]], [0.5, 0.5]])
def test_what_is_no_probability_is_refused(bad: list[object]) -> None:
    with pytest.raises(BadOption, match="rows that sum to 1"):
        progressive.drop_probability(np.array(bad))
    with pytest.raises(BadOption, match="a row of probabilities for each key"):
        progressive.choose(np.array([[0.5, 0.5]]), ["1-1", "2-1"])


# Training on rows in hand.

LEARNING = Config(
    batch_size=4, accumulate=2, epochs=6, learning_rate=2e-3, resize_px=72, weight_decay=5e-4, lr_step_percent=60.0
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


def test_a_network_learns_from_its_rows_alone_and_the_same_again() -> None:
    where, data = fitting.place_of("cpu"), drawn()
    torch.manual_seed(0)
    model = trained(data, LEARNING)
    table = fitting.probabilities(model, data, TEST, where)
    assert table.shape == (len(TEST), 2) and table.sum(axis=1) == pytest.approx(1.0)
    assert ((table[:, 1] > 0.5) == (data.label[TEST] == 1)).all()
    torch.manual_seed(0)
    again = fitting.probabilities(trained(drawn(flip_from=32), LEARNING), data, TEST, where)
    assert (again == table).all(), "labels of rows it is tested on changed what it says"
    torch.manual_seed(0)
    other = fitting.probabilities(trained(data, replace(LEARNING, seed=1)), data, TEST, where)
    assert (other != table).any()


def test_a_micro_batch_more_or_less_is_the_same_step() -> None:
    """Without dropout, whose mask is of the micro-batch: gradients add up."""
    made = []
    for config in (replace(LEARNING, batch_size=8, accumulate=1, epochs=1), replace(LEARNING, epochs=1)):
        torch.manual_seed(0)
        model = fitting.with_new_head(small())
        for module in model.network.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        fitting.learn(model, drawn(), TRAIN[:8], drawn().label[:8], config, fitting.place_of("cpu"))
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
    monkeypatch.setattr(finetune, "learn", lambda model, *_: began.append(model))
    asked = options(tmp_path, "PlaceCNN", smoke=False, init=tmp_path / "model")
    made = finetune.fit_predict(drawn(), TRAIN, TEST, asked)
    (model,) = began
    assert model.architecture == "smoke" and model.input == brought.input and torch.equal(model.mean_image, mean)
    for name, value in brought.network.state_dict().items():
        is_head = name.startswith("fc8-retrain")
        assert is_head or torch.equal(value, model.network.state_dict()[name]), name
    assert made.shape == TEST.shape and "needs" not in made


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


# CNN and PCNN.


def test_the_cnn_keeps_what_weak_labels_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weak, asked = drawn(agreement=0), options(tmp_path, "CNN")
    made = you_cnn.fit_predict(weak, TRAIN, TEST, asked)
    monkeypatch.setattr(you_cnn, "learn", None)  # nothing is learned again
    assert you_cnn.fit_predict(weak, TRAIN, TEST, asked) == pytest.approx(made, abs=1e-6)
    for other in (replace(asked, seed=1), replace(asked, work=tmp_path / "other")):
        with pytest.raises(TypeError):
            you_cnn.fit_predict(weak, TRAIN, TEST, other)
    with pytest.raises(TypeError):
        you_cnn.fit_predict(weak, TRAIN[1:], TEST, asked)


def test_a_network_of_three_classes_is_tested_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    side_px = default_input("you_cnn").side_px
    network = Net(layers_of("you_cnn", 3, side_px, width=0.05), side_px)
    head = network.get_submodule("fc8-retrain")
    torch.nn.init.normal_(head.weight, 0, 0.1)  # type: ignore[arg-type]
    model = Model(network=network, architecture="you_cnn", width=0.05, input=default_input("you_cnn"))
    save_model(tmp_path / "cnn", model)
    monkeypatch.setattr(you_cnn, "learn", None)
    weak = drawn(agreement=0)
    for module in (you_cnn, progressive):
        made = module.fit_predict(weak, TRAIN, TEST, options(tmp_path, init=tmp_path / "cnn"))  # type: ignore[attr-defined]
        x_BCHW = fitting.squashes(weak, 256)(TEST)
        with torch.inference_mode():
            two = load_model(tmp_path / "cnn").network(model.prepare()(x_BCHW))[:, [0, 2]].double().softmax(1)
        assert made == pytest.approx(two[:, 1].numpy(), abs=1e-6)
        with pytest.raises(TypeError):  # four folds are learned from
            module.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, init=tmp_path / "cnn"))  # type: ignore[attr-defined]


def test_another_network_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", small())
    for module in (you_cnn, progressive):
        with pytest.raises(WeightsMismatch, match="expected you_cnn, got smoke"):
            module.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, init=tmp_path / "model"))  # type: ignore[attr-defined]
        with pytest.raises(Needs, match="a network of weak labels"):
            module.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, init=tmp_path))  # type: ignore[attr-defined]


def test_round_2_learns_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weak, asked, learned = drawn(agreement=0), options(tmp_path, "PCNN"), []
    larger = np.linspace(0.5, 0.9, len(TRAIN))
    said = np.stack([larger, 1 - larger], axis=1)
    learn_rows = you_cnn.learn_rows

    def watched(model: Model, data: Pictures, rows: Ints, options: Options, label: Ints | None = None) -> None:
        learned.append((rows, label))
        learn_rows(model, data, rows, options, label)

    monkeypatch.setattr(you_cnn, "learn_rows", watched)
    monkeypatch.setattr(progressive, "probabilities", lambda *_: said)
    monkeypatch.setattr(fitting, "SMOKE_ROWS", 1000)
    made = progressive.fit_predict(weak, TRAIN, TEST, asked)
    kept = progressive.choose(said, [weak.keys[row] for row in TRAIN])
    assert 0 < kept.sum() < len(TRAIN)
    (first, _), (second, label) = learned
    assert sorted(first) == TRAIN.tolist() and sorted(second) == TRAIN[kept].tolist()
    assert (label == weak.label[second]).all()
    (file,) = tmp_path.rglob(progressive.KEPT)
    assert file.read_text().split() == [weak.keys[row] for row in TRAIN[kept]]
    assert made.shape == TEST.shape


def test_a_network_that_doubts_everything_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progressive, "probabilities", lambda *_: np.full((len(TRAIN), 2), 0.5))
    weak = drawn(agreement=0)
    progressive.fit_predict(weak, TRAIN, TEST, options(tmp_path, "PCNN"))  # in smoke it has learned nothing yet
    monkeypatch.setattr(you_cnn, "of_weak_labels", lambda *_: small(2))
    with pytest.raises(RunError, match="doubts every picture"):
        progressive.fit_predict(weak, TRAIN, TEST, options(tmp_path, "PCNN", smoke=False))


def test_pcnn_on_folds_needs_a_weak_set_but_in_smoke(tmp_path: Path) -> None:
    with pytest.raises(Needs, match="trained progressively on weak labels"):
        progressive.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, "PCNN", smoke=False))
    made = progressive.fit_predict(drawn(), TRAIN, TEST, options(tmp_path, "PCNN"))
    assert made.shape == TEST.shape and ((made >= 0) & (made <= 1)).all()
    turned = progressive._turned(drawn(), np.arange(NUM), 0)
    assert 0 < (turned != drawn().label).sum() < NUM / 2
