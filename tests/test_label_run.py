"""Labelling a file: a row for each row, in order, whatever stands in it; the same by any number of processes."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("vaderSentiment")

from builders.label import run
from builders.label.folder import save_model
from builders.label.inputs import BAD_ID, EMPTY, MISSING, NOT_TEXT, REASONS, TOO_LONG, UNDECODABLE, Bad, read_tweets
from builders.label.run import SCHEMA, Outcome, label_file
from builders.label.text import MAX_CHARS
from t4sa_data.errors import (
    BadOption,
    InputMissing,
    MalformedRow,
    MissingColumn,
    ModelFolderError,
    OutputError,
    SourceChanged,
    T4SAError,
    TableError,
    WorkerDied,
)

from tests.label_helpers import FIRST_ID, die, labelled, save_tiny, tiny_svm, tiny_tandem, write_jsonl  # isort: skip

TEXTS = [row[2] for row in labelled(60, seed=2)]
BIG = 2**60 + 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tandem")


@pytest.fixture(autouse=True)
def _quick(quick_disk: None) -> None:
    pass


def rows_of(path: Path) -> list[tuple[int | None, str | None]]:
    """Ids and reasons."""
    table = pq.read_table(path)
    return list(zip(table["tweet_id"].to_pylist(), table["reason"].to_pylist(), strict=True))


def probabilities(path: Path) -> np.ndarray[Any, Any]:
    """NaN where a row has none, shape (rows, 3)."""
    table = pq.read_table(path)
    return np.stack([table[name].to_numpy() for name in ("negative", "neutral", "positive")], axis=1)


def label(source: Path, **options: Any) -> tuple[Path, Outcome]:
    out = source.with_name(source.name + ".parquet")
    return out, label_file(tiny_tandem(), source, out, **options)


# What a file may be.
def as_jsonl(rows: list[tuple[Any, Any]]) -> bytes:
    return "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in rows).encode()


def as_strings(rows: list[tuple[Any, Any]]) -> bytes:
    tweets = [{"lang": "en", "id": 1.5, "id_str": str(i), "full_text": t, "text": "cut\u2026"} for i, t in rows]
    return "\r\n".join(json.dumps(tweet, ensure_ascii=False) for tweet in tweets).encode()


def as_streamed(rows: list[tuple[Any, Any]]) -> bytes:
    tweets = [{"id": i, "text": "cut", "extended_tweet": {"full_text": t}} for i, t in rows]
    return "\n\n".join(map(json.dumps, tweets)).encode()


def as_csv(rows: list[tuple[Any, Any]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("id", "text"), *rows])
    return file.getvalue().encode()


def as_tsv(rows: list[tuple[Any, Any]]) -> bytes:
    return "".join(f"{t}\t{i}\tx\n" for i, t in [("Tweet_ID", "text"), *rows]).encode()


def as_parquet(id_type: Any, text_type: Any) -> Callable[[list[tuple[Any, Any]]], bytes]:
    def make(rows: list[tuple[Any, Any]]) -> bytes:
        ids = pa.array([i for i, _ in rows], pa.int64()).cast(id_type)
        texts = pa.array([t for _, t in rows], pa.string()).cast(text_type)
        sink = io.BytesIO()
        pq.write_table(pa.table({"label": [0] * len(rows), "id": ids, "text": texts}), sink, row_group_size=7)
        return sink.getvalue()

    return make


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


FORMS: dict[str, Callable[[list[tuple[Any, Any]]], bytes]] = {
    "a.jsonl": as_jsonl,
    "b.ndjson": as_strings,
    "c.JSONL": as_streamed,
    "d.jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows)),
    "e.jsonl.bz2": lambda rows: bz2.compress(as_jsonl(rows)),
    "f.jsonl.zst": lambda rows: zstd(as_jsonl(rows)),
    "g.csv": as_csv,
    "h.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows),
    "i.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "j.csv.zst": lambda rows: zstd(as_csv(rows)),
    "k.tsv": as_tsv,
    "l.parquet": as_parquet(pa.int64(), pa.string()),
    "m.parquet": as_parquet(pa.string(), pa.large_string()),
    "n.parquet": as_parquet(pa.uint64(), pa.dictionary(pa.int32(), pa.string())),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_input_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    texts = ["I love it", '"quoted, twice" said', "caf\u00e9 \U0001f602", "it\u2019s # awful"]
    rows = [(BIG + i, text) for i, text in enumerate(texts)]
    (tmp_path / name).write_bytes(FORMS[name](rows))
    out, done = label(tmp_path / name)
    assert rows_of(out) == [(number, None) for number, _ in rows]
    np.testing.assert_allclose(probabilities(out), tiny_tandem().predict_proba(texts), atol=1e-6)
    assert pq.read_schema(out).equals(SCHEMA)
    assert (done.num_rows, done.num_labelled, int(done.by_class.sum())) == (4, 4, 4)
    assert pq.read_schema(out).metadata[b"t4sa.prior"] == b"raw"


def test_an_input_without_rows_gives_a_file_without_rows(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", b"\n\n"), ("b.csv", b"id,text\n"), ("c.parquet", FORMS["l.parquet"]([]))):
        (tmp_path / name).write_bytes(content)
        out, done = label(tmp_path / name)
        assert rows_of(out) == [] and done.num_rows == 0 and pq.read_schema(out).equals(SCHEMA)
        assert "rows" in done.as_text()


# Rows that cannot be labelled, item by item.
LABELLED: dict[str, str] = {
    "only emoji": "\U0001f602\U0001f602",
    "half a surrogate pair": "good \ud83d",
    "nothing but half a pair": "\udc00",
    "NULs": "go\x00od",
    "right-to-left marks": "\u202e\u0645\u0631\u062d\u0628\u0627\u200f",
    "as long as may be": "a" * MAX_CHARS,
    "a retweet": "RT @you: good",
    "an escape": "\\u2019",
    "a quote": '"',
}
UNLABELLED: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"id": 1, "text": ""}, EMPTY),
    "blanks": ({"id": 1, "text": " \n\t\u2003\u00a0"}, EMPTY),
    "only marks": ({"id": 1, "text": "\x00\u202e\u200b\ufeff"}, EMPTY),
    "only entities": ({"id": 1, "text": "&nbsp;&nbsp;"}, EMPTY),
    "100 kB": ({"id": 1, "text": "good " * 20_000}, TOO_LONG),
    "one too long": ({"id": 1, "text": "a" * (MAX_CHARS + 1)}, TOO_LONG),
    "null": ({"id": 1, "text": None}, MISSING),
    "absent": ({"id": 1}, MISSING),
    "a number": ({"id": 1, "text": 5}, NOT_TEXT),
    "a list": ({"id": 1, "text": ["good"]}, NOT_TEXT),
    "no id": ({"text": "good"}, BAD_ID),
    "null id": ({"id": None, "text": "good"}, BAD_ID),
    "rounded id": ({"id": 7.83e17, "text": "good"}, BAD_ID),
    "id in words": ({"id": "seven", "text": "good"}, BAD_ID),
    "negative id": ({"id": -1, "text": "good"}, BAD_ID),
    "id beyond int64": ({"id": 2**63, "text": "good"}, BAD_ID),
    "true": ({"id": True, "text": "good"}, BAD_ID),
    "neither": ({}, BAD_ID),
}


def test_odd_texts_are_labelled_and_bad_rows_keep_their_place_with_a_reason(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": BIG, "text": text} for text in LABELLED.values()]
    for row, _ in UNLABELLED.values():
        rows += [row, {"id": BIG, "text": "fine"}]
    out, done = label(write_jsonl(tmp_path / "a.jsonl", rows))
    found, p = rows_of(out), probabilities(out)
    assert len(found) == len(rows) == done.num_rows
    expected: list[str | None] = [None] * len(LABELLED)
    for _, reason in UNLABELLED.values():
        expected += [reason, None]
    names = [*LABELLED, *(name for name in UNLABELLED for _ in range(2))]
    for name, (_, reason), wanted, row in zip(names, found, expected, p, strict=True):
        assert reason == wanted, name
        assert np.isnan(row).all() if reason else abs(row.sum() - 1) < 1e-5, name
    ids = [None if reason == BAD_ID else row["id"] for row, reason in zip(rows, expected, strict=True)]
    assert [number for number, _ in found] == ids
    assert sum(done.by_reason.values()) == len(UNLABELLED) and set(done.by_reason) == set(REASONS) - {UNDECODABLE}
    assert all(reason in done.as_text() for reason in done.by_reason)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_bytes_that_are_not_utf8_cost_their_row_only(name: str, tmp_path: Path) -> None:
    texts = [b"good", b"caf\xe9 and more", b"\xff\xfe", b"\xed\xa0\xbd", "caf\u00e9".encode()]
    if name.endswith("parquet"):
        array = pa.Array.from_buffers(pa.string(), 5, pa.array(texts, pa.binary()).buffers())
        pq.write_table(pa.table({"id": pa.array(range(5)), "text": array}), tmp_path / name)
    else:
        form = {"a.jsonl": b'{"id": %d, "text": "%b"}\n', "a.csv": b"%d,%b\n", "a.tsv": b"%d\t%b\n"}[name]
        head = {"a.jsonl": b"", "a.csv": b"id,text\n", "a.tsv": b"id\ttext\n"}[name]
        (tmp_path / name).write_bytes(head + b"".join(form % (i, text) for i, text in enumerate(texts)))
    out, _ = label(tmp_path / name)
    assert rows_of(out) == [(0, None), (1, UNDECODABLE), (2, UNDECODABLE), (3, UNDECODABLE), (4, None)]


def test_ids_that_repeat_stay_rows_of_their_own(tmp_path: Path) -> None:
    rows = [(5, "good"), (5, "awful"), (5, "good"), (6, "good")]
    (tmp_path / "a.csv").write_bytes(as_csv(rows))
    out, _ = label(tmp_path / "a.csv")
    assert [number for number, _ in rows_of(out)] == [5, 5, 5, 6]
    p = probabilities(out)
    assert (p[0] == p[2]).all() and (p[0] == p[3]).all() and (p[0] != p[1]).any()


# Lines that are no rows.
MALFORMED: dict[str, tuple[str, bytes, int, list[int]]] = {
    "not JSON": ("a.jsonl", b'{"id": 1, "text": "a"}\n{"id": 2, "te\n{"id": 3, "text": "c"}\n', 2, [1, 3]),
    "no object": ("a.jsonl", b'{"id": 1, "text": "a"}\n[1]\n"x"\n7\n{"id": 3, "text": "c"}\n', 2, [1, 3]),
    "nested without end": ("a.jsonl", b'{"id":1,"text":"a"}\n' + b"[" * 200_000 + b'\n{"id":3,"text":"c"}', 2, [1, 3]),
    "a huge number": ("a.jsonl", b'{"id":1,"text":"a"}\n{"id":' + b"9" * 9000 + b'}\n{"id":3,"text":"c"}', 2, [1, 3]),
    "a field too few": ("a.csv", b"id,text\n1,a\n2\n3,c\n", 3, [1, 3]),
    "a field too many": ("a.csv", b"id,text\n1,a\n2,b,c\n3,c\n", 3, [1, 3]),
    "quotes inside": ("a.csv", b'id,text\n1,a\n2,"b" c\n3,c\n', 3, [1, 3]),
    "a quote that does not close": ("a.csv", b'id,text\n1,a\n3,c\n2,"b\n4,d\n', 4, [1, 3]),
    "tabs": ("a.tsv", b"id\ttext\n1\ta\n2\tb\tc\n3\tc\n", 3, [1, 3]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_line_stops_by_name_and_number_or_is_counted(name: str, tmp_path: Path) -> None:
    file, content, line, ids = MALFORMED[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(MalformedRow, match=rf"{file}, line {line}\].*--skip-bad"):
        label(tmp_path / file)
    assert [path.name for path in tmp_path.iterdir()] == [file]  # nothing half done
    out, done = label(tmp_path / file, skip_bad=True)
    assert rows_of(out) == [(number, None) for number in ids]
    assert done.bad.num_lines == content.rstrip(b"\n").count(b"\n") + 1 - (file != "a.jsonl") - 2
    assert "malformed" in done.as_text() and f"line {line}" in done.as_text()


def test_lines_within_quotes_are_one_row_and_are_counted_as_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,"a\nb\nc"\n2,"x\ny",z\n3,c\n')
    with pytest.raises(MalformedRow, match="line 5"):
        label(tmp_path / "a.csv")
    out, done = label(tmp_path / "a.csv", skip_bad=True)
    assert rows_of(out) == [(1, None), (3, None)] and done.bad.num_lines == 2


FAULTS: dict[str, tuple[str, bytes, type[T4SAError], str]] = {
    "no text column": ("a.csv", b"id,body\n1,a\n", MissingColumn, "full_text or text"),
    "no id column": ("a.tsv", b"text\nx\n", MissingColumn, "id_str or tweet_id"),
    "no header": ("a.csv", b"1,a\n2,b\n", MissingColumn, "first line must name"),
    "empty table": ("a.csv", b"", MissingColumn, "empty file"),
    "empty TSV": ("a.tsv", b"", MissingColumn, "empty file"),
    "no Parquet": ("a.parquet", b"PAR1 is how it begins, and no more", TableError, "not a Parquet file"),
    "gzip cut": ("a.jsonl.gz", gzip.compress(as_jsonl([(1, "a")] * 999))[:-9], TableError, "cut or damaged"),
    "no gzip": ("a.csv.gz", b"id,text\n1,a\n", TableError, "cut or damaged"),
    "zstd cut": ("a.jsonl.zst", zstd(as_jsonl([(1, "a")] * 999))[:-9], TableError, "cut or damaged"),
    "unknown name": ("a.xlsx", b"x", BadOption, "tells no format"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    file, content, error, says = FAULTS[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(error, match=says):
        label(tmp_path / file)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_ids_in_a_column_of_floats_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1.0], "text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(MalformedRow, match="Floats round ids"):
        label(tmp_path / "a.parquet")


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from builders.label import files

    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    good = b'{"id": 1, "text": "a"}\n'
    (tmp_path / "a.jsonl").write_bytes(good + b"x" * 5500 + b"\n" + good)
    bad = Bad(skip=True)
    assert len(list(read_tweets(tmp_path / "a.jsonl", bad))) == 2 and bad.num_lines == 1


def test_places_and_options_that_do_not_go(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "text": "a"}])
    labeller: Any = tiny_tandem()
    for call, error in (
        (lambda: label_file(labeller, tmp_path / "none.csv", tmp_path / "o"), InputMissing),
        (lambda: label_file(labeller, source, source), BadOption),
        (lambda: label_file(labeller, source, tmp_path), OutputError),
        (lambda: label_file(labeller, source, source / "o"), OutputError),
        (lambda: label_file(labeller, source, tmp_path / "o", workers=0), BadOption),
        (lambda: label_file(labeller, source, tmp_path / "o", workers=2), BadOption),
        (lambda: label_file(labeller, source, tmp_path / "o", chunk_rows=0), BadOption),
        (lambda: label_file(labeller, source, tmp_path / "o", prior="flat"), BadOption),  # type: ignore[arg-type]
        (lambda: label_file(tmp_path, source, tmp_path / "o"), ModelFolderError),
    ):
        with pytest.raises(error):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_uniform_is_the_other_rule_and_the_file_says_which(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": i, "text": text} for i, text in enumerate(TEXTS)])
    label_file(model, source, tmp_path / "o.parquet", prior="uniform")
    found = probabilities(tmp_path / "o.parquet")
    np.testing.assert_allclose(found, tiny_tandem().predict_proba(TEXTS, "uniform"), atol=1e-6)
    about = pq.read_schema(tmp_path / "o.parquet").metadata
    assert about[b"t4sa.prior"] == b"uniform" and len(about[b"t4sa.model_sha256"]) == 64
    assert str(tmp_path).encode() not in (tmp_path / "o.parquet").read_bytes()


# The same rows, however they are shared out.
ODD = st.one_of(
    st.sampled_from(TEXTS), st.sampled_from(["", " ", "x" * (MAX_CHARS + 1), "\U0001f602", "not good", "\x00"]),
    st.none(), st.text(st.characters(codec=None), max_size=20), st.integers(),
)  # fmt: skip
ROWS = st.lists(st.tuples(st.one_of(st.integers(0, 2**63 - 1), st.none(), st.just("x")), ODD), max_size=30)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, chunk=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_no_row_is_lost_moved_or_changed_by_chunks_or_order(rows: Any, chunk: int, order: Any, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": i, "text": t} for i, t in rows])
    out, done = label(source)
    whole, p = rows_of(out), probabilities(out)
    assert done.num_rows == len(rows) == len(whole) == done.num_labelled + sum(done.by_reason.values())
    for (raw, text), (number, reason) in zip(rows, whole, strict=True):
        assert number == (raw if isinstance(raw, int) else None)
        assert (reason == BAD_ID) == (number is None)
        assert (reason in (MISSING, BAD_ID)) or text is not None
    out, _ = label(source, chunk_rows=chunk)
    assert rows_of(out) == whole
    np.testing.assert_allclose(probabilities(out), p, atol=1e-6)
    places = list(range(len(rows)))
    order.shuffle(places)
    moved = write_jsonl(tmp_path / "b.jsonl", [{"id": rows[i][0], "text": rows[i][1]} for i in places])
    out, _ = label(moved)
    assert rows_of(out) == [whole[i] for i in places]
    np.testing.assert_allclose(probabilities(out), p[places], atol=1e-6)


def test_row_groups_do_not_hang_on_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GROUP_ROWS", 16)
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": i, "text": "good"} for i in range(50)])
    for chunk in (1, 7, 16, 50):
        out, _ = label(source, chunk_rows=chunk)
        groups = pq.ParquetFile(out).metadata
        assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [16, 16, 16, 2]
        assert pq.read_table(out)["tweet_id"].to_pylist() == list(range(50))


@pytest.fixture(scope="module")
def svm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "svm"
    save_model(tiny_svm(), folder)
    return folder


@pytest.mark.parametrize("kind", ["svm", pytest.param("model", marks=pytest.mark.slow)])
def test_two_processes_give_what_one_gives(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model: Path = request.getfixturevalue(kind)
    rows: list[dict[str, Any]] = [{"id": FIRST_ID + i, "text": text} for i, text in enumerate(TEXTS * 3)]
    rows[7:7] = [{"id": 1}, {"text": "x"}, {"id": 2, "text": ""}]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    seen: list[int] = []
    one = label_file(model, source, tmp_path / "one.parquet", progress=seen.append)
    two = label_file(model, source, tmp_path / "two.parquet", workers=2, chunk_rows=13, progress=seen.append)
    assert rows_of(tmp_path / "one.parquet") == rows_of(tmp_path / "two.parquet")
    assert sum(seen) == 2 * len(rows)
    found = [probabilities(tmp_path / name) for name in ("one.parquet", "two.parquet")]
    np.testing.assert_allclose(*found, atol=1e-6)
    assert one.by_reason == two.by_reason and (one.by_class == two.by_class).all()


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_has_a_name(svm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": i, "text": "good"} for i in range(40)])
    real = run.model_digest
    monkeypatch.setattr(run, "model_digest", lambda folder: "0" * 64)
    with pytest.raises(SourceChanged, match="the model changed"):
        label_file(svm, source, tmp_path / "o.parquet", workers=2, chunk_rows=5)
    monkeypatch.setattr(run, "model_digest", real)
    monkeypatch.setattr(run, "_label", die)
    with pytest.raises(WorkerDied, match="try fewer --workers"):
        label_file(svm, source, tmp_path / "o.parquet", workers=2, chunk_rows=5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


MEMORY = """
import json, resource, sys
from pathlib import Path
from builders.label.run import label_file
model, folder, num = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
with (folder / f"{num}.jsonl").open("w") as file:
    for i in range(num):
        text = f"the movie was great and row {i % 5000} " + "word " * (i % 40)
        file.write(json.dumps({"id": i, "text": text}) + "\\n")
label_file(model, folder / f"{num}.jsonl", folder / f"{num}.parquet")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_flat(svm: Path, tmp_path: Path) -> None:
    peaks = []
    for num in (60_000, 240_000):
        command = [sys.executable, "-c", MEMORY, str(svm), str(tmp_path), str(num)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < peaks[0] * 1.1, peaks


@pytest.mark.slow
def test_a_classifier_of_transformers_labels_a_file_as_it_lies(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "movie", "was", "great", "awful"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=64, num_labels=3, id2label={0: "negative", 1: "neutral", 2: "positive"},
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    texts = [f"the movie was {word}" for word in ("great", "awful")] * 12
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": BIG + i, "text": text} for i, text in enumerate(texts)])
    found = []
    for workers in (1, 2):
        done = label_file(folder, source, tmp_path / "o.parquet", workers=workers, chunk_rows=5)
        assert done.num_labelled == len(texts)
        found.append(probabilities(tmp_path / "o.parquet"))
    np.testing.assert_allclose(*found, atol=1e-5)
    assert (found[0][0] != found[0][1]).any() and len(pq.read_schema(tmp_path / "o.parquet").metadata) >= 2
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelFolderError):
        label_file(folder, source, tmp_path / "o.parquet")
