"""PCNN of You et al. (AAAI 2015): a network looks at its own weakly labelled training set, forgets what it doubts, and
learns on.

What is known, and how surely:
- round 1: the CNN of `you_cnn` learns all weak labels (published: abstract)
- a picture whose two probabilities are p0, p1 is dropped with probability max(0, 2 - exp|p0 - p1|) (recalled): always
  where both are 1/2, never where |p0 - p1| >= ln 2 = 0.693, that is from a larger probability of 0.847 on
- round 2: the same weights learn on, on what was kept (recalled; how long is unknown: here as long as round 1)
- then the folds of the Twitter Testing Dataset, as in `you_cnn` (published: abstract)

Ours, and said so: the weak set is what the user names (the authors' 0.5 million Flickr pictures are not published as
pictures); with three classes the difference is that of the two largest probabilities, which for two is |p0 - p1|; each
picture is drawn by a hash of seed and key, so that the list of kept keys is a file that can be made again and cited.
Report a number of this as "PCNN (re-implementation on weak set X)", never as the authors'.

    python examples/train.py --recipe you-cnn --data t4sa --out runs/cnn                          # round 1
    python examples/systems/progressive.py --model runs/cnn/best --data t4sa --out runs/pcnn      # selection, round 2

Then `runs/pcnn/best` is what `fit_predict` begins with (`init`). Without it, table 1's rows are learned here in two
rounds (two classes, one process), and table 2's has nothing to begin with; `smoke` takes the folds' own labels, a fifth
of them turned round, for weak ones.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import numpy.typing as npt

from examples.errors import Needs, RunError
from examples.models.folder import JSON_NAME, Model, load_model, read_json
from examples.systems import you_cnn
from examples.systems.data import Ints, Pictures
from examples.systems.fitting import few, place_of, probabilities
from examples.systems.protocol import Options
from t4sa_data.errors import BadOption, T4SAError
from t4sa_data.files import write_bytes, write_json
from t4sa_data.reading import open_release

VERSION = 1
"""Bumped by hand when equal inputs give other predictions."""
KEPT, SELECTION = "kept.txt", "selection.json"
"""Keys that stay; what they were chosen by."""
TURNED = 0.2
"""Share of `smoke`'s weak labels that are wrong."""
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_BITS = 53
"""Of a float64's fraction: a draw is a whole number of 2^-53."""


def drop_probability(probabilities: npt.NDArray[Any]) -> Floats:
    """How probably each picture is dropped: max(0, 2 - exp(d)), d the two largest probabilities' difference.

    Args:
        probabilities: shape (n, K), K >= 2; each row sums to 1.

    Returns:
        shape (n,), 0 to 1.

    Raises:
        BadOption: these are no probabilities.

    >>> drop_probability(np.array([[0.5, 0.5], [0.75, 0.25], [0.1, 0.9]])).round(3).tolist()
    [1.0, 0.351, 0.0]
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    is_table = wide.ndim == 2 and wide.shape[1] >= 2
    if not is_table or not (wide >= 0).all() or not np.allclose(wide.sum(axis=1), 1, atol=1e-4):
        raise BadOption("probabilities of at least two classes, rows that sum to 1", got=f"shape {wide.shape}")
    largest = np.sort(wide, axis=1)[:, -2:]
    return np.maximum(0.0, 2.0 - np.exp(largest[:, 1] - largest[:, 0]))


def draws(keys: Sequence[str], seed: int) -> Floats:
    """A number in [0, 1) for each key: of seed and key alone, whatever else is in the set.

    >>> draws(["1-1", "2-1"], 0).tolist() == draws(["2-1", "1-1"], 0).tolist()[::-1]
    True
    """
    hashes = (hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys)
    return np.array([(int.from_bytes(one[:8], "big") >> 64 - _BITS) * 2.0**-_BITS for one in hashes], dtype=np.float64)


def choose(probabilities: npt.NDArray[Any], keys: Sequence[str], seed: int = 0) -> Mask:
    """Which pictures stay.

    Args:
        probabilities: of the network, in evaluation; shape (n, K).
        keys: of the pictures.
        seed: of the draws; another seed keeps others.

    Returns:
        shape (n,), True for those that stay.

    Raises:
        BadOption: no probabilities, or not one row for each key.
    """
    if len(keys) != len(probabilities):
        raise BadOption("a row of probabilities for each key", expected=len(keys), got=len(probabilities))
    return draws(keys, seed) >= drop_probability(probabilities)


def write_kept(path: Path, keys: Sequence[str], kept: Mask) -> str:
    """Write the keys that stay, one a line: what `examples/train.py --keep` reads; its sha256."""
    lines = [key for key, stays in zip(keys, kept, strict=True) if stays]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_bytes(path, "".join(f"{key}\n" for key in lines).encode())


def fit_predict(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
    """See `protocol.FitPredict`.

    Raises:
        Needs: table 2 has no network of weak labels to begin with.
        RunError: of the weak labels nothing was kept.
        WeightsMismatch: `init` is of another network.
        TrainingDiverged: a loss was no number.
    """
    is_weak = you_cnn.is_weak(data, train)
    if options.init is not None:
        model = you_cnn.brought(options.init)
    elif is_weak or options.smoke:
        model = two_rounds(data, train, options, None if is_weak else _turned(data, train, options.seed))
    else:
        raise Needs(
            "a network trained progressively on weak labels",
            expected="RUN/best of examples/systems/progressive.py",
            hint="See there: two commands, with B-T4SA or any release as the weak set.",
        )
    if not is_weak:
        model = you_cnn.finetuned(model, data, train, options)
    return you_cnn.answers(model, data, test, options)


def two_rounds(data: Pictures, rows: Ints, options: Options, label: Ints | None = None) -> Model:
    """Round 1, selection, round 2; the list of kept keys stands in `work`.

    Args:
        data: the pictures.
        rows: with weak labels.
        options: see `protocol.Options`.
        label: weak labels, shape (n,), where not the pictures' own.

    Raises:
        RunError: nothing was kept.
    """
    if label is None:
        model, label = you_cnn.of_weak_labels(data, rows, options), data.label[rows]
    else:
        model = you_cnn.fresh(options)
        you_cnn.learn_rows(model, data, rows, options, label)
    table, keys = probabilities(model, data, rows, place_of(options.device)), [data.keys[row] for row in rows]
    kept = choose(table, keys, options.seed)
    print(f"PCNN: {int(kept.sum()):,} of {len(kept):,} pictures stay for round 2")
    if not kept.any():
        if options.smoke:  # two steps do not make a network sure of anything
            return model
        raise RunError(
            "the network doubts every picture", hint="Round 1 has learned nothing: more epochs, another rate."
        )
    folder = options.work / "progressive" / you_cnn.fingerprint("selection", data, rows, options)
    write_kept(folder / KEPT, keys, kept)
    chosen = np.flatnonzero(kept)
    chosen = few(chosen, options.seed) if options.smoke else chosen
    you_cnn.learn_rows(model, data, rows[chosen], options, label[chosen])
    return model


def _turned(data: Pictures, rows: Ints, seed: int) -> Ints:
    """Labels of which a fifth is wrong."""
    wrong = draws([f"turned/{data.keys[row]}" for row in rows], seed) < TURNED
    return np.where(wrong, 1 - data.label[rows], data.label[rows]).astype(np.int64)


def main(argv: Sequence[str] | None = None) -> int:
    """Choose by a network of round 1, and train round 2; further options go to examples/train.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="round 1: RUN/best")
    parser.add_argument("--data", required=True, help="the weakly labelled release of round 1")
    parser.add_argument("--config", default="b-t4sa", help="of the release")
    parser.add_argument("--out", type=Path, required=True, help="folder of round 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    parser.add_argument("--batch-size", type=int, default=256, help="pictures at a time while choosing")
    given, more = parser.parse_known_args(argv)
    try:
        select(given.model, given.data, given.config, given.out, given.seed, given.device, given.batch_size)
    except T4SAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from examples import train

    typed = ["--recipe", "you-cnn", "--data", given.data, "--config", given.config, "--init", str(given.model)]
    typed += ["--keep", str(given.out / KEPT), "--out", str(given.out), "--seed", str(given.seed)]
    return train.main([*typed, "--device", given.device, *more])


def select(
    model: Path, data: str, config: str, out: Path, seed: int = 0, device: str = "auto", batch_size: int = 256
) -> None:
    """Write `out/kept.txt`, and beside it what it was chosen by; nothing where that is what stands there.

    Args:
        model: folder of round 1's network.
        data: the weak set, a release.
        config: of the release.
        out: folder of round 2.
        seed: of the draws.
        device: see `find_device`.
        batch_size: pictures at a time.

    Raises:
        Needs: no model folder.
        RunError: nothing was kept.
        T4SAError: what `predict` raises.
    """
    from examples.evaluation.predicting import find_device, predict
    from examples.evaluation.predictions import label_of, probabilities_of

    if not (model / JSON_NAME).is_file():
        raise Needs("the network of round 1", expected="RUN/best of examples/train.py", where=model)
    content = open_release(data).manifest.content_digest
    about = {"model": read_json(model)["files"], "content_digest": content, "config": config, "seed": seed}
    if (out / KEPT).is_file() and (out / SELECTION).is_file():
        import json

        if all(json.loads((out / SELECTION).read_text()).get(name) == value for name, value in about.items()):
            return
    table = predict(
        load_model(model), data, config=config, split="train", device=find_device(device), batch_size=batch_size
    )
    assert table is not None, "one process chooses"
    keys, label = table["key"].to_pylist(), label_of(table)
    kept = choose(probabilities_of(table), keys, seed)
    if not kept.any():
        raise RunError(
            "the network doubts every picture", hint="Round 1 has learned nothing: more epochs, another rate."
        )
    sha256 = write_kept(out / KEPT, keys, kept)
    counts = {"pictures": np.bincount(label).tolist(), "kept": np.bincount(label[kept], minlength=3).tolist()}
    write_json(out / SELECTION, {**about, "sha256": sha256, **counts})
    print(f"{int(kept.sum()):,} of {len(kept):,} pictures stay: {out / KEPT}")


if __name__ == "__main__":
    sys.exit(main())
