"""Sheets of near-duplicates: the pairs are real ones at their distance, the page is whole, bad pictures are shown."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from builders import dedup, sheets


def made_rows(num: int = 400, seed: int = 0) -> sheets.Rows:
    """Hashes around 40 centres, up to 12 bits away; some equal."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, 40, dtype=np.uint64)[rng.integers(0, 40, num)]
    for _ in range(6):
        hashes ^= (np.uint64(1) << rng.integers(0, 64, num, dtype=np.uint64)) * rng.integers(0, 2, num).astype(
            np.uint64
        )
    order = rng.permutation(num)
    return sheets.Rows(
        tweet_id=order + 1000, image_index=np.ones(num, np.int8), phash=hashes, group=dedup.group(hashes, 6)
    )


def picture(row: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 100), (row % 256, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def test_pairs_are_at_their_distance_and_others_than_before() -> None:
    rows = made_rows()
    found = sheets.pairs_at(rows, range(8), num=5, seed=3)
    assert list(found) == list(range(8))
    for bits, pairs in found.items():
        assert len(set(pairs)) == len(pairs) <= 5
        assert all(rows.bits(a, b) == bits and a != b for a, b in pairs)
    assert len(found[6]) == len(found[4]) == 5
    assert sheets.pairs_at(rows, range(8), num=5, seed=4) != found
    order = np.random.default_rng(1).permutation(len(rows.phash))
    moved = sheets.Rows(
        tweet_id=rows.tweet_id[order], image_index=rows.image_index[order], phash=rows.phash[order], group=order
    )

    def keys(rows: sheets.Rows, pairs: list[tuple[int, int]]) -> list[set[str]]:
        return [{rows.key(row) for row in pair} for pair in pairs]

    again = sheets.pairs_at(moved, range(8), num=5, seed=3)
    assert all(keys(moved, again[bits]) == keys(rows, found[bits]) for bits in range(8))


def test_a_small_set_is_seen_whole_and_a_large_one_within_its_budget() -> None:
    rows = made_rows(60)
    unique = np.unique(rows.phash)
    bits = np.bitwise_count(unique[:, None] ^ unique[None, :])
    found = sheets.pairs_at(rows, [8], num=10**6, seed=0)[8]
    has_pair = (bits == 8).any(axis=1)
    assert {int(rows.phash[row]) for pair in found for row in pair} == set(unique[has_pair].tolist())
    assert len(sheets.pairs_at(rows, [8], num=10**6, seed=0, max_comparisons=3 * len(unique))[8]) <= 3
    none = np.zeros(0, np.int64)
    empty = sheets.Rows(tweet_id=none, image_index=none.astype(np.int8), phash=none.astype(np.uint64), group=none)
    assert sheets.pairs_at(empty, [8], num=3, seed=0) == {8: []}


def test_the_page_stands_alone_and_old_sheets_go(tmp_path: Path) -> None:
    rows = made_rows()
    largest = int(np.bincount(rows.group).argmax())

    def read(row: int) -> bytes:
        if row == largest:
            raise FileNotFoundError
        return b"no picture" if row % 7 == 0 else picture(row)

    folder = tmp_path / "build" / sheets.FOLDER_NAME
    folder.mkdir(parents=True)
    (folder / "group-1-1.jpg").write_bytes(b"old")
    page = sheets.write_sheets(folder, rows, read, distance=6, num_groups=3, num_pairs=4)
    text = page.read_text()
    shown = set(re.findall(r'src="([^"]+)"', text))
    assert shown == {path.name for path in folder.glob("*.jpg")}
    assert "http" not in text
    assert "Not for publishing" in text
    assert f"group-{rows.key(largest)}.jpg" in shown
    assert min(name for name in shown if name.startswith("pairs")) == "pairs-03-bits.jpg"
    sheet = Image.open(folder / f"group-{rows.key(largest)}.jpg").convert("RGB")
    corner = sheets.GAP_PX + 3
    assert all(abs(a - b) < 8 for a, b in zip(sheet.getpixel((corner, corner)), (229, 231, 235), strict=True))
    assert sheet.width == sheets.COLUMNS * (sheets.THUMB_PX + sheets.GAP_PX) + sheets.GAP_PX
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sheets.write_sheets(folder, rows, read, distance=6, num_groups=3, num_pairs=4)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_sheet_shows_the_pictures_it_names() -> None:
    data = sheets.draw(
        sheets.Sheet(name="x.jpg", title="", rows=[255, 0], captions=["a\nb", "c\nd"]), lambda row: picture(row)
    )
    sheet = Image.open(io.BytesIO(data)).convert("RGB")
    middle = sheets.GAP_PX + sheets.THUMB_PX // 2
    for place, red in enumerate((255, 0)):
        found = sheet.getpixel((middle + place * (sheets.THUMB_PX + sheets.GAP_PX), middle))
        assert abs(found[0] - red) < 12
        assert found[2] > 240
