"""croissant.json: the release as Croissant 1.1 with the responsible-AI vocabulary.

The whole folder is one FileObject (`repo`), from which the record sets read; every shard is a FileObject of its own
beside it, for size and sha256. Links are relative to croissant.json, so that a copy of the folder loads where it lies;
`mapping={"repo": folder}` says so explicitly (an absolute path: mlcroissant 1.1 cuts a relative one's name out of
`b-t4sa/` too). Record sets over Parquet join nothing: a reader streams them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from t4sa_data import catalog
from t4sa_data.card.metadata import GATE_CONDITIONS, GATE_PROMPT, PRETTY_NAMES, TAGS, globs
from t4sa_data.card.publisher import Publisher
from t4sa_data.card.responsible import responsible_ai
from t4sa_data.manifest import FOLDERS, FileEntry, Manifest
from t4sa_data.schema import DESCRIPTIONS, layer_schema, record_schema
from t4sa_data.shards import TABLE_NAME

CROISSANT = "http://mlcommons.org/croissant/1.1"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
_PARQUET, _TAR = "application/x-parquet", "application/x-tar"
_ENCODINGS = {".parquet": _PARQUET, ".tar": _TAR}

# The terms of Croissant 1.1 that bear a prefix; the context must be of the version that `conformsTo` names.
_CR_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet format "
    "includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace "
    "samplingRate separator source subField transform"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _CR_TERMS.split()},
}


def croissant(manifest: Manifest, publisher: Publisher | None = None) -> str:
    """The croissant.json of a release (JSON, indented by one, with a newline at its end). Deterministic.

    Args:
        manifest: of the release.
        publisher: of a copy that others can ask for; None: a local one.

    A record set per config bears the config's name and has the fields of its rows. Over tars it joins the images with
    the sample table by key; in place it is the sample table alone.
    """
    make = {"parquet": _parquet_config, "wds": _tar_config, "in-place": _in_place_config}[manifest.format]
    file_sets, record_sets = [], []
    for name in manifest.configs:
        sets, records = make(manifest, name)
        file_sets += sets
        record_sets.append(records)
    return to_text(
        {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            **_about(manifest),
            **_access(manifest, publisher),
            **responsible_ai(manifest, publisher),
            "distribution": [_repo(manifest), *_file_objects(manifest), *file_sets],
            "recordSet": [*_enumerations(), *record_sets],
        }
    )


def to_text(value: dict[str, Any]) -> str:
    """The bytes of a croissant.json, as text."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _about(manifest: Manifest) -> dict[str, Any]:
    authors = re.search(r"author\s*=\s*\{(.*?)\},\n", catalog.CITATION, re.DOTALL)
    year = re.search(r"year\s*=\s*\{(\d+)\}", catalog.CITATION)
    names = re.split(r"\s+and\s+", authors[1]) if authors else []
    tweets, images = catalog.PUBLISHED["tweets"].total, catalog.PUBLISHED["images"].total
    return {
        "name": FOLDERS[manifest.format],
        "alternateName": PRETTY_NAMES[manifest.format],
        "description": f"Images from Twitter with the sentiment of the text they were posted with (negative, neutral, "
        f"positive): {tweets:,} tweets and {images:,} images as published, of which this release holds the configs "
        f"{', '.join(manifest.configs)}.",
        "conformsTo": [CROISSANT, RAI],
        "creator": [{"@type": "sc:Person", "name": " ".join(reversed(name.split(", ")))} for name in names],
        "datePublished": year[1] if year else None,
        "license": {
            "@type": "sc:CreativeWork",
            "name": "Not stated",
            "description": catalog.LICENSE.note,
            "url": catalog.HOMEPAGE,
        },
        "url": catalog.HOMEPAGE,
        "sameAs": f"https://doi.org/{catalog.PAPER_DOI}",
        "citeAs": catalog.CITATION.strip(),
        "version": manifest.data_version,
        "inLanguage": "en",
        "keywords": list(TAGS),
    }


def _access(manifest: Manifest, publisher: Publisher | None) -> dict[str, Any]:
    """Who may have it and what for: Croissant has no word for a gate, schema.org has these."""
    made = {"isAccessibleForFree": True, **access_words(GATE_PROMPT, GATE_CONDITIONS)}
    if manifest.format == "in-place":  # has no gate
        del made["conditionsOfAccess"]
    if publisher is not None and publisher.namespace is not None:
        made["publisher"] = {"@type": "sc:Organization", "name": publisher.namespace}
    return made


def access_words(prompt: str, conditions: Iterable[str]) -> dict[str, Any]:
    """What the form of a gate says, as Croissant has it."""
    return {
        "conditionsOfAccess": f"On request, after agreeing to the conditions of usageInfo. {prompt}",
        "usageInfo": " ".join(f"{condition.rstrip('.')}." for condition in conditions),
    }


def _repo(manifest: Manifest) -> dict[str, Any]:
    # A folder has no sha256 of its own, yet the format demands one: the digest over its rows is what can be checked.
    return {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The folder of this file. Its sha256 is the content digest of manifest.json.",
        "contentUrl": ".",
        "encodingFormat": "git+https",
        "sha256": manifest.content_digest,
    }


def _file_objects(manifest: Manifest) -> list[dict[str, Any]]:
    """Every shard and sample table (in place: archive), with what is needed to verify it."""
    made = []
    for file in manifest.files:
        encoding = _ENCODINGS.get("." + file.name.rsplit(".", 1)[-1])
        if encoding is None:
            continue
        root = f"{manifest.data_root}/" if manifest.format == "in-place" and file.layer is not None else ""
        made.append(
            {
                "@type": "cr:FileObject",
                "@id": file.name,
                "name": file.name,
                "contentUrl": root + file.name,
                "contentSize": f"{file.bytes} B",
                "encodingFormat": encoding,
                "sha256": file.sha256,
            }
        )
    return made


def _enumerations() -> list[dict[str, Any]]:
    """The classes and splits. Data fields do not `reference` them: that is a join, which reads all into memory."""
    urls = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
    classes = [{"classes/label": i, "classes/name": name} for i, name in enumerate(catalog.CLASSES)]
    splits = [{"splits/name": name, "splits/url": urls[name]} for name in catalog.SPLITS]
    return [
        _enumeration("classes", "sc:Enumeration", {"label": "sc:Integer", "name": "sc:Text"}, classes),
        _enumeration("splits", "cr:Split", {"name": "sc:Text", "url": "sc:URL"}, splits),
    ]


def _enumeration(name: str, kind: str, fields: dict[str, str], data: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "dataType": kind,
        "key": {"@id": f"{name}/{next(iter(fields))}"},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": data_type}
            for field, data_type in fields.items()
        ],
        "data": data,
    }


def _record_set(config: str, fields: list[dict[str, Any]], key: str | None = None) -> dict[str, Any]:
    made = {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        "description": catalog.CONFIGS[config].description,
        "field": fields,
    }
    return made | ({"key": {"@id": f"{config}/{key}"}} if key else {})


def _field(config: str, name: str, data_type: Any, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    description = DESCRIPTIONS[name]
    return {
        "@type": "cr:Field",
        "@id": f"{config}/{name}",
        "name": name,
        "description": description,
        "dataType": data_type,
        "source": source,
        **more,
    }


def _data_type(kind: Any) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def _source(kind: str, name: str, **extract: str) -> dict[str, Any]:
    return {kind: {"@id": name}, "extract": extract}


def _parquet_config(manifest: Manifest, config: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    files = f"{config}-files"
    patterns = [glob for split in manifest.splits(config) for glob in globs(manifest, config, split)]
    schema = layer_schema(catalog.CONFIGS[config].layers[0])
    fields = []
    for column in schema:
        source = _source("fileSet", files, column=column.name)
        if column.name == "image":
            image = {**source, "transform": {"jsonPath": "bytes"}}
            fields.append(_field(config, "image", "sc:ImageObject", image))
        elif column.name == "split":
            # From the file's name, so that a reader who wants one split opens its files only.
            names = "|".join(catalog.SPLITS)
            source = {**_source("fileSet", files, fileProperty="filename"), "transform": {"regex": f"^({names})-.+$"}}
            fields.append(_field(config, "split", ["sc:Text", "cr:Split"], source))
        else:
            fields.append(_field(config, column.name, _data_type(column.type), source))
    file_set = _file_set(files, patterns, _PARQUET, "repo")
    return [file_set], _record_set(config, fields, "key" if "key" in schema.names else None)


def _file_set(name: str, includes: list[str], encoding: str, *containers: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "containedIn": [{"@id": container} for container in containers],
        "encodingFormat": encoding,
        "includes": includes,
    }


def _table_fields(config: str, kind: str, table: str, *, leave_out: str = "") -> list[dict[str, Any]]:
    made = []
    for column in record_schema(catalog.CONFIGS[config].layers[0]):
        if column.name != leave_out:
            data_type = ["sc:Text", "cr:Split"] if column.name == "split" else _data_type(column.type)
            made.append(_field(config, column.name, data_type, _source(kind, table, column=column.name)))
    return made


def _tar_config(manifest: Manifest, config: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    images, tables = f"{config}-images", f"{config}-tables"
    tars = [file.name for split in manifest.splits(config) for file in manifest.shards(config, split)]
    sets = [
        _file_set(images, ["*.jpg"], "image/jpeg", *tars),
        _file_set(tables, [f"{layer}/{TABLE_NAME}" for layer in catalog.CONFIGS[config].layers], _PARQUET, "repo"),
    ]
    # The name without its suffix; matches again on its own result, because a reader applies it twice in a join.
    source = {**_source("fileSet", images, fileProperty="filename"), "transform": {"regex": "^([^.]+)"}}
    fields = [
        _field(config, "key", "sc:Text", source, references=_source("fileSet", tables, column="key")),
        _field(config, "image", "sc:ImageObject", _source("fileSet", images, fileProperty="content")),
        *_table_fields(config, "fileSet", tables, leave_out="key"),
    ]
    return sets, _record_set(config, fields, "key")


def _in_place_config(manifest: Manifest, config: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    table = next(file for file in manifest.files if _is_table(file, catalog.CONFIGS[config].layers))
    return [], _record_set(config, _table_fields(config, "fileObject", table.name), "key")


def _is_table(file: FileEntry, layers: tuple[str, ...]) -> bool:
    return file.name in {f"{layer}/{TABLE_NAME}" for layer in layers}
