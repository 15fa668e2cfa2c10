"""A rehearsal on a Hub: publish, gate, verify, takedown and deletion of drawn pictures in two throwaway repositories,
with the code that does it for T4SA. What the Hub answers is compared with what the double of the tests answers.

Nothing is touched but the two repositories made here, under random names; they are deleted whatever happened.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from hub_scripts.client import Hub, repositories_named
from hub_scripts.rehearse_cli import rehearse_command
from hub_scripts.rehearse_steps import NAMES, VERSIONS, Say, Steps
from hub_scripts.shapes import Asked, Recorder, Shapes, differences, entry, known_shapes, recording
from hub_scripts.takedown_note import KEY_VARIABLE
from t4sa_data.errors import CredentialsError, HubAccessError, T4SAError

__all__ = ["Report", "Step", "rehearse", "rehearse_command"]

Outcome = Literal["ok", "differs", "failed"]
Show = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part of the rehearsal."""

    name: str
    outcome: Outcome
    """`differs`: done, and the Hub answered otherwise than the double."""
    words: str = ""
    """What was seen, or the error."""


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    steps: list[Step] = field(default_factory=list)
    shapes: list[dict[str, Any]] = field(default_factory=list)
    """To be added to the double: `add`, a shape, and `differs`, what is new in it."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Every shape that was answered."""
    left: list[str] = field(default_factory=list)
    """Repositories that are still there."""
    num_faults: int = 0
    """Answers that were faults of the Hub (429, 5xx); their shapes are not compared."""

    @property
    def ok(self) -> bool:
        """Whether all was done, and answered as by the double."""
        return all(step.outcome == "ok" for step in self.steps)


def rehearse(
    namespace: str,
    *,
    is_open: bool = False,
    keep: bool = False,
    token: str | None = None,
    say: Say = lambda _line: None,
    detail: Say = lambda _line: None,
    show: Show = lambda _shape: None,
) -> Report:
    """Rehearse in two new private repositories of a namespace, at `$HF_ENDPOINT`, else the public Hub.

    Args:
        namespace: account or organisation that you may create repositories in.
        is_open: open them with their gate, as a release is; False: they stay private, gate set.
        keep: leave them there.
        token: None: the client's own way (`HF_TOKEN`, `hf auth login`).
        say: gets a line a step.
        detail: gets what publishing and takedown say meanwhile.
        show: gets each shape to add to the double as soon as it is seen.

    Raises:
        HubAccessError: no token, or one that may not create repositories there.
        KeyboardInterrupt: stopped; what was made is deleted first.
    """
    code = secrets.token_hex(4)
    names = {fmt: name.format(code) for fmt, name in NAMES.items()}
    with TemporaryDirectory(prefix="t4sa-rehearsal-") as folder, repositories_named(names):
        hub = Hub(namespace=namespace, token=token)
        recorder = Recorder(hub.api.endpoint)
        with recording(recorder), _own_key(Path(folder) / "removals.key"):
            run = _Rehearsal(Steps(hub, Path(folder) / "release", is_open=is_open, detail=detail), recorder, say, show)
            try:
                run.all()
            finally:
                run.end(keep)
    run.report.seen = [entry(asked, shape) for asked, shape in sorted(recorder.all.items(), key=lambda item: item[0])]
    run.report.num_faults = recorder.num_faults
    return run.report


@contextmanager
def _own_key(path: Path) -> Iterator[None]:
    """A key of removals for this run: the maintainers' own is neither made nor used."""
    before = os.environ.get(KEY_VARIABLE)
    os.environ[KEY_VARIABLE] = str(path)
    try:
        yield
    finally:
        del os.environ[KEY_VARIABLE]
        if before is not None:
            os.environ[KEY_VARIABLE] = before


class _Rehearsal:
    """Does the steps in order, and compares what is answered meanwhile."""

    def __init__(self, steps: Steps, recorder: Recorder, say: Say, show: Show) -> None:
        self.steps, self.recorder, self.say, self.show = steps, recorder, say, show
        self.report, self.known = Report(), known_shapes()
        self.told: set[tuple[Asked, str]] = set()
        """Differences that were shown."""

    def all(self) -> None:
        """All but the deletion; what cannot be without a step that failed is left out."""
        do = self.steps
        if not (self.step("create", do.create) and self.step("publish", lambda: do.publish(0))):
            return
        self.step("upload", do.upload)
        self.step("gate", do.gate)
        self.step("tag", do.tag)
        self.step("releases.json", lambda: do.releases(VERSIONS[0]))
        if not self.step("second version", lambda: do.publish(1)):
            return
        self.step("requests", do.requests)
        self.step("anonymous", do.anonymous)
        self.step("verify", do.verify)
        if self.step("takedown", do.takedown):
            self.step("old addresses", do.gone)
            self.step("verify after it", do.verify)

    def end(self, keep: bool) -> None:
        """Delete what was made, and say what is left."""
        try:
            if self.steps.made and not keep:
                self.step("delete", self.steps.delete)
        finally:
            self.report.left = sorted(self.steps.made)
            for repo_id in self.report.left:
                self.say(f"left on the Hub: {repo_id}; delete it: hf repos delete {repo_id} --repo-type dataset")
            self.steps.forget()

    def step(self, name: str, work: Callable[[], str]) -> bool:
        """Do one, and compare what was answered; whether it was done."""
        outcome: Outcome = "ok"
        try:
            words = work()
        except (CredentialsError, HubAccessError) as error:
            if name == "create":
                raise
            outcome, words = "failed", str(error)
        except T4SAError as error:
            outcome, words = "failed", str(error)
        except Exception as error:  # the rehearsal is there to meet what nobody expected
            said = re.sub(r"https?://\S+|hf_\w+", "...", str(error).partition("\n")[0])
            outcome, words = "failed", f"{type(error).__name__}: {said[:300]}"
        if self.compare(self.recorder.take()) and outcome == "ok":
            outcome = "differs"
        self.report.steps.append(Step(name=name, outcome=outcome, words=words))
        self.say(f"{outcome:<8}{name}: {words}")
        return outcome != "failed"

    def compare(self, seen: Shapes) -> bool:
        """Whether something of it is not the double's; each difference is shown once."""
        is_other = False
        for asked, shape in sorted(seen.items(), key=lambda item: item[0]):
            lines = differences(asked, shape, self.known)
            is_other = is_other or bool(lines)
            if new := [line for line in lines if (asked, line) not in self.told]:
                self.told.update((asked, line) for line in new)
                value = {"add": entry(asked, shape), "differs": new}
                self.report.shapes.append(value)
                self.show(value)
        return is_other
