"""`t4sa label train`, `evaluate` and `run`, found by `t4sa` through the entry points of this package."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t4sa_data.commands import exit_statuses

if TYPE_CHECKING:
    from builders.label.labeller import Labeller
    from builders.label.training_data import Ints, Labelled

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Label tweets by their text: train a labeller, evaluate it, run it over millions.",
)


class Rule(StrEnum):
    """How probabilities are read: as learned, or divided by the training data's share of classes."""

    raw = "raw"
    uniform = "uniform"


class Rules(StrEnum):
    """Of `Rule`, one or both."""

    raw = "raw"
    uniform = "uniform"
    both = "both"


Workers = Annotated[int, typer.Option(min=1, help="Processes. They do not change the result.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder of `t4sa label train`.")]
_CORES = os.cpu_count() or 1


def _say(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def train(
    tsv: Annotated[Path, typer.Argument(metavar="TSV", help="Labelled tweets: id, label, text, with tabs between.")],
    out: Annotated[Path, typer.Option(metavar="MODEL", help="Folder of the model.")],
    system: Annotated[str, typer.Option(help="tandem, svm, lstm, vader or majority.")] = "tandem",
    vectors: Annotated[Path | None, typer.Option(help="Word vectors: word2vec, GloVe or fastText.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another model.")] = 0,
    workers: Workers = _CORES,
    device: Annotated[str, typer.Option(help="cpu, or cuda: then equal within noise only.")] = "cpu",
    dev: Annotated[
        bool, typer.Option("--dev/--no-dev", help="Hold one tweet in ten back, by its id, and measure on them.")
    ] = True,
) -> None:
    """Train a labeller. The same data and seed give the same bytes, on any number of cores.

    The file is checked whole before anything is trained. Rows without a text, too long, or whose id stands with two
    labels are left out and counted. Exit status: 0 done, 1 fault, 2 usage.
    """
    with exit_statuses():
        from builders.label.folder import require_place, save_model
        from builders.label.systems import one_thread, train_system
        from builders.label.training_data import is_development, read_labelled

        start = time.perf_counter()
        require_place(out)
        data = read_labelled(tsv)
        held = is_development(data.ids) & dev
        texts, labels = data.take(~held)
        _tell_data(data, int(held.sum()))
        description: dict[str, Any] = {"seed": seed, "data": {**data.provenance(), "development": int(held.sum())}}
        found = _vectors(vectors, texts, description) if vectors else None
        labeller = train_system(
            system, texts, labels, seed=seed, workers=workers, device=device, vectors=found, say=_say
        )
        seconds = time.perf_counter() - start
        if held.any():
            with one_thread():  # sums of other threads differ in their last bits, and these become part of the model
                figures = _figures(labeller, *data.take(held), Rules.both)
            description["metrics"] = {"development": figures}
            typer.echo(_as_text(figures))
        digest = save_model(labeller, out, description)
        typer.echo(f"{out}: {system}, {len(texts):,} texts, {seconds:,.0f} s; sha256 of model.json {digest}")
        _say(f"next: t4sa label run {out} TWEETS --out PARQUET")


def _vectors(path: Path, texts: list[str], description: dict[str, Any]) -> dict[str, Any]:
    from builders.label.lexicons import load_lexicons
    from builders.label.tokens import TokenTable
    from builders.label.vectors import read_vectors
    from t4sa_data.files import sha256_file

    words = set(TokenTable(load_lexicons()).encode(texts).table.words)
    found = read_vectors(path, words)
    about = {"words": len(found), "dim": len(next(iter(found.values()))), "sha256": sha256_file(path)}
    _say(f"vectors: {about['words']:,} of {len(words):,} words, {about['dim']} numbers each")
    description["vectors"] = about
    return found


def _tell_data(data: Labelled, num_held: int) -> None:
    from builders.label.systems import CLASSES

    classes = ", ".join(f"{count:,} {name}" for name, count in zip(CLASSES, data.class_counts, strict=True))
    _say(f"data: {data.num_rows:,} rows, {len(data.ids):,} kept ({classes}), {num_held:,} of them held back")
    for reason, count in sorted(data.dropped.items()):
        _say(f"left out: {count:,} {reason.replace('_', ' ')}")
    if data.conflicting_ids:
        shown = ", ".join(map(str, data.conflicting_ids[:5]))
        _say(f"ids with two labels: {len(data.conflicting_ids):,} (all their rows are left out), as {shown}")
    if data.num_conflicting_texts:
        _say(f"equal texts with different labels under different ids: {data.num_conflicting_texts:,} (kept)")


@app.command()
def evaluate(
    model: Model,
    tsv: Annotated[Path, typer.Argument(metavar="TSV", help="Labelled tweets that it was not trained on.")],
    prior: Annotated[
        Rules, typer.Option(help="raw: as learned; uniform: divided by the training data's classes.")
    ] = Rules.both,
    json: Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")] = None,
) -> None:
    """Measure a labeller: figures with 95% intervals. Macro recall is meant for `uniform`, all else for `raw`.

    Exit status: 0 done, 1 fault, 2 usage.
    """
    with exit_statuses():
        from builders.label import load_model
        from builders.label.folder import model_digest
        from builders.label.training_data import read_labelled
        from t4sa_data.files import write_json

        labeller, data = load_model(model), read_labelled(tsv)
        _tell_data(data, 0)
        figures = _figures(labeller, list(data.texts), data.labels, prior)
        typer.echo(_as_text(figures))
        if json:
            about = {"model": model_digest(model), "kind": labeller.kind, "data": data.provenance()}
            write_json(json, {**about, "metrics": figures})
            typer.echo(f"{json}: all figures")


def _figures(labeller: Labeller, texts: list[str], labels: Ints, rules: Rules) -> dict[str, Any]:
    """Figures of each rule."""
    from builders.label.metrics import evaluate as measure

    probabilities = labeller.predict_proba(texts)
    priors = {"raw": None, "uniform": labeller.prior}
    wanted = [rule for rule in priors if rules.value in (rule, "both")]
    return {rule: measure(probabilities, labels, priors[rule]) for rule in wanted}


def _as_text(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A table: a figure a line, a rule a column."""
    rules = list(figures)
    names = list(figures[rules[0]]["intervals"])
    lines = [" " * 22 + "".join(f"{rule:<24}" for rule in rules)]
    for name in names:
        cells = ""
        for rule in rules:
            low, high = figures[rule]["intervals"][name]
            cells += f"{f'{figures[rule][name]:.4f}  [{low:.4f}, {high:.4f}]':<26}"[:26].ljust(24)
        lines.append(f"{name.replace('_', ' '):<22}{cells}".rstrip())
    lines.append(f"{'n':<22}{figures[rules[0]]['n']:,}")
    return "\n".join(line.rstrip() for line in lines)


@app.command()
def run(
    model: Model,
    tweets: Annotated[
        Path, typer.Argument(metavar="TWEETS", help="JSON lines, CSV `id,text`, TSV (also .gz, .bz2, .zst), Parquet.")
    ],
    out: Annotated[Path, typer.Option(metavar="PARQUET", help="Gets a row for each row of TWEETS, in their order.")],
    prior: Annotated[
        Rule, typer.Option(help="raw: to store and rank by; uniform: the rule for macro recall.")
    ] = Rule.raw,
    workers: Workers = _CORES,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave malformed lines out and count them, instead of stopping.")
    ] = False,
) -> None:
    """Label tweets: `tweet_id, negative, neutral, positive, reason`, a row for each row of the input, memory flat.

    A row that cannot be labelled (no text, no id, not UTF-8) has its reason and nulls. The file appears whole or not at
    all. Exit status: 0 done, 1 fault, 2 usage.
    """
    with exit_statuses():
        from tqdm import tqdm

        from builders.label.inputs import num_rows
        from builders.label.run import label_file

        total = num_rows(tweets)
        with tqdm(total=total, desc="label", unit="tweet", disable=not sys.stderr.isatty()) as bar:
            done = label_file(
                model, tweets, out, prior=prior.value, workers=workers, skip_bad=skip_bad, progress=bar.update
            )
        typer.echo(done.as_text())
        typer.echo(f"{out}: {done.num_rows:,} rows")


if __name__ == "__main__":
    app()
