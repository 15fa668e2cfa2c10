"""Pictures and tweets made on the spot: faces whose mouth and colour follow the label, in every format that occurs.

Nothing here is anybody's: pictures are drawn, texts are put together from a few words. Deterministic for one version of
Pillow. `testing` makes archives and releases of them, `load_dataset("t4sa", "miniature")` a dataset.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from t4sa_data.catalog import CLASSES
from t4sa_data.schema import make_key

_FIRST_ID = 757_000_000_000_000_000  # July 2016 as a snowflake id, the first month of the collection
_STEP = 1_234_567_891_011
_WORDS = {
    "negative": ("what a gloomy day", "this is so sad", "nothing works today", "awful, just awful"),
    "neutral": ("the meeting is at noon", "a picture of a wall", "bus 12 leaves at five", "here is the schedule"),
    "positive": ("what a wonderful day", "so happy right now", "best trip of my life", "love this so much"),
}
_COLOURS = {"negative": (70, 90, 150), "neutral": (150, 150, 150), "positive": (245, 200, 60)}
KINDS = ("rgb", "grey", "cmyk", "progressive", "rotated", "palette-png", "animated-gif", "webp", "rgba-png")
"""What a drawn picture may be; the first is by far the most frequent, as in life."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One made-up sample."""

    key: str
    tweet_id: int
    image_index: int
    label: int
    split: str
    probabilities: tuple[float, float, float]
    """Sum to 1 in double precision, as the official TSV's do."""
    text: str
    kind: str
    """One of `KINDS`."""
    image: bytes


def draw(label: int, rng: random.Random, kind: str = "rgb") -> bytes:
    """A face of the label's mood, 72 to 160 pixels a side, encoded as `kind` says.

    Args:
        label: 0 negative (mouth down, blue), 1 neutral (flat, grey), 2 positive (mouth up, yellow).
        rng: its only source of chance.
        kind: one of `KINDS`.
    """
    width, height = rng.randrange(72, 160), rng.randrange(72, 160)
    image = Image.new("RGB", (width, height), tuple(rng.randrange(40, 220) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):  # a background that tells pictures apart
        x, y, r = rng.randrange(width), rng.randrange(height), rng.randrange(4, 30)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.randrange(256) for _ in range(3)))
    face = min(width, height) * rng.uniform(0.3, 0.45)
    centre = width / 2 + rng.uniform(-0.1, 0.1) * width, height / 2 + rng.uniform(-0.1, 0.1) * height
    _draw_face(pen, centre, face, label, rng)
    return encode(image, kind)


def _draw_face(pen: ImageDraw.ImageDraw, centre: tuple[float, float], r: float, label: int, rng: random.Random) -> None:
    x, y = centre
    base = _COLOURS[CLASSES[label]]
    pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(min(255, max(0, c + rng.randrange(-25, 26))) for c in base))
    for side in (-0.4, 0.4):
        pen.ellipse((x + side * r - 4, y - 0.4 * r - 4, x + side * r + 4, y - 0.4 * r + 4), fill=(20, 20, 20))
    mouth = {0: (200, 340), 2: (20, 160)}.get(label)
    if mouth:
        top = y if label == 2 else y + 0.3 * r
        pen.arc((x - 0.5 * r, top - 0.2 * r, x + 0.5 * r, top + 0.5 * r), *mouth, fill=(20, 20, 20), width=4)
    else:
        pen.line((x - 0.5 * r, y + 0.4 * r, x + 0.5 * r, y + 0.4 * r), fill=(20, 20, 20), width=4)


def encode(image: Image.Image, kind: str) -> bytes:
    """Encode an RGB picture as one of `KINDS`."""
    buffer = io.BytesIO()
    if kind == "animated-gif":
        frames = [image.quantize(32), image.rotate(90).resize(image.size).quantize(32)]
        frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    elif kind == "palette-png":
        image.quantize(32).save(buffer, "PNG")
    elif kind == "rgba-png":
        image.convert("RGBA").save(buffer, "PNG")
    elif kind == "webp":
        image.save(buffer, "WEBP", quality=80)
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # Orientation: shown after a quarter turn
        image.rotate(90, expand=True).save(buffer, "JPEG", quality=90, exif=exif)
    else:
        mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        image.convert(mode).save(buffer, "JPEG", quality=90, progressive=kind == "progressive")
    return buffer.getvalue()


def make_samples(num_samples: int, *, seed: int = 0) -> list[Drawn]:
    """`num_samples` made-up samples, classes in turn, about 78 / 11 / 11 % of them train / validation / test.

    About a fifth of the tweets have two or three images; every ninth picture is of an unusual kind.

    Args:
        num_samples: at least 1.
        seed: another seed, other pictures.
    """
    rng = random.Random(seed)
    made: list[Drawn] = []
    tweet = 0
    while len(made) < num_samples:
        tweet_id = _FIRST_ID + tweet * _STEP + rng.randrange(_STEP)
        label = tweet % len(CLASSES)
        split = ("train",) * 7 + ("validation", "test")
        of_tweet = split[tweet // len(CLASSES) % 9]
        confidence = round(rng.uniform(0.85, 0.999), 12)
        rest = (1 - confidence) * rng.random()
        others = [rest, 1 - confidence - rest]
        others.insert(label, confidence)
        negative, neutral, positive = others
        words = rng.choice(_WORDS[CLASSES[label]])
        text = f"{words}, number {tweet} & more https://t.co/example{tweet}"
        for image_index in range(1, 1 + (1 if rng.random() < 0.8 else rng.randrange(2, 4))):
            if len(made) < num_samples:
                kind = KINDS[1 + len(made) // 9 % (len(KINDS) - 1)] if len(made) % 9 == 8 else KINDS[0]
                made.append(
                    Drawn(
                        key=make_key(tweet_id, image_index),
                        tweet_id=tweet_id,
                        image_index=image_index,
                        label=label,
                        split=of_tweet,
                        probabilities=(negative, neutral, positive),
                        text=text,
                        kind=kind,
                        image=draw(label, rng, kind),
                    )
                )
        tweet += 1
    return made
