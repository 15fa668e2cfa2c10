"""One task: some hundred candidates, their images in one pack file, in row order, and a table that says where.

Final outcomes go into the journal as they arrive. In the end the pack is written, then the table that names it, and the
journal goes. A pack's name tells its content, so a table never names bytes that are not its own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import pyarrow as pa

from builders.fetch import reasons
from builders.fetch.answers import has_phash
from builders.fetch.config import FetchConfig
from builders.fetch.journal import Entry, Journal, Outcome
from builders.state import read_arrow, write_arrow
from t4sa_data.files import atomic_file

TABLE = pa.schema(
    [
        ("tweet_id", pa.int64()),
        ("image_index", pa.int8()),
        ("url", pa.string()),
        ("reason", pa.string()),
        ("status", pa.int16()),
        ("sha256", pa.binary(32)),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""Of a partition; its metadata hold the policy and the pack's name."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Candidates of one task."""

    folder: Path
    name: str
    """A fingerprint of the rows."""
    tweet_id: tuple[int, ...]
    image_index: tuple[int, ...]
    urls: tuple[str | None, ...]
    """As they are asked for."""
    older: tuple[Path, ...] = ()
    """Tables of other partitions that may hold some of these URLs."""
    share: int = 1
    """Tasks that run at a time."""
    config: FetchConfig

    @property
    def table(self) -> Path:
        """What a finished task leaves: columns as `TABLE`."""
        return self.folder / f"{self.name}.arrow"


def run_partition(partition: Partition) -> Counter[str]:
    """Fetch what is not there yet, and write pack and table; how many rows failed in passing, by reason."""
    urls = list(dict.fromkeys(url for url in partition.urls if url))
    policy = partition.config.policy
    with Journal(partition.folder / f"{partition.name}.journal", policy) as journal:
        found = chain(earlier(partition, urls), journal.entries.items())
        judged = ((number, judge(entry, partition.config)) for number, entry in found)
        entries = {number: entry for number, entry in judged if entry is not None}
        todo = {number: urls[number] for number in range(len(urls)) if number not in entries}
        if todo:
            transient = asyncio.run(fetch_all(partition, todo, journal))
            entries |= journal.entries | {
                number: Entry(outcome=outcome, file=journal.path, offset=0, length=0, policy=policy)
                for number, outcome in transient.items()
            }
        table = write_pack(partition, urls, entries)
        write_arrow(partition.table, table.schema, [table])
        journal.path.unlink()
    pack = (table.schema.metadata or {}).get(b"pack", b"").decode()
    for path in partition.folder.glob(f"{partition.name}-*.images"):
        if path.name != pack:
            path.unlink(missing_ok=True)
    return Counter(reason for reason in table["reason"].to_pylist() if reason in reasons.TRANSIENT)


def earlier(partition: Partition, urls: list[str]) -> Iterable[tuple[int, Entry]]:
    """Final outcomes of earlier runs, by number of the URL."""
    numbers = {url: number for number, url in enumerate(urls)}
    for path in (*partition.older, partition.table):
        if not path.exists():
            continue
        table = read_arrow(path)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        for row in table.to_pylist():
            number = numbers.get(row["url"])
            if number is None or row["reason"] in reasons.TRANSIENT:
                continue
            outcome = Outcome(reason=row["reason"], status=row["status"], sha256=row["sha256"])
            pack = path.parent / metadata["pack"]
            offset, length = row["offset"] or 0, row["length"] or 0
            yield number, Entry(outcome=outcome, file=pack, offset=offset, length=length, policy=metadata["policy"])


def judge(entry: Entry, config: FetchConfig) -> Entry | None:
    """An outcome of an earlier run under today's settings; None: it has to be asked for again."""
    is_same_policy = entry.policy == config.policy
    if entry.outcome.reason is not None:
        return entry if is_same_policy or entry.outcome.reason not in reasons.OF_POLICY else None
    data = read_range(entry)
    if data is None or hashlib.sha256(data).digest() != entry.outcome.sha256:
        return None
    if is_same_policy:
        return entry
    phashes = {int(value, 16) for value in config.placeholder_phashes}
    is_placeholder = hashlib.sha256(data).hexdigest() in config.placeholders or (phashes and has_phash(data, phashes))
    reason = reasons.TOO_LARGE if entry.length > config.max_bytes else reasons.PLACEHOLDER if is_placeholder else None
    if reason is None:
        return entry
    return replace(entry, outcome=replace(entry.outcome, reason=reason), length=0)


def read_range(entry: Entry) -> bytes | None:
    """An entry's bytes; None: they are not there any more."""
    try:
        with entry.file.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.length)
    except FileNotFoundError:
        return None
    return data if len(data) == entry.length else None


async def fetch_all(partition: Partition, todo: dict[int, str], journal: Journal) -> dict[int, Outcome]:
    """Fetch URLs; final outcomes go into the journal, transient ones are returned."""
    from builders.fetch.client import Client  # with aiohttp: nothing else of the stage needs it

    transient: dict[int, Outcome] = {}
    async with Client(partition.config, partition.share, partition.folder) as client:

        async def one(number: int, url: str) -> None:
            outcome, data = await client.fetch(url)
            if outcome.reason in reasons.TRANSIENT:
                transient[number] = outcome
                return
            journal.add(number, outcome, data)
            if journal.is_sync_due:
                await asyncio.to_thread(journal.sync)

        async with asyncio.TaskGroup() as group:
            for number, url in todo.items():
                group.create_task(one(number, url))
    return transient


def write_pack(partition: Partition, urls: list[str], entries: dict[int, Entry]) -> pa.Table:
    """Write the images in row order, each URL's once; the table that names them."""
    kept = [number for number in range(len(urls)) if entries[number].outcome.reason is None]
    digest = hashlib.sha256(b"".join(entries[number].outcome.sha256 or b"" for number in kept)).hexdigest()
    path = partition.folder / f"{partition.name}-{digest[:16]}.images"
    offsets: dict[int, int] = {}
    if kept:
        with atomic_file(path) as sink:
            for number in kept:
                data = read_range(entries[number])
                if data is None:
                    raise FileNotFoundError(entries[number].file)
                offsets[number] = sink.tell()
                sink.write(data)
    numbers = {url: number for number, url in enumerate(urls)}
    rows = []
    for tweet_id, image_index, url in zip(partition.tweet_id, partition.image_index, partition.urls, strict=True):
        row: dict[str, object] = {"tweet_id": tweet_id, "image_index": image_index, "url": url}
        if url:
            entry, offset = entries[numbers[url]], offsets.get(numbers[url])
            outcome = entry.outcome
            row |= {"reason": outcome.reason, "status": outcome.status, "sha256": outcome.sha256, "offset": offset}
            row |= {"length": None if offset is None else entry.length}
        else:
            row |= {"reason": reasons.NO_URL}
        rows.append(row)
    metadata = {"policy": partition.config.policy, "pack": path.name if kept else ""}
    metadata |= {"first": str(partition.tweet_id[0]), "last": str(partition.tweet_id[-1])}
    return pa.Table.from_pylist(rows, schema=TABLE.with_metadata(metadata))
