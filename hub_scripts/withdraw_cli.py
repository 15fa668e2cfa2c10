"""The command `t4sa hub withdraw`; what it does is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

REASON = "A file of it should not have been published."


def withdraw_command(
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="N", help="Account or organisation.", envvar="T4SA_NAMESPACE")
    ],
    version: Annotated[str, typer.Option(metavar="V", help="The current one, which stays, X.Y.Z.")],
    reason: Annotated[str, typer.Option(help="Told to readers of the older versions.")] = REASON,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Withdraw all versions before V, and delete them for good: a file in them should not have been published.

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
        from hub_scripts.withdraw import withdraw
        from t4sa_data.summary import size

        hub_of(namespace)
        done = withdraw(namespace=namespace, version=version, confirm=confirm, reason=reason, dry_run=dry_run, say=say)
        for one in done:
            end = f"{one.objects} large files ({size(one.bytes)}) deleted" if one.is_done else "older ones still there"
            typer.echo(f"{one.repo_id} {one.tag}: {end}")
        if not all(one.is_done for one in done):
            say("not confirmed: run the same command again (in scripts with --yes) to delete the older versions")
            raise typer.Exit(2)
