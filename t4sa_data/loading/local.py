"""Load from a release on this machine, and hand Parquet files to `datasets`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t4sa_data.errors import ConfigUnavailable, ReleaseError
from t4sa_data.loading.disk import check_disk
from t4sa_data.loading.registering import original
from t4sa_data.loading.request import Request, shards_of
from t4sa_data.manifest import FileEntry, Manifest


def load(request: Request, manifest: Manifest, folder: Path) -> Any:
    """Load from a release on this machine."""
    shards = shards_of(request, manifest)
    root = folder / manifest.data_root
    for entry in {file.name: file for files in shards.values() for file in files}.values():
        check_file(root / entry.name, entry.bytes)
    if manifest.format == "parquet":
        files = {split: [literal(root / file.name) for file in entries] for split, entries in shards.items()}
        return load_parquet(request, manifest, shards, files)
    from t4sa_data.loading import rows

    if manifest.format == "in-place" and not request.streaming:
        raise ConfigUnavailable(
            "a release in place is read by streaming only",
            where=folder,
            hint="Pass streaming=True, or make shards of it: `t4sa prepare RAW --out DIR`.",
        )
    builder = rows.make_builder(request, manifest, folder, list(shards))
    if request.streaming:
        return builder.as_streaming_dataset(split=request.split)
    check_disk(request, manifest, shards, lambda: Path(builder.cache_dir).exists())
    loaded = rows.prepare(builder, request)
    return check_rows(request, manifest, loaded)


def check_file(path: Path, num_bytes: int) -> None:
    """Refuse a file that is missing or of another size.

    Raises:
        ReleaseError: names it.
    """
    got: object = "no file"
    try:
        got = path.stat().st_size
    except OSError:
        pass
    if got != num_bytes:
        raise ReleaseError(
            "a file is not what the manifest says",
            expected=f"{num_bytes} bytes",
            got=got,
            where=path,
            hint="Run `t4sa check`, then build or fetch the release again.",
        )


def literal(path: Path) -> str:
    """A path as a pattern that matches itself only: `datasets` globs every file name."""
    return re.sub(r"([*?[])", r"[\1]", str(path.absolute()))


def load_parquet(
    request: Request,
    manifest: Manifest | None,
    shards: Mapping[str, Sequence[FileEntry]],
    files: Mapping[str, Sequence[str]],
) -> Any:
    """Hand Parquet files to `datasets`.

    Args:
        request: what was asked for.
        manifest: of the release; None for the miniature, whose size needs no check.
        shards: split -> its entries in the manifest.
        files: split -> patterns of paths or URLs, in release order.
    """
    arguments: dict[str, Any] = {
        **{key: value for key, value in request.kwargs.items() if key not in ("features", "num_proc")},
        "path": "parquet",
        "name": request.config,
        "data_files": {split: list(names) for split, names in files.items()},
        "features": request.features(),
        "columns": request.columns,
        "filters": request.filters,
        "cache_dir": request.cache_dir,
        "token": request.token,
    }
    arguments = {key: value for key, value in arguments.items() if value is not None}
    options = {"split": request.split, "streaming": request.streaming, "num_proc": request.kwargs.get("num_proc")}
    if manifest is not None and not request.streaming:
        check_disk(request, manifest, shards, lambda: _is_prepared(arguments))
    loaded = original()(**arguments, **options)
    return loaded if manifest is None or request.streaming else check_rows(request, manifest, loaded)


def _is_prepared(arguments: Mapping[str, Any]) -> bool:
    """Whether `datasets` already holds the Arrow copy of these files."""
    import datasets

    builder_arguments = {k: v for k, v in arguments.items() if k not in _NOT_OF_BUILDER}
    return Path(datasets.load_dataset_builder(**builder_arguments).cache_dir).exists()


_NOT_OF_BUILDER = ("verification_mode", "keep_in_memory", "save_infos", "trust_remote_code")
"""Keywords of `load_dataset` that `load_dataset_builder` does not take."""


def check_rows(request: Request, manifest: Manifest, loaded: Any) -> Any:
    """Compare the rows of what was prepared with the manifest's, where no filter chose among them.

    Raises:
        ReleaseError: a split has fewer or more rows.
    """
    if request.filters is not None:
        return loaded
    expected = manifest.splits(request.config)
    some = list(loaded.values()) if isinstance(loaded, dict) else loaded if isinstance(loaded, list) else [loaded]
    for dataset in some:
        for split, info in (dataset.info.splits or {}).items():
            if info.num_examples != expected[split].rows:
                raise ReleaseError(
                    f"{request.config}/{split} has another number of rows than its manifest says",
                    expected=expected[split].rows,
                    got=info.num_examples,
                    hint='Run `t4sa check`; if it finds no fault, load once with download_mode="force_redownload".',
                )
    return loaded
