"""Which tweets of the stream are candidates: the four published rules, and the images of a tweet that is kept.

Tweets are objects of Twitter's API v1.1 as they were received, in any of its forms: with the text in `text`,
`full_text` or `extended_tweet`, with `extended_entities` or without. A rule takes a tweet and says whether it breaks
it. Nothing here raises, whatever stands in a tweet, and nothing depends on the order of its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Tweet = Mapping[str, Any]

NO_IMAGE = "collect/no-image"
NOT_ONLY_PHOTOS = "collect/not-only-photos"
"""A video, an animated GIF, or a medium of an unknown type."""
NO_LANGUAGE = "collect/no-language"
"""`lang` is absent: Twitter did not say (tweets before 2013, cut-down dumps)."""
NOT_ENGLISH = "collect/not-english"
FEW_WORDS = "collect/few-words"
RETWEET = "collect/retweet"
RT_TEXT = "collect/rt-text"
"""A text that begins `RT @`, without `retweeted_status`. Only where it is asked for: the released texts hold such."""
BAD_ID = "collect/bad-id"
"""`id` is no integer: MongoDB's `{"$numberLong": ...}`, a float. Not an object of the API, but an export of one."""
REASONS = (NO_IMAGE, NOT_ONLY_PHOTOS, NO_LANGUAGE, NOT_ENGLISH, FEW_WORDS, RETWEET, RT_TEXT, BAD_ID)
"""In the order in which they are looked for: a tweet that breaks several rules has the first one's reason."""

LANGUAGE = "en"
MIN_WORDS = 5
"""As published: tweets with less than five words are discarded."""
MAX_IMAGES = 4
"""Photos of a tweet, by Twitter's own limit; keys end in -1 to -4."""
RT_START = "RT @"
MAX_ID = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is not published, so can be chosen."""

    drop_rt_text: bool = False
    """Drop texts that begin `RT @` too; else they are only counted."""
    wrapped_ids: bool = False
    """Take MongoDB's `{"$numberLong": ...}` as ids."""


PUBLISHED = Rules()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a tweet is kept: true or false as a condition."""

    reason: str | None = None
    """Of `REASONS`; None: it is kept."""

    def __bool__(self) -> bool:
        return self.reason is None


class Image(NamedTuple):
    """An image of a tweet."""

    key: str
    """`<tweet id>-<k>`, k from 1 on in the tweet's order."""
    url: str | None
    """Where it was; None: the tweet does not say."""


KEPT = Verdict()
_VERDICTS = {reason: Verdict(reason) for reason in REASONS}


def keep(tweet: Tweet, rules: Rules = PUBLISHED) -> Verdict:
    """Whether a tweet is a candidate, and the reason where it is none.

    >>> photo = {"media": [{"type": "photo", "media_url_https": "https://pbs.example/a.jpg"}]}
    >>> tweet = {"id": 7, "lang": "en", "text": "five words are enough here", "entities": photo}
    >>> bool(keep(tweet)), keep({**tweet, "lang": "it"}).reason, keep({**tweet, "text": "too few"}).reason
    (True, 'collect/not-english', 'collect/few-words')
    """
    for rule in _RULES:
        if (reason := rule(tweet, rules)) is not None:
            return _VERDICTS[reason]
    return KEPT


def only_photos(tweet: Tweet, _rules: Rules = PUBLISHED) -> str | None:
    """At least one photo, and nothing but photos, among the tweet's own media."""
    found = media(tweet)
    if not found:
        return NO_IMAGE
    for medium in found:
        if not isinstance(medium, dict) or medium.get("type") != "photo":
            return NOT_ONLY_PHOTOS
    return None


def in_english(tweet: Tweet, _rules: Rules = PUBLISHED) -> str | None:
    """`lang` is `en`, by Twitter's own detection; the user's language says nothing about the tweet."""
    found = tweet.get("lang")
    if found == LANGUAGE:
        return None
    return NO_LANGUAGE if found is None else NOT_ENGLISH


def enough_words(tweet: Tweet, _rules: Rules = PUBLISHED) -> str | None:
    """At least five words: what stands between white space in the whole text.

    Links, mentions and hashtags are words too: the paper does not say what a word is, and every tweet with an image has
    the link of that image in its text.
    """
    return FEW_WORDS if len(text_of(tweet).split(None, MIN_WORDS - 1)) < MIN_WORDS else None


def no_retweet(tweet: Tweet, rules: Rules = PUBLISHED) -> str | None:
    """No `retweeted_status`; `retweeted` is about the reader. Quotes are no retweets."""
    if tweet.get("retweeted_status") is not None:
        return RETWEET
    return RT_TEXT if rules.drop_rt_text and begins_rt(tweet) else None


def id_is_number(tweet: Tweet, rules: Rules = PUBLISHED) -> str | None:
    """`id` is an integer or its digits, or absent: then `id_str` counts alone."""
    found = tweet.get("id")
    if type(found) is int or found is None or isinstance(found, str):
        return None
    return None if rules.wrapped_ids and _unwrapped(found) is not None else BAD_ID


_RULES: tuple[Callable[[Tweet, Rules], str | None], ...] = (
    only_photos, in_english, enough_words, no_retweet, id_is_number,
)  # fmt: skip


def begins_rt(tweet: Tweet) -> bool:
    """The text begins `RT @`, as retweets by hand do."""
    return text_of(tweet).startswith(RT_START)


def media(tweet: Tweet) -> list[Any]:
    """A tweet's own media, never a quoted tweet's; may be empty.

    `extended_entities` has all of them with their true types; `entities` has the first one, and calls a video a photo.
    Of a long tweet in the stream, both stand inside `extended_tweet` only.

    >>> first, both = [{"type": "photo"}], [{"type": "video"}]
    >>> media({"entities": {"media": first}, "extended_entities": {"media": both}})
    [{'type': 'video'}]
    """
    inside = tweet.get("extended_tweet")
    wholes = (inside, tweet) if isinstance(inside, dict) else (tweet,)
    for name in ("extended_entities", "entities"):
        for whole in wholes:
            part = whole.get(name)
            if isinstance(part, dict) and (found := part.get("media")) and isinstance(found, list):
                return found
    return []


def text_of(tweet: Tweet) -> str:
    """The whole text: `extended_tweet`'s, else `full_text`, else `text`; empty where there is none."""
    inside = tweet.get("extended_tweet")
    found = inside.get("full_text") if isinstance(inside, dict) else None
    for text in (found, tweet.get("full_text"), tweet.get("text")):
        if text and isinstance(text, str):
            return text
    return ""


def tweet_id(tweet: Tweet) -> int | None:
    """The id, exact: `id_str` first, since programs that know only floats have rounded `id`. None: there is none.

    >>> tweet_id({"id": 505874315388104800, "id_str": "505874315388104833"}), tweet_id({"id": 7.5e17})
    (505874315388104833, None)
    """
    found = tweet.get("id_str")
    number = _digits(found) if isinstance(found, str) else None
    if number is not None:
        return number
    found = tweet.get("id")
    if type(found) is int:
        return found if 0 <= found <= MAX_ID else None
    return _digits(found) if isinstance(found, str) else _unwrapped(found)


def _unwrapped(found: object) -> int | None:
    inside = found.get("$numberLong") if isinstance(found, dict) else None
    return _digits(inside) if isinstance(inside, str) else None


def _digits(text: str) -> int | None:
    if text.isascii() and text.isdecimal() and len(text) <= 19:
        number = int(text)
        return number if number <= MAX_ID else None
    return None


def images(tweet: Tweet, number: int) -> list[Image]:
    """The images of a tweet that is kept, in their order, at most four.

    Args:
        tweet: one that `keep` keeps.
        number: its `tweet_id`.

    >>> images({"entities": {"media": [{"type": "photo", "media_url": "http://pbs.example/a.jpg"}]}}, 7)
    [Image(key='7-1', url='http://pbs.example/a.jpg')]
    """
    return [Image(f"{number}-{k}", url) for k, url in enumerate(image_urls(tweet), 1)]


def image_urls(tweet: Tweet) -> list[str | None]:
    """Where the images of a tweet that is kept were, as in `images`."""
    return [_url(medium) for medium in media(tweet)[:MAX_IMAGES]]


def _url(medium: Mapping[str, Any]) -> str | None:
    for name in ("media_url_https", "media_url"):
        found = medium.get(name)
        if found and isinstance(found, str):
            return found
    return None
