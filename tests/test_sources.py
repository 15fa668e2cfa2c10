"""What is written by the rules is read back exactly: tables, split lists, archives, keys as numbers."""

from __future__ import annotations

import csv
import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builders.keys import find, first_of_each, pack
from builders.sources import tables
from builders.sources.archive import index_archive
from builders.sources.official import read_removals
from builders.sources.tables import read_sentiment, read_split_list, read_texts
from builders.state import State
from t4sa_data.errors import BadKey, ConflictingRows, MalformedRow
from t4sa_data.schema import make_key

MAX_ID = 2**62 - 1
IDS = st.integers(0, MAX_ID) | st.sampled_from([0, 1, 2**53, 2**53 + 1, 767724493873516544, MAX_ID])
INDICES = st.integers(1, 4)
# Any text that UTF-8 can hold: no lone surrogates.
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.text('",\r\n\t \\\ufeff\u2028\x00\x1c', max_size=12)
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# The CSV.
@QUICK
@given(st.dictionaries(IDS, TEXTS, max_size=12), st.booleans(), st.sampled_from(["\n", "\r\n"]))
@example({MAX_ID: '"\n\r\n,', 2**53 + 1: "\ufeffmark"}, True, "\r\n")
def test_texts_round_trip(tmp_path: Path, rows: dict[int, str], bom: bool, line_end: str) -> None:
    with (tmp_path / "x.csv").open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        # A lone \r asks for quotes too, which Python's writer forgets with another line end.
        writer = csv.writer(file, lineterminator=line_end, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "text"])
        writer.writerows(rows.items())
    texts = read_texts(tmp_path / "x.csv")
    assert dict(zip(texts.tweet_id.tolist(), texts.text.to_pylist(), strict=True)) == rows
    assert (texts.num_rows, len(texts.repeated), texts.num_conflicting) == (len(rows), 0, 0)


@QUICK
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", "c\nd"])), max_size=40), st.integers(1, 7))
def test_the_first_text_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[int, str]], chunk_rows: int
) -> None:
    """Also where rows of one id stand in different chunks, and where only some ids are wanted."""
    monkeypatch.setattr(tables, "_CHUNK_ROWS", chunk_rows)
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("id", "text"), *rows])
    for wanted in (None, np.array([7, 2, 3, 5])):
        kept = [row for row in rows if wanted is None or row[0] in wanted]
        first: dict[int, str] = {}
        for tweet_id, text in kept:
            first.setdefault(tweet_id, text)
        texts = read_texts(tmp_path / "x.csv", wanted)
        assert list(zip(texts.tweet_id.tolist(), texts.text.to_pylist(), strict=True)) == list(first.items())
        assert texts.num_rows == len(rows)
        assert sorted(texts.repeated.tolist()) == sorted(
            tweet_id for i, (tweet_id, _) in enumerate(kept) if tweet_id in dict(kept[:i])
        )
        assert texts.num_conflicting == sum(text != first[tweet_id] for tweet_id, text in kept)


# The TSV.
PROBABILITY = st.floats(0, 1, allow_nan=False)


@QUICK
@given(st.dictionaries(IDS, st.tuples(PROBABILITY, PROBABILITY, PROBABILITY), max_size=12), st.integers(0, 3))
@example({MAX_ID: (0.0, 1.0, 5e-324)}, 1)
def test_probabilities_round_trip(
    tmp_path: Path, rows: dict[int, tuple[float, float, float]], num_repeated: int
) -> None:
    lines = ["\t".join([str(tweet_id), *map(repr, values)]) for tweet_id, values in rows.items()]
    lines += lines[:num_repeated]
    (tmp_path / "x.tsv").write_text("\n".join(["TWID\tNEG\tNEU\tPOS", *lines]))
    read = read_sentiment(tmp_path / "x.tsv")
    assert read.tweet_id.tolist() == list(rows)
    assert read.probabilities.tobytes() == np.array(list(rows.values()), np.float32).reshape(-1, 3).tobytes()
    assert read.num_repeated == min(num_repeated, len(rows))
    assert read.num_sum_off == sum(abs(sum(values) - 1) > tables.SUM_TOLERANCE for values in rows.values())


@QUICK
@given(st.text(st.characters(codec="utf-8", exclude_characters='\t\r\n"'), max_size=25) | st.floats().map(repr))
@example("9" * 5000)
@example("\u0667")
@example(" 7")
@example("0x7")
@example("1_000")
def test_an_id_is_decimal_digits_or_an_error(tmp_path: Path, text: str) -> None:
    if not text:
        return
    (tmp_path / "x.tsv").write_text(f"TWID\tNEG\tNEU\tPOS\n{text}\t0.2\t0.3\t0.5\n", encoding="utf-8")
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_ID:
        assert read_sentiment(tmp_path / "x.tsv").tweet_id.tolist() == [int(text)]
    else:
        with pytest.raises(MalformedRow, match=r"x\.tsv, line 2\]"):
            read_sentiment(tmp_path / "x.tsv")


@pytest.mark.parametrize("num_rows", [0, 1, 5000])
def test_what_is_not_utf8_is_found_on_its_line(num_rows: int, tmp_path: Path) -> None:
    """The decoder reads ahead of the parser by thousands of rows; the message names the line all the same."""
    good = "".join(f"{i},caf\u00e9\n" for i in range(num_rows)).encode()
    (tmp_path / "x.csv").write_bytes(b"id,text\n" + good + b"7,caf\xe9\n" + good)
    with pytest.raises(MalformedRow, match=rf"not UTF-8 \[.*x\.csv, line {num_rows + 2}\]"):
        read_texts(tmp_path / "x.csv")


def test_an_open_quote_is_found_where_it_opens(tmp_path: Path) -> None:
    rows = "".join(f"{i},text\n" for i in range(20_000))
    (tmp_path / "x.csv").write_text(f'id,text\n1,"two\nlines"\n2,"never closed\n{rows}')
    with pytest.raises(MalformedRow, match=r"x\.csv, the row from line 4 on\]"):
        read_texts(tmp_path / "x.csv")


# The split lists.
@QUICK
@given(
    st.dictionaries(st.tuples(IDS, INDICES), st.integers(0, 2), max_size=12),
    st.sampled_from(["\n", "\r\n", "\n\n", "\n \r\n"]),
    st.booleans(),
    st.sampled_from([" ", "\t", "  "]),
)
def test_split_lists_round_trip(rows: dict[tuple[int, int], int], line_end: str, bom: bool, space: str) -> None:
    lines = [f"data/{str(i)[:5]}/{i}-{k}.jpg{space}{label}" for (i, k), label in rows.items()]
    data = (line_end.join(lines) + line_end).encode("utf-8-sig" if bom else "utf-8")
    read = read_split_list(data, "x.txt")
    keys = list(zip(read.tweet_id.tolist(), read.image_index.tolist(), strict=True))
    assert dict(zip(keys, read.label.tolist(), strict=True)) == rows
    assert keys == list(rows)
    assert read.num_blank == (max(1, len(rows)) * (line_end.count("\n") - 1)) + (not rows)
    if rows:
        with pytest.raises(ConflictingRows, match=r"x\.txt, lines 1 and "):
            read_split_list(data + lines[0].encode(), "x.txt")


# Removals.
def test_removals_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "removals.txt"
    path.write_text(f"\ufeff# asked for\n{MAX_ID}\n\n7  # this tweet\n{MAX_ID}-4\n7-1 # this image\n")
    tweets, images = read_removals(path)
    assert tweets.tolist() == [MAX_ID, 7]
    assert images.tolist() == pack(np.array([MAX_ID, 7]), np.array([4, 1], np.int8)).tolist()


# The archive.
@st.composite
def members(draw: st.DrawFn) -> tuple[bytes, dict[str, bytes], int]:
    """A tar as `tarfile` writes it, the images in it by key, and the number of its other files."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    keys = draw(st.lists(st.tuples(IDS, INDICES), max_size=10, unique=True))
    buffer, images, num_others = io.BytesIO(), {}, 0
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    prefix = draw(st.sampled_from(["", "./"]))
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for tweet_id, image_index in keys:
            kind = rng.choice(["image", "image", "image", "folder", "other"])
            folder = rng.choice([str(tweet_id)[:5], "caf\u00e9", "long" * 24])
            name = {"image": f"data/{folder}/{make_key(tweet_id, image_index)}.jpg", "folder": f"data/{folder}"}
            info = tarfile.TarInfo(prefix + name.get(kind, f"notes-{tweet_id}-{image_index}.txt"))
            info.mtime = 1_500_000_000.5  # needs a pax record where the format has them
            data = b"" if kind == "folder" else rng.randbytes(rng.choice([0, 1, 511, 512, 513, 3000]))
            info.type, info.size = tarfile.DIRTYPE if kind == "folder" else tarfile.REGTYPE, len(data)
            tar.addfile(info, io.BytesIO(data))
            if kind == "image":
                images[make_key(tweet_id, image_index)] = data
            num_others += kind == "other"
    return buffer.getvalue(), images, num_others


@settings(QUICK, max_examples=40)
@given(members())
def test_the_index_is_what_tarfile_finds(tmp_path: Path, made: tuple[bytes, dict[str, bytes], int]) -> None:
    data, images, num_others = made
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    state = State(tmp_path / f"state-{random.getrandbits(64):x}")
    for _ in range(2):  # walked, then taken up from the state
        index = index_archive(path, state)
        keys = [make_key(*key) for key in zip(index.tweet_id.tolist(), index.image_index.tolist(), strict=True)]
        spans = zip(index.offset.tolist(), index.length.tolist(), strict=True)
        assert {k: data[o : o + n] for k, (o, n) in zip(keys, spans, strict=True)} == images
        assert (keys, len(index.others)) == (list(images), num_others)
    with tarfile.open(path) as tar:
        expected = [(m.offset_data, m.size) for m in tar.getmembers() if m.isfile() and m.name.endswith(".jpg")]
    assert list(zip(index.offset.tolist(), index.length.tolist(), strict=True)) == expected


def test_an_index_is_taken_up_only_for_the_same_file(tmp_path: Path) -> None:
    path, state = tmp_path / "x.tar", State(tmp_path / "state")
    for key in ("7-1", "8-2"):
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo(f"data/7/{key}.jpg"))
        index = index_archive(path, state)
        assert make_key(int(index.tweet_id[0]), int(index.image_index[0])) == key


# Keys as numbers.
KEYS = st.lists(st.tuples(IDS, INDICES), max_size=30)


@QUICK
@given(KEYS)
def test_packing_keeps_keys_apart_and_in_order(keys: list[tuple[int, int]]) -> None:
    packed = pack(np.array([i for i, _ in keys], np.int64), np.array([k for _, k in keys], np.int8)).tolist()
    assert [(value >> 2, (value & 3) + 1) for value in packed] == keys
    assert sorted(packed) == [packed[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]


@QUICK
@given(st.lists(IDS, max_size=30), st.lists(IDS, max_size=30, unique=True), st.sampled_from([np.int64, np.uint64]))
def test_find_is_a_dictionary(wanted: list[int], among: list[int], kind: type) -> None:
    wanted += among[::2]
    where = {value: i for i, value in enumerate(among)}
    assert find(np.array(wanted, kind), np.array(among, kind)).tolist() == [where.get(value, -1) for value in wanted]


@QUICK
@given(st.lists(st.integers(0, 5) | IDS, max_size=40))
def test_first_of_each(values: list[int]) -> None:
    expected = [i for i, value in enumerate(values) if value not in values[:i]]
    assert first_of_each(np.array(values, np.int64)).tolist() == expected


@pytest.mark.parametrize(
    "key", [f"{2**62}-1", f"{2**63 - 1}-4", "-1-1", "7-5", "7-0", "7.0-1", "7-1-1", "\u0667-1", ""]
)
def test_keys_that_do_not_fit_are_refused(key: str) -> None:
    with pytest.raises(BadKey, match=r"here"):
        tables.parse_image_key(key, "here")
    assert tables.parse_image_key(f"{MAX_ID}-4", "here") == (MAX_ID, 4)
