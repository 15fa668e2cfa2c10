"""What do download clients do when something goes wrong? Real clients, real sockets, the same faults for all.

    python benchmarks/download_faults.py > table.md

The site is the tests' double (HTTP Basic, ranges, validators, faults). Each client has one or two runs for each fault,
with the options that its manual recommends (`clients.py`). Every cell is what was seen, not what is documented.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import common

sys.path.insert(0, str(common.ROOT))
from clients import CLIENTS, PASSWORD, USER, Client

from tests.site_double import Fault, OfficialSite

FILENAME = "b-t4sa_imgs.tar"
NUM_BYTES = 24_000_000
CUT_AT = 10_000_000
SECONDS = 60


@dataclass(frozen=True)
class Seen:
    """What one run left."""

    ended_well: bool
    words: str
    data: bytes | None
    """What stands under the file's name; None: nothing."""


def make_tar(seed: int) -> bytes:
    """A tar of `NUM_BYTES`, about."""
    import random

    from t4sa_data.shards.tar import END_MARK, padded, ustar_header

    rng, size = random.Random(seed), 240_000
    return (
        b"".join(
            ustar_header(f"data/75700/{757_000_000_000_000_000 + i}-1.jpg", size)
            + rng.randbytes(size)
            + bytes(padded(size) - size)
            for i in range(NUM_BYTES // size)
        )
        + END_MARK
    )


OLD, NEW = make_tar(1), make_tar(2)


def run(client: Client, site: OfficialSite, folder: Path, *, checksum: str | None = None) -> Seen:
    """One run of a client."""
    folder.mkdir(parents=True, exist_ok=True)
    command = client.command(f"{site.url}{FILENAME}", folder, checksum)
    try:
        ended = subprocess.run(
            command, env=client.environment(folder), capture_output=True, text=True, timeout=SECONDS, check=False
        )
        good, words = ended.returncode == 0, ended.stdout + ended.stderr
    except subprocess.TimeoutExpired:
        good, words = False, "timed out"
    path = folder / FILENAME
    return Seen(good, words, path.read_bytes() if path.is_file() else None)


def new_site(*faults: Fault) -> OfficialSite:
    """A site with the old file, and the new one to come."""
    return OfficialSite({FILENAME: OLD}, USER, PASSWORD, list(faults), {FILENAME: NEW})


def redirect(client: Client, folder: Path) -> str:
    """Does the password go to another origin with a redirect?"""
    with new_site(Fault("redirect_other"), Fault("redirect_other", method="HEAD")) as site:
        run(client, site, folder)
        return "**leaks**" if site.leaked() else "no"


def busy(client: Client, folder: Path) -> str:
    """Is a 503 with Retry-After waited out?"""
    with new_site(*[Fault("status", status=503, retry_after="1")] * 2) as site:
        return "yes" if run(client, site, folder).data == OLD else "no"


def cut_and_resumed(client: Client, folder: Path) -> str:
    """Is a cut connection gone on with in the same run, without bytes sent twice?"""
    with new_site(Fault(at=CUT_AT)) as site:
        seen = run(client, site, folder)
        if seen.data != OLD:
            return "no"
        return "yes" if site.num_bytes_sent() < len(OLD) + CUT_AT // 2 else "starts over"


def rerun_resumes(client: Client, folder: Path) -> str:
    """Does a second run go on with what the first left?"""
    cuts = [Fault(at=CUT_AT), *[Fault("reset")] * 40]
    with new_site(*cuts) as site:
        run(client, site, folder)
        site.faults.clear()
        before = site.num_bytes_sent()
        seen = run(client, site, folder)
        if seen.data != OLD:
            return "no"
        return "yes" if site.num_bytes_sent() - before < len(OLD) - CUT_AT // 2 else "starts over"


def swapped(client: Client, folder: Path) -> str:
    """The file on the site is replaced between two runs."""
    cuts = [Fault(at=CUT_AT), *[Fault("reset")] * 40]
    with new_site(*cuts) as site:
        run(client, site, folder)
        site.faults.clear()
        site.change(FILENAME)
        seen = run(client, site, folder)
        if seen.data == NEW:
            return "right file"
        if seen.data is None or not seen.ended_well:
            return "error"
        return "**mixed, exit 0**"


def login_page(client: Client, folder: Path) -> str:
    """A login page with status 200."""
    with new_site(Fault("login"), Fault("login", method="HEAD")) as site:
        seen = run(client, site, folder)
        site.faults.clear()
        if seen.data is None:
            return "refused"
        return "right file" if seen.data == OLD else "**kept as the file**"


def final_name(client: Client, folder: Path) -> str:
    """Does a part stand under the final name after a cut?"""
    with new_site(Fault(at=CUT_AT), *[Fault("reset")] * 40) as site:
        seen = run(client, site, folder)
        return "no" if seen.data is None else "**yes**"


def checksum(client: Client, folder: Path) -> str:
    """Is a wrong sha256 refused?"""
    with new_site() as site:
        if client.name == "t4sa-data":  # it holds a file against what it recorded before
            run(client, site, folder)
            (folder / FILENAME).unlink()
            site.change(FILENAME)
            seen = run(client, site, folder)
        else:
            seen = run(client, site, folder, checksum=hashlib.sha256(NEW).hexdigest())
        return "no" if seen.ended_well else "yes"


QUESTIONS: dict[str, Callable[[Client, Path], str]] = {
    "password to another origin": redirect,
    "503 waited out": busy,
    "cut: goes on in the run": cut_and_resumed,
    "cut: the next run goes on": rerun_resumes,
    "file replaced between runs": swapped,
    "login page, status 200": login_page,
    "part under the final name": final_name,
    "wrong sha256 refused": checksum,
}


def main() -> None:
    """Ask every client everything, and print the table."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-") as work:
        for client in CLIENTS:
            if not client.is_here:
                continue
            answers = []
            for number, ask in enumerate(QUESTIONS.values()):
                answers.append(ask(client, Path(work) / f"{client.name}-{number}" / "out"))
                print(f"{client.name}: {list(QUESTIONS)[number]}: {answers[-1]}", file=sys.stderr, flush=True)
            rows.append([client.name, *answers])
    header = ["client", *QUESTIONS]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
