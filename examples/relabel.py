"""Another model's predictions as labels: a table that the loader joins, and how far it agrees with the original labels.

    python examples/relabel.py --model RUN/best --data DIR --out LABELS          # an image model
    python examples/relabel.py --text-model FOLDER --data DIR --out LABELS       # transformers, on the tweets' texts
    python examples/relabel.py --predictions FILE --data DIR --out LABELS        # anybody's, by key or tweet_id
    python examples/train.py --recipe vgg19-ft-a --data DIR --labels LABELS/labels.parquet --out RUN

Writes labels.parquet (key, tweet_id, negative, neutral, positive, label), agreement.csv, agreement.md, agreement.png.
`t4sa_data.stream(..., labels="LABELS/labels.parquet")` takes the table as it is. Needs the extra [train]; --text-model
transformers, too.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from examples.evaluation.metrics import confusion
from examples.relabelling import agreement
from examples.relabelling.samples import NONE, Found, Samples, from_file, read_samples
from examples.terminal import run
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, NoRows, OutputError
from t4sa_data.files import explain_os_errors, write_bytes
from t4sa_data.reading import open_release

SPLITS = ("train", "validation")
"""Relabelled unless others are named; the test split keeps its labels."""
LABELS = "labels.parquet"
METADATA = "t4sa.relabel"
"""In the table's schema: what made it, as JSON."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="relabel.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="an image model: a folder of convert.py, or RUN/best")
    what.add_argument(
        "--text-model", metavar="FOLDER", help="a sequence classifier of transformers: a folder, or a name of the Hub"
    )
    what.add_argument(
        "--predictions", type=Path, help="Parquet or CSV: key or tweet_id, negative, neutral, positive (or label)"
    )
    made.add_argument("--data", required=True, help="a release, as for t4sa_data.stream")
    made.add_argument("--config", default="b-t4sa", help="of the release; default: b-t4sa")
    made.add_argument("--split", nargs="+", default=list(SPLITS), help="one or several; default: train validation")
    made.add_argument("--out", type=Path, required=True, help="folder of the table and of what is said about it")
    made.add_argument(
        "--min-confidence", type=float, default=0.0, metavar="P", help="leave out labels of less than this probability"
    )
    made.add_argument(
        "--classes", help="what the outputs of the text model are, in order: negative,neutral,positive in some order"
    )
    made.add_argument(
        "--mask-names", action="store_true", help="@user and http for names and links, as twitter-roberta learned them"
    )
    made.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    made.add_argument("--batch-size", type=int, default=32, help="of a forward pass; default: 32")
    made.add_argument("--workers", type=int, help="threads that decode; default: one a core")
    return made


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Relabel, write, print the matrix and the next command; the counts."""
    options = parser().parse_args(argv)
    require_options(options)
    release = open_release(options.data)
    samples = read_samples(release, options.config, list(dict.fromkeys(options.split)))
    found = ask(options, release, samples)
    kept = kept_rows(found, options.min_confidence)
    if not kept.any():
        raise NoRows(
            "no label is as sure as that", expected=f"a probability of at least {options.min_confidence:g}", got="none"
        )
    if "test" in samples.splits:
        found.notes.append("Labels of the test split: numbers on them do not stand beside anybody else's")
    write(options.out, samples, found, kept, options.min_confidence)
    known = found.label != NONE
    counts = confusion(samples.label[known], found.label[known])
    tell(options, samples, found, kept, counts)
    return {"n": int(known.sum()), "kept": int(kept.sum()), "confusion": counts.tolist()}


def require_options(options: argparse.Namespace) -> None:
    """Refuse what makes no sense, before anything is read.

    Raises:
        BadOption, OutputError: names it.
    """
    if options.out.exists() and not options.out.is_dir():
        raise OutputError("--out is a folder", got="a file", where=options.out)
    if not 0 <= options.min_confidence <= 1:
        raise BadOption("--min-confidence lies between 0 and 1", got=options.min_confidence)
    if options.batch_size < 1:
        raise BadOption("--batch-size is at least 1", got=options.batch_size)
    if options.text_model is None and (options.classes or options.mask_names):
        raise BadOption("--classes and --mask-names are about a --text-model")


def ask(options: argparse.Namespace, release: Any, samples: Samples) -> Found:
    """What the model, or the file, says."""
    if options.predictions is not None:
        return from_file(options.predictions, samples)
    if options.model is not None:
        from examples.relabelling.pictures import from_model

        batch = {"device": options.device, "batch_size": options.batch_size, "workers": options.workers}
        return from_model(options.model, options.data, samples, **batch)
    from examples.relabelling import texts

    words = texts.read_texts(release, samples)
    classes = [one.strip() for one in options.classes.split(",")] if options.classes else None
    model = texts.TextModel(options.text_model, classes=classes, device=options.device)
    print(f"classes: {model.mapping}", flush=True)
    return texts.from_text_model(
        model, options.text_model, words, samples, batch_size=options.batch_size, mask_names=options.mask_names
    )


def kept_rows(found: Found, min_confidence: float) -> npt.NDArray[np.bool_]:
    """Samples with a label that is sure enough, shape (n,).

    Raises:
        BadOption: labels without probabilities, and a confidence is asked for.
    """
    kept = np.asarray(found.label != NONE)
    if not min_confidence:
        return kept
    if found.probabilities is None:
        raise BadOption("--min-confidence needs probabilities", got="labels alone")
    # In float32, as the column is: 0.7 must not turn away a stored 0.7. NaN is less than anything.
    sure = np.nan_to_num(found.probabilities, nan=-1.0).max(axis=1)
    return np.asarray(kept & (sure >= np.float32(min_confidence)))


def labels_table(samples: Samples, found: Found, kept: npt.NDArray[np.bool_], about: dict[str, str]) -> pa.Table:
    """The kept samples in release order."""
    rows = pa.array(kept)
    columns = {"key": samples.keys.cast(pa.string()), "tweet_id": pa.array(samples.tweet_id)}
    if found.probabilities is not None:
        columns |= {name: pa.array(found.probabilities[:, k]) for k, name in enumerate(CLASSES)}
    columns["label"] = pa.array(found.label)
    return pa.table(columns).filter(rows).replace_schema_metadata({METADATA: json.dumps(about)})


def write(out: Path, samples: Samples, found: Found, kept: npt.NDArray[np.bool_], min_confidence: float) -> None:
    """All four files, each in one step; the table last: where it stands, the others are about it."""
    where = {"release": samples.digest, "samples": f"{samples.config}/{'+'.join(samples.splits)}"}
    about = where | found.about | ({"least confidence": f"{min_confidence:g}"} if min_confidence else {})
    buffer = io.BytesIO()
    pq.write_table(labels_table(samples, found, kept, about), buffer, compression="zstd")
    with explain_os_errors(out / LABELS):
        (out / LABELS).unlink(missing_ok=True)
    known = found.label != NONE
    counts = confusion(samples.label[known], found.label[known])
    write_bytes(out / "agreement.csv", agreement.agreement_csv(samples, found, kept).encode())
    text = agreement.agreement_markdown(samples, found, kept, about, min_confidence)
    write_bytes(out / "agreement.md", text.encode())
    title = f"New labels of {samples.config}, {' + '.join(samples.splits)}\nn = {int(known.sum()):,}"
    agreement.agreement_figure(counts, out / "agreement.png", title)
    write_bytes(out / LABELS, buffer.getvalue())


def tell(
    options: argparse.Namespace,
    samples: Samples,
    found: Found,
    kept: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.int64],
) -> None:
    """The matrix, what to know about it, the next command."""
    known = found.label != NONE
    print(agreement.matrix_text(counts))
    words = agreement.kappa_words(samples.label[known], found.label[known], samples.tweet_id[known])
    share = agreement.share_of_all(counts) or 0.0
    print(f"\n{int(counts.sum()):,} of {len(samples):,} samples, {share:.1%} of them changed; {words}")
    if options.min_confidence:
        print(f"kept at a confidence of {options.min_confidence:g} or more: {int(kept.sum()):,}")
    for note in found.notes:
        print(f"note: {note}")
    print(f"\nlabels: {options.out / LABELS}; all about them: {options.out / 'agreement.md'}")
    if {*SPLITS} <= {samples.splits[k] for k in np.unique(samples.split[kept])}:
        typed = ["--recipe", "vgg19-ft-a", "--data", options.data]
        typed += [] if options.config == "b-t4sa" else ["--config", options.config]
        typed += ["--labels", str(options.out / LABELS), "--out", "runs/relabelled"]
        print(f"train on them: python examples/train.py {shlex.join(typed)}")
    else:
        print("train.py needs labels of train and of validation: --split train validation makes both")


if __name__ == "__main__":
    run(main)
