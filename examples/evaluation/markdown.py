"""`results.md`: what `report.evaluate_predictions` found, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from examples.evaluation.compare import RULE, cells_of, paper_percent, reproductions, verdict
from t4sa_data import catalog


def results_markdown(results: Mapping[str, Any], system: str | None = None) -> str:
    """The report as Markdown.

    Args:
        results: of `evaluate_predictions`.
        system: row of `catalog.TABLE_1` to stand beside; None: that of the results, else all rows.
    """
    system = system or results["about"].get("system")
    parts = ["# Evaluation", summary_table(results, system)]
    parts += _verdicts(results, system)
    if not system:
        parts.append(_paper_table(results))
    for title, _, entry in cells_of(results):
        parts.append(f"## {title}")
        parts += _details(entry)
    return "\n\n".join(part for part in parts if part) + "\n"


def summary_table(results: Mapping[str, Any], system: str | None = None) -> str:
    """Our numbers with intervals, released and published n, floor, the paper's number, published reproductions."""
    rows = []
    for title, cell, entry in cells_of(results):
        published = entry["n_published"]
        others = reproductions(system, cell) if system and cell else []
        rows.append(
            [
                title,
                f"**{_percent(entry['accuracy'])}**",
                f"{_percent(entry['low'])} to {_percent(entry['high'])}",
                f"{entry['n']:,} of {published:,}" if published else f"{entry['n']:,}",
                _percent(entry["floor"]),
                _paper(system, cell),
                ", ".join(f"{value:.2f} {name.rpartition('(')[2].rstrip(')')}" for name, value in others) or "-",
            ]
        )
    head = ["accuracy, %", "ours", "95 % interval", "n (of published)", "floor", "paper", "reproductions"]
    if system:
        head[5] = f"paper: {system}"
    return _table(head, rows)


def _verdicts(results: Mapping[str, Any], system: str | None) -> list[str]:
    lines, others = [], []
    for title, cell, entry in cells_of(results):
        if system and cell and entry["comparable"]:
            value, low, high = (100 * entry[name] for name in ("accuracy", "low", "high"))
            word, sentence = verdict(value, low, high, system, cell)
            lines.append(f"- **{word}**. {sentence}")
        elif cell and not entry["comparable"]:
            others.append(f"- {title}: {entry['n']:,} of {entry['n_published']:,} published samples: not comparable.")
    return ["\n".join(lines + others), RULE if lines else ""]


def _paper(system: str | None, cell: str) -> str:
    if not cell:
        return "-"
    if system:
        value = paper_percent(system, cell)
        return "unknown" if value is None else f"{value:.1f}"
    known = [value for row in catalog.TABLE_1 if row.block != "chance" and (value := getattr(row, cell)) is not None]
    return f"{min(known):.1f} to {max(known):.1f}" if known else "unknown"


def _paper_table(results: Mapping[str, Any]) -> str:
    """The paper's table 1 beside ours, for the cells at hand."""
    found = [(cell, entry) for _, cell, entry in cells_of(results) if cell]
    if not found:
        return ""
    rows = [["**ours**", "", *(f"**{_percent(entry['accuracy'])}**" for _, entry in found)]]
    for row in catalog.TABLE_1:
        values = [getattr(row, cell) for cell, _ in found]
        if any(value is not None for value in values):
            rows.append([row.system, row.published_by, *("unknown" if v is None else f"{v:.1f}" for v in values)])
    for one in catalog.REPRODUCTIONS:
        values = [getattr(one, cell) for cell, _ in found]
        if any(value is not None for value in values):
            rows.append([one.system, one.by, *("-" if v is None else f"{v:.2f}" for v in values)])
    return _table(["system", "by", *(catalog.COLUMNS[cell] for cell, _ in found)], rows)  # type: ignore[index]


def _details(entry: Mapping[str, Any]) -> list[str]:
    counts, classes = entry["confusion"], entry["classes"]
    rows = [
        [f"**{name}**", *(f"{value:,}" for value in counts[k]), _percent(entry["recall"][name])]
        for k, name in enumerate(classes)
    ]
    words = f"Macro F1 {_percent(entry['macro_f1'])} %."
    if "ece" in entry:
        words += f" Expected calibration error {_percent(entry['ece'])} % (15 bins)."
    if "neutral_on_top" in entry:
        neutral = entry["neutral_on_top"]
        words += f" Neutral had the largest score for {neutral['n']:,} pictures ({_percent(neutral['share'])} %)."
    parts = [_table(["truth \\ predicted", *classes, "recall, %"], rows), words]
    if entry.get("by_text_confidence"):
        parts.append(
            _table(
                ["text confidence", "n", "accuracy, %", "95 % interval"],
                [
                    [
                        f"{one['low']:.2f} to {one['high']:.2f}",
                        f"{one['n']:,}",
                        _percent(one["accuracy"]),
                        f"{_percent(one['accuracy_low'])} to {_percent(one['accuracy_high'])}",
                    ]
                    for one in entry["by_text_confidence"]
                ],
            )
        )
    if "against" in entry:
        parts.append(_against(entry["against"]))
    return parts


def _against(found: Mapping[str, Any]) -> str:
    interval = f"{100 * found['low']:+.2f} to {100 * found['high']:+.2f}"
    return (
        f"Against the other model ({_percent(found['accuracy'])} %): {100 * found['difference']:+.2f} points "
        f"(paired bootstrap, 95 %: {interval}); right only here {found['only_ours']:,}, right only there "
        f"{found['only_theirs']:,}, McNemar's exact p = {found['mcnemar_p']:.2g}."
    )


def _percent(share: float | None) -> str:
    """A share in percent.

    >>> _percent(0.50421), _percent(None)
    ('50.42', '-')
    """
    return "-" if share is None else f"{100 * share:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---" if k == 0 else "---:" for k in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
