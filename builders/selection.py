"""Which labelled tweets are kept: the most confident ones, by a rule that is stated.

Confidence is the largest of the three `raw` probabilities, those that `t4sa label run` writes. The trap: under the
`uniform` rule (the training data's share of classes divided out) the most confident 30 % of SemEval's development
tweets are 27 % negative and 18 % neutral, where under `raw` they are 10 % and 36 %; on the test of 2017 a prototype's
were 64 % negative. Divide by the prior to decide between classes, never to rank.

What a cut costs and brings is seen on labelled tweets, before it is made: `report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t4sa_data.errors import BadOption, InputMissing, MalformedRow, MissingColumn, TableError

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CLASSES = ("negative", "neutral", "positive")
COLUMNS = ("tweet_id", *CLASSES)
NO_ID = -1
"""In place of the id of a row that has none; such a row is unlabelled."""
KEPT = ""
"""Reason of a row that is kept."""
UNLABELLED, BELOW, NOT_AMONG = "unlabelled", "below the threshold", "not among the most confident"
"""Why a row is dropped; a row without probabilities keeps the reason that the labeller gave, if any."""
TOLERANCE = 1e-4
"""By which three probabilities may miss 1: they were stored as float32, or as text."""
SHARES = tuple(percent / 100 for percent in range(5, 101, 5))
"""Of the rows, that a report's curve is given at."""
_Z = 1.959963984540054
"""Of the normal distribution, for intervals of 95 %."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The rule, one of three; a class is the most probable one (the first of equals).

    Raises:
        BadOption: none of them, several, or numbers outside their ranges.

    >>> Cut(threshold=0.85), Cut(top=(0.3, 0.1, 0.3))
    (Cut(threshold=0.85, top=None, top_of_all=None), Cut(threshold=None, top=(0.3, 0.1, 0.3), top_of_all=None))
    """

    threshold: float | tuple[float, float, float] | None = None
    """Least confidence, for all classes or for each: 0 to 1, itself included."""
    top: float | tuple[float, float, float] | None = None
    """Share of the rows said to be of each class, the most confident ones (rounded down): 0 to 1."""
    top_of_all: float | None = None
    """Share of all labelled rows, whatever their class: 0 to 1."""

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise BadOption("one rule is needed", expected="threshold, top or top_of_all", got=sorted(given) or "none")
        ((name, value),) = given.items()
        values = (value,) if isinstance(value, int | float) else tuple(value)
        is_number = all(isinstance(x, int | float) and 0 <= x <= 1 for x in values)
        if not is_number or len(values) not in (1, 3) or (name == "top_of_all" and len(values) == 3):
            raise BadOption(f"no such {name}", expected="numbers from 0 to 1, one or one for each class", got=value)

    def of_each(self, name: str) -> Floats:
        """`threshold` or `top` of each class, shape (3,)."""
        return np.broadcast_to(np.asarray(getattr(self, name), dtype=np.float64), (3,))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a cut keeps; every row has a class or none, and a reason."""

    cut: Cut
    tweet_ids: Ints
    """Shape (rows,)."""
    mask: Mask
    """Rows that are kept, shape (rows,)."""
    labels: npt.NDArray[np.int8]
    """Most probable class; -1: unlabelled, shape (rows,)."""
    confidence: npt.NDArray[np.float32]
    """Largest probability; NaN: unlabelled, shape (rows,)."""
    reasons: npt.NDArray[np.object_]
    """`KEPT`, or why a row is dropped, shape (rows,)."""

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each class: `labelled` and `kept`."""
        classes = self.labels[self.labels >= 0], self.labels[self.mask]
        found = [np.bincount(one, minlength=3).tolist() for one in classes]
        return {name: {"labelled": found[0][i], "kept": found[1][i]} for i, name in enumerate(CLASSES)}

    @property
    def dropped(self) -> dict[str, int]:
        """Rows that are not kept, by reason; with those kept they are all rows."""
        return dict(sorted(Counter(self.reasons[~self.mask].tolist()).items()))

    def table(self) -> pa.Table:
        """`tweet_id, label, confidence, kept, reason`, a row each; nulls where there is no label, no reason."""
        import pyarrow as pa

        unlabelled = self.labels < 0
        return pa.table(
            {
                "tweet_id": pa.array(self.tweet_ids, pa.int64(), mask=self.tweet_ids == NO_ID),
                "label": pa.array(self.labels, pa.int8(), mask=unlabelled),
                "confidence": pa.array(self.confidence, pa.float32(), mask=unlabelled),
                "kept": pa.array(self.mask, pa.bool_()),
                "reason": pa.array(self.reasons, pa.string(), mask=self.mask),
            }
        )


def select(
    tweet_ids: npt.ArrayLike, probabilities: npt.ArrayLike, cut: Cut, reasons: Sequence[str | None] | None = None
) -> Selection:
    """Keep the most confident rows. Equal confidence goes by the tweet's id, the smaller first: the same tweets are
    kept whatever the order of rows.

    Args:
        tweet_ids: shape (rows,), integers; `NO_ID`: none.
        probabilities: raw ones of negative, neutral, positive, shape (rows, 3); all three NaN: unlabelled.
        cut: the rule.
        reasons: why rows are unlabelled, shape (rows,).

    Raises:
        BadOption: shapes that do not fit, ids that are no integers.
        MalformedRow: probabilities that are none.
    """
    ids, p = np.asarray(tweet_ids), np.asarray(probabilities, dtype=np.float32)
    if p.ndim != 2 or p.shape != (len(ids), 3) or (len(ids) and ids.dtype.kind not in "iu"):
        raise BadOption(
            "ids and probabilities do not fit", expected="(n,) integers, (n, 3)", got=f"{ids.shape}, {p.shape}"
        )
    if reasons is not None and len(reasons) != len(ids):
        raise BadOption("reasons and rows do not fit", expected=len(ids), got=len(reasons))
    is_labelled = _labelled(p)
    labels = np.where(is_labelled, np.nan_to_num(p).argmax(axis=1), -1).astype(np.int8)
    confidence = np.where(is_labelled, np.nan_to_num(p).max(axis=1, initial=0), np.nan).astype(np.float32)
    order = np.lexsort((ids, -confidence))  # NaN at the end; equal ids in their own order
    order = order[: int(is_labelled.sum())]
    if cut.threshold is not None:
        # Both as float32: a confidence that was stored as 0.85 is at the threshold of 0.85.
        mask = is_labelled & (confidence >= cut.of_each("threshold").astype(np.float32)[labels])
    else:
        mask = np.zeros(len(ids), dtype=bool)
        for rows, share in _groups(order, labels, cut):
            mask[rows[: _floor(share * len(rows))]] = True
    why = np.full(len(ids), BELOW if cut.threshold is not None else NOT_AMONG, dtype=object)
    why[mask] = KEPT
    given = np.array([None] * len(ids) if reasons is None else list(reasons), dtype=object)
    why[~is_labelled] = [reason or UNLABELLED for reason in given[~is_labelled]]
    return Selection(
        cut=cut, tweet_ids=ids.astype(np.int64), mask=mask, labels=labels, confidence=confidence, reasons=why
    )


def select_file(path: Path, cut: Cut) -> Selection:
    """Keep the most confident rows of what `t4sa label run` wrote.

    Args:
        path: Parquet with `tweet_id, negative, neutral, positive`, and `reason` if there is one; nulls: unlabelled.
        cut: the rule.

    Raises:
        BadOption: the file says that its probabilities are `uniform`.
        InputMissing: no such file.
        TableError: no Parquet; MissingColumn: a column is not there; MalformedRow: probabilities that are none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise InputMissing("no such file", where=path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError("no Parquet file", got=error, where=path) from error
    with file:
        names = file.schema_arrow.names
        absent = [name for name in COLUMNS if name not in names]
        if (file.schema_arrow.metadata or {}).get(b"t4sa.prior", b"raw") != b"raw":
            raise BadOption(
                "probabilities with the prior divided out: they must not be ranked by",
                expected="raw ones", where=path, hint="Label again without --prior, then select.",
            )  # fmt: skip
        if absent:
            raise MissingColumn("a column is not there", expected=", ".join(COLUMNS), got=", ".join(names), where=path)
        table = file.read([*COLUMNS, *(["reason"] if "reason" in names else [])])
    ids, no_id = table["tweet_id"].fill_null(NO_ID).to_numpy(), table["tweet_id"].is_null().to_numpy()
    p = np.stack([_floats(table[name]) for name in CLASSES], axis=1)
    reasons = table["reason"].to_pylist() if "reason" in names else None
    if (odd := np.flatnonzero(no_id & ~np.isnan(p).all(axis=1))).size:
        raise MalformedRow("a labelled row without an id", got=f"{odd.size} of them", where=f"{path}, row {odd[0]}")
    return select(ids, p, cut, reasons)


def report(probabilities: npt.ArrayLike, labels: npt.ArrayLike, cut: Cut | None = None) -> dict[str, Any]:
    """What cuts cost and bring, on tweets whose label is known: look at it before one is chosen.

    Args:
        probabilities: raw, shape (rows, 3).
        labels: 0, 1, 2, shape (rows,).
        cut: one to be reported by itself.

    Returns:
        values for JSON: `n`; `curve`, the most confident 5 %, 10 %, ... of all rows: `coverage`, `threshold` (the least
        confidence among them), `accuracy` with its 95 % `interval` (Wilson), `shares` of the classes said; `by_class`,
        the same of the rows said to be of each class, without `shares`; `cut` (with a cut): the same of what it keeps,
        and `by_class` of that; accuracy is None where nothing is kept.

    Raises:
        BadOption, NoRows, UnknownLabel: as `builders.label.metrics.evaluate`.
    """
    from builders.label.metrics import by_confidence, checked

    p, y = checked(probabilities, labels)
    said, confidence = p.argmax(axis=1), p.max(axis=1)
    order = by_confidence(p)

    def at(rows: Ints, of: int) -> dict[str, Any]:
        hits, num = int((said[rows] == y[rows]).sum()), len(rows)
        return {
            "rows": num,
            "coverage": num / of if of else 0.0,
            "threshold": float(confidence[rows].min()) if num else None,
            "accuracy": hits / num if num else None,
            "interval": wilson(hits, num),
        }

    def curve(rows: Ints) -> list[dict[str, Any]]:
        return [at(rows[: _floor(share * len(rows))], len(rows)) for share in SHARES if _floor(share * len(rows))]

    made: dict[str, Any] = {"n": len(y), "curve": curve(order)}
    for point in made["curve"]:
        point["shares"] = _shares(said[order[: point["rows"]]])
    made["by_class"] = {name: curve(order[said[order] == i]) for i, name in enumerate(CLASSES)}
    if cut is not None:
        kept = np.flatnonzero(select(np.arange(len(y)), p, cut).mask)
        made["cut"] = at(kept, len(y)) | {
            "shares": _shares(said[kept]),
            "by_class": {name: at(kept[said[kept] == i], int((said == i).sum())) for i, name in enumerate(CLASSES)},
        }
    return made


def _shares(said: Ints) -> dict[str, float]:
    found = np.bincount(said, minlength=3) / max(1, len(said))
    return dict(zip(CLASSES, found.tolist(), strict=True))


def wilson(hits: int, num: int) -> list[float] | None:
    """Interval of a share, 95 % (Wilson 1927): [low, high]; None of nothing.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if not num:
        return None
    share, z2 = hits / num, _Z * _Z
    middle = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = _Z / (1 + z2 / num) * (share * (1 - share) / num + z2 / (4 * num * num)) ** 0.5
    return [max(0.0, middle - half), min(1.0, middle + half)]


def _labelled(p: npt.NDArray[np.float32]) -> Mask:
    """Rows with probabilities; three NaN: none."""
    odd = np.isnan(p)
    is_labelled: Mask = np.asarray(~odd.all(axis=1))
    with np.errstate(invalid="ignore"):
        is_bad = is_labelled & ~((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1, dtype=np.float64) - 1) <= TOLERANCE))
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise MalformedRow(
            "no probabilities", expected="three numbers from 0 that sum to 1, or none", got=p[row].tolist(),
            where=f"row {row}",
        )  # fmt: skip
    return is_labelled


def _groups(order: Ints, labels: npt.NDArray[np.int8], cut: Cut) -> list[tuple[Ints, float]]:
    """Rows that compete with each other, the most confident first, and the share of them that is kept."""
    if cut.top_of_all is not None:
        return [(order, float(cut.top_of_all))]
    return [(order[labels[order] == i], float(share)) for i, share in enumerate(cut.of_each("top"))]


def _floor(number: float) -> int:
    # 0.29 * 100 is 28.999999999999996.
    return int(number + 1e-9)


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Nulls are NaN."""
    import pyarrow as pa

    made: npt.NDArray[np.float32] = column.cast(pa.float32()).to_numpy()
    return made
