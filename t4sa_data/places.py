"""Where releases are: every place that is looked at, in order, and what stands there.

Environment: `T4SA_HOME` (the folder of `t4sa/` and `t4sa-wds/`), `T4SA_NAMESPACE` (owner of the Hub repositories),
`T4SA_REVISION` (branch, tag or commit there). They are read at each call. Nothing here touches the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from t4sa_data import catalog
from t4sa_data.errors import ReleaseNotFound, T4SAError
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, Manifest, load_manifest

ALIASES = {"t4sa": ("parquet", "wds"), "t4sa-wds": ("wds",)}
"""Name that `load_dataset` takes -> formats that answer to it, in the order of preference. The rows are the same."""

Kind = Literal["directory", "T4SA_HOME", "working folder", "data folder", "in place", "Hub"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place that was looked at."""

    kind: Kind
    path: Path | None = None
    """The release's folder; None for the Hub."""
    url: str | None = None
    """The repository (`hf://datasets/NAMESPACE/NAME@REVISION`); None for folders."""
    found: bool | None
    """Whether a release stands there; None for the Hub, which is asked only when it is needed."""
    what: str
    """What was found, or why nothing was."""
    bytes: int | None = None
    """Of all files that the manifest names."""
    configs: tuple[str, ...] = ()
    """Configs that it holds."""
    manifest: Manifest | None = field(default=None, repr=False)
    error: T4SAError | None = field(default=None, repr=False)
    """Why a release that does stand there cannot be read (a damaged manifest, a newer format)."""


def home() -> Path:
    """The folder of `t4sa/` and `t4sa-wds/`: `$T4SA_HOME`, else the platform's data folder for `t4sa`."""
    if value := os.environ.get("T4SA_HOME"):
        return Path(value).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("t4sa", appauthor=False))


def raw_folder() -> Path:
    """Where the official packages are kept: `raw` below `home()`."""
    return home() / "raw"


def namespace() -> str:
    """Owner of the Hub repositories: `$T4SA_NAMESPACE`, else `catalog.HUB_NAMESPACE`."""
    return os.environ.get("T4SA_NAMESPACE") or catalog.HUB_NAMESPACE


def revision() -> str:
    """Revision of the Hub repositories: `$T4SA_REVISION`, else `catalog.RELEASE_LINE`."""
    return os.environ.get("T4SA_REVISION") or catalog.RELEASE_LINE


def repository(path: str = "t4sa") -> str:
    """The Hub repository behind a name, as `NAMESPACE/NAME`."""
    return f"{namespace()}/{catalog.HUB_REPOSITORIES[ALIASES[path][0]]}"


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether `load_dataset(path)` is for this package: `t4sa`, `t4sa-wds`, or a folder with a manifest of ours."""
    return str(path) in ALIASES or any(_stands_in(folder) for folder in _folders_of(Path(path).expanduser()))


def candidates(path: str | os.PathLike[str] = "t4sa", data_dir: str | os.PathLike[str] | None = None) -> list[Place]:
    """Every place that is looked at for a name, in order; the first that was found is read.

    Args:
        path: `t4sa`, `t4sa-wds`, or a folder: DIR with `t4sa/` in it, `t4sa` or `t4sa-wds` itself, RAW with
            `t4sa-inplace/` in it, or that folder. Nothing but a folder that was named is looked at.
        data_dir: the folder, where `path` is a name.
    """
    formats: tuple[str, ...] = ALIASES.get(str(path), tuple(FOLDERS))
    directory = data_dir if str(path) in ALIASES else path
    if directory is not None:
        formats = (*formats, "in-place") if str(path) == "t4sa" else formats
        return [_look("directory", folder, formats) for folder in _folders_of(Path(directory).expanduser(), formats)]
    return [*_local_candidates(formats), _hub(str(path))]


def _local_candidates(formats: tuple[str, ...]) -> Iterator[Place]:
    below = [FOLDERS[fmt] for fmt in formats]
    if os.environ.get("T4SA_HOME"):
        for folder in _folders_of(home(), formats):
            yield _look("T4SA_HOME", folder, formats)
    for name in below:
        yield _look("working folder", Path(name), formats)
    if not os.environ.get("T4SA_HOME"):
        for name in below:
            yield _look("data folder", home() / name, formats)
    if "parquet" in formats:
        for parent in (Path(), raw_folder()):
            yield _look("in place", parent / FOLDERS["in-place"], ("in-place",))


def find(
    path: str | os.PathLike[str] = "t4sa",
    data_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
) -> Place:
    """The place to read: the first that holds a release, else the Hub.

    Args:
        path: as for `candidates`.
        data_dir: as for `candidates`.
        revision: an explicit wish, such as `v1` or `v1.0.0`: local releases of another version are passed over.

    Raises:
        ReleaseNotFound: a folder was named, and it holds no release.
        ManifestError: the release in the first place cannot be read.
    """
    places = candidates(path, data_dir)
    for place in places:
        if place.error is not None:
            raise place.error
        if place.manifest is not None and (place.kind == "directory" or _is_version(place.manifest, revision)):
            return place
        if place.kind == "Hub":
            return place
    raise ReleaseNotFound(
        "no release here",
        expected=f"{MANIFEST_NAME} in it, or in {' | '.join(f'{name}/' for name in FOLDERS.values())} below it",
        where=", ".join(str(place.path) for place in places),
        hint="Build one with `t4sa prepare RAW --out DIR`; `t4sa where` shows the places that are looked at.",
    )


def _is_version(manifest: Manifest, revision: str | None) -> bool:
    wanted = (revision or "").removeprefix("v")
    return not wanted or f"{manifest.data_version}.".startswith(f"{wanted}.")


def _folders_of(directory: Path, formats: tuple[str, ...] = tuple(FOLDERS)) -> list[Path]:
    """The release folders that a folder may stand for: itself if it is one, else those below it."""
    if _stands_in(directory):
        return [directory]
    return [directory / FOLDERS[fmt] for fmt in formats]


def _stands_in(folder: Path) -> bool:
    """Whether a manifest of ours stands in `folder` (a damaged one counts where the folder bears our name)."""
    try:
        value = json.loads((folder / MANIFEST_NAME).read_bytes())
    except OSError:
        return False
    except ValueError:
        return folder.name in FOLDERS.values()
    return isinstance(value, dict) and "format_version" in value and value.get("name") in FOLDERS.values()


def _look(kind: Kind, folder: Path, formats: tuple[str, ...]) -> Place:
    folder = folder.absolute()
    if not _stands_in(folder):
        why = f"no {MANIFEST_NAME} of this package" if folder.is_dir() else "no such folder"
        return Place(kind=kind, path=folder, found=False, what=why)
    try:
        manifest = load_manifest(folder)
    except T4SAError as error:
        return Place(kind=kind, path=folder, found=False, what=str(error), error=error)
    if manifest.format not in formats:
        return Place(kind=kind, path=folder, found=False, what=f"a release in format {manifest.format}")
    return Place(
        kind=kind,
        path=folder,
        found=True,
        what=f"release {manifest.data_version}, {manifest.format}",
        bytes=sum(file.bytes for file in manifest.files),
        configs=tuple(manifest.configs),
        manifest=manifest,
    )


def _hub(path: str) -> Place:
    url = f"hf://datasets/{repository(path)}@{revision()}"
    return Place(kind="Hub", url=url, found=None, what="asked where no folder holds a release")
