"""The Twitter Testing Dataset as people keep it: pictures `<user>_<tweet>_<media key>.jpg`, label lists, folds.

The user's number in a file name is personal data and of no use to a reader: only the media key goes further than this
file, but for messages and the build's own notes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from builders.sources.tables import parse_id, read_lines
from t4sa_data.catalog import TWITTER_TESTING_FOLDS, twitter_testing_places
from t4sa_data.errors import BadKey, ConflictingRows, InputMissing, MalformedRow, UnknownLabel
from t4sa_data.schema import make_key

LEVELS = {"five": 5, "four": 4, "three": 3}
"""Word in a list's name -> least agreement of the images that it names."""
LABELS = {"0": 0, "1": 2}
"""Label in a list -> the class's number: 0 negative, 1 positive there."""
MOST_IMAGES = 4
"""Of one tweet."""

_TOPS = ("", "twitter_dataset")
_PICTURES = ("Agg_AMT_Candidates", "images", "")
_LISTS = ("ground_truth", "")
_FOLDS = ("ground_truth", "upc_folds", "")
_LIST_NAME = re.compile(r"(?:twitter_)?(five|four|three|5|4|3)_?agrees?\.(?:txt|csv)", re.IGNORECASE)
_PICTURE = re.compile(r"(?P<user>\w+?)_(?P<tweet>[0-9]{15,19})_(?P<media>[\w-]+)\.jpg", re.ASCII)
_HEADER = ["path", "class"]
LAYOUT = (
    "Agg_AMT_Candidates/ (or images/) with the pictures, and ground_truth/twitter_five_agrees.txt, "
    "twitter_four_agrees.txt, twitter_three_agrees.txt (or 5agree.csv, ...)"
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image that the lists name."""

    name: str
    """File name."""
    tweet_id: int
    media_key: str
    image_index: int
    """Its number among the tweet's listed images, by media key."""
    label: int
    """0 negative, 2 positive."""
    agreement: int
    """5, 4 or 3 of five workers."""
    num_bytes: int = 0
    """Of its file."""

    @property
    def key(self) -> str:
        """In a release."""
        return make_key(self.tweet_id, self.image_index)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy of the dataset: what its lists say, and where its pictures are."""

    folder: Path
    """Of the pictures."""
    pictures: tuple[Picture, ...]
    """Ascending by tweet and number."""
    lists: tuple[Path, ...]
    """Label lists that were read."""
    levels: tuple[str, ...]
    """Words of `LEVELS` whose lists are there."""
    unlisted: tuple[str, ...]
    """Pictures that no list names."""
    folds: Mapping[str, Mapping[str, int]]
    """Word of a level -> file name -> 1 to 5: where the published fold lists are there."""
    other_folds: tuple[Path, ...]
    """Fold lists that are not the published ones."""

    @property
    def files(self) -> list[Path]:
        """Every input."""
        return [*self.lists, *(self.folder / picture.name for picture in self.pictures)]


def read_copy(top: Path) -> Copy:
    """Read a copy of the dataset.

    Args:
        top: the folder that holds pictures and lists, in one of the layouts that are about.

    Raises:
        InputMissing: no such folder, none of its layouts, or a listed picture that is not there.
        BadKey, MalformedRow, UnknownLabel: a line of a list that is not a picture and 0 or 1.
        ConflictingRows: lists that contradict each other, or two folders of pictures.
    """
    folder, lists = _find(top)
    labels = {word: _read_level(paths) for word, paths in lists.items()}
    _require_nested(labels, lists)
    widest = labels[list(lists)[-1]]
    pictures = _number(widest, {name: LEVELS[word] for word in reversed(list(labels)) for name in labels[word]})
    found = [path for path in folder.iterdir() if path.name.lower().endswith(".jpg") and path.is_file()]
    present = {path.name: path.stat().st_size for path in found}
    _require_present(folder, pictures, present, widest)
    folds, others = _read_folds(top)
    return Copy(
        folder=folder,
        pictures=tuple(replace(picture, num_bytes=present[picture.name]) for picture in pictures),
        lists=tuple(path for paths in lists.values() for path in paths),
        levels=tuple(lists),
        unlisted=tuple(sorted(present.keys() - {picture.name for picture in pictures})),
        folds={word: found for word, found in folds.items() if word in lists},
        other_folds=tuple(others),
    )


def _find(top: Path) -> tuple[Path, dict[str, list[Path]]]:
    """The folder of the pictures, and the lists of each level; levels from five down."""
    if not top.is_dir():
        raise InputMissing("no such folder", where=top, hint=twitter_testing_places())
    tops = [top / name for name in _TOPS]
    folders = [path for path in _distinct(one / name for one in tops for name in _PICTURES) if _holds_pictures(path)]
    if not folders:
        raise InputMissing(
            "no pictures of the Twitter Testing Dataset here",
            expected=LAYOUT,
            where=top,
            hint=twitter_testing_places(),
        )
    if len(folders) > 1:
        raise ConflictingRows(
            "two folders of pictures",
            got=" and ".join(str(path.relative_to(top)) for path in folders),
            where=top,
            hint="Move one away.",
        )
    found: dict[str, list[Path]] = {}
    for path in _distinct(path for one in tops for name in _LISTS for path in sorted((one / name).glob("*"))):
        match = _LIST_NAME.fullmatch(path.name)
        if match and path.is_file():
            word = next(word for word, least in LEVELS.items() if match[1].lower() in (word, str(least)))
            found.setdefault(word, []).append(path)
    lists = {word: found[word] for word in LEVELS if word in found}
    if tuple(lists) not in (("five",), ("five", "four"), tuple(LEVELS)):
        raise InputMissing(
            "a label list is missing",
            expected="the list of five, those of five and four, or all three",
            got=", ".join(path.name for paths in lists.values() for path in paths) or "none",
            where=top,
            hint=f"What a smaller agreement adds is only known beside the list of the larger one. Layout: {LAYOUT}.",
        )
    return folders[0], lists


def _distinct(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))


def _holds_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(_PICTURE.fullmatch(path.name) for path in folder.iterdir())


@dataclass(frozen=True)
class _Line:
    """One line of a list."""

    label: int
    where: str


def _read_level(paths: Sequence[Path]) -> dict[str, _Line]:
    """The list of one level by file name; every spelling of it that is there says the same."""
    first, *others = [_read_list(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        for name in first.keys() | other.keys():
            one, two = first.get(name), other.get(name)
            if one is None or two is None or one.label != two.label:
                where = " and ".join(line.where for line in (one, two) if line)
                raise ConflictingRows(
                    "two lists of one agreement differ", got=name, where=f"{where}; lists {paths[0]} and {path}"
                )
    return first


def _read_list(path: Path) -> dict[str, _Line]:
    """A list by file name: `file.jpg 1`, or `file.jpg,1` behind a header `path,class`; blank lines are fine."""
    made: dict[str, _Line] = {}
    for number, text in enumerate(read_lines(path), 1):
        fields, where = re.split(r"[,\s]+", text.strip()), f"{path}, line {number}"
        if fields == [""] or (number == 1 and [field.lower() for field in fields] == _HEADER):
            continue
        if len(fields) != 2:
            raise MalformedRow(
                "not a line of a label list", expected="<file>.jpg <0 or 1>", got=repr(text.strip()[:80]), where=where
            )
        name, label = re.split(r"[\\/]", fields[0])[-1], fields[1]
        if label not in LABELS:
            raise UnknownLabel(
                "an unknown label", expected="0 (negative) or 1 (positive)", got=repr(label), where=where
            )
        if name in made:
            raise ConflictingRows("an image is listed twice", got=name, where=f"{made[name].where} and line {number}")
        made[name] = _Line(LABELS[label], where)
    if not made:
        raise MalformedRow("a label list without a line", where=path)
    return made


def _require_nested(labels: Mapping[str, Mapping[str, _Line]], lists: Mapping[str, Sequence[Path]]) -> None:
    """Who has the agreement of five is in the list of four too, with the same label."""
    words = list(labels)
    for word, wider in pairwise(words):
        for name, line in labels[word].items():
            other = labels[wider].get(name)
            if other is None:
                raise ConflictingRows(
                    f"an image on which {word} agree is not in the list of {wider}",
                    got=name,
                    where=f"{line.where}; {lists[wider][0]}",
                )
            if other.label != line.label:
                raise ConflictingRows(
                    "two lists give an image two labels", got=name, where=f"{line.where}; {other.where}"
                )


def _number(lines: Mapping[str, _Line], agreement: Mapping[str, int]) -> list[Picture]:
    """The listed images, numbered within their tweets by media key."""
    parsed = sorted((*parse_name(name, line.where), name) for name, line in lines.items())
    made: list[Picture] = []
    for tweet_id, media_key, name in parsed:
        again = made[-1].image_index if made and made[-1].tweet_id == tweet_id else 0
        if again == MOST_IMAGES:
            raise BadKey(
                "a tweet with more images than a tweet can have",
                expected=f"at most {MOST_IMAGES}",
                got=name,
                where=lines[name].where,
            )
        if again and made[-1].media_key == media_key:
            raise BadKey("two files of one picture of one tweet", got=name, where=lines[name].where)
        made.append(
            Picture(
                name=name,
                tweet_id=tweet_id,
                media_key=media_key,
                image_index=again + 1,
                label=lines[name].label,
                agreement=agreement[name],
            )
        )
    return made


def parse_name(name: str, where: str) -> tuple[int, str]:
    """Tweet id and media key of a picture's file name.

    Raises:
        BadKey: not `<user>_<tweet>_<media key>.jpg`.
        MalformedRow: an id of 2^62 and more.

    >>> parse_name("10000977_428031000000000001_Bf_qDrawn-AAD4o.jpg", "")
    (428031000000000001, 'Bf_qDrawn-AAD4o')
    """
    match = _PICTURE.fullmatch(name)
    if match is None:
        raise BadKey(
            "not the name of a picture of the Twitter Testing Dataset",
            expected="<user>_<tweet>_<media key>.jpg",
            got=repr(name[:80]),
            where=where,
        )
    return parse_id(match["tweet"], where), match["media"]


def _require_present(
    folder: Path, pictures: Sequence[Picture], present: Mapping[str, int], lines: Mapping[str, _Line]
) -> None:
    missing = [picture.name for picture in pictures if picture.name not in present]
    if missing:
        raise InputMissing(
            "a listed picture is missing",
            expected=folder / missing[0],
            got=f"{len(pictures) - len(missing)} of {len(pictures)} listed pictures",
            where=lines[missing[0]].where,
            hint=twitter_testing_places(),
        )


def _read_folds(top: Path) -> tuple[dict[str, dict[str, int]], list[Path]]:
    """The published folds by level, recognised by the sha256 of their lists; and fold lists that are others."""
    tops = _distinct(top / one / name for one in _TOPS for name in _FOLDS)
    made: dict[str, dict[str, int]] = {}
    others: list[Path] = []
    for word, published in TWITTER_TESTING_FOLDS.value.items():
        paths = [path for one in tops for path in sorted((one / f"{word}_agrees").glob("test*/test.txt"))]
        found: dict[str, list[str]] = {}
        for path in paths:
            rows = sorted(" ".join(line.split()) for line in read_lines(path) if line.strip())
            digest = hashlib.sha256("".join(f"{row}\n" for row in rows).encode()).hexdigest()
            found.setdefault(digest, [row.split()[0] for row in rows])
        if found.keys() == set(published):
            made[word] = {name: number for number, one in enumerate(published, 1) for name in found[one]}
        else:
            others += paths
    return made, others
