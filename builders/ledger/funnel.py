"""The funnel: what came into each stage of a build, what left there and why, what was set aside, what went on.

It is made of a ledger's counts (`Ledger.funnel`, `reading.read_counts`). Near-duplicates and images that were
not drawn into the balanced set are in the release, in layers of their own: set aside on the way to B-T4SA, not lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builders.ledger.words import ASIDE, BUILD_STAGES, meaning_of, place_of, stage_of
from t4sa_data.errors import LedgerFaulty


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of one kind of candidates: `num_in` = dropped + aside + `num_out`."""

    stage: str
    num_in: int
    dropped: Mapping[str, int]
    """By reason, the most frequent first."""
    aside: Mapping[str, int]
    """By layer."""

    @property
    def num_out(self) -> int:
        """What went on."""
        return self.num_in - sum(self.dropped.values()) - sum(self.aside.values())


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """The way of one kind of candidates."""

    kind: str
    """`tweet`, `image` or `small image`."""
    candidates: int
    steps: tuple[Step, ...]
    """In the order of the stages."""
    kept: Mapping[str, int]
    """Of those that went all the way, by `layer/split`."""


def funnels_of(counts: Mapping[str, Mapping[str, Any]], *, of_build: bool) -> tuple[Funnel, ...]:
    """The funnel of each kind, tweets first.

    Args:
        counts: of a ledger: kind -> `candidates`, `kept` by layer and split, `dropped` by reason.
        of_build: of a build from raw tweets: its stages are there where nothing left, too.

    Raises:
        LedgerFaulty: counts that do not add up.

    >>> (one,) = funnels_of(
    ...     {"image": {"candidates": 6, "kept": {"b-t4sa/test": 2, "unique/train": 1}, "dropped": {"fetch/gone": 3}}},
    ...     of_build=False,
    ... )
    >>> [(step.stage, step.num_in, step.num_out) for step in one.steps], one.kept
    ([('fetch', 6, 3), ('balance', 3, 2)], {'b-t4sa/test': 2})
    """
    order = ("tweet", "image", "small image")
    kinds = sorted(counts, key=lambda kind: order.index(kind) if kind in order else len(order))
    return tuple(_funnel(kind, counts[kind], of_build) for kind in kinds)


def _funnel(kind: str, counts: Mapping[str, Any], of_build: bool) -> Funnel:
    kept, dropped = dict(counts["kept"]), dict(counts["dropped"])
    numbers = [counts["candidates"], *kept.values(), *dropped.values()]
    total = sum(kept.values()) + sum(dropped.values())
    if any(type(num) is not int or num < 0 for num in numbers) or total != counts["candidates"]:
        raise LedgerFaulty(
            f"the counts of {kind}s do not add up",
            expected=f"{counts['candidates']} candidates", got=f"{total} = kept {sum(kept.values())} + dropped",
        )  # fmt: skip
    aside = {name: name.split("/")[0] for name in kept if kind == "image" and name.split("/")[0] in ASIDE}
    stages = {stage_of(None, reason) for reason in dropped} | {ASIDE[layer] for layer in aside.values()}
    stages |= set(BUILD_STAGES.get(kind, ())) if of_build else set()
    steps, num_in = [], int(counts["candidates"])
    for stage in sorted(stages, key=lambda stage: (place_of(stage), stage)):
        here = {reason: num for reason, num in dropped.items() if stage_of(None, reason) == stage}
        away: Counter[str] = Counter()
        for name, layer in aside.items():
            away[layer] += kept[name] if ASIDE[layer] == stage else 0
        ordered = dict(sorted(here.items(), key=lambda item: (-item[1], item[0])))
        steps.append(Step(stage=stage, num_in=num_in, dropped=ordered, aside=dict(+away)))
        num_in = steps[-1].num_out
    ends = {name: num for name, num in kept.items() if name not in aside}
    return Funnel(kind=kind, candidates=int(counts["candidates"]), steps=tuple(steps), kept=ends)


def require_same(found: Mapping[str, Any], told: Mapping[str, Any], where: object) -> None:
    """Refuse a ledger whose rows are not what the build's report counted.

    Raises:
        LedgerFaulty: they are not.
    """
    if found != told:
        kinds = sorted(kind for kind in {*found, *told} if found.get(kind) != told.get(kind))
        raise LedgerFaulty(
            f"the ledger's rows are not what the report counted ({', '.join(kinds)})",
            expected={kind: told.get(kind, {}).get("candidates", 0) for kind in kinds},
            got={kind: found.get(kind, {}).get("candidates", 0) for kind in kinds},
            where=where,
        )


def as_json(funnels: Sequence[Funnel]) -> list[dict[str, Any]]:
    """Plain values; as `provenance["collection"]` of a layer they make the figure on the card."""
    return [
        {
            "kind": one.kind,
            "candidates": one.candidates,
            "stages": [
                {
                    "stage": step.stage,
                    "in": step.num_in,
                    "dropped": dict(step.dropped),
                    "aside": dict(step.aside),
                    "out": step.num_out,
                }
                for step in one.steps
            ],
            "kept": dict(one.kept),
        }
        for one in funnels
    ]


def as_text(funnels: Sequence[Funnel]) -> str:
    """The table for a terminal."""
    rows: list[tuple[str, ...]] = []
    for one in funnels:
        rows += [(), (f"{one.kind}s", "in", "dropped", "set aside", "out", "")]
        for step in one.steps:
            numbers = (step.num_in, sum(step.dropped.values()), sum(step.aside.values()), step.num_out)
            rows.append((step.stage, *(f"{num:,}" if num else "-" for num in numbers), ""))
            rows += [
                (f"  {reason}", "", f"{num:,}", "", "", meaning_of(reason)) for reason, num in step.dropped.items()
            ]
            rows += [(f"  layer {layer}", "", "", f"{num:,}", "", "") for layer, num in step.aside.items()]
        rows.append(("kept", "", "", "", f"{sum(one.kept.values()):,}", ""))
        rows += [(f"  {name}", "", "", "", f"{num:,}", "") for name, num in one.kept.items()]
    widths = [max((len(row[i]) for row in rows if row), default=0) for i in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5)), row[5]]).rstrip()
        if row
        else ""
        for row in rows
    ]
    return "\n".join(lines[1:])
