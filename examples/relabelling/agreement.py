"""How far two sets of labels agree: matrix, share changed, Cohen's kappa; as text, CSV, Markdown and a figure.

A matrix has a row an original label, a column a new one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.evaluation.metrics import confusion
from examples.relabelling.samples import NONE, Found, Ints, Samples
from t4sa_data.catalog import CLASSES, LABEL_NOISE

Z = 1.959964
"""Of a 95 % interval."""
CSV_HEADER = ("split", "original", "new", "n", "kept")


def kappa(original: Ints, new: Ints, group: npt.NDArray[np.int64] | None = None) -> tuple[float, float, float] | None:
    """Cohen's kappa (1960) of n pairs of labels, with its 95 % interval.

    The interval is the normal one of the delta method (Fleiss, Cohen, Everitt 1969), its variance summed by group:
    pictures of one tweet have one text, and count as one witness.

    Args:
        original: shape (n,).
        new: shape (n,).
        group: shape (n,), equal for pairs that are not independent; None: all are.

    Returns:
        kappa and the interval's ends; None where everything is of one class, and nothing can be said.
    """
    counts = confusion(original, new, len(CLASSES))
    n = int(counts.sum())
    if not n:
        return None
    row, column = counts.sum(1) / n, counts.sum(0) / n
    observed, chance = float(np.trace(counts) / n), float(row @ column)
    if chance >= 1:
        return None
    value = (observed - chance) / (1 - chance)
    gain = ((original == new) - observed) / (1 - chance)
    influence = gain - (1 - observed) / (1 - chance) ** 2 * (column[original] + row[new] - 2 * chance)
    if group is not None:
        influence = np.bincount(np.unique(group, return_inverse=True)[1], influence)
    half = Z * float(np.sqrt((influence**2).sum())) / n
    return value, max(value - half, -1.0), min(value + half, 1.0)


def shares_changed(counts: Ints) -> list[float | None]:
    """For each original class, the share that has another label now; None where there is none.

    >>> shares_changed(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    [0.25, 0.0, None]
    """
    return [float(1 - counts[k, k] / row.sum()) if row.sum() else None for k, row in enumerate(counts)]


def matrix_text(counts: Ints) -> str:
    """A matrix for the terminal: counts, and what share of each row changed."""
    head = "".join(f"{name:>12}" for name in CLASSES)
    lines = [f"{'original, new:':<16}{head}{'changed':>10}"]
    for name, row, share in zip(CLASSES, counts.tolist(), shares_changed(counts), strict=True):
        lines.append(f"{name:<16}{''.join(f'{value:>12,}' for value in row)}{_percent(share):>10}")
    return "\n".join(lines)


def agreement_csv(samples: Samples, found: Found, kept: npt.NDArray[np.bool_]) -> str:
    """Counts by split, original and new label; `kept`: of those, what is in labels.parquet."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for number, split in enumerate(samples.splits):
        inside = (samples.split == number) & (found.label != NONE)
        both = [confusion(samples.label[rows], found.label[rows]) for rows in (inside, inside & kept)]
        for i, original in enumerate(CLASSES):
            for j, new in enumerate(CLASSES):
                writer.writerow([split, original, new, *(int(counts[i, j]) for counts in both)])
    return buffer.getvalue()


def agreement_markdown(
    samples: Samples, found: Found, kept: npt.NDArray[np.bool_], about: Mapping[str, str], min_confidence: float
) -> str:
    """`agreement.md`."""
    known = found.label != NONE
    parts = [
        "# Agreement of new labels with the original ones",
        table(["", ""], [[name, f"`{value}`"] for name, value in about.items()]),
        "\n".join(f"- {note}" for note in found.notes),
        f"{int(known.sum()):,} of {len(samples):,} samples have a new label. Rows: the original, columns: the new.",
        *_details(samples, found, known),
    ]
    if min_confidence:
        parts += [
            f"## At a confidence of {min_confidence:g} or more",
            f"What labels.parquet holds: {int(kept.sum()):,} samples; the others are left out.",
            *_details(samples, found, kept),
        ]
    parts += [_WORDS.format(share=LABEL_NOISE["negative_changed"].value)]
    return "\n\n".join(part for part in parts if part) + "\n"


_WORDS = """## What this can and cannot show

Where the two differ, this does not say who is right: agreement is not accuracy. The original labels are a text
classifier's, and nobody looked at the pictures. A text model's labels differ where it reads the tweet in another way,
an image model's also where the text speaks of something else than the picture. For comparison: of the negative images
of B-T4SA, T4SA 2.0's text model changed at least {share:.0%}. Whether training on the new labels helps is seen on a
test set that people labelled (the Twitter Testing Dataset), not on the split's own labels."""


def _details(samples: Samples, found: Found, rows: npt.NDArray[np.bool_]) -> list[str]:
    original, new = samples.label[rows], found.label[rows]
    counts = confusion(original, new)
    n = int(counts.sum())
    lines = []
    for name, row, share in zip(CLASSES, counts, shares_changed(counts), strict=True):
        cells = [f"{value:,} ({_percent(value / row.sum() if row.sum() else None)})" for value in row.tolist()]
        lines.append([f"**{name}**", *cells, f"{int(row.sum()):,}", _percent(share)])
    lines.append(["all", *(f"{value:,}" for value in counts.sum(0).tolist()), f"{n:,}", _percent(share_of_all(counts))])
    words = f"Cohen's {kappa_words(original, new, samples.tweet_id[rows])}, n = {n:,}."
    return [table(["original \\ new", *CLASSES, "all", "changed"], lines), words]


def kappa_words(original: Ints, new: Ints, group: npt.NDArray[np.int64]) -> str:
    """Kappa with its interval, for people; see `kappa`."""
    found = kappa(original, new, group)
    if found is None:
        return "kappa is not defined (everything is of one class)"
    value, low, high = (f"{one + 0.0 if abs(one) >= 5e-4 else 0.0:.3f}" for one in found)  # no -0.000
    return f"kappa {value}, 95 % interval {low} to {high} (pictures of one tweet count as one witness)"


def share_of_all(counts: Ints) -> float | None:
    """Share of all samples whose label changed."""
    return float(1 - np.trace(counts) / counts.sum()) if counts.sum() else None


def agreement_figure(counts: Ints, path: Path, title: str) -> None:
    """The matrix as a PNG."""
    from examples.evaluation.figures import confusion_figure

    confusion_figure(counts, CLASSES, path, title=title, across="new label", down="original label")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, all columns but the first to the right."""
    lines = [head, ["---" if k == 0 else "---:" for k in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
