"""What the benchmarks share: official-layout inputs of any size, made by streaming; the machine in words; medians.

Nothing is downloaded. Pictures are real photos where a folder of them is at hand, drawn ones elsewhere; tweets are
made up. Every image differs from every other in its bytes: a JPEG comment carries its number.
"""

from __future__ import annotations

import io
import os
import platform
import random
import statistics
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
"""Where photos are looked for: a folder beside the checkout."""
PHOTO_BYTES = range(30_000, 400_000)
"""Sizes of photos that are taken; the mean of the official images is about 134 KB."""
LIBRARIES = ("t4sa-data", "pillow", "numpy", "pyarrow", "datasets", "webdataset", "numba")

_FIRST_ID = 757_000_000_000_000_000  # July 2016, the first month of the collection
_STEP = 17_000_000_000  # 3.4 million ids reach to December 2016
_SPLITS = ("train",) * 7 + ("validation", "test")  # 78 / 11 / 11 %, as B-T4SA
_WORDS = ("today", "the", "we", "went", "rain", "photo", "sunset", "coffee", "never", "again", "best", "city", "game")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of an input and what the official files say of it."""

    key: str
    split: str
    """`train`, `validation` or `test`."""
    label: int
    probabilities: tuple[float, float, float]
    text: str
    image: bytes


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The same picture with a COM segment behind its APP segments: other bytes, equal pixels.

    >>> with_comment(b"\\xff\\xd8\\xff\\xe0\\x00\\x02rest", b"7")
    b'\\xff\\xd8\\xff\\xe0\\x00\\x02\\xff\\xfe\\x00\\x037rest'
    """
    at = 2
    while jpeg[at] == 0xFF and 0xE0 <= jpeg[at + 1] <= 0xEF:
        at += 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
    return jpeg[:at] + b"\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment + jpeg[at:]


@cache
def load_photos(folder: Path) -> list[bytes]:
    """The JPEGs below `folder` that decode and are neither tiny nor huge, in the order of their names; may be empty."""
    from t4sa_data.errors import BadImage
    from t4sa_data.pixels import inspect_image

    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg") and path.stat().st_size in PHOTO_BYTES:
            data = path.read_bytes()
            try:
                if data.startswith(b"\xff\xd8\xff") and inspect_image(data).format == "JPEG":
                    found.append(data)
            except BadImage:
                continue
    return found


def draw_jpeg(seed: int, width: int, height: int, *, cells: int = 8, quality: int = 85) -> bytes:
    """A picture of coloured clouds, another for each seed.

    Args:
        seed: at least 0.
        width: pixels.
        height: pixels.
        cells: colours on each side before they are blended: more make a larger file.
        quality: JPEG's.
    """
    import numpy as np
    from PIL import Image

    colours = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def photo_images(num: int, folder: Path) -> tuple[Iterator[bytes], str]:
    """`num` images of about 110 KB, and a line that says what they are.

    Args:
        num: how many.
        folder: of photos, repeated in turn; drawn pictures where it holds none.
    """
    templates, what = load_photos(folder), "photos"
    if not templates:
        templates, what = [draw_jpeg(seed, 500, 375, cells=150, quality=95) for seed in range(64)], "drawn pictures"
    mean = sum(map(len, templates)) / len(templates)
    line = f"{len(templates)} {what}, {mean / 1e3:.0f} KB on average, repeated with a comment of their own"
    return (with_comment(templates[i % len(templates)], b"%d" % i) for i in range(num)), line


def tiny_images(num: int) -> Iterator[bytes]:
    """`num` drawn images of about 1.3 KB; one in twenty shows again what an earlier one showed."""
    for i in range(num):
        yield with_comment(draw_jpeg(i // 2 if i % 20 == 19 else i, 48, 48, quality=75), b"%d" % i)


def write_official(folder: Path, images: Iterable[bytes], num: int, num_tweets: int, num_texts: int) -> None:
    """Write an input as the site gives it: tar, split lists, TSV, CSV. Streams: memory does not grow.

    Args:
        folder: is made.
        images: `num` of them.
        num: listed images, one a tweet.
        num_tweets: rows of the TSV, at least `num`.
        num_texts: rows of the CSV, at least `num_tweets`.
    """
    from t4sa_data.catalog import CSV_HEADER, OFFICIAL_LISTS, TSV_HEADER
    from t4sa_data.testing.archive import IMAGES_NAME, SENTIMENT_NAME, TEXT_NAME, member_name

    folder.mkdir(parents=True)
    lists: dict[str, list[str]] = {split: [] for split in OFFICIAL_LISTS}

    def members() -> Iterator[tuple[str, bytes]]:
        for sample in make_samples(images, num, num_tweets, num_texts):
            lists[sample.split].append(f"{member_name(sample.key)} {sample.label}\n")
            yield member_name(sample.key), sample.image

    _write_tar(folder / IMAGES_NAME, members())
    for split, name in OFFICIAL_LISTS.items():
        (folder / name).write_text("".join(lists[split]))
    with (folder / SENTIMENT_NAME).open("w") as file:
        file.write("\t".join(TSV_HEADER) + "\n")
        for tweet in range(num_tweets):
            values = "\t".join(f"{p:.12g}" for p in _probabilities(tweet))
            file.write(f"{_tweet_id(tweet, num_tweets, num_texts)}\t{values}\n")
    with (folder / TEXT_NAME).open("w") as file:
        file.write(",".join(CSV_HEADER) + "\n")
        for row in range(num_texts):
            file.write(f'{_FIRST_ID + row * _STEP},"{_text(row)}"\n')


def _write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    from t4sa_data.shards.tar import END_MARK, padded, ustar_header

    with path.open("wb", buffering=1 << 20) as file:
        for name, data in members:
            file.write(ustar_header(name, len(data)) + data + bytes(padded(len(data)) - len(data)))
        file.write(END_MARK)


def make_samples(images: Iterable[bytes], num: int, num_tweets: int, num_texts: int) -> Iterator[Sample]:
    """The samples that `write_official` writes, in the archive's order."""
    for i, image in enumerate(images):
        tweet = i * num_tweets // num
        yield Sample(
            key=f"{_tweet_id(tweet, num_tweets, num_texts)}-1",
            split=_SPLITS[i % 9],
            label=tweet % 3,
            probabilities=_probabilities(tweet),
            text=_text(tweet * num_texts // num_tweets),
            image=image,
        )


def _tweet_id(tweet: int, num_tweets: int, num_texts: int) -> int:
    return _FIRST_ID + tweet * num_texts // num_tweets * _STEP


def _probabilities(tweet: int) -> tuple[float, float, float]:
    largest = 0.86 + tweet % 13_999 * 1e-5
    rest = (1 - largest) / 2
    first, second, third = (largest if cls == tweet % 3 else rest for cls in range(3))
    return first, second, third


def _sentences() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(_WORDS, k=10)) for _ in range(997)]


_SENTENCES = _sentences()


def _text(row: int) -> str:
    """About 120 characters, another text for each row; commas, and a retweet now and then."""
    start = "RT @example_user: " if row % 50 == 7 else ""
    return f"{start}{_SENTENCES[row % 997]}, {_SENTENCES[row * 7 // 997 % 997]} {row}"


def describe_machine(libraries: Sequence[str] = LIBRARIES) -> str:
    """Cores, processor, memory, Python and library versions, in Markdown."""
    found = []
    for name in libraries:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    cores = num_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"Machine: {cores} cores, {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}{load}; "
        f"Python {platform.python_version()}; {', '.join(found)}."
    )


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the least and the largest in brackets.

    >>> spread([3.0, 1.0, 2.0])
    '2.00 (1.00-3.00)'
    """
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, numbers' columns (all but the first) to the right."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])
