"""The shapes of the double's answers, as a rehearsal sees them. `python -m tests.hub_double.shapes` makes
`hub_scripts/shapes.json` anew: after a change of the double, or of what the Hub scripts ask.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import hub_scripts
from hub_scripts.shapes import MODES, SHAPES_NAME, Shapes, parse_entry, to_json
from tests.hub_double import clients
from tests.hub_double.server import WritableHub

FILE = Path(hub_scripts.__file__).parent / SHAPES_NAME


def read_record(record: Path) -> Shapes:
    """What `--record` wrote."""
    return dict(parse_entry(json.loads(line)) for line in record.read_text().splitlines())


def record(mode: str, folder: Path) -> Shapes:
    """The shapes of a whole rehearsal at the double."""
    home, out = folder / "home", folder / "shapes.jsonl"
    home.mkdir(parents=True)
    with WritableHub(folder / "hub", users={"hf_ours": "ours"}, xet=mode == "xet") as hub:
        env = clients.environment(hub.url, home, token="hf_ours", xet=mode == "xet")
        command = [
            sys.executable,
            "-m",
            "t4sa_data.cli",
            "hub",
            "rehearse",
            "--namespace",
            "ours",
            "--record",
            str(out),
        ]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        if done.returncode not in (0, 1) or re.search("^(error|failed)", done.stderr, re.M):
            raise AssertionError(done.stderr)
        left = [repo for repo in hub.repos if "rehearsal" in repo]
        assert not left, left
    return read_record(out)


def main() -> None:
    """Write the file."""
    by_mode = {}
    for mode in MODES:
        with tempfile.TemporaryDirectory() as folder:
            by_mode[mode] = record(mode, Path(folder))
    FILE.write_text(to_json(by_mode))
    print(f"{FILE.name}: {', '.join(f'{mode} {len(shapes)}' for mode, shapes in by_mode.items())}")


if __name__ == "__main__":
    main()
