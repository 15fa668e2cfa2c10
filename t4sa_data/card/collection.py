"""The figure of the data collection on the card of a release that was built from raw tweets: its own numbers.

A layer's provenance holds them under `collection`, as the build counted them; a release without has no such figure. It
is text: a card has it wherever it is read, and a release has no file more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t4sa_data.card.markup import code
from t4sa_data.manifest import Manifest

REBUILT = (
    "**This copy is not the authors' dataset: it was built anew from raw tweets by their method.** Its tweets, labels, "
    "near-duplicates and splits are its own (see How it was made); published numbers stand beside its own to compare."
)
"""At the top of such a release's card."""
_BOX = 38
"""Characters of the left column."""
AFTER = {
    "collect": "collected", "label": "labelled", "select": "selected", "fetch": "fetched", "inspection": "that decode",
    "dedup": "without near-duplicates", "balance": "drawn, classes balanced", "split": "split",
    "removals": "not removed", "limit": "within the limit", "configs": "of configs that are built",
    "splits": "of the splits asked for", "official": "listed, with a label", "twitter-testing": "listed",
}  # fmt: skip
"""What candidates are that passed a stage."""


def collection_of(manifest: Manifest) -> list[dict[str, Any]] | None:
    """What the build of a release counted on its way from raw tweets; None for other releases."""
    found = (layer.provenance.get("collection") for layer in manifest.layers.values())
    return next((counts for counts in found if counts), None)


def collection(manifest: Manifest) -> list[str]:
    """Parts of the card; none for a release that was not built from raw tweets."""
    counts = collection_of(manifest)
    if counts is None:
        return []
    return [
        "This copy was built from raw tweets. What came in, what left at each stage and why, and what is in the layers "
        "(counted when it was built; removals since stand under Removals):",
        code("text", *figure(counts)),
    ]


def summary(manifest: Manifest) -> str:
    """The same in a sentence; empty for other releases."""
    counts = collection_of(manifest) or []
    ways = [
        f"{one['candidates']:,} {one['kind']}s came in, "
        + "".join(f"after {step['stage']} {step['out']:,}, " for step in one["stages"]).removesuffix(", ")
        for one in counts
    ]
    return f" This copy was built from raw tweets: {'; '.join(ways)}." if ways else ""


def figure(counts: list[dict[str, Any]]) -> list[str]:
    """Lines of the figure, plain ASCII.

    Args:
        counts: for each kind of candidates `kind`, `candidates`, `stages` (each with `stage`, `in`, `dropped` by
            reason, `aside` by layer, `out`), `kept` by layer and split.
    """
    lines: list[str] = []
    for one in counts:
        lines += [*([""] if lines else []), f"[ {one['candidates']:,} {one['kind']}s ]"]
        for step in one["stages"]:
            lines += _step(step)
        kept = [(name, num) for name, num in one["kept"].items() if num]
        lines += ["  |"] if kept else []
        width = max((len(f"{num:,}") for _, num in kept), default=0)
        lines += [f"  +--> {num:>{width},}  {name.replace('/', ' ')}" for name, num in kept]
    return lines


def _step(step: Mapping[str, Any]) -> list[str]:
    """A stage: what leaves at the right, what is left below."""
    stage = step["stage"]
    if stage == "split" and not step["dropped"]:
        return []
    gone = [f"- {num:>11,}  {reason.partition('/')[2].replace('-', ' ')}" for reason, num in step["dropped"].items()]
    gone += [f"> {num:>11,}  set aside in {layer}" for layer, num in step["aside"].items()]
    lines = [f"  |  {stage}".ljust(_BOX) + gone[0]] if gone else [f"  |  {stage}"]
    lines += ["  |".ljust(_BOX) + line for line in gone[1:]]
    return [*lines, "  v", f"[ {step['out']:,} {AFTER.get(stage, f'after {stage}')} ]"]
