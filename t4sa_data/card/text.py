"""README.md of a release: the YAML block and the words below it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from t4sa_data import catalog
from t4sa_data.card.collection import REBUILT, collection_of
from t4sa_data.card.loading import loading
from t4sa_data.card.making import limits, making
from t4sa_data.card.markup import NONE, number, source, table
from t4sa_data.card.metadata import PRETTY_NAMES, features_yaml, front_matter
from t4sa_data.card.people import PROMISES, WARNING, citation, people, removals, terms, versions
from t4sa_data.card.publisher import Publisher
from t4sa_data.manifest import FOLDERS, Manifest, SplitEntry
from t4sa_data.schema import DESCRIPTIONS, layer_schema

SMALL = "b-t4sa-256"
"""The one image layer whose bytes are not the original ones."""


def readme(manifest: Manifest, publisher: Publisher | None = None) -> str:
    """The README.md of a release, a dataset card with a YAML block. Deterministic: no dates, hosts or paths.

    Args:
        manifest: of the release; its `files` need not hold the card itself.
        publisher: of a copy that others can ask for; None: a local one.
    """
    from huggingface_hub import DatasetCardData

    parts = _in_place(manifest) if manifest.format == "in-place" else _published(manifest, publisher)
    data = json.loads(json.dumps(front_matter(manifest, publisher)))  # no shared objects: YAML would write anchors
    head = DatasetCardData(**data).to_yaml(original_order=list(data))
    return f"---\n{head}\n---\n\n# {PRETTY_NAMES[manifest.format]}\n\n" + "\n\n".join(parts) + "\n"


def _published(manifest: Manifest, publisher: Publisher | None) -> list[str]:
    return [
        *_what(manifest),
        WARNING,
        "## Configs, splits and classes",
        *_counts(manifest),
        "## Loading",
        *loading(manifest, publisher),
        "## Fields",
        *_fields(manifest),
        "## Limits and label noise",
        *limits(),
        "## How it was made",
        *making(manifest),
        "## Images left out",
        *_quarantined(manifest),
        "## People in the data",
        *people(manifest),
        "## Terms",
        *terms(),
        "## Removals",
        *removals(manifest, publisher),
        "## Versions and checksums",
        *versions(manifest),
        "## Citation",
        *citation(manifest),
        "## Provenance",
        *_provenance(manifest),
    ]


def _in_place(manifest: Manifest) -> list[str]:
    return [
        "A sample table over the official archives where they lie: nothing was copied. One row a sample, and where its "
        f"bytes are: `file` (below `{manifest.data_root}`, seen from here), `offset` and `length` in bytes.",
        "The configs below can be streamed with `t4sa_data.load_dataset` only; plain `datasets` cannot read ranges of "
        "an archive. Do not move or change the archives, and do not publish this folder.",
        WARNING,
        '```python\nfrom t4sa_data import load_dataset\n\nds = load_dataset("t4sa-inplace", streaming=True)\n```',
        "## Configs, splits and classes",
        *_counts(manifest),
        "## Images left out",
        *_quarantined(manifest),
        "## Terms",
        terms()[0].removesuffix(f" {PROMISES}"),
        "## Citation",
        *citation(manifest),
        "## Provenance",
        *_provenance(manifest),
    ]


def _what(manifest: Manifest) -> list[str]:
    drawn = [layer for layer in manifest.layers.values() if "drawn" in layer.provenance.get("settings", {})]
    other = {"parquet": "wds", "wds": "parquet"}[manifest.format]
    kind = {"parquet": "Parquet, for `load_dataset`", "wds": "WebDataset tar shards, for trainers"}
    images = catalog.PUBLISHED
    return [
        *(["**A miniature for tests: drawn pictures and made-up texts, none of the real data.**"] if drawn else []),
        *([REBUILT] if collection_of(manifest) is not None else []),
        "Images from Twitter with the sentiment of the text they were posted with: negative, neutral or positive. "
        f"Made by the authors of *{catalog.PAPER_TITLE}* ([doi:{catalog.PAPER_DOI}](https://doi.org/"
        f"{catalog.PAPER_DOI})), who publish it at {catalog.HOMEPAGE}: {images['tweets'].total:,} tweets with "
        f"{images['images'].total:,} images (T4SA), of which {images['balanced'].total:,} make a balanced subset "
        "without near-duplicates (B-T4SA) with official splits.",
        f"This copy is {kind[manifest.format]}; where it was made, `{FOLDERS[other]}` holds the same images in the "
        f"same order as {kind[other]}. {_bytes(manifest)}Data version {manifest.data_version}, release format "
        f"{manifest.format_version}.",
        *_twitter_testing(manifest),
    ]


def _bytes(manifest: Manifest) -> str:
    """What the images' bytes are, where there are any."""
    images = {name for name, layer in manifest.layers.items() if layer.kind == "image"}
    if not images:
        return ""
    if SMALL not in images:
        return "The images are the original bytes. "
    made = "resized and encoded again (how: see Provenance)"
    return (
        f"All images were {made}. "
        if images == {SMALL}
        else f"In `{SMALL}` the images were {made}; else they are the original bytes. "
    )


def _twitter_testing(manifest: Manifest) -> list[str]:
    """What is different about the layer `twitter-testing`, where it is here."""
    if "twitter-testing" not in manifest.layers:
        return []
    counts, twins = catalog.TWITTER_TESTING_FACTS["counts"], catalog.TWITTER_TESTING_FACTS["twins"]
    folds = manifest.layers["twitter-testing"].provenance.get("settings", {}).get("folds", {})
    used = ", ".join(f"{name}: {'published (UPC)' if one == 'published' else 'ours'}" for name, one in folds.items())
    return [
        "`twitter-testing` is another data set, not of T4SA's authors: five workers looked at each image, and there is "
        f"no neutral class ({counts.source}). Its probabilities and texts are null, and who posted a picture is not "
        f"told. {twins.value} media keys occur twice in the published lists: one picture in two tweets, once with "
        "opposite labels. The published folds put some of these pairs on both sides; where they are not used, folds "
        "are drawn so that pairs stay together" + (f". Folds here: {used}." if used else "."),
    ]


def _counts(manifest: Manifest) -> list[str]:
    header = ["config", "split", "published", "listed", "released", "left out", *catalog.CLASSES]
    rows = [
        _count_row(name, split, entry) for name in manifest.configs for split, entry in manifest.splits(name).items()
    ]
    described = [f"- `{name}`: {catalog.CONFIGS[name].description}" for name in manifest.configs]
    return [
        "\n".join(described),
        table(header, rows),
        "*Published*: what the authors state. *Listed*: what the official lists name, before decoding. *Released*: "
        "what the files here hold. *Left out*: listed, but they do not decode. Classes: released (published). "
        f"Published split sizes are {catalog.SPLIT_CERTAINTY.certainty}: {source(catalog.SPLIT_CERTAINTY.source)}.",
    ]


def _count_row(config: str, split: str, entry: SplitEntry) -> list[str]:
    published = catalog.published_class_counts(config, split)
    classes = [
        NONE if entry.classes is None else f"{entry.classes[i]:,}" + (f" ({published[name]:,})" if published else "")
        for i, name in enumerate(catalog.CLASSES)
    ]
    counts = (catalog.published_count(config, split), entry.listed, entry.rows, len(entry.quarantined))
    return [f"`{config}`", split, *map(number, counts), *classes]


def _fields(manifest: Manifest) -> list[str]:
    images = [name for name, layer in manifest.layers.items() if layer.kind == "image"]
    texts = [name for name, layer in manifest.layers.items() if layer.kind == "text"]
    made = []
    if images or not texts:
        kinds = {feature["name"]: feature["dtype"] for feature in features_yaml("b-t4sa")}
        words = DESCRIPTIONS | ({"image": "a JPEG, made small"} if images == [SMALL] else {})
        rows = [(f"`{name}`", _type(kinds[name]), words[name]) for name in layer_schema("b-t4sa").names]
        made.append(table(("field", "type", "what it is"), rows))
    if SMALL in images:
        made.append(f"In `{SMALL}` `width`, `height`, `phash` and `sha256` are those of the small picture.")
    if manifest.format == "wds":
        made.append(
            "In the tars `jpg` is `image`, `cls` is `label`, and `json` holds all other fields and the label again; "
            "there `tweet_id` is a string, because many JSON readers round integers above 2^53. An original need not "
            "be a JPEG: PNG, GIF and WebP stand under that name, too."
        )
    if "twitter-testing" in images:
        kinds = {feature["name"]: feature["dtype"] for feature in features_yaml("twitter-testing")}
        names = [name for name in layer_schema("twitter-testing").names if name not in layer_schema("b-t4sa").names]
        made.append("`twitter-testing` has besides:")
        made.append(
            table(("field", "type", "what it is"), [(f"`{n}`", _type(kinds[n]), DESCRIPTIONS[n]) for n in names])
        )
    made += [
        f"`{name}` has the fields " + ", ".join(f"`{f}`" for f in layer_schema(name).names) + "." for name in texts
    ]
    return made


def _type(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else str(next(iter(dtype)))


def _quarantined(manifest: Manifest) -> list[str]:
    found = [
        (name, split, entry.quarantined)
        for name, layer in manifest.layers.items()
        for split, entry in layer.splits.items()
        if entry.quarantined
    ]
    if not found:
        return ["None: every listed image decodes."]
    rows = [
        (f"`{layer}`", split, len(keys), sum(key in catalog.KNOWN_BAD for key in keys)) for layer, split, keys in found
    ]
    known = [f"- `{k}`: {why}" for k, why in catalog.KNOWN_BAD.items() if any(k in keys for _, _, keys in found)]
    return [
        "Images that do not decode are in no file, so that no reader trips on them; `manifest.json` names their keys.",
        table(("layer", "split", "left out", "of these known to be bad"), rows),
        *(["\n".join(known)] if known else []),
    ]


def _provenance(manifest: Manifest) -> list[str]:
    inputs = {
        (item["name"], item["bytes"], _sum_of(item))
        for layer in manifest.layers.values()
        for item in layer.provenance.get("inputs", ())
    }
    layers = [(f"`{name}`", f"`{layer.content_digest}`") for name, layer in manifest.layers.items()]
    tools = ", ".join(f"{name} {number}" for name, number in sorted(manifest.toolchain.items()))
    read = table(("input", "bytes", "sha256"), [(f"`{n}`", f"{b:,}", s) for n, b, s in sorted(inputs)])
    return [
        f"Content digest `{manifest.content_digest}`: sha256 over the rows, equal for equal content in any format.",
        table(("layer", "content digest"), layers),
        *([read] if inputs else ["No input files are recorded."]),
        *[f"Settings of `{name}`: {_settings(layer.provenance)}." for name, layer in manifest.layers.items()],
        f"Toolchain: {tools}. Sizes and sha256 of all files stand in `manifest.json`.",
    ]


def _sum_of(item: Mapping[str, Any]) -> str:
    """A file's sha256; of an archive that was read once and never stored, that of its members."""
    if item["sha256"] is None:
        return f"of its members `{item['members_sha256']}`"
    return f"`{item['sha256']}`"


def _settings(provenance: Any) -> str:
    fingerprint = provenance.get("fingerprint")
    words = f"`{json.dumps(provenance.get('settings', {}), sort_keys=True)}`"
    return words + (f", fingerprint `{fingerprint}`" if fingerprint else "")
