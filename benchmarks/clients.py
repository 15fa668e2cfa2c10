"""The clients that the download benchmarks compare, as command lines: ours, curl, wget, aria2, pooch, huggingface_hub.

Each brings one file with user name and password, retries and goes on with a part as far as its options allow.
`python benchmarks/clients.py CLIENT URL FOLDER [SHA256]` runs one of the Python ones.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "reader", "not-a-secret"


@dataclass(frozen=True, kw_only=True)
class Client:
    """One client."""

    name: str
    command: Callable[[str, Path, str | None], list[str]]
    """(URL, folder, sha256 or None) -> argument list."""
    program: str | None = None
    """What has to be installed."""

    @property
    def is_here(self) -> bool:
        """Whether it can be run on this machine."""
        return self.program is None or shutil.which(self.program) is not None

    def environment(self, folder: Path) -> dict[str, str]:
        """Environment of the command: nothing of the user's own settings."""
        return {
            **os.environ,
            "HOME": str(folder.parent),
            "T4SA_USER": USER,
            "T4SA_PASSWORD": PASSWORD,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }


def _python(name: str) -> Callable[[str, Path, str | None], list[str]]:
    def command(url: str, folder: Path, sha256: str | None) -> list[str]:
        return [sys.executable, __file__, name, url, str(folder), *([sha256] if sha256 else [])]

    return command


def _curl(url: str, folder: Path, _sha256: str | None) -> list[str]:
    words = ["--silent", "--show-error", "--fail", "--location", "--retry", "3", "--continue-at", "-"]
    return ["curl", *words, "--user", f"{USER}:{PASSWORD}", "--output", str(folder / _name(url)), url]


def _wget(url: str, folder: Path, _sha256: str | None) -> list[str]:
    words = ["--quiet", "--continue", "--tries", "4", "--waitretry", "1", "--auth-no-challenge"]
    return ["wget", *words, f"--user={USER}", f"--password={PASSWORD}", f"--directory-prefix={folder}", url]


def _aria2(url: str, folder: Path, sha256: str | None) -> list[str]:
    words = ["--quiet", "--continue", "--split=1", "--file-allocation=none", "--max-tries=4", "--retry-wait=1"]
    words += [f"--checksum=sha-256={sha256}"] if sha256 else []
    return ["aria2c", *words, f"--http-user={USER}", f"--http-passwd={PASSWORD}", f"--dir={folder}", url]


def _name(url: str) -> str:
    return url.rpartition("/")[2]


CLIENTS = (
    Client(name="t4sa-data", command=_python("t4sa-data")),
    Client(name="curl", command=_curl, program="curl"),
    Client(name="wget", command=_wget, program="wget"),
    Client(name="aria2", command=_aria2, program="aria2c"),
    Client(name="pooch", command=_python("pooch")),
    Client(name="huggingface_hub", command=_python("huggingface_hub")),
)


# The Python clients; each returns after its imports, so that these are not part of the time.


def _load_ours() -> Callable[[str, Path, str | None], object]:
    from t4sa_data import catalog
    from t4sa_data.downloading import download

    def bring(url: str, folder: Path, _sha256: str | None) -> object:
        (name,) = [p.name for p in catalog.PACKAGES.values() if p.filename == _name(url)]
        return download([name], folder, base_url=url.rpartition("/")[0], interactive=False)

    return bring


def _load_pooch() -> Callable[[str, Path, str | None], object]:
    import pooch

    def bring(url: str, folder: Path, sha256: str | None) -> object:
        downloader = pooch.HTTPDownloader(auth=(USER, PASSWORD), chunk_size=1 << 20)
        known = f"sha256:{sha256}" if sha256 else None
        return pooch.retrieve(url, known_hash=known, fname=_name(url), path=folder, downloader=downloader)

    return bring


def _load_hub() -> Callable[[str, Path, str | None], object]:
    from huggingface_hub import file_download

    def bring(url: str, folder: Path, _sha256: str | None) -> None:
        header = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{_name(url)}.incomplete"  # as the client's own callers do
        with temporary.open("wb") as file:
            file_download.http_get(url, file, headers={"authorization": header})
        temporary.replace(folder / _name(url))

    return bring


_PYTHON = {"t4sa-data": _load_ours, "pooch": _load_pooch, "huggingface_hub": _load_hub}


def main() -> None:
    """Run one Python client; prints the seconds of the work itself."""
    name, url, folder, *more = sys.argv[1:]
    bring = _PYTHON[name]()
    start = time.perf_counter()
    bring(url, Path(folder), more[0] if more else None)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
