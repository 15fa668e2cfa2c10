"""examples/label_noise.py: planted wrong labels are found; folds keep twins together; what it says of itself."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
from examples import label_noise
from examples.errors import ModelFileError, PredictionsError
from examples.models.graph import Net
from examples.relabelling import folds
from examples.relabelling.noise import _whole, find_noise
from t4sa_data import release
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, InputMissing, MissingDependency, OutputError
from t4sa_data.miniature import make_samples
from t4sa_data.reading import open_release
from t4sa_data.streaming import Where, select
from t4sa_data.testing.releases import record_table

# isort: split
from tests.evaluation_helpers import _layer as make_layer

needs_cleanlab = pytest.mark.usefixtures("cleanlab")
NUM, EVERY = 300, 11
"""Pictures; of which every eleventh is called by the next class's name."""


@pytest.fixture
def cleanlab() -> None:
    pytest.importorskip("cleanlab", reason="the report of label noise needs the extra [noise]")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A release with wrong labels, and what is right of them by key, in its train split."""
    folder = tmp_path_factory.mktemp("planted")
    samples = make_samples(NUM, seed=1)
    wrong = [k for k in range(NUM) if k % EVERY == 5]
    right = {samples[k].key: CLASSES[samples[k].label] for k in wrong if samples[k].split == "train"}
    for k in wrong:
        samples[k] = replace(samples[k], label=(samples[k].label + 1) % 3)
    layer = make_layer(folder, "b-t4sa", record_table(samples), {one.key: one.image for one in samples})
    release.seal(folder, "parquet", [layer])
    return folder, right


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "noise.csv").read_text().splitlines()))


def count_found(rows: list[dict[str, str]], right: dict[str, str]) -> int:
    """Planted ones among as many at the top, with the class they had."""
    top = rows[: len(right)]
    return sum(right.get(row["key"]) == row["suggested"] for row in top)


@needs_cleanlab
def test_planted_labels_are_found(
    planted: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, right = planted
    typed = ["--data", str(folder), "--pictures", "2", "--blur"]
    noise = label_noise.main([*typed, "--out", str(tmp_path / "a")])
    rows, num = rows_of(tmp_path / "a"), len(right)
    assert num > 15 and len(rows) == len(noise.given) == 235
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    quality = [float(row["quality"]) for row in rows]
    assert quality == sorted(quality) and 0 <= quality[0] < quality[-1] <= 1
    # By chance a twelfth of them. The model sees colours alone, and is wrong of many pictures that nobody planted.
    assert count_found(rows, right) > 0.6 * num
    assert sum(row["key"] in right for row in rows[: 2 * num]) > 0.85 * num
    flagged = {row["key"] for row in rows if row["is_issue"] == "1"}
    assert len(flagged & set(right)) > 0.7 * num and len(flagged) < 1.5 * num
    assert noise.joint.sum(axis=1).tolist() == np.bincount(noise.given).tolist()
    estimated = noise.joint.sum() - np.trace(noise.joint)
    assert 0.7 * num < estimated < 1.5 * num
    text, printed = (tmp_path / "a" / "noise.md").read_text(), capsys.readouterr().out
    assert open_release(folder).manifest.content_digest in text and "What this can and cannot show" in text
    assert f"{int(estimated):,} ({estimated / 235:.1%})" in text and "gch, 64 numbers" in printed
    assert "better than guessing" not in text
    assert (tmp_path / "a" / "noise.png").read_bytes().startswith(b"\x89PNG")
    label_noise.main([*typed, "--out", str(tmp_path / "b")])
    for name in ("noise.csv", "noise.md", "noise.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@needs_cleanlab
def test_predictions_and_another_set_of_labels(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """The truth as a table of labels has no noise; predictions of a sure model find all that was planted."""
    folder, right = planted
    rows = select(open_release(folder), "b-t4sa", "train", where=Where())
    keys, label = rows.keys.to_pylist(), rows.label.copy()
    for k, key in enumerate(keys):
        label[k] = CLASSES.index(right[key]) if key in right else label[k]
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.7, 0.95, len(label))
    chances = {name: np.where(label == k, sure, (1 - sure) / 2) for k, name in enumerate(CLASSES)}
    pq.write_table(pa.table({"key": keys, **chances})[3:], tmp_path / "predictions.parquet")
    typed = ["--data", str(folder), "--out", str(tmp_path), "--predictions", str(tmp_path / "predictions.parquet")]
    noise = label_noise.main(typed)
    left = {key: name for key, name in right.items() if key in keys[3:]}
    assert count_found(rows_of(tmp_path), left) == len(left) >= noise.is_issue.sum() > 0.8 * len(left)
    text = (tmp_path / "noise.md").read_text()
    assert "3 of 235 samples have no probabilities" in text and "cannot be seen here" in text
    pq.write_table(pa.table({"key": keys, "label": label}), tmp_path / "true.parquet")
    noise = label_noise.main([*typed, "--labels", str(tmp_path / "true.parquet")])
    assert noise.accuracy == 1 and not noise.is_issue.any()
    assert "| labels | `true.parquet, sha256" in (tmp_path / "noise.md").read_text()


@needs_cleanlab
def test_a_model_that_knows_nothing_is_told_of(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, _ = planted
    rows = select(open_release(folder), "b-t4sa", "train", where=Where())
    chances = np.random.default_rng(1).dirichlet([1, 1, 1], len(rows))
    table = pa.table({"key": rows.keys, **{name: chances[:, k] for k, name in enumerate(CLASSES)}})
    pq.write_table(table, tmp_path / "p.parquet")
    label_noise.main(["--data", str(folder), "--out", str(tmp_path), "--predictions", str(tmp_path / "p.parquet")])
    assert "That is no better than guessing" in (tmp_path / "noise.md").read_text()


@needs_cleanlab
def test_features_of_a_network(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import torch

    from examples.models.folder import load_model
    from t4sa_data import stream
    from tests.evaluation_helpers import save_smoke

    folder, _ = planted
    model, out = save_smoke(tmp_path / "model"), tmp_path / "out"
    typed = ["--data", str(folder), "--out", str(out), "--model", str(model), "--device", "cpu", "--workers", "1"]
    noise = label_noise.main([*typed, "--blob", "pool3", "--fraction", "0.5", "--folds", "3"])
    assert len(noise.given) == len(rows_of(out)) == 118
    assert "pool3 of model, smoke" in (out / "noise.md").read_text()
    loaded = load_model(model)
    batches = stream(folder, batch_size=5, size=loaded.input.stream_px, shuffle=False, tail="ragged", workers=1)
    made = folds.model_features(loaded, "pool3", batches, "cpu")
    first = next(iter(batches))["image"][:1]
    assert isinstance(loaded.network, Net)
    with torch.inference_mode():
        one = loaded.network.features(loaded.prepare()(first), "pool3")
    assert made.shape == (235, one.numel()) and np.abs(made[0] - one.flatten().numpy()).max() < 1e-5
    with pytest.raises(ModelFileError, match="no such blob: expected data, conv1"):
        label_noise.main([*typed, "--blob", "fc9"])


def test_colour_features_are_those_of_the_pictures(planted: tuple[Path, dict[str, str]]) -> None:
    folder, _ = planted
    opened = open_release(folder)
    rows = select(opened, "b-t4sa", "validation", where=Where(), columns=("tweet_id", "duplicate_group"))
    gch, lch = (folds.colour_features(opened, rows, name) for name in ("gch", "lch"))
    assert gch.shape == (len(rows), 64) and lch.shape == (len(rows), 1024)
    assert (gch**2).sum(axis=1) == pytest.approx(1) and (lch**2).sum(axis=1) == pytest.approx(1)
    # The mean over a picture's cells is nearly the whole's histogram (sides need not divide by 4).
    assert np.abs((lch**2).reshape(-1, 16, 64).sum(axis=1) - gch**2).max() < 0.02


def test_twins_and_pictures_of_a_tweet_stand_in_one_fold() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    label = np.arange(60)[group] % 3
    asked = np.zeros(len(group), dtype=int)
    for learn, ask in folds.folds(label, group, num_folds=4):
        assert not set(group[learn]) & set(group[ask]) and set(label[ask]) == {0, 1, 2}
        asked[ask] += 1
    assert (asked == 1).all()
    # A feature that is the sample's group's alone vouches for nobody: out of sample it is worthless.
    features = np.eye(60)[group]
    p = folds.out_of_sample(features, rng.permutation(60)[group] % 3, group, num_folds=4)
    assert p.sum(axis=1) == pytest.approx(1) and p.max() < 0.6
    with pytest.raises(BadOption, match="too few samples of positive for 4 folds: got 1 groups"):
        list(folds.folds(np.where(label == 2, 1, label) + (group == 0) * 2, group, num_folds=4))


def test_groups_are_of_twins_and_tweets(planted: tuple[Path, dict[str, str]]) -> None:
    rows = select(open_release(planted[0]), "b-t4sa", "train", where=Where(), columns=("tweet_id", "duplicate_group"))
    found, tweets = folds.groups(rows), np.asarray(rows.extra["tweet_id"])
    assert len(np.unique(found)) == len(np.unique(tweets)) < len(rows)
    for one in np.unique(tweets):
        assert len(set(found[tweets == one].tolist())) == 1
    nameless = replace(rows, extra={**rows.extra, "duplicate_group": pa.nulls(len(rows), pa.string())})
    assert folds.groups(nameless).tolist() == found.tolist(), "no group is nobody's twin"


def test_whole_numbers_keep_the_sums() -> None:
    given = np.repeat([0, 1, 2], [5, 7, 1])
    made = _whole(np.array([[1.5, 1.5, 2.0], [0.1, 6.5, 0.4], [0.0, 0.0, 1.0]]), given)
    assert made.sum(axis=1).tolist() == [5, 7, 1] and made.tolist() == [[2, 1, 2], [0, 7, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        (["--model", "m"], BadOption, "--model and --blob belong together"),
        (["--blob", "fc7"], BadOption, "--model and --blob belong together"),
        (["--folds", "1"], BadOption, "--folds is at least 2"),
        (["--labels", "none.parquet"], InputMissing, "no such file of labels"),
        (["--out", __file__], OutputError, "--out is a folder: got a file"),
    ],
)
def test_what_is_refused(more: list[str], kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        label_noise.main(["--data", "nowhere", "--out", str(tmp_path / "out"), *more])
    assert not (tmp_path / "out").exists()


def test_labels_alone_find_no_noise(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    rows = select(open_release(planted[0]), "b-t4sa", "train", where=Where())
    pq.write_table(pa.table({"key": rows.keys, "label": rows.label}), tmp_path / "p.parquet")
    typed = ["--data", str(planted[0]), "--out", str(tmp_path), "--predictions", str(tmp_path / "p.parquet")]
    with pytest.raises(PredictionsError, match="label noise is found by probabilities"):
        label_noise.main(typed)


def test_without_cleanlab_or_without_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    given: Any = np.array([0, 1, 1])
    monkeypatch.setitem(sys.modules, "cleanlab.count", None)
    with pytest.raises(MissingDependency, match=r"needs cleanlab\. pip install"):
        find_noise(given, np.eye(3))


@needs_cleanlab
def test_without_a_class() -> None:
    with pytest.raises(PredictionsError, match=r"samples of every class: expected .*, got no positive"):
        find_noise(np.array([0, 1, 1]), np.eye(3))
