"""A raw stream in miniature: tweets of Twitter's API v1.1 that nobody wrote, and the pictures that they point to."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance

from t4sa_data.catalog import CLASSES
from t4sa_data.miniature import draw
from t4sa_data.schema import make_key

FIRST_ID = 758_000_000_000_000_001
"""Odd and beyond 2^53; of July 2016, where the real collection begins."""
ID_STEP = 46_116_860_184
"""Between two tweets' ids: about eleven seconds."""
_GOOD = ("love", "great", "happy", "wonderful", "awesome", "enjoy", "best", "fun", "amazing", "beautiful")
_BAD = ("hate", "awful", "sad", "terrible", "worst", "boring", "angry", "horrible", "ugly", "broken")
_THINGS = ("phone", "movie", "game", "song", "day", "dinner", "trip", "team", "book", "show", "weather", "train")
_EDITS = ("quality", "smaller", "contrast", "png")


@dataclass(kw_only=True)
class RawTweets:
    """What `make_raw_tweets` made, and what a build of it has to find."""

    files: Sequence[Path]
    """Raw tweets."""
    labelled: Path
    """Texts of the same kind with their labels (`t4sa label train`)."""
    labels: Path
    """Probabilities of the tweets, in the layout of the official TSV."""
    images: dict[str, bytes] = field(default_factory=dict)
    """Path on the image host -> bytes."""
    paths: dict[str, str] = field(default_factory=dict)
    """Key of each image of a tweet that is kept -> its path."""
    classes: dict[int, int] = field(default_factory=dict)
    """Id of each tweet that is kept -> its class."""
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of keys, original and edited copy."""
    dropped: dict[int, str] = field(default_factory=dict)
    """Id of each other tweet -> the reason's last words (`retweet`, ...)."""


def make_raw_tweets(
    folder: Path | str, num_tweets: int = 120, *, base_url: str = "http://127.0.0.1:9", seed: int = 0
) -> RawTweets:
    """Make a raw stream in miniature, deterministically.

    Of each ten tweets seven are kept by the published rules; the others are a retweet, a video, too short, of another
    language or without a picture, in turn. One picture in eight is an edited copy of an earlier one. There are notices
    of deletions, a line that is no JSON, and tweets that come twice. Some texts stand in `extended_tweet`. One in seven
    tweets that are kept says this and that: its label is doubtful.

    Args:
        folder: is made; gets `tweets-0.jsonl`, `tweets-1.jsonl.gz`, `labelled.tsv`, `labels.tsv`.
        num_tweets: distinct ones.
        base_url: scheme, host and port of the image host.
        seed: another seed, other texts and pictures.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    files = [folder / "tweets-0.jsonl", folder / "tweets-1.jsonl.gz"]
    made = RawTweets(files=files, labelled=folder / "labelled.tsv", labels=folder / "labels.tsv")
    tweets = [_tweet(made, number, base_url.rstrip("/"), chance) for number in range(num_tweets)]
    half = num_tweets // 2
    first, second = _lines(tweets[:half]), _lines([*tweets[half:], *tweets[:3]])
    files[0].write_bytes(first + b'{"delete": {"status": {"id": 5, "id_str": "5"}}}\n{"id": 7, "text": "cut off he\n')
    files[1].write_bytes(gzip.compress(second, mtime=0))
    rows = [f"{1_000 + i}\t{i % 3}\t{_text(i % 3, chance)}" for i in range(300)]
    made.labelled.write_text("\n".join(["id\tlabel\ttext", *rows]) + "\n")
    _write_labels(made, chance)
    return made


def _is_doubtful(number: int) -> bool:
    """Whether the text of the n-th tweet that is kept says this and that."""
    return number % 7 == 6


def _lines(tweets: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in tweets)


def _text(label: int, chance: random.Random, *, is_mixed: bool = False) -> str:
    one, other = chance.sample(_THINGS, 2)
    if is_mixed:
        return f"the {one} was {chance.choice(_GOOD)} and the {other} {chance.choice(_BAD)}, {chance.randrange(10_000)}"
    if label == 1:
        return f"the {one} begins at {chance.randint(1, 12)} near the {other}, number {chance.randrange(10_000)}"
    words = chance.sample(_GOOD if label == 2 else _BAD, 2)
    return f"the {one} was {words[0]} and the {other} {words[1]}, number {chance.randrange(10_000)}"


def _tweet(made: RawTweets, number: int, base_url: str, chance: random.Random) -> dict[str, Any]:
    tweet_id, label = FIRST_ID + number * ID_STEP, number % 3
    media = [
        _photo(base_url, f"/media/{tweet_id}-{k}.jpg") for k in range(1, 2 + (number % 5 == 4) + (number % 10 == 9))
    ]
    tweet: dict[str, Any] = {
        "created_at": f"{('Tue', 'Wed')[number % 2]} Jul {26 + number % 2} 20:{number % 60:02d}:14 +0000 2016",
        "id": tweet_id,
        "id_str": str(tweet_id),
        "text": _text(label, chance, is_mixed=_is_doubtful(len(made.classes))),
        "lang": "en",
        "user": {"id": 100 + number // 4, "screen_name": "nobody"},
        "entities": {"hashtags": [], "media": media[:1]},
        "extended_entities": {"media": media},
    }
    reason = _spoil(tweet, number)
    if reason:
        made.dropped[tweet_id] = reason
        return tweet
    made.classes[tweet_id] = label
    for k, medium in enumerate(media, 1):
        _picture(made, make_key(tweet_id, k), str(medium["media_url_https"]).removeprefix(base_url), label, chance)
    if number % 20 == 11:  # the whole text stands inside, the outer one is cut
        tweet["extended_tweet"] = {"full_text": tweet["text"], "extended_entities": tweet.pop("extended_entities")}
        tweet["extended_tweet"]["entities"] = tweet.pop("entities")
        tweet |= {"text": tweet["text"][:15] + "…", "truncated": True, "entities": {"hashtags": []}}
    return tweet


def _photo(base_url: str, path: str) -> dict[str, Any]:
    return {"type": "photo", "media_url_https": base_url + path, "url": "https://t.example/x"}


def _spoil(tweet: dict[str, Any], number: int) -> str:
    """Make three tweets in ten break a rule; which."""
    if number % 10 not in (3, 6, 8):
        return ""
    reason = ("retweet", "not-only-photos", "few-words", "not-english", "no-image")[number // 10 % 5]
    if reason == "retweet":
        tweet["retweeted_status"] = {"id": 5}
    elif reason == "not-only-photos":
        tweet["extended_entities"]["media"][0]["type"] = "video"
    elif reason == "few-words":
        tweet["text"] = "four words are few"
    elif reason == "not-english":
        tweet["lang"] = "it"
    else:
        del tweet["extended_entities"], tweet["entities"]["media"]
    return reason


def _picture(made: RawTweets, key: str, path: str, label: int, chance: random.Random) -> None:
    """Draw a tweet's picture, or edit an earlier one of its class."""
    earlier = [one for one in made.paths if made.classes[int(one.split("-")[0])] == label]
    if len(made.paths) % 8 == 7 and earlier:
        original = chance.choice(earlier)
        made.images[path] = _edited(made.images[made.paths[original]], _EDITS[len(made.near_duplicates) % len(_EDITS)])
        made.near_duplicates.append((original, key))
    else:
        made.images[path] = draw(label, chance)
    made.paths[key] = path


def _edited(data: bytes, how: str) -> bytes:
    """The same picture to the eye, other bytes."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    if how == "smaller":
        picture = picture.resize((picture.width * 9 // 10, picture.height * 9 // 10), Image.Resampling.LANCZOS)
    elif how == "contrast":
        picture = ImageEnhance.Contrast(picture).enhance(1.15)
    if how == "png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=70 if how == "quality" else 90)
    return buffer.getvalue()


def _write_labels(made: RawTweets, chance: random.Random) -> None:
    """Confident ones for most tweets, doubtful ones for one in seven."""
    lines = ["\t".join(["TWID", *(name[:3].upper() for name in CLASSES)])]
    for number, (tweet_id, label) in enumerate(made.classes.items()):
        most = 0.6 if _is_doubtful(number) else round(chance.uniform(0.86, 0.99), 6)
        rest = (1 - most) / 2
        lines.append("\t".join([str(tweet_id), *(f"{most if i == label else rest:.12g}" for i in range(3))]))
    made.labels.write_text("\n".join(lines) + "\n")
