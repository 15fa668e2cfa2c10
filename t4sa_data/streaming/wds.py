"""The recipe for those who want a `webdataset` pipeline over our tar shards."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from t4sa_data import catalog
from t4sa_data.errors import BadImage, BadOption, ConfigUnavailable, MissingDependency, ShardError
from t4sa_data.manifest import Manifest
from t4sa_data.pixels import decode_rgb
from t4sa_data.reading import open_release
from t4sa_data.reading.local import LocalRelease


def webdataset(
    path: str | os.PathLike[str] = "t4sa-wds",
    *,
    config: str = catalog.DEFAULT_CONFIG,
    split: str = "train",
    shuffle: int = 1000,
    seed: int = 0,
    decode: Literal["pil", "rgb"] | None = "pil",
) -> Any:
    """A `webdataset.WebDataset` over the tar shards of a local release: nodes and workers each get shards of their own,
    and a shard that was cut is an error, not fewer rows.

    Samples are dicts: `__key__`, `image` (PIL, RGB; uint8 [H, W, 3] for `rgb`; bytes for None), `label` (int), `json`
    (the other columns). Go on with `.map(...)`, `.to_tuple("image", "label")`, `.batched(...)` as with any pipeline.

    What it cannot do, and `t4sa_data.stream` can: go on in the middle of an epoch, give every rank the same number of
    batches, mix further than its buffer.

    Args:
        path: `t4sa-wds`, or a folder, as for `stream`; no URL.
        config: an image config.
        split: of the config.
        shuffle: samples in the shuffle buffer; 0 keeps the order, shards' included.
        seed: of the order of shards, which every epoch mixes anew, and of the buffer.
        decode: `pil`, `rgb` or None.

    Raises:
        ReleaseNotFound, UnknownConfig: no such release or config.
        ConfigUnavailable: the release has no tar shards, or lies behind a URL.
        ShardError: a shard is missing, or of another size than the manifest says.
        MissingDependency: webdataset is not installed.
    """
    try:
        import webdataset as wds
    except ModuleNotFoundError as error:
        raise MissingDependency("this needs webdataset", hint='pip install "t4sa-data[torch]"') from error
    if decode not in ("pil", "rgb", None):
        raise BadOption("no such decode", expected='"pil" | "rgb" | None', got=decode)
    urls = shard_paths(path, config, split)
    pipeline = wds.WebDataset(
        urls,
        shardshuffle=len(urls) if shuffle else False,
        detshuffle=bool(shuffle),  # from seed and epoch
        seed=seed,
        nodesplitter=_Split(len(urls)),
        handler=wds.reraise_exception,
        empty_check=False,  # said better, and before the first sample, by the split
    )
    pipeline = pipeline.map(_Sample(decode), handler=wds.reraise_exception)
    return pipeline.shuffle(shuffle, seed=seed) if shuffle else pipeline


def shard_paths(path: str | os.PathLike[str], config: str, split: str) -> list[str]:
    """The tar shards of a split, in release order, each of the size that the manifest says.

    Raises:
        ConfigUnavailable, ShardError: see `webdataset`.
    """
    name = "t4sa-wds" if os.fspath(path) == "t4sa" else os.fspath(path)
    if "://" not in name and (Path(name) / "t4sa-wds").is_dir():
        name = str(Path(name) / "t4sa-wds")
    release = open_release(name) if "://" not in name else None
    if not isinstance(release, LocalRelease) or release.manifest.format != "wds":
        raise ConfigUnavailable(
            "a webdataset pipeline reads the tar shards of a local release",
            got=name if release is None else f"format {release.manifest.format} in {release.where}",
            hint="t4sa_data.stream reads every format, and URLs; `t4sa prepare RAW` builds tar shards.",
        )
    return [str(_checked(release.folder, release.manifest, file)) for file in release.manifest.shards(config, split)]


def _checked(folder: Path, manifest: Manifest, file: Any) -> Path:
    path = manifest.path(folder, file)
    num_bytes = path.stat().st_size if path.is_file() else None
    if num_bytes != file.bytes:  # webdataset itself takes a tar that was cut at a header for a whole one
        raise ShardError(
            "a shard is missing or not of the size that the manifest says",
            expected=f"{file.bytes} bytes",
            got=num_bytes if num_bytes is not None else "no file",
            where=path,
            hint="Run `t4sa check`.",
        )
    return path


class _Split:
    """Shards for this node; an error where a worker would get none."""

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards

    def __call__(self, urls: Any, group: Any = None) -> Iterator[Any]:
        import webdataset as wds

        _, world_size, _, num_workers = wds.utils.pytorch_worker_info(group=group)
        if world_size * num_workers > self._num_shards:
            raise BadOption(
                "fewer shards than processes: some would get none",
                expected=f"at most {self._num_shards} nodes x workers",
                got=f"{world_size} x {num_workers}",
                hint="Fewer workers, smaller shards (`t4sa prepare --shard-bytes`), or t4sa_data.stream.",
            )
        yield from wds.split_by_node(urls, group=group)


class _Sample:
    """From the members of a tar to our sample."""

    def __init__(self, decode: str | None) -> None:
        self._decode = decode

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        made = {"__key__": sample["__key__"], "image": self._image(sample)}
        return made | {"label": int(sample["cls"]), "json": json.loads(io.BytesIO(sample["json"]).read())}

    def _image(self, sample: dict[str, Any]) -> Any:
        if self._decode is None:
            return sample["jpg"]
        try:
            image = decode_rgb(sample["jpg"])
        except BadImage as error:
            where = f"sample {sample['__key__']}, {sample.get('__url__', '')}"
            raise BadImage(error.what, reason=error.reason, where=where, hint="Run `t4sa check --deep`.") from error
        if self._decode == "pil":
            return image
        import numpy as np

        return np.asarray(image)
