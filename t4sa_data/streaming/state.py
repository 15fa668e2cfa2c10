"""The state of a loader: a few JSON values that say where it is, and whether they fit another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t4sa_data.errors import StateMismatch

STATE_VERSION = 1
_FIELDS = {
    "version": "a version of the state",
    "content_digest": "the release",
    "plan_digest": "the plan (selected samples, labels, weights, shuffle, tail)",
    "seed": "the seed",
    "batch_size": "the global batch size",
}
"""What must be equal -> how it is called."""


def make_state(
    *, content_digest: str, plan_digest: str, seed: int, epoch: int, batch_size: int, batches: int
) -> dict[str, Any]:
    """The state.

    Args:
        content_digest: of the layers (`Selection.content_digest`).
        plan_digest: of `plan.plan_digest`.
        seed: of the order.
        epoch: that is being gone through.
        batch_size: of the global batch.
        batches: global batches of this epoch that were taken.
    """
    return {
        "version": STATE_VERSION,
        "content_digest": content_digest,
        "plan_digest": plan_digest,
        "seed": seed,
        "epoch": epoch,
        "batch_size": batch_size,
        "batches": batches,
    }


def check_state(
    state: Mapping[str, Any], mine: Mapping[str, Any], *, num_batches: int, accept_release: bool
) -> tuple[int, int]:
    """Epoch, and batches of it that were taken, of a state that fits.

    Args:
        state: what is to be loaded.
        mine: the loader's own.
        num_batches: of its epochs.
        accept_release: whether it may belong to another release (and so to another plan): then the next epoch begins.

    Raises:
        StateMismatch: names the first thing that differs, with both values.
    """
    if missing := [name for name in mine if name not in state]:
        raise StateMismatch("not a state of this loader", expected=", ".join(mine), got=f"no {', '.join(missing)}")
    is_other = accept_release and state["content_digest"] != mine["content_digest"]
    for name, words in _FIELDS.items():
        if is_other and name in ("content_digest", "plan_digest"):
            continue
        if state[name] != mine[name]:
            hint = "Make the loader with what the state was made with, or begin anew without it."
            if name == "content_digest":
                hint = "To go on with this release from the next epoch: load_state_dict(state, accept_release=True)."
            raise StateMismatch(
                f"the state does not fit: {words} is another",
                expected=f"{mine[name]} (this loader's)",
                got=f"{state[name]} (the state's)",
                hint=hint,
            )
    epoch, batches = state["epoch"], state["batches"]
    if not isinstance(epoch, int) or not isinstance(batches, int) or not 0 <= batches <= num_batches:
        raise StateMismatch("the state does not fit", expected=f"0 to {num_batches} batches", got=f"{batches}")
    return (epoch + 1, 0) if is_other else (epoch, batches)
