"""From the tables of the stages to the ledger: what became of each tweet, and of each image of a selected one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders import small
from builders.building import Build
from builders.layers import LayerRows
from builders.ledger import QUARANTINED, REMOVED, SELECTED, Ledger
from builders.split import ACROSS_THE_CUT, NONE
from builders.stages import balance, collect, dedup, fetch, inspection, selection, split
from t4sa_data.catalog import SPLITS

FURTHER = "train"
"""Split of what is not in B-T4SA."""
LAYERS = ("b-t4sa", "unique", "duplicates")


def layer_codes(build: Build) -> np.ndarray:
    """Position in `LAYERS` of each image, -1 where it is in none, shape (images,). A drawn image without a split is in
    none: in `unique` it would be trained on, and leak."""
    representative = build.table(dedup.NAME, "groups")["representative"].to_numpy()
    is_drawn = np.asarray(build.table(balance.NAME, "drawn")["is_drawn"])
    is_first = representative == np.arange(len(representative))
    has_no_split = is_drawn & (build.table(split.NAME, "split")["split"].to_numpy() == NONE)
    return np.select([(representative < 0) | has_no_split, is_drawn, is_first], [-1, 0, 1], 2).astype(np.int8)


def split_codes(build: Build) -> np.ndarray:
    """Position in `SPLITS` of each image, `FURTHER`'s where it is not in B-T4SA, shape (images,)."""
    number = build.table(split.NAME, "split")["split"].to_numpy()
    return np.where(number < 0, SPLITS.index(FURTHER), number).astype(np.int8)


def names_of(codes: np.ndarray, names: tuple[str, ...], mask: np.ndarray | None = None) -> pa.DictionaryArray:
    """Codes as Arrow's dictionary type, a byte a row; null where the mask is true."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8), mask=mask), pa.array(names))


def tell_ledger(build: Build, layers: Mapping[str, LayerRows]) -> Ledger:
    """The ledger of a build.

    Args:
        build: all stages up to `split` stand.
        layers: by name, those that are built.
    """
    with_texts, small_layer = "t4sa-text" in layers, layers.get(small.LAYER)
    ledger = Ledger(of_build=True)
    tweets = build.table(selection.NAME, "tweets")
    has_left = np.asarray(tweets["reason"].is_valid())
    zeros = np.zeros(len(has_left), np.int8)
    ledger.take_over(
        build.path(collect.NAME, "ledger.parquet"),
        tweets["tweet_id"],
        layers=names_of(zeros, ("t4sa-text",) if with_texts else (SELECTED,), has_left),
        splits=names_of(zeros, (FURTHER,), has_left if with_texts else np.ones(len(zeros), bool)),
        reasons=tweets["reason"],
    )
    keys = ["tweet_id", "image_index"]
    ledger.drop("image", build.table(selection.NAME, "removed").select(keys), REMOVED)
    layer = layer_codes(build)
    fetched, seen = build.table(fetch.NAME, "fetched"), build.table(inspection.NAME, "inspected")["reason"]
    provenance = pa.table(
        [fetched["status"], fetched["length"], fetched["sha256"]], names=["status", "bytes", "sha256"]
    )
    ledger.tell(
        "image",
        build.table(selection.NAME, "images").select(keys),
        layers=names_of(layer, LAYERS, layer < 0),
        splits=names_of(split_codes(build), tuple(SPLITS), layer < 0),
        reasons=pc.coalesce(fetched["reason"], pc.binary_join_element_wise(QUARANTINED, seen, ""), _unsplit(build)),
        provenance=provenance,
    )
    if small_layer is not None:
        ledger.keep("small image", small_layer.table["key"], small.LAYER, small_layer.table["split"])
    return ledger


def _unsplit(build: Build) -> pa.Array:
    """Why a drawn image is in no split; null: it was not drawn, or is in one."""
    is_drawn = np.asarray(build.table(balance.NAME, "drawn")["is_drawn"])
    has_none = is_drawn & (build.table(split.NAME, "split")["split"].to_numpy() == NONE)
    return pa.array(np.where(has_none, ACROSS_THE_CUT, ""), pa.string(), mask=~has_none)
