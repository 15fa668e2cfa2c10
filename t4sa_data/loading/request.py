"""What was asked of `load_dataset`, and whether it makes sense."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t4sa_data import catalog, schema
from t4sa_data.errors import UnknownConfig
from t4sa_data.manifest import FileEntry, Manifest

_SPLIT_NAME = re.compile(r"\s*([\w-]+(?:\.[\w-]+)*)\s*(\[[^\]]*\])?\s*(\([^)]*\))?\s*")  # as `ReadInstruction` reads it


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked of `load_dataset`, once it is known to be ours."""

    config: str
    split: Any
    streaming: bool
    filters: Any
    columns: list[str] | None
    cache_dir: str | None
    token: bool | str | None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Every other keyword, for `datasets.load_dataset`."""

    @property
    def layer(self) -> str:
        """The first layer of the config; all of them share its columns."""
        return catalog.CONFIGS[self.config].layers[0]

    def features(self) -> Any:
        """The features: the caller's, else the catalog's of the wanted columns."""
        return self.kwargs.get("features") or schema.features(self.layer, self.columns)

    def cache_folder(self) -> Path:
        """Where `datasets` writes its Arrow copy."""
        import datasets

        return Path(self.cache_dir or datasets.config.HF_DATASETS_CACHE).expanduser()


def known_config(name: str) -> str:
    """The name itself, or `UnknownConfig`."""
    if name not in catalog.CONFIGS:
        raise UnknownConfig("no such config", expected=" | ".join(catalog.CONFIGS), got=name)
    return name


def check_columns(request: Request) -> None:
    """Refuse columns and filters on columns that do not exist: `datasets` would fail late and at length.

    Raises:
        UnknownConfig: names the columns that exist.
    """
    known = schema.layer_schema(request.layer).names
    wanted = list(request.columns or ())
    if isinstance(request.filters, list | tuple):
        terms = [term for item in request.filters for term in (item if isinstance(item, list) else [item])]
        wanted += [term[0] for term in terms if isinstance(term, tuple)]
    for column in wanted:
        if column not in known:
            raise UnknownConfig("no such column", expected=" | ".join(known), got=f"{request.config}/{column}")


def wanted_splits(split: Any, available: Sequence[str], *, streaming: bool = False) -> list[str]:
    """The splits that a `split` argument names, in the order of `available`.

    Args:
        split: as for `load_dataset`.
        available: the splits that hold rows.
        streaming: slices are refused, as `datasets` cannot seek in a stream.

    Raises:
        UnknownConfig: a split that does not exist, or a slice of a stream.

    >>> wanted_splits("test[:10%]+train", ["train", "validation", "test"])
    ['train', 'test']
    """
    specs = split if isinstance(split, list | tuple) else list(split.values()) if isinstance(split, dict) else [split]
    named: set[str] = set()
    for spec in specs:
        text = spec.to_spec() if hasattr(spec, "to_spec") else "all" if spec is None else str(spec)
        for part in text.split("+"):
            match = _SPLIT_NAME.fullmatch(part)
            if streaming and (match is None or match[2] or spec is not split):
                raise UnknownConfig(
                    "a stream is of whole splits",
                    expected=f"{' | '.join(available)}, or several joined by +",
                    got=str(split),
                    hint="Take a part of it with .take(n), .skip(n) or .shard(...), or load with streaming=False.",
                )
            if match is not None and match[1] == "all":
                named.update(available)
            elif match is None or match[1] not in available:
                raise UnknownConfig("no such split", expected=" | ".join(available), got=part.strip())
            else:
                named.add(match[1])
    return [name for name in available if name in named]


def shards_of(request: Request, manifest: Manifest) -> dict[str, list[FileEntry]]:
    """Split -> its shards in release order, for the wanted splits.

    Raises:
        UnknownConfig, ConfigUnavailable: as `load_dataset`.
    """
    manifest.parts(request.config, next(iter(catalog.CONFIGS[request.config].splits)))  # raises what is to be raised
    splits = wanted_splits(request.split, list(manifest.splits(request.config)), streaming=request.streaming)
    return {split: manifest.shards(request.config, split) for split in splits}
