"""Raw tweets in, T4SA and B-T4SA out: `t4sa build`. `STAGES` is the list of what happens, in order.

A stage's result stands under a fingerprint of its settings, of the files it reads and of all stages before it; where
that stands already, the stage is skipped. So a build that was killed anywhere goes on, and another cut, another
distance or another split costs only the stages from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builders import output
from builders.build_config import BuildConfig
from builders.building import Build, Stage
from builders.engine import Engine
from builders.mirror import Mirror
from builders.run import PrepareConfig, Run, Silent
from builders.sealing import digests, unchanged
from builders.stages import balance, collect, dedup, fetch, inspection, label, report, selection, split, write
from builders.state import State, fingerprint
from t4sa_data.errors import BadOption, InputMissing, StageNotDone
from t4sa_data.files import TEMPORARY
from t4sa_data.manifest import FOLDERS

STAGES: tuple[Stage, ...] = (
    collect,
    label,
    selection,
    fetch,
    inspection,
    dedup,
    balance,
    split,
    write,
    report,
)
NAMES = tuple(stage.NAME for stage in STAGES)
TOLD = ("images", "removed_images", "duplicates", "largest_group", "drawn")
"""Further counts of stages that are told."""
DONE = "build-done"
"""Stage of the state that says which release stands."""


@dataclass(frozen=True, kw_only=True)
class BuildOutcome:
    """What a build did."""

    counts: dict[str, dict[str, Any]]
    """By stage, as far as it went."""
    ran: tuple[str, ...]
    """Stages that had something to do."""
    seconds: dict[str, float] = field(default_factory=dict)


def build(
    tweets: Sequence[Path],
    out: Path,
    config: BuildConfig,
    engine: Engine,
    *,
    first: str | None = None,
    last: str = NAMES[-1],
    mirror: Mirror | None = None,
    say: Callable[[str], None] = lambda _: None,
    bar: Callable[[str, int], Any] | None = None,
) -> BuildOutcome:
    """Build a release from raw tweets. Killed anywhere and run again, it ends with the same bytes.

    Args:
        tweets: files and folders; see `builders.sources.tweets`.
        out: DIR: gets `t4sa/`, `t4sa-wds/`, `quarantine/`, `build/`.
        config: what to build.
        engine: where the work runs; it is entered already.
        first: stages before it must stand, and it and all behind are done again even where they stand; None:
            what stands is not done again.
        last: the last stage to do.
        mirror: gets each stage as it is done, and the release; what stands there is brought back, not done again.
        say: gets a line now and then.
        bar: makes a progress bar from a title and a total; it has `update(n)` and `close()`.

    Raises:
        BadOption: a stage that does not exist, `last` before `first`, settings that do not go together.
        StageNotDone: a stage before `first` does not stand.
        T4SAError: of the stages.
    """
    at = _positions(first or NAMES[0], last)
    making = _making(tweets, out, config, engine, say, bar or (lambda _title, _total: Silent()))
    ran = []
    _name_results(making, at[1])  # all settings are looked at before any work
    with making.state.locked():
        output.guard(out, making.state)
        output.require_source(out, making.state, write.SOURCE)
        for number, stage in enumerate(STAGES[: at[1] + 1]):
            before = None if number >= at[0] and first is not None else _standing(making, stage, mirror)
            if before is None and number < at[0]:
                raise StageNotDone(
                    "an earlier stage does not stand", got=stage.NAME, where=making.state.folder,
                    hint="Leave --from out: what stands is not done again.",
                )  # fmt: skip
            if before is None:
                say(f"{stage.NAME} ...")
                with making.run.timed(stage.NAME):
                    before = stage.run(making)
                before["seconds"] = making.run.seconds[stage.NAME]
                making.state.save(stage.NAME, making.keys[stage.NAME], before)
                if stage is write:
                    making.state.save(DONE, making.keys[write.NAME], digests(making.run))
                ran.append(stage.NAME)
            _push(making, stage, before, mirror, is_new=stage.NAME in ran)
            making.counts[stage.NAME] = before
            say(f"{stage.NAME}: {told(before)}")
    return BuildOutcome(counts=making.counts, ran=tuple(ran), seconds=making.run.seconds)


def plan(
    tweets: Sequence[Path], out: Path, config: BuildConfig, engine: Engine, *, last: str = NAMES[-1]
) -> list[tuple[str, str]]:
    """Each stage, and whether it stands: nothing is done."""
    making = _making(tweets, out, config, engine, lambda _: None, lambda _title, _total: Silent())
    made = []
    num_last = _positions(NAMES[0], last)[1]
    _name_results(making, num_last)
    for stage in STAGES[: num_last + 1]:
        before = _standing(making, stage)
        made.append((stage.NAME, "to do" if before is None else f"stands: {told(before)}"))
        if before is not None:
            making.counts[stage.NAME] = before
    return made


def told(counts: dict[str, Any]) -> str:
    """A stage's counts in a line."""
    if "in" not in counts:
        return "done"
    drops = "".join(f", {num:,} {reason}" for reason, num in counts["dropped"].items())
    more = "".join(f", {counts[name]:,} {name.replace('_', ' ')}" for name in TOLD if name in counts)
    return f"{counts['in']:,} in, {counts['kept']:,} kept{drops}{more}"


def _positions(first: str, last: str) -> tuple[int, int]:
    for name in (first, last):
        if name not in NAMES:
            raise BadOption("no such stage", expected=" | ".join(NAMES), got=name)
    if NAMES.index(last) < NAMES.index(first):
        raise BadOption("the last stage comes before the first", got=f"{first} to {last}")
    return NAMES.index(first), NAMES.index(last)


def _making(
    tweets: Sequence[Path],
    out: Path,
    config: BuildConfig,
    engine: Engine,
    say: Callable[[str], None],
    bar: Callable[[str, int], Any],
) -> Build:
    for path in tweets:
        if not path.exists():
            raise InputMissing("no such file or folder of tweets", where=path)
    state = State(out / output.BUILD / "state")
    told = PrepareConfig(
        raw=state.folder,
        out=out,
        formats=config.write.formats,
        text=config.write.text,
        workers=engine.workers,
        shard_bytes=config.write.shard_bytes,
        max_pixels=config.inspection.max_pixels,
    )
    run = Run(config=told, out=out, state=state, engine=engine, say=say, bar=bar)
    return Build(config=config, tweets=tuple(tweets), run=run)


def _name_results(making: Build, num_last: int) -> None:
    """Fingerprints of the stages: what each result stands under."""
    before = ""
    for stage in STAGES[: num_last + 1]:
        before = fingerprint(stage.NAME, stage.VERSION, stage.settings(making), before)
        making.keys[stage.NAME] = before


def _standing(making: Build, stage: Stage, mirror: Mirror | None = None) -> dict[str, Any] | None:
    """What a stage counted whose result stands, here or in the mirror."""
    key = making.keys[stage.NAME]
    if stage.NAME == write.NAME and unchanged(making.run, key, stage=DONE) is None:
        return None
    found: dict[str, Any] | None = making.state.load(stage.NAME, key)
    if found is None and mirror is not None and stage.NAME not in (write.NAME, report.NAME):
        found = mirror.pull_stage(making.state.folder, f"{stage.NAME}-{key}")
        if found is not None:
            making.state.save(stage.NAME, key, found)
    return found


def _push(making: Build, stage: Stage, counts: dict[str, Any], mirror: Mirror | None, *, is_new: bool) -> None:
    """Copy what a stage wrote to the mirror, also where an earlier run did not come to that: of `write` the release, of
    `report` nothing that is not here anyway."""
    if mirror is None or stage.NAME == report.NAME:
        return
    if stage.NAME == write.NAME:
        for fmt in making.config.write.formats:
            mirror.push_release(making.run.out / FOLDERS[fmt])
        return
    state, name = making.state.folder, f"{stage.NAME}-{making.keys[stage.NAME]}"
    if not is_new and mirror.has_stage(name):
        return
    files = [path for path in (state / name).rglob("*") if path.is_file() and not path.name.endswith(TEMPORARY)]
    files += fetch.kept_files(making) if stage.NAME == fetch.NAME else []
    mirror.push_stage(state, name, files, counts)
