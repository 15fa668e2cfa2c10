"""Charts of the text labeller's calibration and of its accuracy at each coverage; needs matplotlib."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
from chart import LINE, OURS, PEER

sys.path.insert(0, str(common.ROOT))
from builders.label import metrics

COLOURS = (OURS, LINE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of Okabe and Ito's palette, as the others
CLASS_COLOURS = {"negative": LINE, "neutral": PEER, "positive": OURS}
LEAST_ROWS = 20
"""Of a bin that is drawn, and of the left end of a curve: fewer show chance alone."""


def _begin(columns: int, height: float) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, columns, figsize=(3.7 * columns, height), layout="constrained", squeeze=False)
    for panel in panels[0]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure, panels[0]


def _end(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_reliability(raw: Mapping[str, Any], labels: Any, path: Path) -> None:
    """Accuracy beside confidence, a panel for each system; bars of grey say how many rows a bin holds.

    Args:
        raw: system -> probabilities, shape (rows, 3).
        labels: shape (rows,).
        path: of the PNG.
    """
    figure, panels = _begin(len(raw), 3.9)
    for panel, (name, p) in zip(panels, raw.items(), strict=True):
        found = metrics.reliability(p, labels)
        middle, drawn = (found.edges[:-1] + found.edges[1:]) / 2, found.count >= LEAST_ROWS
        panel.bar(middle, found.count / found.count.sum(), 1 / len(middle), color=PEER, alpha=0.5, linewidth=0)
        panel.plot([1 / 3, 1], [1 / 3, 1], color=LINE, linestyle="--", linewidth=1.5)
        panel.plot(found.confidence[drawn], found.accuracy[drawn], color=OURS, marker="o", markersize=4)
        panel.set_xlim(1 / 3 - 0.02, 1.01)
        panel.set_ylim(0, 1.01)
        panel.set_title(f"{name} (ECE {found.ece:.3f})", fontsize=10)
        panel.set_xlabel("largest probability (raw)", fontsize=9)
    panels[0].set_ylabel("accuracy; share of tweets (grey)", fontsize=9)
    figure.suptitle("How often a label is right, by what its probability says; dashed: just as often", fontsize=11)
    _end(figure, path)


def draw_coverage(raw: Mapping[str, Any], labels: Any, first: str, prior: Any, path: Path) -> None:
    """Accuracy of the most confident tweets: every system; one by the class said; one by raw and by uniform.

    Args:
        raw: system -> probabilities, shape (rows, 3).
        labels: shape (rows,).
        first: the system of the other panels.
        prior: its training data's share of classes, shape (3,).
        path: of the PNG.
    """
    figure, panels = _begin(3, 3.9)
    for colour, (name, p) in zip(COLOURS, raw.items(), strict=False):
        _curve(panels[0], metrics.coverage(p, labels), colour, name)
    panels[0].set_title("systems, ranked by raw probability", fontsize=10)
    p = raw[first]
    said = p.argmax(axis=1)
    for number, (name, colour) in enumerate(CLASS_COLOURS.items()):
        if (said == number).sum() >= LEAST_ROWS:
            _curve(panels[1], metrics.coverage(p[said == number], labels[said == number]), colour, name)
    panels[1].set_title(f"{first}, by the class it says", fontsize=10)
    for name, colour, ranked in (("raw", OURS, p), ("uniform", LINE, metrics.uniform(p, prior))):
        order, shares = metrics.by_confidence(ranked), np.arange(1, len(p) + 1)
        for number, style in ((0, "-"), (1, ":")):
            share = np.cumsum(ranked.argmax(axis=1)[order] == number) / shares
            label = f"{metrics.CLASSES[number]}, {name}"
            panels[2].plot(shares[LEAST_ROWS:] / len(p), share[LEAST_ROWS:], style, color=colour, label=label)
    panels[2].set_title("who is kept: share of the class", fontsize=10)
    panels[2].set_ylim(0, 1)
    for panel in panels:
        panel.set_xlabel("coverage: share that is kept", fontsize=9)
        panel.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel("accuracy of what is kept", fontsize=9)
    figure.suptitle("What a cut by confidence costs and brings", fontsize=11)
    _end(figure, path)


def _curve(panel: Any, found: metrics.Coverage, colour: str, name: str) -> None:
    panel.plot(found.share[LEAST_ROWS:], found.accuracy[LEAST_ROWS:], color=colour, linewidth=1.5, label=name)
