"""`load_dataset("t4sa")`: a drop-in for `datasets.load_dataset` that knows where releases are.

What is ours is resolved by `places` and handed to `datasets` as explicit files per split, with the catalog's features:
only the splits that were asked for are read, a local release never touches the network, and a column of nulls has its
type. Everything else passes through untouched.
"""

from __future__ import annotations

import os
from typing import Any

from t4sa_data import catalog, places
from t4sa_data.loading import local
from t4sa_data.loading.failures import explain_generation_errors
from t4sa_data.loading.published import look_up, tell_of_local
from t4sa_data.loading.registering import original, register, unregister
from t4sa_data.loading.request import Request, check_columns, known_config, wanted_splits

__all__ = ["load_dataset", "register", "unregister", "wanted_splits"]


def load_dataset(
    path: str | os.PathLike[str] = "t4sa",
    name: str | None = None,
    split: Any = None,
    *,
    streaming: bool = False,
    revision: str | None = None,
    token: bool | str | None = None,
    filters: Any = None,
    columns: list[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    data_files: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Any:
    """Load a config of T4SA; any other dataset goes to `datasets.load_dataset` untouched.

    Args:
        path: `t4sa`; `t4sa-wds` (the same rows, read from the tar shards of a local release); or a folder: DIR that
            holds `t4sa/`, that folder itself, or RAW that holds `t4sa-inplace/`. See `places.candidates` for where the
            names are looked for. `NAMESPACE/t4sa` is the Hub's copy, whatever is here; `NAMESPACE/t4sa-wds` is handed
            to `datasets` as it is, after the Hub was asked whether this release may be read.
        name: a config of `catalog.CONFIGS`; default `b-t4sa`. `miniature` is drawn on the spot, offline.
        split: `"test"`, `"train[:10%]"`, `"train+validation"`, a list, a `ReadInstruction`, or None for all. Only the
            files of these splits are read.
        streaming: read while iterating; no download, no copy.
        revision: of the Hub repository (default `$T4SA_REVISION`, else the release line); a local release is passed
            over if it is of another version.
        token: for the Hub; default: as logged in.
        filters: `[("confidence", ">=", 0.95)]`, or a pyarrow expression; only matching rows.
        columns: only these columns, in this order.
        data_dir: with a name: the release's folder, or DIR.
        data_files: given, everything goes to `datasets` untouched.
        cache_dir: where `datasets` keeps its Arrow copy.
        kwargs: as `datasets.load_dataset`: `num_proc`, `keep_in_memory`, `download_mode`, ...

    Returns:
        What `datasets.load_dataset` would: `Dataset` or `DatasetDict`, `IterableDataset` or `IterableDatasetDict`. Rows
        are in release order.

    Raises:
        UnknownConfig: no such config, split or column; names those that exist.
        ConfigUnavailable: the release does not hold the config, or cannot be read in this way.
        NoRows: not streaming, and filters or slice leave no row.
        DiskSpaceError: not streaming, and less free disk than needed (`T4SA_SKIP_DISK_CHECK=1` skips that).
        ReleaseNotFound, ManifestError, ReleaseError: a folder that is not what it should be.
        NotPublished, HubAccessError, UnknownRevision, HubUnreachable: there is no local release, and the Hub gave none.
        ReleaseWithdrawn: the Hub's release was withdrawn, whatever the cache holds; names the successor.
    """
    path = os.fspath(path)
    aliased, from_hub = path in places.ALIASES, False
    if data_files is None and data_dir is None and not places.is_ours(path):
        if from_hub := path == places.repository("t4sa"):
            path = "t4sa"
        elif path == places.repository("t4sa-wds"):
            # `datasets` alone goes on with a cached copy when a release is withdrawn or access is taken back.
            revision = look_up(path, revision or places.revision(), token).revision
    if data_files is not None or not (from_hub or (places.is_ours(path) if data_dir is None else aliased)):
        named: dict[str, Any] = {"data_dir": data_dir, "data_files": data_files, "cache_dir": cache_dir}
        named |= {"revision": revision, "token": token, "filters": filters, "columns": columns}
        given = {key: value for key, value in named.items() if value is not None}
        return original()(path, name, split=split, streaming=streaming, **given, **kwargs)
    request = Request(
        config=known_config(name or catalog.DEFAULT_CONFIG),
        split=split,
        streaming=streaming,
        filters=filters,
        columns=None if columns is None else list(columns),
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        token=token,
        kwargs=kwargs,
    )
    check_columns(request)
    with explain_generation_errors():
        if request.config == "miniature":
            from t4sa_data.loading import drawn

            return drawn.load(request)
        place = None if from_hub else places.find(path, data_dir, revision)
        if place is None or place.manifest is None:
            from t4sa_data.loading import hub

            return hub.load(request, path, revision or places.revision())
        assert place.path is not None
        tell_of_local(place.manifest)
        return local.load(request, place.manifest, place.path)
