"""The contestants of `loader.py` that are ours, and the limits: what the machine does without any loader.

python loader_ours.py NAME decode|bytes FOLDER SAMPLES SECONDS    # prints one line of JSON
"""

from __future__ import annotations

import json
import os
import queue
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loader_peers
from loader_peers import BATCH, CORES, SIDE


def ours(where: str, workers: int | str | None = None) -> Callable[[Path, str], Any]:
    """`t4sa_data.stream` as a user calls it; every sample once an epoch, mixed over the whole split."""

    def make(folder: Path, mode: str) -> Any:
        import t4sa_data

        decode = "cpu" if mode == "decode" else None
        path = folder / where
        return t4sa_data.stream(
            path, batch_size=BATCH, size=SIDE, decode=decode, tail="ragged", workers=workers, verify=False
        )

    return make


class Limit:
    """Decoding and resizing of bytes that are in memory already, with our decoder, on all cores, into batches that are
    there already; or reading ranges of the official archive, in a mixed order, and nothing else."""

    def __init__(self, folder: Path, mode: str) -> None:
        import t4sa_data
        from t4sa_data.streaming.engine import Epoch

        stream = t4sa_data.stream(folder / "raw" / "t4sa-inplace", batch_size=BATCH, tail="ragged")
        order = Epoch(stream.selection, stream.options, 0, 0, 1)
        self._mode, self._ranges = mode, [stream.selection.ranges(order[i][0]) for i in range(len(stream))]
        root = folder / "raw" / "t4sa-inplace" / stream.release.manifest.data_root
        self._files = {file: os.open(root / file, os.O_RDONLY) for file in stream.selection.files}
        self._data = [self._read(ranges) for ranges in self._ranges] if mode == "decode" else []

    def _read(self, ranges: Any) -> list[bytes]:
        return [os.pread(self._files[file], length, offset) for file, offset, length in ranges]

    def __iter__(self) -> Iterator[Any]:
        batches = list(range(len(self._ranges)))
        random.shuffle(batches)
        if self._mode == "bytes":
            yield from ((self._read(self._ranges[number]), None) for number in batches)
            return
        todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for number in [*batches, *[None] * CORES]:
            todo.put(number)
        threads = [threading.Thread(target=self._decode, args=(todo, done), daemon=True) for _ in range(CORES)]
        for thread in threads:
            thread.start()
        for _ in batches:
            yield done.get(), None
        for thread in threads:
            thread.join()

    def _decode(self, todo: Any, done: Any) -> None:
        """What a thread does: whole batches, each into the same memory."""
        import torch

        from t4sa_data.streaming.images import Augment, FastDecoder, Geometry, fit

        torch.set_num_threads(1)
        decode, geometry = FastDecoder(), Geometry(size=SIDE, resize="squash", augment=Augment())
        x_BCHW = torch.empty((BATCH, SIDE, SIDE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        while (number := todo.get()) is not None:
            data = self._data[number]
            for place, one in enumerate(data):
                x_BCHW[place] = fit(decode(one), geometry, None)
            done.put(x_BCHW[: len(data)])


LIMIT = "limit"
OURS: dict[str, Callable[[Path, str], Any]] = {
    LIMIT: Limit,
    "t4sa_data.stream, tar": ours("release/t4sa-wds"),
    "t4sa_data.stream, Parquet": ours("release/t4sa"),
    "t4sa_data.stream, in place": ours("raw/t4sa-inplace"),
    "t4sa_data.stream, tar, processes": ours("release/t4sa-wds", "processes"),
}


def main() -> None:
    """Be one contestant."""
    name, mode, folder, num, seconds = sys.argv[1:]
    loader = OURS[name](Path(folder), mode)
    print(json.dumps(loader_peers.measure(loader, mode, int(num), float(seconds))), flush=True)


if __name__ == "__main__":
    main()
