"""The dataset rebuilt from raw tweets, in miniature: label -> build -> check -> ledger, ending in the funnel's figure.

    make demo-rebuild                                  # makes .venv, installs, runs this
    python tasks.py demo-rebuild                       # the same without make
    python examples/demo_rebuild.py [--out demo-rebuild]   # with [build,label] installed

Everything is made on the spot, offline: tweets that nobody wrote, drawn pictures, an image host on this very machine
that has lost some of them. Leaves OUT/dataset (the release, and in its folder `build` report.html and funnel.svg).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NUM_TWEETS = 900
NUM_LOST = 25
"""Pictures that the host does not have any more."""
MARKER = ".made-by-demo"
CONFIG = """\
[collect]
max_bad_share = 0.01

[label]
model = "model"

[select]
threshold = 0.85

[fetch]
host_requests_per_second = 500.0
host_connections = 16
unsafe_allow_loopback = true  # never for real hosts

[split]
by = ["duplicates", "tweet"]

[write]
shard_bytes = 1000000
small = true
"""


def t4sa(*arguments: str | int | Path) -> str:
    """Run the command line as a user does; what it said. Stops the demo with its exit status when it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ t4sa {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "t4sa_data.cli", *words], stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        sys.exit(f"demo: `t4sa {words[0]}` ended with status {done.returncode}; its message stands above.")
    return done.stdout


def start_afresh(out: Path) -> None:
    """Remove what an earlier demo left in `out`, and nothing else."""
    marker = out / MARKER
    if out.exists() and any(out.iterdir()) and not marker.exists():
        sys.exit(f"demo: {out} holds files that no demo made; name another folder with --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.touch()


def routes_of(raw: Any) -> dict[str, Any]:
    """What the image host says of each picture: most are there, some are gone, one is a web page now."""
    from tests.image_host import HTML, image, status

    routes: dict[str, Any] = {path: image(data) for path, data in raw.images.items()}
    paths = list(routes)
    routes.update(dict.fromkeys(paths[7 :: len(paths) // NUM_LOST], status(404)))
    routes[paths[11]] = image(HTML)
    return routes


def a_duplicate_of(release: Path) -> str:
    """The key of an image that is a near-duplicate of another."""
    import pyarrow.parquet as pq

    return str(pq.read_table(release / "t4sa/duplicates/index.parquet", columns=["key"])["key"][0])


def main(argv: list[str] | None = None) -> None:
    """Run every step; the paths of what is worth a look stand at the end."""
    parser = argparse.ArgumentParser(description="The dataset rebuilt from raw tweets, in miniature.")
    parser.add_argument("--out", type=Path, default=Path("demo-rebuild"), help="folder of everything it leaves")
    out = parser.parse_args(argv).out.resolve()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from t4sa_data.testing import make_raw_tweets
    from tests.image_host import ImageHost

    start_afresh(out)
    started = time.perf_counter()
    release, config = out / "dataset", out / "build.toml"
    config.write_text(CONFIG)
    with ImageHost({}) as host:
        raw = make_raw_tweets(out / "raw", NUM_TWEETS, base_url=host.url(""))
        host.routes.update(routes_of(raw))
        print(f"{NUM_TWEETS} tweets in {len(raw.files)} files, {len(raw.images)} pictures on {host.url('/')}")
        t4sa("label", "train", raw.labelled, "--out", out / "model", "--system", "svm")
        t4sa("build", *raw.files, "--out", release, "--config", config)
    t4sa("check", release, "--deep")
    t4sa("ledger", "funnel", release)
    t4sa("ledger", "why", release, a_duplicate_of(release))
    t4sa("ledger", "why", release, next(iter(raw.dropped)))
    figure = release / "build" / "funnel.svg"
    assert re.search(r"<svg[^>]*>", figure.read_text()), "the build left no figure"
    print(f"\n{time.perf_counter() - started:.0f} s. Have a look:")
    print(f"report  {release / 'build' / 'report.html'}\nfunnel  {figure}\ncard    {release / 't4sa' / 'README.md'}")


if __name__ == "__main__":
    main()
