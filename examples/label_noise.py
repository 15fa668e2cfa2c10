"""Which labels of a split are probably wrong, by confident learning (cleanlab): a ranked list and an estimate.

    python examples/label_noise.py --data DIR --out NOISE                            # colour histograms, no download
    python examples/label_noise.py --data DIR --out NOISE --model MODEL --blob fc7   # features of a network
    python examples/label_noise.py --data DIR --out NOISE --predictions FILE         # a model that did not learn them
    python examples/label_noise.py --data DIR --out NOISE --labels LABELS/labels.parquet   # of another set of labels

It needs probabilities of a model that did not see a sample's label. From features they come by 5-fold cross-validated
logistic regression, near-duplicates and pictures of one tweet in one fold. Writes noise.csv, noise.md, with --pictures
noise.png. Needs the extras [train] and [noise].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pyarrow as pa

from examples.errors import PredictionsError
from examples.relabelling import folds
from examples.relabelling.noise import Noise, find_noise, noise_csv, noise_markdown
from examples.relabelling.samples import Samples, from_file
from examples.terminal import run
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, InputMissing, OutputError
from t4sa_data.files import sha256_file, write_bytes
from t4sa_data.reading import OpenRelease, open_release
from t4sa_data.streaming import Labels, Where, select
from t4sa_data.streaming.selection import Selection

Told = tuple[Any, dict[str, str], list[str]]
"""Probabilities [n, 3] (NaN: none), what they come from, what to know about them."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="label_noise.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", required=True, help="a release, as for t4sa_data.stream")
    made.add_argument("--out", type=Path, required=True, help="folder of the list and the report")
    made.add_argument("--config", default="b-t4sa", help="of the release; default: b-t4sa")
    made.add_argument("--split", default="train", help="of the config; default: train")
    made.add_argument("--labels", type=Path, help="labels to look at, as for stream(labels=); default: the release's")
    made.add_argument("--fraction", type=float, help="of each class, to look at; default: all")
    what = made.add_mutually_exclusive_group()
    what.add_argument(
        "--features", choices=("gch", "lch"), default="gch", help="colour histogram, of the whole or of a 4 x 4 grid"
    )
    what.add_argument("--model", type=Path, help="an image model, with --blob: a folder of convert.py, or RUN/best")
    what.add_argument("--predictions", type=Path, help="Parquet or CSV: key or tweet_id, negative, neutral, positive")
    made.add_argument("--blob", help="of the model: fc7, pool5, ...")
    made.add_argument("--folds", type=int, default=folds.NUM_FOLDS, help="of the cross-validation; default: 5")
    made.add_argument("--seed", type=int, default=0, help="of the folds")
    made.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    made.add_argument("--batch-size", type=int, default=32, help="of a forward pass; default: 32")
    made.add_argument("--workers", type=int, help="threads that decode; default: one a core")
    made.add_argument("--pictures", type=int, default=0, help="in each cell of noise.png: the least plausible; 0: none")
    made.add_argument("--blur", action="store_true", help="blur them")
    return made


def main(argv: Sequence[str] | None = None) -> Noise:
    """Estimate, write, print the table; what was found."""
    options = parser().parse_args(argv)
    require_options(options)
    release = open_release(options.data)
    selection = select(
        release, options.config, options.split, **choice(options), columns=("tweet_id", "duplicate_group")
    )
    probabilities, about, notes = told(options, release, selection)
    known = ~np.isnan(probabilities).any(axis=1)
    if missing := int((~known).sum()):
        notes.append(f"{missing:,} of {len(known):,} samples have no probabilities, and are left out")
    noise = find_noise(selection.label[known], probabilities[known])
    keys = selection.keys.filter(pa.array(known))
    labels = f"{options.labels.name}, sha256 {sha256_file(options.labels)}" if options.labels else "the release's"
    share = f", {options.fraction:g} of each class" if options.fraction else ""
    samples = {"release": release.manifest.content_digest, "samples": f"{options.config}/{options.split}{share}"}
    about = {**samples, "labels": labels, **about}
    text = noise_markdown(noise, about, notes)
    if options.pictures:
        draw(options, release, keys, noise)
    write_bytes(options.out / "noise.md", text.encode())
    write_bytes(options.out / "noise.csv", noise_csv(keys, noise).encode())
    print(text.partition("\n`noise.csv` has")[0].strip())
    print(f"\nlist: {options.out / 'noise.csv'}; report: {options.out / 'noise.md'}")
    return noise


def require_options(options: argparse.Namespace) -> None:
    """Refuse what makes no sense, before anything is read.

    Raises:
        BadOption, InputMissing, OutputError: names it.
    """
    if options.out.exists() and not options.out.is_dir():
        raise OutputError("--out is a folder", got="a file", where=options.out)
    if (options.model is None) != (options.blob is None):
        raise BadOption("--model and --blob belong together")
    if options.folds < 2 or options.batch_size < 1 or options.pictures < 0:
        raise BadOption("--folds is at least 2, --batch-size 1, --pictures 0")
    if options.labels is not None and not options.labels.is_file():
        raise InputMissing("no such file of labels", where=options.labels, hint="examples/relabel.py makes one.")


def choice(options: argparse.Namespace) -> dict[str, Any]:
    """Which samples, with which labels, as `select` and `stream` have it."""
    labels = Labels(path=options.labels, unmatched="drop") if options.labels else None
    return {"where": Where(fraction=options.fraction), "labels": labels}


def told(options: argparse.Namespace, release: OpenRelease, selection: Selection) -> Told:
    """Out-of-sample probabilities of every selected sample.

    Raises:
        PredictionsError: a file of labels alone.
    """
    if options.predictions is not None:
        found = from_file(options.predictions, samples_of(options, release, selection))
        if found.probabilities is None:
            raise PredictionsError(
                "label noise is found by probabilities", expected=", ".join(CLASSES), where=options.predictions
            )
        note = "whether the model of these predictions had not learned from these labels cannot be seen here"
        return found.probabilities, found.about, [note, *found.notes]
    if options.model is None:
        features, notes = folds.colour_features(release, selection, options.features), list[str]()
        about = {"features": f"{options.features}, {features.shape[1]} numbers"}
    else:
        features, about, notes = of_model(options, release, selection)
    group = folds.groups(selection)
    about["out of sample by"] = (
        f"logistic regression, {options.folds} folds, seed {options.seed}, {len(np.unique(group)):,} groups of "
        "near-duplicates and tweets kept together"
    )
    made = folds.out_of_sample(features, selection.label, group, num_folds=options.folds, seed=options.seed)
    return made, about, notes


def of_model(
    options: argparse.Namespace, release: OpenRelease, selection: Selection
) -> tuple[folds.Matrix, dict[str, str], list[str]]:
    """Features of an image model, what it is, and whether it had learned from these pictures."""
    from examples.models.blobs import pictures_for
    from examples.models.folder import load_model, read_json
    from examples.relabelling.pictures import own_pictures

    model, description = load_model(options.model), read_json(options.model)
    place = {"config": options.config, "split": options.split, **choice(options)}
    batches = pictures_for(model, options.data, **place, batch_size=options.batch_size, workers=options.workers)
    about = {
        "features": f"{options.blob} of {options.model.name}, {model.architecture}",
        "sha256": description["files"][description["weights"]],
    }
    if notes := own_pictures(model.source, samples_of(options, release, selection)):
        notes = ["the model learned from these pictures' labels: its features are not out of sample, nor is this"]
    return folds.model_features(model, options.blob, batches, options.device), about, notes


def samples_of(options: argparse.Namespace, release: OpenRelease, selection: Selection) -> Samples:
    """The selected samples, as `relabelling.samples` has them."""
    return Samples(
        config=options.config,
        splits=(options.split,),
        split=np.zeros(len(selection), dtype=np.int64),
        keys=selection.keys,
        tweet_id=np.asarray(selection.extra["tweet_id"]).astype(np.int64),
        label=selection.label,
        where=release.where,
        digest=release.manifest.content_digest,
    )


def draw(options: argparse.Namespace, release: OpenRelease, keys: pa.Array, noise: Noise) -> None:
    """The least plausible labels' pictures, by given and suggested class; where both are one, the most plausible."""
    from examples.evaluation import grid
    from examples.evaluation.predictions import make_table

    table = make_table(pa.table({"key": keys, "label": noise.given}), noise.probabilities)
    place = {"config": options.config, "split": options.split}
    cells = grid.read_cells(release, table, **place, num=options.pictures, blur=options.blur)
    title = f"The least plausible labels, {options.config} {options.split} split"
    grid.write_grid(cells, options.out / "noise.png", title=title, columns_are="suggested", rows_are="given\nlabel")


if __name__ == "__main__":
    run(main)
