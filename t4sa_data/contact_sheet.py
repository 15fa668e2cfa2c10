"""A sheet of pictures of a split, with labels: because people want to look."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from t4sa_data import catalog, plan
from t4sa_data.catalog import CLASSES
from t4sa_data.files import write_bytes
from t4sa_data.pixels import decode_rgb
from t4sa_data.reading import open_release
from t4sa_data.streaming.selection import Selection, select
from t4sa_data.streaming.where import Where

if TYPE_CHECKING:
    from t4sa_data.reading import Source

CELL_PX, GAP_PX, MARGIN_PX, CAPTION_PX, TITLE_PX = 176, 12, 24, 22, 44
TEXT_PX = 34
"""Two lines of a tweet's text below the caption."""
BLUR_PX = 12
COLOURS = {"negative": "#b5403a", "neutral": "#6b7280", "positive": "#2f7d4f"}
_INK, _PALE, _PAPER = "#1f2933", "#6b7280", "#ffffff"


def contact_sheet(
    path: Path,
    out: Path,
    *,
    config: str = catalog.DEFAULT_CONFIG,
    split: str = "train",
    num: int = 48,
    seed: int = 0,
    blur: bool = False,
    texts: bool = False,
) -> int:
    """Write a PNG of pictures drawn at random, as many of each class as there are.

    Args:
        path: of a release, as for `stream`.
        out: the PNG.
        config: an image config.
        split: of the config.
        num: pictures.
        seed: another seed, other pictures.
        blur: make them hard to recognise: these are tweets.
        texts: the first words of each tweet below its picture.

    Returns:
        How many pictures there are on it.

    Raises:
        ReleaseNotFound, UnknownConfig, BadImage, ShardError: no such pictures.
        OutputError: `out` cannot be written.
    """
    release = open_release(path)
    selection = select(release, config, split, where=Where(), columns=("confidence", "text"))
    rows = _draw(selection, num, seed)
    num_columns = max(1, round((len(rows) * 1.6) ** 0.5))
    cell_height = CELL_PX + CAPTION_PX + (TEXT_PX if texts else 0) + GAP_PX
    num_lines = -(-len(rows) // num_columns)
    width = 2 * MARGIN_PX + num_columns * (CELL_PX + GAP_PX) - GAP_PX
    sheet = Image.new("RGB", (width, 2 * MARGIN_PX + TITLE_PX + num_lines * cell_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    title = f"{config} / {split}"
    draw.text((MARGIN_PX, MARGIN_PX), title, _INK, ImageFont.load_default(22))
    words = f"{len(rows)} of {len(selection):,} pictures, drawn with seed {seed}{', blurred' if blur else ''}"
    title_px = int(draw.textlength(title, ImageFont.load_default(22)))
    draw.text((MARGIN_PX + title_px + 16, MARGIN_PX + 8), words, _PALE, ImageFont.load_default(13))
    source = release.source()
    try:
        for place, row in enumerate(rows):
            line, column = divmod(place, num_columns)
            corner = MARGIN_PX + column * (CELL_PX + GAP_PX), MARGIN_PX + TITLE_PX + line * cell_height
            _cell(sheet, draw, corner, source, selection, row, blur=blur, texts=texts)
    finally:
        source.close()
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    write_bytes(Path(out), buffer.getvalue())
    return len(rows)


def _draw(selection: Selection, num: int, seed: int) -> list[int]:
    """Rows of the selection: the classes in turn, each in the order of its hashes."""
    hashes = plan.sample_hash(selection.positions, seed=seed, epoch=0, purpose=plan.ORDER)
    rank = np.empty(len(selection), dtype=np.int64)
    for label in range(len(selection.classes)):
        rows = np.flatnonzero(selection.label == label)
        rank[rows[np.argsort(hashes[rows])]] = np.arange(len(rows))
    return [int(row) for row in np.lexsort((selection.label, rank))[:num]]


def _cell(
    sheet: Image.Image,
    draw: Any,
    corner: tuple[int, int],
    source: Source,
    selection: Selection,
    row: int,
    *,
    blur: bool,
    texts: bool,
) -> None:
    """One picture, whole, in the middle of its cell, its class and confidence below."""
    left, top = corner
    picture = ImageOps.contain(decode_rgb(source.read(selection.ranges(np.array([row]))[0])), (CELL_PX, CELL_PX))
    picture = picture.filter(ImageFilter.GaussianBlur(BLUR_PX)) if blur else picture
    draw.rectangle((left, top, left + CELL_PX - 1, top + CELL_PX - 1), fill="#f3f4f6")
    sheet.paste(picture, (left + (CELL_PX - picture.width) // 2, top + (CELL_PX - picture.height) // 2))
    name = CLASSES[int(selection.label[row])]
    y = top + CELL_PX
    draw.rectangle((left, y, left + CELL_PX - 1, y + 3), fill=COLOURS[name])
    draw.text((left, y + 7), name, COLOURS[name], ImageFont.load_default(13))
    confidence = selection.extra["confidence"][row].as_py()
    if confidence is not None:
        words, font = f"{confidence:.2f}", ImageFont.load_default(12)
        draw.text((left + CELL_PX - draw.textlength(words, font), y + 8), words, _PALE, font)
    if texts:
        font = ImageFont.load_default(11)
        lines = _lines(draw, selection.extra["text"][row].as_py() or "", font)
        draw.text((left, y + CAPTION_PX + 3), "\n".join(lines), _PALE, font, spacing=2)


def _lines(draw: Any, text: str, font: Any, most: int = 2) -> list[str]:
    """The first words of a text, as lines that fit a cell; what is cut ends in an ellipsis."""
    # The built-in face has Latin letters only: others become a box, so that nothing is guessed.
    words, lines = text.encode("latin-1", "replace").decode("latin-1").split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= CELL_PX or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
        if len(lines) > most:
            lines = [*lines[: most - 1], f"{lines[most - 1]} ..."]
            break
    while lines and draw.textlength(lines[-1], font) > CELL_PX:
        lines[-1] = f"{lines[-1].removesuffix('...').rstrip()[:-1]}..."
    return lines
