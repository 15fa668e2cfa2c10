"""One run of `t4sa build`: what was asked, where the stages keep their tables, what they counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from builders.build_config import BuildConfig
from builders.engine import Engine
from builders.run import Run
from builders.state import State, read_arrow


@dataclass(kw_only=True)
class Build:
    """A run's tools. A stage reads the tables of the stages before it, and writes its own into its folder."""

    config: BuildConfig
    tweets: tuple[Path, ...]
    """Files and folders of raw tweets."""
    run: Run
    """What shards, ledger and report are made with, as in `prepare`."""
    keys: dict[str, str] = field(default_factory=dict)
    """Stage -> fingerprint of its settings and of all that it follows from."""
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> what it counted, and `seconds` of the run that did it; see `Stage.run`."""

    @property
    def state(self) -> State:
        """Where results are kept."""
        return self.run.state

    @property
    def engine(self) -> Engine:
        """Where tasks run."""
        return self.run.engine

    def path(self, stage: str, name: str) -> Path:
        """A file of a stage."""
        return self.state.path(stage, self.keys[stage], name)

    def table(self, stage: str, name: str) -> pa.Table:
        """A table of a stage, mapped into memory."""
        return read_arrow(self.path(stage, f"{name}.arrow"))

    def progress(self, title: str, total: int) -> Callable[[int], object]:
        """What shows that so many more are done."""
        update: Callable[[int], object] = self.run.bar(title, total).update
        return update


class Stage(Protocol):
    """A stage: a module of `builders.stages`."""

    NAME: str
    VERSION: int
    """Bump when equal inputs and settings would give another result."""

    def settings(self, build: Build) -> list[Any]:
        """What its result depends on, beside the stages before it: JSON values, stamps of files."""

    def run(self, build: Build) -> dict[str, Any]:
        """Do the work; killed anywhere and run again, it ends with the same files.

        Returns:
            `in` and `kept` (candidates), `dropped` (by reason), which add up; and what later runs need to know.
        """


def counted(num_in: int, dropped: dict[str, int], **more: Any) -> dict[str, Any]:
    """A stage's counts."""
    told = {reason: num for reason, num in sorted(dropped.items()) if num}
    return {"in": num_in, "kept": num_in - sum(told.values()), "dropped": told, **more}
