"""Streaming: `stream` gives batches of tensors from a release, wherever it lies, in an order that is arithmetic.

The way of a sample: `reading` finds the release, `selection` (with `where`, `labels`, `weights`) chooses rows of its
sample table, `plan` orders them, `engine` hands them out, `work` checks and decodes, `images` and `placing` know
pixels, `loader` gives the batches, `device` (with `feeding`, `apart`) brings them to a GPU, `state` says where an epoch
is.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t4sa_data import catalog
from t4sa_data.errors import BadOption, ConfigUnavailable, MissingDependency
from t4sa_data.plan import Shuffle, Tail
from t4sa_data.reading import open_release
from t4sa_data.streaming.labels import Labels
from t4sa_data.streaming.selection import select
from t4sa_data.streaming.weights import weights_of, with_column
from t4sa_data.streaming.where import Where, as_where

if TYPE_CHECKING:
    from t4sa_data.streaming.images import Augment, Resize
    from t4sa_data.streaming.loader import Stream

__all__ = ["Labels", "Where", "select", "stream"]


def stream(
    path: str | os.PathLike[str] = "t4sa",
    *,
    config: str = catalog.DEFAULT_CONFIG,
    split: str = "train",
    batch_size: int,
    size: int = 224,
    resize: Resize = "squash",
    augment: Augment | Literal["flip"] | None = None,
    transform: Callable[..., Any] | None = None,
    shuffle: Literal["full", "block"] | bool = "full",
    tail: Tail | None = None,
    seed: int = 0,
    epoch: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    where: Where | Mapping[str, Any] | Any = None,
    weights: Literal["balanced"] | str | Mapping[str, float] | Sequence[float] | None = None,
    labels: Labels | str | os.PathLike[str] | None = None,
    columns: Sequence[str] = (),
    workers: int | str | None = None,
    decode: Literal["cpu", "cuda"] | None = "cpu",
    verify: bool | None = None,
    token: bool | str | None = None,
    offline: bool = False,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> Stream:
    """Batches of a split, in the same order on any number of ranks, workers and formats, to be gone on with anywhere.

        for batch in stream("t4sa", batch_size=256, augment="flip"):
            batch["image"], batch["label"]

    A batch is a dict: `image` uint8 [B, 3, S, S] (RGB, channels_last; a list of B where `resize="none"` or a transform
    gives other things), `label` int64 [B], `probabilities` float32 [B, 3] (NaN where unknown), `key` list of B strings,
    `position` int64 [B] (row of the split in release order); `original_label` int64 [B] where `label` is not the
    release's; lists of B for `columns`. B is this rank's part of `batch_size`.

    Args:
        path: `t4sa`; a folder: the release's parent, one of its two, an in-place one; or a URL of any of them
            (`https://`, `hf://datasets/OWNER/NAME`, `s3://`, `gs://`).
        config: an image config of the catalog.
        split: of the config.
        batch_size: of the global batch: all ranks together.
        size: side of the pictures, px.
        resize: `squash` (both sides to `size`, as the authors did), `center_crop` (short side to `size`, the middle),
            `random_resized_crop`, or `none`.
        augment: `Augment(...)`, or "flip"; drawn from (seed, epoch, position), so the same on any number of ranks.
        transform: called with each picture, uint8 [3, H, W], in a worker; with `generator=` too if it takes one.
        shuffle: `full` (local disks; also True), `block` (remote shards: whole blocks are read), or False.
        tail: what happens to the last, incomplete batch: `drop`, `wrap` (filled from the epoch's beginning), `ragged`
            (short; all ranks together have each sample once). None: drop when shuffled, else ragged.
        seed: of order, augmentation and weighted sampling.
        epoch: to begin with.
        rank: of this process; None: torch.distributed's, else torchrun's, else 0.
        world_size: ranks; None: as `rank`.
        where: which samples take part: `Where(...)`, its fields as a dict, filters as `[("width", ">=", 224)]`, or a
            pyarrow expression.
        weights: sample with replacement, as many as there are: `balanced` (all classes alike), a weight for each class,
            the name of a column, or a weight for each selected sample.
        labels: labels of another source: a Parquet or CSV file, or `Labels(...)`.
        columns: further columns of the sample table in each batch.
        workers: threads, or `processes` / `processes:4` for transforms that spend their time in Python. None: one
            thread for each core of this process's share of the machine.
        decode: `cpu`; `cuda` (nvJPEG: other pixels by chroma upsampling; needs `.to("cuda")`); None: batches hold
            bytes.
        verify: check the sha256 of each picture; None: of remote ones.
        token: for the Hub; None: as logged in.
        offline: never open a socket.
        cache: folder of what was fetched; None: `$T4SA_CACHE`, else the platform's.
        cache_bytes: bytes that the cache may hold; None: no limit but the disk's.

    Raises:
        BadOption: an argument that makes no sense, or not with the others.
        UnknownConfig, ConfigUnavailable, NoRows, UnmatchedLabels: no such samples here.
        ReleaseNotFound, ManifestError, ShardError: no readable release there.
        MissingDependency: torch is not installed.
    """
    try:
        from t4sa_data.streaming import loader
        from t4sa_data.streaming.images import Augment, Geometry
        from t4sa_data.streaming.options import Options, parse_workers
        from t4sa_data.streaming.work import Recipe
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torch":
            raise
        raise MissingDependency("stream needs torch", hint='pip install "t4sa-data[torch]"') from error
    if isinstance(columns, str):
        raise BadOption("columns is a list of names", got=repr(columns))
    shuffled: Shuffle | None = "full" if shuffle is True else (shuffle or None)
    if shuffled not in ("full", "block", None):
        raise BadOption("no such shuffle", expected="full | block | False", got=shuffle)
    if augment is not None and not isinstance(augment, Augment) and augment != "flip":
        raise BadOption("no such augment", expected='Augment(...) or "flip"', got=augment)
    made = augment if isinstance(augment, Augment) else Augment(flip=augment == "flip")
    recipe = Recipe(decode=decode, geometry=Geometry(size=size, resize=resize, augment=made), transform=transform)
    release = open_release(path, token=token, offline=offline, cache=cache, cache_bytes=cache_bytes)
    selection = select(
        release,
        require_images(config),
        split,
        where=as_where(where),
        labels=labels if isinstance(labels, Labels) or labels is None else Labels(path=Path(labels)),
        columns=with_column(columns, weights),
        with_sha256=release.is_remote if verify is None else verify,
    )
    num_workers, use_processes = parse_workers(workers)
    options = Options(
        batch_size=operator.index(batch_size),
        shuffle=shuffled,
        tail=tail or ("drop" if shuffled else "ragged"),
        seed=operator.index(seed),  # numpy's integers are no JSON
        weights=weights_of(weights, selection),
        recipe=recipe,
        columns=tuple(columns),
        num_workers=num_workers,
        use_processes=use_processes,
        rank=rank,
        world_size=world_size,
    )
    return loader.Stream(release, selection, options, epoch=operator.index(epoch))


def require_images(config: str) -> str:
    """The name of an image config.

    Raises:
        ConfigUnavailable: it is one of texts.
    """
    known = catalog.CONFIGS.get(config)
    if known is not None and known.kind != "image":
        raise ConfigUnavailable(
            "only configs with images are streamed", got=config, hint=f'load_dataset("t4sa", "{config}") reads it.'
        )
    return config
