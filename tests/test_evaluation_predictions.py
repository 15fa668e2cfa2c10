"""Files of predictions, of any framework: what fits gives the rows of the release, what does not is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from examples.errors import PredictionsError
from examples.evaluation import predictions
from t4sa_data.errors import ConfigUnavailable, InputMissing, UnknownConfig
from t4sa_data.reading import open_release
from t4sa_data.streaming import Where, select

# isort: split
from tests.evaluation_helpers import made_up, make_both, truth_of

N = 40


@pytest.fixture
def truth() -> pa.Table:
    return truth_of(N)


@pytest.fixture
def file(truth: pa.Table) -> pa.Table:
    """A good file: rows in another order, more columns than needed."""
    p, _ = made_up(truth)
    order = np.random.default_rng(9).permutation(N)
    table = pa.table(
        {"key": truth["key"], "note": ["x"] * N, **{c: p[:, k] for k, c in enumerate(predictions.CLASSES)}}
    )
    return table.take(pa.array(order))


def save(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def aligned(table: pa.Table, truth: pa.Table, path: Path) -> pa.Table:
    return predictions.align(predictions.read_file(save(table, path)), {"b-t4sa": truth}, path)["b-t4sa"]


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_rows_come_in_release_order(truth: pa.Table, file: pa.Table, tmp_path: Path, name: str) -> None:
    found = aligned(file, truth, tmp_path / name)
    assert found.schema.names == ["key", "label", "negative", "neutral", "positive", "confidence"]
    assert found["key"].equals(truth["key"])
    assert found["label"].to_pylist() == truth["label"].to_pylist()
    assert np.array_equal(predictions.probabilities_of(found).astype(np.float32), made_up(truth)[0].astype(np.float32))
    assert predictions.logits_of(found) is None


def test_logits_are_taken_where_there_are_some(truth: pa.Table, file: pa.Table, tmp_path: Path) -> None:
    values = np.arange(3 * N, dtype=float).reshape(N, 3)
    for k, name in enumerate(predictions.LOGITS):
        file = file.append_column(name, pa.array(values[:, k]))
    file = file.set_column(file.schema.get_field_index(name), name, pa.array([None, *values[1:, 2]]))
    found = predictions.logits_of(aligned(file, truth, tmp_path / "p.csv"))
    assert found is not None
    assert int(np.isnan(found).sum()) == 1


def replaced(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    column = table[name].to_pylist()
    column[row] = value
    return table.set_column(table.schema.get_field_index(name), name, pa.array(column))


def test_missing_surplus_and_double_keys(truth: pa.Table, file: pa.Table, tmp_path: Path) -> None:
    first = truth["key"][0].as_py()
    without = file.filter(pa.array([key not in (first, truth["key"][1].as_py()) for key in file["key"].to_pylist()]))
    with pytest.raises(
        PredictionsError, match=f"without a prediction: expected 40, got 2 are missing, the first is {first}"
    ):
        aligned(without, truth, tmp_path / "p.csv")
    more = pa.concat_tables([file, replaced(file.slice(0, 1), "key", 0, "99-1")])
    with pytest.raises(PredictionsError, match="1 surplus keys, the first is 99-1"):
        aligned(more, truth, tmp_path / "p.csv")
    double = pa.concat_tables([file, file.slice(5, 1)])
    with pytest.raises(PredictionsError, match=f"twice: got 1 of them, the first is {file['key'][5].as_py()}"):
        aligned(double, truth, tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "no numbers: got 1 rows"),
        (None, "no numbers: got 1 rows"),
        (float("inf"), "no numbers: got 1 rows"),
        (-0.2, "outside 0 to 1: got 1 rows"),
        (71.0, "outside 0 to 1: got 1 rows"),
        (1.0, "do not sum to 1: got 1 rows"),
    ],
)
def test_what_is_no_probability(truth: pa.Table, file: pa.Table, tmp_path: Path, value: object, words: str) -> None:
    file = replaced(replaced(file, "neutral", 7, value), "positive", 7, 0.5)
    with pytest.raises(PredictionsError, match=f"{words}, the first is {file['key'][7].as_py()}"):
        aligned(file, truth, tmp_path / "p.parquet")


def test_rounding_is_allowed_and_logits_are_refused(truth: pa.Table, file: pa.Table, tmp_path: Path) -> None:
    rounded = file
    for name in predictions.CLASSES:
        index = file.schema.get_field_index(name)
        rounded = rounded.set_column(index, name, pa.array(np.round(file[name].to_numpy(), 3)))
    assert aligned(rounded, truth, tmp_path / "p.csv").num_rows == N
    words = file.set_column(file.schema.get_field_index("neutral"), "neutral", pa.array(["high"] * N))
    with pytest.raises(PredictionsError, match="column neutral: expected double, got 'high'"):
        aligned(words, truth, tmp_path / "p.csv")


def test_files_that_are_none(truth: pa.Table, file: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        predictions.read_file(tmp_path / "none.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(PredictionsError, match="cannot be read"):
        predictions.read_file(tmp_path / "broken.parquet")
    with pytest.raises(PredictionsError, match=r"lack neutral: expected key, negative, neutral, positive"):
        predictions.read_file(save(file.drop_columns(["neutral"]), tmp_path / "p.csv"))
    with pytest.raises(PredictionsError, match="rows without a key: got 1"):
        aligned(replaced(file, "key", 0, None), truth, tmp_path / "p.parquet")


def test_truth_is_that_of_the_loader(tmp_path: Path) -> None:
    make_both(tmp_path)
    release = open_release(tmp_path)
    for config, split in (("b-t4sa", "test"), ("b-t4sa", "train"), ("twitter-testing", "test")):
        selection = select(release, config, split, where=Where())
        found = predictions.read_truth(release, config, split)
        assert found["key"].to_pylist() == selection.keys.to_pylist()
        assert found["label"].to_pylist() == selection.label.tolist()
        assert ("agreement" in found.column_names) == (config == "twitter-testing")
    with pytest.raises(UnknownConfig):
        predictions.read_truth(release, "b-t4sa", "dev")


def test_no_twitter_testing_dataset_says_where_to_get_it(releases: Path) -> None:
    with pytest.raises(ConfigUnavailable) as caught:
        predictions.require_config(open_release(releases), "twitter-testing", "test")
    words = str(caught.value)
    for part in ("882/1,116/1,269", "imatge-upc/sentiment-2017-imavis", "codiceSpaghetti/T4SA-2.0", "t4sa prepare TTD"):
        assert part in words
    with pytest.raises(ConfigUnavailable, match="t4sa-unique"):
        predictions.require_config(open_release(releases), "t4sa-unique", "test")


def test_a_table_is_saved_with_equal_bytes(truth: pa.Table, tmp_path: Path) -> None:
    table = predictions.make_table(truth, *made_up(truth))
    assert predictions.save_table(tmp_path / "a", table) == predictions.save_table(tmp_path / "b", table)
    read = pq.read_table(tmp_path / "a")
    assert read.schema.equals(pa.schema([f for f in predictions.SCHEMA if f.name != "agreement"]))
    assert read.equals(table)
