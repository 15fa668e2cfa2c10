"""A model folder as a thing to send: `model.json` and the files that it names, each checked, and nothing else.

What goes up is less than what lies here: no optimiser of a checkpoint, no state of a training, no path of this machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t4sa_data.errors import ChecksumMismatch, ForeignFiles, InputMissing, ModelFolderError
from t4sa_data.files import sha256_file

MODEL_JSON = "model.json"
FORMAT = 1
"""Of `model.json`; another one is refused."""
EVALUATION = "evaluation"
"""Folder that evaluate.py writes beside a model: read for the card, never sent."""
_KEYS = ("format", "architecture", "width", "classes", "input", "weights", "mean_image", "deploy", "more", "files")
_KEYS_LAST = ("num_parameters", "source")
"""With `_KEYS` all of `model.json` that is published, in its order; a checkpoint's `training` is not."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.(safetensors|prototxt)")
"""Of a file: what comes from the Hub names no other place than the folder."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOLDERS = re.compile(r"(?<![\w./\\])(?:~|[A-Za-z]:)?[/\\](?![/\\\s])(?:[^\s,;:/\\]+[/\\])*")
"""The folders of an absolute path in a text; URLs have none."""
_MACHINE = frozenset({"data", "out", "device", "workers"})
"""Settings of a run that say something of this machine only."""
_MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file (the format's own limit)."""


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model folder whose files are what its `model.json` says."""

    folder: Path
    description: Mapping[str, Any]
    """`model.json` as it is published."""
    sizes: Mapping[str, int]
    """File -> bytes."""

    @property
    def json(self) -> bytes:
        """The bytes of the published `model.json`; equal descriptions give equal bytes."""
        return (json.dumps(self.description, indent=1, ensure_ascii=False) + "\n").encode()

    @property
    def files(self) -> dict[str, str]:
        """File beside `model.json` -> sha256."""
        return dict(self.description["files"])

    @property
    def weights_sha256(self) -> str:
        """Of the weights' file."""
        return self.files[self.description["weights"]]


def read_model(folder: Path) -> ModelFolder:
    """Read and verify a model folder.

    Raises:
        InputMissing: there is no `model.json`.
        ModelFolderError: it is none of this format, or a file is missing or no safetensors.
        ChecksumMismatch: a file is not the one that it names.
        ForeignFiles: something else lies in the folder.
    """
    path = folder / MODEL_JSON
    if not path.is_file():
        raise InputMissing(
            "no model folder",
            expected=MODEL_JSON,
            where=folder,
            hint="examples/convert.py makes one of an archive, examples/train.py of a run (RUN/best).",
        )
    whole, published = parse_description(path.read_bytes(), path)
    beyond = sorted(one.name for one in folder.iterdir() if one.name not in (MODEL_JSON, EVALUATION, *whole["files"]))
    if beyond:
        raise ForeignFiles(
            "the folder holds something that model.json does not name",
            got=beyond[0],
            where=folder,
            hint="Move it away: only the model is published.",
        )
    for name, digest in whole["files"].items():
        check_file(folder / name, digest)
    sizes = {name: (folder / name).stat().st_size for name in published["files"]}
    return ModelFolder(folder=folder, description=published, sizes=sizes)


def check_file(path: Path, digest: str) -> None:
    """Verify one file of a model.

    Raises:
        ModelFolderError: it is missing, or no safetensors where its name says so.
        ChecksumMismatch: other bytes.
    """
    if not path.is_file():
        raise ModelFolderError("a file that model.json names is not there", where=path)
    if (found := sha256_file(path)) != digest:
        raise ChecksumMismatch(
            "a file is not the one that model.json names", expected=f"sha256 {digest}", got=found, where=path
        )
    if path.suffix == ".safetensors" and not _is_safetensors(path):
        raise ModelFolderError("no safetensors file", where=path)


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as one: the length of a header, and a JSON object."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_MAX_HEADER_BYTES, path.stat().st_size - 8):
            return False
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except ValueError:
            return False


def parse_description(data: bytes, where: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """A `model.json`, as it is and as it is published.

    Raises:
        ModelFolderError: it is none of this format.
    """
    try:
        value = json.loads(data.decode())
    except ValueError as error:
        raise ModelFolderError("not the description of a model", got=error, where=where) from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        got = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise ModelFolderError("format of a model folder", expected=FORMAT, got=got, where=where)
    _require(value, where)
    named = {value["weights"], *filter(None, (value.get("mean_image"), value.get("deploy")))}
    kept = {name: digest for name, digest in value["files"].items() if name in named}
    published = {name: value[name] for name in (*_KEYS, *_KEYS_LAST) if name in value}
    return value, published | {"more": {}, "files": kept, "source": _without_places(value["source"])}


def _require(value: Mapping[str, Any], where: object) -> None:
    """Raises ModelFolderError where a part is missing or of another kind."""
    files, given = value.get("files"), value.get("input")
    parts = {
        "files": isinstance(files, dict)
        and all(_NAME.fullmatch(name) and _SHA256.fullmatch(str(digest)) for name, digest in files.items()),
        "weights": isinstance(files, dict) and str(value.get("weights")).endswith(".safetensors"),
        "architecture": re.fullmatch(r"[\w.-]+", str(value.get("architecture"))) is not None,
        "classes": isinstance(value.get("classes"), list) and all(isinstance(one, str) for one in value["classes"]),
        "input": isinstance(given, dict) and isinstance(given.get("side_px"), int),
        "source": isinstance(value.get("source"), dict),
    }
    for name in ("weights", "mean_image", "deploy"):
        if name == "weights" or value.get(name) is not None:
            parts[name] = parts.get(name, True) and isinstance(files, dict) and value.get(name) in files
    if bad := [name for name, is_good in parts.items() if not is_good]:
        raise ModelFolderError(f"{bad[0]} is missing, or not what it should be", got=value.get(bad[0]), where=where)


def _without_places(value: Any, *, settings: bool = False) -> Any:
    """A JSON value without folders of this machine.

    >>> _without_places({"initial": "3 layers from /srv/me/a.pth", "recipe": {"out": "a", "init": "caffe:/x/d,/x/w"}})
    {'initial': '3 layers from a.pth', 'recipe': {'init': 'caffe:d,w'}}
    >>> _without_places("https://example.org/a/b")
    'https://example.org/a/b'
    """
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if not (settings and name in _MACHINE)}
        return {_FOLDERS.sub("", name): _without_places(one, settings=name == "recipe") for name, one in kept.items()}
    return value


def git_blob(data: bytes) -> str:
    """The sha1 that git gives a small file.

    >>> git_blob(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
