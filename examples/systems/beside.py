"""What stands beside our numbers in table 1: the same networks measured by others, and the systems since."""

from __future__ import annotations

from collections.abc import Sequence

from examples.evaluation.compare import RULE, paper_percent, verdict
from examples.systems.cells import AS_IS, SUBSETS, Cell
from examples.systems.registry import MODERN, SINCE, System
from t4sa_data import catalog
from t4sa_data.catalog.results import CELLS, Result

NONE = "-"
STAND_IN = " s"


def published_since() -> list[Cell]:
    """Cells of the published systems since, empty of ours."""
    made = []
    for one in (*(one for one in catalog.REPRODUCTIONS if one.of_row is None), *catalog.SYSTEMS_SINCE):
        system = System(
            table=1,
            block=SINCE,
            level="deep",
            name=f"{one.by}, {one.system}",
            training=one.trained_on,
            module="",
        )
        for subset in SUBSETS.values():
            how = f"published: {one.source}; trained on: {one.trained_on}"
            made.append(
                Cell(system=system, subset=subset, protocol=AS_IS, paper=getattr(one, subset), result=None, how=how)
            )
    return made


def since_lines(cells: Sequence[Cell]) -> list[str]:
    """Markdown of the block: published numbers, then our row.

    Args:
        cells: of `published_since`, and of `registry.MODERN`.
    """
    rows = []
    for name in dict.fromkeys(cell.system.name for cell in cells):
        own = {cell.subset: cell for cell in cells if cell.system.name == name}
        numbers = [_number(own[subset]) for subset in CELLS]
        rows.append([name, next(iter(own.values())).system.training, *numbers])
    ours = [cell for cell in cells if cell.system == MODERN]
    words = dict.fromkeys(cell.how for cell in ours)
    return [
        "## Systems since",
        "",
        "Tested as they are, without fine-tuning on the Twitter Testing Dataset. T4SA 2.0's new crawl is not released; "
        "relabelled pictures can be made anew (docs/how-to/relabel.md).",
        "",
        *_table(["system", "trained on", *_heads()], rows),
        "",
        *(f"- {MODERN.name}: {how}" for how in words),
        "",
    ]


def others_lines(cells: Sequence[Cell]) -> list[str]:
    """Markdown of the released networks' numbers: the paper's, ours where they ran, those of others, a verdict each."""
    rows, verdicts = [], []
    for system in dict.fromkeys(one.of_row for one in catalog.REPRODUCTIONS if one.of_row):
        own = {cell.subset: cell for cell in cells if cell.system.name == system}
        rows.append([system, "the paper", *(_percent(paper_percent(system, cell), 1) for cell in CELLS)])
        if any(cell.result is not None and not cell.is_substitute for cell in own.values()):
            rows.append([system, "**ours**", *(f"**{_number(own[cell])}**" for cell in CELLS)])
            verdicts += [_verdict(own[cell]) for cell in CELLS if own[cell].is_comparable]
            if not any(cell.is_comparable for cell in own.values()):
                verdicts.append(f"{system}: ours is not of the published samples, and not comparable.")
        for one in catalog.REPRODUCTIONS:
            if one.of_row == system:
                rows.append([one.system, one.by, *(_of(one, cell) for cell in CELLS)])
    return [
        "## The released networks, measured by others",
        "",
        *_table(["system", "by", *_heads()], rows),
        "",
        *(f"- {line}" for line in verdicts),
        *(["", RULE] if any(cell.is_comparable for cell in cells) else []),
        "",
    ]


def _verdict(cell: Cell) -> str:
    assert cell.result is not None
    value, low, high = (100 * share for share in (cell.result.accuracy, cell.result.low, cell.result.high))
    word, sentence = verdict(value, low, high, cell.system.name, cell.subset)
    return f"**{word}**: {sentence}"


def _number(cell: Cell) -> str:
    """Ours with its interval, else the published number."""
    if cell.result is None:
        return _percent(cell.paper, 1)
    value, low, high = (100 * share for share in (cell.result.accuracy, cell.result.low, cell.result.high))
    return f"{value:.2f}{STAND_IN if cell.is_substitute else ''} ({low:.1f} to {high:.1f})"


def _of(one: Result, cell: str) -> str:
    return _percent(getattr(one, cell), 2)


def _percent(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _heads() -> list[str]:
    return ["5 agree", ">= 4", ">= 3", "B-T4SA test"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
