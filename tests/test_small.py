"""`b-t4sa-256`: the small picture, and the layer that `prepare` makes of it."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import small
from builders.report import as_text
from t4sa_data.errors import BadImage, ConfigUnavailable
from t4sa_data.manifest import load_manifest
from t4sa_data.pixels import decode_rgb, inspect_image
from t4sa_data.testing import OfficialArchive

# isort: split
from tests.helpers_release import (
    RELEASE_FOLDERS,
    assert_pixels,
    assert_sound,
    build,
    differences,
    digests,
    layer_truth,
    ledger_of,
    read_by_table,
    read_parquet,
    read_tars,
    report_of,
)

LAYER = "b-t4sa-256"
OF_THE_PICTURE = ("image", "sha256", "width", "height", "phash")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(picture: Image.Image, **choices: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **choices)
    return buffer.getvalue()


# The picture.


@pytest.mark.parametrize(
    ("before", "after"),
    [((600, 400), (384, 256)), ((400, 600), (256, 384)), ((256, 700), (256, 700)), ((90, 60), (90, 60))],
)
def test_short_side_is_256_and_nothing_grows(before: tuple[int, int], after: tuple[int, int]) -> None:
    made = decode_rgb(small.make_small(jpeg(noise(*before), quality=90)))
    assert made.size == after


def test_it_is_the_antialiased_resize_within_jpeg_error() -> None:
    """A pattern finer than the new pixels becomes its mean: whoever picks single pixels gets stripes."""
    stripes = Image.fromarray(np.tile(np.uint8([[0, 255]]), (1024, 512)).repeat(3).reshape(1024, 1024, 3))
    made = np.asarray(decode_rgb(small.make_small(jpeg(stripes, quality=100, subsampling=0))), dtype=np.int64)
    assert made.shape == (256, 256, 3) and np.abs(made[4:-4, 4:-4] - 128).max() < 12


def test_rotation_is_applied_and_no_metadata_is_left() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010E] = "somewhere, someone"
    original = jpeg(noise(600, 400), exif=exif, comment=b"secret words", icc_profile=b"profile" * 30, dpi=(72, 72))
    data = small.make_small(original)
    with Image.open(io.BytesIO(data)) as made:
        assert made.size == (256, 384) and made.mode == "RGB"
        assert set(made.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not made.getexif()
    assert not any(words in data for words in (b"someone", b"secret", b"profile", b"Exif"))
    assert data == small.make_small(original)


def test_noise_does_not_burst_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "MAXBLOCK", 65536)  # whatever an earlier picture made of it
    picture = noise(1500, 256)
    assert decode_rgb(small.encode(picture, quality=95, subsampling="4:4:4")).size == picture.size


def test_a_strip_fits_into_a_jpeg() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 80_000)).save(buffer, "PNG")
    assert decode_rgb(small.make_small(buffer.getvalue())).size == (246, 65_500)
    with pytest.raises(BadImage):
        small.make_small(b"no picture")


# The layer.


@pytest.fixture(scope="module")
def alone_256(archive: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config built alone. Not to be changed by a test."""
    out = tmp_path_factory.mktemp("small")
    build(archive, out, configs=(LAYER,))
    return out


def test_rows_are_those_of_b_t4sa_but_for_the_picture(alone_256: Path, built: Path, archive: OfficialArchive) -> None:
    originals = read_parquet(built, "b-t4sa")
    truth = layer_truth(archive, "b-t4sa")
    for rows in (
        read_parquet(alone_256, LAYER),
        read_tars(alone_256, LAYER),
        read_by_table(alone_256 / "t4sa", LAYER),
        read_by_table(alone_256 / "t4sa-wds", LAYER),
    ):
        assert [row["key"] for row in rows] == [row["key"] for row in originals]
        for row, original in zip(rows, originals, strict=True):
            assert {k: v for k, v in row.items() if k not in OF_THE_PICTURE} == {
                k: v for k, v in original.items() if k not in OF_THE_PICTURE
            }
            assert row["image"] == small.make_small(truth[row["key"]]["image"])
            assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()
            assert row["phash"] == inspect_image(row["image"]).phash
            assert_pixels(row)


def test_counts_ledger_and_state(alone_256: Path, archive: OfficialArchive) -> None:
    assert_sound(alone_256)
    manifest = load_manifest(alone_256 / "t4sa")
    assert manifest.configs == [LAYER]
    layer = manifest.layers[LAYER]
    assert layer.provenance["settings"]["small"]["quality"] == small.QUALITY
    assert {"pillow", "libjpeg-turbo"} <= set(manifest.toolchain)
    listed = {split: list(archive.splits.values()).count(split) for split in layer.splits}
    assert {split: entry.listed for split, entry in layer.splits.items()} == listed
    assert sum(len(entry.quarantined) for entry in layer.splits.values()) == len(archive.broken)
    images = [row for row in ledger_of(alone_256) if row["kind"] == "image"]
    assert sorted(row["key"] for row in images) == sorted(archive.images)  # each once
    assert {row["layer"] for row in images if row["reason"] is None} == {LAYER}
    funnel = report_of(alone_256)["funnel"]["image"]
    assert funnel["candidates"] == sum(funnel["kept"].values()) + sum(funnel["dropped"].values())
    assert not list((alone_256 / "build" / "state").glob("small-*")), "small pictures were left behind"


def test_both_configs_from_one_pass(alone_256: Path, built: Path, archive: OfficialArchive, tmp_path: Path) -> None:
    outcome = build(archive, tmp_path, configs=("b-t4sa", LAYER), workers=2)
    assert_sound(tmp_path)
    for layer, other in ((LAYER, alone_256), ("b-t4sa", built)):
        names = [f"{folder}/{layer}" for folder in ("t4sa", "t4sa-wds")]
        assert differences(digests(tmp_path, *names), digests(other, *names)) == [], layer
    funnel = outcome.report.funnel
    assert sum(funnel["small image"]["kept"].values()) == funnel["small image"]["candidates"]
    assert sum(funnel["small image"]["kept"].values()) == sum(funnel["image"]["kept"].values())
    assert "small images: " in as_text(outcome.report)


def test_it_joins_a_release_and_leaves_again(built: Path, alone_256: Path, archive: OfficialArchive, tmp_path) -> None:
    shutil.copytree(alone_256, tmp_path, dirs_exist_ok=True)
    build(archive, tmp_path, configs=("b-t4sa",))
    assert_sound(tmp_path)
    assert load_manifest(tmp_path / "t4sa").configs == ["b-t4sa", LAYER]
    assert differences(digests(tmp_path, f"t4sa/{LAYER}"), digests(alone_256, f"t4sa/{LAYER}")) == []
    assert LAYER not in load_manifest(built / "t4sa").configs, "it is built for who asks for it"


def test_some_splits_and_a_limit(archive: OfficialArchive, alone_256: Path, tmp_path: Path) -> None:
    outcome = build(archive, tmp_path / "test", configs=(LAYER,), splits=("test",))
    assert_sound(tmp_path / "test")
    everything = [row for row in read_parquet(alone_256, LAYER) if row["split"] == "test"]
    rows = read_parquet(tmp_path / "test", LAYER)
    assert rows and [row["image"] for row in rows] == [row["image"] for row in everything]
    assert [row["key"] for row in rows] == [row["key"] for row in everything]
    assert outcome.report.funnel["image"]["dropped"]["splits/not-asked-for"] > 0
    build(archive, tmp_path / "limit", configs=(LAYER,), limit=20)
    assert_sound(tmp_path / "limit")
    assert len(read_parquet(tmp_path / "limit", LAYER)) + len(report_of(tmp_path / "limit")["quarantined"]) == 20


def test_there_is_none_in_place(archive: OfficialArchive, tmp_path: Path) -> None:
    with pytest.raises(ConfigUnavailable, match="in place"):
        build(archive, tmp_path, configs=(LAYER,), in_place=True)
    assert not (archive.folder / "t4sa-inplace").exists()


def test_load_dataset_reads_it(alone_256: Path, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4SA_HOME", str(alone_256))
    from t4sa_data import load_dataset

    loaded = load_dataset("t4sa", LAYER, split="test", streaming=True)
    rows = [row for row in read_parquet(alone_256, LAYER) if row["split"] == "test"]
    assert [row["key"] for row in loaded] == [row["key"] for row in rows]
    assert [row["image"].size for row in loaded] == [(row["width"], row["height"]) for row in rows]


def test_the_release_folders_are_as_ever(alone_256: Path) -> None:
    assert {path.name for path in alone_256.iterdir()} == {*RELEASE_FOLDERS, "build"}
