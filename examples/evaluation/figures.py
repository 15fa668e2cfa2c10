"""Figures of an evaluation and of a training, as PNG files with deterministic bytes; drawn without a display."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from examples.evaluation.compare import cells_of, paper_percent, reproductions
from t4sa_data import catalog
from t4sa_data.files import write_bytes

DPI = 110
INK, PALE, LINE = "#1f2933", "#6b7280", "#d5dae0"
OURS, PAPER, OTHERS, WARM = "#1f6f8b", "#3b4252", "#a3b1bf", "#c2571a"


@contextmanager
def _figure(path: Path, width: float, height: float, **options: Any) -> Iterator[Any]:
    """A figure of so many inches, written to `path` at the end.

    Not by pyplot, whose state is global; the style is set for this figure alone.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "xtick.color": PALE,
        "ytick.color": PALE,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        figure: Any = Figure(figsize=(width, height), dpi=DPI, layout="constrained", **options)
        figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
        FigureCanvasAgg(figure)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(Path(path), buffer.getvalue())


def confusion_figure(
    confusion: Any,
    classes: Sequence[str],
    path: Path,
    *,
    title: str = "",
    across: str = "predicted",
    down: str = "ground truth",
) -> None:
    """Counts and shares of each row.

    Args:
        confusion: counts [K, K], a row a ground truth.
        classes: K names.
        path: of the PNG.
        title: above it.
        across: what the columns are.
        down: what the rows are.
    """
    counts = np.asarray(confusion)
    whole = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, whole, out=np.zeros(counts.shape), where=whole > 0)
    num = len(classes)
    with _figure(path, 2.2 + 1.0 * num, 1.6 + 0.85 * num) as figure:
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(num, num):
            ink = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row - 0.1, f"{shares[row, column]:.1%}", ha="center", va="center", color=ink, size=12)
            small = {"ha": "center", "va": "center", "color": ink, "size": 8.5, "alpha": 0.85}
            axes.text(column, row + 0.22, f"{counts[row, column]:,}", **small)
        axes.set_xticks(range(num), classes, color=INK)
        axes.set_yticks(range(num), classes, color=INK)
        axes.set_xticks(np.arange(num - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(num - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        axes.set_title(title or "Confusion")


def _rates(bins: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Accuracy of each bin in percent, and the distances to the ends of its interval [2, num bins]."""
    value = np.array([100 * one["accuracy"] for one in bins])
    ends = np.array([[100 * one["accuracy_low"], 100 * one["accuracy_high"]] for one in bins])
    # Rounding may leave an end of the interval of 0 % or 100 % on the wrong side.
    return value, np.maximum(np.abs(ends.T - value), 0)


def reliability_figure(bins: Sequence[Mapping[str, Any]], path: Path, *, ece: float | None = None) -> None:
    """Accuracy against confidence, and how many samples each bin has.

    Args:
        bins: `reliability` of `results.json`.
        path: of the PNG.
        ece: expected calibration error, 0 to 1, for the title.
    """
    value, ends = _rates(bins)
    with _figure(path, 5.2, 5.4) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        middle = [100 * one["confidence"] for one in bins]
        upper.plot([0, 100], [0, 100], color=PALE, linewidth=1, linestyle="--", label="calibrated")
        style = {"color": OURS, "ecolor": OURS, "elinewidth": 1.2, "marker": "o", "markersize": 5, "linewidth": 1.4}
        upper.errorbar(middle, value, yerr=ends, label="this model, 95 % interval", **style)
        upper.set(ylim=(-2, 102), ylabel="accuracy, %")
        upper.set_title("Calibration" if ece is None else f"Calibration: expected error {100 * ece:.1f} %")
        figure.legend(loc="outside lower center", ncols=2)
        upper.grid(color=LINE, linewidth=0.6)
        total = sum(one["n"] for one in bins)
        left = [100 * one["low"] for one in bins]
        widths = [100 * (one["high"] - one["low"]) for one in bins]
        lower.bar(left, [100 * one["n"] / total for one in bins], widths, align="edge", color=OTHERS, edgecolor="white")
        lower.set(xlim=(-2, 102), ylabel="samples, %", xlabel="largest probability, %")
        lower.grid(axis="y", color=LINE, linewidth=0.6)
        figure.align_ylabels()


def confidence_figure(
    bins: Sequence[Mapping[str, Any]], path: Path, *, accuracy: float | None = None, floor: float | None = None
) -> None:
    """Accuracy by how sure the text labeller was of the label.

    Args:
        bins: `by_text_confidence` of `results.json`.
        path: of the PNG.
        accuracy: of all samples, 0 to 1.
        floor: accuracy of always answering the most frequent class, 0 to 1.
    """
    value, ends = _rates(bins)
    place = np.arange(len(bins))
    with _figure(path, max(4.6, 1.6 + 0.85 * len(bins)), 3.8) as figure:
        axes = figure.add_subplot()
        style = {"fmt": "o", "color": OURS, "elinewidth": 1.4, "capsize": 3, "markersize": 6}
        axes.errorbar(place, value, yerr=ends, **style)
        lines = [(accuracy, "all samples", "-", OURS), (floor, "majority class", "--", PALE)]
        for level, name, dashes, colour in lines:
            if level is not None:
                axes.axhline(100 * level, color=colour, linewidth=1, linestyle=dashes, label=f"{name} {level:.1%}")
        names = [f"{one['low']:.2f} to\n{one['high']:.2f}\nn={one['n']:,}" for one in bins]
        axes.set_xticks(place, names, size=8.5)
        axes.set_xlim(-0.6, len(bins) - 0.4)
        bottom, top = (value - ends[0]).min(), (value + ends[1]).max()
        low = min(bottom, 100 * (floor if floor is not None else 1))
        axes.set_ylim(max(-2, low - 4), min(102, top + 4))
        axes.set(ylabel="accuracy, %", xlabel="confidence of the text labeller")
        axes.set_title("Accuracy by confidence of the label")
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        if accuracy is not None or floor is not None:
            figure.legend(loc="outside lower center", ncols=2)


def paper_figure(results: Mapping[str, Any], path: Path, *, system: str | None = None) -> None:
    """Our accuracies with intervals beside the paper's and those of published reproductions, a panel a cell.

    Args:
        results: of `report.evaluate_predictions`.
        path: of the PNG.
        system: row of `catalog.TABLE_1`; None: that of the results, else all rows.
    """
    system = system or results["about"].get("system")
    cells = [(title, cell, entry) for title, cell, entry in cells_of(results) if cell] or [
        (title, cell, entry) for title, cell, entry in cells_of(results)
    ]
    panels = [(title, entry, _published(system, cell)) for title, cell, entry in cells]
    heights = [1.1 + len(rows) for _, _, rows in panels]
    with _figure(path, 7.2, 0.35 + sum(0.55 + 0.3 * height for height in heights)) as figure:
        all_axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (title, entry, rows) in zip(all_axes, panels, strict=True):
            _paper_panel(axes, title, entry, rows)
        all_axes[-1].set_xlabel("accuracy, %")


def _published(system: str | None, cell: str) -> list[tuple[str, float, str]]:
    """Names, percents and colours of what is known of a cell."""
    if not cell:
        return []
    systems = [system] if system else [row.system for row in catalog.TABLE_1 if row.block != "chance"]
    found = []
    for one in systems:
        if (value := paper_percent(one, cell)) is not None:
            found.append((f"paper: {one}", value, PAPER))
        found += [(name, number, OTHERS) for name, number in reproductions(one, cell)]
    return found


def _paper_panel(axes: Any, title: str, entry: Mapping[str, Any], rows: list[tuple[str, float, str]]) -> None:
    value, low, high = (100 * entry[name] for name in ("accuracy", "low", "high"))
    everything = [("this model", value, OURS), *rows]
    place = np.arange(len(everything))
    axes.barh(place, [one[1] for one in everything], 0.62, color=[one[2] for one in everything])
    axes.errorbar([value], [0], xerr=[[value - low], [high - value]], color=WARM, elinewidth=2, capsize=4)
    axes.axvspan(low, high, color=WARM, alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(100 * entry["floor"], color=PALE, linewidth=1, linestyle="--")
    for k, (_, number, colour) in enumerate(everything):
        words = f"{number:.1f}" if colour == PAPER else f"{number:.2f}"
        words += f"  ({low:.2f} to {high:.2f})" if k == 0 else ""
        axes.text((high if k == 0 else number) + 1, k, words, va="center", size=9, color=INK)
    axes.set_yticks(place, [one[0] for one in everything], color=INK, size=9)
    axes.set_ylim(len(everything) - 0.4, -0.6)
    axes.set_xlim(0, 132)  # room for the numbers
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
    published = f" of {entry['n_published']:,}" if entry["n_published"] else ""
    words = "" if entry["comparable"] else ", not comparable"
    words += f"; dashed: majority class {100 * entry['floor']:.1f} %"
    axes.set_title(f"{title}\nn = {entry['n']:,}{published}{words}", size=9.5)
    axes.grid(axis="x", color=LINE, linewidth=0.6)


def curves_figure(
    train_rows: Sequence[Mapping[str, Any]],
    val_rows: Sequence[Mapping[str, Any]],
    path: Path,
    num_classes: int = 3,
) -> None:
    """Loss and accuracy against the step, with the drops of the learning rate and the lines of guessing.

    Args:
        train_rows: of metrics.jsonl: step, loss, accuracy (0 to 1), lr.
        val_rows: step, loss, accuracy.
        path: of the PNG.
        num_classes: guessing is right in 1 of so many.
    """
    chance = {"loss": math.log(num_classes), "accuracy": 100 / num_classes}
    drops = [
        now["step"]
        for before, now in itertools.pairwise(train_rows)
        if 0 < now.get("lr", 0) < 0.7 * before.get("lr", 0)
    ]
    with _figure(path, 9.6, 4.0) as figure:
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            scale = 100 if name == "accuracy" else 1
            _curve(axes, train_rows, name, scale)
            if val_rows:
                steps, values = [one["step"] for one in val_rows], [scale * one[name] for one in val_rows]
                axes.plot(steps, values, color=WARM, marker="o", markersize=4, linewidth=1.6, label="validation")
            words = f"guessing: loss ln {num_classes} = {chance['loss']:.3f}, accuracy {chance['accuracy']:.1f} %"
            axes.axhline(chance[name], color=PALE, linewidth=1, linestyle="--", label=words)
            for k, step in enumerate(drops):
                label = "learning rate drops" if k == 0 else None
                axes.axvline(step, color=PALE, linewidth=1, linestyle=":", label=label)
            axes.set(xlabel="step", ylabel="loss" if name == "loss" else "accuracy, %")
            axes.set_title("Loss" if name == "loss" else "Accuracy")
            axes.grid(axis="y", color=LINE, linewidth=0.6)
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _curve(axes: Any, rows: Sequence[Mapping[str, Any]], name: str, scale: float) -> None:
    """Training: every value pale, the running mean strong."""
    known = [(one["step"], scale * one[name]) for one in rows if one.get(name) is not None]
    if not known:
        return
    steps, values = np.array(known, dtype=float).T
    window = max(1, len(values) // 30)
    if window > 1:
        axes.plot(steps, values, color=OURS, alpha=0.25, linewidth=0.8)
        sums = np.cumsum(np.concatenate([[0.0], values]))
        first = np.maximum(np.arange(1, len(values) + 1) - window, 0)
        last = np.arange(1, len(values) + 1)
        values = (sums[last] - sums[first]) / (last - first)
    label = "training" if window == 1 else f"training, mean of {window} values"
    axes.plot(steps, values, color=OURS, linewidth=1.6, marker="o" if len(values) == 1 else None, label=label)
