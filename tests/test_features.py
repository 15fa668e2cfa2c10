"""`examples/features.py`: any blob of an imported network, by image key, and what table 2's rows make of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from examples import benchmark_table, convert, features
from examples.caffe.exporting import export_archive
from examples.errors import ModelFileError, PredictionsError
from examples.models import build, default_input
from examples.models.folder import Model, load_model, save_model
from examples.models.graph import Net
from examples.systems import finetune
from examples.systems.data import open_pictures
from examples.systems.protocol import Options
from examples.systems.scores import read_scores
from t4sa_data import load_dataset
from t4sa_data.errors import BadOption

PAIRS = tuple(f"adjective noun {number}" for number in range(11))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with the Twitter Testing Dataset, drawn."""
    return benchmark_table.make_miniature(tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `convert.py --any-classes` made of the archive of a network of eleven other classes."""
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(3)
    network = build("smoke", len(PAIRS)).eval()
    with torch.no_grad():
        network.get_parameter("fc8-retrain.weight").mul_(200)
    export_archive(
        Model(network=network, architecture="smoke", input=default_input("smoke"), classes=PAIRS), folder / "a.tar.gz"
    )
    assert convert.main([str(folder / "a.tar.gz"), "--out", str(folder / "refused")]) == 2
    assert not (folder / "refused").exists()
    assert convert.main([str(folder / "a.tar.gz"), "--out", str(folder / "model"), "--any-classes"]) == 0
    return folder / "model"


def run(data: Path, detector: Path, out: Path, *more: str) -> None:
    features.main(["--model", str(detector), "--data", str(data), "--out", str(out), "--device", "cpu", *more])


def test_other_classes_are_kept_by_name(detector: Path) -> None:
    assert load_model(detector).classes == PAIRS


@pytest.mark.parametrize("blob", [None, "fc4", "pool2"])
def test_features_are_those_of_the_network_picture_by_picture(
    data: Path, detector: Path, blob: str | None, tmp_path: Path
) -> None:
    asked = ("--blob", blob) if blob else ()
    run(data, detector, tmp_path / "x.npz", *asked, "--batch-size", "7")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        keys, scores = file["keys"].tolist(), file["scores"]
    model, rows = load_model(detector), load_dataset(str(data), "twitter-testing", split="test")
    assert isinstance(model.network, Net)
    assert keys == list(rows["key"])
    for row in (0, 8, len(keys) - 1):
        # Pillow's way to the square: nearly the same pixels.
        picture = rows[row]["image"].convert("RGB").resize((64, 64))
        x_BCHW = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            ours = model.network.features(model.prepare()(x_BCHW), blob or "prob")
        assert scores[row].shape == (ours.numel(),)
        assert np.corrcoef(scores[row], ours.flatten().numpy())[0, 1] > 0.98
    if blob is None:
        assert scores.sum(axis=1) == pytest.approx(np.ones(len(keys)), abs=1e-5)
    run(data, detector, tmp_path / "x.parquet", *asked, "--batch-size", "16")
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["key"].to_pylist() == keys
    assert read_scores(tmp_path / "x.parquet", keys) == pytest.approx(scores.astype(np.float64), rel=1e-4, abs=1e-6)
    assert read_scores(tmp_path / "x.npz", keys[::-1]).tolist() == scores[::-1].astype(np.float64).tolist()


def test_a_mid_level_row_learns_from_them(data: Path, detector: Path, tmp_path: Path) -> None:
    run(data, detector, tmp_path / "fc4.npz", "--blob", "fc4")
    asked = ["--rows", "DeepSentiBank", "--levels", "3", "--folds", "leak-free", "--device", "cpu"]
    asked += ["--init", f"DeepSentiBank={tmp_path / 'fc4.npz'}", "--out", str(tmp_path)]
    benchmark_table.main(["--table", "2", "--data", str(data), *asked])
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["system"] == "DeepSentiBank"]
    assert int(row["n"]) == len(open_pictures(data))
    assert float(row["ours"]) > 80, "faces of two moods are told apart by what any network sees of them"


def test_a_row_is_fine_tuned_from_a_network_of_other_classes(data: Path, detector: Path, tmp_path: Path) -> None:
    found, train = open_pictures(data), np.arange(30)
    options = Options(smoke=True, system="PlaceCNN", init=detector, work=tmp_path)
    positive = finetune.fit_predict(found, train, np.arange(30, 40), options)
    assert positive.shape == (10,) and len(set(positive.tolist())) > 1
    model = finetune.starting_model("PlaceCNN", detector)
    assert model.classes == PAIRS, "what is fine-tuned begins with the brought weights"


def test_what_is_wrong_is_named_and_nothing_is_left(data: Path, detector: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no such blob: expected .*conv1.*, got fc9"):
        run(data, detector, tmp_path / "x.parquet", "--blob", "fc9")
    with pytest.raises(BadOption, match=r"\.npz \| \.parquet"):
        run(data, detector, tmp_path / "x.csv")
    broken = load_model(detector)
    with torch.no_grad():
        broken.network.get_parameter("fc4.bias")[0] = float("nan")
    save_model(tmp_path / "broken", broken)
    with pytest.raises(PredictionsError, match="no numbers"):
        run(data, tmp_path / "broken", tmp_path / "x.parquet", "--blob", "fc4")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_network_without_blobs_is_refused(data: Path) -> None:
    model = Model(network=torch.nn.Flatten(), architecture="other", input=default_input("smoke"))
    with pytest.raises(BadOption, match="Caffe's kind"):
        next(features.features(model, data))
