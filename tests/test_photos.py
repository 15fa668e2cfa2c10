"""Real photos, in an archive of the official layout, through `prepare`: the same bytes and values from every reader.

The photos lie outside the repository (`../shared/data/photos`); ids, labels, probabilities and texts are made up.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

import t4sa_data
from builders.prepare import prepare
from builders.run import PrepareConfig
from t4sa_data.catalog import OFFICIAL_LISTS, SPLITS
from t4sa_data.pixels import decode_rgb
from t4sa_data.schema import make_key
from t4sa_data.testing import OfficialArchive
from t4sa_data.testing.archive import IMAGES_NAME, SENTIMENT_NAME, TEXT_NAME, member_name, write_tar

from tests.helpers_release import (  # isort: skip
    FLOATS,
    PROBABILITIES,
    Rows,
    assert_pixels,
    assert_sound,
    assert_truth,
    float32,
    read_by_table,
    read_parquet,
    read_tars,
    shards,
    truth_of,
)

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF")
"""What may stand under a .jpg name and be kept; nothing else was ever uploaded to Twitter."""
NUM_FAST = 70
LARGE_BYTES = 700_000

pytestmark = [
    pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"the photos of {PHOTOS.parts[-3]}/data are not here"),
    pytest.mark.usefixtures("alone"),
]


def photos(num: int | None) -> list[Path]:
    """Files to be images, the odd ones first: other formats, modes, rotations, broken ones; then plain photos.

    Args:
        num: how many; None for all, the large ones too.
    """
    found = [path for path in sorted(PHOTOS.rglob("*.*")) if path.suffix not in (".csv", ".md", ".txt")]
    odd = [path for path in found if path.relative_to(PHOTOS).parts[0] in ("pdq", "imagededup", "imagehash")]
    plain = [path for path in found if path not in odd]
    if num is None:
        return odd + plain
    small = [path for path in odd + plain[:: len(plain) // num] if path.stat().st_size < LARGE_BYTES]
    rotated = next(path for path in odd if path.name == "exif-rotn-6.jpg")
    return [rotated, *small][:num]


def is_picture(data: bytes) -> bool:
    """What PIL says of bytes, asked directly."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            known = image.format in FORMATS
            image.load()
            return known
    except Exception:  # whatever a plugin raises, it is no picture
        return False


def make_archive(folder: Path, paths: list[Path]) -> OfficialArchive:
    """The official packages around these files, one to three of them a tweet."""
    rng = random.Random(17)
    images, labels, splits, texts = {}, {}, {}, {}
    probabilities: dict[int, tuple[float, float, float]] = {}
    waiting, tweet_id = list(paths), 760_000_000_000_000_001  # odd: no float has it
    while waiting:
        tweet_id += 2 * rng.randrange(10**9, 10**10)
        label, split = rng.randrange(3), rng.choices(SPLITS, (6, 2, 2))[0]
        rest = rng.uniform(0.001, 0.14)
        others = [rest / 3, rest - rest / 3]
        others.insert(label, 1 - rest)
        probabilities[tweet_id] = tuple(float(f"{p:.12g}") for p in others)  # type: ignore[assignment]
        if rng.random() < 0.95:  # of the others the text is not known
            texts[tweet_id] = f'number {len(texts)}, "quoted",\nand two lines &amp; more \U0001f600'
        for image_index in range(1, 1 + rng.choice((1, 1, 1, 2, 3))):
            if waiting:
                key = make_key(tweet_id, image_index)
                images[key], labels[key], splits[key] = waiting.pop(0).read_bytes(), label, split
    write_tar(folder / IMAGES_NAME, {member_name(key): data for key, data in images.items()})
    for split, name in OFFICIAL_LISTS.items():
        lines = [f"{member_name(key)} {labels[key]}\n" for key in images if splits[key] == split]
        (folder / name).write_text("".join(lines))
    rows = [f"{i}\t" + "\t".join(map(repr, values)) for i, values in probabilities.items()]
    (folder / SENTIMENT_NAME).write_text("\n".join(["TWID\tNEG\tNEU\tPOS", *rows]) + "\n")
    with (folder / TEXT_NAME).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *texts.items()])
    return OfficialArchive(
        folder=folder,
        images=images,
        labels=labels,
        splits=splits,
        probabilities=probabilities,
        texts=texts,
        broken={key: "" for key, data in images.items() if not is_picture(data)},
    )


@pytest.fixture(
    scope="module",
    params=[pytest.param(NUM_FAST, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)],
)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OfficialArchive:
    return make_archive(tmp_path_factory.mktemp("raw"), photos(request.param))


@pytest.fixture(scope="module")
def out(archive: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("out")
    prepare(PrepareConfig(raw=archive.folder, out=made, workers=2, configs=("b-t4sa",), shard_bytes=4_000_000))
    return made


@pytest.fixture(scope="module")
def rows(out: Path) -> Rows:
    """All rows in release order, by pyarrow."""
    return read_parquet(out, "b-t4sa")


def test_pyarrow_tarfile_and_table_agree_with_the_archive(out: Path, rows: Rows, archive: OfficialArchive) -> None:
    expected = truth_of(archive)
    assert len(expected) >= 60
    assert_truth(rows, expected)
    assert read_tars(out, "b-t4sa") == rows
    for folder in ("t4sa", "t4sa-wds"):
        assert read_by_table(out / folder, "b-t4sa") == rows
    for row in rows:
        assert_pixels(row)
    assert_sound(out, deep=False)


def test_quarantined_are_exactly_those_that_pil_cannot_decode(out: Path, rows: Rows, archive: OfficialArchive) -> None:
    assert len(archive.broken) >= 3
    told = [json.loads(line) for line in (out / "quarantine" / "quarantine.jsonl").read_text().splitlines()]
    assert {row["key"] for row in told} == archive.broken.keys()
    for row in told:
        assert (out / "quarantine" / f"{row['key']}.jpg").read_bytes() == archive.images[row["key"]]
    formats = {Image.open(io.BytesIO(row["image"])).format for row in rows}
    assert formats >= {"JPEG", "PNG", "GIF", "WEBP", "TIFF"}  # all of them under the name .jpg


# Each reader: DIR, a split, a folder for its cache -> the rows in its order.


def by_load_dataset(out: Path, split: str, cache: Path, *, streaming: bool) -> Rows:
    import datasets

    loaded = t4sa_data.load_dataset(out, split=split, streaming=streaming, cache_dir=cache)
    made = list(loaded.cast_column("image", datasets.Image(decode=False)))
    return [row | {"image": row["image"]["bytes"]} for row in made]


def by_webdataset_builder(out: Path, split: str, cache: Path, *, streaming: bool) -> Rows:
    import datasets

    files = [str(path) for path in shards(out, "wds", "b-t4sa") if path.name.startswith(split)]
    loaded = datasets.load_dataset(
        "webdataset", data_files={split: files}, split=split, streaming=streaming, cache_dir=str(cache)
    )
    made = list(loaded.cast_column("jpg", datasets.Image(decode=False)))
    return [from_members(row["__key__"], row["jpg"]["bytes"], row["json"], row["cls"]) for row in made]


def by_webdataset(out: Path, split: str, _cache: Path) -> Rows:
    wds = pytest.importorskip("webdataset")
    files = [str(path) for path in shards(out, "wds", "b-t4sa") if path.name.startswith(split)]
    samples = wds.WebDataset(files, shardshuffle=False)
    return [
        from_members(sample["__key__"], sample["jpg"], json.loads(sample["json"]), int(sample["cls"]))
        for sample in samples
    ]


def from_members(key: str, image: bytes, record: Mapping[str, Any], label: int) -> dict[str, Any]:
    assert (record["key"], record["label"]) == (key, label)
    floats = {name: float32(record[name]) for name in FLOATS}
    return dict(record) | floats | {"image": image, "tweet_id": int(record["tweet_id"])}


READERS: dict[str, Callable[[Path, str, Path], Rows]] = {
    "load_dataset": lambda out, split, cache: by_load_dataset(out, split, cache, streaming=False),
    "load_dataset, streaming": lambda out, split, cache: by_load_dataset(out, split, cache, streaming=True),
    "datasets' webdataset": lambda out, split, cache: by_webdataset_builder(out, split, cache, streaming=False),
    "datasets' webdataset, streaming": lambda out, split, cache: by_webdataset_builder(
        out, split, cache, streaming=True
    ),
    "webdataset": by_webdataset,
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files open
@pytest.mark.parametrize("reader", READERS)
def test_other_readers_give_the_same_rows(out: Path, rows: Rows, tmp_path: Path, reader: str) -> None:
    for split in SPLITS:
        expected = [row for row in rows if row["split"] == split]
        assert len(expected) >= 5
        got = READERS[reader](out, split, tmp_path)
        assert [row["key"] for row in got] == [row["key"] for row in expected]
        for one, other in zip(got, expected, strict=True):
            assert one == other, one["key"]


def test_decoded_pixels_are_those_of_the_one_rule(out: Path, rows: Rows, tmp_path: Path) -> None:
    turned = 0
    for streaming in (False, True):
        loaded = t4sa_data.load_dataset(out, streaming=streaming, cache_dir=tmp_path)
        # Decoding all once is enough: a stream is compared in the test split.
        decoded = [row for split in (SPLITS if not streaming else ("test",)) for row in loaded[split]]
        expected = [row for row in rows if not streaming or row["split"] == "test"]
        for row, truth in zip(decoded, expected, strict=True):
            image, rule = row["image"], decode_rgb(truth["image"])
            assert row["key"] == truth["key"] and image.mode == "RGB"
            assert image.size == rule.size == (row["width"], row["height"]), row["key"]
            assert image.tobytes() == rule.tobytes(), row["key"]
            turned += not streaming and is_turned(truth["image"])
    assert turned >= 1


def is_turned(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return image.size != ImageOps.exif_transpose(image).size


def test_probabilities_are_not_rounded_twice(rows: Rows, archive: OfficialArchive) -> None:
    """The truth above is itself right: float32 of the TSV's own decimals."""
    for line in (archive.folder / SENTIMENT_NAME).read_text().splitlines()[1:]:
        tweet_id, *values = line.split("\t")
        for row in rows:
            if row["tweet_id"] == int(tweet_id):
                assert [row[name] for name in PROBABILITIES] == [float32(float(value)) for value in values]
