"""Beside the paper: its numbers, what others measured since, and a verdict by a stated rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from examples.evaluation.predictions import TWITTER
from t4sa_data import catalog

Word = Literal["reproduced", "within the spread of published reproductions", "outside", "nothing to compare with"]

HALF_DIGIT = 0.05
"""Percent: the paper prints one decimal, so its number may be so much more or less."""
RULE = (
    "Rule: reproduced, where the paper's number as printed (one decimal, so +-0.05) touches our 95 % interval; within "
    "the spread of published reproductions, where our interval touches the range from the least to the greatest of the "
    "paper's number and the published conversions and retrainings of that system; else outside."
)


def paper_percent(system: str, cell: str) -> float | None:
    """The paper's number, percent; None where it, or the system, is not known."""
    return next((getattr(row, cell) for row in catalog.TABLE_1 if row.system == system), None)


def reproductions(system: str, cell: str) -> list[tuple[str, float]]:
    """Published conversions and retrainings of a system: name and percent."""
    found = [(f"{one.system} ({one.by})", getattr(one, cell)) for one in catalog.REPRODUCTIONS if one.of_row == system]
    return [(name, value) for name, value in found if value is not None]


def verdict(
    accuracy_percent: float, low: float, high: float, system: str | None, cell: str = "b_t4sa"
) -> tuple[Word, str]:
    """Whether a number reproduces the paper's, by `RULE`.

    Args:
        accuracy_percent: ours.
        low: of its 95 % interval, percent.
        high: as `low`.
        system: row of `catalog.TABLE_1`.
        cell: of that row: b_t4sa, five_agree, four_agree, three_agree.

    Returns:
        the word, and a sentence that shows the numbers it rests on.
    """
    ours = f"{accuracy_percent:.2f} % ({low:.2f} to {high:.2f})"
    paper = paper_percent(system, cell) if system else None
    others = [value for _, value in reproductions(system, cell)] if system else []
    titles: Mapping[Any, str] = catalog.COLUMNS
    where = f"{system}, {titles.get(cell, cell)}"
    known = ([] if paper is None else [paper]) + others
    if not known:
        return "nothing to compare with", f"No published number is known for {where}; ours is {ours}."
    if paper is not None and low - HALF_DIGIT <= paper <= high + HALF_DIGIT:
        return "reproduced", f"{where}: the paper's {paper:.1f} % lies in the interval of ours, {ours}."
    least, most = min(known), max(known)
    spread = f"the published numbers, {least:.2f} to {most:.2f} %" if least < most else f"the published {most:.2f} %"
    if low <= most and high >= least:
        return "within the spread of published reproductions", f"{where}: ours, {ours}, touches {spread}."
    side = "below" if high < least else "above"
    return "outside", f"{where}: ours, {ours}, is {side} {spread}."


def cells_of(results: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """What the results hold, flat: title, cell of the paper's table (or ""), entry."""
    found = []
    split = results["about"]["split"]
    for config, entry in results.items():
        if config == TWITTER:
            found += [(catalog.COLUMNS[cell], cell, one) for cell, one in entry.items()]
        elif config != "about":
            is_cell = (config, split) == ("b-t4sa", "test")
            found.append(
                (
                    catalog.COLUMNS["b_t4sa"] if is_cell else f"{config} {split} split, 3-way",
                    "b_t4sa" if is_cell else "",
                    entry,
                )
            )
    return found
