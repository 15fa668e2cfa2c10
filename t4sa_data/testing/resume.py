"""Is a loader exact on resume? `assert_resume_exact` interrupts it after every batch and compares every byte.

For any loader with `__iter__`, `state_dict` and `load_state_dict`, ours or another.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = tuple[str, str]
"""What a sample's value is (type, dtype, shape), and its bytes' sha256 or, where it is short, the value itself."""
Batch = dict[str, list[Row]]
"""A global batch: field -> its rows, those of rank 0 first."""


def assert_resume_exact(
    make_loader: Callable[..., Any], *, world_sizes: Sequence[int] = (1, 2, 3), max_batches: int | None = None
) -> None:
    """Assert that a loader goes on exactly where it was, after any batch, twice in a row, on any number of ranks.

    One epoch is gone through on each number of ranks, and interrupted after every batch (and before the first). A state
    is loaded by new loaders for another number of ranks, which take one batch; their state is loaded by new loaders
    for a third, which go through the rest. The ranks' batches, put together in the order of ranks, must always be
    those of the first run, byte for byte. Costs about `len(world_sizes) / 2` epochs for each batch of an epoch.

        assert_resume_exact(lambda rank, world_size: t4sa_data.stream(
            "t4sa", batch_size=64, rank=rank, world_size=world_size), max_batches=20)

    Args:
        make_loader: makes a new loader; called with `rank=` and `world_size=` if it takes them. A batch is a mapping, a
            tuple or list of fields, or one field; a field is a tensor, an array or a list, samples along its first
            axis.
        world_sizes: numbers of ranks to change between. Ranks are loaders in this process, one after another. Only 1
            is tried where `make_loader` takes no rank.
        max_batches: look at so many batches of the epoch only; None: at all.

    Raises:
        AssertionError: says after which batches and on how many ranks it was interrupted, and what differed first.
    """
    takes_rank = _takes_rank(make_loader)
    sizes = list(world_sizes) if takes_rank else [1]
    if not sizes or min(sizes) < 1:
        raise ValueError(f"world_sizes: expected numbers of ranks from 1, got {list(world_sizes)}")

    def start(world_size: int, state: Any = None) -> _Ranks:
        ranks = [{"rank": rank, "world_size": world_size} if takes_rank else {} for rank in range(world_size)]
        return _Ranks([make_loader(**one) for one in ranks], state)

    expected: list[Batch] = []
    states: dict[int, list[Any]] = {}
    for number, world_size in enumerate(sizes if len(sizes) > 1 else sizes * 2):
        story = f"without an interruption, on {_ranks(world_size)}"
        batches, states[world_size] = start(world_size).go_through(max_batches, story)
        if number == 0:
            expected = batches
            assert expected, f"the loader gave no batch {story}: nothing can be tested"
        _compare(expected, batches, 0, max_batches, f"{story} (compared with {_ranks(sizes[0])})")
    for done, (place, world_size) in itertools.product(range(len(expected) + 1), enumerate(sizes)):
        # Over the batches, every number of ranks follows every other, and itself.
        second, third = sizes[(place + 1 + done) % len(sizes)], sizes[(place + 2 + 2 * done) % len(sizes)]
        story = f"interrupted after {done} batches on {_ranks(world_size)}, gone on with on {_ranks(second)}"
        left = len(expected) - done
        limit = 1 if left else None if max_batches is None else 0  # behind the last batch, nothing may come
        batches, after = start(second, states[world_size][done]).go_through(limit, story)
        _compare(expected[done : done + 1], batches, done, limit, story)
        if left:
            story += f", interrupted again after 1 batch, gone on with on {_ranks(third)}"
            limit = None if max_batches is None else max_batches - done - 1
            batches, _ = start(third, after[1]).go_through(limit, story)
            _compare(expected[done + 1 :], batches, done + 1, limit, story)


@dataclass
class _Ranks:
    """The loaders of all ranks, and a state that they begin with."""

    loaders: list[Any]
    state: Any = None

    def go_through(self, limit: int | None, story: str) -> tuple[list[Batch], list[Any]]:
        """Up to `limit` global batches, and the state before the first and after each of them."""
        if self.state is not None:
            for loader in self.loaders:
                loader.load_state_dict(_copy(self.state))
        iterators = [iter(loader) for loader in self.loaders]
        try:
            batches: list[Batch] = []
            states = [self._state(story, 0)]
            while limit is None or len(batches) < limit:
                parts = [next(iterator, _END) for iterator in iterators]
                ended = [rank for rank, part in enumerate(parts) if part is _END]
                if len(ended) == len(parts):
                    break
                assert not ended, f"{story}: rank {ended[0]} has {len(batches)} batches, other ranks have more"
                batches.append(_joined([_fields(part) for part in parts]))
                states.append(self._state(story, len(batches)))
            return batches, states
        finally:
            for iterator in iterators:
                if hasattr(iterator, "close"):
                    iterator.close()

    def _state(self, story: str, taken: int) -> Any:
        first, *others = [_copy(loader.state_dict()) for loader in self.loaders]
        for rank, state in enumerate(others, 1):
            assert state == first, (
                f"{story}, after {taken} batches: the state of rank {rank} is not that of rank 0: {state} and {first}"
            )
        return first


_END = object()


def _takes_rank(make_loader: Callable[..., Any]) -> bool:
    parameters = inspect.signature(make_loader).parameters
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return takes_all or {"rank", "world_size"} <= parameters.keys()


def _ranks(world_size: int) -> str:
    return f"{world_size} rank{'s' * (world_size != 1)}"


def _copy(state: Any) -> Any:
    """A state as a checkpoint gives it back: through JSON where it can go, else a copy."""
    try:
        made = json.loads(json.dumps(state))
    except (TypeError, ValueError):
        return copy.deepcopy(state)
    return made if made == state else copy.deepcopy(state)


def _fields(batch: Any) -> Batch:
    if isinstance(batch, Mapping):
        return {str(name): list(_rows(value)) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return {str(number): list(_rows(value)) for number, value in enumerate(batch)}
    return {"batch": list(_rows(batch))}


def _joined(parts: list[Batch]) -> Batch:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: [row for part in parts for row in part.get(name, ())] for name in names}


def _rows(value: Any) -> Iterator[Row]:
    """A field's samples."""
    if isinstance(value, list | tuple) or (hasattr(value, "dtype") and value.ndim):
        return (_row(one) for one in value)
    return iter([_row(value)])


def _row(value: Any) -> Row:
    kind = type(value).__name__
    if hasattr(value, "detach"):  # a tensor, on whatever device
        import torch

        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        kind = f"{value.dtype} {list(value.shape)}"
        shown = value.tolist() if value.numel() < 5 else None
    elif isinstance(value, np.ndarray | np.generic):
        data, kind = np.ascontiguousarray(value).tobytes(), f"{value.dtype} {list(value.shape)}"
        shown = value.tolist() if value.size < 5 else None
    else:
        data, shown = (value if isinstance(value, bytes) else repr(value).encode()), value
    words = repr(shown)
    # The bytes decide: two NaN look alike, and -0.0 equals 0.0.
    digest = hashlib.sha256(data).hexdigest()[:32]
    return kind, f"{words} ({digest[:8]})" if shown is not None and len(words) < 60 else digest


def _compare(expected: list[Batch], got: list[Batch], first: int, limit: int | None, story: str) -> None:
    """Fail on the first difference.

    Args:
        expected: batches of the first run.
        got: batches of this one.
        first: number of the first of them, from 0.
        limit: batches that were asked for; None: all that there are.
        story: what was done.
    """
    for number, (one, other) in enumerate(zip(expected, got, strict=False), first):
        for name in dict.fromkeys([*one, *other]):
            where = f"{story}: batch {number}, field {name!r}"
            assert name in one and name in other, f"{where} is {'missing' if name in one else 'new'}"
            for row, (mine, theirs) in enumerate(zip(one[name], other[name], strict=False)):
                assert mine == theirs, f"{where}, row {row}: expected {' '.join(mine)}, got {' '.join(theirs)}"
            counts = len(one[name]), len(other[name])
            assert counts[0] == counts[1], f"{where}: expected {counts[0]} rows, got {counts[1]}"
    is_short = len(got) < len(expected) or (limit is None and len(got) > len(expected))
    assert not is_short, (
        f"{story}: expected {len(expected)} batches from batch {first} to the end of the epoch, got {len(got)}"
    )
