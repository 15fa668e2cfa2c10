"""How fast are tweets labelled, and where does the time go? Tandem, linear SVM and VADER, file to file, one thread.

`python benchmarks/label.py [--model TANDEM] [--train TSV] [--rows N] [--rounds N]` prints Markdown for RESULTS.md.
Without `--model` a tandem of one epoch and two folds is trained first: its labels are worse, its speed is the same.
Texts are those of `--train` where it is there, made up elsewhere. `--quick` shows that it runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

sys.path.insert(0, str(common.ROOT))

TRAIN = common.ROOT.parent / "shared" / "data" / "semeval" / "train.tsv"
"""Where labelled tweets are looked for: a file beside the checkout."""
LIBRARIES = ("t4sa-data", "numpy", "scipy", "torch", "pyarrow", "vaderSentiment")
SYSTEMS = ("tandem", "svm", "vader")
GROWN = 4
"""Times as many rows, to see whether memory grows."""
SPAM = 200
"""Texts that half of the rows of the input with repeats are."""
STAGES = (
    "read", "clean", "cut, look up", "words", "lexicons, counts", "LSTM", "VADER's rules", "product, repeats", "write",
    "rest",
)  # fmt: skip


# In the child.


class Stages:
    """Processor time by stage, each without the stages inside it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inside: list[str] = ["rest"]
        self._since = time.process_time()

    def switch(self) -> None:
        """What has passed is that of the innermost stage."""
        now = time.process_time()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, as a stage."""

        def within(*args: Any, **options: Any) -> Any:
            self.switch()
            self._inside.append(name)
            try:
                return function(*args, **options)
            finally:
                self.switch()
                self._inside.pop()

        return within

    def watch(self) -> None:
        """Put stages into the labeller's functions."""
        from builders.label import baselines, features, labeller, lstm, run, tandem, text, tokens

        for owner, name, stage in (
            (text, "clean", "clean"), (tokens.TokenTable, "encode", "cut, look up"),
            (features.Ngrams, "transform", "words"), (tandem, "dense", "lexicons, counts"),
            (lstm.Lstm, "log_probabilities", "LSTM"), (baselines, "vader_scores", "VADER's rules"),
            (labeller.Labeller, "predict_proba", "product, repeats"), (run._Writer, "write", "write"),
            (run._Writer, "__exit__", "write"),
        ):  # fmt: skip
            setattr(owner, name, self.timed(stage, getattr(owner, name)))
        read = run.read_tweets

        def read_tweets(*args: Any, **options: Any) -> Iterator[Any]:
            step = self.timed("read", read(*args, **options).__next__)
            while True:
                try:
                    one = step()
                except StopIteration:
                    return
                yield one

        run.read_tweets = read_tweets  # type: ignore[assignment]


def run_one(model: Path, source: Path, is_watched: bool) -> None:
    """Label a file; prints what it took as JSON."""
    from builders.label import load_model
    from builders.label.run import label_file

    start = time.perf_counter()
    labeller = load_model(model)
    loaded = time.perf_counter() - start
    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        warm = write_csv(Path(folder) / "warm.csv", ["warm"])
        label_file(labeller, warm, Path(folder) / "labels.parquet")  # imports torch, Parquet
        if is_watched:
            stages.watch()
        start, used = time.perf_counter(), time.process_time()
        stages.switch()
        stages.seconds.clear()
        done = label_file(labeller, source, Path(folder) / "labels.parquet")
        stages.switch()
        wall, used = time.perf_counter() - start, time.process_time() - used
    found = {"rows": done.num_rows, "labelled": done.num_labelled, "load": loaded, "wall": wall, "cpu": used}
    print(json.dumps({**found, "peak": peak_mb(), "stages": stages.seconds}))


def peak_mb() -> float:
    """Largest resident size of this process (`ru_maxrss`, where there is no /proc, may be that of the one before)."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


# In the parent.


def texts_of(path: Path, num: int) -> tuple[list[str], str]:
    """Different texts, and what they are."""
    if not path.is_file():
        return [common._text(row) for row in range(num)], "made-up texts"
    from builders.label.training_data import read_labelled

    found = list(dict.fromkeys(read_labelled(path).texts))
    return found[:: max(1, len(found) // num)][:num], "tweets"


def write_csv(path: Path, texts: Sequence[str]) -> Path:
    """As raw_tweets_text.csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text"))
        writer.writerows((757_000_000_000_000_000 + row, text) for row, text in enumerate(texts))
    return path


def write_inputs(folder: Path, texts: list[str]) -> dict[str, Path]:
    """Different texts; more of them; half of the rows a few texts."""
    chance = np.random.default_rng(0)
    spam = [texts[i] for i in chance.integers(0, min(SPAM, len(texts)), len(texts))]
    repeated = [spam[i] if chance.random() < 0.5 else text for i, text in enumerate(texts)]
    more = [f"{text} {turn}" if turn else text for turn in range(GROWN) for text in texts]
    named = {"different": texts, "more": more, "repeated": repeated}
    return {name: write_csv(folder / f"{name}.csv", rows) for name, rows in named.items()}


def train_models(folder: Path, given: argparse.Namespace, texts: list[str]) -> dict[str, Path]:
    """A model folder for each system."""
    from builders.label.baselines import train_svm, train_vader
    from builders.label.folder import save_model
    from builders.label.lstm import LstmConfig
    from builders.label.systems import one_thread
    from builders.label.tandem import TandemConfig, train_tandem
    from builders.label.training_data import read_labelled

    labels = np.arange(len(texts)) % 3
    if given.train.is_file():
        found = read_labelled(given.train)
        step = 4 if given.quick else 1
        texts, labels = list(found.texts[::step]), found.labels[::step]
    made = {"tandem": given.model} if given.model else {}
    config = TandemConfig(lstm=LstmConfig(epochs=1), folds=2)
    with one_thread():
        for kind, train in (
            ("tandem", lambda: train_tandem(texts, labels, config=config, workers=os.cpu_count() or 1)),
            ("svm", lambda: train_svm(texts, labels)),
            ("vader", lambda: train_vader(texts, labels)),
        ):
            if kind not in made:
                made[kind] = folder / kind
                save_model(train(), made[kind])
    return made


def measure(model: Path, source: Path, *, is_watched: bool = False) -> dict[str, Any]:
    """One run, in a process of its own."""
    command = [sys.executable, __file__, "--one", str(model), str(source), *(["--watch"] if is_watched else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["labelled"] == found["rows"], found
    return found


def print_tables(runs: dict[str, dict[str, list[dict[str, Any]]]], num: int) -> None:
    """Speed and memory, then stages."""
    lines = []
    for kind, found in runs.items():
        plain, again = found["different"], found["repeated"]
        speeds = [one["rows"] / one["wall"] for one in plain]
        ratios = [svm["wall"] / one["wall"] for one, svm in zip(plain, runs["svm"]["different"], strict=True)]
        processor = [one["cpu"] / one["rows"] * 1e6 for one in plain]
        lines.append([
            kind, common.spread(speeds, 0), common.spread(ratios), common.spread(processor, 0),
            f"{statistics.median(processor) / 60:.1f}",
            common.spread([one["rows"] / one["wall"] for one in again], 0),
            f"{statistics.median(one['peak'] for one in plain):.0f}", f"{found['more'][0]['peak']:.0f}",
            common.spread([one["load"] for one in plain], 1),
        ])  # fmt: skip
    header = (
        "system", "tweets/s", "beside the SVM", "processor, us a tweet", "minutes a million",
        "half of the rows repeated: tweets/s", "peak, MB", f"peak of {GROWN * num:,} rows, MB", "loading, s",
    )  # fmt: skip
    print(common.markdown_table(header, lines))
    stages = {kind: found["watched"][0] for kind, found in runs.items()}
    lines = []
    for name in STAGES:
        spent = [(one["stages"].get(name, 0), one["rows"], one["cpu"]) for one in stages.values()]
        lines.append([name, *(f"{seconds / rows * 1e6:.1f} ({seconds / cpu:.0%})" for seconds, rows, cpu in spent)])
    print("\n" + common.markdown_table(("stage: processor, us a tweet", *stages), lines))


def main() -> None:
    """Train what is needed, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a tandem")
    parser.add_argument("--train", type=Path, default=TRAIN, metavar="TSV", help="id, label, text")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        run_one(*given.one, given.watch)
        return
    if given.quick:
        given.rows, given.rounds = 5000, 1
    print("Command: `python benchmarks/label.py" + (" --quick" if given.quick else "") + "`\n")
    print(common.describe_machine(LIBRARIES))
    texts, what = texts_of(given.train, given.rows)
    characters = statistics.mean(map(len, texts))
    size = f"{len(texts):,} different {what}, {characters:.0f} characters on average"
    print(f"Input: {size}, in CSV; {given.rounds} rounds.\n")
    with tempfile.TemporaryDirectory() as folder:
        sources = write_inputs(Path(folder), texts)
        models = train_models(Path(folder), given, texts)
        runs: dict[str, dict[str, list[dict[str, Any]]]] = {kind: defaultdict(list) for kind in SYSTEMS}
        for _ in range(given.rounds):
            for name in ("different", "repeated"):
                for kind in SYSTEMS:
                    runs[kind][name].append(measure(models[kind], sources[name]))
        for kind in SYSTEMS:
            runs[kind]["more"].append(measure(models[kind], sources["more"]))
            runs[kind]["watched"].append(measure(models[kind], sources["different"], is_watched=True))
        print_tables(runs, len(texts))


if __name__ == "__main__":
    main()
