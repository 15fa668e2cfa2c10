"""Tweets that were never written by anybody, and labellers that are trained on them in a second or two."""

from __future__ import annotations

import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

GOOD = ["love", "great", "happy", "wonderful", "awesome", "enjoy", "best", "fun", "amazing", "beautiful"]
BAD = ["hate", "awful", "sad", "terrible", "worst", "boring", "angry", "horrible", "ugly", "broken"]
THINGS = ["phone", "movie", "game", "song", "day", "dinner", "trip", "team", "book", "show", "weather", "train"]
FIRST_ID = 2**60 + 1  # odd and beyond 2^53: a float would round it
Row = tuple[int, int, str]


def labelled(num: int, seed: int = 0) -> list[Row]:
    """Rows of (id, label, text), the classes in turn."""
    chance = random.Random(seed)
    rows = []
    for i in range(num):
        label = i % 3
        one, other = chance.choice(THINGS), chance.choice(THINGS)
        if label == 1:
            text = f"the {one} begins at {chance.randint(1, 12)} near the {other} of row {i}"
        else:
            words = BAD if label == 0 else GOOD
            text = f"the {one} was {chance.choice(words)} and the {other} {chance.choice(words)} number {i}"
        rows.append((FIRST_ID + 2 * i, label, text))
    return rows


def write_tsv(path: Path, rows: list[Row]) -> Path:
    lines = ["id\tlabel\ttext", *(f"{number}\t{label}\t{text}" for number, label, text in rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8"))
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny_tandem() -> Any:
    """Both halves, as small as they can be; it has not seen a text yet, whoever asked before."""
    model = _tiny_tandem()
    model._kept.clear()
    return model


@cache
def _tiny_tandem() -> Any:
    from builders.label.lstm import LstmConfig
    from builders.label.tandem import TandemConfig, train_tandem

    rows = labelled(150)
    network = LstmConfig(dim=8, hidden=4, embedding=4, buckets=64, epochs=1)
    config = TandemConfig(lstm=network, folds=2)
    return train_tandem([row[2] for row in rows], [row[1] for row in rows], config=config)


@cache
def tiny_svm() -> Any:
    """Without torch, which takes seconds to import."""
    from builders.label.systems import train_system

    rows = labelled(150)
    return train_system("svm", [row[2] for row in rows], [row[1] for row in rows])


def die(_texts: list[str]) -> None:
    """What a process does that the system kills."""
    os._exit(1)


def save_tiny(folder: Path) -> Path:
    from builders.label.folder import save_model

    save_model(tiny_tandem(), folder, {"seed": 0})
    return folder
