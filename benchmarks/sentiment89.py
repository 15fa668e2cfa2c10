"""Do the low-level rows of table 2 tell positive from negative on 89 real photos? And how little can 89 show?

    python benchmarks/sentiment89.py

Needs ../shared/data/photos/sentiment89 beside the checkout, extra [train], OpenCV.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import common
import numpy as np

sys.path.insert(0, str(common.ROOT))

from examples.evaluation import metrics
from examples.systems import protocol
from examples.systems.data import Pictures, groups_of, make_pictures
from examples.systems.protocol import Options, Result
from examples.systems.registry import module_of, systems_of

ROWS = ("GCH", "LCH", "GCH+BoW", "LCH+BoW", "SentiBank")
FOLD_SEEDS = (2017, 1, 2, 3, 4)
"""Each draws other folds; the first is that of the tables."""


def read_photos(folder: Path) -> Pictures:
    """The photos that have a label, twins by bytes together."""
    lines = [line.split() for line in (folder / "groundTruthLabel.txt").read_text().splitlines()[1:] if line.strip()]
    listed = {name: word for name, word in lines if (folder / "images" / name).is_file()}
    names = sorted(listed)
    files = [(folder / "images" / name).read_bytes() for name in names]
    digests = [hashlib.sha256(one).hexdigest() for one in files]
    return make_pictures(
        keys=names,
        label=np.array([int(listed[name] == "positive") for name in names]),
        group=groups_of(digests),
        content="".join(digests),
        read=files.__getitem__,
    )


def recall(data: Pictures, result: Result, label: int) -> str:
    """Share of a class that is recognised, percent, and the count."""
    own = [result.is_right[key] for key, one in zip(data.keys, data.label, strict=True) if one == label]
    return f"{100 * np.mean(own):.0f} ({sum(own)} of {len(own)})"


def line(data: Pictures, row: str, work: Path) -> str:
    """A row of the table, in Markdown."""
    system = next(one for one in systems_of(2) if one.name == row)
    module, options = module_of(system), Options(work=work, system=row)
    started, found = time.perf_counter(), []
    for seed in FOLD_SEEDS:
        folds = protocol.leak_free(data.label, data.group, seed)
        done = []
        for number in range(1, 6):
            train, test = np.flatnonzero(folds != number), np.flatnonzero(folds == number)
            positive = protocol.kept_prediction(module.fit_predict, data, train, test, options)
            done.append(protocol.Fold(number=number, seed=0, test=test, positive=positive))
        found.append(protocol.pooled(data, done))
    seconds = time.perf_counter() - started
    first, percent = found[0], [100 * one.accuracy for one in found]
    only, floor_only, p = metrics.mcnemar(
        np.array([first.is_right[key] for key in data.keys]), np.asarray(data.label == 1)
    )
    name = "substitute (not SentiBank)" if row == "SentiBank" else row
    cells = [
        name,
        f"{percent[0]:.1f} ({100 * first.low:.1f}-{100 * first.high:.1f})",
        f"{100 * first.fold_sd:.1f}",
        f"{min(percent):.1f} to {max(percent):.1f}",
        recall(data, first, 0),
        recall(data, first, 1),
        f"{only} to {floor_only}, p = {p:.2f}",
        f"{seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(rows: Sequence[str] = ROWS) -> None:
    """Print the table."""
    data = read_photos(common.PHOTOS / "sentiment89")
    floor = 100 * metrics.majority_floor(data.label)
    print(f"{common.describe_machine(('t4sa-data', 'numpy', 'scikit-learn', 'opencv-python-headless'))}")
    print(f"Input: {len(data)} photos, {int(data.label.sum())} positive; always positive: {floor:.1f} %.\n")
    print(
        "| row | accuracy, % (95 %) | sd of folds | with 5 draws of folds | negative right, % | positive right, % ",
        end="",
    )
    print("| against always positive | s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            print(line(data, row, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
