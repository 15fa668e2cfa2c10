"""How two releases differ: samples that were added, removed, relabelled or moved, by split and class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hub_scripts.verify_cli import diff_command
from t4sa_data.catalog import CLASSES, HUB_REPOSITORIES, SPLITS
from t4sa_data.errors import BadOption
from t4sa_data.reading.release import OpenRelease
from t4sa_data.shards import read_table
from t4sa_data.summary import table as as_table

__all__ = ["Diff", "describe", "diff", "diff_command"]


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Keys of samples, and how many by split and class."""

    one: str
    """What was compared: folder or URL, without anything secret."""
    other: str
    rows: tuple[int, int]
    """Of both, image layers."""
    added: tuple[str, ...] = field(repr=False)
    removed: tuple[str, ...] = field(repr=False)
    relabelled: tuple[str, ...] = field(repr=False)
    moved: tuple[str, ...] = field(repr=False)
    """Now in another split or layer."""
    counts: tuple[tuple[str, str, str, int], ...]
    """(what, split, class, samples); of relabelled and moved ones `a -> b`."""
    texts: tuple[tuple[str, int, int], ...] = ()
    """(text layer, rows in one, rows in the other) where they differ in any row."""

    @property
    def is_none(self) -> bool:
        """Whether both hold the same samples."""
        return not (self.added or self.removed or self.relabelled or self.moved or self.texts)


def diff(one: str | Path, other: str | Path, *, namespace: str | None = None, token: str | None = None) -> Diff:
    """Compare two releases by their sample tables; no image is read.

    Args:
        one: a folder, an `hf://` or `https://` URL, or (with `namespace`) a revision of its Parquet repository.
        other: the same.
        namespace: account or organisation on the Hub.
        token: for the Hub; None: as logged in.

    Raises:
        BadOption: neither a folder nor a URL, and no namespace.
        ReleaseNotFound, ManifestError, HubError: no readable release there; a withdrawn one names its successor.
    """
    opened = [_open(path, namespace, token) for path in (one, other)]
    left, right = (_rows(release) for release in opened)
    joined = left.join(right, "key", join_type="full outer", left_suffix="", right_suffix=" now")
    joined = joined.sort_by("key")
    was, now = pc.is_valid(joined["split"]), pc.is_valid(joined["split now"])
    both = pc.and_(was, now)
    found = {
        "added": joined.filter(pc.invert(was)),
        "removed": joined.filter(pc.invert(now)),
        "relabelled": joined.filter(pc.and_(both, pc.not_equal(joined["label"], joined["label now"]))),
        "moved": joined.filter(
            pc.and_(
                both,
                pc.or_(
                    pc.not_equal(joined["split"], joined["split now"]),
                    pc.not_equal(joined["layer"], joined["layer now"]),
                ),
            )
        ),
    }
    counts = [line for what, rows in found.items() for line in _counts(what, rows)]
    keys = {what: tuple(rows["key"].to_pylist()) for what, rows in found.items()}
    return Diff(
        one=opened[0].where,
        other=opened[1].where,
        rows=(left.num_rows, right.num_rows),
        counts=tuple(counts),
        texts=tuple(_texts(*opened)),
        **keys,
    )


def _open(path: str | Path, namespace: str | None, token: str | None) -> OpenRelease:
    from t4sa_data.reading import open_release

    name = str(path)
    if "://" in name or Path(name).expanduser().is_dir():
        return open_release(name, token=token)
    if namespace is None:
        raise BadOption(
            "neither a folder nor a URL",
            got=name,
            hint="Give --namespace for a revision (v1.0.0) of its repository.",
        )
    return open_release(f"hf://datasets/{namespace}/{HUB_REPOSITORIES['parquet']}@{name}", token=token)


def _rows(release: OpenRelease) -> pa.Table:
    """key, split, label and layer of all images."""
    parts = []
    for name, layer in release.manifest.layers.items():
        if layer.kind == "image":
            rows = read_table(release.table(name), ["key", "split", "label"])
            parts.append(rows.append_column("layer", pa.repeat(name, rows.num_rows)))
    empty = pa.schema([("key", pa.string()), ("split", pa.string()), ("label", pa.int64()), ("layer", pa.string())])
    return pa.concat_tables(parts) if parts else empty.empty_table()


def _counts(what: str, rows: pa.Table) -> Iterable[tuple[str, str, str, int]]:
    """Samples by split and class, in the order of the splits."""
    counted: Counter[tuple[str, str]] = Counter()
    for row in rows.to_pylist():
        splits, labels = ([row[name], row[f"{name} now"]] for name in ("split", "label"))
        classes = [None if label is None else CLASSES[label] for label in labels]
        counted[_change(splits), _change(classes)] += 1
    order = {split: number for number, split in enumerate(SPLITS)}
    for (split, label), count in sorted(counted.items(), key=lambda one: (order.get(one[0][0], 99), one[0])):
        yield what, split, label, count


def _change(values: list[Any]) -> str:
    """`a`, or `a -> b` where both are there and differ."""
    return " -> ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _texts(one: OpenRelease, other: OpenRelease) -> Iterable[tuple[str, int, int]]:
    """Text layers whose content differs: nothing but their shards holds their rows, so only counts are told."""
    layers = [release.manifest.layers for release in (one, other)]
    for name in dict.fromkeys([*layers[0], *layers[1]]):
        entries = [some.get(name) for some in layers]
        if any(entry is not None and entry.kind == "text" for entry in entries):
            digests = {entry.content_digest if entry else None for entry in entries}
            rows = [sum(split.rows for split in entry.splits.values()) if entry else 0 for entry in entries]
            if len(digests) > 1:
                yield name, rows[0], rows[1]


def describe(found: Diff) -> str:
    """A screen about a difference."""
    lines = [f"{found.one}: {found.rows[0]:,} images", f"{found.other}: {found.rows[1]:,} images", ""]
    if found.counts:
        lines += as_table(("what", "split", "class", "samples"), found.counts)
    lines += [f"{name}: {one:,} rows, now {other:,}" for name, one, other in found.texts]
    return "\n".join(lines) if not found.is_none else "\n".join([*lines, "no difference"])
