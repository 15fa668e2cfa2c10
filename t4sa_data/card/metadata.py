"""The YAML block at the head of a dataset card: what the Hub, its viewer and `datasets` read."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from t4sa_data import catalog
from t4sa_data.card.publisher import Publisher
from t4sa_data.manifest import SUFFIXES, Manifest
from t4sa_data.schema import layer_schema, record_schema

PRETTY_NAMES = {
    "parquet": "T4SA: Twitter for Sentiment Analysis",
    "wds": "T4SA: Twitter for Sentiment Analysis (WebDataset)",
    "in-place": "T4SA: Twitter for Sentiment Analysis (read in place)",
}
TAGS = ("sentiment-analysis", "visual-sentiment", "image-sentiment", "twitter", "social-media", "weak-supervision")
LICENSE_NAME = "not-stated"
"""`license_name` that the Hub wants beside `license: other`; see catalog.LICENSE."""

GATE_PROMPT = (
    "T4SA holds photographs and texts of people who posted them on Twitter and were not asked about this data set. "
    "Access is given to researchers who agree to the conditions below; their authors' rights and the platform's terms "
    "apply besides."
)
GATE_CONDITIONS = (
    "I will use the data for non-commercial research only",
    "I will not try to identify the people in or behind the data",
    "I will not profile or single out individuals or groups with it",
    "I will delete items, or all of it, when the maintainers give notice of a removal",
    "I will not pass the data on; others ask for access themselves",
)
"""What an applicant ticks, one checkbox each."""

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def size_category(num_rows: int) -> str:
    """The Hub's `size_categories` value.

    >>> size_category(999), size_category(400_000), size_category(3_400_000)
    ('n<1K', '100K<n<1M', '1M<n<10M')
    """
    return next((name for bound, name in _SIZES if num_rows < bound), "10M<n<100M")


def shard_pattern(layer: str, split: str, count: int, fmt: str) -> str:
    """The shards of a layer's split as one brace string, as webdataset and shells expand it.

    >>> shard_pattern("b-t4sa", "train", 64, "wds")
    'b-t4sa/train-{00000..00063}-of-00064.tar'
    >>> shard_pattern("b-t4sa", "test", 1, "wds")
    'b-t4sa/test-00000-of-00001.tar'
    """
    numbers = "00000" if count == 1 else f"{{00000..{count - 1:05d}}}"
    return f"{layer}/{split}-{numbers}-of-{count:05d}{SUFFIXES[fmt]}"


def globs(manifest: Manifest, config: str, split: str) -> list[str]:
    """The shards of a config's split as globs, one per layer, in release order."""
    return [f"{layer}/{part}-*{SUFFIXES[manifest.format]}" for layer, part in manifest.parts(config, split)]


def features_yaml(layer: str, fmt: str = "parquet") -> list[dict[str, Any]]:
    """The features of a layer as `dataset_info: features:` wants them, without importing `datasets`.

    Args:
        layer: any layer of the catalog.
        fmt: `parquet`, or `wds` for the columns that the webdataset builder makes of a tar (`jpg`, `json`, `cls`,
            `__key__`, `__url__`); a feature declared for it must bear its member's extension.
    """
    if fmt != "wds":
        return [_feature(field) for field in layer_schema(layer)]
    # In JSON the tweet id is a string, see schema.to_json.
    record = record_schema(layer)
    struct = [_value(f.name, pa.string()) if f.name == "tweet_id" else _value(f.name, f.type) for f in record]
    return [
        {"name": "jpg", **_IMAGE},
        {"name": "json", "struct": struct},
        {"name": "cls", **_CLASS_LABEL},
        _value("__key__", pa.string()),
        _value("__url__", pa.string()),
    ]


_IMAGE: dict[str, Any] = {"dtype": {"image": {"mode": "RGB"}}}
_CLASS_LABEL: dict[str, Any] = {
    "dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(catalog.CLASSES)}}}
}


def _feature(field: Any) -> dict[str, Any]:
    special = {"image": _IMAGE, "label": _CLASS_LABEL}.get(field.name)
    return {"name": field.name, **special} if special else _value(field.name, field.type)


def _value(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "float32" if kind == pa.float32() else str(kind)}


def _configs(manifest: Manifest) -> list[dict[str, Any]]:
    made = []
    for name in manifest.configs:
        files = [
            {"split": split, "path": found if len(found) > 1 else found[0]}
            for split in manifest.splits(name)
            if (found := globs(manifest, name, split))
        ]
        default: dict[str, Any] = {"default": True} if name == catalog.DEFAULT_CONFIG else {}
        made.append({"config_name": name, **default, "data_files": files})
    return made


def _dataset_infos(manifest: Manifest) -> list[dict[str, Any]]:
    made = []
    for name in manifest.configs:
        splits = []
        for split, entry in manifest.splits(name).items():
            num_bytes = sum(file.bytes for file in manifest.shards(name, split))
            splits.append({"name": split, "num_bytes": num_bytes, "num_examples": entry.rows})
        total = sum(file.bytes for split in manifest.splits(name) for file in manifest.shards(name, split))
        # Shards are uncompressed but for their small columns: their size is nearly that of the Arrow copy.
        made.append(
            {
                "config_name": name,
                "features": features_yaml(catalog.CONFIGS[name].layers[0], manifest.format),
                "splits": splits,
                "download_size": total,
                "dataset_size": total,
            }
        )
    return made


def _gate() -> dict[str, Any]:
    return {
        "extra_gated_heading": "Ask for access to T4SA",
        "extra_gated_prompt": GATE_PROMPT,
        "extra_gated_fields": {
            "Affiliation": "text",
            "Purpose": "text",
            **dict.fromkeys(GATE_CONDITIONS, "checkbox"),
        },
        "extra_gated_button_content": "Agree and ask for access",
    }


def front_matter(manifest: Manifest, publisher: Publisher | None = None) -> dict[str, Any]:
    """The card's metadata, in the order in which it is written.

    Unless the publisher has pictures shown, the Hub's viewer is off: no previews, and no converted copy of the files
    beside main. A release in place has neither `configs:` nor a gate: `datasets` cannot read it, and it is never
    published.
    """
    by_people = "twitter-testing" in manifest.layers
    rows = [sum(entry.rows for entry in manifest.splits(name).values()) for name in manifest.configs]
    made: dict[str, Any] = {
        "pretty_name": PRETTY_NAMES[manifest.format],
        "license": catalog.LICENSE_ID,
        "license_name": LICENSE_NAME,
        "license_link": catalog.HOMEPAGE,
        "language": ["en"],
        "annotations_creators": ["machine-generated", *(["crowdsourced"] if by_people else [])],
        "language_creators": ["found"],
        "multilinguality": ["monolingual"],
        "source_datasets": ["original"],
        "task_categories": ["image-classification", "text-classification"],
        "task_ids": ["multi-class-image-classification", "sentiment-classification"],
        "size_categories": [size_category(max(rows, default=0))],
        "tags": [*TAGS, *(["webdataset"] if manifest.format == "wds" else [])],
    }
    if manifest.format == "in-place":
        return made
    if publisher is None or not publisher.previews:
        made["viewer"] = False
    return {**made, **_gate(), "configs": _configs(manifest), "dataset_info": _dataset_infos(manifest)}
