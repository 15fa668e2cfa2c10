"""The commands `t4sa hub verify` and `t4sa hub diff`; what they do is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

NUM_SAMPLES = 8
"""Rows read of each repository, each way."""
STRANGER_VARIABLE = "T4SA_STRANGER_TOKEN"
"""Token of an account that was not let in, to see that it is refused."""


def verify_command(
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="N", help="Account or organisation.", envvar="T4SA_NAMESPACE")
    ],
    revision: Annotated[str | None, typer.Argument(metavar="[REVISION]", help="Default: the current release.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Bring every file, and decode every image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Random rows to read of each repository.")] = NUM_SAMPLES,
    seed: Annotated[int | None, typer.Option(help="Of the sample. Default: another one each time.")] = None,
) -> None:
    """Check that what is on the Hub is what was built, and that only those who were let in can read it.

    Files against the manifest by sha256 without fetching them, card, configs, tags, releases.json, gate, refusals, and
    random rows. With T4SA_STRANGER_TOKEN (an account that was not let in) its refusal is seen, too. One line per fault;
    what could not be looked at is an `error:` on standard error. Exit status: 0 all was looked at and there is no
    fault, 1 there is one, or the Hub was not reached (then there is no line of a fault), 2 usage, 3 credentials.
    """
    import json
    import os
    from dataclasses import asdict

    from hub_scripts.cli import EXIT_CREDENTIALS, EXIT_FAULT, exit_statuses, say

    with exit_statuses():
        from hub_scripts.verify import verify

        stranger = os.environ.get(STRANGER_VARIABLE) or None
        report = verify(namespace, revision, deep=deep, stranger=stranger, num_samples=samples, seed=seed, say=say)
        if as_json:
            typer.echo(json.dumps({"ok": report.ok, **asdict(report)}, indent=1))
        else:
            for line in report.faults:
                typer.echo(line)
            for line in report.warnings:
                say(f"warning: {line}")
            for repo_id, one in report.checked.items():
                say(f"{repo_id}: {', '.join(f'{name} {value}' for name, value in one.items())}")
            if stranger is None:
                say(f"note: no {STRANGER_VARIABLE}, so only anonymous readers were tried")
            say("ok" if report.ok else f"{len(report.faults)} fault(s)")
        for line in report.unseen:
            say(f"error: {line}")
        if not report.ok:
            raise typer.Exit(EXIT_CREDENTIALS if report.no_access and not report.faults else EXIT_FAULT)


def diff_command(
    one: Annotated[str, typer.Argument(metavar="A", help="Folder, URL, or revision on the Hub (v1.0.0).")],
    other: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", metavar="N", help="Of the revisions.", envvar="T4SA_NAMESPACE")
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also print the keys, one a line: +, -, ~ (label), > (split).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with the keys.")] = False,
) -> None:
    """Show how two releases differ: added, removed, relabelled, moved samples, by split and class.

    Exit status: 0 done (whether they differ or not), 1 fault, 2 usage, 3 credentials.
    """
    import json
    from dataclasses import asdict

    from hub_scripts.cli import exit_statuses

    with exit_statuses():
        from hub_scripts.diff import describe, diff

        found = diff(one, other, namespace=namespace)
        if as_json:
            typer.echo(json.dumps(asdict(found), indent=1))
            return
        typer.echo(describe(found))
        if keys:
            for mark, some in (("+", found.added), ("-", found.removed), ("~", found.relabelled), (">", found.moved)):
                for key in some:
                    typer.echo(f"{mark} {key}")
