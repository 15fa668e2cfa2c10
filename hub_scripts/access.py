"""Requests for access: list, accept, reject, cancel, grant; one at a time or from a CSV.

Every decision goes into a log that only its owner may read (mode 0600), with what is needed to account for it: who was
decided on, where, what, when and why; neither mail addresses nor answers. `purge` ends its keeping.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hub_scripts.client import Hub, explain
from t4sa_data.errors import BadOption, UnknownRequest
from t4sa_data.files import explain_os_errors, write_private

if TYPE_CHECKING:
    from huggingface_hub.hf_api import AccessRequest

Action = Literal["accept", "reject", "cancel", "grant"]
ACTIONS: tuple[Action, ...] = ("accept", "reject", "cancel", "grant")
STATUSES = ("pending", "accepted", "rejected")
RESULT = {"accept": "accepted", "grant": "accepted", "reject": "rejected", "cancel": "pending"}
RETENTION_DAYS = 730
"""For how long decisions are kept, unless another number is given: two years."""
MAX_REASON = 200
"""Characters that the Hub takes (huggingface_hub 2.4, `reject_access_request`)."""
REJECTED_NOTE = (
    "A rejected user cannot ask again, and is told the reason. `cancel` puts the request back to pending, to be "
    "decided on anew."
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request for access."""

    repo_id: str
    user: str
    request_id: str = ""
    status: str
    asked: str
    """When, ISO 8601."""
    name: str = field(default="", repr=False)
    email: str = field(default="", repr=False)
    answers: dict[str, Any] = field(default_factory=dict, repr=False)
    """To the form's fields."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One line of the decision log."""

    time: str
    """UTC, ISO 8601."""
    repo_id: str
    user: str
    action: str
    reason: str = ""


def requests(hub: Hub, repo_ids: Sequence[str], statuses: Iterable[str] = ("pending",)) -> list[Asked]:
    """The requests of some repositories, oldest first; a repository that is not there or not gated has none.

    Raises:
        HubAccessError, HubUnreachable: the Hub does not tell.
    """
    made: list[Asked] = []
    for repo_id in repo_ids:
        state = hub.state(repo_id)
        if state is None or not state.gated:
            continue
        for status in statuses:
            ask: Callable[..., Iterable[AccessRequest]] = getattr(hub.api, f"list_{status}_access_requests")
            with explain(repo_id):
                made += [_asked(repo_id, one) for one in ask(repo_id, repo_type="dataset")]
    return sorted(made, key=lambda one: (one.asked, one.repo_id, one.user))


def _asked(repo_id: str, one: AccessRequest) -> Asked:
    return Asked(
        repo_id=repo_id,
        user=one.username or f"id:{one.request_id}",
        request_id=one.request_id,
        status=one.status,
        asked=one.timestamp.astimezone(UTC).isoformat(timespec="seconds"),
        name=one.fullname or "",
        email=one.email or "",
        answers=dict(one.fields or {}),
    )


def decide(
    hub: Hub,
    repo_ids: Sequence[str],
    user: str,
    action: Action,
    *,
    reason: str = "",
    log: Path | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> list[str]:
    """Decide on a user's requests; where a request is decided so already, nothing is done but the log made whole.

    Args:
        hub: the namespace.
        repo_ids: repositories; without a request of the user they are passed over (`grant` gives access there too).
        user: name on the Hub, or `id:REQUEST` where the repository hides names.
        action: `accept`, `reject`, `cancel` (back to pending), `grant` (access without a request).
        reason: needed to reject, at most 200 characters; the user sees it.
        log: file of the decisions; None: `decisions_path()`.
        say: gets a line now and then.

    Returns:
        The repositories where it stands so now.

    Raises:
        BadOption: rejection without a reason, a reason that is too long, no such action.
        UnknownRequest: the user has no request in any of these repositories.
        HubAccessError, HubRefused, HubUnreachable: the Hub does not do it.
    """
    _refuse_reason(action, reason)
    done = []
    for repo_id in repo_ids:
        found = next((one for one in requests(hub, [repo_id], STATUSES) if user in (one.user, one.request_id)), None)
        if found is None and action != "grant":
            continue
        if found is None and hub.state(repo_id) is None:
            continue
        is_so = found is not None and found.status == RESULT[action]
        if not is_so:
            _send(hub, repo_id, user, found, action, reason)
        done.append(repo_id)
        name = user if found is None else found.user  # one name, whichever way the user was named
        if not is_so or not _is_logged(log, repo_id, name, action):
            append(Decision(time=_now(), repo_id=repo_id, user=name, action=action, reason=reason), log)
        say(f"{repo_id}: {RESULT[action]}" + (" already" if is_so else ""))
    if not done:
        raise UnknownRequest(
            "no request of this user", got=user, where=", ".join(repo_ids), hint="`t4sa hub requests list --status all`"
        )
    if action == "reject":
        say(REJECTED_NOTE)
    return done


def _refuse_reason(action: str, reason: str) -> None:
    if action not in ACTIONS:
        raise BadOption("no such decision", expected=" | ".join(ACTIONS), got=action)
    if action == "reject" and not reason.strip():
        raise BadOption("a rejection needs a reason; the user is told it", hint=REJECTED_NOTE)
    if len(reason) > MAX_REASON:
        raise BadOption("the reason is too long for the Hub", expected=f"{MAX_REASON} characters", got=len(reason))


def _send(hub: Hub, repo_id: str, user: str, found: Asked | None, action: Action, reason: str) -> None:
    with explain(repo_id):
        if found is None or (action == "grant" and found.user.startswith("id:")):
            hub.api.grant_access(repo_id, user, repo_type="dataset")
            return
        whom: Any = {"request_id": found.request_id} if found.user.startswith("id:") else {"user": found.user}
        if action == "reject":
            hub.api.reject_access_request(repo_id, **whom, rejection_reason=reason, repo_type="dataset")
        elif action == "cancel":
            hub.api.cancel_access_request(repo_id, **whom, repo_type="dataset")
        else:
            hub.api.accept_access_request(repo_id, **whom, repo_type="dataset")


def decide_all(
    hub: Hub,
    repo_ids: Sequence[str],
    table: Path,
    *,
    log: Path | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> int:
    """Decide by a CSV with the columns `user`, `action` and `reason`; lines without an action are passed over.

    The whole table is checked before the first decision. Run again, it does what is left.

    Returns:
        Users that were decided on.

    Raises:
        BadOption: the table is none, or a line of it is not what it should be.
        UnknownRequest: a user has no request; told after all others were decided on.
    """
    rows = _decisions_of(table)
    unknown: list[str] = []
    for number, (user, action, reason) in enumerate(rows, start=1):
        try:
            decide(hub, repo_ids, user, action, reason=reason, log=log, say=lambda _line: None)
        except UnknownRequest:
            unknown.append(user)
        say(f"{number} of {len(rows)} decided")
    if unknown:
        raise UnknownRequest(f"{len(unknown)} user(s) of the table have no request", got=unknown[0], where=table)
    return len(rows)


def _decisions_of(table: Path) -> list[tuple[str, Action, str]]:
    try:
        with Path(table).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadOption("the table cannot be read", got=type(error).__name__, where=table) from error
    made: list[tuple[str, Action, str]] = []
    for line, row in enumerate(rows, start=2):
        user, action, reason = ((row.get(name) or "").strip() for name in ("user", "action", "reason"))
        if not action:
            continue
        try:
            _refuse_reason(action, reason)
        except BadOption as error:
            raise BadOption(error.what, expected=error.expected, got=error.got, where=f"{table}: line {line}") from None
        if not user:
            raise BadOption("a line without a user", where=f"{table}: line {line}")
        chosen: Any = action
        made.append((user, chosen, reason))
    return made


def to_csv(asked: Sequence[Asked]) -> str:
    """The requests as a CSV with empty columns `action` and `reason`, ready for `decide_all`."""
    names = list(dict.fromkeys(name for one in asked for name in one.answers))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["user", "action", "reason", "repository", "status", "asked", "name", "email", *names])
    for one in asked:
        answers = [one.answers.get(name, "") for name in names]
        writer.writerow(
            map(_cell, [one.user, "", "", one.repo_id, one.status, one.asked, one.name, one.email, *answers])
        )
    return out.getvalue()


def _cell(value: object) -> str:
    """Text that a spreadsheet does not take for a formula."""
    text = str(value)
    return f"'{text}" if text[:1] in "=+-@\t\r" and text[:1] else text


# The decision log.
def decisions_path() -> Path:
    """File of the decisions: `$T4SA_DECISIONS`, else in the platform's state folder of this user."""
    if value := os.environ.get("T4SA_DECISIONS"):
        return Path(value).expanduser()
    import platformdirs

    return Path(platformdirs.user_state_dir("t4sa", appauthor=False)) / "access-decisions.jsonl"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: a purge writes the log anew."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(f"{path}.lock", mode=0o600):
        yield


def append(decision: Decision, log: Path | None = None) -> None:
    """Add a line to the log; the file is made with mode 0600, and one that others may read is closed to them. The half
    of a line that a power cut left at its end is taken away first: the next one would be joined to it."""
    path = log or decisions_path()
    with explain_os_errors(path), _locked(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            path.chmod(0o600)
            data = file.read()
            tail = data[data.rfind(b"\n") + 1 :]
            is_whole = not tail or _decision(tail) is not None
            file.seek(len(data) if is_whole else len(data) - len(tail))
            file.truncate()
            file.write((b"\n" if tail and is_whole else b"") + _line(decision))
            file.flush()
            os.fsync(file.fileno())


def _line(decision: Decision) -> bytes:
    return json.dumps(asdict(decision), ensure_ascii=False).encode() + b"\n"


def _decision(line: bytes) -> Decision | None:
    """A line of the log; None: it is none."""
    try:
        made = Decision(**json.loads(line))
        is_one = datetime.fromisoformat(made.time).tzinfo is not None and made.action in RESULT
    except (ValueError, TypeError):
        return None
    return made if is_one else None


def decisions(log: Path | None = None) -> list[Decision]:
    """The log, oldest first. A last line that a power cut left half is passed over.

    Raises:
        BadOption: a line that is none.
    """
    path = log or decisions_path()
    with explain_os_errors(path):
        data = path.read_bytes() if path.is_file() else b""
    made = []
    *lines, tail = data.split(b"\n")  # by nothing else: a reason may hold what Unicode counts as the end of a line
    for number, line in enumerate(lines, start=1):
        if (one := _decision(line)) is None:
            raise BadOption("no line of a decision log", where=f"{path}: line {number}")
        made.append(one)
    last = _decision(tail) if tail else None
    return made if last is None else [*made, last]


def _is_logged(log: Path | None, repo_id: str, user: str, action: str) -> bool:
    last = [one for one in decisions(log) if (one.repo_id, one.user) == (repo_id, user)][-1:]
    return bool(last) and RESULT[last[0].action] == RESULT[action]


def purge(log: Path | None = None, *, days: int = RETENTION_DAYS, user: str | None = None) -> int:
    """Remove decisions from the log: those older than a number of days, and all of a user; how many."""
    path = log or decisions_path()
    if not path.is_file():
        return 0
    oldest = datetime.now(UTC) - timedelta(days=days)
    with explain_os_errors(path), _locked(path):
        found = decisions(path)
        kept = [
            one for one in found if datetime.fromisoformat(one.time) >= oldest and (user is None or one.user != user)
        ]
        if len(kept) != len(found):
            write_private(path, b"".join(map(_line, kept)))
    return len(found) - len(kept)


def overdue(log: Path | None = None, *, days: int = RETENTION_DAYS) -> int:
    """Decisions that are older than they are to be kept."""
    oldest = datetime.now(UTC) - timedelta(days=days)
    return sum(datetime.fromisoformat(one.time) < oldest for one in decisions(log))
