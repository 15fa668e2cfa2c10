"""How many bytes does a takedown send to the Hub again, with Xet's own chunks?

    python benchmarks/takedown.py [--quick] [--gigabytes 0.8]

For each layer, format and shard size a slice of the full layer is written and sent to a store in a folder by the Hub's
own client library; then rows are taken out and what changed is sent once more, as from a machine that has never sent
anything. Counted is what the client says it uploaded: compressed chunks, and the index of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(common.ROOT))
from takedown_layers import MEAN_BYTES, NUM_ROWS, Layout, make_slice, take_down, whole_layer

from t4sa_data import release
from t4sa_data.manifest import FOLDERS
from t4sa_data.shards import parquet

REMOVALS = (1, 10, 100, 1000)
LEAST = 6
"""Removals that a figure rests on; a slice that gets fewer is measured again with others."""
MB = 1_000_000


class Store:
    """Xet's store in a folder, `local://`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, paths: Sequence[Path]) -> Any:
        """Upload files in one commit; the client's own count."""
        import hf_xet

        commit = hf_xet.XetSession().new_upload_commit(endpoint=f"local://{self.folder}")
        for path in paths:
            commit.start_upload_file(str(path), sha256=hf_xet.COMPUTE_SHA256)
        return commit.wait_to_finish().dedup_metrics

    def copy(self, folder: Path, *, known: bool = False) -> Store:
        """The same store for another trial; unless `known`, without what the client keeps of its own uploads."""
        shutil.copytree(self.folder, folder, copy_function=_link_chunks)
        for cache in [] if known else folder.glob("**/shard-cache"):
            shutil.rmtree(cache)
        return Store(folder)


def _link_chunks(source: str, target: str) -> None:
    """Chunks are never written to again; the rest is small."""
    (os.link if "/xorbs/xorbs/" in source else shutil.copy2)(source, target)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one takedown sent, bytes."""

    num: int
    """Removals in the slice."""
    removed: int
    shards: int
    sidecars: int
    kept_apart: int
    """Known chunks that were sent all the same, to keep files in few pieces."""


def trial(
    work: Path, base: Path, store: Store, layout: Layout, image_bytes: Any, rows: Any, *, known: bool = False
) -> Trial:
    """Take rows out of a slice and send what changed; `known`: from the machine that had sent the slice."""
    changed = take_down(base, work / "after", layout, rows, len(image_bytes))
    folder, copy = work / "after" / FOLDERS[layout.fmt], store.copy(work / "store", known=known)
    sent = copy.send([folder / name for name in changed])
    beside = copy.send([folder / f"{name}.idx" for name in changed]) if layout.fmt == "wds" else None
    for name in ("after", "store"):
        shutil.rmtree(work / name)
    return Trial(
        num=len(rows),
        removed=int(image_bytes[rows].sum()),
        shards=sent.total_bytes_uploaded,
        sidecars=beside.total_bytes_uploaded if beside else 0,
        kept_apart=sent.defrag_prevented_dedup_bytes,
    )


def measure(work: Path, layout: Layout, most_bytes: float) -> dict[int, list[Trial]]:
    """Trials for each number of removals out of the full layer."""
    start, num_shards = time.perf_counter(), layout.num_shards(most_bytes)
    image_bytes = make_slice(work / "base", layout, num_shards)
    store, folder = Store(work / "cas"), work / "base" / FOLDERS[layout.fmt] / layout.layer
    store.send([path for path in sorted(folder.iterdir()) if path.is_file() and path.name != "index.parquet"])
    trials: dict[int, list[Trial]] = {}
    by_size: dict[int, list[Trial]] = {}
    for removals in REMOVALS:
        share = removals * len(image_bytes) / NUM_ROWS
        num = max(1, round(max(share, min(removals, num_shards / 8))))
        if num not in by_size:
            rng = np.random.default_rng(num)
            draws = [rng.choice(len(image_bytes), num, replace=False) for _ in range(-(-LEAST // num))]
            by_size[num] = [trial(work, work / "base", store, layout, image_bytes, rows) for rows in draws]
        trials[removals] = by_size[num]
    for name in ("base", "cas"):
        shutil.rmtree(work / name)
    print(f"{layout}: {num_shards} shards, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return trials


def first_pictures(work: Path, layout: Layout) -> str:
    """What it takes to remove a shard's first picture, whose chunk the store is asked for first; in Markdown."""
    image_bytes = make_slice(work / "base", layout, 1)
    store, folder = Store(work / "cas"), work / "base" / FOLDERS[layout.fmt] / layout.layer
    store.send([path for path in folder.iterdir() if path.suffix in (".tar", ".parquet") and path.stem != "index"])
    sent = [
        trial(work, work / "base", store, layout, image_bytes, np.array([0]), known=known).shards / MB
        for known in (False, True)
    ]
    for name in ("base", "cas"):
        shutil.rmtree(work / name)
    return f"{layout.fmt}: {sent[0]:.2f} MB from another machine, {sent[1]:.2f} MB from the one that had sent it"


def shard_rows(found: dict[Layout, dict[int, list[Trial]]], layer: str) -> list[list[str]]:
    """The table of a layer: bytes sent beside those removed, and beside the layer's."""
    rows = []
    for layout, trials in found.items():
        if layout.layer != layer:
            continue
        row = [layout.fmt, f"{layout.real_bytes / MB:.0f}", f"{sum(layout.counts().values()):,}"]
        if layout.fmt == "parquet":
            row.append(f"{min(layout.group_bytes / MEAN_BYTES[layer], layout.group_rows, layout.rows_per_shard):.0f}")
        else:
            row.append("")
        for which in trials.values():
            removed, sent = sum(one.removed for one in which), sum(one.shards for one in which)
            beside = (sent + sum(one.sidecars for one in which)) / removed
            row.append(f"{sent / removed:.1f}" + (f" ({beside:.1f})" if layout.fmt == "wds" else ""))
        for removals in (REMOVALS[0], REMOVALS[-1]):
            which = trials[removals]
            each = sum(one.shards for one in which) / sum(one.num for one in which)
            row.append(f"{each * removals / NUM_ROWS / MEAN_BYTES[layer]:.4%}")
        row += [f"{layout.touched(removals):.0%}" for removals in REMOVALS]
        rows.append(row)
    return rows


def report_shards(found: dict[Layout, dict[int, list[Trial]]], layer: str) -> str:
    """The same in Markdown."""
    header = ["format", "shard, MB", "shards", "rows a group", *(f"{n:,} removed: x" for n in REMOVALS)]
    header += [f"of the layer, {n:,}" for n in (REMOVALS[0], REMOVALS[-1])]
    header += [f"whole files, {n:,}" for n in REMOVALS]
    return common.markdown_table(header, shard_rows(found, layer))


WAYS: dict[str, dict[str, Any] | None] = {
    "as it is: snappy, pages by content": None,
    "zstd, pages by content": {"compression": "zstd", "use_content_defined_chunking": parquet.CONTENT_DEFINED_CHUNKING},
    "uncompressed, pages by content": {
        "compression": "none", "use_content_defined_chunking": parquet.CONTENT_DEFINED_CHUNKING
    },
    "uncompressed": {"compression": "none"},
}  # fmt: skip
"""Ways to write the sample table."""


def fixed_costs(work: Path, layout: Layout) -> str:
    """What a takedown sends beside shards: the sample table in several ways, and all other files, in Markdown."""
    drops = {n: np.random.default_rng(n).choice(NUM_ROWS, n, replace=False) for n in (0, *REMOVALS)}
    files: dict[str, list[Path]] = {name: [] for name in (*WAYS, "sidecars (idx and others)", "manifest", "documents")}
    for num, drop in drops.items():
        out = work / f"fixed-{num}"
        release.seal(out, layout.fmt, [whole_layer(layout, drop)])
        folder = out / FOLDERS[layout.fmt]
        table = folder / layout.layer / "index.parquet"
        for number, (name, options) in enumerate(WAYS.items()):
            files[name].append(table if options is None else rewritten(table, out / f"{number}.parquet", options))
    rows = []
    for name in WAYS:
        store = Store(work / "cas")
        store.send(files[name][:1])
        sent = []
        for path in files[name][1:]:
            copy = store.copy(work / "store")
            sent.append(copy.send([path]).total_bytes_uploaded / MB)
            shutil.rmtree(work / "store")
        shutil.rmtree(work / "cas")
        rows.append([name, f"{files[name][0].stat().st_size / MB:.1f}", *(f"{one:.1f}" for one in sent)])
    folder = work / "fixed-0" / FOLDERS[layout.fmt]
    others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "index.parquet"]
    for what, names in (("`.idx` and other sidecars, whole", None), ("manifest, card, Croissant, whole", folder)):
        total = sum(path.stat().st_size for path in others if (path.parent == folder) == (names is not None)) / MB
        rows.append([what, f"{total:.2f}", *([f"{total:.2f}"] * len(REMOVALS) if names else [""] * len(REMOVALS))])
    for num in drops:
        shutil.rmtree(work / f"fixed-{num}")
    return common.markdown_table(["file", "MB", *(f"sent, MB: {n:,} removed" for n in REMOVALS)], rows)


def rewritten(table: Path, path: Path, options: dict[str, Any]) -> Path:
    """A sample table written in another way, in row groups of as many rows."""
    whole = pq.read_table(table, partitioning=None)
    with pq.ParquetWriter(path, whole.schema, use_dictionary=["split", "file"], **options) as writer:
        for start in range(0, whole.num_rows, 65_536):
            writer.write_table(whole.slice(start, 65_536))
    return path


def layouts(quick: bool) -> list[Layout]:
    """What is measured: every shard size in both formats, and row groups at the default one."""
    sizes = [64 * MB] if quick else [16 * MB, 64 * MB, 256 * MB, release.SHARD_BYTES]
    found = [
        Layout(layer=layer, fmt=fmt, shard_bytes=size) for layer in MEAN_BYTES for fmt in FORMATS for size in sizes
    ]
    if not quick:
        at = sizes[-2]
        found += [Layout(layer="b-t4sa", fmt="parquet", shard_bytes=at, group_bytes=n << 20) for n in (8, 16)]
        found += [Layout(layer="b-t4sa-256", fmt="parquet", shard_bytes=at, group_rows=n) for n in (128, 4096)]
    return found


FORMATS = ("wds", "parquet")


def main() -> None:
    """Measure, and print Markdown for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=0.25, help="of a slice; it has one shard at least")
    parser.add_argument("--quick", action="store_true", help="one shard size, no fixed costs")
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder), 3 GB at most")
    chosen = parser.parse_args()
    print(f"Command: `{' '.join(['python benchmarks/takedown.py', *sys.argv[1:]])}`\n")
    print(common.describe_machine(("t4sa-data", "hf-xet", "pyarrow")))
    print(f"Input: slices of {chosen.gigabytes} GB or one shard, random pictures; {LEAST} removals a figure at least.")
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as name:
        work = Path(name)
        os.environ["HF_HOME"] = str(work / "home")  # before the library is imported
        found = {layout: measure(work, layout, chosen.gigabytes * 1e9) for layout in layouts(chosen.quick)}
        for layer, mean in MEAN_BYTES.items():
            print(f"\n`{layer}`, {mean / 1e3:.0f} KB a picture:\n\n{report_shards(found, layer)}", flush=True)
        apart = sum(one.kept_apart for trials in found.values() for which in trials.values() for one in which)
        print(f"\nKnown chunks that were sent all the same, to keep files in few pieces: {apart / MB:.1f} MB in all.")
        if not chosen.quick:
            firsts = [Layout(layer="b-t4sa", fmt=fmt, shard_bytes=release.SHARD_BYTES) for fmt in FORMATS]
            lines = "; ".join(first_pictures(work, one) for one in firsts)
            print(f"\nThe first picture of a shard of {firsts[0].real_bytes / MB:.0f} MB, sent: {lines}.")
            layout = firsts[FORMATS.index("wds")]
            print(f"\nBeside shards, `b-t4sa` as tar, all rows:\n\n{fixed_costs(work, layout)}")


if __name__ == "__main__":
    main()
