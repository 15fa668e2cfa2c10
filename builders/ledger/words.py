"""What reasons mean, in words, and where their stages stand on the way from a raw tweet to a split.

Every reason constant of the builders has its words here (a test walks them all); an unknown one stands for itself.
"""

from __future__ import annotations

from t4sa_data.catalog import CONFIGS

STAGES = (
    "official", "twitter-testing", "collect", "label", "select", "removals", "splits", "limit", "fetch", "inspection",
    "configs", "dedup", "balance", "split",
)  # fmt: skip
"""In the order in which a candidate meets them; those that builds from raw tweets always have are `BUILD_STAGES`."""
BUILD_STAGES = {
    "tweet": ("collect", "label", "select"),
    "image": ("fetch", "inspection", "dedup", "balance", "split"),
}
"""Stages that a build from raw tweets always has, for each kind of candidate."""
ASIDE = {"duplicates": "dedup", "unique": "balance"}
"""Layers of images that were set aside on the way to B-T4SA, and the stage that did it."""
LAST = "split"
"""The stage in which kept candidates of all other layers end."""

_WORDS = {
    # prepare
    "official/not-listed": "it is in the archive, and no split list names it",
    "official/not-in-archive": "a split list names it, and the archive does not hold it",
    "official/no-label": "it is in a further archive, and its tweet is not in the TSV",
    "official/already-in-b-t4sa": "a further archive holds it again: B-T4SA lists it",
    "official/repeated": "it is a row of the CSV with the id of an earlier one",
    "twitter-testing/not-listed": "it is in the copy of the Twitter Testing Dataset, and no list names it",
    "removals/removed": "the list of removals names it, or its tweet",
    "limit/beyond": "it was beyond the limit on rows that was asked for",
    "splits/not-asked-for": "it is of a split that was not asked for",
    "configs/not-built": "it is of a layer that was not asked for",
    # collect
    "collect/no-image": "it has no photo, video or GIF of its own",
    "collect/not-only-photos": "it has a video, an animated GIF or a medium of unknown type",
    "collect/no-language": "Twitter did not say its language",
    "collect/not-english": "its language is not English, by Twitter's own detection",
    "collect/few-words": "its text has less than five words",
    "collect/retweet": "it is a retweet",
    "collect/rt-text": "its text begins with RT @",
    "collect/bad-id": "its id is no integer",
    "collect/deleted": "its author deleted it since, by a notice of the stream",
    # label: reasons of `builders.label.inputs`; select: those of `builders.selection`
    "label/bad-id": "it has no id to be labelled under",
    "label/missing-text": "it has no text to be labelled by",
    "label/text-not-a-string": "its text is not a string",
    "label/text-not-utf-8": "its text is not UTF-8",
    "label/text-too-long": "its text is too long to be labelled",
    "label/empty-text": "nothing is left of its text to be labelled by",
    "label/no-label": "the file of labels that was given has none for it",
    "label/unlabelled": "it has no label",
    "select/below-threshold": "its label is less confident than the threshold",
    "select/not-among-the-most-confident": "others have more confident labels",
    # fetch, transient
    "fetch/dns": "the name of its host did not resolve",
    "fetch/connection": "no connection to its host, or one that ended before an answer",
    "fetch/tls": "its host had no trusted certificate",
    "fetch/timeout": "its host did not answer in time",
    "fetch/cut": "the answer ended early",
    "fetch/rate-limited": "its host asked for fewer requests, and went on asking",
    "fetch/server-error": "its host answered with an error of its own",
    "fetch/robots-unreachable": "its host did not say what robots may ask for",
    "fetch/host-down": "it was not asked for: its host had failed too often in a row",
    # fetch, permanent
    "fetch/no-url": "the tweet does not say where it is",
    "fetch/bad-url": "its address is none that is asked for",
    "fetch/private-address": "its host, at first or after a redirect, is not one of the public internet",
    "fetch/not-found": "its host does not have it",
    "fetch/gone": "its host says that it is gone for good",
    "fetch/forbidden": "its host does not give it to us",
    "fetch/refused": "its host refused the request",
    "fetch/bad-status": "its host answered with neither an image nor a refusal",
    "fetch/redirects": "its host sent us in circles, or on and on",
    "fetch/robots": "its host's robots.txt disallows it",
    "fetch/opt-out": "its host reserves it from uses like this one",
    "fetch/too-large": "it has more bytes than the limit",
    "fetch/empty": "the answer had no bytes",
    "fetch/html": "the answer was a web page",
    "fetch/not-an-image": "the answer was no picture",
    "fetch/encoding": "the answer was packed in a way that was not asked for, or does not unpack",
    "fetch/placeholder": "the answer was a picture that says that the picture is gone",
    # balance, split
    "balance/not-drawn": "there are more images of its class than of the smallest one, and others were drawn",
    "balance/another-of-its-tweet": "another image of its tweet is the one that may be drawn",
    "split/not-listed": "no split list that was given names it",
    "split/across-the-cut": "images that have to stay together with it lie on both sides of a cut in time",
    # inspection: reasons of `t4sa_data.pixels`
    "inspection/empty": "the file has no bytes",
    "inspection/not-an-image": "the file is of no known picture format",
    "inspection/truncated": "the picture ends too early",
    "inspection/too-many-pixels": "the picture has more pixels than the limit",
    "inspection/decode-timeout": "the picture took too long to decode",
    "inspection/undecodable": "the picture does not decode",
    "inspection/killed-its-process": "the picture ended every process that decoded it",
}

_FINISHED = {
    "collect": "was collected: the published rules keep it",
    "label": "was labelled",
    "select": "was selected: the rule of confidence keeps it",
    "fetch": "was fetched",
    "inspection": "decodes",
    "dedup": "is the representative of its near-duplicates",
    "balance": "was drawn into the balanced set",
}


def reason_of(stage: str, words: str) -> str:
    """A reason constant from what a stage calls it.

    >>> reason_of("select", "below the threshold"), reason_of("label", "text not UTF-8")
    ('select/below-the-threshold', 'label/text-not-utf-8')
    """
    return f"{stage}/{'-'.join(words.lower().split())}"


def meaning_of(reason: str) -> str:
    """Why, as the end of a sentence; empty for an unknown reason, which stands for itself.

    >>> meaning_of("collect/retweet"), meaning_of("fetch/of-tomorrow")
    ('it is a retweet', '')
    """
    return _WORDS.get(reason.lower(), "")


def stage_of(layer: str | None, reason: str | None) -> str:
    """The stage in which a candidate left, was set aside, or, kept to the end, `LAST`.

    >>> stage_of(None, "collect/retweet"), stage_of("duplicates", None), stage_of("b-t4sa", None)
    ('collect', 'dedup', 'split')
    """
    return reason.split("/")[0] if reason is not None else ASIDE.get(str(layer), LAST)


def place_of(stage: str) -> int:
    """Where a stage stands in `STAGES`; unknown ones after all.

    >>> place_of("collect") < place_of("fetch") < place_of("of-tomorrow")
    True
    """
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def finished_words(stage: str) -> str | None:
    """What has become of a candidate that passed a stage; None where nothing is to be said."""
    return _FINISHED.get(stage)


def configs_with(layer: str, split: str) -> list[str]:
    """Splits of configs that hold a layer's split, as words.

    >>> configs_with("unique", "train")
    ['t4sa-unique (train)', 't4sa (train)']
    """
    return [
        f"{name} ({theirs})"
        for name, config in CONFIGS.items()
        for theirs, parts in config.splits.items()
        if (layer, split) in parts
    ]
