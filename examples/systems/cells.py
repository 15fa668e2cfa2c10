"""From systems to cells: every row of a table, every subset, and what stands where there is no number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from examples.errors import Needs
from examples.evaluation.report import AGREEMENTS, COMPARABLE
from examples.systems import as_is
from examples.systems.data import LEVELS, Pictures, open_pictures
from examples.systems.protocol import FOLDS, Folds, Options, Result, against, cross_validate
from examples.systems.registry import MODERN, SINCE, System, module_of, systems_of
from examples.systems.released import answers_three_ways
from t4sa_data import catalog

SUBSETS: dict[int | str, str] = {
    5: "five_agree",
    4: "four_agree",
    3: "three_agree",
    "b_t4sa": "b_t4sa",
}
AS_IS = "as is"
SUBSTITUTE = "SUBSTITUTE of ours, not this system: clusters as concepts. "
UNTRAINED = "small untrained network in place of "
SMOKE = "SMOKE on drawn pictures, means nothing: "
NUM_PUBLISHED = {
    "b_t4sa": catalog.published_count("b-t4sa", "test") or 0,
    **{cell: catalog.TWITTER_TESTING[name].total for cell, (name, _) in AGREEMENTS.items()},
}
"""Samples of each subset."""
SMOKE_LEVELS = (5,)
"""What --smoke runs of table 2, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of the table, or why there is none."""

    system: System
    subset: str
    """five_agree, four_agree, three_agree, b_t4sa."""
    protocol: str
    """published, leak-free; "as is" in table 1."""
    paper: float | None = None
    """The published number, percent."""
    is_recalled: bool = False
    """Whether that was not re-read in its source."""
    result: Result | None
    how: str
    """How ours was made; without a number, what is missing."""
    is_comparable: bool = False
    """Whether ours is of the samples that the published number is of, in table 1."""

    @property
    def is_substitute(self) -> bool:
        """Whether ours is another system in its place."""
        return SUBSTITUTE in self.how or UNTRAINED in self.how


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked for."""

    table: int
    data: str | Path
    """A release, as for `t4sa_data.stream`."""
    options: Options
    """`init` and `system` are set for each row."""
    rows: Sequence[str] = ()
    """Names; none: all."""
    init: dict[str, Path] = field(default_factory=dict)
    """Row -> what the user brings."""
    seeds: Sequence[int] = (0,)
    levels: Sequence[int] = LEVELS
    """Columns of the table."""
    run_levels: Sequence[int] = LEVELS
    """Those that are run."""
    folds: Sequence[Folds] = FOLDS
    substitute: bool = False
    """Rows of scores without a file run the substitute."""
    against: str | None = None
    """Row that the others are compared with."""


def table_cells(task: Task, tell: Callable[[str], None] = lambda _: None) -> list[Cell]:
    """All cells, in the page's order; after those of table 1, our row among the systems since."""
    data = open_pictures(task.data) if task.table == 2 else None
    found: list[Cell] = []
    for system in (*systems_of(task.table), *((MODERN,) if task.table == 1 else ())):
        if task.rows and system.name not in task.rows:
            found += [_empty(system, *place, "not asked for") for place in _places(system, task)]
            continue
        own = list(_row(system, data, task))
        tell(_line(system, own))
        found += own
    return compared(found, task.against) if task.against else found


def _places(system: System, task: Task) -> list[tuple[str, str]]:
    if system.table == 1:
        return [(subset, AS_IS) for subset in SUBSETS.values()]
    return [(SUBSETS[level], folds) for level in task.levels for folds in task.folds]


def _row(system: System, data: Pictures | None, task: Task) -> Iterator[Cell]:
    options = replace(task.options, system=system.name, init=task.init.get(system.name))
    try:
        module = module_of(system, options.init)
        how = _how(system, module.__name__.rpartition(".")[2], options, task)
    except Needs as error:
        yield from (_empty(system, *place, _missing(system, error)) for place in _places(system, task))
        return
    if data is None:
        yield from _as_is(system, module, options, task, how)
        return
    for level in task.levels:
        for folds in task.folds:
            place = SUBSETS[level], folds
            if level not in task.run_levels:
                yield _empty(system, *place, "not run: --smoke runs five agree unless told --levels")
                continue
            try:
                result = cross_validate(
                    module.fit_predict,
                    data,
                    options,
                    level=level,
                    folds=folds,
                    seeds=task.seeds,
                    version=getattr(module, "VERSION", 1),
                )
            except Needs as error:
                yield _empty(system, *place, _missing(system, error))
                continue
            words = f"{how}; {_spread(result)}{_not_upc(data, level, folds)}"
            yield _cell(system, *place, result, words)


def _as_is(system: System, module: object, options: Options, task: Task, how: str) -> Iterator[Cell]:
    try:
        is_there = system.module == "released" or (options.init is not None and answers_three_ways(options.init))
        made = as_is.cells(task.data, module, options, seeds=list(task.seeds), is_released=is_there)
    except Needs as error:
        yield from (_empty(system, *place, _missing(system, error)) for place in _places(system, task))
        return
    config = as_is.held_config(task.data)
    for name, subset in SUBSETS.items():
        value = made[name]
        if not isinstance(value, Result):
            yield _empty(system, subset, AS_IS, str(value))
            continue
        is_small = name == "b_t4sa" and config != "b-t4sa"
        cell = _cell(system, subset, AS_IS, value, f"{how}; on {config}" if is_small else how)
        comparable = not (options.smoke or is_small) and COMPARABLE * NUM_PUBLISHED[subset] <= value.n
        yield replace(cell, is_comparable=comparable)


def _how(system: System, module: str, options: Options, task: Task) -> str:
    """How a row is made.

    Raises:
        Needs: it cannot be without a file.
    """
    smoke = SMOKE if options.smoke else ""
    if module == "scores" and options.init is None:
        if not (task.substitute or options.smoke):
            raise Needs("no table of scores was named")
        return smoke + SUBSTITUTE + f"Needs {system.needs} (--init)"
    if module == "scores" and options.init is not None:
        return f"{smoke}linear head over the scores in {options.init.name}"
    if module in ("you_cnn", "progressive") and options.init is not None:
        return f"{smoke}re-implementation, begun with {options.init.parent.name}/{options.init.name}"
    if options.smoke and options.init is None and module in ("finetune", "released"):
        return f"{smoke}{UNTRAINED}{system.needs} (--init)"
    return (
        smoke + system.training + (", tested by ten crops" if options.crops == "ten" and system.level == "deep" else "")
    )


def _missing(system: System, error: Needs) -> str:
    """Why a cell is empty, and which file the user must bring."""
    bring = f'; bring {system.needs}: --init "{system.name}=PATH"' if system.needs else ""
    fetched = ", or have it fetched: --pretrained released" if "T4SA" in system.name else ""
    return f"not run: {error}{bring}{fetched}"


def _empty(system: System, subset: str, protocol: str, why: str) -> Cell:
    return _cell(system, subset, protocol, None, why)


def _cell(system: System, subset: str, protocol: str, result: Result | None, how: str) -> Cell:
    """A cell of the page's tables, with the paper's number; our row among the systems since has none."""
    if system.block == SINCE:
        return Cell(system=system, subset=subset, protocol=protocol, result=result, how=how)
    row = catalog.paper_row(system.table, system.name)
    return Cell(
        system=system,
        subset=subset,
        protocol=protocol,
        paper=getattr(row, subset),
        is_recalled=row.certainty == "recalled",
        result=result,
        how=how,
    )


def _spread(result: Result) -> str:
    words = f"mean of folds {100 * result.fold_mean:.1f}, sd {100 * result.fold_sd:.1f}"
    seeds = "" if math.isnan(result.seed_sd) else f", sd of {result.num_seeds} seeds {100 * result.seed_sd:.1f}"
    return f"{words}{seeds}, floor {100 * result.floor:.1f}"


def _not_upc(data: Pictures, level: int, folds: str) -> str:
    """What to say where "published" folds are not those that UPC published: the release has others."""
    name = {5: "five", 4: "four", 3: "three"}[level]
    covered = int((data.folds[level] > 0).sum()) if level in data.folds else 0
    is_theirs = covered == catalog.TWITTER_TESTING[name].fold_images
    return "" if folds != "published" or is_theirs else f", the release's own folds ({covered} images), not UPC's"


def compared(cells: Sequence[Cell], row: str) -> list[Cell]:
    """The cells, each with McNemar's test against that of a row in the same column."""
    theirs = {(cell.subset, cell.protocol): cell.result for cell in cells if cell.system.name == row}
    made = []
    for cell in cells:
        other = theirs.get((cell.subset, cell.protocol))
        if cell.result is not None and other is not None and cell.system.name != row:
            only, only_other, p = against(cell.result, other)
            cell = replace(cell, how=f"{cell.how}; against {row}: {only} to {only_other}, McNemar p = {p:.3g}")
        made.append(cell)
    return made


def _line(system: System, cells: Sequence[Cell]) -> str:
    numbers = [f"{100 * cell.result.accuracy:.1f}" for cell in cells if cell.result is not None]
    return f"{system.name}: {' '.join(numbers) if numbers else cells[0].how}"
