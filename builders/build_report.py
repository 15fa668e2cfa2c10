"""The report of a build from raw tweets, for people: `report.md` and `report.html` in `DIR/build`.

The page is one file: the figure stands in it, nothing is loaded from elsewhere, and whatever the data says is escaped.
Examples are keys, never texts. Times are here and in `times.json`, nowhere else: the ledger is the same for every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from builders.ledger.figure import figure
from builders.ledger.funnel import Funnel, as_json
from builders.ledger.words import meaning_of
from t4sa_data.card.collection import figure as text_figure
from t4sa_data.card.markup import table as markdown_table
from t4sa_data.catalog import CLASSES, COLLECTION, PUBLISHED
from t4sa_data.files import write_bytes

MARKDOWN_NAME, HTML_NAME, FIGURE_NAME = "report.md", "report.html", "funnel.svg"
NUM_EXAMPLES = 20
"""Quarantined images shown; the ledger has them all."""
_STYLE = """\
body{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',Arial,sans-serif;color:#1d2733;background:#fff;
line-height:1.5;max-width:1000px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.8rem 0;font-size:.92rem;display:block;overflow-x:auto}
th,td{border:1px solid #d5dce4;padding:.3rem .6rem;text-align:left;vertical-align:top}
th{background:#f2f5f9}td.n{text-align:right;font-variant-numeric:tabular-nums}
pre{background:#f6f8fa;padding:.8rem;overflow-x:auto}svg{max-width:100%;height:auto}"""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What is said of a build: plain values."""

    funnels: Sequence[Funnel]
    """From `funnel.funnels_of`."""
    counts: Sequence[Mapping[str, Any]] = ()
    """Rows of `report.count_rows`: config, split, paper, released, quarantined, classes, paper_classes."""
    input_counts: Mapping[str, int] = field(default_factory=dict)
    """How the lines of the input became tweets: name -> number, in order (`collecting.Outcome.funnel`)."""
    checks: Mapping[str, Any] = field(default_factory=dict)
    """Name -> number, words, {value: number}, or {count, examples} with keys as examples."""
    quarantined: Sequence[Mapping[str, Any]] = ()
    """`key` and `reason` of each; nothing else of them is shown."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage, in s of wall time."""
    stage_bytes: Mapping[str, int] = field(default_factory=dict)
    """By stage, bytes read or written."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    toolchain: Mapping[str, str] = field(default_factory=dict)
    leak_report: str = ""
    """Of the splits, as text; empty: none was made."""
    duplicates_page: str | None = None
    """Page of the groups of near-duplicates, seen from the report's folder; None: there is none."""


@dataclass(frozen=True, kw_only=True)
class _Table:
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, kw_only=True)
class _Block:
    text: str


@dataclass(frozen=True, kw_only=True)
class _Link:
    words: str
    target: str


@dataclass(frozen=True, kw_only=True)
class _Figure:
    funnels: Sequence[Funnel]


_Part = str | _Table | _Block | _Link | _Figure
"""A paragraph, a table, text as it is, a link, the figure."""


def write_build_report(folder: Path, data: BuildReport) -> None:
    """Write `report.md`, `report.html` and `funnel.svg`, each whole or not at all.

    Args:
        folder: `DIR/build`.
        data: what to say.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    write_bytes(folder / FIGURE_NAME, figure(data.funnels).encode())
    write_bytes(folder / MARKDOWN_NAME, as_markdown(data).encode())
    write_bytes(folder / HTML_NAME, as_html(data).encode())


def _sections(data: BuildReport) -> Iterator[tuple[str, list[_Part]]]:
    """Titles, and what stands below them; empty ones left out."""
    sections: list[tuple[str, list[_Part]]] = [
        ("From raw tweets to splits", _funnel(data)),
        ("Counts beside the paper's", _counts(data)),
        ("Checks", _pairs("check", "found", {name: _shown(value) for name, value in data.checks.items()})),
        ("Images that do not decode", _quarantined(data)),
        ("Leaks between splits", [_Block(text=data.leak_report)] if data.leak_report.strip() else []),
        ("Near-duplicates", _duplicates(data)),
        ("Time and bytes", _times(data)),
        ("Settings", _pairs("setting", "value", {name: _plain(value) for name, value in data.settings.items()})),
        ("Toolchain", _pairs("package", "version", dict(sorted(data.toolchain.items())))),
    ]
    return ((title, parts) for title, parts in sections if parts)


def _funnel(data: BuildReport) -> list[_Part]:
    parts: list[_Part] = [_Figure(funnels=data.funnels)]
    if data.input_counts:
        parts += ["Lines of the input:", _Table(header=("step", "lines"), rows=list(data.input_counts.items()))]
    for one in data.funnels:
        rows: list[tuple[object, ...]] = []
        for step in one.steps:
            gone = sum(step.dropped.values()), sum(step.aside.values())
            rows.append((step.stage, step.num_in, *(num or "" for num in gone), step.num_out, ""))
            rows += [(reason, "", num, "", "", meaning_of(reason)) for reason, num in step.dropped.items()]
            rows += [
                (f"layer {layer}", "", "", num, "", "in the release, not in B-T4SA")
                for layer, num in step.aside.items()
            ]
        rows += [(name, "", "", "", num, "kept") for name, num in one.kept.items()]
        header = (f"{one.kind}s", "in", "dropped", "set aside", "out", "why")
        parts += [f"{one.candidates:,} {one.kind}s came in.", _Table(header=header, rows=rows)]
    return parts


def _counts(data: BuildReport) -> list[_Part]:
    if not data.counts:
        return []
    rows = []
    for row in data.counts:
        theirs = row.get("paper_classes") or [None] * len(CLASSES)
        classes = [
            "-" if ours is None else f"{ours:,}" + (f" ({paper:,})" if paper is not None else "")
            for ours, paper in zip(row["classes"] or [None] * len(CLASSES), theirs, strict=True)
        ]
        paper = "-" if row["paper"] is None else row["paper"]
        rows.append((row["config"], row["split"], paper, row["released"], row["quarantined"], *classes))
    tweets, images = COLLECTION["tweets"].value, COLLECTION["images"].value
    return [
        _Table(header=("config", "split", "paper", "here", "do not decode", *CLASSES), rows=rows),
        f"Classes: here (paper). The paper collected about {tweets:,} tweets with about {images:,} images, and kept "
        f"{PUBLISHED['tweets'].total:,} tweets with {PUBLISHED['images'].total:,} images.",
    ]


def _quarantined(data: BuildReport) -> list[_Part]:
    if not data.quarantined:
        return []
    shown = sorted(data.quarantined, key=lambda row: str(row["key"]))[:NUM_EXAMPLES]
    rows = [(row["key"], row["reason"], meaning_of(_full(str(row["reason"])))) for row in shown]
    return [
        f"{len(data.quarantined):,} in all; `t4sa ledger why DIR KEY` tells of each.",
        _Table(header=("key", "reason", "why"), rows=rows),
    ]


def _full(reason: str) -> str:
    return reason if "/" in reason else f"inspection/{reason}"


def _duplicates(data: BuildReport) -> list[_Part]:
    if data.duplicates_page is None:
        return []
    return [_Link(words="The largest groups, and pairs around the threshold, as pictures", target=data.duplicates_page)]


def _times(data: BuildReport) -> list[_Part]:
    stages = list(dict.fromkeys([*data.seconds, *data.stage_bytes]))
    if not stages:
        return []
    rows: list[tuple[object, ...]] = [
        (stage, f"{data.seconds[stage]:,.1f}" if stage in data.seconds else "", data.stage_bytes.get(stage, ""))
        for stage in stages
    ]
    rows.append(("all", f"{sum(data.seconds.values()):,.1f}", sum(data.stage_bytes.values()) or ""))
    return [_Table(header=("stage", "seconds", "bytes"), rows=rows)]


def _pairs(left: str, right: str, values: Mapping[str, object]) -> list[_Part]:
    return [_Table(header=(left, right), rows=list(values.items()))] if values else []


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _shown(value: Any) -> object:
    """A check: a number, or words."""
    if isinstance(value, Mapping) and "examples" in value:
        some = ", ".join(str(key) for key in value["examples"])
        return f"{value['count']:,}" + (f", as {some}" if some else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_number(num)}" for name, num in value.items())
    return value if isinstance(value, int | float) else str(value)


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def as_markdown(data: BuildReport) -> str:
    """The report in Markdown, its figure as text."""
    lines = ["# Report of the build"]
    for title, parts in _sections(data):
        lines += [f"## {title}", *(_markdown(part) for part in parts)]
    return "\n\n".join(lines) + "\n"


def _markdown(part: _Part) -> str:
    match part:
        case _Table():
            return markdown_table(part.header, ([_cell(value) for value in row] for row in part.rows))
        case _Block():
            return _fenced(part.text)
        case _Link():
            return f"[{part.words}]({quote(part.target)})"
        case _Figure():
            return f"![The funnel]({FIGURE_NAME})\n\n" + _fenced("\n".join(text_figure(as_json(part.funnels))))
        case _:
            return part


def _cell(value: object) -> str:
    """A cell in one line; nothing in it is markup."""
    text = " ".join(_number(value).split())
    return "".join(f"\\{char}" if char in "\\`*_[]" else char for char in text)


def _fenced(text: str) -> str:
    """Text as it is, behind a fence that is longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def as_html(data: BuildReport) -> str:
    """The report as one page."""
    lines = [
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        "<title>Report of the build</title>", f"<style>{_STYLE}</style>", "</head>", "<body>",
        "<h1>Report of the build</h1>",
    ]  # fmt: skip
    for title, parts in _sections(data):
        lines += [f"<h2>{escape(title)}</h2>", *(_html(part) for part in parts)]
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def _html(part: _Part) -> str:
    match part:
        case _Table():
            head = "".join(f"<th>{escape(name)}</th>" for name in part.header)
            rows = "\n".join(f"<tr>{''.join(_td(value) for value in row)}</tr>" for row in part.rows)
            return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
        case _Block():
            return f"<pre>{escape(part.text.rstrip())}</pre>"
        case _Link():
            return f'<p><a href="{escape(quote(part.target))}">{escape(part.words)}</a></p>'
        case _Figure():
            return figure(part.funnels).rstrip()
        case _:
            return f"<p>{escape(part)}</p>"


def _td(value: object) -> str:
    kind = ' class="n"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{escape(_number(value))}</td>"
