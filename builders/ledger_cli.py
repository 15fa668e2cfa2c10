"""`t4sa ledger why`, `funnel` and `diff`, found by `t4sa` through the entry points of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from t4sa_data.commands import exit_statuses

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Ask a build's ledger: what became of a tweet or an image, how many left where, what differs between builds.",
)
Place = Annotated[Path, typer.Argument(metavar="DIR", help="A build's DIR, its folder build, or a ledger.parquet.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


@app.command()
def why(
    place: Place,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A tweet id, or an image's key <tweet id>-<1..4>.")],
) -> None:
    """Tell the story of one tweet or image: where it left and why, or where it is.

    Of a tweet, what became of its images, too. Exit status: 0 told, 1 not in the ledger or a fault, 2 usage.
    """
    with exit_statuses():
        from builders.ledger.why import why as tell

        typer.echo(tell(place, key))


@app.command()
def funnel(place: Place, as_json: AsJson = False) -> None:
    """Print what came into each stage, what left there and why, what was kept. Sums are checked.

    Checked are the rows (one fate each, no candidate twice, no image without its tweet), the sums, and the report.json
    beside the ledger. Exit status: 0 all adds up, 1 it does not or a fault, 2 usage.
    """
    with exit_statuses():
        from builders.ledger import funnel as make
        from builders.ledger.reading import find_ledger, is_of_build, read_counts, require_sound, told_counts

        path = find_ledger(place)
        counts = read_counts(path)
        if (told := told_counts(path)) is not None:
            make.require_same(counts, told, path)
        require_sound(path)
        found = make.funnels_of(counts, of_build=is_of_build(path))
        if as_json:
            _print_json(make.as_json(found))
        else:
            typer.echo(make.as_text(found))


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A build's DIR, or a ledger.parquet.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other one.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Gets every changed candidate: .parquet or .csv.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two builds: which candidates changed fate, and the stage where their ways part.

    Exit status: 0 compared (be there changes or not), 1 fault, 2 usage.
    """
    with exit_statuses():
        from builders.ledger import diff as ledger_diff

        if out is not None:
            ledger_diff.require_ending(out)
        found = ledger_diff.diff(a, b)
        if out is not None:
            ledger_diff.write_diff(found, out)
        if as_json:
            _print_json(ledger_diff.as_json(found))
        else:
            typer.echo(ledger_diff.as_text(found))
        if out is not None:
            typer.echo(f"{out}: {found.num_changed:,} candidates", err=True)


if __name__ == "__main__":
    app()
