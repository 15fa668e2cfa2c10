"""The official packages in miniature: the same names, layout and quirks as what the site gives."""

from __future__ import annotations

import csv
import io
import random
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from t4sa_data.catalog import OFFICIAL_LISTS
from t4sa_data.miniature import Drawn, draw, encode, make_samples
from t4sa_data.schema import make_key
from t4sa_data.shards.tar import END_MARK, padded, ustar_header

IMAGES_NAME = "b-t4sa_imgs.tar"
SENTIMENT_NAME = "t4sa_text_sentiment.tsv"
TEXT_NAME = "raw_tweets_text.csv"
EXTRA_NAME = "t4sa_more_imgs.tar"


@dataclass(frozen=True, kw_only=True)
class OfficialArchive:
    """What `make_official_archive` made, and what a build of it has to find."""

    folder: Path
    images: Mapping[str, bytes]
    """Key -> bytes of every listed image, the broken ones too."""
    labels: Mapping[str, int]
    splits: Mapping[str, str]
    probabilities: Mapping[int, tuple[float, float, float]]
    """Tweet id -> the TSV's row."""
    texts: Mapping[int, str]
    """Tweet id -> the CSV's row."""
    broken: Mapping[str, str]
    """Key -> the reason its picture is quarantined."""
    near_duplicates: Sequence[tuple[str, str]] = ()
    """Pairs of keys whose pictures differ by a new compression only."""
    extra: Mapping[str, bytes] = field(default_factory=dict)
    """Key -> bytes of the further archive's images, if one was asked for."""


def member_name(key: str) -> str:
    """The path of an image in the official tar.

    >>> member_name("767724493873516544-1")
    'data/76772/767724493873516544-1.jpg'
    """
    return f"data/{key[:5]}/{key}.jpg"


def make_official_archive(
    folder: Path | str,
    num_images: int = 60,
    *,
    seed: int = 0,
    num_broken: int = 4,
    with_text: bool = True,
    lists_inside: bool = False,
    num_extra: int = 0,
) -> OfficialArchive:
    """Make the official packages in miniature, deterministically: drawn pictures of all modes, made-up tweets.

    Writes `b-t4sa_imgs.tar`, the three split lists, `t4sa_text_sentiment.tsv` and `raw_tweets_text.csv`.

    Args:
        folder: is made.
        num_images: listed images, the broken ones among them.
        seed: another seed, other pictures.
        num_broken: listed pictures that do not decode (at most 4: truncated, zero bytes, HTML, 40,000 x 40,000 PNG).
        with_text: write the CSV too.
        lists_inside: put the lists into the tar, not beside it.
        num_extra: images of `t4sa_more_imgs.tar`, a further archive of unlisted tweets; every third of them is a
            near-duplicate of a listed image.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed + 1)
    samples = make_samples(num_images, seed=seed)
    images = {sample.key: sample.image for sample in samples}
    pairs = _plant_near_duplicates(samples, images)
    broken = _break(samples[2 :: max(1, num_images // 5)][:num_broken], images)
    near_duplicates = [pair for pair in pairs if not broken.keys() & set(pair)]
    lists = {split: _list_lines(samples, split) for split in OFFICIAL_LISTS}
    inside = {OFFICIAL_LISTS[s]: t for s, t in lists.items()} if lists_inside else {}
    by_time = sorted(images, key=lambda key: (int(key.split("-")[0]), key))  # the official files are sorted by time
    write_tar(folder / IMAGES_NAME, {**{member_name(key): images[key] for key in by_time}, **inside})
    if not lists_inside:
        for split, text in lists.items():
            (folder / OFFICIAL_LISTS[split]).write_bytes(text)
    extra = _make_extra(samples, images, broken, num_extra, seed)
    if extra:
        write_tar(folder / EXTRA_NAME, {member_name(key): data for key, (data, _) in sorted(extra.items())})
    probabilities = {sample.tweet_id: sample.probabilities for sample in samples}
    probabilities |= {int(key.split("-")[0]): p for key, (_, p) in extra.items()}
    probabilities |= {_unused_id(i): (0.01, 0.03, 0.96) for i in range(3)}  # selected tweets without a listed image
    _write_sentiment(folder / SENTIMENT_NAME, probabilities)
    texts = _texts(samples, probabilities, rng) if with_text else {}
    if with_text:
        _write_texts(folder / TEXT_NAME, texts)
    return OfficialArchive(
        folder=folder,
        images=images,
        labels={s.key: s.label for s in samples},
        probabilities=probabilities,
        splits={s.key: s.split for s in samples},
        texts=texts,
        broken=broken,
        near_duplicates=near_duplicates,
        extra={key: data for key, (data, _) in extra.items()},
    )


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a plain tar: name -> bytes, in this order, after a `data/` folder entry as archivers write it."""
    with path.open("wb") as file:
        folder = tarfile.TarInfo("data/")
        folder.type = tarfile.DIRTYPE
        file.write(folder.tobuf(tarfile.USTAR_FORMAT))
        for name, data in members.items():
            file.write(ustar_header(name, len(data)) + data + bytes(padded(len(data)) - len(data)))
        file.write(END_MARK)


def _plant_near_duplicates(samples: Sequence[Drawn], images: dict[str, bytes]) -> list[tuple[str, str]]:
    """Make one picture in thirty a recompressed copy of an earlier one, half of them over the border of a split."""
    plain = [sample for sample in samples if sample.kind == "rgb"]
    pairs = []
    for number, copy in enumerate(plain[25::30]):
        alike = [s for s in plain[:25] if s.label == copy.label]
        others = [s for s in alike if (s.split == copy.split) == (number % 2 == 0)] or alike
        original = others[number % len(others)]
        with Image.open(io.BytesIO(images[original.key])) as picture:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=70)
        images[copy.key] = buffer.getvalue()
        pairs.append((original.key, copy.key))
    return pairs


def _break(samples: Sequence[Drawn], images: dict[str, bytes]) -> dict[str, str]:
    """Replace these samples' pictures by what broken downloads look like; key -> expected reason."""
    broken = {}
    for number, sample in enumerate(samples):
        bad = {
            "truncated": encode(Image.effect_noise((120, 120), 80).convert("RGB"), "rgb")[:-900],
            "empty": b"",
            "not-an-image": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
            "too-many-pixels": _bomb(),
        }
        reason = list(bad)[number]
        images[sample.key] = bad[reason]
        broken[sample.key] = reason
    return broken


def _bomb() -> bytes:
    """A PNG of a hundred bytes whose header says 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def _list_lines(samples: Sequence[Drawn], split: str) -> bytes:
    return "".join(f"{member_name(s.key)} {s.label}\n" for s in samples if s.split == split).encode()


def _make_extra(
    samples: Sequence[Drawn], images: Mapping[str, bytes], broken: Mapping[str, str], num_extra: int, seed: int
) -> dict[str, tuple[bytes, tuple[float, float, float]]]:
    rng = random.Random(seed + 2)
    sources = [s for s in samples if s.kind == "rgb" and s.key not in broken]
    extra = {}
    for i in range(num_extra):
        label = i % 3
        rest = (1 - 0.9) / 2
        probabilities = tuple(0.9 if j == label else rest for j in range(3))
        if i % 3 == 2:
            with Image.open(io.BytesIO(images[sources[i % len(sources)].key])) as picture:
                buffer = io.BytesIO()
                picture.convert("RGB").save(buffer, "JPEG", quality=75)
            data = buffer.getvalue()
        else:
            data = draw(label, rng)
        extra[make_key(_unused_id(100 + i), 1)] = (data, probabilities)
    return extra  # type: ignore[return-value]


def _unused_id(number: int) -> int:
    return 799_000_000_000_000_000 + number * 1_111_111_111


def _write_sentiment(path: Path, probabilities: Mapping[int, tuple[float, float, float]]) -> None:
    lines = ["TWID\tNEG\tNEU\tPOS"]
    lines += ["\t".join([str(i), *(f"{p:.12g}" for p in probabilities[i])]) for i in sorted(probabilities)]
    path.write_text("\n".join(lines) + "\n")


def _texts(samples: Sequence[Drawn], probabilities: Mapping[int, object], rng: random.Random) -> dict[int, str]:
    """Made-up texts with everything that breaks a hand-written CSV reader, for these tweets and some never selected."""
    texts = {sample.tweet_id: sample.text for sample in samples}
    texts |= {tweet_id: "made-up words, five of them" for tweet_id in probabilities if tweet_id not in texts}
    quirks = (
        'RT @example_user: she said "hello", twice...',
        "two lines\nof text, really &amp; truly",
        "caf\u00e9 \U0001f600, ok",
        "'single' \"double\" ,,, commas",
        "tab\there and \\u2019 there",
    )
    for number, tweet_id in enumerate(sorted(texts)):
        if number % 7 == 3:
            texts[tweet_id] = quirks[number // 7 % len(quirks)]
    return texts | {_unused_id(1000 + i): f"never selected, number {rng.randrange(100)}" for i in range(20)}


def _write_texts(path: Path, texts: Mapping[int, str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
        writer.writerow(["id", "text"])
        writer.writerows((tweet_id, texts[tweet_id]) for tweet_id in sorted(texts))
