"""Virtual environments of the peers that are no dependency of ours: one each, since they disagree about versions.

They lie below `.benchmarks/` (ignored by git) and see the packages of the Python that runs the benchmark, behind their
own: torch is not there twice. What pip cannot bring is skipped, with a line that says so.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import common

PLACE = common.ROOT / ".benchmarks" / "peers"
PACKAGES = {
    "litdata": "litdata",
    "mosaicml-streaming": "mosaicml-streaming",  # its numpy<2.2 and huggingface-hub<0.37 are why there are several
    "spdl": "spdl",
    "megatron-energon": "megatron-energon",
}
SECONDS = 600
"""That pip may take for one of them."""


def python_of(package: str) -> Path | None:
    """The Python of a package's environment, made first where there is none; None: pip cannot bring it."""
    folder = PLACE / package
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done, failed = folder / "done.txt", folder / "failed.txt"
    if not done.exists() and not failed.exists():
        print(f"installing {package}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        _share_packages(folder)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGES[package]]
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            failed.write_text(f"pip took more than {SECONDS} s\n")
        else:
            (done if made.returncode == 0 else failed).write_text(made.stderr)
    return python if done.exists() else None


def _share_packages(folder: Path) -> None:
    """Let an environment see this Python's packages, behind its own."""
    (own,) = folder.glob("lib/python*/site-packages") if sys.platform != "win32" else [folder / "Lib/site-packages"]
    (own / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")


def version_of(package: str) -> str:
    """A package's version in its environment, or that it is not there."""
    python = python_of(package)
    if python is None:
        return f"{package} not installable"
    code = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return f"{package} {found.stdout.strip()}"


if __name__ == "__main__":  # makes them all
    for name in PACKAGES:
        print(version_of(name), flush=True)
