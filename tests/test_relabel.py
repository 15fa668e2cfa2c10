"""examples/relabel.py: another source's labels as a table that the loader joins, and how far they agree."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from examples import relabel
from examples.errors import PredictionsError
from examples.evaluation import figures
from examples.evaluation.predicting import predict
from examples.evaluation.predictions import make_table, probabilities_of, read_truth
from examples.models.folder import load_model, read_json
from examples.relabelling.agreement import kappa
from examples.relabelling.pictures import own_pictures
from examples.relabelling.samples import from_file, read_samples
from t4sa_data import stream
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, InputMissing, NoRows, OutputError
from t4sa_data.reading import open_release
from t4sa_data.streaming import Labels

# isort: split
from tests.evaluation_helpers import made_up, save_smoke
from tests.training_helpers import run_of, words

FILES = {"agreement.csv", "agreement.md", "agreement.png", "labels.parquet"}
SPLITS = ("train", "validation")


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture(scope="module")
def truths(releases: Path) -> pa.Table:
    release = open_release(releases)
    return pa.concat_tables([read_truth(release, "b-t4sa", split, ("tweet_id",)) for split in SPLITS])


def guesses(truths: pa.Table, seed: int = 0) -> pa.Table:
    """Predictions as `evaluate.py` writes them: `label` in them is the truth."""
    return make_table(truths, *made_up(truths, seed=seed))


def of_file(table: pa.Table, releases: Path, folder: Path, *more: str, name: str = "mine.parquet") -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    if name.endswith(".csv"):
        pyarrow.csv.write_csv(table, folder / name)
    else:
        pq.write_table(table, folder / name)
    words = ["--predictions", str(folder / name), "--data", str(releases), "--out", str(folder / "out"), *more]
    return relabel.main(words)


def test_a_models_answers_are_what_the_loader_joins(
    releases: Path, truths: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of train and validation, never of test; an untrained network warns of nothing."""
    folder, out = save_smoke(tmp_path / "model"), tmp_path / "labels"
    typed = ["--model", str(folder), "--data", str(releases), "--out", str(out), "--device", "cpu", "--workers", "1"]
    found = relabel.main(typed)
    assert {path.name for path in out.iterdir()} == FILES
    table = pq.read_table(out / "labels.parquet")
    assert table.column_names == ["key", "tweet_id", *CLASSES, "label"]
    assert table["key"].to_pylist() == truths["key"].to_pylist()
    assert table["tweet_id"].to_pylist() == truths["tweet_id"].to_pylist()
    said = predict(load_model(folder), releases, split="validation", workers=1)
    assert said is not None
    by_key = dict(zip(said["key"].to_pylist(), probabilities_of(said).astype(np.float32), strict=True))
    joined = 0
    for split in SPLITS:
        for batch in stream(releases, split=split, batch_size=8, size=32, labels=out / "labels.parquet", tail="ragged"):
            assert batch["label"].tolist() == batch["probabilities"].argmax(1).tolist()
            joined += len(batch["label"])
            for key, row in zip(batch["key"], batch["probabilities"].numpy(), strict=True):
                assert key not in by_key or (row == by_key[key]).all()
    assert joined == table.num_rows == found["n"] == found["kept"]
    original, new = truths["label"].to_numpy(), table["label"].to_numpy()
    assert found["confusion"] == [[int(((original == i) & (new == j)).sum()) for j in range(3)] for i in range(3)]
    text, printed = (out / "agreement.md").read_text(), capsys.readouterr().out
    digest = read_json(folder)["files"]["model.safetensors"]
    assert digest in text and open_release(releases).manifest.content_digest in text and "Cohen's kappa" in text
    assert json.loads(table.schema.metadata[b"t4sa.relabel"])["sha256"] == digest
    assert "original, new:" in printed and "learned from" not in printed
    assert f"--labels {out / 'labels.parquet'} --out runs/relabelled" in printed
    with run_of(*words(releases, tmp_path / "run", "--labels", out / "labels.parquet")) as run:
        assert run.batches.num_samples + run.eval_batches.num_samples == joined


def test_a_model_that_labels_its_own_pictures_is_told_of(releases: Path) -> None:
    release = open_release(releases)
    both, other = read_samples(release, "b-t4sa", SPLITS), read_samples(release, "b-t4sa", ["validation"])
    recipe = {"recipe": {"train_split": "train", "config": "b-t4sa"}}
    assert "this model learned from b-t4sa/train, which it labels here" in own_pictures(recipe, both)[0]
    assert "B-T4SA's train split" in own_pictures({"system": "VGG-T4SA FT-A"}, both)[0]
    for source in ({}, {"system": "Random"}, {"recipe": None}):
        assert own_pictures(source, both) == []
    assert own_pictures(recipe, other) == []


def test_counts_by_split_add_up_and_a_confidence_cuts(
    releases: Path, truths: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = guesses(truths)
    # Just 0.7 in float32, where 0.7 as a double is a little more or less.
    sure = np.array([0.7, 0.2, 0.1], dtype=np.float32)
    for k, name in enumerate(CLASSES):
        column = table[name].to_numpy().copy()
        column[0] = sure[k]
        table = table.set_column(table.column_names.index(name), name, pa.array(column))
    found = of_file(table, releases, tmp_path, "--min-confidence", "0.7")
    p = probabilities_of(table).astype(np.float32)
    keys = [key for key, row in zip(table["key"].to_pylist(), p, strict=True) if row.max() >= np.float32(0.7)]
    made = pq.read_table(tmp_path / "out" / "labels.parquet")
    assert made["key"].to_pylist() == keys and keys[0] == table["key"][0].as_py()
    assert 0 < found["kept"] == len(keys) < found["n"] == table.num_rows
    rows = list(csv.DictReader((tmp_path / "out" / "agreement.csv").read_text().splitlines()))
    assert len(rows) == 18 and sum(int(row["n"]) for row in rows) == found["n"]
    assert sum(int(row["kept"]) for row in rows) == found["kept"]
    for split in SPLITS:
        label = read_truth(open_release(releases), "b-t4sa", split)["label"].to_numpy()
        for k, name in enumerate(CLASSES):
            mine = [int(row["n"]) for row in rows if (row["split"], row["original"]) == (split, name)]
            assert sum(mine) == (label == k).sum()
    assert "At a confidence of 0.7 or more" in (tmp_path / "out" / "agreement.md").read_text()
    assert f"kept at a confidence of 0.7 or more: {len(keys)}" in capsys.readouterr().out
    table_of = Labels(path=tmp_path / "out" / "labels.parquet", unmatched="drop")
    kept = [stream(releases, split=split, batch_size=1, labels=table_of).num_samples for split in SPLITS]
    assert sum(kept) == len(keys)
    with pytest.raises(NoRows, match="no label is as sure as that"):
        of_file(table, releases, tmp_path, "--min-confidence", "1")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES, "a refusal leaves what was there"


@pytest.mark.parametrize("name", ["mine.parquet", "mine.csv"])
def test_probabilities_win_over_a_column_that_is_the_truth(
    releases: Path, truths: pa.Table, tmp_path: Path, name: str
) -> None:
    table = guesses(truths)
    predicted = probabilities_of(table).argmax(axis=1)
    assert (predicted != table["label"].to_numpy()).any()
    of_file(table.take(pa.array(np.arange(table.num_rows)[::-1])), releases, tmp_path, name=name)
    made = pq.read_table(tmp_path / "out" / "labels.parquet")
    assert made["label"].to_pylist() == predicted.tolist()


def test_what_the_text_labeller_writes(releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`t4sa label run` on the release's own texts: by tweet, one tweet without a text, one twice, one of no sample."""
    pytest.importorskip("vaderSentiment")
    from builders.label.run import label_file
    from tests.label_helpers import tiny_svm

    rows = pa.concat_tables(
        [read_truth(open_release(releases), "b-t4sa", split, ("tweet_id", "text")) for split in SPLITS]
    )
    texts = dict(zip(rows["tweet_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    assert len(texts) < rows.num_rows, "a tweet has several pictures"
    silent = next(iter(texts))
    lines = [{"id_str": str(tweet), "text": "" if tweet == silent else text} for tweet, text in texts.items()]
    lines += [lines[-1], {"id_str": "12", "text": "of no sample"}]
    (tmp_path / "tweets.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    label_file(tiny_svm(), tmp_path / "tweets.jsonl", tmp_path / "labels.parquet")
    typed = ["--predictions", str(tmp_path / "labels.parquet"), "--data", str(releases), "--out", str(tmp_path / "o")]
    found = relabel.main(typed)
    num_silent = rows["tweet_id"].to_pylist().count(silent)
    assert found["n"] == rows.num_rows - num_silent
    printed, text = capsys.readouterr().out, (tmp_path / "o" / "agreement.md").read_text()
    assert "note: 1 rows say nothing (empty text 1)" in printed and "note: 1 rows are about other samples" in printed
    assert "| prior | `raw` |" in text
    made = pq.read_table(tmp_path / "o" / "labels.parquet")
    by_tweet = {row["tweet_id"]: row["positive"] for row in pq.read_table(tmp_path / "labels.parquet").to_pylist()}
    assert all(row["positive"] == by_tweet[row["tweet_id"]] for row in made.to_pylist())
    assert silent not in made["tweet_id"].to_pylist()


def test_labels_alone(releases: Path, truths: pa.Table, tmp_path: Path) -> None:
    table = pa.table(
        {"key": truths["key"][3:], "label": [CLASSES[k] for k in (truths["label"].to_numpy()[3:] + 1) % 3]}
    )
    found = of_file(table, releases, tmp_path)
    assert found["n"] == truths.num_rows - 3 and np.trace(found["confusion"]) == 0
    made = pq.read_table(tmp_path / "out" / "labels.parquet")
    assert made.column_names == ["key", "tweet_id", "label"] and made["key"].to_pylist() == table["key"].to_pylist()
    with pytest.raises(BadOption, match="--min-confidence needs probabilities"):
        of_file(table, releases, tmp_path, "--min-confidence", "0.5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": None, "tweet_id": None}, "predictions lack a column: expected key or tweet_id"),
        ({"positive": None, "label": None}, "predictions lack a column"),
        ({"positive": 0.9}, "probabilities that do not sum to 1: got 57 rows"),
        ({"positive": -0.1}, "probabilities outside 0 to 1"),
        ({"key": "12-1", "negative": 0.0, "neutral": 0.0, "positive": 1.0}, "predictions of none of the samples"),
        ({"key": "12-1"}, "rows of one key say different things: got 1 such, the first is 12-1"),
        ({"positive": "much"}, "column positive: expected double"),
    ],
)
def test_tables_that_are_refused(
    change: dict[str, Any], message: str, releases: Path, truths: pa.Table, tmp_path: Path
) -> None:
    table = guesses(truths).select(["key", *CLASSES, "label"])
    for name, value in change.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.remove_column(place)
            if value is not None:
                table = table.add_column(place, name, pa.array([value] * table.num_rows))
    with pytest.raises(PredictionsError, match=message):
        of_file(table, releases, tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_is_refused_before_anything_is_read(releases: Path, tmp_path: Path) -> None:
    typed = ["--data", "nowhere", "--out", str(tmp_path), "--predictions", "none.parquet"]
    for more, message in (
        (["--min-confidence", "1.5"], "--min-confidence lies between 0 and 1"),
        (["--batch-size", "0"], "--batch-size is at least 1"),
        (["--classes", "negative,neutral,positive"], "are about a --text-model"),
        (["--mask-names"], "are about a --text-model"),
    ):
        with pytest.raises(BadOption, match=message):
            relabel.main([*typed, *more])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--out is a folder: got a file"):
        relabel.main([*typed, "--out", str(tmp_path / "file")])
    with pytest.raises(InputMissing, match="no file of predictions"):
        from_file(tmp_path / "none.parquet", read_samples(open_release(releases), "b-t4sa", SPLITS))
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(PredictionsError, match="predictions cannot be read"):
        from_file(tmp_path / "bad.parquet", read_samples(open_release(releases), "b-t4sa", SPLITS))


def test_kappa_against_scikit_learn_and_a_bootstrap_of_tweets() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(3)
    tweet = np.repeat(np.arange(150), rng.integers(1, 5, 150))
    first, second = rng.integers(0, 3, 150)[tweet], rng.integers(0, 3, 150)[tweet]
    same = rng.random(150)[tweet] < 0.6
    second = np.where(same, first, second)
    found = kappa(first, second, tweet)
    assert found is not None
    value, low, high = found
    assert value == pytest.approx(cohen_kappa_score(first, second))
    rows = [np.flatnonzero(tweet == one) for one in range(150)]
    drawn = []
    for _ in range(600):
        chosen = np.concatenate([rows[one] for one in rng.integers(0, 150, 150)])
        drawn.append(cohen_kappa_score(first[chosen], second[chosen]))
    assert (high - low) / 2 / 1.96 == pytest.approx(np.std(drawn), rel=0.15)
    alone = kappa(first, second)
    assert alone is not None and alone[2] - alone[1] < 0.8 * (high - low), "as if each picture had its own text"
    assert kappa(first, first) == (1.0, 1.0, 1.0)
    assert kappa(np.zeros(3, np.int64), np.zeros(3, np.int64)) is None
