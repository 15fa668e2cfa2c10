"""Names of T4SA: classes, splits, configs, layers, repositories, citation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .facts import CONVERTED, PAGE, SERRA, Fact
from .twitter_testing import twitter_testing_places

CLASSES = ("negative", "neutral", "positive")
"""Class names; the label is the index."""
LABEL_ORDER = Fact(
    value=dict(enumerate(CLASSES)),
    source=CONVERTED,
    certainty="published",
    note="Also the column order of the TSV (NEG, NEU, POS) and the labels of the split lists.",
)

SPLITS = ("train", "validation", "test")
OFFICIAL_LISTS = {"train": "b-t4sa_train.txt", "validation": "b-t4sa_val.txt", "test": "b-t4sa_test.txt"}
"""Split -> name of the official list, inside or beside b-t4sa_imgs.tar."""

IMAGE_LAYERS = ("b-t4sa", "unique", "duplicates")
"""Layers of the nested image configs, in release order."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One thing that `load_dataset("t4sa", name)` can load."""

    name: str
    kind: Literal["image", "text"]
    description: str
    """One sentence."""
    splits: Mapping[str, tuple[tuple[str, str], ...]]
    """Split -> (layer, split) pairs whose shards make it up, in release order."""
    needs: str
    """One sentence: the raw material, and what to pass to `t4sa prepare`."""
    built_by_prepare: bool
    """False: not written by `t4sa prepare` in this version."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Distinct layers, in release order."""
        return tuple(dict.fromkeys(layer for parts in self.splits.values() for layer, _ in parts))


def _own_layer(name: str, *splits: str) -> dict[str, tuple[tuple[str, str], ...]]:
    return {split: ((name, split),) for split in splits}


def _nested(*layers: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Validation and test are always B-T4SA's; further layers add to train only."""
    held_out = _own_layer("b-t4sa", "validation", "test")
    return {"train": tuple((layer, "train") for layer in layers), **held_out}


_CONFIGS = (
    Config(
        name="b-t4sa",
        kind="image",
        description="B-T4SA: near-duplicates removed, classes balanced, with the official train, validation and test "
        "splits.",
        splits=_nested("b-t4sa"),
        needs="Needs b-t4sa_imgs.tar, its three split lists (inside the tar or beside it) and t4sa_text_sentiment.tsv "
        "in RAW: `t4sa prepare RAW`.",
        built_by_prepare=True,
    ),
    Config(
        name="t4sa-unique",
        kind="image",
        description="T4SA without near-duplicate images, unbalanced; validation and test are B-T4SA's.",
        splits=_nested("b-t4sa", "unique"),
        needs="Needs what b-t4sa needs and the archives of the other T4SA images: `t4sa prepare RAW --images TAR... "
        "[--unique-list FILE]` (near-duplicates are found by pHash where there is no list).",
        built_by_prepare=True,
    ),
    Config(
        name="t4sa",
        kind="image",
        description="All T4SA images, near-duplicates included; validation and test are B-T4SA's.",
        splits=_nested(*IMAGE_LAYERS),
        needs="Needs what b-t4sa needs and the archives of the other T4SA images: `t4sa prepare RAW --images TAR... "
        "[--unique-list FILE]`.",
        built_by_prepare=True,
    ),
    Config(
        name="raw-text",
        kind="text",
        description="Id and text of every collected tweet, without labels.",
        splits=_own_layer("raw-text", "train"),
        needs="Needs raw_tweets_text.csv in RAW: `t4sa prepare RAW --configs raw-text`.",
        built_by_prepare=True,
    ),
    Config(
        name="t4sa-text",
        kind="text",
        description="The tweets of T4SA with the labeller's three probabilities and, where known, their text.",
        splits=_own_layer("t4sa-text", "train"),
        needs="Needs t4sa_text_sentiment.tsv in RAW, and raw_tweets_text.csv for the text: "
        "`t4sa prepare RAW --configs t4sa-text`.",
        built_by_prepare=True,
    ),
    Config(
        name="b-t4sa-256",
        kind="image",
        description="B-T4SA with every image resized once to a short side of 256 pixels.",
        splits=_own_layer("b-t4sa-256", *SPLITS),
        needs="Needs what b-t4sa needs: `t4sa prepare RAW --configs b-t4sa-256`, or `t4sa get --configs b-t4sa-256`, "
        "which does not store the archive.",
        built_by_prepare=True,
    ),
    Config(
        name="twitter-testing",
        kind="image",
        description="The Twitter Testing Dataset of You et al. (2015): hand-labelled images, two classes, with "
        "agreement and fold.",
        splits=_own_layer("twitter-testing", "test"),
        needs="Needs your own copy of the Twitter Testing Dataset: `t4sa prepare TTD --configs twitter-testing`. "
        + twitter_testing_places(),
        built_by_prepare=True,
    ),
    Config(
        name="miniature",
        kind="image",
        description="Drawn pictures in the shape of B-T4SA, made on the spot, offline: for tests and first tries.",
        splits=_own_layer("miniature", *SPLITS),
        needs='Needs nothing: `load_dataset("t4sa", "miniature")` makes it.',
        built_by_prepare=False,
    ),
)
CONFIGS: dict[str, Config] = {config.name: config for config in _CONFIGS}
DEFAULT_CONFIG = "b-t4sa"

KNOWN_BAD: dict[str, str] = {
    "784393626990194689-4": "data/78439/784393626990194689-4.jpg of the official test list does not decode "
    f"(dropped as corrupted in the {SERRA}).",
}
"""Key -> why it cannot be released."""

HUB_NAMESPACE = "t4sa"
"""Default owner of the Hub repositories, not yet published; the environment variable T4SA_NAMESPACE overrides it."""
HUB_REPOSITORIES = {"parquet": "t4sa", "wds": "t4sa-wds"}
"""Format -> repository name."""
RELEASE_LINE = "v1"
"""Release line (Hub branch or tag prefix) that this package reads."""
DATA_VERSION = "1.0.0"
"""Version of the data that this package writes."""

HOMEPAGE = "http://www.t4sa.it"
DATASET_URL = "http://www.t4sa.it/dataset/"
"""Folder of the official files: plain http, behind a user name and password."""
FORM_URL = Fact(
    value=None,
    source=PAGE,
    certainty="unknown",
    note=f"Access is asked for in a form linked from {HOMEPAGE}; user name and password come by mail.",
)
LICENSE = Fact(
    value=None,
    source=PAGE,
    certainty="unknown",
    note="No licence text was found. The images and texts are their authors' tweets, under the platform's terms.",
)
LICENSE_ID = "other"
"""Value of `license:` on a dataset card."""

PAPER_TITLE = "Cross-Media Learning for Image Sentiment Analysis in the Wild"
PAPER_DOI = "10.1109/ICCVW.2017.45"
CITATION = f"""@inproceedings{{vadicamo2017cross,
  title     = {{{PAPER_TITLE}}},
  author    = {{Vadicamo, Lucia and Carrara, Fabio and Cimino, Andrea and Cresci, Stefano and Dell'Orletta, Felice and
               Falchi, Fabrizio and Tesconi, Maurizio}},
  booktitle = {{Proceedings of the IEEE International Conference on Computer Vision Workshops (ICCVW)}},
  pages     = {{308--317}},
  year      = {{2017}},
  doi       = {{{PAPER_DOI}}}
}}
"""
