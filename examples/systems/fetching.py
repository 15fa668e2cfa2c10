"""The authors' four released networks, fetched and converted to model folders: what `--pretrained` names.

`released`: the DIGITS archives of the dataset's site, which may ask for user name and password, as `t4sa download
models` brings them. `converted`: the authors' own PyTorch files, open, as `t4sa download models-pytorch` brings them
[published: their repository]. What is there is not fetched again, and what was converted is not converted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from examples.errors import ModelFileError
from examples.models.folder import JSON_NAME, Model, read_json, save_model
from t4sa_data import catalog
from t4sa_data.catalog import Package
from t4sa_data.downloading import Downloaded, download

Pretrained = Literal["released", "converted"]
GROUPS: dict[Pretrained, str] = {"released": "models", "converted": "models-pytorch"}
"""Kind -> group of packages."""
DIGEST = "package_sha256"
"""In a folder's `source`: of the file that it was converted from."""


def packages_of(kind: Pretrained) -> dict[str, Package]:
    """Row of table 1 -> the package that holds its network.

    >>> sorted(packages_of("released"))
    ['Hybrid-T4SA FT-A', 'Hybrid-T4SA FT-F', 'VGG-T4SA FT-A', 'VGG-T4SA FT-F']
    """
    return {str(package.system): package for package in catalog.expand([GROUPS[kind]])}


def bring(
    kind: Pretrained,
    systems: Iterable[str],
    *,
    archives: Path | None,
    folder: Path,
    allow_insecure_http: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:
    """Model folders of rows, fetched and converted where they are not there.

    Args:
        kind: which files of the authors.
        systems: rows; those that have no released network are left out.
        archives: folder of the downloads; None: `$T4SA_HOME/raw`, as `t4sa download` has it.
        folder: of the model folders.
        allow_insecure_http: send user name and password over plain http.
        tell: gets a line for each file.

    Returns:
        row -> model folder.

    Raises:
        CredentialsError, DownloadError, ArchiveError, OutputError, OutputLocked: see `t4sa_data.downloading.download`.
        ModelFileError, UnsupportedLayer, WeightsMismatch: a file is damaged, or not understood.
    """
    from t4sa_data.commands import bars

    wanted = {system: package for system, package in packages_of(kind).items() if system in set(systems)}
    if not wanted:
        return {}
    names = [package.name for package in wanted.values()]
    with bars() as progress:
        done = download(names, archives, allow_insecure_http=allow_insecure_http, progress=progress, say=tell)
    made = {}
    for (system, package), one in zip(wanted.items(), done, strict=True):
        made[system] = folder / package.name
        if not _is_of(made[system], one):
            try:
                model = convert(one.path, package)
            except ModelFileError as error:  # its options are convert.py's: labels, mean
                by_hand = f'examples/convert.py {one.path} --out MODEL, then --init "{system}=MODEL"'
                error.hint = f"{error.hint or ''} By hand: {by_hand}.".strip()
                raise
            model.source = {**model.source, "system": system, DIGEST: one.sha256}
            save_model(made[system], model)
            tell(f"{one.path.name}: converted to {made[system]}")
    return made


def convert(path: Path, package: Package) -> Model:
    """The network of a downloaded package.

    Args:
        path: of its file.
        package: of the catalog.

    Raises:
        ModelFileError, UnsupportedLayer, WeightsMismatch: the file is damaged, or not understood.
    """
    from examples.caffe.importing import import_archive, import_weights

    if package.filename.endswith(".pth"):  # weights alone: the network is the one in its name
        return import_weights(path, "hybrid" if package.filename.startswith("hybrid") else "vgg19")
    return import_archive(path)


def _is_of(folder: Path, one: Downloaded) -> bool:
    """Whether a model folder was made of that very file."""
    return (folder / JSON_NAME).is_file() and read_json(folder)["source"].get(DIGEST) == one.sha256
