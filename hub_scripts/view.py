"""What of a local release goes to the Hub, and under which names: every file that the manifest names, but for layers
that are not ours to give; card, Croissant and manifest made for the version that is published.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from hub_scripts.client import RemoteFile
from hub_scripts.gate import CROISSANT, README, Form, croissant_with_head, form_of, with_head
from hub_scripts.rights import Rights
from t4sa_data import card
from t4sa_data.errors import BadOption, ReleaseNotFound, RightsError
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, FileEntry, Manifest, load_manifest
from t4sa_data.releases_file import RELEASES_NAME, tag_of
from t4sa_data.shards import TABLE_NAME

NEVER = ("twitter-testing",)
"""Layers that are never published: somebody else's data set, from the user's own copy."""
BESIDE = (".gitattributes", RELEASES_NAME)
"""Files of a repository that no manifest names."""
FORMATS = ("parquet", "wds")


@dataclass(frozen=True, kw_only=True)
class View:
    """One repository's content, as it is to be."""

    fmt: str
    """`parquet` or `wds`."""
    tag: str
    """Of the version, such as `v1.0.0`."""
    folder: Path
    """Of the local release; its shards are sent as they are."""
    manifest: Manifest
    documents: Mapping[str, bytes] = field(repr=False)
    """Path -> bytes of the files that are made for this version: card, Croissant, manifest."""
    left_out: tuple[str, ...] = ()
    """Layers of the local release that stay here."""

    @property
    def files(self) -> dict[str, FileEntry]:
        """Every file of the repository by path, the manifest included."""
        data = self.documents[MANIFEST_NAME]
        own = FileEntry(name=MANIFEST_NAME, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        return {file.name: file for file in (*self.manifest.files, own)}

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())

    @property
    def content_digest(self) -> dict[str, str]:
        """By layer."""
        return {name: layer.content_digest for name, layer in self.manifest.layers.items()}

    def read(self, name: str) -> bytes:
        """The bytes of a (small) file."""
        return self.documents[name] if name in self.documents else (self.folder / name).read_bytes()

    @contextmanager
    def staged(self, names: Iterable[str]) -> Iterator[Path]:
        """A folder that holds these files of the repository and nothing else, for as long as the context: links to the
        shards, the documents themselves.

        Raises:
            ReleaseNotFound: one is not here.
        """
        with TemporaryDirectory(prefix="t4sa-publish-") as made:
            folder = Path(made)
            for name in names:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if name in self.documents:
                    path.write_bytes(self.documents[name])
                    continue
                target = (self.folder / name).resolve()
                if not target.is_file():
                    raise ReleaseNotFound("the Hub lacks a file of the release, and it is not here", where=target)
                _link(path, target)
            yield folder


def _link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except OSError:  # Windows without the right to make symbolic links
        os.link(target, path)


def views_of(
    directory: Path, version: str, rights: Rights, form: Form | None = None, *, namespace: str | None = None
) -> list[View]:
    """What is to be published of the releases in a folder, Parquet first.

    Args:
        directory: DIR that holds `t4sa/` and `t4sa-wds/`, or one of them.
        version: X.Y.Z; where it is not the local manifest's, the documents say this one.
        rights: of `rights.toml`.
        form: of the gate; None: the card's own.
        namespace: account or organisation whose name the card tells readers; None: it tells none.

    Raises:
        ReleaseNotFound: neither is there.
        RightsError: it holds text, and the rights do not cover that.
        BadOption: the version is none, or nothing is left to publish.
    """
    publisher = card.Publisher(
        namespace=namespace,
        contact=rights.removals,
        response_days=rights.response_days,
        previews=rights.previews,
    )
    views = [
        _view(fmt, folder, tag_of(version), publisher, form.to_yaml() if form is not None else None)
        for fmt, folder in _folders(directory).items()
    ]
    for view in views if not rights.covers_text else ():
        _refuse_text(view.folder, view.manifest)
    return views


def views_like(directory: Path, version: str, readme_of: Callable[[str], str], *, namespace: str) -> list[View]:
    """The same for releases that came from the Hub: what their card says of the publisher, and the form of the gate,
    stay as they were.

    Args:
        directory: DIR that holds `t4sa/` and `t4sa-wds/`, or one of them; shards that the Hub holds may be missing.
        version: X.Y.Z.
        readme_of: the published card of a format.
        namespace: account or organisation on the Hub.

    Raises:
        ReleaseNotFound: neither is there.
        RightsError: a card does not say whom to write to.
    """
    made = []
    for fmt, folder in _folders(directory).items():
        readme = readme_of(fmt)
        publisher = publisher_of(readme, namespace, folder)
        made.append(_view(fmt, folder, tag_of(version), publisher, form_of(readme)))
    return made


def publisher_of(readme: str, namespace: str, where: object = README) -> card.Publisher:
    """What a card that `publish` made says of its publisher.

    Raises:
        RightsError: it does not say whom to write to.
    """
    import yaml

    head = re.match(r"---\n(.*?)\n---\n", readme, re.S)
    told = re.search(r"^To have something removed, write to (.+); you get an answer within (\d+) days?\.", readme, re.M)
    if head is None or told is None:
        raise RightsError(
            "the published card does not say whom to write to",
            where=where,
            hint="Give --release DIR, with rights.toml: the card is made anew.",
        )
    previews = yaml.safe_load(head.group(1)).get("viewer") is not False
    return card.Publisher(
        namespace=namespace, contact=told.group(1), response_days=int(told.group(2)), previews=previews
    )


def _folders(directory: Path) -> dict[str, Path]:
    """Format -> folder of its release. Raises ReleaseNotFound where there is none."""
    found = {fmt: Path(directory) / FOLDERS[fmt] for fmt in FORMATS}
    folders = {fmt: folder for fmt, folder in found.items() if (folder / MANIFEST_NAME).is_file()}
    if not folders:
        raise ReleaseNotFound(
            "no release here that can be published",
            expected=" and ".join(FOLDERS[fmt] for fmt in FORMATS),
            where=directory,
            hint="Build one with `t4sa prepare RAW --out DIR`.",
        )
    return folders


def _view(fmt: str, folder: Path, tag: str, publisher: card.Publisher, form: Mapping[str, object] | None) -> View:
    local = load_manifest(folder)
    layers = {name: layer for name, layer in local.layers.items() if name not in NEVER}
    if not layers:
        raise BadOption("nothing to publish: every layer here is somebody else's", got=", ".join(NEVER), where=folder)
    kept = [f for f in local.files if f.name not in (README, CROISSANT) and f.name.split("/")[0] not in NEVER]
    manifest = replace(local, layers=layers, files=tuple(kept), data_version=tag[1:])
    text, croissant = card.readme(manifest, publisher), card.croissant(manifest, publisher)
    documents = {
        README: (with_head(text, form) if form is not None else text).encode(),
        CROISSANT: (croissant_with_head(croissant, form) if form is not None else croissant).encode(),
    }
    made = [FileEntry(name=n, bytes=len(d), sha256=hashlib.sha256(d).hexdigest()) for n, d in documents.items()]
    manifest = manifest.with_files([*manifest.files, *made])
    documents[MANIFEST_NAME] = manifest.to_json()
    return View(
        fmt=fmt,
        tag=tag,
        folder=folder,
        manifest=manifest,
        documents=documents,
        left_out=tuple(name for name in local.layers if name not in layers),
    )


def _refuse_text(folder: Path, manifest: Manifest) -> None:
    """Raises RightsError where a row has a text."""
    for name, layer in manifest.layers.items():
        tables = [f"{name}/{TABLE_NAME}"] if layer.kind == "image" else [f.name for f in manifest.files]
        for table in tables:
            if table.startswith(f"{name}/") and _num_texts(folder / table):
                raise RightsError(
                    "the release holds tweets' text, and rights.toml says that the grant does not cover it",
                    expected="covers_text = true, or a release without text",
                    where=f"{folder.name}/{table}",
                    hint="Build one without: `t4sa prepare RAW --text none`, without the text configs.",
                )


def _num_texts(path: Path) -> int:
    """Rows of a Parquet file whose text is not null."""
    with pq.ParquetFile(path) as file:
        if "text" not in file.schema_arrow.names:
            return 0
        return sum(batch.num_rows - batch.column(0).null_count for batch in file.iter_batches(65_536, columns=["text"]))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How a repository's tree differs from a view."""

    missing: tuple[str, ...] = ()
    """Paths that are to be there and are not."""
    changed: tuple[str, ...] = ()
    """Paths whose bytes differ."""
    beyond: tuple[str, ...] = ()
    """Paths that are there and should not."""

    @property
    def is_none(self) -> bool:
        """Whether the tree is the view."""
        return not (self.missing or self.changed or self.beyond)

    @property
    def to_send(self) -> tuple[str, ...]:
        """Paths that are sent."""
        return (*self.missing, *self.changed)

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("changed", self.changed), ("beyond", self.beyond))
        return "; ".join(f"{word}: {_some(names)}" for word, names in parts if names) or "none"


def _some(names: tuple[str, ...], count: int = 3) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")


def differ(view: View, tree: Mapping[str, RemoteFile]) -> Difference:
    """Compare a repository's tree with a view, by size and sha256 (git's sha1 where git keeps the file itself)."""
    files = view.files
    here = [name for name in files if name in tree]
    return Difference(
        missing=tuple(name for name in files if name not in tree),
        changed=tuple(name for name in here if not _equal(view, files[name], tree[name])),
        beyond=tuple(name for name in tree if name not in files and name not in BESIDE),
    )


def _equal(view: View, entry: FileEntry, remote: RemoteFile) -> bool:
    if remote.bytes != entry.bytes:
        return False
    if remote.sha256 is not None:
        return remote.sha256 == entry.sha256
    data = view.read(entry.name)  # small, and its sha256 was checked before
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == remote.blob  # as git names blobs
