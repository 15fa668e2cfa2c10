"""What a card says of loading: code that runs as it stands, for the format and for where this copy is."""

from __future__ import annotations

from t4sa_data import catalog
from t4sa_data.card.markup import code
from t4sa_data.card.metadata import shard_pattern
from t4sa_data.card.publisher import Publisher
from t4sa_data.manifest import FOLDERS, Manifest


def loading(manifest: Manifest, publisher: Publisher | None) -> list[str]:
    """How to load a release of Parquet or tar."""
    names = ", ".join(f"`{name}`" for name in manifest.configs)
    is_default = catalog.DEFAULT_CONFIG in manifest.configs
    made = [f"Configs: {names}." + (f" `{catalog.DEFAULT_CONFIG}` is the default." if is_default else "")]
    owner = publisher.namespace if publisher is not None else None
    if owner is not None:
        made.append(_access(owner))
    name, splits = first(manifest)
    repository = f"{owner}/{FOLDERS[manifest.format]}" if owner else FOLDERS[manifest.format]
    plain = f'datasets.load_dataset("{repository}"{name}, split="{splits[0]}", streaming=True)'
    made += _tars(manifest, plain, owner) if manifest.format == "wds" else _parquet(name, splits, plain, owner)
    if any(layer.kind == "image" for layer in manifest.layers.values()):
        made.append(
            "`<layer>/index.parquet` has one row a sample, everything but the image, and where its bytes are "
            "(`file`, `offset`, `length`). `croissant.json` describes the files for Croissant readers."
        )
    return made


def first(manifest: Manifest) -> tuple[str, list[str]]:
    """For an example: the argument that names a config (nothing for the default), and its splits."""
    default = catalog.DEFAULT_CONFIG
    config = default if default in manifest.configs else next(iter(manifest.configs), default)
    return ("" if config == default else f', "{config}"'), list(manifest.splits(config)) or ["train"]


def _access(owner: str) -> str:
    """What to do before the first line of code runs."""
    words = "Ask for access on this page, and log in: `hf auth login`."
    if owner != catalog.HUB_NAMESPACE:
        words += f" `t4sa_data` finds this copy by `T4SA_NAMESPACE={owner}` in the environment."
    return words


def _parquet(name: str, splits: list[str], plain: str, owner: str | None) -> list[str]:
    where = "by the repository's name" if owner else "from the folder that contains this one"
    return [
        code(
            "python",
            "from t4sa_data import load_dataset  # pip install t4sa-data",
            "",
            f'{splits[-1]} = load_dataset("t4sa"{name}, split="{splits[-1]}")  # fetches the files of this split only',
            f'{splits[0]} = load_dataset("t4sa"{name}, split="{splits[0]}", streaming=True)  # no download, no copy',
        ),
        f"Plain `datasets` reads it too, {where}. Unless streaming it fetches all splits of a config, whatever `split` "
        "says, and keeps a second copy:",
        code("python", "import datasets", "", f"{splits[0]} = {plain}"),
    ]


def _tars(manifest: Manifest, plain: str, owner: str | None) -> list[str]:
    folder = FOLDERS[manifest.format]
    patterns = [f"{folder}/{pattern}" for pattern in shard_patterns(manifest)]
    place = f"hf://datasets/{owner}/{folder}" if owner else folder
    made = [
        "Batches of tensors for training, exact to resume, with `pip install 't4sa-data[torch]'`:",
        code("python", "import t4sa_data", "", f'batches = t4sa_data.stream("{place}", batch_size=256)'),
    ]
    if catalog.DEFAULT_CONFIG not in manifest.configs:
        made = []
    return [
        *made,
        "Samples are `key.jpg`, `key.json`, `key.cls`. The shards of a copy on your disk, as webdataset expands them:",
        "```\n" + "\n".join(patterns) + "\n```",
        code(
            "python",
            "import webdataset",
            "",
            f'samples = webdataset.WebDataset("{next(iter(patterns), "")}", shardshuffle=False)',
            'for image, label in samples.decode("pilrgb").to_tuple("jpg", "cls"):',
            "    ...",
        ),
        "Plain `datasets` streams them as well; its columns bear the members' names:",
        code(
            "python",
            "import datasets",
            "",
            f"samples = {plain}",
            'samples = samples.rename_columns({"jpg": "image", "cls": "label"})',
        ),
    ]


def shard_patterns(manifest: Manifest) -> list[str]:
    """The brace string of every (layer, split) of a release, in release order."""
    counts: dict[tuple[str, str], int] = {}
    for file in manifest.files:
        if file.layer is not None and file.split is not None:
            counts[file.layer, file.split] = counts.get((file.layer, file.split), 0) + 1
    return [shard_pattern(layer, split, count, manifest.format) for (layer, split), count in counts.items()]
