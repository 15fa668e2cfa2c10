"""`weights=`: how often each selected sample is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t4sa_data.errors import BadOption
from t4sa_data.streaming.selection import Selection


def with_column(columns: Sequence[str], weights: Any) -> tuple[str, ...]:
    """The columns, and the one that weights are taken from."""
    return tuple(dict.fromkeys([*columns, *([weights] if isinstance(weights, str) and weights != "balanced" else [])]))


def weights_of(weights: Any, selection: Selection) -> npt.NDArray[np.float64] | None:
    """A weight for each selected sample, shape (n,), or None.

    Args:
        weights: as for `stream`.
        selection: with the column, where it is the name of one.

    Raises:
        BadOption: of another length, negative, not finite, or all 0.
    """
    if weights is None:
        return None
    try:
        made = _as_weights(weights, selection)
    except BadOption:
        raise
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise BadOption("weights are not numbers", got=error) from error
    if made.shape != (len(selection),) or not np.isfinite(made).all() or (made < 0).any() or made.sum() <= 0:
        raise BadOption(
            "weights", expected=f"{len(selection)} numbers, not negative, not all 0", got=f"shape {made.shape}"
        )
    return made


def _as_weights(weights: Any, selection: Selection) -> npt.NDArray[np.float64]:
    if isinstance(weights, str) and weights == "balanced":
        counts = np.bincount(selection.label, minlength=len(selection.classes))
        return np.asarray(1.0 / np.maximum(counts, 1)[selection.label])
    if isinstance(weights, str):
        return np.asarray(selection.extra[weights].fill_null(0).to_numpy(zero_copy_only=False), dtype=np.float64)
    if isinstance(weights, Mapping):
        if unknown := [name for name in weights if name not in selection.classes]:
            raise BadOption("weights: no such class", expected=" | ".join(selection.classes), got=", ".join(unknown))
        return np.array([weights.get(name, 0.0) for name in selection.classes], dtype=np.float64)[selection.label]
    return np.asarray(weights, dtype=np.float64)
