"""The command `t4sa hub takedown`; what it does is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def takedown_command(
    ids: Annotated[
        Path, typer.Option("--ids", metavar="FILE", help="Tweet ids, keys, group:KEY; one a line, # comments.")
    ],
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="N", help="Account or organisation.", envvar="T4SA_NAMESPACE")
    ],
    version: Annotated[str, typer.Option(metavar="V", help="Of the data without them, X.Y.Z.")],
    release: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Holds t4sa/, t4sa-wds/ and rights.toml; it is rewritten. Without: the shards touched are fetched.",
        ),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the shards that are fetched. Default: ./takedown-vX.Y.Z")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Told to readers of old versions; nothing personal.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the old versions without asking.")] = False,
) -> None:
    """Take samples out of the published dataset: a new version without them, then the old ones are deleted for good.

    Killed at any moment, the same command goes on. Exit status: 0 done, 1 fault, 2 refused, 3 credentials.
    """
    import sys

    from hub_scripts.cli import exit_statuses, hub_of, say

    def confirm(question: str) -> bool:
        if yes or sys.stdin.isatty():
            return yes or typer.confirm(question, err=True)
        say(question)
        return False

    with exit_statuses():
        from hub_scripts.takedown import REASON, takedown
        from t4sa_data.summary import size

        hub_of(namespace)
        done = takedown(
            ids,
            namespace=namespace,
            version=version,
            release=release,
            work=work,
            confirm=confirm,
            reason=reason or REASON,
            dry_run=dry_run,
            say=say,
        )
        for one in done:
            end = (
                f"{one.objects} large files ({size(one.bytes)}) deleted" if one.is_done else "old versions still there"
            )
            typer.echo(f"{one.repo_id} {one.tag}: {one.count} sample(s) removed, {end}")
        if not all(one.is_done for one in done):
            say("not confirmed: run the same command again (in scripts with --yes) to delete the old versions")
            raise typer.Exit(2)
