"""The command `t4sa hub publish-model`; what it does is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def publish_model_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder: of convert.py, or RUN/best.")],
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="N", help="Account or organisation.", envvar="T4SA_NAMESPACE")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the repository. Default: from the model's.")
    ] = None,
    version: Annotated[str, typer.Option(metavar="V", help="Of the model, X.Y.Z; its tag is never moved.")] = "1.0.0",
    license_id: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Of the weights, one of the Hub's ids.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="RUN", help="Folder of the training: digests and metrics.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make it public at the end; needs --license.")] = False,
) -> None:
    """Publish a model to the model repository NAMESPACE/NAME: private, in one commit, verified, tagged.

    Killed at any moment, the same command goes on. Exit status: 0 done, 1 fault, 2 refused, 3 credentials.
    """
    from hub_scripts.cli import exit_statuses, hub_of, say

    with exit_statuses():
        from hub_scripts.publish_model import publish_model

        hub_of(namespace)
        done = publish_model(
            directory,
            namespace=namespace,
            name=name,
            version=version,
            license_id=license_id,
            run=run,
            public=public,
            say=say,
        )
        typer.echo(f"{done.repo_id} {done.tag} {done.commit} {'private' if done.private else 'public'}")
