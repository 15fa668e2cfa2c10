"""Disk given back while shards are written: files of an archive that passed by lose what is in a shard already.

Their images stand in descending release order and shards are written in ascending order, so what was written stands at
a file's end, and the file is cut there. At no time is there much more on the disk than the pictures once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from builders.layers import SOURCE
from builders.state import read_arrow
from builders.write import Job, is_done
from t4sa_data.errors import InputMissing


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Jobs in the order of the release; those of all splits and layers side by side, where they give back."""
    if not any(job.gives_back for job in jobs):
        return list(jobs)
    return sorted(jobs, key=lambda job: (job.task.index + 1) / job.task.count)


def bytes_given_back(jobs: Sequence[Job], out: Path, workers: int) -> int:
    """Bytes that are given back on the disk of `out` before the last shards need them, about."""
    mine = [job for job in jobs if job.gives_back and not is_done(job)]
    if not mine or not share_disk(mine[0].archives[0].parent, out):
        return 0
    ahead = 2 * workers * max(job.num_bytes for job in mine)  # jobs begin before others are done
    return max(0, sum(job.num_bytes for job in mine) - ahead)


def share_disk(one: Path, other: Path) -> bool:
    """Whether two folders are, or will be, on one disk."""
    devices = []
    for folder in (one, other):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        devices.append(there.stat().st_dev)
    return devices[0] == devices[1]


class GivingBack:
    """Cuts files as jobs are done.

    Args:
        jobs: to be done, in this order.

    Raises:
        InputMissing: what a job needs was given back before: its shard was there, and is not any more.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._files: list[Path] = list(dict.fromkeys(path for job in jobs if job.gives_back for path in job.archives))
        number = {path: i for i, path in enumerate(self._files)}
        self._needed = np.zeros((len(jobs) + 1, len(self._files)), dtype=np.int64)
        """Bytes of each file that the jobs from here on need, shape (jobs + 1, files)."""
        for i in reversed(range(len(jobs))):
            self._needed[i] = self._needed[i + 1]
            if jobs[i].gives_back:
                rows = read_arrow(jobs[i].file).slice(jobs[i].task.start, jobs[i].task.num_rows)
                archive, offset, length = (rows[name].to_numpy() for name in SOURCE)
                file = np.array([number[path] for path in jobs[i].archives])[archive]
                np.maximum.at(self._needed[i], file, offset + length)
        self._num_done = 0
        self._require()

    def _require(self) -> None:
        for path, needed in zip(self._files, self._needed[0].tolist(), strict=True):
            found = path.stat().st_size if path.exists() else 0
            if found < needed:
                raise InputMissing(
                    "pictures that were given back when their shards were there are needed again",
                    expected=f"{needed} bytes",
                    got=found,
                    where=path,
                    hint=f"Remove {path.parent} and run `t4sa get` again: the archive passes once more.",
                )

    def done(self) -> None:
        """The next job is done: its shards have their names."""
        self._num_done += 1
        for path, needed in zip(self._files, self._needed[self._num_done].tolist(), strict=True):
            if path.exists() and path.stat().st_size > needed:
                os.truncate(path, needed)
