"""Read samples as byte ranges through the sample table: a release in place, and tar shards.

The same builder streams (`as_streaming_dataset`) and prepares an Arrow copy, so that slices, `train+validation`,
workers and caching are those of `datasets`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa

from t4sa_data.errors import ShardError
from t4sa_data.loading.ranges import read_run
from t4sa_data.manifest import Manifest
from t4sa_data.schema import record_schema
from t4sa_data.shards import TABLE_NAME, RangeReader

if TYPE_CHECKING:
    from t4sa_data.loading.request import Request

NUM_SHARDS = 64
"""Runs of rows that a split of a layer is cut into, for workers to share (fewer where it has fewer rows)."""


@dataclass
class SampleTableConfig(datasets.BuilderConfig):  # type: ignore[misc]
    """What `SampleTable` reads; every field is part of the name of its cache."""

    root: str = ""
    """Folder that the tables' `file`s are below."""
    parts: dict[str, list[tuple[str, str, str, int]]] = field(default_factory=dict)
    """Split -> (path of the table, its sha256, split in it, rows) in release order."""
    filters: Any = None


class SampleTable(datasets.ArrowBasedBuilder):  # type: ignore[misc]
    """Rows of sample tables, each with its image read from where the table says."""

    BUILDER_CONFIG_CLASS = SampleTableConfig

    def _info(self) -> Any:
        return datasets.DatasetInfo()  # the features come as an argument

    def _split_generators(self, dl_manager: Any) -> list[Any]:  # noqa: ARG002
        made = []
        for split, parts in self.config.parts.items():
            runs = []
            for index, _, part, rows in parts:
                count = max(1, min(NUM_SHARDS, rows))
                runs += [(index, part, number, count) for number in range(count)]
            made.append(datasets.SplitGenerator(name=split, gen_kwargs={"runs": runs}))
        return made

    def _generate_tables(self, runs: list[tuple[str, str, int, int]]) -> Iterator[tuple[Any, pa.Table]]:
        wanted = self.info.features.arrow_schema.names
        with RangeReader(Path(self.config.root)) as reader:
            for run, (index, part, number, count) in enumerate(runs):
                batches = read_run(reader, index, part, number, count, wanted, self.config.filters)
                for position, batch in enumerate(batches):
                    yield (run, position), datasets.table.table_cast(batch, self.info.features.arrow_schema)


def make_builder(request: Request, manifest: Manifest, folder: Path, splits: list[str]) -> SampleTable:
    """The builder for these splits of a config.

    Args:
        request: what was asked for.
        manifest: of a release in format `wds` or `in-place`.
        folder: the manifest's.
        splits: the wanted ones.
    """
    parts: dict[str, list[tuple[str, str, str, int]]] = {}
    for split in splits:
        for layer, part in manifest.parts(request.config, split):
            name = f"{layer}/{TABLE_NAME}"
            entry = manifest.file(name)
            if entry is None:
                raise ShardError("the layer has no sample table", expected=name, where=folder)
            rows = manifest.layers[layer].splits[part].rows
            parts.setdefault(split, []).append((str((folder / name).resolve()), entry.sha256, part, rows))
    features = request.features()
    assert set(features) <= {*record_schema(request.layer).names, "image"}
    return SampleTable(
        cache_dir=request.cache_dir,
        dataset_name="t4sa",
        config_name=request.config,
        features=features,
        root=str((folder / manifest.data_root).resolve()),
        parts=parts,
        filters=request.filters,
    )


def prepare(builder: SampleTable, request: Request) -> Any:
    """Prepare the Arrow copy and open it, with the keywords of `datasets.load_dataset` that apply."""
    known = ("download_mode", "verification_mode", "num_proc")
    builder.download_and_prepare(**{name: request.kwargs[name] for name in known if name in request.kwargs})
    return builder.as_dataset(split=request.split, in_memory=bool(request.kwargs.get("keep_in_memory")))
