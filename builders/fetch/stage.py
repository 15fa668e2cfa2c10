"""The stage: candidates are cut into partitions, each one task that fetches, packs and is never done again.

Where a partition ends is told by the tweets' ids alone: neither the number of workers nor a tweet more or less
elsewhere moves it. An image that was fetched once is taken from where it is, also when the candidates around it change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders.engine import Engine
from builders.fetch import reasons
from builders.fetch.config import FetchConfig
from builders.fetch.partition import Partition, run_partition
from builders.keys import Ints
from builders.state import State, fingerprint, read_arrow
from t4sa_data.errors import FetchIncomplete
from t4sa_data.files import sweep_temporary

FETCH_VERSION = 1
"""Bump when the same candidate would be cut or kept differently."""
MEAN_ROWS = 512
"""Candidates of a partition, on average: half a minute of work at polite limits."""
MOST_ROWS = 4 * MEAN_ROWS

FETCHED = pa.schema(
    [
        ("reason", pa.string()),
        ("status", pa.int16()),
        ("sha256", pa.binary(32)),
        ("file", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""One row a candidate. `reason` is null where it was fetched, a constant of `reasons` elsewhere; `status` is HTTP's,
null where there was no answer; `file`, `offset` and `length` are null where there is no image."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What became of the candidates."""

    rows: pa.Table
    """Columns as `FETCHED`, row for row."""
    files: tuple[Path, ...]
    """That column `file` counts in."""
    num_transient: int
    """Rows that failed in passing, within the share that may."""


def fetch(
    candidates: pa.Table,
    *,
    config: FetchConfig,
    state: State,
    engine: Engine,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], object] = lambda _: None,
) -> Fetched:
    """Fetch images by their URLs.

    Args:
        candidates: columns `tweet_id` (int64), `image_index` (int8) and `url` (text, null: there is none), ascending by
            the first two.
        config: limits and rules.
        state: where everything is kept.
        engine: where the work runs. Limits are divided among its workers.
        say: gets a line now and then.
        progress: called with the number of candidates done since.

    Raises:
        FetchIncomplete: more than `config.max_transient` of the candidates failed in passing. The next call tries
            those again, and only those.
    """
    folder = state.folder / f"fetch-v{FETCH_VERSION}"
    partitions = list(cut(candidates, config, folder))
    allowed = int(config.max_transient * candidates.num_rows)
    answered = {partition.name: transient_of(partition) for partition in partitions if is_answered(partition)}
    missing = [partition for partition in partitions if answered.get(partition.name, 1)]
    if len(answered) < len(partitions) or sum(answered.values()) > allowed:
        folder.mkdir(parents=True, exist_ok=True)
        sweep_temporary(folder)
        num_missing = sum(len(partition.urls) for partition in missing)
        say(f"fetch: {num_missing:,} of {candidates.num_rows:,} candidates, as {config.user_agent}")
        say_limits(config, engine.workers, say)
        progress(candidates.num_rows - num_missing)
        _run(with_older(missing, partitions, folder, engine.workers), partitions, allowed, engine, progress)
    else:
        progress(candidates.num_rows)
    _clear_left_over(partitions, folder)
    return _gather(partitions)


def cut(candidates: pa.Table, config: FetchConfig, folder: Path) -> Iterator[Partition]:
    """Partitions of the candidates, in their order."""
    tweet_id = candidates["tweet_id"].to_numpy()
    image_index = candidates["image_index"].to_numpy()
    for start, stop in bounds(tweet_id):
        urls = candidates["url"].slice(start, stop - start).to_pylist()
        if config.twitter_original:
            urls = [url and original_of(url) for url in urls]
        ids, indices = tuple(tweet_id[start:stop].tolist()), tuple(image_index[start:stop].tolist())
        name = fingerprint(FETCH_VERSION, ids, indices, urls)
        yield Partition(folder=folder, name=name, tweet_id=ids, image_index=indices, urls=tuple(urls), config=config)


def bounds(tweet_id: Ints) -> Iterator[tuple[int, int]]:
    """First row and the one behind the last of each partition: one begins where a hash of the tweet's id says so.

    Args:
        tweet_id: ascending, shape (n,).

    >>> list(bounds(np.array([5, 5, 9], dtype=np.int64)))
    [(0, 3)]
    """
    if not len(tweet_id):
        return
    mixed = tweet_id.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finaliser of SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    is_first = (mixed >> np.uint64(31)) % np.uint64(MEAN_ROWS) == 0
    is_first[1:] &= tweet_id[1:] != tweet_id[:-1]
    is_first[0] = True
    starts = [*np.flatnonzero(is_first).tolist(), len(tweet_id)]
    for start, stop in pairwise(starts):
        for first in range(start, stop, MOST_ROWS):
            yield first, min(first + MOST_ROWS, stop)


def original_of(url: str) -> str:
    """The URL of the uploaded size of a picture of Twitter; any other URL as it is.

    >>> original_of("https://pbs.twimg.com/media/A.jpg:large"), original_of("https://pbs.twimg.com/media/A?format=png")
    ('https://pbs.twimg.com/media/A.jpg?name=orig', 'https://pbs.twimg.com/media/A?format=png&name=orig')
    """
    from yarl import URL

    try:
        parsed = URL(url)
    except ValueError:
        return url
    if parsed.host != "pbs.twimg.com" or not parsed.path.startswith("/media/"):
        return url
    path, _, size = parsed.path.rpartition(":")
    if path and size.isalnum():
        parsed = parsed.with_path(path, keep_query=True)
    return str(parsed.update_query(name="orig"))


def is_answered(partition: Partition) -> bool:
    """Whether a run under these settings went through it, transient failures or not."""
    try:
        metadata = read_arrow(partition.table).schema.metadata
    except FileNotFoundError:
        return False
    pack = metadata[b"pack"].decode()
    return metadata[b"policy"].decode() == partition.config.policy and (not pack or (partition.folder / pack).exists())


def transient_of(partition: Partition) -> int:
    """Rows of a partition that failed in passing."""
    return sum(row in reasons.TRANSIENT for row in read_arrow(partition.table)["reason"].to_pylist())


def with_older(missing: Sequence[Partition], all_: Sequence[Partition], folder: Path, workers: int) -> list[Partition]:
    """Tasks that know their share of the limits, and where images of earlier candidates are."""
    today = {partition.name for partition in all_}
    older = [path for path in sorted(folder.glob("*.arrow")) if path.stem not in today]
    metadata = [read_arrow(path).schema.metadata for path in older]
    first = np.array([int(some[b"first"]) for some in metadata], dtype=np.int64)
    last = np.array([int(some[b"last"]) for some in metadata], dtype=np.int64)
    share = min(workers, len(missing))
    made = []
    for partition in missing:
        hits = np.flatnonzero((first <= partition.tweet_id[-1]) & (last >= partition.tweet_id[0]))
        made.append(replace(partition, share=share, older=tuple(older[i] for i in hits.tolist())))
    return made


def _run(
    tasks: Sequence[Partition],
    partitions: Sequence[Partition],
    allowed: int,
    engine: Engine,
    progress: Callable[[int], object],
) -> None:
    """Run the tasks, and end as soon as it is clear that too many candidates fail in passing."""
    num_transient, seen = 0, Counter[str]()
    results = engine.run(run_partition, tasks)
    for task, found in zip(tasks, results, strict=True):
        seen.update(found)
        num_transient = seen.total()
        progress(len(task.urls))
        if num_transient > allowed:
            break
    else:
        return
    total = sum(len(partition.urls) for partition in partitions)
    raise FetchIncomplete(
        "too many images could not be fetched for now",
        expected=f"at most {allowed:,} of {total:,} candidates",
        got=f"{num_transient:,} so far: {', '.join(f'{reason} {num:,}' for reason, num in seen.most_common())}",
        hint="Run the same command again, later: it tries those again, and asks for nothing that it has.",
    )


def _clear_left_over(partitions: Sequence[Partition], folder: Path) -> None:
    """Remove journals and packs that a process left which was killed just behind its partition's last step."""
    packs = {partition.name: pack_of(partition) for partition in partitions}
    for path in folder.glob("*"):
        name, _, rest = path.stem.partition("-")
        is_journal, is_pack = path.suffix == ".journal", path.suffix == ".images" and bool(rest)
        if name in packs and (is_journal or (is_pack and path.name != packs[name])):
            path.unlink(missing_ok=True)


def pack_of(partition: Partition) -> str:
    """Name of a partition's pack; empty: it has no image."""
    return str(read_arrow(partition.table).schema.metadata[b"pack"].decode())


def say_limits(config: FetchConfig, workers: int, say: Callable[[str], None]) -> None:
    """Say what a host will notice, and what the settings miss."""
    say(
        f"fetch: at most {config.host_requests_per_second:g} requests a second and "
        f"{max(config.host_connections, workers)} connections to one host, "
        f"robots.txt {'honoured' if config.respect_robots else 'NOT honoured'}"
    )
    if not config.contact:
        say("fetch: no contact is set: hosts like to know whom to write to")
    if config.unsafe_allow_loopback:
        say("fetch: unsafe_allow_loopback is set: for tests only")


def _gather(partitions: Sequence[Partition]) -> Fetched:
    """All tables, row for row, with the packs they name."""
    files, tables = list[Path](), [FETCHED.empty_table()]
    for partition in partitions:
        table = read_arrow(partition.table)
        pack = (table.schema.metadata or {})[b"pack"].decode()
        is_here = table["offset"].is_valid()
        number = pa.scalar(len(files), pa.int32())
        file = pc.if_else(is_here, number, pa.scalar(None, pa.int32()))
        columns = {name: file if name == "file" else table[name] for name in FETCHED.names}
        tables.append(pa.table(columns, schema=FETCHED))
        if pack:
            files.append(partition.folder / pack)
    rows = pa.concat_tables(tables).combine_chunks()
    num_transient = sum(reason in reasons.TRANSIENT for reason in rows["reason"].to_pylist())
    return Fetched(rows=rows, files=tuple(files), num_transient=num_transient)
