"""The paper's figure: for every (ground truth, prediction) the most confident pictures; as a PNG and as a page.

Nothing here needs torch. Pictures are read from the release by key. What tweets show may be unpleasant: the page asks
before it shows them, `blur` makes them hard to recognise, and texts are left out unless asked for.
"""

from __future__ import annotations

import base64
import html
import io
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from examples.evaluation import metrics
from examples.evaluation.predictions import label_of, logits_of, probabilities_of
from t4sa_data.catalog import CLASSES
from t4sa_data.files import write_bytes
from t4sa_data.pixels import decode_rgb
from t4sa_data.reading import OpenRelease
from t4sa_data.streaming import Where, select

PICTURE_PX, GAP_PX, PAD_PX, CAPTION_PX = 116, 6, 14, 26
PAGE_PX = 200
"""Side of a picture in the page."""
BLUR_SHARE = 0.06
"""Radius of the blur, of a picture's side."""
COLOURS = {"negative": "#b5403a", "neutral": "#6b7280", "positive": "#2f7d4f"}
INK, PALE, PAPER, RIGHT, WRONG = "#1f2933", "#6b7280", "#ffffff", "#eaf4ee", "#f4f5f7"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of a cell."""

    picture: Image.Image
    probability: float
    """Of the predicted class."""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The samples of a (ground truth, prediction), the most confident first."""

    truth: str | None
    predicted: str
    n: int
    """Of all such samples."""
    shown: Sequence[Shown]


def most_confident(table: pa.Table, num: int) -> dict[tuple[int, int], tuple[int, list[int]]]:
    """For each (ground truth, prediction) the number of rows, and the `num` rows with the largest probability.

    Equal probabilities: the first in release order.
    """
    label, probabilities = label_of(table), probabilities_of(table)
    predicted = metrics.three_way_scores(probabilities, logits_of(table)).argmax(axis=1)
    found = {}
    for truth, answer in np.ndindex(len(CLASSES), len(CLASSES)):
        rows = np.flatnonzero((label == truth) & (predicted == answer))
        order = np.argsort(-probabilities[rows, answer], kind="stable")[:num]
        found[truth, answer] = len(rows), rows[order].tolist()
    return found


def read_cells(
    release: OpenRelease,
    table: pa.Table,
    *,
    config: str = "b-t4sa",
    split: str = "test",
    num: int = 4,
    blur: bool = False,
    texts: bool = False,
) -> list[Cell]:
    """The nine cells of a table of predictions, row by row, with their pictures.

    Args:
        release: that the predictions are of.
        table: columns as `predictions.SCHEMA`.
        config: of the predictions.
        split: of the config.
        num: pictures a cell.
        blur: make them hard to recognise.
        texts: carry the tweets' texts.

    Raises:
        NoRows, ShardError, BadImage: the pictures cannot be read.
    """
    found = most_confident(table, num)
    rows = [row for _, chosen in found.values() for row in chosen]
    keys = table["key"].take(pa.array(rows, pa.int64())).to_pylist()
    pictures, words = _read(release, config, split, keys, texts)
    probabilities = probabilities_of(table)
    cells = []
    for (truth, answer), (n, chosen) in found.items():
        shown = []
        for row in chosen:
            key = table["key"][row].as_py()
            picture = thumbnail(pictures[key], PAGE_PX, blur=blur)
            shown.append(Shown(picture=picture, probability=float(probabilities[row, answer]), text=words[key]))
        cells.append(Cell(truth=CLASSES[truth], predicted=CLASSES[answer], n=n, shown=shown))
    return cells


def _read(
    release: OpenRelease, config: str, split: str, keys: list[str], texts: bool
) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """Pictures and texts by key."""
    selection = select(release, config, split, where=Where(keys=keys), columns=("text",) if texts else ())
    ranges = selection.ranges(np.arange(len(selection)))
    names = selection.keys.to_pylist()
    words = [text or "" for text in selection.extra["text"].to_pylist()] if texts else [""] * len(names)
    source = release.source()
    try:
        source.announce(ranges)
        pictures = {key: decode_rgb(source.read(one)) for key, one in zip(names, ranges, strict=True)}
    finally:
        source.close()
    return pictures, dict(zip(names, words, strict=True))


def thumbnail(picture: Image.Image, side_px: int, *, blur: bool = False) -> Image.Image:
    """The middle of a picture as a square, blurred for good where asked for."""
    small = ImageOps.fit(picture, (side_px, side_px), Image.Resampling.LANCZOS)
    return small.filter(ImageFilter.GaussianBlur(BLUR_SHARE * side_px)) if blur else small


def write_grid(
    cells: Sequence[Cell], path: Path, *, title: str, columns_are: str = "predicted", rows_are: str = "ground\ntruth"
) -> None:
    """The nine cells as one PNG: ground truth down, prediction across.

    Args:
        cells: of `read_cells`.
        path: of the PNG.
        title: above it.
        columns_are: words above them.
        rows_are: words beside them.
    """
    num = max(max((len(cell.shown) for cell in cells), default=1), 1)
    across = int(np.ceil(np.sqrt(num)))
    down = -(-num // across)
    step = PICTURE_PX + GAP_PX
    width, height = across * step - GAP_PX + 2 * PAD_PX, down * step - GAP_PX + CAPTION_PX + 2 * PAD_PX
    left, top = 116, 104
    size = left + len(CLASSES) * (width + GAP_PX) + PAD_PX, top + len(CLASSES) * (height + GAP_PX) + PAD_PX
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((PAD_PX + 6, 16), title, INK, ImageFont.load_default(20))
    draw.text((left, 52), columns_are, PALE, ImageFont.load_default(13))
    draw.text((PAD_PX + 6, top + 6), rows_are, PALE, ImageFont.load_default(13))
    for place, cell in enumerate(cells):
        row, column = divmod(place, len(CLASSES))
        x, y = left + column * (width + GAP_PX), top + row * (height + GAP_PX)
        is_right = cell.truth == cell.predicted
        draw.rounded_rectangle((x, y, x + width - 1, y + height - 1), 6, fill=RIGHT if is_right else WRONG)
        if row == 0:
            draw.text((x, 72), cell.predicted, COLOURS[cell.predicted], ImageFont.load_default(18))
        if column == 0:
            middle = y + height // 2
            words = str(cell.truth)
            draw.text((PAD_PX + 6, middle), words, COLOURS[words], ImageFont.load_default(18), anchor="lm")
        draw.text((x + PAD_PX, y + PAD_PX - 4), _count(cell.n), INK, ImageFont.load_default(13))
        for k, one in enumerate(cell.shown):
            line, place_in_line = divmod(k, across)
            corner = x + PAD_PX + place_in_line * step, y + PAD_PX + CAPTION_PX + line * step
            _paste(sheet, draw, one, corner)
    _save(sheet, path)


def write_rows(cells: Sequence[Cell], path: Path, *, title: str) -> None:
    """A row of pictures for each predicted class, as a PNG.

    Args:
        cells: one for each class, without a ground truth.
        path: of the PNG.
        title: above it.
    """
    across = max(max((len(cell.shown) for cell in cells), default=1), 1)
    step, left, top = PICTURE_PX + GAP_PX, 116, 56
    height = step + 2 * PAD_PX - GAP_PX
    size = left + across * step + PAD_PX, top + len(cells) * (height + GAP_PX) + PAD_PX
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((PAD_PX + 6, 16), title, INK, ImageFont.load_default(20))
    for row, cell in enumerate(cells):
        y = top + row * (height + GAP_PX)
        middle = y + height // 2
        colour = COLOURS.get(cell.predicted, INK)
        draw.text((PAD_PX + 6, middle - 8), cell.predicted, colour, ImageFont.load_default(18), anchor="lm")
        draw.text((PAD_PX + 6, middle + 14), _count(cell.n), PALE, ImageFont.load_default(12), anchor="lm")
        for k, one in enumerate(cell.shown):
            _paste(sheet, draw, one, (left + k * step, y + PAD_PX))
    _save(sheet, path)


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, one: Shown, corner: tuple[int, int]) -> None:
    """A picture with its probability on a small plate in its lower right corner."""
    x, y = corner
    sheet.paste(one.picture.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS), corner)
    words, font = f"{one.probability:.0%}", ImageFont.load_default(11)
    long = int(draw.textlength(words, font))
    right, bottom = x + PICTURE_PX, y + PICTURE_PX
    draw.rectangle((right - long - 8, bottom - 16, right - 1, bottom - 1), fill="#ffffff")
    draw.text((right - long - 4, bottom - 15), words, INK, font)


def _count(num: int) -> str:
    return f"{num:,} picture{'' if num == 1 else 's'}"


def _save(sheet: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    write_bytes(Path(path), buffer.getvalue())


def write_page(cells: Sequence[Cell], path: Path, *, title: str, about: Mapping[str, str] | None = None) -> None:
    """The nine cells as one HTML file that asks before it shows pictures, and asks nothing of any server.

    Args:
        cells: of `read_cells`.
        path: of the page.
        title: of the page.
        about: lines below the title, by name.
    """
    facts = "".join(f"<li>{html.escape(name)}: {html.escape(value)}</li>" for name, value in (about or {}).items())
    head = "".join(f'<th scope="col" class="{name}">{name}</th>' for name in CLASSES)
    rows = ""
    for k, name in enumerate(CLASSES):
        line = "".join(_cell_html(cell) for cell in cells[k * len(CLASSES) : (k + 1) * len(CLASSES)])
        rows += f'<tr><th scope="row" class="{name}">{name}</th>{line}</tr>\n'
    colours = "".join(f"th.{name}{{color:{colour}}}" for name, colour in COLOURS.items())
    text = _PAGE.substitute(title=html.escape(title), facts=facts, head=head, rows=rows, colours=colours, side=PAGE_PX)
    write_bytes(Path(path), text.encode())


def _cell_html(cell: Cell) -> str:
    figures = ""
    for one in cell.shown:
        buffer = io.BytesIO()
        one.picture.save(buffer, "JPEG", quality=82)
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = f"ground truth {cell.truth}, predicted {cell.predicted}"
        text = f"<br>{html.escape(one.text)}" if one.text else ""
        figures += (
            f'<figure><img alt="{alt}" width="{PAGE_PX}" height="{PAGE_PX}" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{one.probability:.1%}{text}</figcaption></figure>"
        )
    kind = "right" if cell.truth == cell.predicted else "wrong"
    return f'<td class="{kind}"><p>{_count(cell.n)}</p><div class="pictures">{figures}</div></td>'


_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>$title</title>
<style>
body{font:15px/1.45 system-ui,sans-serif;color:#1f2933;margin:24px;max-width:1500px}
h1{font-size:22px;margin:0 0 4px} ul{margin:0 0 12px;padding-left:18px;color:#6b7280}
.warning{background:#fff6e5;border:1px solid #e6c27a;border-radius:8px;padding:10px 14px;max-width:760px}
table{border-collapse:separate;border-spacing:6px} th{font-size:17px;text-align:left;padding:4px 8px}
td{vertical-align:top;padding:8px 10px;border-radius:8px} td p{margin:0 0 6px;font-size:13px;color:#6b7280}
td.right{background:#eaf4ee} td.wrong{background:#f4f5f7}
.pictures{display:none;grid-template-columns:repeat(2,minmax(0,${side}px));gap:8px}
#show:checked~table .pictures{display:grid}
figure{margin:0} img{width:100%;height:auto;border-radius:4px;display:block}
figcaption{font-size:12px;color:#6b7280;overflow-wrap:anywhere}
$colours
</style>
</head>
<body>
<h1>$title</h1>
<ul>$facts</ul>
<p class="warning"><strong>Content warning.</strong> Pictures of public tweets, chosen by a network, looked at by
nobody before: they may upset, and they show people who were not asked. Do not publish this page.</p>
<input type="checkbox" id="show"> <label for="show">Show the pictures</label>
<table>
<thead><tr><td>ground truth \\ predicted</td>$head</tr></thead>
<tbody>
$rows</tbody>
</table>
</body>
</html>
""")
