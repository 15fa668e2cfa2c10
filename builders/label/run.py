"""Label a file of tweets: streamed, in the input's order, a row for each row, whatever stands in it.

The output is Parquet: `tweet_id` int64 (null: it has none), `negative`, `neutral`, `positive` float32 and `reason`
(string): either three probabilities, or a reason of `inputs.REASONS` and nulls. Ids that repeat stay rows of their own.
Malformed lines (see `inputs`) have no row: they stop the work, or are counted with `skip_bad`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.engine import Local
from builders.label.folder import load_model, model_digest
from builders.label.inputs import Bad, Tweet, read_tweets
from builders.label.systems import CLASSES, one_thread
from t4sa_data.errors import BadOption, OutputError, SourceChanged
from t4sa_data.files import atomic_file

if TYPE_CHECKING:
    from builders.label.labeller import Labeller, Prior

Floats = npt.NDArray[np.float32]
CHUNK_ROWS = 8192
"""Rows that a worker gets at a time."""
FEW_CHUNKS = 4
"""Of an input with fewer, no process is worth its start."""
GROUP_ROWS = 65_536
"""Rows of a row group of the output, for any chunk and number of workers."""
SCHEMA = pa.schema([("tweet_id", pa.int64()), *((name, pa.float32()) for name in CLASSES), ("reason", pa.string())])


@dataclass(kw_only=True)
class Outcome:
    """What was done."""

    num_rows: int = 0
    """Of the output, and of the input without malformed lines."""
    by_reason: Counter[str] = field(default_factory=Counter)
    """Rows that are not labelled."""
    by_class: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    """Labelled rows by their most probable class, shape (3,)."""
    bad: Bad = field(default_factory=Bad)
    seconds: float = 0.0
    """All in all, the model's loading included."""

    @property
    def num_labelled(self) -> int:
        """Rows with probabilities."""
        return self.num_rows - sum(self.by_reason.values())

    def as_text(self) -> str:
        """A short table."""
        lines = [("rows", f"{self.num_rows:,}"), ("labelled", f"{self.num_labelled:,}")]
        lines += [(f"  {name}", f"{count:,}") for name, count in zip(CLASSES, self.by_class.tolist(), strict=True)]
        lines += [(reason, f"{count:,}") for reason, count in sorted(self.by_reason.items())]
        if self.bad.num_lines:
            lines.append(("malformed lines, left out", f"{self.bad.num_lines:,}"))
        speed = self.num_rows / self.seconds if self.seconds else 0
        lines += [("seconds", f"{self.seconds:,.1f}"), ("tweets/s", f"{speed:,.0f}")]
        width = max(len(name) for name, _ in lines)
        made = [f"{name:<{width}}  {value:>12}" for name, value in lines]
        return "\n".join(made + [f"  {what}" for what in self.bad.first])


def label_file(
    model: str | Path | Labeller,
    source: str | Path,
    out: str | Path,
    *,
    prior: Prior = "raw",
    workers: int = 1,
    chunk_rows: int = CHUNK_ROWS,
    skip_bad: bool = False,
    progress: Callable[[int], object] = lambda _rows: None,
) -> Outcome:
    """Label a file of tweets. The probabilities are the same (to 1e-6) for any `workers`, `chunk_rows` and order.

    Args:
        model: a model folder, or a labeller (then in this process only).
        source: tweets, see `inputs`.
        out: the Parquet file; it appears whole or not at all, and takes the place of one that is there.
        prior: `raw` or `uniform`, see `Labeller.predict_proba`.
        workers: processes, each with a model of its own, on one thread.
        chunk_rows: rows that are labelled together.
        skip_bad: count malformed lines, in place of an error.
        progress: gets the number of rows done, chunk by chunk.

    Raises:
        InputMissing, BadOption, MissingColumn, MalformedRow, TableError: of the input, see `inputs.read_tweets`.
        ModelFolderError: of the model.
        OutputError, DiskSpaceError: of the output.
        WorkerDied: a process was killed, or out of memory.
    """
    out, source = Path(out), Path(source)
    _check(out, source, workers, chunk_rows, model)
    done = Outcome(bad=Bad(skip=skip_bad))
    start = time.perf_counter()
    chunks = _chunks(read_tweets(source, done.bad), chunk_rows)
    first = list(islice(chunks, FEW_CHUNKS))
    found = _labelled(chain(first, chunks), model, prior, workers if len(first) == FEW_CHUNKS else 1)
    about: dict[str, str] = {"t4sa.prior": prior}
    if isinstance(model, str | Path):
        about["t4sa.model_sha256"] = model_digest(model)
    with closing(found), atomic_file(out) as sink, _Writer(sink, about) as writer:
        for tweets, probabilities in found:
            writer.write(_table(tweets, probabilities, done))
            progress(len(tweets))
    done.seconds = time.perf_counter() - start
    return done


def _check(out: Path, source: Path, workers: int, chunk_rows: int, model: object) -> None:
    if workers < 1 or chunk_rows < 1:
        raise BadOption("no such number", expected="workers and chunk_rows of at least 1", got=(workers, chunk_rows))
    if workers > 1 and not isinstance(model, str | Path):
        raise BadOption("a labeller cannot go to other processes", hint="Give its folder, or one worker.")
    if out.is_dir():
        raise OutputError("the output is a folder", where=out, hint="Name a Parquet file.")
    if out.exists() and source.exists() and out.samefile(source):
        raise BadOption("the output is the input", got=out)


def _chunks(tweets: Iterator[Tweet], size: int) -> Iterator[list[Tweet]]:
    chunk: list[Tweet] = []
    for one in tweets:
        chunk.append(one)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _labelled(
    chunks: Iterator[list[Tweet]], model: str | Path | Labeller, prior: Prior, workers: int
) -> Generator[tuple[list[Tweet], Floats], None, None]:
    """Chunks with their probabilities, in order; few are under way at a time, so that memory is flat."""
    from builders.label.labeller import Labeller

    labeller = model if isinstance(model, Labeller) else load_model(model)  # always: a fault shows before any work
    if isinstance(model, Labeller) or workers == 1:
        with one_thread():
            for chunk in chunks:
                yield chunk, labeller.predict_proba(_texts(chunk), prior)
        return
    waiting: deque[list[Tweet]] = deque()
    settings = (str(model), model_digest(model), prior)

    def tasks() -> Iterator[_Task]:
        for chunk in chunks:
            # The texts go with the task; ids and reasons wait here.
            waiting.append([Tweet(one.tweet_id, None, one.reason) for one in chunk])
            yield *settings, _texts(chunk)

    with Local(workers) as engine:
        for found in engine.run(_label, tasks()):
            yield waiting.popleft(), found


_Task = tuple[str, str, "Prior", list[str]]


def _texts(chunk: Sequence[Tweet]) -> list[str]:
    return [one.text for one in chunk if one.text is not None]


_loaded: dict[str, Labeller] = {}
"""Of a worker: the model by its digest."""


def _label(task: _Task) -> Floats:
    """In a worker. The model is loaded with its first chunk."""
    folder, digest, prior, texts = task
    if digest not in _loaded:
        if model_digest(folder) != digest:
            raise SourceChanged("the model changed while it was used", where=folder)
        _loaded[digest] = load_model(folder)
    with one_thread():  # of what is imported by now, torch among it
        return _loaded[digest].predict_proba(texts, prior)


def _table(tweets: Sequence[Tweet], found: Floats, done: Outcome) -> pa.Table:
    """A chunk's rows; counts them."""
    reasons = [one.reason for one in tweets]
    is_labelled = np.array([reason is None for reason in reasons], dtype=bool)
    whole = np.zeros((len(tweets), 3), dtype=np.float32)
    whole[is_labelled] = found
    columns = [pa.array(np.ascontiguousarray(whole[:, i]), mask=~is_labelled) for i in range(3)]
    done.num_rows += len(tweets)
    done.by_reason.update(reason for reason in reasons if reason)
    done.by_class += np.bincount(found.argmax(axis=1), minlength=3) if len(found) else 0
    ids = pa.array([one.tweet_id for one in tweets], pa.int64())
    return pa.table([ids, *columns, pa.array(reasons, pa.string())], schema=SCHEMA)


class _Writer:
    """A Parquet file whose row groups are of `GROUP_ROWS`."""

    def __init__(self, sink: Any, about: Mapping[str, str]) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetWriter(sink, SCHEMA.with_metadata(dict(about)), compression="zstd")
        self._waiting: list[pa.Table] = []
        self._num = 0

    def __enter__(self) -> _Writer:
        return self

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._num += len(table)
        while self._num >= GROUP_ROWS:
            whole = pa.concat_tables(self._waiting).combine_chunks()
            self._file.write_table(whole.slice(0, GROUP_ROWS), row_group_size=GROUP_ROWS)
            self._waiting, self._num = [whole.slice(GROUP_ROWS)], self._num - GROUP_ROWS

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._num:
            self._file.write_table(pa.concat_tables(self._waiting).combine_chunks(), row_group_size=GROUP_ROWS)
        if kind is None:
            self._file.close()
