"""The paper's two tables, every row alive: the paper's number, ours with an interval, and how ours was made.

    python examples/benchmark_table.py --table 1 --pretrained released --data DIR --out RUN     # the authors' networks
    python examples/benchmark_table.py --table 2 --smoke --out RUN       # all rows on drawn pictures, small networks
    python examples/benchmark_table.py --table 2 --data DIR --out RUN       # DIR holds the layer twitter-testing
    python examples/benchmark_table.py --table 2 --data DIR --out RUN --rows GCH LCH --seeds 3 --against GCH
    python examples/benchmark_table.py --table 1 --data DIR --out RUN --init "VGG-T4SA FT-A=FOLDER"

Writes table.md, table.csv, table.tex and table.png (and since.csv) into RUN; stopped at any moment, the same command
goes on. Needs the extra [train]; rows with BoW need opencv-python-headless; --smoke makes its pictures with `t4sa
prepare`, extra [build].
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from examples.systems.cells import SMOKE_LEVELS, Cell, Task, table_cells
from examples.systems.data import LEVELS
from examples.systems.protocol import FOLDS, Options
from examples.systems.registry import MODERN, systems_of
from examples.systems.rendering import HOW, write_all
from examples.terminal import run
from t4sa_data.errors import BadOption
from t4sa_data.reading import open_release
from t4sa_data.testing import draw_twitter_testing, make_release, make_twitter_testing

SMOKE_IMAGES = 60
SMOKE_B_T4SA = 240
MADE = "made"
"""File in what --smoke makes: there from the beginning, says what it is made of when it is whole."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="benchmark_table.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--table", type=int, choices=(1, 2), required=True)
    made.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="as the page names them; default: all")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="a release with twitter-testing; for table 1 with b-t4sa, too")
    what.add_argument("--smoke", action="store_true", help="a miniature in the real layout, small networks, on the CPU")
    made.add_argument(
        "--lists", type=Path, help="of --smoke: the real label lists and UPC's folds; drawn pictures for all they name"
    )
    made.add_argument("--out", type=Path, required=True, help="folder of the table, and of what is kept for going on")
    made.add_argument(
        "--init", action="append", default=[], metavar="ROW=PATH", help="a model folder or a table of scores of a row"
    )
    made.add_argument(
        "--pretrained",
        choices=("released", "converted"),
        help="fetch and convert the authors' networks: their archives, which may ask for user name and password, or "
        "their PyTorch files; without --rows, their rows only",
    )
    made.add_argument("--archives", type=Path, help="of --pretrained: folder of the files; default: $T4SA_HOME/raw")
    made.add_argument(
        "--allow-insecure-http", action="store_true", help="of --pretrained: user name and password over plain http"
    )
    made.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1; default: 1")
    made.add_argument("--against", metavar="ROW", help="McNemar's test of each row against this one")
    made.add_argument("--levels", nargs="+", type=int, choices=LEVELS, help="of table 2; default: all, --smoke: 5")
    made.add_argument("--folds", nargs="+", choices=FOLDS, default=list(FOLDS), help="of table 2; default: both")
    made.add_argument(
        "--crops", choices=("one", "ten"), default="one", help="of testing, networks that are trained here"
    )
    made.add_argument("--substitute", action="store_true", help="rows of scores without a file: run our substitute")
    made.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    return made


def main(argv: list[str] | None = None) -> list[Cell]:
    """Make the table; its cells."""
    options = parser().parse_args(argv)
    names = [system.name for system in (*systems_of(options.table), *([MODERN] if options.table == 1 else []))]
    init = dict(_pair(words) for words in options.init)
    _require(options, names, init)
    data, rows = options.data, options.rows
    if data is not None:
        open_release(data)  # before anything is fetched
    if options.pretrained:
        rows = rows or [name for name in names if name == "Random" or "T4SA" in name or name in init]
        init = {**_fetched(options, [name for name in rows if name not in init]), **init}
    if options.smoke:
        data = make_miniature(options.out / "smoke", options.lists)
    task = Task(
        table=options.table,
        data=data,
        options=Options(smoke=options.smoke, device=_device(options), crops=options.crops, work=options.out / "work"),
        rows=rows,
        init=init,
        seeds=range(options.seeds),
        levels=sorted(set(options.levels or LEVELS), reverse=True),
        run_levels=options.levels or (SMOKE_LEVELS if options.smoke else LEVELS),
        folds=[one for one in FOLDS if one in options.folds],
        substitute=options.substitute,
        against=options.against,
    )
    cells = table_cells(task, tell=lambda line: print(line, flush=True))
    write_all(options.out, cells)
    print(f"\n{(options.out / 'table.md').read_text(encoding='utf-8').partition(HOW)[0].strip()}")
    print(f"\ntable: {options.out / 'table.md'}")
    return cells


def _require(options: argparse.Namespace, names: list[str], init: dict[str, Path]) -> None:
    """Refuse what cannot be meant.

    Raises:
        BadOption: names it.
    """
    chosen = [*options.rows, *([options.against] if options.against else []), *init]
    if unknown := [name for name in chosen if name not in names]:
        raise BadOption(f"no such row in table {options.table}", expected=" | ".join(names), got=", ".join(unknown))
    if options.seeds < 1:
        raise BadOption("--seeds", expected="1 or more", got=options.seeds)
    if options.lists and not options.smoke:
        raise BadOption("--lists goes with --smoke", got=options.lists)
    if (options.archives or options.allow_insecure_http) and not options.pretrained:
        raise BadOption("--archives and --allow-insecure-http go with --pretrained")


def make_miniature(folder: Path, lists: Path | None = None) -> Path:
    """A release of drawn pictures with B-T4SA and the Twitter Testing Dataset, the latter from its real layout.

    Args:
        folder: that it is made in.
        lists: label lists, and UPC's folds, of the real one; None: made-up ones, of `SMOKE_IMAGES`.

    Raises:
        BadOption: the folder holds something else.
        InputMissing, MalformedRow: of the lists.
    """
    home, made_of = folder / "home", json.dumps([SMOKE_B_T4SA, SMOKE_IMAGES, lists and str(lists.resolve())])
    if (folder / MADE).is_file() and (folder / MADE).read_text(encoding="utf-8") == made_of:
        return home
    if folder.exists() and any(folder.iterdir()) and not (folder / MADE).is_file():
        raise BadOption(
            f"--out: {folder.name} in it was not made by --smoke", where=folder, hint="Name another folder."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MADE).touch()
    make_release(home, SMOKE_B_T4SA, formats=("parquet",))
    copy = folder / "copy"
    if lists is None:
        make_twitter_testing(copy, SMOKE_IMAGES)
    else:
        draw_twitter_testing(copy, lists)
    command = ["prepare", copy, "--configs", "twitter-testing", "--out", home, "--formats", "parquet", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "t4sa_data.cli", *map(str, command)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    if done.returncode:
        sys.exit(f"t4sa prepare failed:\n{done.stderr}")
    (folder / MADE).write_text(made_of, encoding="utf-8")
    return home


def _fetched(options: argparse.Namespace, rows: list[str]) -> dict[str, Path]:
    """Model folders of the authors' networks, by row."""
    from examples.systems.fetching import bring

    return bring(
        options.pretrained,
        rows,
        archives=options.archives,
        folder=options.out / "models",
        allow_insecure_http=options.allow_insecure_http,
        tell=lambda line: print(line, flush=True),
    )


def _device(options: argparse.Namespace) -> str:
    if options.smoke:
        return "cpu"
    if options.device != "auto":
        return str(options.device)
    from examples.evaluation.predicting import find_device

    return str(find_device("auto"))


def _pair(words: str) -> tuple[str, Path]:
    row, sign, path = words.partition("=")
    if not sign or not path:
        raise BadOption("--init", expected="ROW=PATH", got=words)
    return row.strip(), Path(path).expanduser()


if __name__ == "__main__":
    run(main)
