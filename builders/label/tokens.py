"""Texts as arrays of token numbers. A piece of text is looked into once: its tokens, and all that is known of them, are
kept in a table, so that nearly all of a tweet's cost is a look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.label import text as texts_of
from builders.label.lexicons import Lexicons

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MAX_TOKENS = 400
"""Of a text; what comes behind is not looked at (a tweet of 280 characters has at most so many with its hashtags'
words)."""
MOST_PIECES = 400_000
"""Pieces that a table keeps; then it begins anew, so that memory is flat."""

LEXICON_COLUMNS = ("vader", "polarity", "subjectivity", "emoji", "happiness", "community")
FLAGS = (
    "caps", "elongated", "tag", "tag_word", "user", "url", "number", "happy", "sad", "emoticon", "emoji", "exclamation",
    "question", "ellipsis", "mixed_run", "negation", "contrast", "stop", "quote", "word", "clitic", "unknown",
)  # fmt: skip
POS = (
    "NN",
    "NNP",
    "NNS",
    "VB",
    "VBD",
    "VBG",
    "VBN",
    "VBZ",
    "JJ",
    "JJR",
    "JJS",
    "RB",
    "PRP",
    "MD",
    "UH",
    "IN",
    "DT",
    "W",
)
"""Parts of speech that are counted; the most frequent one of a word, from the tag lexicon: no tagger runs."""
_POS_OF = {"NNPS": "NNP", "VBP": "VB", "RBR": "RB", "RBS": "RB", "PRP$": "PRP", "WRB": "W", "WP": "W", "WDT": "W"}
_FLAG = {name: i for i, name in enumerate(FLAGS)}
_CONTRAST = frozenset({"but", "however", "although", "though", "yet"})
EMOJI_BUCKET = 0.2
"""Emoji whose value lies beyond count as positive, and beyond half of it on the other side as negative: most are
positive."""
NEGATION_SCOPE = 5
"""Tokens behind a negation that it may turn round, up to a punctuation mark or `but`."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Texts as tokens."""

    ids: Ints
    """Row of each token in the table, shape (tokens,)."""
    starts: Ints
    """First token of each text, and the end of the last, shape (texts + 1,)."""
    negated: npt.NDArray[np.bool_]
    """Whether a token stands in the scope of a negation, shape (tokens,)."""
    chars: Ints
    """Characters of each cleaned text, shape (texts,)."""
    table: TokenTable

    @property
    def lengths(self) -> Ints:
        """Tokens of each text, shape (texts,)."""
        return np.diff(self.starts)

    @property
    def owner(self) -> Ints:
        """Text of each token, shape (tokens,)."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)


class TokenTable:
    """Every token met so far: a row each.

    Args:
        lexicons: what is known of words and emoji.
    """

    def __init__(self, lexicons: Lexicons) -> None:
        self.lexicons = lexicons
        self.clear()

    def clear(self) -> None:
        """Begin anew: numbers that were given out before mean nothing any more."""
        self.words: list[str] = []
        self._numbers: dict[tuple[str, tuple[str, ...]], int] = {}
        self._pieces: dict[str, tuple[int, ...]] = {}
        self._values: list[tuple[float, ...]] = []
        self._arrays: tuple[Floats, npt.NDArray[np.bool_], Ints] | None = None

    def encode(self, texts: Sequence[str]) -> Batch:
        """Cut texts into tokens.

        Args:
            texts: as they come; they are cleaned here.
        """
        if len(self._pieces) > MOST_PIECES:
            self.clear()
        known, make = self._pieces, self._make
        flat: list[int] = []
        starts, chars = [0], []
        for raw in texts:
            text = texts_of.clean(raw)
            chars.append(len(text))
            begin = len(flat)
            for piece in texts_of.find_pieces(text):
                flat += known[piece] if piece in known else make(piece)
            if len(flat) - begin > MAX_TOKENS:
                del flat[begin + MAX_TOKENS :]
            starts.append(len(flat))
        ids, bounds = np.array(flat, dtype=np.int64), np.array(starts, dtype=np.int64)
        return Batch(
            ids=ids,
            starts=bounds,
            negated=self._scopes(ids, bounds),
            chars=np.array(chars, dtype=np.int64),
            table=self,
        )

    @property
    def values(self) -> Floats:
        """`LEXICON_COLUMNS` of each token, shape (rows, lexicons)."""
        return self._columns()[0]

    @property
    def flags(self) -> npt.NDArray[np.bool_]:
        """`FLAGS` of each token, shape (rows, flags)."""
        return self._columns()[1]

    @property
    def pos(self) -> Ints:
        """Part of speech of each token in `POS`; `len(POS)`: another or none, shape (rows,)."""
        return self._columns()[2]

    def flag(self, name: str) -> npt.NDArray[np.bool_]:
        """One flag of each token, shape (rows,)."""
        return self.flags[:, _FLAG[name]]

    def _columns(self) -> tuple[Floats, npt.NDArray[np.bool_], Ints]:
        if self._arrays is None or len(self._arrays[0]) != len(self.words):
            width = len(LEXICON_COLUMNS)
            rows = np.array(self._values, dtype=np.float32).reshape(len(self.words), width + len(FLAGS) + 1)
            self._arrays = (
                np.ascontiguousarray(rows[:, :width]),
                rows[:, width:-1] > 0,
                rows[:, -1].astype(np.int64),
            )
        return self._arrays

    def _scopes(self, ids: Ints, starts: Ints) -> npt.NDArray[np.bool_]:
        """Tokens in the scope of a negation, shape (tokens,)."""
        made = np.zeros(len(ids), dtype=bool)
        flags = self.flags[ids] if len(ids) else np.zeros((0, len(FLAGS)), bool)
        places = np.flatnonzero(flags[:, _FLAG["negation"]])
        if not len(places):
            return made
        stops = np.union1d(np.flatnonzero(flags[:, _FLAG["stop"]]), starts)
        ends = stops[np.searchsorted(stops, places, side="right")]
        for step in range(1, NEGATION_SCOPE + 1):
            inside = places + step < ends
            made[places[inside] + step] = True
        return made

    def _make(self, piece: str) -> tuple[int, ...]:
        """The tokens of a piece that was not met before."""
        kind = texts_of.kind_of(piece)
        made = _MAKERS[kind](self, piece)
        found = tuple(self._number(token, flags) for token, *flags in made)
        self._pieces[piece] = found
        return found

    def _number(self, token: str, flags: list[str]) -> int:
        key = (token, tuple(flags))
        if (number := self._numbers.get(key)) is None:
            number = self._numbers[key] = len(self.words)
            self.words.append(token)
            self._values.append(self._row(token, flags))
        return number

    def _row(self, token: str, flags: list[str]) -> tuple[float, ...]:
        lexicons, given = self.lexicons, set(flags)
        polarity, subjectivity = lexicons.polarity.get(token, (0.0, 0.0))
        emoji = lexicons.emoji.get(token, 0.0) if "emoji" in given else 0.0
        tag = lexicons.tags.get(token, "") if "word" in given else ""
        if "word" in given and not tag and token not in lexicons.vader:
            given.add("unknown")
        tag = _POS_OF.get(tag, tag)
        row: list[Any] = [lexicons.vader.get(token, 0.0), polarity, subjectivity, emoji]
        row += [lexicons.happiness.get(token, 0.0), lexicons.community.get(token, 0.0)]
        row += [float(name in given) for name in FLAGS]
        return (*row, POS.index(tag) if tag in POS else len(POS))

    def _word(self, piece: str) -> list[tuple[str, ...]]:
        flags = ["word"]
        letters = sum(char.isalpha() for char in piece)
        if letters > 1 and piece.isupper():
            flags.append("caps")
        if texts_of.is_elongated(piece):
            flags.append("elongated")
        made: list[tuple[str, ...]] = []
        for place, token in enumerate(texts_of.word_tokens(piece, self.lexicons.log_counts)):
            further = ["clitic"] if place else []
            if token in texts_of.NEGATIONS:
                further.append("negation")
            if token in _CONTRAST:
                further += ["contrast", "stop"]
            made.append((token, *flags, *further))
        return made

    def _tag(self, piece: str) -> list[tuple[str, ...]]:
        name = piece[1:]
        parts = texts_of.camel_parts(name)
        if len(parts) == 1 and name.isascii() and name.isalpha() and len(name) > 3:
            parts = self.lexicons.segment(name.lower())
        words = [(word.lower(), "tag_word", "word") for word in parts if any(map(str.isalpha, word))]
        return [("#" + name.lower(), "tag"), *words]

    def _emoji(self, piece: str) -> list[tuple[str, ...]]:
        bare = "".join(c for c in piece if c not in "\ufe0e\ufe0f" and not 0x1F3FB <= ord(c) <= 0x1F3FF)
        first = next((e for e in (piece, bare, bare[:1]) if e in self.lexicons.emoji), bare or piece)
        value = self.lexicons.emoji.get(first, 0.0)
        bucket = "<emoji+>" if value > EMOJI_BUCKET else "<emoji->" if value < -EMOJI_BUCKET / 2 else "<emoji>"
        known = first in self.lexicons.emoji
        name = next(
            (self.lexicons.emoji_names[e] for e in (piece, bare, bare[:1]) if e in self.lexicons.emoji_names), ""
        )
        words = [(word, "word") for word in name.replace("-", " ").lower().split()][:4]
        return [(first, "emoji"), *([(bucket,)] if known else []), *words]

    def _emoticon(self, piece: str) -> list[tuple[str, ...]]:
        token = texts_of.emoticon_token(piece)
        side = {texts_of.HAPPY: "happy", texts_of.SAD: "sad"}.get(token)
        return [(token, "emoticon", *([side] if side else []))]

    def _run(self, piece: str) -> list[tuple[str, ...]]:
        if piece[0] in ".\u2026":
            return [("...", "ellipsis")]
        if len(set(piece)) > 1:
            return [("?!", "mixed_run", "stop")]
        flag = "exclamation" if piece[0] == "!" else "question"
        return [(piece[0] if len(piece) == 1 else piece[0] * 2, flag, "stop")]

    def _url(self, _piece: str) -> list[tuple[str, ...]]:
        return [(texts_of.URL, "url")]

    def _email(self, _piece: str) -> list[tuple[str, ...]]:
        return [(texts_of.EMAIL, "user")]

    def _user(self, _piece: str) -> list[tuple[str, ...]]:
        return [(texts_of.USER, "user")]

    def _figure(self, _piece: str) -> list[tuple[str, ...]]:
        return [(texts_of.NUMBER, "number")]

    def _other(self, piece: str) -> list[tuple[str, ...]]:
        if piece == '"':
            return [(piece, "quote")]
        return [(piece, *(["stop"] if piece in ".,;:()" else []))]


_MAKERS = {
    "word": TokenTable._word,
    "tag": TokenTable._tag,
    "emoji": TokenTable._emoji,
    "emoticon": TokenTable._emoticon,
    "run": TokenTable._run,
    "url": TokenTable._url,
    "email": TokenTable._email,
    "user": TokenTable._user,
    "number": TokenTable._figure,
    "other": TokenTable._other,
}
