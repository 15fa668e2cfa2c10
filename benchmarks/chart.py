"""Charts of the benchmarks' figures; needs matplotlib.

python benchmarks/chart.py FIGURES.json docs/images/loader.png
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

OURS, PEER, LINE = "#0072B2", "#B0B0B0", "#D55E00"  # of Okabe and Ito's palette: told apart by everybody
TITLES = {"decode": "Decoded to 224 x 224 uint8", "bytes": "Bytes alone"}


def draw_loader(figures: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Bars of samples a second, least to largest as a whisker, the limit as a line; a panel for each measure.

    Args:
        figures: of `loader.py`.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(figures), figsize=(11, 4.2), layout="constrained")
    for panel, (mode, rounds) in zip(panels, figures.items(), strict=True):
        rates = {name: [one["rate"] for one in each] for name, each in rounds.items()}
        limit = statistics.median(rates.pop("limit"))
        order = sorted(rates, key=lambda name: statistics.median(rates[name]))
        for place, name in enumerate(order):
            middle, low, high = statistics.median(rates[name]), min(rates[name]), max(rates[name])
            colour = OURS if name.startswith("t4sa_data") else PEER
            spread = [[middle - low], [high - middle]]
            panel.barh(place, middle, color=colour, xerr=spread, error_kw={"elinewidth": 1, "ecolor": "#404040"})
            panel.text(max(high, limit * 0.01), place, f" {middle:,.0f}", va="center", fontsize=8)
        panel.axvline(limit, color=LINE, linestyle="--", linewidth=1.5)
        panel.set_title(f"{TITLES[mode]} (limit {limit:,.0f})", fontsize=10)
        panel.set_yticks(range(len(order)), order, fontsize=8)
        panel.set_xlabel("samples a second", fontsize=9)
        panel.set_xlim(0, max(limit, *(max(one) for one in rates.values())) * 1.15)
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("t4sa_data.stream (blue) and peers (grey); dashed: no loader at all", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw_loader(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
