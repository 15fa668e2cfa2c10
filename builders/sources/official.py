"""The official packages as the site gives them: what is in RAW, and the candidates that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders import ledger as status
from builders.keys import Ints, Packed, find, pack
from builders.ledger import Ledger
from builders.sources.archive import ArchiveIndex
from builders.sources.passed import SUFFIX, PassedArchive
from builders.sources.tables import Sentiment, SplitList, parse_id, parse_image_key, read_lines, read_split_list
from t4sa_data.catalog import CONFIGS, OFFICIAL_LISTS, PACKAGES, SPLITS
from t4sa_data.errors import ConfigUnavailable, ConflictingRows, InputMissing, UnknownConfig
from t4sa_data.schema import make_key

IMAGES_NAME = PACKAGES["b-t4sa"].filename
SENTIMENT_NAME = PACKAGES["text-sentiment"].filename
TEXT_NAME = PACKAGES["raw-text"].filename

HOW_TO_GET = "`t4sa download --to RAW` brings the official packages; `t4sa get` downloads and builds in one go."

CANDIDATES = pa.schema(
    [
        ("tweet_id", pa.int64()),
        ("image_index", pa.int8()),
        ("label", pa.int64()),
        ("split", pa.string()),
        ("archive", pa.int8()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""An image that may enter a layer: its key, label and split (`train` in a further archive), and where its bytes are."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """The files that a build reads."""

    folder: Path
    images: Path | None
    """The archive, where it lies here."""
    sentiment: Path | None
    text: Path | None
    lists: Mapping[str, Path]
    """Split lists beside the archive, by file name."""
    further: tuple[Path, ...] = ()
    """Further image archives, layout as the official one (assumed: none was ever seen)."""
    unique_list: Path | None = None
    removals: Path | None = None
    passed: PassedArchive | None = None
    """What it left where it does not lie here but has passed by."""

    @property
    def files(self) -> list[Path]:
        """Every input, the archives first."""
        given = [
            self.images,
            self.passed.done_path if self.passed else None,
            *self.further,
            *self.lists.values(),
            self.sentiment,
            self.text,
            self.unique_list,
            self.removals,
        ]
        return [path for path in given if path is not None]


def discover(
    folder: Path, *, further: Sequence[Path] = (), unique_list: Path | None = None, removals: Path | None = None
) -> Raw:
    """Find the official packages in `folder`.

    Raises:
        InputMissing: no such folder, nothing of T4SA in it, or a file that was named is not there.
        ConflictingRows: two image archives of one name, which counts and quarantine could not tell apart.
    """
    if not folder.is_dir():
        raise InputMissing("no such folder", where=folder, hint=HOW_TO_GET)
    for path in (*further, unique_list, removals):
        if path is not None and not path.is_file():
            raise InputMissing("no such file", where=path)
    names = [IMAGES_NAME, *(path.name for path in further)]
    for number, path in enumerate(further, 1):
        if path.name in names[:number]:
            raise ConflictingRows("two image archives of one name", got=path.name, where=path, hint="Rename one.")

    def there(name: str) -> Path | None:
        path = folder / name
        return path if path.is_file() else None

    lists = {name: folder / name for name in OFFICIAL_LISTS.values() if (folder / name).is_file()}
    passed = PassedArchive(folder / f"{IMAGES_NAME}{SUFFIX}")
    raw = Raw(
        folder=folder,
        images=there(IMAGES_NAME),
        sentiment=there(SENTIMENT_NAME),
        text=there(TEXT_NAME),
        lists=lists,
        further=tuple(further),
        unique_list=unique_list,
        removals=removals,
        passed=passed if passed.is_done and not there(IMAGES_NAME) else None,
    )
    if not (raw.images or raw.passed or raw.sentiment or raw.text):
        raise InputMissing(
            "no official package here",
            expected=f"{IMAGES_NAME}, {SENTIMENT_NAME}, {TEXT_NAME}",
            where=folder,
            hint="Give the folder that holds the downloaded files, names unchanged, archives not unpacked. "
            f"{HOW_TO_GET} A copy of the Twitter Testing Dataset is read with --configs twitter-testing.",
        )
    return raw


def choose_configs(raw: Raw, asked: Sequence[str] | None, *, text: str, formats: Sequence[str]) -> list[str]:
    """The configs to build: those asked for, else what the inputs allow but `b-t4sa-256`, in the catalog's order.

    Raises:
        UnknownConfig: no such config.
        ConfigUnavailable: one that was asked for cannot be built from these inputs.
    """
    has_originals = raw.passed.wanted.originals if raw.passed else raw.images is not None
    has_small = raw.passed.wanted.small if raw.passed else raw.images is not None
    possible = {
        "b-t4sa": has_originals and raw.sentiment,
        "t4sa-unique": has_originals and raw.sentiment and raw.further,
        "t4sa": has_originals and raw.sentiment and raw.further,
        "raw-text": raw.text and text == "full" and "parquet" in formats,
        "t4sa-text": raw.sentiment and "parquet" in formats,
        "b-t4sa-256": has_small and raw.sentiment,
    }
    for name in asked or ():
        if name not in CONFIGS:
            raise UnknownConfig("no such config", expected=" | ".join(CONFIGS), got=name)
        if not possible.get(name):
            parquet = " Text configs are Parquet only." if CONFIGS[name].kind == "text" else ""
            raise ConfigUnavailable(
                "cannot be built from these inputs", got=name, where=raw.folder, hint=CONFIGS[name].needs + parquet
            )
    unasked = set(possible) - {"b-t4sa-256"}  # a second copy of every image: for who wants it
    chosen = [name for name in CONFIGS if possible.get(name) and name in (asked or unasked)]
    if not chosen:
        raise InputMissing(
            "nothing can be built from these inputs",
            got=[path.name for path in raw.files],
            where=raw.folder,
            hint=f"{CONFIGS['b-t4sa'].needs} {HOW_TO_GET}",
        )
    return chosen


def read_lists(raw: Raw, index: ArchiveIndex) -> dict[str, SplitList]:
    """The three split lists by split, from beside the archive or from inside it.

    Raises:
        InputMissing: one of them is nowhere.
        ConflictingRows: a key stands in two lists.
    """
    lists = {}
    for split, name in OFFICIAL_LISTS.items():
        if name in raw.lists:
            if index.lists.get(name, beside := raw.lists[name].read_bytes()) != beside:
                raise ConflictingRows(
                    "a split list stands inside the archive and beside it, and they differ",
                    got=name,
                    where=f"{index.path} and {raw.lists[name]}",
                    hint="Keep the official one: move the other away.",
                )
            lists[split] = read_split_list(beside, str(raw.lists[name]))
        elif name in index.lists:
            lists[split] = read_split_list(index.lists[name], f"{index.path}, {name}")
        else:
            raise InputMissing(
                "a split list is missing",
                expected=name,
                where=f"{index.path} or beside it",
                hint="It comes with the images; without it there are no official splits.",
            )
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        keys = [pack(lists[s].tweet_id, lists[s].image_index) for s in (a, b)]
        both = np.flatnonzero(find(keys[0], keys[1]) >= 0)
        if len(both):
            key = make_key(int(lists[a].tweet_id[both[0]]), int(lists[a].image_index[both[0]]))
            raise ConflictingRows(
                "an image stands in two splits", got=key, where=f"{OFFICIAL_LISTS[a]}, {OFFICIAL_LISTS[b]}"
            )
    return lists


def listed_candidates(lists: Mapping[str, SplitList], index: ArchiveIndex, ledger: Ledger) -> pa.Table:
    """B-T4SA's candidates: what the lists name and the archive holds, in the archive's order.

    Raises:
        InputMissing: not one image is both.
    """
    parts = []
    for split in SPLITS:
        one = lists[split]
        place = find(pack(one.tweet_id, one.image_index), index.packed)
        ledger.drop("image", keys_of(one.tweet_id[place < 0], one.image_index[place < 0]), status.NOT_IN_ARCHIVE)
        here, place = np.flatnonzero(place >= 0), place[place >= 0]
        columns = [
            one.tweet_id[here],
            one.image_index[here],
            one.label[here],
            pa.repeat(split, len(here)),
            np.zeros(len(here), np.int8),
            index.offset[place],
            index.length[place],
        ]
        parts.append(pa.table(columns, schema=CANDIDATES))
    table = pa.concat_tables(parts).sort_by("offset").combine_chunks()
    if table.num_rows == 0:
        raise InputMissing(
            "none of the listed images is in the archive",
            got=f"{sum(len(one.tweet_id) for one in lists.values())} listed, {len(index.tweet_id)} in the archive",
            where=index.path,
            hint="Is this the archive that the split lists belong to?",
        )
    unlisted = find(index.packed, pack_table(table)) < 0
    ledger.drop("image", keys_of(index.tweet_id[unlisted], index.image_index[unlisted]), status.NOT_LISTED)
    return table


def further_candidates(
    indices: Sequence[ArchiveIndex], listed: pa.Table, sentiment: Sentiment, ledger: Ledger
) -> pa.Table:
    """Candidates of the further archives: not in B-T4SA, their tweet in the TSV; label = argmax, split = train.

    Raises:
        ConflictingRows: an image stands in two of the archives.
    """
    parts = [CANDIDATES.empty_table()]
    for number, index in enumerate(indices, 1):
        again = find(index.packed, pack_table(listed)) >= 0
        row = find(index.tweet_id, sentiment.tweet_id)
        ledger.drop("image", keys_of(index.tweet_id[again], index.image_index[again]), status.ALREADY_IN_B_T4SA)
        nameless = ~again & (row < 0)
        ledger.drop("image", keys_of(index.tweet_id[nameless], index.image_index[nameless]), status.NO_LABEL)
        here = np.flatnonzero(~again & (row >= 0))
        label = sentiment.probabilities[row[here]].argmax(axis=1).astype(np.int64)
        columns = [
            index.tweet_id[here],
            index.image_index[here],
            label,
            pa.repeat("train", len(here)),
            np.full(len(here), number, np.int8),
            index.offset[here],
            index.length[here],
        ]
        made = pa.table(columns, schema=CANDIDATES)
        both = find(pack_table(made), pack_table(pa.concat_tables(parts)))
        if (both >= 0).any():
            first = int(np.flatnonzero(both >= 0)[0])
            key = make_key(made["tweet_id"][first].as_py(), made["image_index"][first].as_py())
            raise ConflictingRows("an image stands in two archives", got=key, where=index.path)
        parts.append(made)
    return pa.concat_tables(parts).combine_chunks()


def read_removals(path: Path) -> tuple[Ints, Packed]:
    """Removals: one tweet id (all its images and its text) or one key a line, `#` comments; ids and packed keys.

    Raises:
        BadKey: a line that is neither.
        MalformedRow: an id of 2^62 and more, or not UTF-8.
    """
    tweets, images = [], []
    for number, line in enumerate(read_lines(path), 1):
        item, where = line.split("#")[0].strip(), f"{path}, line {number}"
        if item and item.isdecimal():
            tweets.append(parse_id(item, where))
        elif item:
            tweet_id, image_index = parse_image_key(item, where)
            images.append(tweet_id << 2 | image_index - 1)
    return np.array(tweets, np.int64), np.array(images, np.uint64)


def read_unique(path: Path) -> Packed:
    """Packed keys of a unique list: a key, or a path of the archive, first on each line.

    Raises:
        BadKey: a line that starts with neither.
        MalformedRow: not UTF-8.
    """
    packed = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            stem = line.split()[0].rsplit("/", 1)[-1].removesuffix(".jpg")
            tweet_id, image_index = parse_image_key(stem, f"{path}, line {number}")
            packed.append(tweet_id << 2 | image_index - 1)
    return np.array(packed, dtype=np.uint64)


def apply_removals(candidates: pa.Table, removals: tuple[Ints, Packed], ledger: Ledger) -> pa.Table:
    """Candidates without the removed ones."""
    tweets, images = removals
    tweet_id = candidates["tweet_id"].to_numpy()
    gone = (find(tweet_id, tweets) >= 0) | (find(pack_table(candidates), images) >= 0)
    return drop_rows(candidates, gone, status.REMOVED, ledger)


def drop_rows(candidates: pa.Table, gone: np.ndarray, reason: str, ledger: Ledger) -> pa.Table:
    """Candidates without the rows that `gone` marks; the ledger learns why."""
    dropped = candidates.filter(pa.array(gone))
    ledger.drop("image", keys_of(dropped["tweet_id"].to_numpy(), dropped["image_index"].to_numpy()), reason)
    return candidates.filter(pa.array(~gone)).combine_chunks()


def pack_table(table: pa.Table) -> np.ndarray:
    """Keys of a table's rows as numbers, shape (n,)."""
    return pack(table["tweet_id"].to_numpy(), table["image_index"].to_numpy())


def keys_of(tweet_id: Ints, image_index: np.ndarray) -> pa.Array:
    """Keys as text (`schema.make_key` of each)."""
    return pc.binary_join_element_wise(*(pa.array(part).cast(pa.string()) for part in (tweet_id, image_index)), "-")
