"""What `t4sa build` is told: one frozen dataclass a stage, and `build.toml` over them.

A file names only what differs from the defaults; those are the paper's where the paper says. Paths in a file are
relative to it. What changes the result stands here; where it runs, and how fast, does not.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from builders.sources.tweets import MAX_BAD_SHARE
from builders.split import PAPER
from t4sa_data import catalog, release
from t4sa_data.errors import BadOption, InputMissing
from t4sa_data.pixels import MAX_PIXELS

T = TypeVar("T")
CONFIDENCE_CUT = 0.85
"""Consistent with the published rows, not published: `catalog.COLLECTION["confidence_cut"]`."""


@dataclass(frozen=True, kw_only=True)
class CollectSettings:
    """Stage `collect`; see `builders.collect.Rules` and `builders.collecting.CollectConfig`."""

    drop_rt_text: bool = False
    drop_deleted: bool = False
    wrapped_ids: bool = False
    max_bad_share: float = MAX_BAD_SHARE
    """Of lines, and of files, that may be bad."""


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Stage `label`: one of two."""

    model: Path | None = None
    """A model folder of `t4sa label train`, or a classifier of `transformers`."""
    labels: Path | None = None
    """Probabilities that are there: Parquet as `t4sa label run` writes it, or a TSV as the official one."""


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """Stage `select`: the rule of `builders.selection.Cut`; none given: `threshold` at `CONFIDENCE_CUT`."""

    threshold: float | tuple[float, ...] | None = None
    top: float | tuple[float, ...] | None = None
    top_of_all: float | None = None
    removals: Path | None = None
    """Tweet ids and keys to leave out, one a line."""


@dataclass(frozen=True, kw_only=True)
class InspectionSettings:
    """Stage `inspection`."""

    max_pixels: int = MAX_PIXELS
    """Pixels above which a picture is set aside unseen."""


@dataclass(frozen=True, kw_only=True)
class DedupSettings:
    """Stage `dedup`; see `builders.dedup`."""

    distance: int = catalog.NEAR_DUPLICATE_BITS.value
    """Bits that the hashes of near-duplicates differ in at most."""
    linkage: Literal["transitive", "direct"] = "transitive"
    """direct: a group is a representative and its own neighbours."""


@dataclass(frozen=True, kw_only=True)
class BalanceSettings:
    """Stage `balance`; see `builders.balance`."""

    per_class: int | None = None
    """Images of each class; None: as many as the smallest class has. Published."""
    by: Literal["image", "tweet"] = "image"
    """tweet: one image of a tweet at most. image is the paper's, as far as is known."""
    seed: int = 2017
    """Another seed, another draw."""


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """Stage `split`; see `builders.split`."""

    by: tuple[Literal["image", "tweet", "duplicates", "author", "time"], ...] = ("image",)
    """What must not stand in two splits. image: nothing, the paper's way."""
    duplicate_distance: int | None = None
    """Bits, for `duplicates`; None: two more than those of `dedup`, whose representatives have no nearer ones left."""
    shares: tuple[int, int, int] = PAPER
    """Train to validation to test; the default gives the published numbers at the published size."""
    seed: int = 2017
    lists: Path | None = None
    """Folder of `b-t4sa_{train,val,test}.txt`: they say who is in B-T4SA, and where."""


@dataclass(frozen=True, kw_only=True)
class WriteSettings:
    """Stage `write`."""

    formats: tuple[str, ...] = release.FORMATS
    text: Literal["full", "none"] = "full"
    """none: leave `text` null, and write no text layer."""
    small: bool = False
    """Write `b-t4sa-256` too."""
    shard_bytes: int = release.SHARD_BYTES
    """Image bytes a shard aims at."""


def _fetch_defaults() -> Any:
    from builders.fetch import FetchConfig

    return FetchConfig()


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """All stages' settings; the sections of `build.toml`."""

    collect: CollectSettings = CollectSettings()
    label: LabelSettings = LabelSettings()
    select: SelectSettings = SelectSettings()
    fetch: Any = field(default_factory=_fetch_defaults)
    """A `builders.fetch.FetchConfig`."""
    inspection: InspectionSettings = InspectionSettings()
    dedup: DedupSettings = DedupSettings()
    balance: BalanceSettings = BalanceSettings()
    split: SplitSettings = SplitSettings()
    write: WriteSettings = WriteSettings()


def read_config(path: Path | None) -> BuildConfig:
    """The settings of a file, over the defaults; None: the defaults.

    Raises:
        InputMissing: no such file.
        BadOption: no TOML, a section or name that does not exist, a value of another type.
    """
    if path is None:
        return BuildConfig()
    if not path.is_file():
        raise InputMissing("no such file", where=path)
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOption("not TOML", got=error, where=path) from error
    default = BuildConfig()
    sections = {one.name: type(getattr(default, one.name)) for one in dataclasses.fields(BuildConfig)}
    made = {}
    for name, values in given.items():
        if name not in sections or not isinstance(values, Mapping):
            raise BadOption("no such section", expected=" | ".join(sections), got=name, where=path)
        made[name] = _section(sections[name], values, f"{path}, [{name}]", path.parent)
    return BuildConfig(**made)


def _section(kind: type[T], values: Mapping[str, Any], where: str, folder: Path) -> T:
    hints = get_type_hints(kind)
    names = [one.name for one in dataclasses.fields(kind)]  # type: ignore[arg-type]
    made = {}
    for name, value in values.items():
        if name not in names:
            raise BadOption("no such setting", expected=" | ".join(names), got=name, where=where)
        made[name] = _value(hints[name], value, f"{where}, {name}", folder)
    return kind(**made)


def _value(hint: Any, value: Any, where: str, folder: Path) -> Any:
    """A value of TOML as the type that a field has."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    for kind in kinds:
        if kind is NoneType:
            continue
        if get_origin(kind) is Literal and value in get_args(kind):
            return value
        if get_origin(kind) is tuple and isinstance(value, list | str):
            items, wanted = value if isinstance(value, list) else [value], get_args(kind)
            if Ellipsis not in wanted and len(items) != len(wanted):
                continue
            return tuple(_value(get_args(kind)[0], item, where, folder) for item in items)
        if kind is Path and isinstance(value, str):
            return folder / Path(value).expanduser()
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind in (bool, int, str) and type(value) is kind:
            return value
    choices = [repr(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    names = [getattr(kind, "__name__", str(kind)) for kind in kinds if kind is not NoneType]
    raise BadOption("a value of another kind", expected=" | ".join(choices or names), got=repr(value), where=where)


def settings_of(section: object) -> dict[str, Any]:
    """A section's settings for a fingerprint: JSON values; of a path its name, for the files' stamps stand beside."""
    values = dataclasses.asdict(section)  # type: ignore[call-overload]
    return {name: value.name if isinstance(value, Path) else value for name, value in values.items()}
