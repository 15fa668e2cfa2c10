"""The funnel as a figure: SVG written by hand, equal bytes for equal counts.

One column from top to bottom: boxes say what is left, the lines between them are stages, what left there stands at the
right with a bar as long as its share of what came in. What was set aside has a box of its own, the splits stand in the
end. Every number is text: it can be read out, searched and copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from builders.ledger.funnel import Funnel, Step
from t4sa_data.card.collection import AFTER

WIDTH_PX = 800
_LEFT, _BOX, _BOX_HEIGHT = 24, 316, 40
_SIDE, _BAR_LEFT, _BAR, _LINE_HEIGHT = 376, 666, 110, 20
_GAP = 30
"""Least height between two boxes, in px."""
_NOUNS = {"tweet": ("tweet", "tweets"), "image": ("image", "images"), "small image": ("small image", "small images")}
_STYLE = """\
text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',Arial,sans-serif;font-size:13px;fill:#1d2733}
.big{font-size:16px;font-weight:600}.head{font-size:17px;font-weight:700}.soft{fill:#5a6675;font-size:12px}
.num{text-anchor:end}.drop{fill:#8c2f10}.mid{text-anchor:middle}
.box{fill:#eaf2fb;stroke:#4a78a8}.end{fill:#e6f4ea;stroke:#3c8a54}.aside{fill:#fbf4e0;stroke:#b08a2e}
.bar{fill:#e9b8a4}.rail{fill:none;stroke:#7f8ea0;stroke-width:1.5}.tip{fill:#7f8ea0}"""


class _Canvas:
    """Lines of SVG, and how far down they are."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.y = 20

    def text(self, x: float, y: float, words: str, name: str = "") -> None:
        """A line of text whose foot is at y."""
        kind = f' class="{name}"' if name else ""
        self.lines.append(f'<text x="{x:g}" y="{y:g}"{kind}>{escape(words)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, name: str, radius: int = 6) -> None:
        """A box."""
        self.lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" class="{name}"/>'
        )

    def path(self, where: str, name: str = "rail") -> None:
        """A line."""
        self.lines.append(f'<path d="{where}" class="{name}"/>')

    def arrow(self, x: float, top: float, bottom: float) -> None:
        """A line down, with its tip."""
        self.path(f"M{x:g} {top:g}V{bottom - 6:g}")
        self.path(f"M{x - 5:g} {bottom - 7:g}h10l-5 7z", "tip")


def figure(funnels: Sequence[Funnel], *, title: str = "How the candidates of this build went") -> str:
    """The figure of a build.

    Args:
        funnels: of its kinds of candidates.
        title: read out in place of the figure, with the sums.

    Returns:
        an `<svg>` element, to be inlined or, with nothing added, a file.
    """
    canvas = _Canvas()
    for funnel in funnels:
        _lane(canvas, funnel)
    height = canvas.y + 4
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" width="{WIDTH_PX}" '
        f'height="{height}" role="img" aria-labelledby="funnel-title funnel-desc">',
        f'<title id="funnel-title">{escape(title)}</title>',
        f'<desc id="funnel-desc">{escape(in_words(funnels))}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH_PX}" height="{height}" fill="#ffffff"/>',
    ]
    return "\n".join([*head, *canvas.lines, "</svg>"]) + "\n"


def in_words(funnels: Sequence[Funnel]) -> str:
    """The same in sentences, for who does not see it."""
    sentences = []
    for one in funnels:
        steps = [f"after {step.stage} {step.num_out:,}" for step in one.steps]
        kept = [f"{num:,} in {name}" for name, num in one.kept.items()]
        aside = [f"{num:,} set aside in {layer}" for step in one.steps for layer, num in step.aside.items()]
        ends = ", ".join([*steps, *aside]) + (f"; kept: {', '.join(kept)}" if kept else "; none kept")
        sentences.append(f"{one.candidates:,} {_noun(one.kind, one.candidates)}: {ends}.".replace(": ;", ":"))
    return " ".join(sentences)


def _noun(kind: str, num: int) -> str:
    return _NOUNS.get(kind, (kind, f"{kind}s"))[num != 1]


def _lane(canvas: _Canvas, funnel: Funnel) -> None:
    """One kind of candidates, from the top down."""
    canvas.text(_LEFT, canvas.y + 12, _noun(funnel.kind, 2).capitalize(), "head")
    canvas.y += 26
    _box(canvas, funnel.candidates, f"{_noun(funnel.kind, funnel.candidates)} that came in")
    for step in funnel.steps:
        _step(canvas, step)
    _ends(canvas, funnel)
    canvas.y += 30


def _box(canvas: _Canvas, num: int, words: str) -> None:
    canvas.rect(_LEFT, canvas.y, _BOX, _BOX_HEIGHT, "box")
    canvas.text(_LEFT + 14, canvas.y + 26, f"{num:,}", "big")
    canvas.text(_LEFT + 24 + 10 * len(f"{num:,}"), canvas.y + 26, words)
    canvas.y += _BOX_HEIGHT


def _step(canvas: _Canvas, step: Step) -> None:
    """The line of a stage, what leaves it, and the box of what is left."""
    if step.stage == "split" and not step.dropped:
        return  # its boxes are those of `_ends`
    height = max(_GAP, _LINE_HEIGHT * len(step.dropped) + 28 * len(step.aside) + 12)
    top, x = canvas.y, _LEFT + 40
    canvas.arrow(x, top, top + height)
    share = _share(step.num_out, step.num_in)
    canvas.text(x + 14, top + height / 2 + 4, f"{step.stage}: {share} go on" if share else step.stage, "soft")
    y = top + 6
    if step.dropped or step.aside:
        canvas.path(f"M{x + 170} {top + height / 2:g}H{_SIDE - 16}")
        canvas.path(f"M{_SIDE - 16} {top + 4:g}V{top + height - 4:g}")
    for reason, num in step.dropped.items():
        _dropped(canvas, y, step, reason, num)
        y += _LINE_HEIGHT
    for layer, num in step.aside.items():
        canvas.rect(_SIDE - 4, y + 2, WIDTH_PX - _SIDE - 16, 24, "aside")
        canvas.text(_SIDE + 84, y + 18, f"{num:,}", "num")
        canvas.text(_SIDE + 94, y + 18, f"set aside in the layer {layer}")
        y += 28
    canvas.y = top + height
    _box(canvas, step.num_out, AFTER.get(step.stage, f"after {step.stage}"))


def _dropped(canvas: _Canvas, y: float, step: Step, reason: str, num: int) -> None:
    canvas.text(_SIDE + 84, y + 14, f"\u2212{num:,}", "num drop")
    canvas.text(_SIDE + 94, y + 14, _short(reason))
    canvas.rect(_BAR_LEFT, y + 5, max(1.0, round(_BAR * num / step.num_in, 1)), 10, "bar", 2)


def _short(reason: str) -> str:
    """A reason beside its stage."""
    words = reason.partition("/")[2].replace("-", " ") or reason
    return words if len(words) <= 32 else words[:31] + "\u2026"


def _share(part: int, whole: int) -> str:
    """In percent; what is not all or nothing is not rounded to it.

    >>> _share(1, 3), _share(1, 11), _share(9999, 10_000), _share(3, 3), _share(0, 0)
    ('33 %', '9.1 %', '99.9 %', '100 %', '')
    """
    if not whole:
        return ""
    percent = 100 * part / whole
    if part in (0, whole) or 10 <= percent < 99:
        return f"{percent:.0f} %"
    return f"{min(99.9, max(0.1, percent)):.1f} %"


def _ends(canvas: _Canvas, funnel: Funnel) -> None:
    """Where those stand that went all the way: a row of boxes for each layer."""
    layers: dict[str, list[tuple[str, int]]] = {}
    for name, num in funnel.kept.items():
        layers.setdefault(name.partition("/")[0], []).append((name.partition("/")[2], num))
    if not layers:
        return
    canvas.arrow(_LEFT + 40, canvas.y, canvas.y + _GAP)
    canvas.text(_LEFT + 54, canvas.y + 19, "split" if any(len(one) > 1 for one in layers.values()) else "kept", "soft")
    canvas.y += _GAP
    for layer, splits in layers.items():
        order = ("train", "validation", "test")
        splits.sort(key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item[0]))
        width = (WIDTH_PX - 2 * _LEFT - 12 * (max(3, len(splits)) - 1)) / max(3, len(splits))
        for i, (split, num) in enumerate(splits):
            x = round(_LEFT + i * (width + 12), 1)
            canvas.rect(x, canvas.y, round(width, 1), 52, "end")
            canvas.text(round(x + width / 2, 1), canvas.y + 23, f"{num:,}", "big mid")
            canvas.text(round(x + width / 2, 1), canvas.y + 42, f"{layer} {split}".strip(), "mid")
        canvas.y += 52 + 8
