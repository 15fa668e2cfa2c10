"""The command `t4sa hub rehearse`; what it does is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def rehearse_command(
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="N", help="Account or organisation.", envvar="T4SA_NAMESPACE")
    ],
    open_: Annotated[
        bool, typer.Option("--open", help="Open the repositories with their gate, as a release is; else private.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the repositories there.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Also what publishing and takedown say.")] = False,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every shape that was answered there, as JSON lines.")
    ] = None,
) -> None:
    """Rehearse a release on the real Hub: publish, gate, verify, takedown and delete drawn pictures.

    In two throwaway repositories of random names, private unless --open, deleted at the end, also after a fault or
    Ctrl-C. Each answer that is not as the tests' double of the Hub gives it is printed as a JSON line: a shape to add.
    Exit status: 0 all as expected, 1 a difference or a failed step, 2 usage, 3 credentials, 130 stopped.
    """
    import json
    import os
    import signal
    import sys

    from hub_scripts.cli import exit_statuses, hub_of, say

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):  # a job that is ended, a terminal that is closed: as Ctrl-C
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    with exit_statuses():
        from hub_scripts.rehearse import rehearse
        from t4sa_data.files import write_bytes

        hub_of(namespace)
        try:
            report = rehearse(
                namespace,
                is_open=open_,
                keep=keep,
                say=say,
                detail=(lambda line: say(f"        {line}")) if verbose else lambda _line: None,
                show=lambda shape: typer.echo(json.dumps(shape)),
            )
        except KeyboardInterrupt:
            say("interrupted")
            sys.stdout.flush()
            os._exit(130)  # threads of `datasets` that read when it came can abort the interpreter's own end
        if record is not None:
            write_bytes(record, "".join(json.dumps(shape) + "\n" for shape in report.seen).encode())
        if report.num_faults:
            say(f"note: {report.num_faults} answer(s) were faults of the Hub, not compared")
        failed = sum(step.outcome == "failed" for step in report.steps)
        say(
            f"ok: {len(report.steps)} steps, {len(report.seen)} shapes, all as the double answers"
            if report.ok
            else f"{failed} step(s) failed; {len(report.shapes)} shape(s) to add to the double"
        )
        if not report.ok:
            raise typer.Exit(1)
