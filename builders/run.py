"""One run of `t4sa prepare`: what was asked, where results are kept, what was counted, how progress is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builders import dedup
from builders.engine import Engine
from builders.ledger import Ledger
from builders.report import Report
from builders.state import State
from t4sa_data import release
from t4sa_data.catalog import CONFIGS, SPLITS
from t4sa_data.errors import UnknownConfig
from t4sa_data.pixels import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """One run of `t4sa prepare`."""

    raw: Path
    """Folder of the official packages."""
    out: Path
    """DIR: gets `t4sa/`, `t4sa-wds/`, `quarantine/`, `build/`."""
    configs: tuple[str, ...] = ()
    """Configs to build; empty for all that the inputs allow."""
    formats: tuple[str, ...] = release.FORMATS
    """Of `parquet`, `wds`."""
    splits: tuple[str, ...] = SPLITS
    """Splits of the image configs to build."""
    images: tuple[Path, ...] = ()
    """Further image archives."""
    unique_list: Path | None = None
    """Keys (one a line, or split-list lines) of the images without near-duplicates; None finds them by hash."""
    removals: Path | None = None
    """Tweet ids and keys to leave out, one a line."""
    text: str = "full"
    """`full`, or `none` to leave `text` null."""
    limit: int | None = None
    """Images (and text rows) to keep, in proportion over splits and classes; None for all."""
    workers: int = 1
    """Processes."""
    shard_bytes: int = release.SHARD_BYTES
    """Image bytes a shard aims at."""
    max_pixels: int = MAX_PIXELS
    """Pixels above which a picture is quarantined unseen."""
    strict: bool = False
    """Refuse what is not the published dataset."""
    in_place: bool = False
    """Write only a sample table beside the archive; copy nothing."""

    def __post_init__(self) -> None:
        known = {"formats": release.FORMATS, "configs": tuple(CONFIGS), "splits": SPLITS, "text": ("full", "none")}
        given = {"formats": self.formats, "configs": self.configs, "splits": self.splits, "text": (self.text,)}
        for name, values in given.items():
            for value in values:
                if value not in known[name]:
                    raise UnknownConfig(f"no such value of {name}", expected=" | ".join(known[name]), got=repr(value))
        if not self.formats:
            raise UnknownConfig("no format", expected=" | ".join(release.FORMATS))

    def settings(self) -> dict[str, Any]:
        """The choices that change what is built (not where, nor how fast)."""
        return {
            "text": self.text,
            "limit": self.limit,
            "shard_bytes": self.shard_bytes,
            "max_pixels": self.max_pixels,
            "near_duplicate_bits": dedup.NEAR_DUPLICATE_BITS,
            "unique_list": self.unique_list is not None,
            **({} if set(self.splits) == set(SPLITS) else {"splits": sorted(self.splits)}),
        }


@dataclass(kw_only=True)
class Run:
    """One run's tools: where it keeps things, what it has counted, how it shows progress."""

    config: PrepareConfig
    out: Path
    """Folder of the release folders: DIR, or RAW for a release in place."""
    state: State
    engine: Engine
    say: Callable[[str], None]
    bar: Callable[[str, int], Any]
    ledger: Ledger = field(default_factory=Ledger)
    report: Report = field(default_factory=Report)
    seconds: dict[str, float] = field(default_factory=dict)
    sha256: dict[Path, str | None] = field(default_factory=dict)
    """Of the archives, as they are read; None: not known."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats this run makes."""
        return ("in-place",) if self.config.in_place else self.config.formats

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage's seconds."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)


class Silent:
    """A progress bar that shows nothing."""

    def update(self, _num: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
