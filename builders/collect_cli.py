"""`t4sa collect`, found by `t4sa` through the entry points of this package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from t4sa_data.commands import exit_statuses

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def collect(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="JSON lines, plain or .gz, .bz2, .zst; tar or zip of them; folders."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Gets kept_ids.txt, tweets.parquet, ledger.parquet.")],
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Share of lines, and of files, that may be bad.")] = 0.01,
    drop_rt_text: Annotated[
        bool, typer.Option("--drop-rt-text", help="Drop texts that begin RT @, too; else they are counted.")
    ] = False,
    drop_deleted: Annotated[
        bool, typer.Option("--drop-deleted", help="Drop what a notice in FILES deletes; else it is counted.")
    ] = False,
    wrapped_ids: Annotated[
        bool, typer.Option("--wrapped-ids", help='Take MongoDB\'s {"$numberLong": ...} as ids.')
    ] = False,
) -> None:
    """Keep the tweets that T4SA's published rules keep: photos only, in English, five words or more, no retweets.

    Every tweet has a row in the ledger. What is written is sorted by tweet id and the same for any order of FILES; each
    file appears whole or not at all. Exit status: 0 done, 1 fault, 2 usage.
    """
    with exit_statuses():
        from tqdm import tqdm

        from builders.collect import Rules
        from builders.collecting import CollectConfig, run

        rules = Rules(drop_rt_text=drop_rt_text, wrapped_ids=wrapped_ids)
        config = CollectConfig(
            files=tuple(files), out=out, rules=rules, drop_deleted=drop_deleted, max_bad_share=max_bad
        )
        with tqdm(desc="collect", unit="tweet", disable=not sys.stderr.isatty()) as bar:
            outcome = run(config, bar.update)
        typer.echo(outcome.as_text())
        typer.echo(f"\n{out}: {outcome.num_kept:,} tweets kept of {outcome.num_candidates:,}")


if __name__ == "__main__":
    app()
