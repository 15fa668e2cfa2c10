"""The check of the documents of a release: the numbers and globs of README.md, the shards of croissant.json."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from t4sa_data.manifest import Manifest
from t4sa_data.shards import TABLE_NAME
from t4sa_data.testing.faults import Faults

README_NAME = "README.md"
CROISSANT_NAME = "croissant.json"


def check_documents(folder: Path, manifest: Manifest, faults: Faults) -> None:
    """Compare card and Croissant with the manifest; a missing file has been told already."""
    for name, check in ((README_NAME, _check_readme), (CROISSANT_NAME, _check_croissant)):
        if (folder / name).is_file():
            with faults.guard(name):
                check((folder / name).read_text(encoding="utf-8"), manifest, faults)


def front_matter(text: str) -> dict[str, Any] | None:
    """The YAML block at the start of a card, or None where there is none.

    >>> front_matter("---\\nlicense: other\\n---\\n# T4SA\\n")
    {'license': 'other'}
    """
    import yaml  # type: ignore[import-untyped,unused-ignore]

    lines = text.splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
    value = yaml.load("\n".join(lines[1 : lines.index("---", 1)]), Loader=loader)
    return value if isinstance(value, dict) else None


def _check_readme(text: str, manifest: Manifest, faults: Faults) -> None:
    """`configs` name the manifest's shards, `dataset_info` its rows."""
    matter = front_matter(text)
    if matter is None:
        faults.add(README_NAME, "no YAML front matter")
        return
    if manifest.format == "in-place":  # no files of its own that `datasets` could read
        return
    infos = {info.get("config_name"): info for info in _listed(matter.get("dataset_info"))}
    configs = {config.get("config_name"): config for config in _listed(matter.get("configs"))}
    for name in manifest.configs:
        told = {str(s["name"]): s.get("num_examples") for s in infos.get(name, {}).get("splits", ())}
        rows = {split: entry.rows for split, entry in manifest.splits(name).items()}
        for split in sorted(told.keys() | rows.keys()):
            if told.get(split) != rows.get(split):
                what = f"num_examples is {told.get(split)}, the manifest says {rows.get(split)}"
                faults.add(README_NAME, f"dataset_info of {name}: {split}: {what}")
        globs = {str(d["split"]): _listed(d["path"]) for d in configs.get(name, {}).get("data_files", ())}
        for split in rows:
            wanted = [shard.name for shard in manifest.shards(name, split)]
            found = [f.name for glob in globs.get(split, ()) for f in manifest.files if fnmatchcase(f.name, glob)]
            if found != wanted:
                what = f"{len(found)} files, the manifest has {len(wanted)}"
                faults.add(README_NAME, f"configs of {name}: {split} is {globs.get(split)}: {what}")
    for name in sorted((configs.keys() | infos.keys()) - set(manifest.configs)):
        faults.add(README_NAME, f"names the config {name}, which this release does not hold")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _check_croissant(text: str, manifest: Manifest, faults: Faults) -> None:
    """Every shard and sample table is a FileObject with its size and sha256, and no other file is."""
    try:
        distribution = json.loads(text)["distribution"]
        objects = {o["contentUrl"]: o for o in distribution if o["@type"] == "cr:FileObject" and o["@id"] != "repo"}
    except (ValueError, KeyError, TypeError) as error:
        faults.add(CROISSANT_NAME, f"no Croissant ({type(error).__name__}: {error})")
        return
    root = f"{manifest.data_root}/" if manifest.format == "in-place" else ""
    files = {
        (root if file.layer is not None else "") + file.name: file
        for file in manifest.files
        if file.layer is not None or file.name.endswith(f"/{TABLE_NAME}")
    }
    for url in [*files, *(url for url in objects if url not in files)]:
        told, file = objects.get(url), files.get(url)
        if told is None or file is None:
            what = "does not name" if told is None else "names a file the manifest does not have:"
            faults.add(CROISSANT_NAME, f"{what} {url}", kind=what)
        elif (told.get("contentSize"), told.get("sha256")) != (f"{file.bytes} B", file.sha256):
            faults.add(CROISSANT_NAME, f"size or sha256 of {url} is not the manifest's", kind="size or sha256")
