"""How fast is `t4sa_data.stream`, beside what the machine allows and beside peers?

    python benchmarks/loader.py [--samples 2500] [--rounds 5] [--photos DIR] [--chart docs/images/loader.png]

Two measures: pictures decoded and resized (squash) to 224 x 224 uint8 in batches of 64, and their bytes alone. Every
contestant is a process of its own, and they run in turn; see README.md. In each process an epoch goes first, in which
workers start (its time to the first batch is in the table), then whole epochs are timed; every epoch is counted and
must give every sample once. The limit decodes and resizes the same bytes from memory, with our decoder, in one thread
for each core, and has no loader; for bytes, it reads the ranges in one thread. Ratios are taken inside a round.

Peers that are no dependency of ours are installed into environments of their own below `.benchmarks/`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT))
import loader_venvs
from loader_input import Input, make_input
from loader_ours import LIMIT, OURS
from loader_peers import BATCH, PEERS, SIDE

MODES = {"decode": f"decoded to {SIDE} x {SIDE}", "bytes": "bytes alone"}
MAIN = "t4sa_data.stream, tar"
"""Of ours: the one whose ratios to peers are taken."""
PROCESSES = "t4sa_data.stream, tar, processes"
GOAL_OF_LIMIT, GOAL_BYTES, GOAL_BYTES_AHEAD = 0.95, 30_000, 1.2
MOST_SECONDS = 600
Figures = dict[str, dict[str, list[dict[str, Any]]]]
"""Mode -> contestant -> what each round gave (`loader_peers.measure`)."""


def find_contestants(missing: dict[str, str]) -> dict[str, list[str]]:
    """Name -> how it is started; says who is not there."""
    here = Path(__file__).parent
    found = {name: [sys.executable, str(here / "loader_ours.py"), name] for name in OURS}
    for name, (package, _) in PEERS.items():
        python = Path(sys.executable) if package is None else loader_venvs.python_of(package)
        if python is None or package in missing:
            print(f"{name}: skipped: {missing.get(package or '', 'pip cannot install it')}", file=sys.stderr)
        else:
            found[name] = [str(python), str(here / "loader_peers.py"), name]
    return found


def run(command: list[str], mode: str, given: Input, seconds: float) -> dict[str, Any] | str:
    """One contestant once: its figures, or what went wrong."""
    home = given.folder / "home"
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    arguments = [*command, mode, str(given.folder), str(given.num), str(seconds)]
    try:
        made = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return f"took more than {MOST_SECONDS} s"
    if made.returncode:
        return (made.stderr.strip().splitlines() or ["failed"])[-1][:200]
    told: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    if mode == "bytes" and told["bytes"] != given.num_bytes:
        return f"gave {told['bytes']} bytes of {given.num_bytes}"
    told["rate"] = told["samples"] / told["seconds"]
    return told


def race(given: Input, rounds: int, seconds: float, only: list[str]) -> tuple[Figures, list[str]]:
    """All contestants in turn, `rounds` times for each measure; and a line for each that is out.

    Interrupted, it gives the rounds that are complete.
    """
    out = [f"{name}: {why}" for name, why in given.missing.items()]
    found = find_contestants(given.missing)
    figures: Figures = {mode: {name: [] for name in found if _takes_part(name, mode, only)} for mode in MODES}
    for number in range(rounds):
        done: Figures = {mode: {name: [] for name in figures[mode]} for mode in MODES}
        try:
            for mode, name in [(one, name) for one in MODES for name in figures[one]]:
                told = run(found[name], mode, given, seconds)
                if isinstance(told, str):
                    out.append(f"{name}, {MODES[mode]}: {told}")
                    del figures[mode][name]
                    continue
                done[mode][name].append(told)
                words = f"round {number + 1}/{rounds}, {mode}: {name}: {told['rate']:,.0f}/s"
                print(words, file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            break
        for mode in MODES:
            for name in figures[mode]:
                figures[mode][name] += done[mode][name]
    return figures, out


def _takes_part(name: str, mode: str, only: list[str]) -> bool:
    """Whether a contestant is wanted; processes are for transforms, so that for bytes their start is all one sees."""
    return not (mode == "bytes" and name == PROCESSES) and (not only or any(word in name for word in only))


def rates(rounds: list[dict[str, Any]]) -> list[float]:
    """Samples a second, of each round."""
    return [one["rate"] for one in rounds]


def ratios(ours: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[float]:
    """Of rates, inside rounds."""
    return [a / b for a, b in zip(rates(ours), rates(others), strict=True)]


def table(figures: dict[str, list[dict[str, Any]]], mode: str) -> str:
    """The table of one measure."""
    rows = []
    for name, rounds in figures.items():
        low, high = min(rates(rounds)), max(rates(rounds))
        first, starting = (statistics.median([one[key] for one in rounds]) for key in ("first", "start"))
        num = rounds[0]["samples"] / rounds[0]["epochs"]
        rows.append(
            [
                name if name != LIMIT else {"decode": "limit: no loader, from memory", "bytes": "limit: `pread`"}[mode],
                f"{statistics.median(rates(rounds)):,.0f} ({low:,.0f}-{high:,.0f})",
                common.spread(ratios(rounds, figures[LIMIT])),
                common.spread(ratios(figures[MAIN], rounds)),
                f"{statistics.median([one['cpu'] / one['samples'] for one in rounds]) * 1e3:.3f}",
                f"{first:.2f}",
                f"{num / starting:,.0f}",
            ]
        )
    header = [
        MODES[mode],
        "samples/s",
        "of the limit",
        f"speed of `{MAIN}` beside it",
        "processor ms a sample",
        "first batch, s",
        "samples/s of the first epoch",
    ]
    return common.markdown_table(header, rows)


def judge(figures: Figures) -> list[str]:
    """A line for each goal."""
    decode, bytes_ = figures["decode"], figures["bytes"]
    of_limit = ratios(decode[MAIN], decode[LIMIT])
    met = "met" if statistics.median(of_limit) >= GOAL_OF_LIMIT else "missed"
    lines = [f"Goal, decoded: {GOAL_OF_LIMIT} of the limit: {met} ({common.spread(of_limit, 3)})."]
    best, ahead = fastest_peer(decode)
    met = "met" if statistics.median(ahead) > 1 else "missed"
    lines.append(f"Goal, decoded: ahead of every peer: {met} ({common.spread(ahead, 3)} of the fastest, {best}).")
    best, ahead = fastest_peer(bytes_)
    rate = statistics.median(rates(bytes_[MAIN]))
    met = "met" if rate >= GOAL_BYTES or statistics.median(ahead) >= GOAL_BYTES_AHEAD else "missed"
    lines.append(
        f"Goal, bytes alone: {GOAL_BYTES:,} a second, or {GOAL_BYTES_AHEAD} of every peer: {met} "
        f"({rate:,.0f} a second; {common.spread(ahead, 3)} of the fastest, {best})."
    )
    return lines


def fastest_peer(figures: dict[str, list[dict[str, Any]]]) -> tuple[str, list[float]]:
    """The peer that ours is least ahead of, and how far, in each round."""
    ahead = {name: ratios(figures[MAIN], rounds) for name, rounds in figures.items() if name in PEERS}
    if not ahead:
        return "none", [float("inf")]
    return min(ahead.items(), key=lambda item: statistics.median(item[1]))


def versions() -> str:
    """The machine, and the versions of everything that is compared."""
    names = ("t4sa-data", "torch", "torchvision", "torchcodec", "webdataset", "datasets", "pyarrow", "numpy")
    others = ", ".join(loader_venvs.version_of(package) for package in loader_venvs.PACKAGES)
    return f"{common.describe_machine(names)} In environments of their own: {others}."


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2500, help="samples of an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.5, help="that are timed of each contestant, at least")
    parser.add_argument("--photos", type=Path, default=common.PHOTOS, help="folder of JPEGs")
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder)")
    parser.add_argument("--only", nargs="*", default=[], help="words of the names of contestants, `limit` too")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--chart", type=Path, help="draw the figures there (PNG; needs matplotlib)")
    parser.add_argument("--gpu", action="store_true", help="decoding on the CPU beside decoding on the GPU instead")
    chosen = parser.parse_args()
    if chosen.gpu:
        import loader_gpu

        loader_gpu.main(chosen)
        return
    machine = versions()
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as name:
        given = make_input(Path(name), chosen.samples, chosen.photos)
        figures, out = race(given, chosen.rounds, chosen.seconds, chosen.only)
    command = " ".join(["python benchmarks/loader.py", *sys.argv[1:]])
    print(f"{time.strftime('%Y-%m-%d')}.\n\nCommand: `{command}`\n\n{machine}")
    print(f"Input: {given.line}; batches of {BATCH}; {len(figures['decode'][LIMIT])} rounds.\n")
    print("\n\n".join(table(figures[mode], mode) for mode in MODES))
    print("\n" + "\n".join(judge(figures)))
    if out:
        print("\nNot compared: " + "; ".join(out) + ".")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures))
    if chosen.chart:
        import chart

        chart.draw_loader(figures, chosen.chart)


if __name__ == "__main__":
    main()
