"""The few commands, for every system (Windows has no make): `python tasks.py demo|demo-rebuild|test|test-slow|bench`.

Makes `.venv` beside this file, installs what the command needs (again only when pyproject.toml changed), runs the steps
and stops at the first that fails. Standard library only; pip's own configuration decides where packages come from.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "t4sa-installed.json"

DEMO_EXTRAS = ("build", "train")
REBUILD_EXTRAS = ("build", "label")
TEST_EXTRAS = ("build", "dev", "label", "ray", "train")

STATIC_CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)
# Command -> (extras, steps). A step is a program of .venv and its arguments.
TASKS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "demo": (DEMO_EXTRAS, (("python", "examples/demo.py"),)),
    "demo-rebuild": (REBUILD_EXTRAS, (("python", "examples/demo_rebuild.py"),)),
    "test": (TEST_EXTRAS, (*STATIC_CHECKS, ("pytest", "-n", "auto", "--dist", "loadfile"))),
    "test-slow": (TEST_EXTRAS, (("pytest", "-n", "auto", "--dist", "worksteal", "-m", "slow"),)),
    "bench": (TEST_EXTRAS, (("python", "benchmarks/build.py"),)),
}


def check_python() -> None:
    """Stop with one line when this interpreter is too old."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the message is for those whose Python is older
        found = "{}.{}".format(*sys.version_info[:2])
        sys.exit(
            f"t4sa-data needs Python 3.11 or newer, this is {found} ({sys.executable}). "
            "Name another one: make demo PYTHON=python3.12, or python3.12 tasks.py demo"
        )


def program(name: str) -> str:
    """The path of a program of `.venv`."""
    return str(BIN / (f"{name}.exe" if os.name == "nt" else name))


def make_venv() -> None:
    """Create `.venv`; one that no longer runs (its Python was removed, a killed attempt) is made again."""
    if Path(program("python")).exists() and call("python", "-c", "import pip", quiet=True) == 0:
        return
    print(f"Creating {VENV.name} with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if made.returncode != 0:
        sys.exit("Could not create .venv (on Debian and Ubuntu: install the package python3-venv), then try again.")


def install(extras: tuple[str, ...]) -> None:
    """Install the checkout, editable, with `extras`, unless that was done for this pyproject.toml."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    done = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    have = set(done["extras"]) if done.get("pyproject") == digest else set()
    if have >= set(extras):
        return
    wanted = sorted(have | set(extras))
    print(f"Installing [{', '.join(wanted)}] into {VENV.name}: about 6.7 GB once, most of it torch", flush=True)
    started = time.monotonic()
    STAMP.unlink(missing_ok=True)
    arguments = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    if not sys.stdout.isatty():
        arguments.append("--quiet")  # a log needs no progress bars; a terminal shows them
    if call("python", *arguments, "-e", f".[{','.join(wanted)}]") != 0:
        sys.exit("pip could not install the packages: see its message above, then run the same command again.")
    STAMP.write_text(json.dumps({"pyproject": digest, "extras": wanted}))
    print(f"Installed in {time.monotonic() - started:.0f} s", flush=True)


def call(name: str, *arguments: str, quiet: bool = False) -> int:
    """Run a program of `.venv` in the checkout; its exit status."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return subprocess.run(
        [program(name), *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "VIRTUAL_ENV": str(VENV)},
        stdout=subprocess.DEVNULL if quiet else None,
        stderr=subprocess.DEVNULL if quiet else None,
    ).returncode


def main(arguments: list[str]) -> int:
    """Run one task; exit status 0, the failed step's, or 2 for a wrong command line."""
    check_python()
    if len(arguments) != 1 or arguments[0] not in TASKS:
        print(f"usage: python tasks.py {'|'.join(TASKS)}", file=sys.stderr)
        return 2
    extras, steps = TASKS[arguments[0]]
    make_venv()
    install(extras)
    for name, *rest in steps:
        print(f"$ {' '.join([name, *rest])}", flush=True)
        started = time.monotonic()
        status = call(name, *rest)
        if status != 0:
            print(f"tasks.py {arguments[0]}: {name} failed (exit status {status})", file=sys.stderr)
            return status
        if len(steps) > 1:
            print(f"  {name}: {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
