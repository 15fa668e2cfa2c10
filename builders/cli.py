"""`t4sa prepare`, found by `t4sa` through the entry points of this package."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from builders.run import PrepareConfig

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class TextChoice(StrEnum):
    """What becomes of the tweets' text."""

    full = "full"
    none = "none"


@app.command()
def prepare(
    raw: Annotated[
        Path,
        typer.Argument(
            help="Folder of the official packages, names unchanged, archives not unpacked; or of your copy of the "
            "Twitter Testing Dataset."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder that gets t4sa/ and t4sa-wds/. Default: $T4SA_HOME, or the data folder.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    formats: Annotated[str, typer.Option(help="parquet, wds, or both with a comma.")] = "parquet,wds",
    configs: Annotated[str, typer.Option(help="Configs with commas. Default: what the inputs allow.")] = "",
    splits: Annotated[
        str, typer.Option("--split", help="Splits of the image configs, with commas. Default: all.")
    ] = "",
    images: Annotated[list[Path] | None, typer.Option(help="A further image archive (may be repeated).")] = None,
    unique_list: Annotated[Path | None, typer.Option(help="Keys of the images without near-duplicates.")] = None,
    removals: Annotated[Path | None, typer.Option(help="Tweet ids and keys to leave out, one a line.")] = None,
    text: Annotated[TextChoice, typer.Option(help="Keep the tweets' text, or leave it null.")] = TextChoice.full,
    limit: Annotated[int | None, typer.Option(min=1, help="Keep N images, in proportion: for a first try.")] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Image bytes a shard aims at.")] = 1_000_000_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels above which a picture is quarantined.")] = 89_478_485,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Copy nothing: write a table beside the archive.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where this is not the published dataset.")] = False,
) -> None:
    """Build a release from the official T4SA packages: verified, sharded, in Parquet and WebDataset tar.

    With `--configs twitter-testing` RAW is your own copy of the Twitter Testing Dataset: the layer joins the release.
    Killed at any moment, the same command goes on where it was and ends with the same bytes.
    """
    from builders.run import PrepareConfig
    from t4sa_data.catalog import SPLITS
    from t4sa_data.places import home

    config = PrepareConfig(
        raw=raw,
        out=out or home(),
        workers=workers,
        formats=chosen_formats(formats),
        images=tuple(images or ()),
        unique_list=unique_list,
        configs=names_of(configs),
        splits=names_of(splits) or SPLITS,
        removals=removals,
        text=text.value,
        limit=limit,
        shard_bytes=shard_size,
        max_pixels=max_pixels,
        in_place=in_place,
        strict=strict,
    )
    build_and_tell(config)


def names_of(text: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(name for name in text.split(",") if name)


def chosen_formats(formats: str) -> tuple[str, ...]:
    """The formats of a list with commas, in one order, whatever was typed."""
    return tuple(sorted(names_of(formats), key=lambda name: name != "parquet"))


def build_and_tell(config: PrepareConfig) -> None:
    """Build, with progress on a terminal; in the end the report and what to do next."""
    from builders.prepare import prepare as build
    from builders.report import as_text

    outcome = build(config, say=_say, bar=_bar)
    if outcome.unchanged:
        return
    print(as_text(outcome.report))
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in outcome.seconds.items())
    where = config.raw / "t4sa-inplace" if config.in_place else config.out
    print(f"\nseconds: {seconds}\nrelease: {where}\nnext: t4sa check {where}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _bar(title: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=title, unit="img", disable=not sys.stderr.isatty())
