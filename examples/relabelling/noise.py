"""Which labels are probably wrong: confident learning (Northcutt et al. 2021) by the library cleanlab.

Needs out-of-sample probabilities: of a model that did not learn from these very labels.
Shapes: n samples, K classes (3).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from examples.errors import PredictionsError
from examples.evaluation.metrics import majority_floor, wilson
from examples.relabelling.agreement import share_of_all, shares_changed, table
from examples.relabelling.samples import Floats, Ints
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import MissingDependency

CSV_HEADER = ("key", "given", "suggested", "quality", "rank", "is_issue")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What confident learning says of n labels."""

    given: Ints
    """shape (n,)."""
    suggested: Ints
    """The most probable class; shape (n,)."""
    quality: npt.NDArray[np.float64]
    """How plausible the given label is, 0 to 1: its probability (cleanlab's self-confidence); shape (n,)."""
    is_issue: npt.NDArray[np.bool_]
    """Whether cleanlab counts it as wrong; shape (n,)."""
    joint: Ints
    """Estimated number of samples by given label and true one, [K, K]; the sum is n."""
    probabilities: Floats
    """shape (n, K)."""

    @property
    def order(self) -> Ints:
        """Rows, the least plausible label first; equal ones in release order."""
        return np.argsort(self.quality, kind="stable")

    @property
    def accuracy(self) -> float:
        """Share of the given labels that the probabilities' largest is, 0 to 1."""
        return float((self.suggested == self.given).mean())


def find_noise(given: Ints, probabilities: npt.NDArray[Any]) -> Noise:
    """Confident learning.

    Args:
        given: labels, shape (n,).
        probabilities: out of sample, shape (n, K); rows sum to 1.

    Raises:
        MissingDependency: cleanlab is not installed.
        PredictionsError: a class without a sample.
    """
    try:
        from cleanlab.count import estimate_joint
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise MissingDependency("a report of label noise needs cleanlab", hint='pip install "cleanlab>=2.8"') from error
    if missing := [name for k, name in enumerate(CLASSES) if not (given == k).any()]:
        raise PredictionsError(
            "confident learning needs samples of every class", expected=", ".join(CLASSES), got=f"no {missing[0]}"
        )
    wide = np.asarray(probabilities, dtype=np.float64)
    wide = wide / wide.sum(axis=1, keepdims=True)
    joint = estimate_joint(given, wide)
    return Noise(
        given=given,
        suggested=wide.argmax(axis=1).astype(np.int64),
        quality=np.asarray(get_label_quality_scores(given, wide, method="self_confidence"), dtype=np.float64),
        is_issue=np.asarray(find_label_issues(given, wide, n_jobs=1), dtype=bool),
        joint=_whole(np.asarray(joint) * len(given), given),
        probabilities=wide.astype(np.float32),
    )


def _whole(joint: npt.NDArray[np.float64], given: Ints) -> Ints:
    """Counts of an estimate, as whole numbers whose rows sum to the given labels'."""
    made = np.zeros(joint.shape, dtype=np.int64)
    for k, row in enumerate(joint):
        total = int((given == k).sum())
        exact = row * total / row.sum()
        made[k] = np.floor(exact)
        rest = total - int(made[k].sum())
        made[k, np.argsort(made[k] - exact, kind="stable")[:rest]] += 1
    return made


def noise_csv(keys: pa.Array, noise: Noise) -> str:
    """Every sample, the least plausible label first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for rank, row in enumerate(noise.order.tolist(), start=1):
        words = [CLASSES[noise.given[row]], CLASSES[noise.suggested[row]], f"{noise.quality[row]:.6f}"]
        writer.writerow([keys[row].as_py(), *words, rank, int(noise.is_issue[row])])
    return buffer.getvalue()


def noise_markdown(noise: Noise, about: Mapping[str, str], notes: list[str]) -> str:
    """`noise.md`."""
    n, num_issues = len(noise.given), int(noise.is_issue.sum())
    floor, right = majority_floor(noise.given), int((noise.suggested == noise.given).sum())
    low, high = wilson(right, n)
    sees = f"Out of sample the probabilities' largest is the given label for {noise.accuracy:.1%} of {n:,} samples "
    sees += f"(95 % interval {low:.1%} to {high:.1%}); always the most frequent class: {floor:.1%}."
    if low <= floor:
        sees += (
            " **That is no better than guessing: these probabilities know nothing of the labels, and nothing below "
            "means anything.**"
        )
    rows = []
    for k, (name, share) in enumerate(zip(CLASSES, shares_changed(noise.joint), strict=True)):
        total, wrong = int(noise.joint[k].sum()), int(noise.joint[k].sum() - noise.joint[k, k])
        issues = int((noise.is_issue & (noise.given == k)).sum())
        cells = [f"{value:,}" for value in noise.joint[k].tolist()]
        rows.append([f"**{name}**", *cells, f"{total:,}", f"{wrong:,} ({share:.1%})", f"{issues:,}"])
    wrong = int(noise.joint.sum() - np.trace(noise.joint))
    share = share_of_all(noise.joint) or 0.0
    columns = [f"{value:,}" for value in noise.joint.sum(0).tolist()]
    rows.append(["all", *columns, f"{n:,}", f"{wrong:,} ({share:.1%})", f"{num_issues:,}"])
    head = ["given \\ estimated true", *CLASSES, "all", "estimated wrong", "is_issue"]
    parts = [
        "# Label noise, as confident learning estimates it",
        table(["", ""], [[name, f"`{value}`"] for name, value in about.items()]),
        "\n".join(f"- {note}" for note in notes),
        sees,
        table(head, rows),
        WORDS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


WORDS = """`noise.csv` has every sample, the least plausible label first: `quality` is the probability that the model
gives to the given label, `suggested` the class it finds most probable, `is_issue` 1 where cleanlab counts the label as
wrong.

## What this can and cannot show

The labels are of the tweet's *text*; a model of pictures sees the *picture*. What is counted as wrong here is a mixture
of labels that misread the text, of texts that speak of something else than their picture (nobody's mistake), and of the
model's own mistakes. The weaker the model, the more of the third: confident learning takes its probabilities at their
word where they are surer than the class's average. So the numbers are no error rate of T4SA's labels, and cutting the
named samples away leaves what the model finds easy. Use the list to look at pictures, to compare label sets by one and
the same model, or to try a training without the named ones; whether that helped is seen on labels that people made of
the pictures (the Twitter Testing Dataset)."""
