"""The contestants of `loader.py` that are not ours, each set up as its documentation advises for speed.

    python loader_peers.py NAME decode|bytes FOLDER SAMPLES SECONDS    # prints one line of JSON
    python loader_peers.py write:PACKAGE FOLDER                        # writes a peer's files

Runs in peers' own environments: imports nothing of t4sa-data. Where the user chooses the decoder it is torchvision's
`decode_jpeg` and v2 resize with antialiasing, never PIL; torchcodec's decoder is about as fast.
Workers: one for each core, kept from epoch to epoch; for bytes, which cost more to send than to read, none where that
is faster (`NO_WORKERS`).
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BATCH, SIDE, BUFFER = 64, 224, 1000
NO_WORKERS = (
    "torchvision ImageFolder",
    "webdataset",
    "HF datasets, Parquet",
    "LitData",
    "MosaicML StreamingDataset",
)
"""Peers that give bytes faster without worker processes, up to twelve times, as measured with both."""


def decoded(data: bytes) -> Any:
    """uint8 [3, 224, 224] of a picture's bytes."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional

    image = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=ImageReadMode.RGB)
    return functional.resize(image, [SIDE, SIDE], antialias=True)


def decoded_in_dict(row: dict[str, Any]) -> dict[str, Any]:
    """The same for a sample that is a dict."""
    return {"image": decoded(row["image"]), "label": row["label"]}


def listed(rows: list[Any]) -> tuple[list[Any], list[int]]:
    """Collates samples of bytes without touching them."""
    return [_image(row) for row in rows], [row["label"] if isinstance(row, dict) else row[1] for row in rows]


def decoded_and_stacked(rows: list[Any]) -> tuple[Any, list[int]]:
    """Decodes and collates samples of bytes."""
    import torch

    images, labels = listed(rows)
    return torch.stack([decoded(image) for image in images]), labels


def _image(row: Any) -> Any:
    image = row["image"] if isinstance(row, dict) else row[0]
    return image["bytes"] if isinstance(image, dict) else image


def data_loader(dataset: Any, name: str, mode: str, collate: Any, **more: Any) -> Any:
    """PyTorch's DataLoader, set up for speed."""
    from torch.utils.data import DataLoader

    num = 0 if mode == "bytes" and name in NO_WORKERS else CORES
    return DataLoader(
        dataset, batch_size=BATCH, num_workers=num, persistent_workers=num > 0, collate_fn=collate, **more
    )


# Contestants: name -> what makes a loader, each of whose iterations is one epoch of batches (pictures, ...).


def image_folder(folder: Path, mode: str) -> Any:
    """torchvision's ImageFolder, with a loader that reads and decodes without PIL."""
    from torchvision.datasets import ImageFolder

    def read(path: str) -> bytes:
        return Path(path).read_bytes()

    dataset = ImageFolder(folder / "jpegs", loader=read)
    collate = listed if mode == "bytes" else decoded_and_stacked
    return data_loader(dataset, "torchvision ImageFolder", mode, collate, shuffle=True)


def webdataset(folder: Path, mode: str) -> Any:
    """webdataset's pipeline: shards mixed, a shuffle buffer, batches made in the workers (WebLoader)."""
    import webdataset as wds

    made = wds.WebDataset(sorted(map(str, (folder / "tars").glob("*.tar"))), shardshuffle=100, empty_check=False)
    made = made.shuffle(BUFFER).to_tuple("jpg", "cls")
    made = made.batched(BATCH, collation_fn=listed if mode == "bytes" else decoded_and_stacked)
    num = 0 if mode == "bytes" and "webdataset" in NO_WORKERS else CORES
    return wds.WebLoader(made, batch_size=None, num_workers=num, persistent_workers=num > 0)


def _hugging_face(name: str, mode: str, rows: Any) -> Any:
    rows = rows.shuffle(seed=0, buffer_size=BUFFER)
    return data_loader(rows, name, mode, listed if mode == "bytes" else decoded_and_stacked)


def hf_parquet(folder: Path, mode: str) -> Any:
    """`datasets`, streaming Parquet, without its own decoding (PIL). It sleeps 5 s at the end of an epoch, for the sake
    of its reader's threads: that is left out here, and would make it slower."""
    import datasets

    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
    files = sorted(map(str, (folder / "parquet").glob("*.parquet")))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    return _hugging_face("HF datasets, Parquet", mode, rows.decode(False))


def hf_tar(folder: Path, mode: str) -> Any:
    """`datasets`, streaming WebDataset tars, without its own decoding (PIL)."""
    import datasets

    files = sorted(map(str, (folder / "tars").glob("*.tar")))
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    rows = rows.decode(False).rename_columns({"jpg": "image", "cls": "label"}).select_columns(["image", "label"])
    return _hugging_face("HF datasets, tar", mode, rows)


def litdata(folder: Path, mode: str) -> Any:
    """LitData's StreamingDataset over its own chunks of 64 MB, decoded by the dataset's transform."""
    from litdata import StreamingDataLoader, StreamingDataset

    class Decoded(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return decoded_in_dict(super().__getitem__(index))

    dataset = (StreamingDataset if mode == "bytes" else Decoded)(str(folder / "litdata"), shuffle=True, drop_last=False)
    num = 0 if mode == "bytes" and "LitData" in NO_WORKERS else CORES
    more: dict[str, Any] = {"collate_fn": listed} if mode == "bytes" else {}
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=num, persistent_workers=num > 0, **more)


def mosaic(folder: Path, mode: str) -> Any:
    """MosaicML's StreamingDataset over its own uncompressed shards of 64 MB."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Decoded(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return decoded_in_dict(super().__getitem__(index))

    clean_stale_shared_memory()
    made = StreamingDataset if mode == "bytes" else Decoded
    dataset = made(local=str(folder / "mosaic"), shuffle=True, batch_size=BATCH)
    return data_loader(dataset, "MosaicML StreamingDataset", mode, listed if mode == "bytes" else None)


class Pipelines:
    """SPDL: a pipeline of threads for each epoch, over files; it has no format of its own. Decoding is torchvision's
    (SPDL's own needs an FFmpeg that is not in its package)."""

    def __init__(self, folder: Path, mode: str) -> None:
        self._paths = sorted((folder / "jpegs").rglob("*.jpg"))
        self._do = self._read if mode == "bytes" else self._decode

    @staticmethod
    def _read(paths: list[Path]) -> tuple[list[bytes], None]:
        return [path.read_bytes() for path in paths], None

    @staticmethod
    def _decode(paths: list[Path]) -> tuple[Any, None]:
        import torch

        return torch.stack([decoded(path.read_bytes()) for path in paths]), None

    def __iter__(self) -> Iterator[Any]:
        from spdl.pipeline import PipelineBuilder

        paths = random.sample(self._paths, len(self._paths))
        builder = PipelineBuilder().add_source(paths).aggregate(BATCH)
        pipeline = builder.pipe(self._do, concurrency=CORES).add_sink(4).build(num_threads=CORES)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()


def spdl(folder: Path, mode: str) -> Any:
    """SPDL; see `Pipelines`."""
    import torch

    torch.set_num_threads(1)  # as its documentation says: threads are the pipeline's
    return Pipelines(folder, mode)


def energon(folder: Path, mode: str) -> Any:
    """Megatron Energon over our own tar shards, whose `.nv-meta` it finds there. Read as a validation set: the training
    set repeats for ever, so that nothing could be counted; hence not shuffled, which costs it nothing."""
    from megatron import energon as me

    @me.stateless
    def as_it_is(sample: Any) -> Any:
        return sample

    class Encoder(me.DefaultTaskEncoder):
        decoder = None
        cookers = (me.Cooker(as_it_is),)

        def encode_sample(self, sample: Any) -> Any:
            return sample["jpg"] if mode == "bytes" else decoded(sample["jpg"])

        def batch(self, samples: list[Any]) -> Any:
            import torch

            return (list(samples) if mode == "bytes" else torch.stack(samples)), None

        def encode_batch(self, batch: Any) -> Any:
            return batch

    workers = me.WorkerConfig(rank=0, world_size=1, num_workers=CORES)
    path = folder / "release" / "t4sa-wds" / "b-t4sa"
    dataset = me.get_val_dataset(
        path, split_part="train", batch_size=BATCH, worker_config=workers, task_encoder=Encoder()
    )
    return me.get_loader(dataset)


PEERS: dict[str, tuple[str | None, Callable[[Path, str], Any]]] = {
    "torchvision ImageFolder": (None, image_folder),
    "webdataset": (None, webdataset),
    "HF datasets, Parquet": (None, hf_parquet),
    "HF datasets, tar": (None, hf_tar),
    "LitData": ("litdata", litdata),
    "MosaicML StreamingDataset": ("mosaicml-streaming", mosaic),
    "Megatron Energon": ("megatron-energon", energon),
    "SPDL": ("spdl", spdl),
}
"""Name -> package with an environment of its own (`loader_venvs`; None: ours has it), and what makes a loader."""


# Peers' own files.


def _jpegs(folder: Path) -> list[Path]:
    return sorted((folder / "jpegs").rglob("*.jpg"))


def litdata_sample(path: Path) -> dict[str, Any]:
    """What LitData stores of one file."""
    return {"image": path.read_bytes(), "label": int(path.parent.name)}


def write_litdata(folder: Path) -> None:
    """LitData's chunks."""
    from litdata import optimize

    files = _jpegs(folder)
    random.Random(0).shuffle(files)
    optimize(litdata_sample, files, str(folder / "litdata"), chunk_bytes="64MB", num_workers=CORES)


def write_mosaic(folder: Path) -> None:
    """MosaicML's shards."""
    from streaming import MDSWriter

    files = _jpegs(folder)
    random.Random(0).shuffle(files)
    columns = {"image": "bytes", "label": "int"}
    with MDSWriter(out=str(folder / "mosaic"), columns=columns, size_limit=1 << 26) as writer:
        for path in files:
            writer.write(litdata_sample(path))


# Measuring, ours too (`loader.py`).


def measure(loader: Iterable[Any], mode: str, num: int, seconds: float) -> dict[str, Any]:
    """Go through an epoch, in which workers start, then through whole ones until `seconds` are over; count what came.

    Args:
        loader: of batches: dicts with `image`, or tuples whose first is the pictures.
        mode: `decode` or `bytes`.
        num: samples of an epoch.
        seconds: at least, of the later epochs; one that was begun is finished.

    Returns:
        `first`: seconds from asking for the first batch to having it; `start`: of the whole first epoch; `samples`,
        `seconds`, `epochs`, `cpu` (processor seconds, of worker processes too): of the later ones; `bytes`: of all
        pictures in a later epoch (0 where decoded).
    """
    begin = time.perf_counter()
    _, _, first = _go_through(loader, mode, num)
    start, cpu = time.perf_counter(), processor_seconds()
    seen = epochs = num_bytes = 0
    while not epochs or time.perf_counter() - start < seconds:
        count, num_bytes, _ = _go_through(loader, mode, num)
        seen, epochs = seen + count, epochs + 1
    took = {"seconds": time.perf_counter() - start, "cpu": processor_seconds() - cpu}
    return {"first": first, "start": start - begin, "samples": seen, "epochs": epochs, "bytes": num_bytes} | took


def processor_seconds() -> float:
    """Of this process and all below it, those that have ended included (Linux; elsewhere of this one alone)."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(path.parent.name)] = int(values[1])
        ticks[int(path.parent.name)] = sum(map(int, values[11:15]))  # proc(5): utime, stime, cutime, cstime
    if not ticks:
        return time.process_time()
    family, before = {os.getpid()}, 0
    while len(family) > before:
        before = len(family)
        family |= {one for one, parent in parents.items() if parent in family}
    return sum(ticks[one] for one in family) / os.sysconf("SC_CLK_TCK")


def _go_through(loader: Iterable[Any], mode: str, num: int) -> tuple[int, int, float]:
    """One epoch: samples, bytes, and seconds until the first batch; stops where it is not the whole epoch."""
    seen, num_bytes, first, begin = 0, 0, 0.0, time.perf_counter()
    for batch in loader:
        images = batch["image"] if isinstance(batch, dict) else batch[0]
        if not seen:
            first = time.perf_counter() - begin
            _require_right(images, mode)
        seen += len(images)
        num_bytes += sum(map(len, images)) if mode == "bytes" else 0
    if seen != num:
        sys.exit(f"saw {seen} samples in an epoch of {num}")
    return seen, num_bytes, first


def _require_right(images: Any, mode: str) -> None:
    if mode == "bytes":
        right = bytes(images[0][:2]) == b"\xff\xd8"
    else:
        right = tuple(images.shape[1:]) == (3, SIDE, SIDE) and str(images.dtype) == "torch.uint8"
    if not right:
        sys.exit(f"not what was asked for: {type(images)} {getattr(images, 'shape', '')}")


def main() -> None:
    """Be one contestant, or write a peer's files."""
    name = sys.argv[1]
    if name.startswith("write:"):
        {"litdata": write_litdata, "mosaicml-streaming": write_mosaic}[name.removeprefix("write:")](Path(sys.argv[2]))
        return
    mode, folder, num, seconds = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    print(json.dumps(measure(PEERS[name][1](folder, mode), mode, num, seconds)), flush=True)


if __name__ == "__main__":
    main()
