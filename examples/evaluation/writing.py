"""All files of a report: predictions, `results.json`, `results.md`, figures, the paper's grid as picture and page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from examples.evaluation.markdown import results_markdown
from examples.evaluation.predictions import TWITTER, save_table
from t4sa_data import catalog
from t4sa_data.files import write_bytes, write_json
from t4sa_data.reading import OpenRelease

PICTURES = 4
"""In each cell of the grid."""


def write_report(
    out: Path,
    release: OpenRelease,
    tables: Mapping[str, pa.Table],
    results: Mapping[str, Any],
    *,
    pictures: int = PICTURES,
    blur: bool = False,
    texts: bool = False,
) -> str:
    """Write everything that is known of some predictions.

    Args:
        out: folder, made where it is missing.
        release: of the pictures.
        tables: predictions by config, columns as `predictions.SCHEMA`.
        results: of `evaluate_predictions`.
        pictures: in each cell of the grid; 0: no grid.
        blur: them.
        texts: of the tweets in the page.

    Returns:
        The text of results.md.
    """
    for config, table in tables.items():
        save_table(out / f"predictions-{config}.parquet", table)
    write_json(out / "results.json", results)
    text = results_markdown(results)
    write_bytes(out / "results.md", text.encode())
    write_figures(out, results)
    if pictures > 0:
        split = results["about"]["split"]
        write_grids(out, release, tables, split=split, num=pictures, blur=blur, texts=texts)
    return text


def write_figures(out: Path, results: Mapping[str, Any]) -> None:
    """Confusion, calibration, accuracy by text confidence; and the paper's numbers beside ours."""
    from examples.evaluation import figures

    for config, entry in results.items():
        if config == "about":
            continue
        if config == TWITTER:
            for cell, one in entry.items():
                path = out / f"confusion-{config}-{cell.replace('_', '-')}.png"
                figures.confusion_figure(one["confusion"], one["classes"], path, title=catalog.COLUMNS[cell])
            continue
        title = f"{config}, {results['about']['split']} split"
        figures.confusion_figure(entry["confusion"], entry["classes"], out / f"confusion-{config}.png", title=title)
        figures.reliability_figure(entry["reliability"], out / f"calibration-{config}.png", ece=entry["ece"])
        if bins := entry.get("by_text_confidence"):
            path = out / f"text-confidence-{config}.png"
            figures.confidence_figure(bins, path, accuracy=entry["accuracy"], floor=entry["floor"])
    figures.paper_figure(results, out / "paper.png")


def write_grids(
    out: Path, release: OpenRelease, tables: Mapping[str, pa.Table], *, split: str, num: int, blur: bool, texts: bool
) -> None:
    """The paper's figure for each three-way config."""
    from examples.evaluation import grid

    for config, table in tables.items():
        if config == TWITTER:
            continue
        cells = grid.read_cells(release, table, config=config, split=split, num=num, blur=blur, texts=texts)
        title = f"Most confident predictions, {config} {split} split"
        grid.write_grid(cells, out / f"grid-{config}.png", title=title)
        about = {"Samples": f"{table.num_rows:,}", "Below each picture": "probability of the predicted class"}
        grid.write_page(cells, out / f"grid-{config}.html", title=title, about=about)
