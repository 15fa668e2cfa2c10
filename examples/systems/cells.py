"""From systems to cells: every row of a table, every subset, and what stands where there is no number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from examples.errors import Needs
from examples.systems import as_is
from examples.systems.data import LEVELS, Pictures, open_pictures
from examples.systems.protocol import FOLDS, Folds, Options, Result, against, cross_validate
from examples.systems.registry import System, module_of, systems_of
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
SMOKE_LEVELS = (5,)
"""What --smoke runs of table 2."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of the table, or why there is none."""

    system: System
    subset: str
    """five_agree, four_agree, three_agree, b_t4sa."""
    protocol: str
    """published, leak-free; "as is" in table 1."""
    result: Result | None
    how: str
    """How ours was made; without a number, what is missing."""

    @property
    def is_recalled(self) -> bool:
        """Whether the paper's number was not re-read in its source."""
        return catalog.paper_row(self.system.table, self.system.name).certainty == "recalled"

    @property
    def is_substitute(self) -> bool:
        """Whether ours is another system in its place."""
        return SUBSTITUTE in self.how or UNTRAINED in self.how

    @property
    def paper(self) -> float | None:
        """The paper's number, percent."""
        value: float | None = getattr(catalog.paper_row(self.system.table, self.system.name), self.subset)
        return value


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked for."""

    table: int
    data: Path
    options: Options
    """`init` and `system` are set for each row."""
    rows: Sequence[str] = ()
    """Names; none: all."""
    init: dict[str, Path] = field(default_factory=dict)
    """Row -> what the user brings."""
    seeds: Sequence[int] = (0,)
    levels: Sequence[int] = LEVELS
    folds: Sequence[Folds] = FOLDS
    substitute: bool = False
    """Rows of scores without a file run the substitute."""
    against: str | None = None
    """Row that the others are compared with."""


def table_cells(task: Task, tell: Callable[[str], None] = lambda _: None) -> list[Cell]:
    """All cells, in the page's order."""
    data = open_pictures(task.data) if task.table == 2 else None
    found: list[Cell] = []
    for system in systems_of(task.table):
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
            if options.smoke and level not in SMOKE_LEVELS:
                yield _empty(system, *place, "smoke: five agree only")
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
            yield Cell(system=system, subset=place[0], protocol=folds, result=result, how=words)


def _as_is(system: System, module: object, options: Options, task: Task, how: str) -> Iterator[Cell]:
    try:
        is_released = system.module == "released"
        made = as_is.cells(task.data, module, options, seeds=list(task.seeds), is_released=is_released)
    except Needs as error:
        yield from (_empty(system, *place, _missing(system, error)) for place in _places(system, task))
        return
    for name, subset in SUBSETS.items():
        value = made[name]
        result = value if isinstance(value, Result) else None
        words = how if result is not None else str(value)
        yield Cell(system=system, subset=subset, protocol=AS_IS, result=result, how=words)


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
    if options.smoke and options.init is None and module in ("finetune", "released"):
        return f"{smoke}{UNTRAINED}{system.needs} (--init)"
    return smoke + system.training


def _missing(system: System, error: Needs) -> str:
    """Why a cell is empty, and which file the user must bring."""
    bring = f'; bring {system.needs}: --init "{system.name}=PATH"' if system.needs else ""
    return f"not run: {error}{bring}"


def _empty(system: System, subset: str, protocol: str, why: str) -> Cell:
    return Cell(system=system, subset=subset, protocol=protocol, result=None, how=why)


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
