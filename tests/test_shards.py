"""Tar and Parquet shards: what is written, what is read back, and what a damaged file is called."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t4sa_data.errors import ArchiveError, BadHeader, ShardError, TruncatedArchive
from t4sa_data.files import atomic_file
from t4sa_data.miniature import make_samples
from t4sa_data.schema import RECORD, SAMPLE, TABLE, from_json, make_key, to_json
from t4sa_data.shards import (
    GrowingWalk,
    ParquetShardWriter,
    RangeReader,
    TarShardWriter,
    image_spans,
    layer_sidecars,
    read_table,
    samples,
    tar_index,
    ustar_header,
    walk,
    write_table,
)
from t4sa_data.shards import parquet as parquet_module
from t4sa_data.shards.tar import BLOCK, END_MARK, MEMBERS, padded, plain_file
from t4sa_data.testing.releases import record_table

SAMPLES = make_samples(12, seed=5)
ROWS = record_table(SAMPLES).to_pylist()


def write_shard(path: Path, rows: list[dict] = ROWS) -> TarShardWriter:
    with atomic_file(path) as sink:
        writer = TarShardWriter(sink)
        for row, sample in zip(rows, SAMPLES, strict=False):
            writer.write(row["key"], sample.image, to_json(row), row["label"])
        writer.close()
    return writer


def build(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], fmt: int = tarfile.GNU_FORMAT) -> bytes:
    with tarfile.open(path, "w", format=fmt) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


# Tar: headers.
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100).map(
    lambda name: name.strip("/") or "x"
)


@settings(max_examples=50, deadline=None)
@given(name=names, length=st.integers(0, (8 << 30) - 1))
def test_ustar_header_is_what_tarfile_writes(name: str, length: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = length, 0o644
    assert ustar_header(name, length) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "length"), [("x" * 101, 1), ("ä" * 51, 1), ("x", 8 << 30), ("x", -1)])
def test_ustar_header_refuses_what_does_not_fit(name: str, length: int) -> None:
    with pytest.raises(ArchiveError, match="does not fit a ustar header"):
        ustar_header(name, length)


# Tar: walking any archive.
READ_BYTES = [*range(100), *range(124, 136), *range(148, 157), *range(257, 265), *range(345, 500)]
"""Of a header: name, size, checksum, type, magic, prefix. Of the others only the sum is looked at."""


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.text(st.sampled_from("ab/.\u00e9"), max_size=30),
    st.integers(0, 2**33 - 1),
    st.lists(st.tuples(st.sampled_from(READ_BYTES), st.integers(0, 255)), max_size=3),
    st.booleans(),
)
def test_the_quick_reading_of_a_header_is_that_of_tarfile(
    name: str, length: int, changes: list[tuple[int, int]], is_valid: bool
) -> None:
    header = bytearray(ustar_header(name, length))
    for at, value in changes:
        header[at] = value
    if is_valid:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    found = plain_file(bytes(header))
    if not changes:
        assert found == (name, length)
    if found is not None:
        info = tarfile.TarInfo.frombuf(bytes(header), "utf-8", "surrogateescape")
        assert found == (info.name, info.size) and info.isreg()


def odd_members() -> list[tuple[tarfile.TarInfo, bytes]]:
    def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        return info, data

    return [
        member("data/", kind=tarfile.DIRTYPE),
        member("data/short.jpg", b"x"),
        member("data/empty.jpg"),
        member("data/" + "long/" * 60 + "name.jpg", b"y" * 513),
        member("data/caf\u00e9 \U0001f600.jpg", b"z" * 512),
        member("data/" + "\u00fc" * 150 + ".jpg", b"u" * 1025),
        member("data/link.jpg", kind=tarfile.SYMTYPE, link="t/" * 120 + "arget.jpg"),
        member("data/hard.jpg", kind=tarfile.LNKTYPE, link="data/short.jpg"),
        member("data/pipe", kind=tarfile.FIFOTYPE),
        member("data/last.jpg", bytes(range(256)) * 5),
    ]


@pytest.mark.parametrize("fmt", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_walk_sees_what_tarfile_sees(tmp_path: Path, fmt: int) -> None:
    path = tmp_path / "odd.tar"
    data = build(path, odd_members(), fmt)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.isreg(), m.offset, m.offset_data, m.size) for m in tar]
    found = list(walk(path))
    assert [(m.name.rstrip("/"), m.kind == "file", m.header_offset, m.offset, m.length) for m in found] == expected
    assert [m.kind for m in found] == ["folder", *["file"] * 5, "symlink", "hardlink", "fifo", "file"]
    assert data[found[-1].offset : found[-1].end].rstrip(b"\0") == odd_members()[-1][1].rstrip(b"\0")


def test_walk_takes_a_pax_size(tmp_path: Path) -> None:
    """What tarfile writes for 8 GiB and more, here for a small member: the record's size counts, not the header's."""
    data = b"12 size=700\n"
    header = tarfile.TarInfo("./PaxHeaders/big")
    header.type, header.size = tarfile.XHDTYPE, len(data)
    parts = [header.tobuf(tarfile.USTAR_FORMAT), data.ljust(BLOCK, b"\0"), ustar_header("big.jpg", 0)]
    path = tmp_path / "big.tar"
    path.write_bytes(b"".join(parts) + bytes(padded(700)) + ustar_header("next.jpg", 0) + END_MARK)
    assert [(m.name, m.length, m.header_offset) for m in walk(path)] == [("big.jpg", 700, 0), ("next.jpg", 0, 2560)]


@pytest.fixture(scope="module")
def odd_tar(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, int]:
    """An archive with every kind of header, its bytes, and where its end mark ends."""
    path = tmp_path_factory.mktemp("odd") / "odd.tar"
    data = build(path, odd_members(), tarfile.GNU_FORMAT)
    with path.with_name("pax.tar").open("wb") as file:
        pax = build(Path(file.name), odd_members(), tarfile.PAX_FORMAT)
    end = list(walk(path))[-1].end
    path.write_bytes(joined := data[:end] + pax)
    return path, joined, list(walk(path))[-1].end + len(END_MARK)


@settings(max_examples=60, deadline=None)
@given(part=st.floats(0, 1))
def test_a_cut_archive_is_never_a_short_one(odd_tar: tuple[Path, bytes, int], part: float) -> None:
    path, data, end = odd_tar
    cut = round(part * (len(data) - 1))
    _check_cut(path.with_name("cut.tar"), path, data, end, cut)


def test_an_archive_cut_at_each_block_bound_and_beside(odd_tar: tuple[Path, bytes, int]) -> None:
    path, data, end = odd_tar
    for bound, shift in itertools.product(range(0, end + BLOCK, BLOCK), (-1, 0, 1)):
        if 0 <= bound + shift < len(data):
            _check_cut(path.with_name("cut2.tar"), path, data, end, bound + shift)


def _check_cut(cut_path: Path, path: Path, data: bytes, end: int, cut: int) -> None:
    cut_path.write_bytes(data[:cut])
    if cut >= end:  # only padding behind the end mark is gone
        assert list(walk(cut_path)) == list(walk(path))
        return
    found = []
    with pytest.raises(TruncatedArchive, match="the archive ends early") as caught:
        found.extend(walk(cut_path))
        found.extend(_never())
    good = []
    with pytest.raises(TruncatedArchive):
        for member in walk(cut_path):
            good.append(member)
    assert good == list(walk(path))[: len(good)]  # what came before is right
    last = f"last good member: {good[-1].name if good else 'none'}"
    assert " ".join(last.split()) in str(caught.value)


def _never() -> list:
    raise AssertionError("a cut archive was read to its end")


@settings(max_examples=50, deadline=None)
@given(where=st.integers(0, 7), byte=st.integers(0, BLOCK - 1), change=st.integers(1, 255))
def test_a_corrupted_header_is_named(tmp_path_factory, where: int, byte: int, change: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    data = bytearray(b"".join(ustar_header(f"{i}.jpg", 3) + b"abc".ljust(BLOCK, b"\0") for i in range(8)) + END_MARK)
    position = where * 2 * BLOCK + byte
    data[position] ^= change
    path = folder / "corrupted.tar"
    path.write_bytes(data)
    whole = [f"{i}.jpg" for i in range(8)]
    good: list[str] = []
    try:
        good.extend(member.name for member in walk(path))
    except BadHeader as error:
        assert f"byte {where * 2 * BLOCK};" in str(error) and "Traceback" not in str(error)
    else:
        # A checksum is a sum: its own padding may change without harm, and nothing else.
        assert good == whole and 148 <= byte < 156


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", TruncatedArchive, "0 bytes of a header"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>".ljust(2048), BadHeader, "a web page"),
        (b"\x1f\x8b\x08" + bytes(2000), BadHeader, "not a tar header"),
        (bytes(BLOCK), TruncatedArchive, "half an end mark"),
    ],
)
def test_what_is_no_tar(tmp_path: Path, data: bytes, error: type[Exception], words: str) -> None:
    path = tmp_path / "no.tar"
    path.write_bytes(data)
    with pytest.raises(error, match=words) as caught:
        list(walk(path))
    assert str(path) in str(caught.value)


def test_a_pax_header_that_does_not_parse(tmp_path: Path) -> None:
    for number, body in enumerate((b"99 path=x\n"[:8], b"nonsense", b"0 path=x\n", b"3 \n")):
        header = tarfile.TarInfo("./PaxHeaders/x")
        header.type, header.size = tarfile.XHDTYPE, len(body)
        path = tmp_path / f"{number}.tar"
        path.write_bytes(
            header.tobuf(tarfile.USTAR_FORMAT) + body.ljust(BLOCK, b"\0") + ustar_header("x", 0) + END_MARK
        )
        with pytest.raises(BadHeader, match="pax record"):
            list(walk(path))


# Tar: our shards.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_tar_shard_is_read_alike_by_us_tarfile_and_webdataset(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    path = tmp_path / "train-00000-of-00001.tar"
    writer = write_shard(path)
    data = path.read_bytes()
    for (key, members), sample, offset in zip(samples(path), SAMPLES, writer.offsets, strict=True):
        assert key == sample.key and list(members) == list(MEMBERS) and members[".jpg"].offset == offset
        assert data[offset : offset + len(sample.image)] == sample.image
    with tarfile.open(path) as tar:
        assert [m.name for m in tar] == [f"{s.key}{suffix}" for s in SAMPLES for suffix in MEMBERS]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.type) for m in tar} == {(0, 0, 0, 0o644, "", b"0")}
    read = list(wds.WebDataset(str(path), shardshuffle=False))
    assert [(r["__key__"], r["jpg"], int(r["cls"])) for r in read] == [(s.key, s.image, s.label) for s in SAMPLES]
    read_rows = pa.Table.from_pylist([from_json(r["json"]) for r in read], schema=RECORD)
    assert read_rows.equals(pa.Table.from_pylist(ROWS, schema=RECORD))
    # A sample's slice and an end mark are a tar of their own.
    start, end = writer.sample_offsets[3:5]
    with tarfile.open(fileobj=io.BytesIO(data[start:end] + END_MARK)) as tar:
        assert tar.getnames() == [f"{SAMPLES[3].key}{suffix}" for suffix in MEMBERS]


def test_tar_index_and_sidecars(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    writer = write_shard(path)
    index = np.frombuffer(tar_index(writer.sample_offsets), "<u8")
    assert index.tolist() == writer.sample_offsets and len(index) == len(SAMPLES) + 1
    assert path.stat().st_size == index[-1] + len(END_MARK)
    made = layer_sidecars({"train": {"train-0.tar": 3, "train-1.tar": 2}, "validation": {"validation-0.tar": 1}})
    assert made["sizes.json"] == b'{\n "train-0.tar": 3,\n "train-1.tar": 2,\n "validation-0.tar": 1\n}\n'
    assert (
        b'"num_samples": 5' in made["_info.json"] and b"  val:\n  - validation-0.tar\n" in made[".nv-meta/split.yaml"]
    )


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([".json", ".jpg", ".cls"], "got 1-1.json"),
        ([".jpg", ".cls", ".json"], "got 1-1.cls"),
        ([".jpg", ".json"], "the last sample lacks members"),
        ([".jpg", ".json", ".cls", ".jpg"], "the last sample lacks members"),
        ([".jpg", ".x.json", ".cls"], "got 1-1.x.json"),
    ],
)
def test_samples_refuses_other_orders(tmp_path: Path, members: list[str], words: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"".join(ustar_header(f"1-1{m}", 0) for m in members) + END_MARK)
    with pytest.raises(ArchiveError, match=words):
        list(samples(path))


# Parquet.
def parquet_shard(path: Path, images: list[bytes]) -> pa.Table:
    rows = [{**ROWS[i % len(ROWS)], "key": make_key(i + 1, 1), "tweet_id": i + 1} for i in range(len(images))]
    records = pa.Table.from_pylist(rows, schema=RECORD)
    with atomic_file(path) as sink:
        writer = ParquetShardWriter(sink, records)
        for image in images:
            writer.write(image)
        writer.close()
    return records


def check_spans(path: Path, images: list[bytes]) -> None:
    offsets, lengths = image_spans(path)
    data = path.read_bytes()
    assert [data[o : o + n] for o, n in zip(offsets, lengths, strict=True)] == images


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_image_spans_find_the_bytes_that_pyarrow_reads(tmp_path_factory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "spans.parquet"
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 5, 300, 70_000, 400_000, 1_300_000]), max_size=8))
    rng = np.random.default_rng(len(sizes))
    images = [rng.bytes(size) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_module, "ROW_GROUP_BYTES", data.draw(st.sampled_from([1, 500_000, 1 << 30])))
        patch.setattr(parquet_module, "ROW_GROUP_ROWS", data.draw(st.sampled_from([1, 3, 4096])))
        records = parquet_shard(path, images)
    check_spans(path, images)
    table = pq.read_table(path, partitioning=None)
    assert table.schema.equals(SAMPLE)
    assert [row["bytes"] for row in table["image"].to_pylist()] == images
    assert table.select(RECORD.names).equals(records)


def test_image_spans_over_many_pages_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module, "ROW_GROUP_ROWS", 700)
    rng = np.random.default_rng(0)
    images = [rng.bytes(int(size)) for size in rng.integers(0, 6000, 2000)]
    parquet_shard(path := tmp_path / "x.parquet", images)
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    check_spans(path, images)


def test_image_spans_refuses_what_a_range_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet_shard(path, [s.image for s in SAMPLES])
    table = pq.read_table(path, partitioning=None)
    for number, options in enumerate(({"compression": "snappy"}, {"compression": "none", "use_dictionary": True})):
        other = tmp_path / f"{number}.parquet"
        pq.write_table(table, other, **options)
        with pytest.raises(ShardError, match="not addressable"):
            image_spans(other)
    images = table["image"].to_pylist()
    images[1] = {"bytes": None, "path": None}
    nulls = tmp_path / "nulls.parquet"
    plain = {"compression": "none", "use_dictionary": False}
    pq.write_table(table.set_column(0, "image", pa.array(images, SAMPLE.field("image").type)), nulls, **plain)
    with pytest.raises(ShardError, match="does not add up"):
        image_spans(nulls)
    pq.write_table(table, path, data_page_version="2.0", **plain)
    with pytest.raises(ShardError, match="PLAIN data pages"):
        image_spans(path)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar")
        parquet_shard(tmp_path / f"{name}.parquet", [s.image for s in SAMPLES])
    for suffix in ("tar", "parquet"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


# The record as JSON.
floats = st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False))


@settings(max_examples=50, deadline=None)
@given(
    probabilities=st.tuples(floats, floats, floats, floats),
    text=st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))),
    tweet_id=st.integers(0, 2**63 - 1),
    label=st.integers(0, 2),
)
def test_json_round_trip_is_exact(probabilities: tuple, text: str | None, tweet_id: int, label: int) -> None:
    row = {**ROWS[0], "text": text, "tweet_id": tweet_id, "label": label}
    row |= dict(zip(("negative", "neutral", "positive", "confidence"), probabilities, strict=True))
    read = from_json(to_json(row))
    got = pa.Table.from_pylist([read], schema=RECORD)
    expected = pa.Table.from_pylist([row], schema=RECORD)
    assert got.equals(expected)
    for column in ("negative", "neutral", "positive", "confidence"):
        assert (row[column] is None) == (read[column] is None)
        if row[column] is not None:
            assert np.float32(read[column]).tobytes() == np.float32(row[column]).tobytes()


@pytest.mark.parametrize("data", [b"{}", b"[]", b"nothing", b'{"label": 1}'])
def test_json_that_is_no_record(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"columns|Expecting"):
        from_json(data)


# The sample table.
def make_table(path: Path, num_rows: int = 5) -> pa.Table:
    rows = [{**row, "file": "x.tar", "offset": 3 * i, "length": 3} for i, row in enumerate(ROWS[:num_rows])]
    table = pa.Table.from_pylist(rows, schema=TABLE)
    with atomic_file(path) as sink:
        write_table(sink, table)
    return table


def test_sample_table_round_trip(tmp_path: Path) -> None:
    table = make_table(tmp_path / "index.parquet")
    assert read_table(tmp_path / "index.parquet").equals(table)
    assert read_table(tmp_path / "index.parquet", ["length", "key"]).schema.names == ["length", "key"]
    assert make_table(tmp_path / "empty.parquet", 0).equals(read_table(tmp_path / "empty.parquet"))


def test_sample_table_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    for data in (b"", b"PAR1", b"no parquet at all"):
        path.write_bytes(data)
        with pytest.raises(ShardError, match="cannot be read"):
            read_table(path)
    with pytest.raises(ShardError, match="cannot be read"):
        read_table(tmp_path / "absent")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ShardError, match="not a sample table"):
        read_table(path)


def test_ranges(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with RangeReader(tmp_path) as reader:
        reader.will_need("a", 3, 5)
        assert reader.read("a", 3, 5) == bytes(range(3, 8)) and reader.read("a", 100, 0) == b""
        with pytest.raises(ShardError, match="past the end of its file: expected 5 bytes, got 2"):
            reader.read("a", 98, 5)
        with pytest.raises(ShardError, match="missing"):
            reader.read("b", 0, 1)


def test_a_growing_archive_is_walked_as_it_comes(tmp_path: Path) -> None:
    path, grown = tmp_path / "whole.tar", tmp_path / "grown.tar"
    data = build(path, odd_members())
    members = list(walk(path))
    walked = GrowingWalk(grown)
    for end in [*range(0, members[-1].end, 700), members[-1].end]:  # behind it: the end mark
        grown.write_bytes(data[:end])
        walked.advance()
        assert walked.num_members == sum(member.end <= end for member in members)
    with pytest.raises(TruncatedArchive):
        walked.finish()
    grown.write_bytes(data)
    assert walked.finish() == walked.finish() == len(members)
    grown.write_bytes(data[: members[3].header_offset] + b"x" * BLOCK)
    with pytest.raises(BadHeader):
        GrowingWalk(grown).advance()
