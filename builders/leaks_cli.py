"""`t4sa leaks`, found by `t4sa` through the entry points of this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t4sa_data import catalog
from t4sa_data.commands import exit_statuses
from t4sa_data.errors import UnknownConfig

if TYPE_CHECKING:
    from builders.leaks import Columns

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def leaks(
    release: Annotated[Path, typer.Argument(metavar="RELEASE_DIR", help="A release, or the folder of one.")],
    config: Annotated[str, typer.Option(help="An image config.")] = catalog.DEFAULT_CONFIG,
    distance: Annotated[
        list[int] | None, typer.Option(min=0, max=16, help="Bits; may be repeated. Default: 0, 4, 8.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """What the splits of a release have in common: tweets, equal files, near-duplicates, times.

    Reads the sample tables only. Exit status: 0 done (whatever was found), 1 fault, 2 usage.
    """
    with exit_statuses():
        from builders.leaks import DISTANCES, find_leaks

        found = find_leaks(read_columns(release, config), distances=tuple(distance or DISTANCES))
        typer.echo(json.dumps(found.to_json(), indent=1) if as_json else found.as_text())


def read_columns(release: Path, config: str) -> Columns:
    """Columns of an image config from a release's sample tables.

    Raises:
        ReleaseNotFound: no release there.
        UnknownConfig, ConfigUnavailable: no image config of that name, or not in this release.
        ShardError: a table that cannot be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from builders.leaks import Columns
    from t4sa_data.errors import ConfigUnavailable
    from t4sa_data.manifest import load_manifest
    from t4sa_data.shards import TABLE_NAME, read_table

    images = [name for name, one in catalog.CONFIGS.items() if one.kind == "image"]
    if config not in images:
        raise UnknownConfig("not an image config", expected=images, got=config)
    folder = find_folder(release)
    manifest = load_manifest(folder)
    if config not in manifest.configs:
        raise ConfigUnavailable("not in this release", expected=manifest.configs, got=config, where=folder)
    names, parts = ["split", "label", "tweet_id", "phash", "sha256"], []
    for split, pairs in catalog.CONFIGS[config].splits.items():
        for layer, part in pairs:
            rows = read_table(folder / layer / TABLE_NAME, names, layer=layer)
            rows = rows.filter(pc.equal(rows["split"], part))
            parts.append(rows.set_column(0, "split", pa.repeat(catalog.SPLITS.index(split), rows.num_rows)))
    table = pa.concat_tables(parts)
    sha256 = table["sha256"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    hashes = np.frombuffer(bytes.fromhex("".join(table["phash"].to_pylist())), ">u8").astype(np.uint64)
    return Columns(
        split=table["split"].to_numpy().astype(np.int8),
        label=table["label"].to_numpy(),
        tweet_id=table["tweet_id"].to_numpy(),
        phash=hashes,
        sha256=sha256,
    )


def find_folder(release: Path) -> Path:
    """The folder of a release's manifest: itself, or `t4sa`, `t4sa-wds` or `t4sa-inplace` in it.

    Raises:
        ReleaseNotFound: none of them has one.
    """
    from t4sa_data.errors import ReleaseNotFound
    from t4sa_data.manifest import FOLDERS, MANIFEST_NAME

    for folder in (release, *(release / name for name in FOLDERS.values())):
        if (folder / MANIFEST_NAME).is_file():
            return folder
    raise ReleaseNotFound("no release here", where=release, hint="Give the folder that `t4sa prepare` wrote.")


if __name__ == "__main__":
    app()
