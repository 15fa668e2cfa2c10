"""Picture sheets to judge the near-duplicate cut by: the largest groups, and pairs around the threshold.

They lie in `DIR/build/duplicates/` and are never published: they show pictures without asking anybody.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from builders.dedup import NEAR_DUPLICATE_BITS
from builders.keys import SHEETS, Ints, key_hash
from t4sa_data.errors import T4SAError
from t4sa_data.files import write_bytes
from t4sa_data.pixels import decode_rgb
from t4sa_data.plan import mix64
from t4sa_data.schema import make_key

FOLDER_NAME = "duplicates"
THUMB_PX, GAP_PX, CAPTION_PX, COLUMNS = 160, 10, 32, 8
AROUND = 3
"""Pairs are shown from so many bits below the threshold to so many above."""
MAX_COMPARISONS = 4_000_000_000
"""Hashes compared in search of pairs: ten to twenty seconds."""
_INK, _PALE, _PAPER = "#1f2933", "#6b7280", "#ffffff"

Read = Callable[[int], bytes]
Pairs = dict[int, list[tuple[int, int]]]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What sheets are made of; all of shape (n,)."""

    tweet_id: Ints
    image_index: npt.NDArray[np.int8]
    phash: npt.NDArray[np.uint64]
    group: Ints
    """From `builders.dedup`: position of the group's first member."""

    def key(self, row: int) -> str:
        """Its key as text."""
        return make_key(int(self.tweet_id[row]), int(self.image_index[row]))

    def bits(self, row: int, other: int) -> int:
        """Distance of two rows."""
        return int(self.phash[row] ^ self.phash[other]).bit_count()


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One picture of pictures."""

    name: str
    title: str
    rows: list[int]
    captions: list[str]
    """Two lines for each."""
    columns: int = COLUMNS


def write_sheets(
    folder: Path,
    rows: Rows,
    read: Read,
    *,
    distance: int = NEAR_DUPLICATE_BITS,
    seed: int = 0,
    num_groups: int = 12,
    num_pairs: int = 12,
    num_members: int = 24,
) -> Path:
    """Write `folder/index.html` and its sheets; what an earlier call left there goes.

    Args:
        folder: is made.
        rows: of the images, in any order.
        read: the bytes of a row's image.
        distance: the threshold, bits.
        seed: of the pairs, and of the members of large groups.
        num_groups: largest groups shown.
        num_pairs: pairs shown at each distance.
        num_members: pictures shown of a group: its first member, the farthest from it, and some others.

    Returns:
        The page.

    Raises:
        OutputError: the folder cannot be written.
    """
    sizes = np.bincount(rows.group, minlength=1)
    largest = [int(i) for i in np.argsort(-sizes, kind="stable")[:num_groups] if sizes[i] > 1]
    groups = [_group_sheet(rows, one, int(sizes[one]), num_members, seed) for one in largest]
    wanted = range(max(0, distance - AROUND), distance + AROUND + 1)
    pairs = pairs_at(rows, wanted, num=num_pairs, seed=seed)
    around = [_pair_sheet(rows, bits, pairs[bits], distance) for bits in wanted]
    sheets = [*groups, *(sheet for sheet in around if sheet.rows)]
    for sheet in sheets:
        write_bytes(folder / sheet.name, draw(sheet, read))
    page = folder / "index.html"
    write_bytes(page, _page(rows, sizes, groups, around, distance, seed).encode())
    for old in set(folder.glob("*.jpg")) - {folder / sheet.name for sheet in sheets}:
        old.unlink()
    return page


def pairs_at(
    rows: Rows, distances: Iterable[int], *, num: int, seed: int, max_comparisons: int = MAX_COMPARISONS
) -> Pairs:
    """Random pairs at each distance, without looking at all pairs.

    Rows are asked in the order of their hash of (seed, key), one for each different perceptual hash, until there are
    `num` pairs at every distance or `max_comparisons` are spent; one pair a row and distance at most, so that a picture
    that everybody posts does not fill a sheet. Small sets are seen whole: a distance with fewer pairs has no more.

    Args:
        rows: of the images.
        distances: bits.
        num: pairs wanted at each.
        seed: any integer.
        max_comparisons: pairs of hashes.

    Returns:
        Distance -> pairs of positions.
    """
    made: Pairs = {bits: [] for bits in distances}
    if len(rows.phash) == 0:
        return made
    # By key, so that the same rows are taken whatever order they came in.
    order = np.lexsort((rows.image_index, rows.tweet_id, rows.phash))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(rows.phash[order]) != 0]))
    first, sizes = order[starts], np.diff(starts, append=len(order))
    distinct = rows.phash[first]
    hashes = key_hash(rows.tweet_id[first], rows.image_index[first], seed=seed, purpose=SHEETS)
    asked = np.argsort(hashes)
    if 0 in made:
        made[0] = [(int(first[i]), int(order[starts[i] + 1])) for i in asked if sizes[i] > 1][:num]
    seen: set[tuple[int, int]] = set()
    open_bits = [bits for bits in made if bits > 0]
    for one in asked[: max(1, max_comparisons // len(distinct))]:
        if not open_bits:
            break
        bits_to = np.bitwise_count(distinct ^ distinct[one])
        near = np.flatnonzero((bits_to >= min(open_bits)) & (bits_to <= max(open_bits)))
        by_chance = near[np.argsort(mix64(hashes[near] ^ hashes[one]))]
        for bits in list(open_bits):
            found = by_chance[bits_to[by_chance] == bits]
            pair = (int(min(one, found[0])), int(max(one, found[0]))) if len(found) else None
            if pair is None or pair in seen:
                continue
            seen.add(pair)
            made[bits].append((int(first[pair[0]]), int(first[pair[1]])))
            if len(made[bits]) == num:
                open_bits.remove(bits)
    return made


def _group_sheet(rows: Rows, group: int, size: int, num: int, seed: int) -> Sheet:
    others = np.setdiff1d(np.flatnonzero(rows.group == group), [group])
    bits = np.bitwise_count(rows.phash[others] ^ rows.phash[group]).astype(np.int64)
    by_chance = key_hash(rows.tweet_id[others], rows.image_index[others], seed=seed, purpose=SHEETS)
    farthest = np.lexsort((by_chance, -bits))[: num // 2]
    rest = np.setdiff1d(np.arange(len(others)), farthest)
    rest = rest[np.argsort(by_chance[rest])][: num - 1 - len(farthest)]
    shown = np.concatenate([farthest, rest])
    shown = shown[np.lexsort((by_chance[shown], bits[shown]))]
    members = [group, *(int(row) for row in others[shown])]
    title = f"{size:,} pictures, {len(members)} shown; farthest from the first: {int(bits.max())} bits"
    said = ["the first", *(f"{rows.bits(group, row)} bits from the first" for row in members[1:])]
    captions = [f"{rows.key(row)}\n{words}" for row, words in zip(members, said, strict=True)]
    return Sheet(name=f"group-{rows.key(group)}.jpg", title=title, rows=members, captions=captions)


def _pair_sheet(rows: Rows, bits: int, pairs: Sequence[tuple[int, int]], distance: int) -> Sheet:
    said = "near-duplicates" if bits <= distance else "beyond the cut"
    joined = sum(bool(rows.group[a] == rows.group[b]) for a, b in pairs)
    return Sheet(
        name=f"pairs-{bits:02d}-bits.jpg",
        title=f"{bits} bits: {said}. {len(pairs)} pairs, {joined} in one group",
        rows=[row for pair in pairs for row in pair],
        captions=[f"{rows.key(row)}\n{bits} bits apart" for pair in pairs for row in pair],
    )


def draw(sheet: Sheet, read: Read) -> bytes:
    """A sheet as JPEG: pictures whole in their cells, key and caption below; what does not decode is a grey cell."""
    height = THUMB_PX + CAPTION_PX + GAP_PX
    lines = -(-len(sheet.rows) // sheet.columns)
    width = min(sheet.columns, len(sheet.rows)) * (THUMB_PX + GAP_PX) + GAP_PX
    canvas = Image.new("RGB", (width, lines * height + GAP_PX), _PAPER)
    pen = ImageDraw.Draw(canvas)
    for place, (row, caption) in enumerate(zip(sheet.rows, sheet.captions, strict=True)):
        line, column = divmod(place, sheet.columns)
        left, top = GAP_PX + column * (THUMB_PX + GAP_PX), GAP_PX + line * height
        pen.rectangle((left, top, left + THUMB_PX - 1, top + THUMB_PX - 1), fill="#e5e7eb")
        try:
            picture = ImageOps.contain(decode_rgb(read(row)), (THUMB_PX, THUMB_PX))
            canvas.paste(picture, (left + (THUMB_PX - picture.width) // 2, top + (THUMB_PX - picture.height) // 2))
        except (T4SAError, OSError) as error:
            words = f"does not decode:\n{getattr(error, 'reason', type(error).__name__)}"
            pen.text((left + 8, top + THUMB_PX // 2 - 14), words, "#b5403a", ImageFont.load_default(12))
        key, _, words = caption.partition("\n")
        pen.text((left, top + THUMB_PX + 2), key, _INK, ImageFont.load_default(11))
        pen.text((left, top + THUMB_PX + 16), words, _PALE, ImageFont.load_default(11))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _page(
    rows: Rows, sizes: Ints, groups: Sequence[Sheet], around: Sequence[Sheet], distance: int, seed: int
) -> str:  # fmt: skip
    many = int((sizes > 1).sum())
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Near-duplicates</title><style>',
        "body{font:15px/1.5 sans-serif;max-width:1420px;margin:2em auto;padding:0 1em;color:#1f2933}",
        "img{max-width:100%;border:1px solid #e5e7eb}h2{margin-top:2em}h3{font-weight:normal}</style></head><body>",
        "<h1>Near-duplicates: is the cut right?</h1>",
        "<p><strong>Not for publishing.</strong> It shows people's pictures, for whoever has to judge the cut.</p>",
        f"<p>{len(rows.group):,} pictures; two are near-duplicates where their 64-bit hashes differ in at most "
        f"{distance} bits. {many:,} groups of two and more hold {int(sizes[sizes > 1].sum()):,} pictures; of these "
        f"{int((sizes[sizes > 1] - 1).sum()):,} are dropped as duplicates.</p>",
        f"<h2>Pairs around {distance} bits</h2><p>Drawn by chance (seed {seed}), one for a picture at each distance. "
        "Pairs that are the same picture above the cut, or are not below it, say that it stands wrong. A pHash has "
        "32 bits set, or nearly so: odd distances are rare.</p>",
        *(_section(sheet) for sheet in around),
        "<h2>Largest groups</h2><p>Groups are chains of near-duplicates: the farthest members tell whether a chain has "
        "led astray.</p>",
        *(_section(sheet) for sheet in groups),
        "</body></html>\n",
    ]
    return "\n".join(lines)


def _section(sheet: Sheet) -> str:
    if not sheet.rows:
        return f"<h3>{html.escape(sheet.title)}</h3>"
    name, title = html.escape(sheet.name), html.escape(sheet.title)
    return f'<h3>{title}</h3><img loading="lazy" src="{name}" alt="{title}">'
