"""`T4SA`: the map-style dataset that torchvision's users and `DataLoader` expect."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torchvision.datasets import VisionDataset

from t4sa_data import catalog, places
from t4sa_data.errors import BadImage, ReleaseNotFound
from t4sa_data.pixels import decode_rgb
from t4sa_data.reading import OpenRelease, Source, open_release
from t4sa_data.streaming.selection import select
from t4sa_data.streaming.where import Where, as_where


class T4SA(VisionDataset):  # type: ignore[misc]
    """A split of T4SA, by index: `dataset[i]` is a picture (PIL, RGB) and its label, after the transforms.

    For training, `t4sa_data.stream` is faster, and goes on exactly where it was; this is for everything that wants to
    index: `Subset`, `random_split`, `WeightedRandomSampler`, and a `DataLoader` with any number of workers.

    Args:
        root: folder of a release (or the one above, or an in-place one), a URL of one, or `t4sa` for where releases
            are looked for.
        split: of the config.
        transform: called with the picture.
        target_transform: called with the label.
        download: if there is no release in `root`, fetch it from the Hub into `root/t4sa`: all of it, checked. With
            less disk, give `hf://datasets/OWNER/t4sa` as `root`: what is read is cached.
        config: an image config of the catalog.
        transforms: called with picture and label; in place of the two others.
        where: which samples: as for `t4sa_data.stream`.

    Attributes:
        classes: names of the labels.
        class_to_idx: name -> label.

    Raises:
        ReleaseNotFound: no release in `root`, and it is not to be downloaded.
        UnknownConfig, ConfigUnavailable, NoRows, BadOption: no such samples.
        HubError: the Hub gives none.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "t4sa",
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = False,
        *,
        config: str = catalog.DEFAULT_CONFIG,
        transforms: Callable[[Any, Any], Any] | None = None,
        where: Where | dict[str, Any] | Any = None,
    ) -> None:
        super().__init__(os.fspath(root), transforms, transform, target_transform)
        self.split, self.config = split, config
        self._release = _open(self.root, download=download)
        self._selection = select(self._release, config, split, where=as_where(where))
        self.classes = list(self._selection.classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self._source: Source | None = None
        self._process = -1  # whose reader it is: a fork has none yet

    def __len__(self) -> int:
        """Samples."""
        return len(self._selection)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Picture and label of a sample.

        Raises:
            IndexError: there are not so many.
            BadImage, ShardError: names key, file and byte.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, Any]]:
        """Several samples at once, as `DataLoader` asks for a batch: their bytes are announced before they are read."""
        rows = np.array([self._row(int(index)) for index in indices], dtype=np.int64)
        ranges, source = self._selection.ranges(rows), self._reader()
        source.announce(ranges)
        return [self._sample(int(row), source.read(wanted)) for row, wanted in zip(rows, ranges, strict=True)]

    def _row(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a dataset of {len(self)} samples")
        return index % len(self)

    def _sample(self, row: int, data: bytes) -> tuple[Any, Any]:
        try:
            image: Any = decode_rgb(data)
        except BadImage as error:
            raise BadImage(
                f"a picture does not decode ({error.what})",
                reason=error.reason,
                where=self._selection.where(row),
                hint="Run `t4sa check --deep`.",
            ) from error
        label: Any = int(self._selection.label[row])
        return (image, label) if self.transforms is None else self.transforms(image, label)

    def _reader(self) -> Source:
        """This process's own reader: files and sockets do not survive a fork well."""
        if self._source is None or self._process != os.getpid():
            self._source, self._process = self._release.source(), os.getpid()
        return self._source

    def close(self) -> None:
        """Give back files; the next access opens them again."""
        if self._source is not None and self._process == os.getpid():
            self._source.close()
        self._source = None

    def __del__(self) -> None:
        if getattr(self, "_source", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without the reader, which is a process's own, and without the lists, which can be made again."""
        return {k: v for k, v in self.__dict__.items() if k not in ("targets", "samples")} | {"_source": None}

    @cached_property
    def targets(self) -> list[int]:
        """Labels of all samples."""
        return [int(label) for label in self._selection.label]

    @cached_property
    def samples(self) -> list[tuple[str, int]]:
        """Key and label of all samples."""
        return list(zip(self._selection.keys.to_pylist(), self.targets, strict=True))

    def extra_repr(self) -> str:
        """Lines of torchvision's `repr`."""
        return f"Config: {self.config}\nSplit: {self.split}\nClasses: {', '.join(self.classes)}"


def _open(root: str, *, download: bool) -> OpenRelease:
    """The release in `root`, fetched first if it is to be."""
    if root in places.ALIASES or "://" in root:
        return open_release(root)
    try:
        return open_release(root)
    except ReleaseNotFound as error:
        if not download:
            error.hint = "Pass download=True to fetch it from the Hub, or build one: `t4sa get`."
            raise
    from t4sa_data.downloading.hub import download_release

    return open_release(download_release(root).folder)
