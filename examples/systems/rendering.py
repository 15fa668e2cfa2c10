"""The table as Markdown, CSV, LaTeX and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from examples.evaluation.figures import INK, LINE, OTHERS, OURS, PALE, PAPER, WARM, _figure
from examples.systems.beside import others_lines, published_since, since_lines
from examples.systems.cells import AS_IS, SMOKE, Cell
from examples.systems.protocol import FOLDS
from examples.systems.registry import LEVEL_OF, SINCE
from t4sa_data import catalog
from t4sa_data.files import write_bytes

COLUMNS = (
    "table",
    "block",
    "level",
    "system",
    "training",
    "subset",
    "protocol",
    "paper",
    "ours",
    "low",
    "high",
    "n",
    "how",
)
SHORT = {"five_agree": "5 agree", "four_agree": ">= 4", "three_agree": ">= 3", "b_t4sa": "B-T4SA test"}
DIFFERENCE = "difference"
"""Points that leak-free folds have more than published ones."""
UNKNOWN = "?"
NONE = "-"
HOW = "## How ours was made, or why there is none"
LEAST = 40
"""Percent at which the plot's axis begins, where nothing is lower."""
RECALLED, STAND_IN = "†", "s"
TITLES = {
    1: "Table 1: trained on B-T4SA, tested as it is",
    2: "Table 2: five-fold cross-validation on the Twitter Testing Dataset",
}


def write_all(out: Path, cells: Sequence[Cell]) -> None:
    """`table.md`, `table.csv`, `table.tex`, `table.png` in a folder. The systems since stand in all but `table.csv`:
    that has the page's rows and no others, theirs is `since.csv`."""
    out.mkdir(parents=True, exist_ok=True)
    page = [cell for cell in cells if cell.system.block != SINCE]
    ours = [cell for cell in cells if cell.system.block == SINCE]
    since = [*published_since(), *ours] if page[0].system.table == 1 else []
    written = {"table.md": markdown(page, since), "table.csv": as_csv(page), "table.tex": latex([*page, *since])}
    if since:
        written["since.csv"] = as_csv(since)
    else:
        (out / "since.csv").unlink(missing_ok=True)  # of another table that was made here
    for name, text in written.items():
        write_bytes(out / name, text.encode())
    plot([*page, *since], out / "table.png")


def title_of(cells: Sequence[Cell]) -> str:
    """Of the table; a smoke says so."""
    words = TITLES[cells[0].system.table]
    return f"SMOKE, drawn pictures. {words}" if any(cell.how.startswith(SMOKE) for cell in cells) else words


def as_csv(cells: Sequence[Cell]) -> str:
    """A line a cell; accuracies in percent; what is not known, or not there, is empty."""
    buffer = io.StringIO()
    made = csv.writer(buffer, lineterminator="\n")
    made.writerow(COLUMNS)
    for cell in cells:
        one, result = cell.system, cell.result
        numbers = ["", "", "", ""]
        if result is not None:
            numbers = [f"{100 * value:.2f}" for value in (result.accuracy, result.low, result.high)] + [str(result.n)]
        paper = "" if cell.paper is None else f"{cell.paper:.1f}"
        place = [one.table, one.block, one.level, one.name, one.training, cell.subset, cell.protocol]
        made.writerow([*place, paper, *numbers, cell.how])
    return buffer.getvalue()


def markdown(cells: Sequence[Cell], since: Sequence[Cell] = ()) -> str:
    """The table as the page has it, blocks and legend; below it what others measured, and how each number was made.

    Args:
        cells: of the page's rows.
        since: of the systems since.
    """
    columns = _columns(cells)
    head = ["system", "kind", *_heads(columns)]
    lines = [
        f"# {title_of(cells)}",
        "",
        "Accuracy, %: the paper's / ours (95 % interval). "
        f"{UNKNOWN}: the paper's number was not found in any source at hand. "
        f"{RECALLED}: recalled, not re-read in its source. "
        f"{NONE}: not run, see below. {STAND_IN}: a substitute of ours, not this system.",
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---"] * 2 + ["---:"] * len(columns)) + " |",
    ]
    for block, rows in _blocks(cells):
        lines.append(f"| **{block}** |" + " |" * (len(head) - 1))
        for own in rows:
            one = own[0].system
            lines.append("| " + " | ".join([one.name, one.level, *_shown(own, columns)]) + " |")
    levels = {cell.system.level for cell in cells}
    lines += [
        "",
        "Kinds: " + "; ".join(f"{LEVEL_OF[k]}: {v}" for k, v in catalog.LEGEND.items() if LEVEL_OF[k] in levels),
    ]
    if since:
        lines += ["", *others_lines(cells), *since_lines(since)[:-1]]
    lines += ["", HOW, ""]
    for _, rows in _blocks(cells):
        lines += [line for own in rows for line in _how(own)]
    return "\n".join(lines) + "\n"


def latex(cells: Sequence[Cell]) -> str:
    """A tabular with booktabs rules: the paper's number, and ours with its interval below."""
    columns = _columns(cells)
    lines = [
        "% needs \\usepackage{booktabs}; paper / ours [95 % interval]",
        "\\begin{tabular}{ll" + "r" * len(columns) + "}",
        "\\toprule",
        " & ".join(_tex(name) for name in ("system", "kind", *_heads(columns))) + " \\\\",
    ]
    for block, rows in _blocks(cells):
        lines += ["\\midrule", f"\\multicolumn{{{2 + len(columns)}}}{{l}}{{\\emph{{{_tex(block)}}}}} \\\\"]
        for own in rows:
            words = (own[0].system.name, own[0].system.level, *_shown(own, columns))
            lines.append(" & ".join(_tex(word) for word in words) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Dots and intervals: a panel a subset, a line a row; the paper's numbers as diamonds."""
    subsets = [name for name in SHORT if any(_is_drawn(cell, name) for cell in cells)] or [cells[0].subset]
    rows = [own for _, block in _blocks(cells) for own in block]
    protocols = list(dict.fromkeys(cell.protocol for cell in cells))
    colours = dict(zip(protocols, (OURS, WARM), strict=False))
    shift = dict(zip(protocols, (0.0,) if len(protocols) == 1 else (-0.16, 0.16), strict=True))
    with _figure(path, 2.6 + 3.1 * len(subsets), 1.9 + 0.34 * len(rows)) as figure:
        panels = figure.subplots(1, len(subsets), sharey=True, squeeze=False)[0]
        for axes, subset in zip(panels, subsets, strict=True):
            _panel(axes, rows, subset, colours, shift)
        panels[0].set_yticks(np.arange(len(rows)), [own[0].system.name for own in rows], color=INK)
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        figure.suptitle(title_of(cells), x=0.01, ha="left", size=12)
        figure.legend(handles=_legend(colours, cells), loc="outside lower center", ncols=3)


def _panel(axes: Any, rows: Sequence[Sequence[Cell]], subset: str, colours: Any, shift: Any) -> None:
    floor, least = None, float(LEAST)
    for place, own in enumerate(rows):
        inside = [cell for cell in own if cell.subset == subset]
        for cell in inside:
            if cell.result is None:
                continue
            value, low, high = (100 * number for number in (cell.result.accuracy, cell.result.low, cell.result.high))
            floor = 100 * cell.result.floor
            y, colour = place + shift[cell.protocol], colours[cell.protocol]
            axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
            face = "white" if cell.is_substitute else colour
            axes.plot([value], [y], marker="o", color=colour, markerfacecolor=face, markersize=5, clip_on=False)
            least = min(least, low - 2)
        if inside and inside[0].paper is not None:
            face = "white" if inside[0].is_recalled else PAPER
            axes.plot(
                [inside[0].paper], [place], marker="D", color=PAPER, markerfacecolor=face, markersize=4.5, zorder=5
            )
        if inside and all(cell.result is None for cell in inside) and own[0].system.module:
            where = {"va": "center", "ha": "right", "transform": axes.get_yaxis_transform()}
            axes.text(0.985, place, "not run", color=OTHERS, size=8, backgroundcolor="white", **where)
    for place, (own, after) in enumerate(pairwise(rows)):
        if own[0].system.block != after[0].system.block:
            axes.axhline(place + 0.5, color=PALE, linewidth=0.8)
    if floor is not None:
        axes.axvline(floor, color=PALE, linewidth=1, linestyle="--")
    axes.set_title(SHORT[subset], size=10)
    axes.set_xlim(max(0, least), 100)
    axes.set_xlabel("accuracy, %")
    axes.tick_params(axis="y", length=0)
    axes.grid(color=LINE, linewidth=0.6)


def _legend(colours: Any, cells: Sequence[Cell]) -> list[Any]:
    from matplotlib.lines import Line2D

    names = {AS_IS: "ours", "published": "ours, published folds", "leak-free": "ours, leak-free folds"}
    made = [Line2D([], [], color=colour, marker="o", label=names[one]) for one, colour in colours.items()]
    paper: dict[str, Any] = {"color": PAPER, "marker": "D", "linestyle": "", "markersize": 4.5}
    made.append(Line2D([], [], label="published", **paper))
    if any(cell.is_recalled and cell.paper is not None for cell in cells):
        made.append(Line2D([], [], label="published, recalled", markerfacecolor="white", **paper))
    if any(cell.is_substitute for cell in cells):
        hollow: dict[str, Any] = {"color": OURS, "marker": "o", "markerfacecolor": "white", "markersize": 5}
        made.append(Line2D([], [], label="a substitute, not this system", **hollow))
    return [*made, Line2D([], [], color=PALE, linestyle="--", linewidth=1, label="larger class")]


def _is_drawn(cell: Cell, subset: str) -> bool:
    return cell.subset == subset and (cell.result is not None or cell.paper is not None)


def _columns(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Subset and protocol of each column; behind a subset's two kinds of folds what they differ by."""
    found = list(dict.fromkeys((cell.subset, cell.protocol) for cell in cells))
    made = []
    for subset, protocol in found:
        made.append((subset, protocol))
        if (subset, protocol) == (subset, FOLDS[1]) and (subset, FOLDS[0]) in found:
            made.append((subset, DIFFERENCE))
    return made


def _heads(columns: Sequence[tuple[str, str]]) -> list[str]:
    return [SHORT[subset] if protocol == AS_IS else f"{SHORT[subset]}, {protocol}" for subset, protocol in columns]


def _shown(own: Sequence[Cell], columns: Sequence[tuple[str, str]]) -> list[str]:
    """A row's words, column by column."""
    by_place = {(cell.subset, cell.protocol): cell for cell in own}
    made = []
    for subset, protocol in columns:
        if protocol != DIFFERENCE:
            made.append(_words(by_place.get((subset, protocol))))
            continue
        published, clean = (by_place[subset, folds].result for folds in FOLDS)
        if published is None or clean is None:
            made.append(NONE)
        else:
            made.append(f"{100 * (clean.accuracy - published.accuracy):+.1f}")
    return made


def _blocks(cells: Sequence[Cell]) -> Iterator[tuple[str, list[list[Cell]]]]:
    """Parts of the table, and in each the cells of each row."""
    for block, inside in groupby(cells, key=lambda cell: cell.system.block):
        yield block, [list(own) for _, own in groupby(inside, key=lambda cell: cell.system.name)]


def _words(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    paper = UNKNOWN if cell.paper is None else f"{cell.paper:.1f}{RECALLED if cell.is_recalled else ''}"
    if cell.result is None:
        return f"{paper} / {NONE}"
    ours, low, high = (f"{100 * value:.1f}" for value in (cell.result.accuracy, cell.result.low, cell.result.high))
    return f"{paper} / {ours}{f' {STAND_IN}' if cell.is_substitute else ''} ({low} to {high})"


def _how(own: Sequence[Cell]) -> Iterator[str]:
    """A row's line, what all its numbers have in common, and below it what they have not, and what is missing."""
    ran = [_parts(cell) for cell in own if cell.result is not None]
    shared = [one[0] for one in takewhile(lambda one: len(set(one)) == 1, zip(*ran, strict=False))]
    yield f"- **{own[0].system.name}**: {'; '.join(shared) or own[0].system.training}"
    places: dict[str, list[str]] = {}
    for cell in own:
        rest = _parts(cell)[len(shared) :] if cell.result is not None else [cell.how]
        if rest:
            places.setdefault("; ".join(rest), []).append(_place(cell))
    for words, where in places.items():
        yield f"  - {', '.join(where) if len(where) < len(own) else 'all'}: {words}"


def _parts(cell: Cell) -> list[str]:
    return cell.how.removeprefix(SMOKE).split("; ")


def _place(cell: Cell) -> str:
    return SHORT[cell.subset] if cell.protocol == AS_IS else f"{SHORT[cell.subset]} {cell.protocol}"


def _tex(words: str) -> str:
    for sign in "&%#_":
        words = words.replace(sign, f"\\{sign}")
    return words.replace(">=", "$\\geq$").replace(RECALLED, "$\\dagger$")
