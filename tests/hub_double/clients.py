"""Real clients of the double, each in a process of its own: the Hub's client reads its settings when imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

START = """
import json, sys, time

def tell(**said):
    print(json.dumps(said), flush=True)

def outcome(function, *arguments, **named):
    "Its answer, or how it failed."
    try:
        return function(*arguments, **named)
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        return {"error": type(error).__name__, "status": status, "message": str(error).splitlines()[-1]}
"""


def environment(url: str, home: Path, *, token: str | None = None, xet: bool = False, **more: str) -> dict[str, str]:
    """What a client's process is started with: nothing of this machine's settings, no calls but those to `url`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "T4SA_", "HUGGING"))}
    settings = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "USE_TORCH": "0",
    }
    return clean | settings | ({"HF_TOKEN": token} if token else {}) | more


def start(script: str, *arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """A client at work; `tell(**said)` and `outcome(function, ...)` are there for the script."""
    asked = [sys.executable, "-c", START + script, *arguments]
    return subprocess.Popen(asked, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(script: str, *arguments: str, env: dict[str, str]) -> dict[str, Any]:
    """All that a script told, later words over earlier ones."""
    with start(script, *arguments, env=env) as client:
        told, complained = client.communicate(timeout=120)
    assert client.returncode == 0, complained
    said: dict[str, Any] = {}
    for line in told.splitlines():
        if line.startswith("{"):
            said |= json.loads(line)
    return said
