"""A model is a folder of three files: `model.json` (what it is, and the sha256 of the others), `vocabulary.json` (its
lists of words), `arrays.safetensors`. No pickle: what is read is data, never code.

Equal data and seed give equal bytes: no time, path or machine stands in it. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders.label.systems import CLASSES, SYSTEMS, labeller_class
from builders.label.text import TEXT_VERSION
from t4sa_data.errors import ForeignFiles, ModelFolderError, T4SAError
from t4sa_data.files import TEMPORARY, explain_os_errors, sha256_file, sync_folder, write_bytes

if TYPE_CHECKING:
    from builders.label.labeller import Labeller

FORMAT = 1
MODEL, VOCABULARY, ARRAYS = "model.json", "vocabulary.json", "arrays.safetensors"
FILES = frozenset({MODEL, VOCABULARY, ARRAYS})
THREADS = 1
"""That a model is trained on."""
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "safetensors", "transformers")
_MAX_JSON_BYTES = 64 << 20
_AGAIN = "Train it again, or bring the folder from where it is whole."


def save_model(labeller: Labeller, folder: str | Path, description: Mapping[str, Any] | None = None) -> str:
    """Write a model folder; one that stands there is replaced once the new one is whole.

    Args:
        labeller: trained.
        folder: gets `FILES`; what stands there must be a model folder, empty, or absent.
        description: further parts of `model.json`: `seed`, `metrics`, `data` (counts and hashes), ...; JSON values
            without texts, times, paths.

    Returns:
        the sha256 of `model.json`, which names the model.

    Raises:
        ForeignFiles: the folder holds something else.
        OutputError, DiskSpaceError: it cannot be written.
        ModelFolderError: a state that no folder can hold (arrays of objects, values that are no JSON).
    """
    folder = Path(folder).absolute()
    arrays, values = labeller.state()
    words = {name: list(value) for name, value in values.items() if _is_words(value)}
    contents = {ARRAYS: _arrays_bytes(arrays), VOCABULARY: _json_bytes(words)}
    model = {
        **(description or {}),
        "format": FORMAT,
        "kind": labeller.kind,
        "classes": list(CLASSES),
        "prior": [float(share) for share in labeller.prior],
        "state": {name: value for name, value in values.items() if name not in words},
        "fingerprint": fingerprint(labeller.kind),
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()
        },
    }
    model["sha256"] = _own_hash(model)
    contents[MODEL] = _json_bytes(model)
    _place(folder, contents)
    return hashlib.sha256(contents[MODEL]).hexdigest()


def load_model(folder: str | Path) -> Labeller:
    """The labeller of a model folder; every byte is checked against its sha256 first.

    Args:
        folder: of `save_model`; or a sequence classifier of `transformers` as `save_pretrained` wrote it (which has no
            hashes to check).

    Raises:
        ModelFolderError: not a model folder, a file missing, truncated or altered, an unknown kind or format, or made
            with other rules for texts or other lexicons than those installed.
        MissingDependency: a package that this kind needs is not installed.
    """
    folder = Path(folder)
    if is_foreign_model(folder):
        return _transformers(folder)
    model = read_description(folder)
    found = {name: _checked(folder, name, model["files"].get(name)) for name in (ARRAYS, VOCABULARY)}
    _require_same_rules(folder, model)
    of_kind = labeller_class(model["kind"])
    try:
        from safetensors.numpy import load

        return of_kind.from_state(load(found[ARRAYS]), {**model["state"], **json.loads(found[VOCABULARY])})
    except (T4SAError, MemoryError):
        raise
    except Exception as error:  # whatever a kind of another version makes of it
        raise ModelFolderError(
            "a model folder of another version of this package",
            got=f"{type(error).__name__}: {str(error)[:120]}",
            where=folder,
            hint=_AGAIN,
        ) from error


def read_description(folder: str | Path) -> dict[str, Any]:
    """`model.json`, checked against its own hash: kind, prior, seed, metrics, data, fingerprint, files.

    Raises:
        ModelFolderError: see `load_model`.
    """
    path = _described(Path(folder))
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ModelFolderError("a description that is none", got=f"{path.stat().st_size:,} bytes", where=path)
    try:
        model = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFolderError("not JSON", got=str(error)[:120], where=path, hint=_AGAIN) from error
    if not isinstance(model, dict) or "format" not in model or "classes" not in model:
        raise ModelFolderError(
            "a folder of another program", expected="a model of the text labeller", where=path, hint=_AGAIN
        )
    if model["format"] != FORMAT:
        raise ModelFolderError(
            "a model of another format",
            expected=FORMAT,
            got=repr(model["format"])[:40],
            where=path,
            hint="A newer version of this package wrote it: upgrade.",
        )
    if model.get("sha256") != _own_hash(model):
        raise ModelFolderError("an altered description", expected="its sha256", where=path, hint=_AGAIN)
    if model["kind"] not in SYSTEMS or model["classes"] != list(CLASSES):
        raise ModelFolderError(
            "a model of an unknown kind", expected=" | ".join(SYSTEMS), got=model["kind"], where=path
        )
    return model


def _described(folder: Path) -> Path:
    if not (folder / MODEL).is_file():
        raise ModelFolderError(
            "no model folder", expected=MODEL, where=folder, hint="A folder that `t4sa label train` has written."
        )
    return folder / MODEL


def is_foreign_model(folder: str | Path) -> bool:
    """Whether a folder holds a model of `transformers` and none of ours."""
    if (Path(folder) / MODEL).is_file() or not (Path(folder) / "config.json").is_file():
        return False
    from builders.label.transformers_folder import is_transformers_folder

    return is_transformers_folder(Path(folder))


def _transformers(folder: Path) -> Labeller:
    from builders.label.transformers_folder import Transformers

    return Transformers.from_folder(folder)


def model_digest(folder: str | Path) -> str:
    """Names a model: the sha256 of `model.json`, which names the other files by theirs; of a model of `transformers`,
    that of its files' names and hashes."""
    folder = Path(folder)
    if not is_foreign_model(folder):
        return sha256_file(_described(folder))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256("".join(f"{path.name} {sha256_file(path)}\n" for path in files).encode()).hexdigest()


def fingerprint(kind: str) -> dict[str, Any]:
    """What a model's results hang on beside data, seed and config: rules for texts, lexicons, libraries, threads."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    made: dict[str, Any] = {"text_version": TEXT_VERSION, "libraries": libraries, "threads": THREADS, "lexicons": {}}
    if SYSTEMS[kind].reads_lexicons:
        from builders.label.lexicons import load_lexicons

        made["lexicons"] = load_lexicons().fingerprint()
    return made


def _require_same_rules(folder: Path, model: Mapping[str, Any]) -> None:
    made = model["fingerprint"]
    if not made["lexicons"]:
        return
    if made["text_version"] != TEXT_VERSION:
        raise ModelFolderError(
            "a model whose texts were cut by other rules",
            expected=f"text version {TEXT_VERSION}",
            got=made["text_version"],
            where=folder,
            hint="Train it again with this version of the package.",
        )
    here = fingerprint(model["kind"])["lexicons"]
    if lacking := sorted(set(here) - set(made["lexicons"])):
        raise ModelFolderError(
            "a model that was trained without some of the lexicons",
            expected=", ".join(sorted(here)),
            got=f"no {', '.join(lacking)}",
            where=folder,
            hint="Train it again with this version of the package.",
        )
    for name, lexicon in made["lexicons"].items():
        if here.get(name, {}).get("sha256") != lexicon["sha256"]:
            raise ModelFolderError(
                f"another lexicon is installed than the model was trained with ({name})",
                expected=f"{lexicon['package']} {lexicon['version']}",
                got=f"{lexicon['package']} {here.get(name, {}).get('version')}",
                where=folder,
                hint=f"pip install '{lexicon['package']}=={lexicon['version']}', or train the model again.",
            )


def _checked(folder: Path, name: str, expected: Mapping[str, Any] | None) -> bytes:
    path = folder / name
    if expected is None or not path.is_file():
        raise ModelFolderError("a file of the model is missing", expected=name, where=folder, hint=_AGAIN)
    data = path.read_bytes()
    if len(data) != expected["bytes"]:
        raise ModelFolderError(
            "a truncated or altered file",
            expected=f"{expected['bytes']:,} bytes",
            got=f"{len(data):,}",
            where=path,
            hint=_AGAIN,
        )
    if (got := hashlib.sha256(data).hexdigest()) != expected["sha256"]:
        raise ModelFolderError("an altered file", expected=expected["sha256"], got=got, where=path, hint=_AGAIN)
    return data


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _arrays_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as safetensors, each one behind the other in memory first: it writes Fortran-ordered ones scrambled."""
    from safetensors.numpy import save

    made = {}
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.dtype.kind not in "biuf":
            raise ModelFolderError("an array that no model folder can hold", got=f"{name}: {array.dtype}")
        made[name] = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C", copy=True)
    data: bytes = save(made)
    return data


def _json_bytes(value: object) -> bytes:
    # ASCII only: a word may hold half a surrogate pair, which UTF-8 cannot.
    try:
        return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii")
    except (TypeError, ValueError) as error:
        raise ModelFolderError("values that no model folder can hold", got=error) from error


def _own_hash(model: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in model.items() if name != "sha256"}
    try:
        return hashlib.sha256(_json_bytes(rest)).hexdigest()
    except ModelFolderError:
        if "sha256" in model:  # read, with a NaN in it: nothing that was written here
            return ""
        raise


def _place(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files beside `folder`, and put them in its place."""
    require_place(folder)
    name = f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}"
    new, old = folder.with_name(name + TEMPORARY), folder.with_name(name + "-old" + TEMPORARY)
    with explain_os_errors(folder):
        try:
            new.mkdir(parents=True)
            for file, data in sorted(contents.items()):
                write_bytes(new / file, data)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def require_place(folder: str | Path) -> None:
    """See to it that a model can be written to `folder`; for before an hour of training.

    Raises:
        ForeignFiles: it is a file, or holds something that is no model.
    """
    folder = Path(folder)
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
        if not others:
            return
    elif not folder.exists():
        return
    else:
        others = [folder.name]
    raise ForeignFiles(
        "the model's folder holds something else", got=", ".join(others[:3]), where=folder, hint="Choose another --out."
    )
