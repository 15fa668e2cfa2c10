"""What the tests of publishing share: a release with its rights, `t4sa` in processes of its own, how a Hub stands."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t4sa_data.testing import make_release
from tests.hub_double import Fault, WritableHub
from tests.hub_double.calls import Kind

TOKEN, READER, STRANGER = "hf_maintainertoken1", "hf_readertoken12345", "hf_strangertoken123"
USERS = {TOKEN: "ours", READER: "ada", STRANGER: "bob"}
RIGHTS = """
[rights]
granted_by = "The authors"
date = "2026-01-02"
scope = "redistribution to researchers behind a gate"
covers_text = {text}

[contact]
removals = "removals@example.org"

[screen]
tool = "a matcher"
list_version = "7"
date = 2026-01-03
matched = 0
"""


def write_release(folder: Path, num_samples: int = 30, *, shard_bytes: int = 10**6, text: str = "true") -> Path:
    """A miniature that may be published; three shards a format, unless they are to be smaller."""
    make_release(folder, num_samples, shard_bytes=shard_bytes)
    (folder / "rights.toml").write_text(RIGHTS.format(text=text))
    return folder


def environment(hub: WritableHub, folder: Path, *, token: str | None = TOKEN, xet: bool = False) -> dict[str, str]:
    """Of a process of its own: the client reads its settings when it is imported."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "T4SA_", "HUGGING"))}
    return clean | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **({} if xet else {"HF_HUB_DISABLE_XET": "1"}),
        **({"HF_TOKEN": token} if token else {}),
        "NO_PROXY": "127.0.0.1",
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_STATE_HOME": str(folder / "state"),
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def run(hub: WritableHub, folder: Path, *arguments: object, token: str | None = TOKEN) -> tuple[int, str, str]:
    """Exit status and what `t4sa hub` printed, in a process of its own; no token and no traceback in it."""
    done = subprocess.run(
        [sys.executable, "-m", "t4sa_data.cli", "hub", *map(str, arguments)],
        env=environment(hub, folder, token=token),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    for secret in USERS:
        assert secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout, done.stderr


FORKER = """
import json, os, sys
import hub_scripts.access, hub_scripts.cli, hub_scripts.publish, hub_scripts.takedown
import huggingface_hub.hf_api, t4sa_data.cli, t4sa_data.testing
# What the libraries would import in each child:
import fractions, gzip, multiprocessing.synchronize, pandas, pyarrow.dataset, pyarrow.pandas_compat, pydantic, yaml
for name in ("HfApi", "CommitOperationCopy", "hf_hub_download", "errors"):
    getattr(huggingface_hub, name)
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if pid == 0:
        with open(asked["out"], "wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.argv[1:] = asked["arguments"]
        os.environ.update(asked["environment"])
        code = 70
        try:
            t4sa_data.cli.main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass
class Commands:
    """Runs `t4sa` again and again, each time in a process of its own that is forked from one that has everything
    imported; such a process can be killed."""

    hub: WritableHub
    folder: Path
    helper: subprocess.Popen[str]
    settings: dict[str, str] = field(default_factory=dict)
    """More for the environment of each process."""

    def run(self, *arguments: object, kill_after: int | None = None, token: str = TOKEN) -> tuple[int, str]:
        """`t4sa hub ...`: exit status (-9: killed) and what was printed."""
        return self.call("hub", *arguments, kill_after=kill_after, token=token)

    def call(
        self, *arguments: object, kill_after: int | None = None, token: str = TOKEN, **environment: str
    ) -> tuple[int, str]:
        """`t4sa ...`, as somebody (an empty token: as nobody), with more in the environment."""
        assert self.helper.stdin and self.helper.stdout
        started, pid = threading.Event(), list[int]()

        def kill() -> None:
            started.wait(30)
            with suppress(ProcessLookupError):  # after its last request it may be done already
                os.kill(pid[0], signal.SIGKILL)

        if kill_after is not None:
            self.hub.kill_after(kill_after, kill)
        out = self.folder / "out.txt"
        settings = {"HF_TOKEN": token, **self.settings, **environment}
        asked = {"arguments": [*map(str, arguments)], "environment": settings, "out": str(out)}
        self.helper.stdin.write(json.dumps(asked) + "\n")
        self.helper.stdin.flush()
        pid.append(int(self.helper.stdout.readline()))
        started.set()
        code = int(self.helper.stdout.readline())
        self.hub.open_again()
        said = out.read_text()
        for secret in USERS:
            assert secret not in said
        return code, said


@contextmanager
def commands(hub: WritableHub, folder: Path, *, xet: bool = False) -> Iterator[Commands]:
    """`Commands` for a Hub."""
    helper = subprocess.Popen(
        [sys.executable, "-c", FORKER],
        env=environment(hub, folder, xet=xet),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    with helper:
        assert helper.stdout and helper.stdin
        assert helper.stdout.readline() == "ready\n"
        yield Commands(hub, folder, helper)
        helper.stdin.close()


def final(hub: WritableHub) -> dict[str, Any]:
    """How all repositories stand: what a second run must not change, and a killed one must come to."""
    made: dict[str, Any] = {}
    for name, repo in hub.repos.items():
        made[name] = {
            "private": repo.private,
            "gated": repo.gated,
            "branches": sorted(repo.branches),
            "main": {path: blob.oid for path, blob in repo.files("main").items()},
            "tags": {tag: {path: blob.oid for path, blob in repo.files(tag).items()} for tag in repo.tags},
            "commits": [repo.commits[oid].title for oid in repo.history(repo.head)],
        }
    return made


FAULTS: tuple[Kind, ...] = ("500", "502", "503", "504", "429", "412", "409", "expired", "stale", "drop", "cut")


def faults_of(rng: random.Random, num_requests: int) -> list[Fault]:
    """What goes wrong, at random requests of a run of so many."""
    return [
        Fault(
            ".",
            nth=rng.randint(1, num_requests),
            kind=rng.choice(FAULTS),
            times=rng.choice((1, 1, 2, 8)),
            done=rng.random() < 0.3,
            after=rng.choice((0, 0, 40)),
        )
        for _ in range(rng.randint(1, 4))
    ]


def reset(hub: WritableHub) -> None:
    """As if nothing had ever been sent."""
    hub.repos.clear()
    hub.log.clear()
    hub.history.clear()
