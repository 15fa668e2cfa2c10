"""Inputs of the loader benchmarks: one release in every format, and the same samples as each peer wants them.

The samples are those of `train` of the release; peers get the very bytes, so everybody reads and decodes the same.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import common
import loader_venvs

SHARD_BYTES = 40_000_000
"""Shards of the small input: so that two processes have several each, as they would have of a real one."""
SHARDS = 8
"""Of peers that write their own files."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """What all contestants read."""

    folder: Path
    num: int
    """Samples of `train`."""
    num_bytes: int
    """Of their pictures."""
    line: str
    """Said in words."""
    missing: dict[str, str]
    """Peers that could not write their files -> why."""


def make_release(work: Path, images: Iterator[bytes], num: int, configs: tuple[str, ...] = ("b-t4sa",)) -> None:
    """A release of `num` images below `work`: `release/t4sa`, `release/t4sa-wds`, and `raw/t4sa-inplace`."""
    from builders.prepare import prepare
    from builders.run import PrepareConfig

    common.write_official(work / "raw", images, num, num, num)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = {"raw": work / "raw", "out": work / "release", "workers": cores, "shard_bytes": SHARD_BYTES}
    prepare(PrepareConfig(**settings, configs=configs))
    prepare(PrepareConfig(**settings, configs=("b-t4sa",), in_place=True))


def read_train(work: Path) -> Iterator[tuple[str, int, bytes]]:
    """Key, label and bytes of the samples of `train`, in release order."""
    import t4sa_data

    stream = t4sa_data.stream(work / "release", batch_size=64, shuffle=False, decode=None, workers=1)
    for batch in stream:
        yield from zip(batch["key"], batch["label"].tolist(), batch["image"], strict=True)


def make_input(work: Path, num_train: int, photos: Path) -> Input:
    """Everything, below `work`.

    Args:
        work: an empty folder.
        num_train: samples of `train`.
        photos: see `common.photo_images`.
    """
    num = -(-num_train * 9 // 7)  # `common` gives seven ninths to train
    images, line = common.photo_images(num, photos)
    make_release(work, images, num)
    samples = list(read_train(work))
    num_bytes = sum(len(data) for _, _, data in samples)
    missing = {}
    for name, write in WRITERS.items():
        write(work / name, samples)
    for package in ("litdata", "mosaicml-streaming"):  # these write with their own library, from the folder of JPEGs
        python = loader_venvs.python_of(package)
        if python is None:
            missing[package] = "pip cannot install it"
            continue
        command = [str(python), str(Path(__file__).with_name("loader_peers.py")), f"write:{package}", str(work)]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            missing[package] = (made.stderr.strip().splitlines() or ["failed"])[-1][:200]
            print(made.stderr[-2000:], file=sys.stderr)
    line = f"{len(samples):,} samples, {num_bytes / 1e6:.0f} MB ({line})"
    return Input(folder=work, num=len(samples), num_bytes=num_bytes, line=line, missing=missing)


Samples = list[tuple[str, int, bytes]]


def write_jpegs(folder: Path, samples: Samples) -> None:
    """A folder for each class, as `ImageFolder` reads."""
    for key, label, data in samples:
        path = folder / str(label) / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_tars(folder: Path, samples: Samples) -> None:
    """WebDataset shards that hold picture and label, nothing else: less to read than our own."""
    folder.mkdir()
    for number in range(SHARDS):
        with tarfile.open(folder / f"{number:03d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, label, data in samples[number::SHARDS]:
                for suffix, content in (("jpg", data), ("cls", b"%d" % label)):
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_parquet(folder: Path, samples: Samples) -> None:
    """Parquet by `datasets` itself, with its own choice of row groups."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    folder.mkdir()
    for number in range(SHARDS):
        rows = [
            {"image": {"bytes": data, "path": f"{key}.jpg"}, "label": label}
            for key, label, data in samples[number::SHARDS]
        ]
        made = datasets.Dataset.from_list(rows, features=features)
        made.to_parquet(folder / f"{number:03d}.parquet")


WRITERS: dict[str, Callable[[Path, Samples], None]] = {
    "jpegs": write_jpegs,
    "tars": write_tars,
    "parquet": write_parquet,
}
