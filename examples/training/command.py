"""The command line of `examples/train.py`: a recipe, or the run to go on with, and every field as an option."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from examples.errors import RunError
from examples.training.config import Config, load_recipe, recipe_names, to_toml

CONFIG_NAME = "config.toml"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What was typed."""

    config: Config
    resume: bool
    """Go on with a run that must be there."""
    argv: tuple[str, ...]


def parse(description: str, argv: Sequence[str] | None = None) -> Command | None:
    """What was typed; None where it was only to be printed.

    `--recipe NAME` sets the fields that the recipe names, `--resume --out RUN` those of the run; options beside them
    win over both.

    Raises:
        BadOption: a recipe or a value that makes no sense.
        RunError: `--resume` without a run.
        SystemExit: an option that there is none of.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--print-config", action="store_true")
    ours, rest = parser.parse_known_args(given)
    base = Config()
    if ours.resume and ours.recipe is None:
        base = _of_run(given)
    elif ours.recipe is not None:
        base = load_recipe(ours.recipe)
    config = tyro.cli(Config, description=_help(description), default=base, args=rest, prog="train.py")
    if ours.print_config:
        print(to_toml(config), end="")
        return None
    return Command(config=config, resume=ours.resume, argv=tuple(given))


def _of_run(given: Sequence[str]) -> Config:
    """The configuration of the run in `--out`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Config.out)
    out = parser.parse_known_args(given)[0].out
    if not (out / CONFIG_NAME).is_file():
        raise RunError("no run to go on with", expected=CONFIG_NAME, where=out, hint="Name its folder with --out.")
    return load_recipe(str(out / CONFIG_NAME))


def _help(description: str) -> str:
    return (
        f"{description.strip()}\n\nBeside the fields below: --recipe NAME (a TOML file, or "
        f"{', '.join(recipe_names())}), --resume (go on with the run in --out, with its settings), --print-config."
    )
