"""What a tweet's text becomes before anything looks at it: cleaned, cut into pieces, each piece a token or a few.

The same two functions serve training and labelling; `TEXT_VERSION` is part of a model's fingerprint, so that a model
never meets tokens of another rule. Nothing is lost silently: every character of a cleaned text that is no blank lies in
exactly one piece.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

TEXT_VERSION = 1
"""Raised by hand with every change of a token."""
MAX_CHARS = 10_000
"""A text that is longer is no tweet (Twitter: 280 characters, 4,000 in long form; escapes can double them)."""

URL, USER, NUMBER, EMAIL = "<url>", "<user>", "<num>", "<email>"
HAPPY, SAD, ODD = "<emo+>", "<emo->", "<emo>"
"""Emoticons: those that smile, those that do not, the others."""

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_ESCAPED_BACKSLASH = re.compile(r"\\(?:u005[cC])+")
_ESCAPED_QUOTE = re.compile(r"""\\+(["'])""")
_AMPERSAND = re.compile(r"&(?:amp;?|#0*38(?![0-9]);?|#[xX]0*26(?![0-9a-fA-F]);?)+")
_QUOTES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc`\u00b4", "'") | dict.fromkeys("\u201c\u201d\u201e", '"'))
_DOUBLED = re.compile(r'"{2,}')
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
"""Control characters, marks of direction, blanks without width. The joiner of emoji (U+200D) stays."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    r"""A text as its author saw it. Never raises; clean text stays as it is.

    Escapes (`\u2019`, `&amp;`, also of one another) are decoded, quotes straightened and unwrapped where a CSV writer
    had doubled them, control characters dropped, surrogates paired or replaced by U+FFFD, blanks collapsed, NFC.

    >>> clean('"Plus\\u002c it\\u2019s &amp;lt;3"')
    "Plus, it's <3"
    """
    while True:
        made = _once(text)
        if made == text:
            return made
        text = made


def _once(text: str) -> str:
    if "\\u" in text:
        text = _ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), _ESCAPED_BACKSLASH.sub(r"\\u005c", text))
    if "&" in text:
        text = html.unescape(_AMPERSAND.sub("&", text))
    if "\\" in text:
        text = _ESCAPED_QUOTE.sub(r"\1", text)
    if not text.isascii():
        if _SURROGATE.search(text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = unicodedata.normalize("NFC", text.translate(_QUOTES))
    elif "`" in text:
        text = text.replace("`", "'")
    text = " ".join(_UNSEEN.sub("", text).split())
    if '"' in text:
        text = _DOUBLED.sub('"', text)
        while len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].strip()
    return text


_EMOJI_CHAR = (
    "[\U0001f000-\U0001faff\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d"
    "\u3297\u3299\u203c\u2049\u2122\u2139]"
)
_EMOJI = (
    rf"(?:[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{_EMOJI_CHAR}[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]*"
    rf"(?:\u200d{_EMOJI_CHAR}[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]*)*)"
)
_EMOTICON = (
    r"(?:(?<![^\W_])(?:[<>]?[:;=xX][-o*'^]?(?:[)\](\[}{|\\/*>]+|[dDpPsSoO3](?![^\W_]))|</?3+|\^[_.-]?\^|[-=]_+[-=]|"
    r"[tT]_+[tT](?![^\W_])|[oO][._][oO](?![^\W_]))|[(\[)\]}{]+[-o*'^]?[:;=](?![^\W_]))"
)
_ALTERNATIVES = {
    "plain": r"[a-wyzA-WYZ][a-zA-Z]*(?=[ ,!?\"]|$)",  # a word like most, first for speed: none of the others
    "url": r"(?:https?://|www\.|pic\.twitter\.com/|\bt\.co/)\S*",
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]+",
    "user": r"@\w+",
    "tag": r"[#\uff03]\w+",
    "emoticon": _EMOTICON,
    "emoji": _EMOJI,
    "number": r"\d+(?:[.,:/]\d+)*(?!\w)",
    "word": r"\w+(?:'\w+)*",
    "run": r"[!?]+|\.{2,}|\u2026",
    "other": r"\S",
}
_PIECE = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _ALTERNATIVES.items()))
find_pieces = re.compile("|".join(_ALTERNATIVES.values())).findall
"""The texts of `pieces`, in half the time."""


class Piece(NamedTuple):
    """A stretch of a cleaned text."""

    kind: str
    """`url`, `email`, `user`, `tag`, `emoticon`, `emoji`, `number`, `word`, `run` (of `!`, `?`, `.`) or `other`."""
    text: str


def pieces(text: str) -> list[Piece]:
    """Cut a cleaned text; blanks aside, nothing is left out.

    >>> [piece.text for piece in pieces("@you: 3.5 #GoodDay :) can't!! http://t.co/x")]
    ['@you', ':', '3.5', '#GoodDay', ':)', "can't", '!!', 'http://t.co/x']
    """
    return [Piece(kind_of(found), found) for found in find_pieces(text)]


def kind_of(piece: str) -> str:
    """The kind of a piece, by itself: what stands before it in its text has no say.

    >>> [kind_of(piece) for piece in find_pieces("</3xD")]
    ['emoticon', 'emoticon']
    """
    found = _PIECE.match(piece)
    assert found is not None and found.end() == len(piece), piece
    return "word" if found.lastgroup == "plain" else str(found.lastgroup)


_REPEATED = re.compile(r"(\w)\1{2,}")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+|_")
_NOT = re.compile(r"(.*)(n't|'(?:s|m|re|ve|ll|d))$")
_WITHOUT_MARK = {
    "cant": "can", "dont": "do", "wont": "will", "didnt": "did", "doesnt": "does", "isnt": "is", "arent": "are",
    "wasnt": "was", "werent": "were", "couldnt": "could", "shouldnt": "should", "wouldnt": "would", "havent": "have",
    "hasnt": "has", "hadnt": "had", "aint": "is", "mustnt": "must",
}  # fmt: skip
"""Spelled without the apostrophe, these are still negations."""
NEGATIONS = frozenset({"not", "n't", "no", "never", "none", "nobody", "nothing", "neither", "nor", "nowhere", "without",
                       "cannot", "hardly", "barely", "scarcely"})  # fmt: skip
_SMILES, _FROWNS = frozenset(")]}DdpP*>3^"), frozenset("([{/\\|sS")


def word_tokens(word: str, shares: Mapping[str, float]) -> tuple[str, ...]:
    """A word in lower case: repeated letters shortened, the negation and clitics split off.

    Args:
        word: a piece of that kind.
        shares: how often words occur, to choose a spelling by.

    >>> word_tokens("Sooooo", {"so": 2, "soo": 1}), word_tokens("can't", {}), word_tokens("dont", {})
    (('so',), ('can', "n't"), ('do', "n't"))
    """
    word = shorten(word.lower(), shares)
    if word in _WITHOUT_MARK:
        return _WITHOUT_MARK[word], "n't"
    if "'" in word and (found := _NOT.match(word)) and found.group(1):
        stem = {"ca": "can", "wo": "will", "sha": "shall", "ai": "is"}.get(found.group(1), found.group(1))
        return stem if found.group(2) == "n't" else found.group(1), found.group(2)
    return (word,)


def shorten(word: str, shares: Mapping[str, float]) -> str:
    """A word whose letters repeat three times and more: with two of each or one, whichever is more frequent; else two.

    >>> shorten("coooool", {"cool": 1}), shorten("yesss", {"yes": 2, "yess": 1}), shorten("heyyyy", {})
    ('cool', 'yes', 'heyy')
    """
    if not _REPEATED.search(word):
        return word
    two, one = _REPEATED.sub(r"\1\1", word), _REPEATED.sub(r"\1", word)
    never = float("-inf")
    return one if shares.get(one, never) > shares.get(two, never) else two


def is_elongated(word: str) -> bool:
    """Whether a letter stands three times and more in a row."""
    return _REPEATED.search(word) is not None


def camel_parts(tag: str) -> list[str]:
    """The words of a hashtag that its capitals and digits show; one part: they show none.

    >>> camel_parts("GoodDay2U"), camel_parts("goodday"), camel_parts("USAWins")
    (['Good', 'Day', '2', 'U'], ['goodday'], ['USA', 'Wins'])
    """
    return _CAMEL.findall(tag) or [tag]


def emoticon_token(emoticon: str) -> str:
    """`<emo+>`, `<emo->` or `<emo>`.

    >>> emoticon_token(":-)"), emoticon_token("):"), emoticon_token("</3"), emoticon_token("-_-")
    ('<emo+>', '<emo->', '<emo->', '<emo->')
    """
    if emoticon[0] in "([{)]}":  # the other way round
        return HAPPY if emoticon[0] in "([{" else SAD
    if emoticon.startswith("</") or emoticon[0] in "-=tT" or ("'" in emoticon and emoticon[-1] in "(["):
        return SAD
    if emoticon.startswith("<3") or emoticon[0] == "^":
        return HAPPY
    last = emoticon[-1]
    return HAPPY if last in _SMILES else SAD if last in _FROWNS else ODD
