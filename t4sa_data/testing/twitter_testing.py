"""The Twitter Testing Dataset with drawn pictures: in miniature, with the names, layouts and quirks of the real one; or
whole, from the real label lists."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from t4sa_data.errors import InputMissing, MalformedRow
from t4sa_data.miniature import draw

AGREEMENTS = {"five": 5, "four": 4, "three": 3}
"""Word in a list's name -> least agreement of the images it names."""
NUM_FOLDS = 5
_AGREEMENT = (5,) * 12 + (4,) * 3 + (3,) * 2  # 70, 18 and 12 % of 17 images, as of the real ones
_FIRST_ID = 428_000_000_000_000_000  # January 2014 as a snowflake id
_STEP = 31_000_000_000_001
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


@dataclass(frozen=True, kw_only=True)
class TwitterTesting:
    """What `make_twitter_testing` made, and what a build of it has to find. Images go by their file name."""

    folder: Path
    images: Mapping[str, bytes]
    """File name `<user>_<tweet>_<media key>.jpg` -> bytes."""
    labels: Mapping[str, int]
    """File name -> 0 negative or 1 positive, as the lists say it."""
    agreement: Mapping[str, int]
    """File name -> 5, 4 or 3."""
    keys: Mapping[str, str]
    """File name -> key in a release."""
    twins: Sequence[tuple[str, str]]
    """Pairs of one picture, tweeted twice; the first pair's labels contradict each other."""
    broken: Sequence[str] = ()
    """Pictures that do not decode."""


def make_twitter_testing(
    folder: Path | str,
    num_images: int = 60,
    *,
    seed: int = 0,
    num_twins: int = 3,
    num_broken: int = 0,
    layout: Literal["amt", "twitter_dataset", "csv"] = "amt",
    with_folds: bool = True,
) -> TwitterTesting:
    """Make the Twitter Testing Dataset in miniature, deterministically: drawn pictures, made-up users and tweets.

    About 60 % are positive; 70 / 18 / 12 % have the agreement of five, four, three workers. One tweet has two pictures.

    Args:
        folder: is made.
        num_images: at least 20 (and `num_twins` less than a fourth of it).
        seed: another seed, other pictures.
        num_twins: pairs of one picture in two tweets, the first with opposite labels.
        num_broken: pictures cut short.
        layout: `amt`: `Agg_AMT_Candidates/`, and `ground_truth/twitter_*_agrees.txt`; `twitter_dataset`: the same below
            `twitter_dataset/`, pictures in `images/`; `csv`: pictures beside `5agree.csv`, `4agree.csv`, `3agree.csv`.
        with_folds: write five folds of each list as UPC publishes them, dropping the rest of the division
            (`ground_truth/five_agrees/test1/{test,train}.txt`). They are not the published ones, and are not taken for
            them.
    """
    rng = random.Random(seed)
    pairs = [(5 + 2 * i, num_images - 1 - i) for i in range(num_twins)]
    media = ["B" + "".join(rng.choice(_LETTERS) for _ in range(14)) for _ in range(num_images)]
    labels = [int(rng.random() < 0.6) for _ in range(num_images)]
    pictures = [draw(2 * label, rng) for label in labels]
    for number, (one, other) in enumerate(pairs):
        media[other], pictures[other] = media[one], pictures[one]
        labels[other] = labels[one] if number else 1 - labels[one]
    alone = [i for i in range(num_images) if not any(i in pair for pair in pairs)]
    for i in alone[4 : 4 + num_broken]:
        pictures[i] = pictures[i][: len(pictures[i]) // 2]
    who = [i if i != 3 else 2 for i in range(num_images)]  # the fourth picture is of the third's tweet
    tweets = [_FIRST_ID + i * _STEP for i in who]
    names = [f"{10_000_000 + 977 * who[i]}_{tweets[i]}_{media[i]}.jpg" for i in range(num_images)]
    second = max(media[2], media[3])
    made = TwitterTesting(
        folder=Path(folder),
        images=dict(zip(names, pictures, strict=True)),
        labels=dict(zip(names, labels, strict=True)),
        agreement={name: _AGREEMENT[i % len(_AGREEMENT)] for i, name in enumerate(names)},
        keys={name: f"{tweets[i]}-{1 + (media[i] == second)}" for i, name in enumerate(names)},
        twins=[(names[one], names[other]) for one, other in pairs],
        broken=[names[i] for i in alone[4 : 4 + num_broken]],
    )
    _write(made, layout, rng if with_folds else None)
    return made


def draw_twitter_testing(folder: Path | str, lists: Path | str, *, seed: int = 0) -> Path:
    """The Twitter Testing Dataset as its real label lists name it, with drawn pictures in place of the real ones.

    Labels, agreement, tweets, media keys, twins and the published folds are the real ones; a picture's face follows the
    label that the first tweet of its media key has, so that the twins with opposite labels are one picture.

    Args:
        folder: is made, in the layout `amt`.
        lists: folder of `twitter_five_agrees.txt`, `twitter_four_agrees.txt`, `twitter_three_agrees.txt`, and, where
            you have them, UPC's folds (`upc_folds/` or beside the lists: `five_agrees/test1/test.txt`, ...).
        seed: another seed, other pictures.

    Returns:
        `folder`.

    Raises:
        InputMissing: a label list is not there.
        MalformedRow: a line of one is no picture with 0 or 1.
    """
    folder, lists = Path(folder), Path(lists)
    pictures, truth = folder / "Agg_AMT_Candidates", folder / "ground_truth"
    for one in (pictures, truth):
        one.mkdir(parents=True, exist_ok=True)
    for word in AGREEMENTS:
        path = lists / f"twitter_{word}_agrees.txt"
        if not path.is_file():
            raise InputMissing("no such label list", where=path)
        shutil.copyfile(path, truth / path.name)
        for place in (lists / "upc_folds", lists):
            if (place / f"{word}_agrees").is_dir():
                shutil.copytree(place / f"{word}_agrees", truth / f"{word}_agrees", dirs_exist_ok=True)
                break
    rng, drawn = random.Random(seed), dict[str, bytes]()
    everything = lists / "twitter_three_agrees.txt"
    for number, line in enumerate(everything.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, label = line.strip().rpartition(" ")
        if label not in ("0", "1") or name.count("_") < 2:
            raise MalformedRow(
                "not a picture and its label",
                expected="<user>_<tweet>_<media key>.jpg 0|1",
                where=f"{everything}:{number}",
            )
        media = name.split("_", 2)[2]
        if media not in drawn:
            drawn[media] = draw(2 * int(label), rng)
        (pictures / name).write_bytes(drawn[media])
    return folder


def _write(made: TwitterTesting, layout: str, rng: random.Random | None) -> None:
    """Write pictures, lists and, where there is a `rng`, folds."""
    top = made.folder / "twitter_dataset" if layout == "twitter_dataset" else made.folder
    pictures = top / {"amt": "Agg_AMT_Candidates", "twitter_dataset": "images", "csv": "."}[layout]
    lists = top if layout == "csv" else top / "ground_truth"
    for folder in (pictures, lists):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.images.items():
        (pictures / name).write_bytes(data)
    for word, least in AGREEMENTS.items():
        names = [name for name in sorted(made.images) if made.agreement[name] >= least]
        rows = [(name, made.labels[name]) for name in names]
        if layout == "csv":
            text = "path,class\n" + "".join(f"{name},{label}\n" for name, label in rows)
            (lists / f"{least}agree.csv").write_text(text)
        else:
            (lists / f"twitter_{word}_agrees.txt").write_text(list_lines(rows))
        if rng is not None:
            _write_folds(lists / f"{word}_agrees", rng.sample(rows, len(rows)))


def _write_folds(folder: Path, rows: Sequence[tuple[str, int]]) -> None:
    size = len(rows) // NUM_FOLDS
    for number in range(NUM_FOLDS):
        inside = rows[number * size : (number + 1) * size]
        outside = [row for row in rows[: NUM_FOLDS * size] if row not in inside]
        fold = folder / f"test{number + 1}"
        fold.mkdir(parents=True, exist_ok=True)
        (fold / "test.txt").write_text(list_lines(inside))
        (fold / "train.txt").write_text(list_lines(outside))


def list_lines(rows: Sequence[tuple[str, int]]) -> str:
    """A label list: file name and label of each image, one a line."""
    return "".join(f"{name} {label}\n" for name, label in rows)
