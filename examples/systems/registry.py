"""The 7 + 19 rows of the two tables, in the page's order, and which file here makes each.

A row is trained by `examples/systems/<module>.py`. What it needs from the user goes by `--init ROW=PATH`, or, for the
authors' own networks, by `--pretrained`. Below table 1 stand systems since, and one of ours.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from t4sa_data.catalog import TABLES
from t4sa_data.catalog.results import Block

Level = Literal["low", "mid", "deep", "-"]
LEVEL_OF: dict[Block, Level] = {"chance": "-", "low-level": "low", "mid-level": "mid", "deep": "deep"}
TABLE_OF_SCORES = (".npz", ".parquet", ".csv")
"""With such a file every row is a linear head over it."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A row that runs."""

    table: int
    block: str
    """Part of the table, as the catalog's `group`; or `SINCE`."""
    level: Level
    name: str
    """As the catalog's row."""
    training: str
    """How ours is made, short."""
    module: str
    """Of this package; "": published only, nothing here makes it."""
    needs: str = ""
    """What the user has to bring; "": nothing."""


@dataclass(frozen=True)
class _Recipe:
    training: str
    module: str
    needs: str = ""


_SVM = "linear SVM, C by inner cross-validation"
_HEAD = "linear head over the detectors' scores"
_FINE = "all weights fine-tuned on 4 folds"
_CAFFE = "a model folder made by examples/convert.py from "
_RELEASED = "the released Caffe model, evaluated as it is"
_T4SA = _CAFFE + "the authors' archive"
_WEAK = "re-implementation, trained on B-T4SA's negative and positive pictures"

_TABLE_1 = {
    "Random": _Recipe("guesses", "chance"),
    "CNN": _Recipe(_WEAK, "you_cnn"),
    "PCNN": _Recipe(_WEAK + ", progressively", "progressive"),
    "Hybrid-T4SA FT-F": _Recipe(_RELEASED, "released", _T4SA),
    "Hybrid-T4SA FT-A": _Recipe(_RELEASED, "released", _T4SA),
    "VGG-T4SA FT-F": _Recipe(_RELEASED, "released", _T4SA),
    "VGG-T4SA FT-A": _Recipe(_RELEASED, "released", _T4SA),
}
_TABLE_2 = {
    "GCH": _Recipe(f"64-bin colour histogram; {_SVM}", "colour"),
    "SentiBank": _Recipe(_HEAD, "scores", "a table of SentiBank's 1,200 scores by image key"),
    "LCH": _Recipe(f"colour histograms of a 4 x 4 grid; {_SVM}", "colour"),
    "GCH+BoW": _Recipe(f"GCH and bag of SIFT words; {_SVM}", "bow"),
    "LCH+BoW": _Recipe(f"LCH and bag of SIFT words; {_SVM}", "bow"),
    "Sentribute": _Recipe(_HEAD, "scores", "a table of Sentribute's 102 scores by image key"),
    "CNN": _Recipe("re-implementation, trained on 4 folds", "you_cnn"),
    "AlexNet": _Recipe(_FINE, "finetune", _CAFFE + "BVLC's CaffeNet"),
    "PlaceCNN": _Recipe(_FINE, "finetune", _CAFFE + "Places205-CNN"),
    "GoogleNet": _Recipe(_FINE, "finetune", _CAFFE + "BVLC's GoogLeNet"),
    "HybridNet": _Recipe(_FINE, "finetune", _CAFFE + "Hybrid-CNN"),
    "VGG-19": _Recipe(_FINE, "finetune", _CAFFE + "VGG-19 of ILSVRC"),
    "PCNN": _Recipe("re-implementation, progressive", "progressive", "RUN/best of examples/systems/progressive.py"),
    "DeepSentiBank": _Recipe(
        _FINE, "finetune", _CAFFE + "DeepSentiBank, or a table of its 2,089 scores (examples/features.py)"
    ),
    "MVSO [EN]": _Recipe(
        _FINE, "finetune", _CAFFE + "MVSO's English network, or a table of its 4,342 scores (examples/features.py)"
    ),
    "Hybrid-T4SA FT-A": _Recipe(_FINE, "finetune", _T4SA),
    "Hybrid-T4SA FT-F": _Recipe(_FINE, "finetune", _T4SA),
    "VGG-T4SA FT-F": _Recipe(_FINE, "finetune", _T4SA),
    "VGG-T4SA FT-A": _Recipe(_FINE, "finetune", _T4SA),
}


def _systems() -> tuple[System, ...]:
    made = []
    for table, recipes in ((1, _TABLE_1), (2, _TABLE_2)):
        rows = TABLES[table]
        assert [row.system for row in rows] == list(recipes), f"table {table}: not the catalog's rows in its order"
        for row in rows:
            recipe = recipes[row.system]
            made.append(
                System(
                    table=table,
                    block=row.group,
                    level=LEVEL_OF[row.block],
                    name=row.system,
                    training=recipe.training,
                    module=recipe.module,
                    needs=recipe.needs,
                )
            )
    return tuple(made)


SYSTEMS: tuple[System, ...] = _systems()
SINCE = "systems since"
MODERN = System(
    table=1,
    block=SINCE,
    level="deep",
    name="ConvNeXt-Tiny, ours",
    training="examples/recipes/convnext-tiny.toml on B-T4SA at a short side of 256 px, evaluated as it is",
    module="released",
    needs="RUN/best of examples/train.py --recipe convnext-tiny --config b-t4sa-256",
)
"""No row of the page: what one would train today, in one command."""


def systems_of(table: int) -> tuple[System, ...]:
    """Rows of one table, in the page's order."""
    return tuple(one for one in SYSTEMS if one.table == table)


def module_of(system: System, init: Path | None = None) -> ModuleType:
    """The code of a row; of `scores`, where the user brings a table of them."""
    name = "scores" if init is not None and init.suffix in TABLE_OF_SCORES else system.module
    return importlib.import_module(f"examples.systems.{name}")
