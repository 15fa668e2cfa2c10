"""`t4sa hub`, found by `t4sa` through the entry points of this package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub_scripts.publish_model_cli import publish_model_command
from hub_scripts.rehearse_cli import rehearse_command
from hub_scripts.takedown_cli import takedown_command
from hub_scripts.verify_cli import diff_command, verify_command
from hub_scripts.withdraw_cli import withdraw_command
from t4sa_data import errors

if TYPE_CHECKING:
    from hub_scripts.client import Hub

EXIT_FAULT, EXIT_USAGE, EXIT_CREDENTIALS = 1, 2, 3
_REFUSED = (
    errors.BadOption,
    errors.FormError,
    errors.ForeignFiles,
    errors.ReleaseNotFound,
    errors.RightsError,
    errors.TakedownRefused,
    errors.UnknownConfig,
    errors.UnknownRequest,
    errors.UnknownRevision,
    errors.VersionTaken,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Releases on the Hub: publish, gate, answer requests. HF_ENDPOINT and HF_TOKEN are honoured.",
)
requests_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Requests for access: list, accept, reject, cancel, grant."
)
app.add_typer(requests_app, name="requests")
app.command("verify")(verify_command)
app.command("diff")(diff_command)
app.command("takedown")(takedown_command)
app.command("withdraw")(withdraw_command)
app.command("publish-model")(publish_model_command)
app.command("rehearse")(rehearse_command)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """End with one line and status 1 (a fault), 2 (usage, refused) or 3 (credentials)."""
    try:
        yield
    except errors.T4SAError as error:
        typer.echo(f"error: {error}", err=True)
        if isinstance(error, errors.CredentialsError | errors.HubAccessError):
            raise typer.Exit(EXIT_CREDENTIALS) from None
        raise typer.Exit(EXIT_USAGE if isinstance(error, _REFUSED) else EXIT_FAULT) from None


def say(line: str) -> None:
    """A line for people: to standard error."""
    typer.echo(line, err=True)


def hub_of(namespace: str) -> Hub:
    """The namespace, with the client's own token; its progress bars only on a terminal."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    from hub_scripts.client import Hub

    if not sys.stderr.isatty():
        disable_progress_bars()
    return Hub(namespace=namespace)


class Mode(StrEnum):
    """How requests are answered."""

    manual = "manual"
    auto = "auto"


class Which(StrEnum):
    """Of the namespace's two repositories."""

    both = "both"
    parquet = "t4sa"
    wds = "t4sa-wds"


class Status(StrEnum):
    """Of a request."""

    pending = "pending"
    accepted = "accepted"
    rejected = "rejected"
    all = "all"


Namespace = Annotated[
    str, typer.Option("--namespace", metavar="N", help="Account or organisation.", envvar="T4SA_NAMESPACE")
]
Repositories = Annotated[Which, typer.Option("--repository", help="Which of the two.")]
Log = Annotated[
    Path | None, typer.Option("--log", help="File of the decisions, mode 0600. Default: $T4SA_DECISIONS, else yours.")
]
Reason = Annotated[str, typer.Option(help="The user is told it; at most 200 characters.")]


def repositories(hub: Hub, which: Which) -> list[str]:
    """Their ids."""
    formats = {Which.both: ("parquet", "wds"), Which.parquet: ("parquet",), Which.wds: ("wds",)}[which]
    return [hub.repository(fmt) for fmt in formats]


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Holds t4sa/, t4sa-wds/ and rights.toml.")],
    namespace: Namespace,
    version: Annotated[str, typer.Option(metavar="V", help="Of the data, X.Y.Z; its tag is never moved.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; send nothing.")] = False,
    gate: Annotated[Mode | None, typer.Option(help="Default: manual, or what the repository has.")] = None,
    form: Annotated[Path | None, typer.Option(help="Of the gate. Default: DIR/gate.toml, else the package's.")] = None,
    screen: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="Called with (key, bytes) of each image."),
    ] = None,
) -> None:
    """Publish a release to NAMESPACE/t4sa and NAMESPACE/t4sa-wds: private, verified, then open with its gate, tagged.

    Killed at any moment, the same command goes on. Exit status: 0 done, 1 fault, 2 refused, 3 credentials.
    """
    with exit_statuses():
        from tqdm import tqdm

        from hub_scripts.gate import load_form
        from hub_scripts.publish import publish as run
        from hub_scripts.screen import load_matcher

        hub_of(namespace)
        with tqdm(unit="B", unit_scale=True, desc="check", disable=not sys.stderr.isatty(), leave=False) as bar:
            done = run(
                directory,
                namespace=namespace,
                version=version,
                gate=gate.value if gate else None,
                form=load_form(form) if form else None,
                screen=load_matcher(screen) if screen else None,
                dry_run=dry_run,
                say=say,
                progress=bar.update,
            )
        for one in done:
            visibility = "private" if one.private else "public"
            typer.echo(f"{one.repo_id} {one.tag} {one.commit} {visibility}, gate {one.gated}")


@app.command()
def gate(
    namespace: Namespace,
    repository: Repositories = Which.both,
    mode: Annotated[Mode | None, typer.Option("--set", help="Answer requests by hand, or all at once.")] = None,
    form: Annotated[Path | None, typer.Option(help="Write this form into the card on main.")] = None,
    template: Annotated[Path | None, typer.Option(help="Write the package's form there, to be edited.")] = None,
    close: Annotated[bool, typer.Option("--close", help="An incident: make it private now.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="Make it public again, with its gate.")] = False,
) -> None:
    """Show the gates, or set them: mode, form, open, closed. What is so already is left alone."""
    with exit_statuses():
        from hub_scripts import gate as doors

        if close and open_:
            raise errors.BadOption("either --close or --open")
        if template is not None:
            _write_template(template)
            return
        wanted = doors.load_form(form) if form else None
        hub = hub_of(namespace)
        for repo_id in repositories(hub, repository):
            if (state := hub.state(repo_id)) is None:
                if mode or wanted or close or open_:
                    say(f"{repo_id}: not there, passed over")
                continue
            if close and doors.close(hub, repo_id):
                say(f"{repo_id}: closed")
            if mode and doors.set_mode(hub, repo_id, mode.value):
                say(f"{repo_id}: gate {mode.value}, was {state.gated or 'none'}")
            if open_ and doors.open_gated(hub, repo_id, mode.value if mode else "manual"):
                say(f"{repo_id}: open, gated")
            if wanted and doors.set_form(hub, repo_id, wanted):
                say(f"{repo_id}: new form")
        states = {repo_id: hub.state(repo_id) for repo_id in repositories(hub, repository)}
        typer.echo(doors.describe(states))
        if any(state is not None and state.is_open for state in states.values()):
            raise typer.Exit(EXIT_FAULT)


def _write_template(path: Path) -> None:
    from hub_scripts.gate import Form
    from t4sa_data.files import write_bytes

    if path.exists():
        raise errors.BadOption("the file is there already", where=path)
    write_bytes(path, Form().to_toml().encode())
    typer.echo(str(path))


@requests_app.command("list")
def list_requests(
    namespace: Namespace,
    repository: Repositories = Which.both,
    status: Annotated[Status, typer.Option(help="Which requests.")] = Status.pending,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write them there (mode 0600), with columns to decide in.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines, with names, addresses and answers.")] = False,
) -> None:
    """Show who asks, with the form's answers."""
    with exit_statuses():
        import json
        from dataclasses import asdict

        from hub_scripts import access
        from t4sa_data.files import write_private

        hub = hub_of(namespace)
        statuses = access.STATUSES if status == Status.all else (status.value,)
        asked = access.requests(hub, repositories(hub, repository), statuses)
        if table is not None:
            write_private(table, access.to_csv(asked).encode())
            typer.echo(f"{table}: {len(asked)} request(s); fill in `action` (accept, reject, cancel), then `decide`")
            return
        for one in asked:
            answers = "; ".join(f"{name}: {value}" for name, value in one.answers.items())
            words = f"{one.repo_id}  {one.user}  {one.status}  {one.asked}  {one.name}  {one.email}  {answers}"
            typer.echo(json.dumps(asdict(one), ensure_ascii=False) if as_json else words.rstrip())
        say(f"{len(asked)} {status.value} request(s)")
        if late := access.overdue():
            say(f"note: {late} decision(s) in the log are older than {access.RETENTION_DAYS} days: `requests purge`")


def _decide(namespace: str, user: str, action: Any, which: Which, reason: str, log: Path | None) -> None:
    with exit_statuses():
        from hub_scripts import access

        hub = hub_of(namespace)
        access.decide(hub, repositories(hub, which), user, action, reason=reason, log=log, say=typer.echo)


User = Annotated[str, typer.Argument(help="Name on the Hub, or id:REQUEST where names are hidden.")]


@requests_app.command()
def accept(
    user: User, namespace: Namespace, repository: Repositories = Which.both, reason: Reason = "", log: Log = None
) -> None:
    """Let a user in, in each repository where they asked."""
    _decide(namespace, user, "accept", repository, reason, log)


@requests_app.command()
def reject(
    user: User,
    namespace: Namespace,
    reason: Annotated[str, typer.Option(help="The user is told it; at most 200 characters.")],
    repository: Repositories = Which.both,
    log: Log = None,
) -> None:
    """Refuse a user, with a reason. A rejected user cannot ask again: `cancel` takes it back."""
    _decide(namespace, user, "reject", repository, reason, log)


@requests_app.command()
def cancel(user: User, namespace: Namespace, repository: Repositories = Which.both, log: Log = None) -> None:
    """Put a request back to pending, accepted or rejected as it may be: access ends."""
    _decide(namespace, user, "cancel", repository, "", log)


@requests_app.command()
def grant(user: User, namespace: Namespace, repository: Repositories = Which.both, log: Log = None) -> None:
    """Let a user in who did not ask, in both repositories."""
    _decide(namespace, user, "grant", repository, "", log)


@requests_app.command()
def decide(
    table: Annotated[Path, typer.Argument(metavar="CSV", help="Of `list --csv`: columns user, action, reason.")],
    namespace: Namespace,
    repository: Repositories = Which.both,
    log: Log = None,
) -> None:
    """Decide by a table; the whole of it is checked first."""
    with exit_statuses():
        from hub_scripts import access

        hub = hub_of(namespace)
        count = access.decide_all(hub, repositories(hub, repository), table, log=log)
        typer.echo(f"{count} decided; {table} holds personal data: delete it when it is not needed any more")


@requests_app.command()
def purge(
    days: Annotated[int, typer.Option(min=0, help="Keep decisions that are younger.")] = 730,
    user: Annotated[str | None, typer.Option(help="Also remove all of this user.")] = None,
    log: Log = None,
) -> None:
    """End the keeping of decisions: those older than DAYS, and all of a user."""
    with exit_statuses():
        from hub_scripts import access

        typer.echo(f"{access.purge(log, days=days, user=user)} decision(s) removed")
