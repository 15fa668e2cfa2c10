"""Every published count of T4SA, how it was collected, and what is known of its quality."""

from dataclasses import dataclass

from .configs import CLASSES
from .facts import PAGE, PAPER, SERRA, Certainty, Fact
from .twitter_testing import TWITTER_TESTING


@dataclass(frozen=True, kw_only=True)
class Count:
    """A published count, per class and in all."""

    of: str
    """What is counted."""
    negative: int
    neutral: int
    positive: int
    total: int
    """As published, not summed here."""
    source: str
    certainty: Certainty
    note: str = ""

    def by_class(self) -> dict[str, int]:
        """Class -> count, in label order."""
        return {"negative": self.negative, "neutral": self.neutral, "positive": self.positive}


PUBLISHED: dict[str, Count] = {
    "tweets": Count(
        of="tweets of T4SA",
        negative=179_050,
        neutral=629_566,
        positive=371_341,
        total=1_179_957,
        source=PAGE,
        certainty="published",
        note="Also the number of rows of t4sa_text_sentiment.tsv.",
    ),
    "images": Count(
        of="images of T4SA",
        negative=214_462,
        neutral=757_895,
        positive=501_037,
        total=1_473_394,
        source=PAGE,
        certainty="published",
    ),
    "unique": Count(
        of="images of T4SA without near-duplicates",
        negative=156_862,
        neutral=444_287,
        positive=372_904,
        total=974_053,
        source=PAGE,
        certainty="published",
    ),
    "balanced": Count(
        of="images of B-T4SA",
        negative=156_862,
        neutral=156_862,
        positive=156_862,
        total=470_586,
        source=PAGE,
        certainty="published",
        note="As many of each class as the negative class has, drawn without replacement.",
    ),
}

SPLIT_CERTAINTY = Fact(
    value={"train": 122_862, "validation": 17_000, "test": 17_000},
    source=f"{PAPER}, quoted second-hand as about 80/10/10 %; the exact sizes computed",
    certainty="computed",
    note="Images per class. They sum to B-T4SA, and 6 epochs of ceil(train / 64) iterations give the number in the "
    "released snapshot's name; not read in the paper itself.",
)
SPLIT_SIZES: dict[str, int] = {split: len(CLASSES) * size for split, size in SPLIT_CERTAINTY.value.items()}
"""Images of B-T4SA's official splits, known-bad ones included."""


_SPLIT_SOURCE = {"b-t4sa": "balanced", "b-t4sa-256": "balanced", "t4sa-unique": "unique", "t4sa": "images"}


def published_count(config: str, split: str) -> int | None:
    """Published images (or tweets) of a split, known-bad ones included; None where no exact count is published.

    >>> published_count("b-t4sa", "test"), published_count("raw-text", "train")
    (51000, None)
    """
    if config == "t4sa-text":
        return PUBLISHED["tweets"].total if split == "train" else None
    if config == "twitter-testing":
        return TWITTER_TESTING["three"].total if split == "test" else None
    if config not in _SPLIT_SOURCE or split not in SPLIT_SIZES:
        return None
    if split != "train":
        return SPLIT_SIZES[split]
    return PUBLISHED[_SPLIT_SOURCE[config]].total - SPLIT_SIZES["validation"] - SPLIT_SIZES["test"]


def published_class_counts(config: str, split: str) -> dict[str, int] | None:
    """The same per class, in label order.

    >>> published_class_counts("b-t4sa", "test")
    {'negative': 17000, 'neutral': 17000, 'positive': 17000}
    """
    if config == "t4sa-text":
        return PUBLISHED["tweets"].by_class() if split == "train" else None
    if config == "twitter-testing":
        return TWITTER_TESTING["three"].by_class() if split == "test" else None
    if config not in _SPLIT_SOURCE or split not in SPLIT_SIZES:
        return None
    held_out = SPLIT_CERTAINTY.value
    if split != "train":
        return dict.fromkeys(CLASSES, held_out[split])
    counts = PUBLISHED[_SPLIT_SOURCE[config]].by_class()
    return {name: count - held_out["validation"] - held_out["test"] for name, count in counts.items()}


COLLECTION_RULES = (
    "A tweet without a static image, or with any video or animated GIF, is discarded.",
    "A tweet that is not in English is discarded.",
    "A tweet with fewer than five words is discarded.",
    "A retweet is discarded.",
)
"""See COLLECTION["rules"] for source and certainty."""

COLLECTION: dict[str, Fact] = {
    "period": Fact(
        value=("2016-07", "2016-12"),
        source=PAGE,
        certainty="published",
        note="July to December 2016; tweet ids seen in the split lists decode to 2016-07-26 ... 2016-10-08.",
    ),
    "api": Fact(value="Twitter Sample API", source=PAGE, certainty="published", note="About 1 % of all public tweets."),
    "tweets": Fact(value=3_400_000, source=PAGE, certainty="published", note="About; no exact count is published."),
    "images": Fact(value=4_000_000, source=PAGE, certainty="published", note="About; no exact count is published."),
    "rules": Fact(
        value=COLLECTION_RULES,
        source=PAGE,
        certainty="recalled",
        note="The page's list as handed down to this project; not re-read.",
    ),
    "labeller": Fact(
        value="Tandem LSTM-SVM",
        source="Cimino and Dell'Orletta, EVALITA 2016, https://books.openedition.org/aaccademia/2003",
        certainty="published",
        note="Training set and accuracy of the English version used for T4SA were not found.",
    ),
    "confidence_cut": Fact(
        value=0.85,
        source="sample rows of t4sa_text_sentiment.tsv: lowest maximum probability 0.8614 of 7",
        certainty="inferred",
        note="The page says that the most confident predictions were kept; measured and reported by every build.",
    ),
    "near_duplicates": Fact(
        value=None,
        source=PAPER,
        certainty="unknown",
        note="Feature and threshold of the near-duplicate removal were not found; see NEAR_DUPLICATE_BITS.",
    ),
    "split_by_tweet": Fact(
        value=None,
        source=PAPER,
        certainty="unknown",
        note="Whether all images of a tweet stand in one split was not found; every build reports it.",
    ),
    "image_bytes": Fact(
        value=134_000,
        source="63 GB of b-t4sa_imgs.tar / images of B-T4SA",
        certainty="computed",
        note="Mean bytes of an image of B-T4SA, decimal GB assumed.",
    ),
}

NEAR_DUPLICATE_BITS = Fact(
    value=8,
    source="this project: 37 known pairs against 499,500 unrelated pairs of photographs",
    certainty="inferred",
    note="Largest Hamming distance of two 64-bit pHashes called near-duplicates: our choice, not the paper's. It does "
    "not see mirrored or rotated copies, and tweets hold flat screenshots: count beside the published one.",
)

CONTRADICTIONS: dict[str, Fact] = {
    "retweets": Fact(
        value="5 of 7",
        source="sample rows of raw_tweets_text.csv joined with t4sa_text_sentiment.tsv in a public README",
        certainty="published",
        note='The rules discard retweets, yet released texts begin with "RT @": reported by every build, not rejected.',
    ),
}

LABEL_NOISE: dict[str, Fact] = {
    "relabelled": Fact(
        value={"negative": 95_300, "neutral": 182_300, "positive": 193_000},
        source="T4SA 2.0, github.com/codiceSpaghetti/T4SA-2.0: B-T4SA images relabelled by TimeLM (twitter-roberta)",
        certainty="computed",
        note="About; from its counts of train and validation.",
    ),
    "negative_changed": Fact(
        value=0.39,
        source="the counts above",
        certainty="computed",
        note="At least 39 % of the negative images (61,600, 13 % of all) get another label.",
    ),
    "kind": Fact(
        value="labels of the text, carried over to the image",
        source=PAGE,
        certainty="published",
        note="Nobody looked at the images; the class is that of the tweet's text as a classifier read it.",
    ),
    "known_bad": Fact(value=1, source=SERRA, certainty="published", note="See KNOWN_BAD."),
}

TWEETS_GONE = Fact(
    value=0.268,
    source="a public repository's look-up of the tweets in about 2020/21",
    certainty="published",
    note="Share of B-T4SA images whose tweet had been deleted: 344,389 were left.",
)
