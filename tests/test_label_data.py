"""Labelled tweets and word vectors are read as they are, or refused by name before anything is trained."""

from __future__ import annotations

import bz2
import gzip
import random
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.label.training_data import Labelled, is_development, parse_id, read_labelled
from builders.label.vectors import read_vectors
from t4sa_data.errors import InputMissing, MalformedRow, MissingColumn, NoRows, T4SAError, TableError, UnknownLabel

from tests.label_helpers import FIRST_ID, Row, labelled, write_tsv  # isort: skip

SEMEVAL = Path(__file__).resolve().parents[2] / "shared/data/semeval/train.tsv"


def read(folder: Path, content: str | bytes, name: str = "a.tsv") -> Labelled:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labelled(folder / name)


def test_rows_come_in_order_with_exact_ids_and_their_text_as_it_is(tmp_path: Path) -> None:
    texts = ['"quoted', 'a ""b"" c', "it\\u2019s", "a\u2028b\u0085c\x0bd", "nul \x00 in it", " blanks ", '"', "\ufeffx"]
    ids = [2**53 + 1, 2**60 + 1, 2**63 - 1, 7, 8, 9, 10, 11]
    data = read_labelled(write_tsv(tmp_path / "a.tsv", [(ids[n], n % 3, text) for n, text in enumerate(texts)]))
    assert data.ids.tolist() == ids and list(data.texts) == texts and not data.dropped
    assert data.labels.tolist() == [n % 3 for n in range(8)] and data.num_rows == 8


@pytest.mark.parametrize(
    "content",
    [
        "id\tlabel\ttext\n5\t0\tbad\n6\t2\tgood\n",
        "5\t0\tbad\n6\t2\tgood\n",
        "\ufeffid\tlabel\ttext\r\n5\t0\tbad\r\n6\t2\tgood",
        "Text\tID\tLabel\nbad\t5\tnegative\ngood\t6\tPositive\n\n",
        " 5 \tnegative\tbad\n\n6\t 2\tgood\n",
    ],
    ids=["header", "no header", "Windows", "other order, names", "blanks"],
)
def test_headers_line_ends_and_names_of_labels(content: str, tmp_path: Path) -> None:
    data = read(tmp_path, content)
    assert (data.ids.tolist(), data.labels.tolist(), data.texts) == ([5, 6], [0, 2], ("bad", "good"))
    assert data.class_counts == (1, 0, 1)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_compressed_files_are_the_same_and_cut_ones_are_refused(suffix: str, tmp_path: Path) -> None:
    plain = write_tsv(tmp_path / "a.tsv", labelled(2000))
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda b: pa.compress(b, "zstd", asbytes=True)}
    path = tmp_path / f"b.tsv{suffix}"
    path.write_bytes(packed[suffix](plain.read_bytes()))
    assert read_labelled(path).provenance() == read_labelled(plain).provenance()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(TableError, match="cut or damaged"):
        read_labelled(path)
    path.write_bytes(b"no such format, but long enough to be looked at")
    with pytest.raises(TableError, match="cut or damaged"):
        read_labelled(path)


HEAD = "id\tlabel\ttext\n1\t0\tbad\n"
FAULTS: dict[str, tuple[str | bytes, type[T4SAError], str]] = {
    "empty file": ("", NoRows, "empty file"),
    "header only": ("id\tlabel\ttext\n", NoRows, "empty file"),
    "two fields": (HEAD + "2\t1\n", MalformedRow, "expected 3, got 2.*line 3"),
    "four fields": (HEAD + "2\t1\ta\tb\n", MalformedRow, "expected 3, got 4.*line 3"),
    "commas": (HEAD + "2,1,a\n", MalformedRow, "got 1.*line 3"),
    "unknown label": (HEAD + "2\t3\ta\n", UnknownLabel, "got '3'.*line 3"),
    "negative label": (HEAD + "2\t-1\ta\n", UnknownLabel, "got '-1'"),
    "label of another scale": (HEAD + "2\tvery good\ta\n", UnknownLabel, "negative, neutral, positive"),
    "label without a value": (HEAD + "2\t\ta\n", UnknownLabel, "line 3"),
    "rounded id": (HEAD + "7.8339E+17\t1\ta\n", MalformedRow, "rounds ids"),
    "negative id": (HEAD + "-5\t1\ta\n", MalformedRow, "not a tweet id"),
    "id beyond int64": (HEAD + f"{2**63}\t1\ta\n", MalformedRow, "below 2.63"),
    "huge id": (HEAD + "9" * 5000 + "\t1\ta\n", MalformedRow, "not a tweet id"),
    "id in other digits": (HEAD + "\u0661\u0662\t1\ta\n", MalformedRow, "not a tweet id"),
    "not UTF-8": (HEAD.encode() + b"2\t1\tcaf\xe9\n", MalformedRow, "not UTF-8.*line 3"),
    "another header": ("tweet\tclass\ttext\n1\t0\ta\n", MissingColumn, "id, label, text"),
    "a page": ("<!DOCTYPE html>\n<html></html>\n", MissingColumn, "line 1"),
    "only empty texts": (HEAD.replace("bad", "  ") + "2\t1\t&nbsp;\n", NoRows, "no row can be used.*2 empty_text"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_is_none_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    content, error, says = FAULTS[name]
    with pytest.raises(error, match=says) as caught:
        read(tmp_path, content)
    assert "a.tsv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        read_labelled(tmp_path / "none.tsv")


def test_ids_that_contradict_themselves_are_all_left_out_and_equal_rows_kept_once(tmp_path: Path) -> None:
    rows: list[Row] = [
        (1, 0, "one"), (2, 1, "two"), (1, 2, "one"), (3, 2, "three"), (3, 2, "three"), (2, 1, "two, said otherwise"),
        (1, 0, "one"), (4, 0, "same words"), (5, 2, "same  words"), (6, 2, "same words"), (7, 1, "\x00 \u200b"),
        (8, 1, "x" * 100_000), (9, 0, ""), (9, 1, "nine"),
    ]  # fmt: skip
    data = read_labelled(write_tsv(tmp_path / "a.tsv", rows))
    assert data.ids.tolist() == [2, 3, 4, 5, 6] and data.texts[0] == "two"
    assert data.conflicting_ids == (1, 9)
    assert data.dropped == {"conflicting_id": 5, "repeated_id": 2, "empty_text": 1, "too_long": 1}
    assert data.num_rows == len(data.ids) + sum(data.dropped.values())
    assert data.num_conflicting_texts == 1
    assert data.provenance()["conflicting_ids"] == 2 and "same words" not in str(data.provenance())


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.sampled_from(["a", "b", "", "&nbsp;"])), min_size=1)
)
def test_every_row_is_kept_or_counted_and_no_order_changes_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    try:
        data = read_labelled(write_tsv(folder / "a.tsv", rows))
    except NoRows:
        return
    assert data.num_rows == len(rows) == len(data.ids) + sum(data.dropped.values())
    assert len(set(data.ids.tolist())) == len(data.ids)
    labels: dict[int, set[int]] = {}
    for number, label, _ in rows:
        labels.setdefault(number, set()).add(label)
    assert set(data.conflicting_ids) == {number for number, found in labels.items() if len(found) > 1}
    assert not set(data.conflicting_ids) & set(data.ids.tolist())
    again = read_labelled(write_tsv(folder / "b.tsv", random.Random(0).sample(rows, len(rows))))
    assert dict(zip(again.ids.tolist(), again.labels.tolist(), strict=True)) == dict(
        zip(data.ids.tolist(), data.labels.tolist(), strict=True)
    )


def test_development_is_a_tenth_by_id_alone() -> None:
    ids = [row[0] for row in labelled(3000)]
    held = is_development(ids)
    assert 0.08 < held.mean() < 0.12
    assert (is_development(ids[::-1])[::-1] == held).all() and held.dtype == bool
    # Part of what a published figure means: these never change.
    assert np.flatnonzero(is_development(range(100))).tolist() == [18, 72, 74, 87, 96]
    assert is_development(np.array([FIRST_ID])) == is_development([FIRST_ID]) and not len(is_development([]))


def test_ids_are_exact() -> None:
    assert parse_id(str(2**53 + 1)) == 2**53 + 1 and parse_id("0") == 0
    assert [parse_id(text) for text in ("", "1.0", "1e5", " 1", "+1", "\u00b2", str(2**63), "9" * 5000)] == [None] * 8


@pytest.mark.slow
@pytest.mark.skipif(not SEMEVAL.exists(), reason="the SemEval training file is not beside this checkout")
def test_the_semeval_file_is_read_whole() -> None:
    data = read_labelled(SEMEVAL)
    assert data.num_rows == SEMEVAL.read_bytes().count(b"\n") - 1
    assert data.num_rows == len(data.ids) + sum(data.dropped.values()) and min(data.class_counts) > 1000
    assert any("\\u" in text for text in data.texts) and any(text.startswith('"') for text in data.texts)


# Word vectors.
WORDS = {"good": [1.5, -2, 0.25], "bad": [0, 1, -1], "Paris": [3, 3, 3], "<number>": [9, 8, 7], ". . .": [1, 1, 1]}
WANTED = ["good", "bad", "paris", "<num>", "absent"]


def text_of(words: dict[str, list[float]], header: bool) -> bytes:
    rows = [f"{word} {' '.join(map(str, vector))}" for word, vector in words.items()]
    return ("\n".join([f"{len(words)} 3"] * header + rows) + "\n").encode()


def binary_of(words: dict[str, list[float]], end: bytes = b"\n") -> bytes:
    words = {word: vector for word, vector in words.items() if " " not in word}
    rows = [word.encode() + b" " + struct.pack("<3f", *vector) + end for word, vector in words.items()]
    return f"{len(words)} 3\n".encode() + b"".join(rows)


def vectors(folder: Path, content: bytes, wanted: list[str] = WANTED, name: str = "v") -> dict[str, list[float]]:
    (folder / name).write_bytes(content)
    found = read_vectors(folder / name, wanted)
    assert all(vector.dtype == np.float32 for vector in found.values())
    return {word: vector.tolist() for word, vector in found.items()}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (text_of(WORDS, header=False), "glove.txt"),
        (text_of(WORDS, header=True), "fasttext.vec"),
        (text_of(WORDS, header=True).replace(b"\n", b" \n"), "word2vec.txt"),
        (binary_of(WORDS), "word2vec.bin"),
        (binary_of(WORDS, b""), "gensim.bin"),
        (gzip.compress(binary_of(WORDS)), "word2vec.bin.gz"),
        (bz2.compress(text_of(WORDS, header=False)), "glove.txt.bz2"),
        (pa.compress(binary_of(WORDS), "zstd", asbytes=True), "word2vec.bin.zst"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_vectors_of_every_form_are_the_same(content: bytes, name: str, tmp_path: Path) -> None:
    assert vectors(tmp_path, content, name=name) == {
        "<num>": [9, 8, 7], "bad": [0, 1, -1], "good": [1.5, -2, 0.25], "paris": [3, 3, 3]
    }  # fmt: skip


def test_a_word_in_its_own_capitals_goes_first_and_the_first_of_two(tmp_path: Path) -> None:
    words = {"GOOD": [9, 9, 9], "good": [1, 1, 1], "Bad": [2, 2, 2], "BAD": [3, 3, 3]}
    assert vectors(tmp_path, text_of(words, header=False)) == {"good": [1, 1, 1], "bad": [2, 2, 2]}
    assert vectors(tmp_path, b"bad 1 1 1\nbad 2 2 2\n") == {"bad": [1, 1, 1]}


VECTOR_FAULTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a file of word vectors"),
    "a page": (b"<!DOCTYPE html>\n<html>\n", "not a file of word vectors"),
    "words alone": (b"good\nbad\n", "not a file of word vectors"),
    "text among numbers": (b"good 1 x 3\n", "not a file of word vectors"),
    "another dimension": (b"good 1 2 3\nbad 1 2\n", "expected 3, got 2.*line 2"),
    "header of another dimension": (b"1 5\ngood 1 2 3\n", "expected 5, got 3.*line 2"),
    "not a number": (b"good 1 2 3\nbad 1 two 3\n", "not a number.*line 2"),
    "not finite": (b"good 1 2 3\nbad 1 nan 3\n", "not finite.*line 2"),
    "text cut": (text_of(WORDS, header=True).rsplit(b"\n", 2)[0], "the file was cut: expected 5 words, got 4"),
    "binary cut": (binary_of(WORDS)[:-4], "the file was cut: expected 4 words, got 3"),
    "binary of another dimension": (binary_of(WORDS).replace(b"4 3\n", b"4 2\n", 1), "behind the last word"),
    "binary not finite": (binary_of({"good": [1, float("inf"), 2]}), "not finite.*word 1"),
    "binary of no words": (b"3 3\n" + b"\xff" * 9000, "not a file of word vectors|the file was cut"),
    "no word in common": (b"xyzzy 1 2 3\n", "no word of the training texts"),
    "a fastText model": (struct.pack("<ii", 793712314, 12) + b"\x00" * 100, r"\.vec file"),
    "an absurd dimension": (b"5 999999\ngood 1\n", "2 to 4096"),
}


@pytest.mark.parametrize("name", VECTOR_FAULTS)
def test_a_file_that_holds_no_vectors_is_refused(name: str, tmp_path: Path) -> None:
    content, says = VECTOR_FAULTS[name]
    with pytest.raises(TableError, match=says):
        vectors(tmp_path, content)
