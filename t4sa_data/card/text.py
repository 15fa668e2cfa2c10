"""README.md of a release: the YAML block and the words below it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from t4sa_data import catalog
from t4sa_data.card.metadata import GATE_CONDITIONS, PRETTY_NAMES, features_yaml, front_matter, shard_pattern
from t4sa_data.catalog import Fact
from t4sa_data.manifest import FOLDERS, Manifest, SplitEntry
from t4sa_data.schema import DESCRIPTIONS, PROBABILITIES, layer_schema

_NONE = "-"


def readme(manifest: Manifest) -> str:
    """The README.md of a release, a dataset card with a YAML block. Deterministic: no dates, hosts or paths.

    Args:
        manifest: of the release; its `files` need not hold the card itself.
    """
    from huggingface_hub import DatasetCardData

    parts = _in_place(manifest) if manifest.format == "in-place" else _published(manifest)
    data = json.loads(json.dumps(front_matter(manifest)))  # no shared objects: YAML would write anchors for them
    head = DatasetCardData(**data).to_yaml(original_order=list(data))
    return f"---\n{head}\n---\n\n# {PRETTY_NAMES[manifest.format]}\n\n" + "\n\n".join(parts) + "\n"


def _published(manifest: Manifest) -> list[str]:
    return [
        *_what(manifest),
        "## Configs, splits and classes",
        *_counts(manifest),
        "## Loading",
        *_loading(manifest),
        "## Fields",
        *_fields(manifest),
        "## How it was made",
        *_making(),
        "## Limits and label noise",
        *_limits(),
        "## Images left out",
        *_quarantined(manifest),
        "## People in the data",
        *_people(),
        *_license_and_citation(),
        "## Provenance",
        *_provenance(manifest),
    ]


def _in_place(manifest: Manifest) -> list[str]:
    return [
        "A sample table over the official archives where they lie: nothing was copied. One row a sample, and where its "
        f"bytes are: `file` (below `{manifest.data_root}`, seen from here), `offset` and `length` in bytes.",
        "The configs below can be streamed with `t4sa_data.load_dataset` only; plain `datasets` cannot read ranges of "
        "an archive. Do not move or change the archives, and do not publish this folder.",
        '```python\nfrom t4sa_data import load_dataset\n\nds = load_dataset("t4sa-inplace", streaming=True)\n```',
        "## Configs, splits and classes",
        *_counts(manifest),
        "## Images left out",
        *_quarantined(manifest),
        *_license_and_citation(),
        "## Provenance",
        *_provenance(manifest),
    ]


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("<", "\\<")


def _number(value: int | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _fact(words: str, fact: Fact) -> str:
    note = f" {fact.note}" if fact.note else ""
    return f"- {words} ({fact.certainty}; {fact.source}).{note}"


def _what(manifest: Manifest) -> list[str]:
    drawn = [layer for layer in manifest.layers.values() if "drawn" in layer.provenance.get("settings", {})]
    other = {"parquet": "wds", "wds": "parquet"}[manifest.format]
    kind = {"parquet": "Parquet, for `load_dataset`", "wds": "WebDataset tar shards, for trainers"}
    images = catalog.PUBLISHED
    return [
        *(["**A miniature for tests: drawn pictures and made-up texts, none of the real data.**"] if drawn else []),
        "Photographs from Twitter with the sentiment of the text they were posted with: negative, neutral or positive. "
        f"Made by the authors of *{catalog.PAPER_TITLE}* ([doi:{catalog.PAPER_DOI}](https://doi.org/"
        f"{catalog.PAPER_DOI})), who publish it at {catalog.HOMEPAGE}: {images['tweets'].total:,} tweets with "
        f"{images['images'].total:,} images (T4SA), of which {images['balanced'].total:,} make a balanced subset "
        "without near-duplicates (B-T4SA) with official splits.",
        f"This copy is {kind[manifest.format]}; `{FOLDERS[other]}` holds the same rows in the same order as "
        f"{kind[other]}. The images are the original bytes. Data version {manifest.data_version}, release format "
        f"{manifest.format_version}.",
        *_twitter_testing(manifest),
    ]


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
        _table(header, rows),
        "*Published*: what the authors state. *Listed*: what the official lists name, before decoding. *Released*: "
        "what the files here hold. *Left out*: listed, but they do not decode. Classes: released (published). "
        f"Published split sizes are {catalog.SPLIT_CERTAINTY.certainty}: {catalog.SPLIT_CERTAINTY.source}.",
    ]


def _count_row(config: str, split: str, entry: SplitEntry) -> list[str]:
    published = catalog.published_class_counts(config, split)
    classes = [
        _NONE if entry.classes is None else f"{entry.classes[i]:,}" + (f" ({published[name]:,})" if published else "")
        for i, name in enumerate(catalog.CLASSES)
    ]
    counts = (catalog.published_count(config, split), entry.listed, entry.rows, len(entry.quarantined))
    return [f"`{config}`", split, *map(_number, counts), *classes]


def _loading(manifest: Manifest) -> list[str]:
    names = ", ".join(f"`{name}`" for name in manifest.configs)
    config = next((name for name in manifest.configs if name == catalog.DEFAULT_CONFIG), None)
    made = [f"Configs: {names}." + (f" `{config}` is the default." if config else "")]
    config = config or next(iter(manifest.configs), catalog.DEFAULT_CONFIG)
    splits = list(manifest.splits(config)) or ["train"]
    name = "" if config == catalog.DEFAULT_CONFIG else f', "{config}"'
    plain = f'datasets.load_dataset("{FOLDERS[manifest.format]}"{name}, split="{splits[0]}", streaming=True)'
    made += _load_tars(manifest, plain) if manifest.format == "wds" else _load_parquet(name, splits, plain)
    if any(layer.kind == "image" for layer in manifest.layers.values()):
        made.append(
            "`<layer>/index.parquet` has one row a sample, everything but the image, and where its bytes are "
            "(`file`, `offset`, `length`). `croissant.json` describes the files for Croissant readers."
        )
    return made


def _load_parquet(name: str, splits: list[str], plain: str) -> list[str]:
    return [
        _python(
            "from t4sa_data import load_dataset  # pip install t4sa-data",
            "",
            f'{splits[-1]} = load_dataset("t4sa"{name}, split="{splits[-1]}")  # fetches the files of this split only',
            f'{splits[0]} = load_dataset("t4sa"{name}, split="{splits[0]}", streaming=True)  # no download, no copy',
        ),
        "Plain `datasets` reads it too, from the folder that contains this one or by the Hub repository's name. "
        "Unless streaming it fetches all splits of a config, whatever `split` says, and keeps a second copy:",
        _python("import datasets", "", f"{splits[0]} = {plain}"),
    ]


def _load_tars(manifest: Manifest, plain: str) -> list[str]:
    patterns = [f"{FOLDERS[manifest.format]}/{pattern}" for pattern in shard_patterns(manifest)]
    return [
        "Samples are `key.jpg`, `key.json`, `key.cls`. The shards, as webdataset expands them:",
        "```\n" + "\n".join(patterns) + "\n```",
        _python(
            "import webdataset",
            "",
            f'samples = webdataset.WebDataset("{next(iter(patterns), "")}", shardshuffle=False)',
            'for image, label in samples.decode("pilrgb").to_tuple("jpg", "cls"):',
            "    ...",
        ),
        "Plain `datasets` streams them as well; its columns bear the members' names:",
        _python(
            "import datasets",
            "",
            f"samples = {plain}",
            'samples = samples.rename_columns({"jpg": "image", "cls": "label"})',
        ),
    ]


def _python(*lines: str) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


def shard_patterns(manifest: Manifest) -> list[str]:
    """The brace string of every (layer, split) of a release, in release order."""
    counts: dict[tuple[str, str], int] = {}
    for file in manifest.files:
        if file.layer is not None and file.split is not None:
            counts[file.layer, file.split] = counts.get((file.layer, file.split), 0) + 1
    return [shard_pattern(layer, split, count, manifest.format) for (layer, split), count in counts.items()]


def _fields(manifest: Manifest) -> list[str]:
    images = [name for name, layer in manifest.layers.items() if layer.kind == "image"]
    texts = [name for name, layer in manifest.layers.items() if layer.kind == "text"]
    made = []
    if images or not texts:
        kinds = {feature["name"]: feature["dtype"] for feature in features_yaml("b-t4sa")}
        rows = [(f"`{name}`", _type(kinds[name]), DESCRIPTIONS[name]) for name in layer_schema("b-t4sa").names]
        made.append(_table(("field", "type", "what it is"), rows))
    if manifest.format == "wds":
        made.append(
            "In the tars `jpg` is `image`, `cls` is `label`, and `json` holds all other fields and the label again; "
            "there `tweet_id` is a string, because many JSON readers round integers above 2^53. Not every image is a "
            "JPEG: some are PNG, GIF or WebP under that name."
        )
    if "twitter-testing" in images:
        kinds = {feature["name"]: feature["dtype"] for feature in features_yaml("twitter-testing")}
        names = [name for name in layer_schema("twitter-testing").names if name not in layer_schema("b-t4sa").names]
        made.append("`twitter-testing` has besides:")
        made.append(
            _table(("field", "type", "what it is"), [(f"`{n}`", _type(kinds[n]), DESCRIPTIONS[n]) for n in names])
        )
    made += [
        f"`{name}` has the fields " + ", ".join(f"`{f}`" for f in layer_schema(name).names) + "." for name in texts
    ]
    return made


def _type(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else str(next(iter(dtype)))


def _making() -> list[str]:
    facts, balanced = catalog.COLLECTION, catalog.PUBLISHED["balanced"]
    start, end = facts["period"].value
    rules = "\n".join(f"  - {rule}" for rule in catalog.COLLECTION_RULES)
    columns = ", ".join(f"`{name}`" for name in PROBABILITIES)
    return [
        "\n".join(
            [
                _fact(f"Collected from {start} to {end}", facts["period"]),
                _fact(f"Source: {facts['api'].value}", facts["api"]),
                _fact(
                    f"Tweets and images collected: {facts['tweets'].value:,} and {facts['images'].value:,}",
                    facts["tweets"],
                ),
                _fact("Rules of the collection", facts["rules"]),
                rules,
                _fact(
                    f"Labeller: {facts['labeller'].value}, on the text; its probabilities are {columns}",
                    facts["labeller"],
                ),
                _fact(f"Cut on the labeller's confidence: {facts['confidence_cut'].value}", facts["confidence_cut"]),
                _fact("How near-duplicate images were found", facts["near_duplicates"]),
                f"- B-T4SA: {balanced.note} ({balanced.certainty}; {balanced.source})",
                _fact("Splits of B-T4SA", catalog.SPLIT_CERTAINTY),
                _fact("Whether a tweet's images share a split", facts["split_by_tweet"]),
            ]
        ),
        "Words in brackets say how sure a statement is (published, computed, inferred, recalled, unknown) and where it "
        "comes from; names in capitals are those of `t4sa_data.catalog`. This copy was made from the authors' files; "
        "rows stand in a seeded order, so that every shard is a fair sample.",
    ]


def _limits() -> list[str]:
    noise = catalog.LABEL_NOISE
    again = ", ".join(f"{count:,} {name}" for name, count in noise["relabelled"].value.items())
    changed, retweets, gone = noise["negative_changed"], catalog.CONTRADICTIONS["retweets"], catalog.TWEETS_GONE
    return [
        "\n".join(
            [
                _fact(f"What a label is: {noise['kind'].value}", noise["kind"]),
                _fact(f"Another labeller gave about {again}", noise["relabelled"]),
                _fact(f"Labels of the negative class that changed with it: {changed.value:.0%}", changed),
                _fact(f"Texts that begin with `RT @`: {retweets.value}", retweets),
                _fact(f"Images whose tweet was deleted since: {gone.value:.1%}", gone),
                _fact(
                    f"Near-duplicates, where this copy had to find them: pHash distance up to "
                    f"{catalog.NEAR_DUPLICATE_BITS.value} of 64",
                    catalog.NEAR_DUPLICATE_BITS,
                ),
            ]
        ),
        "English tweets of half a year, chosen for a classifier's confidence, are no sample of people, of pictures or "
        "of feelings. A model trained on them predicts what a text next to a picture was taken to express, not what "
        "anybody in it felt.",
    ]


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
        _table(("layer", "split", "left out", "of these known to be bad"), rows),
        *(["\n".join(known)] if known else []),
    ]


def _people() -> list[str]:
    return [
        "**Content warning.** Unfiltered social media: violence, nudity, hate, illness and death can occur, in images "
        "and in texts.",
        "The images show people, and the ids and texts lead to who posted them; nobody was asked. Sentiment says "
        "something about a person's state of mind, and politics, health or faith can be read off some of it. Access "
        "asks for these promises:",
        "\n".join(f"- {condition}." for condition in GATE_CONDITIONS),
        "To have something removed, see the maintainers of this copy. A removal rewrites the files it touches and "
        "withdraws the release that still held it.",
    ]


def _license_and_citation() -> list[str]:
    return [
        "## License",
        f"{catalog.LICENSE.note} ({catalog.LICENSE.certainty}; {catalog.LICENSE.source})",
        "## Citation",
        f"```bibtex\n{catalog.CITATION.strip()}\n```",
    ]


def _provenance(manifest: Manifest) -> list[str]:
    inputs = {
        (item["name"], item["bytes"], _sum_of(item))
        for layer in manifest.layers.values()
        for item in layer.provenance.get("inputs", ())
    }
    layers = [(f"`{name}`", f"`{layer.content_digest}`") for name, layer in manifest.layers.items()]
    tools = ", ".join(f"{name} {number}" for name, number in sorted(manifest.toolchain.items()))
    table = _table(("input", "bytes", "sha256"), [(f"`{n}`", f"{b:,}", s) for n, b, s in sorted(inputs)])
    return [
        f"Content digest `{manifest.content_digest}`: sha256 over the rows, equal for equal content in any format.",
        _table(("layer", "content digest"), layers),
        *([table] if inputs else ["No input files are recorded."]),
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
