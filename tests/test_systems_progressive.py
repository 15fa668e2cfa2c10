"""CNN and PCNN of You et al.: progressive selection by known probabilities, weak labels, two rounds."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import train
from examples.errors import Needs, RunError, WeightsMismatch
from examples.evaluation import predicting
from examples.evaluation.predicting import predict
from examples.evaluation.predictions import probabilities_of
from examples.models import build, default_input, layers_of
from examples.models.folder import Model, load_model, save_model
from examples.models.graph import Net
from examples.systems import fitting, progressive, you_cnn
from examples.systems.data import Ints, Pictures
from examples.systems.protocol import Options
from examples.training import data as data_of_runs
from examples.training.command import parse
from examples.training.machine import machine
from t4sa_data.errors import BadOption, InputMissing

# isort: split
from tests.systems_helpers import NUM, TEST, TRAIN, drawn, options, small

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


def test_the_command_chooses_by_the_first_network_and_trains_on_what_stays(
    releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    network = build("you_cnn", 3, width=0.3)
    torch.nn.init.normal_(network.get_parameter("fc8-retrain.weight"), 0, 0.3)
    save_model(
        tmp_path / "cnn",
        Model(network=network, architecture="you_cnn", width=0.3, input=default_input("you_cnn")),
    )
    typed: list[list[str]] = []
    monkeypatch.setattr(train, "main", lambda words: typed.append(words) or 0)
    words = ["--model", str(tmp_path / "cnn"), "--data", str(releases), "--out", str(tmp_path / "pcnn")]
    words += ["--device", "cpu", "--batch-size", "16", "--seed", "4"]
    assert progressive.main([*words, "--epochs", "2"]) == 0
    table = predict(load_model(tmp_path / "cnn"), releases, split="train", batch_size=16)
    assert table is not None
    keys = np.array(table["key"].to_pylist())
    expected = keys[progressive.choose(probabilities_of(table), keys.tolist(), 4)]
    kept = tmp_path / "pcnn" / progressive.KEPT
    assert kept.read_text().split() == expected.tolist() and 0 < len(expected) < len(keys)
    assert f"{len(expected)} of {len(keys)} pictures stay" in capsys.readouterr().out

    command = parse("", typed[0])
    assert command is not None and (command.config.epochs, command.config.seed) == (2, 4)
    config = replace(command.config, batch_size=4, accumulate=1, resize_px=32)
    with machine("cpu", "none") as where:
        batches = data_of_runs.train_stream(config, 24, where)
        seen = [key for batch in batches for key in batch["key"]]
        everything = data_of_runs.train_stream(replace(config, keep="all"), 24, where)
        assert everything.num_samples == len(keys) and batches.num_samples == len(expected)
    assert set(seen) == set(expected.tolist())
    with pytest.raises(InputMissing, match="no such file of keys"):
        data_of_runs.conditions(replace(config, keep=str(tmp_path / "nothing.txt")))

    monkeypatch.setattr(predicting, "predict", None)  # the choice stands; another seed makes another
    assert progressive.main(words) == 0
    with pytest.raises(TypeError):
        progressive.main([*words[:-1], "5"])
    assert progressive.main([*words, "--model", str(tmp_path)]) == 2
    assert "error: the network of round 1" in capsys.readouterr().err
