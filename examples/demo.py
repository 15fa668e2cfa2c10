"""The main job from end to end on a miniature: download -> release -> check -> load_dataset -> training -> report.

    make demo                                  # makes .venv, installs, runs this
    python tasks.py demo                       # the same without make
    python examples/demo.py [--out demo]       # with [build,train] installed

Everything is made on the spot, offline; pictures are drawn. A double of the official site, on this very machine, asks
for user name and password, and cuts the connection once. Leaves OUT/overview.png, what was downloaded in OUT/raw, the
release it became in OUT/home, and in OUT/run what `examples/train.py --recipe smoke` made of that: report and figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NUM_IMAGES = 600
NUM_EXTRA = 120
"""Images of a further archive, of tweets that B-T4SA does not hold."""
NUM_STEPS = 60
PICTURES_PER_CLASS = 6
MARKER = ".made-by-demo"
LEAST_ACCURACY = 0.7
"""On the test split, of `train.py --recipe smoke`; guessing gives 0.33, and 63 pictures leave it below 0.5."""
CONFIGS = ("b-t4sa", "t4sa-unique", "t4sa")


@dataclass
class Stages:
    """What was done, how long it took and what came out, for the table at the end."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], Any], say: Callable[[Any], str]) -> Any:
        """Do `work`, time it, note what `say` makes of its result; the result."""
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        result = work()
        self.rows.append((name, time.perf_counter() - started, say(result)))
        return result

    def table(self) -> str:
        """The rows as text, with a line for the sum."""
        total = sum(seconds for _, seconds, _ in self.rows)
        lines = [f"{'stage':<14}{'seconds':>8}  what came out"]
        lines += [f"{name:<14}{seconds:>8.1f}  {words}" for name, seconds, words in self.rows]
        return "\n".join([*lines, f"{'together':<14}{total:>8.1f}"])


def t4sa(*arguments: str | Path) -> None:
    """Run the command line as a user does; stops the demo with its exit status when it fails."""
    words = [str(argument) for argument in arguments]
    print(f"$ t4sa {' '.join(words)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "t4sa_data.cli", *words]).returncode
    if status != 0:
        sys.exit(f"demo: `t4sa {words[0]}` ended with status {status}; its message stands above.")


def start_afresh(out: Path) -> None:
    """Remove what an earlier demo left in `out`, and nothing else."""
    marker = out / MARKER
    if out.exists() and any(out.iterdir()) and not marker.exists():
        sys.exit(f"demo: {out} holds files that no demo made; name another folder with --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.touch()


def make_archives(folder: Path) -> Any:
    """The official packages in miniature, with four broken pictures, plus a further image archive."""
    from t4sa_data.testing import make_official_archive

    return make_official_archive(folder, NUM_IMAGES, num_extra=NUM_EXTRA, lists_inside=True)


def download(source: Path, raw: Path) -> Sequence[Any]:
    """Bring the packages of `source` to `raw` from a site that cuts the connection in the middle; its requests."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from t4sa_data import catalog
    from tests.site_double import Fault, OfficialSite

    names = [package.filename for package in catalog.expand(catalog.PREPARE_PACKAGES)]
    files = {name: (source / name).read_bytes() for name in names}
    cut = Fault(at=len(files[names[0]]) // 2, name=names[0])
    with OfficialSite(files, user="reader", password="miniature", faults=[cut]) as site:
        os.environ |= {"T4SA_USER": site.user, "T4SA_PASSWORD": site.password}
        t4sa("download", "--to", raw, "--base-url", site.url)
    for name, data in files.items():
        assert (raw / name).read_bytes() == data, f"{name} is not what the site has"
    went_on = [request for request in site.requests() if request.range is not None]
    assert len(went_on) == 1, "the connection was not cut, or the download did not go on"
    return site.requests()


def release_words(home: Path) -> str:
    """What the release holds, from its manifests."""
    from t4sa_data.manifest import FOLDERS, load_manifest

    manifests = {fmt: load_manifest(home / FOLDERS[fmt]) for fmt in ("parquet", "wds")}
    num_rows = sum(split.rows for split in manifests["parquet"].splits("t4sa").values())
    num_bad = sum(len(split.quarantined) for split in manifests["parquet"].splits("t4sa").values())
    num_files = sum(len(manifest.files) for manifest in manifests.values())
    same = len({manifest.layers["b-t4sa"].content_digest for manifest in manifests.values()}) == 1
    return f"{num_rows} images in 2 formats, {num_files} files, {num_bad} quarantined, same content: {same}"


def load(home: Path) -> Mapping[str, Mapping[str, Any]]:
    """Config -> split -> dataset, through `load_dataset` with T4SA_HOME = `home`."""
    os.environ["T4SA_HOME"] = str(home)
    import datasets

    from t4sa_data import load_dataset

    datasets.disable_progress_bars()

    loaded = {config: load_dataset("t4sa", config) for config in CONFIGS}
    for config, splits in loaded.items():
        print(f"{config:<12}", "  ".join(f"{split} {len(rows)}" for split, rows in splits.items()))
    return loaded


def draw_overview(path: Path, rows: Any, losses: Sequence[float], accuracy: float) -> None:
    """One sheet: sample pictures of each class with their confidence, and the loss curve."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from t4sa_data.catalog import CLASSES

    labels = rows["label"][:]
    figure = plt.figure(figsize=(12, 8.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.1, 1])
    top.suptitle("B-T4SA in miniature, train split: label and confidence of the text labeller")
    axes = top.subplots(len(CLASSES), PICTURES_PER_CLASS)
    for label, (name, line) in enumerate(zip(CLASSES, axes, strict=True)):
        positions = [i for i, found in enumerate(labels) if found == label][:PICTURES_PER_CLASS]
        for axis, row in zip(line, rows.select(positions), strict=True):
            axis.imshow(row["image"].resize((120, 120)))
            axis.set_title(f"{name} {row['confidence']:.3f}", fontsize=10)
            axis.set_axis_off()
    axis = bottom.subplots()
    axis.plot(range(len(losses)), losses, color="tab:blue")
    axis.axhline(1.0986, color="grey", linestyle="--", linewidth=1)
    axis.text(len(losses) - 1, 1.12, "ln 3: guessing", ha="right", va="bottom", color="grey", fontsize=9)
    axis.set(xlabel="optimisation step", ylabel="cross-entropy (nats)", ylim=(0, max(1.3, *losses)))
    axis.set_title(f"A small network trained from load_dataset; {accuracy:.0%} right on the test split", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def fine_tune(home: Path, run: Path) -> float:
    """The trainer on the release, as a user calls it; accuracy of its report on the test split (0 to 1)."""
    words = ["--recipe", "smoke", "--data", str(home), "--out", str(run)]
    print(f"$ python examples/train.py {' '.join(words)}", flush=True)
    status = subprocess.run([sys.executable, str(Path(__file__).with_name("train.py")), *words]).returncode
    if status != 0:
        sys.exit(f"demo: train.py ended with status {status}; its message stands above.")
    found = json.loads((run / "evaluation/results.json").read_text())["b-t4sa"]
    accuracy = float(found["accuracy"])
    assert accuracy > LEAST_ACCURACY, f"train.py learned too little: {accuracy:.1%} on the test split"
    for name in ("report.md", "curves.png", "confusion.png", "inputs.png"):
        assert (run / name).is_file(), f"train.py left no {name}"
    return accuracy


def main(argv: list[str] | None = None) -> None:
    """Run every stage, print the table, leave picture, report and figures."""
    parser = argparse.ArgumentParser(description="The main job from end to end on a miniature.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of everything it leaves")
    out = parser.parse_args(argv).out.resolve()
    home, raw, source = out / "home", out / "raw", out / "site"
    start_afresh(out)
    os.environ["HF_DATASETS_CACHE"] = str(out / "cache")  # leave nothing outside `out`
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads spin: ten times slower beside other work
    stages = Stages()
    stages.run(
        "archives",
        lambda: make_archives(source),
        lambda made: f"{len(made.images)} images listed, {len(made.broken)} of them broken; {len(made.extra)} more",
    )
    stages.run(
        "download",
        lambda: download(source, raw),
        lambda asked: f"{len(list(raw.glob('*_*.*')))} packages in {len(asked)} requests: cut once, went on",
    )
    more = ("--images", source / "t4sa_more_imgs.tar")
    stages.run(
        "prepare", lambda: t4sa("prepare", raw, "--out", home, "--workers", "2", *more), lambda _: release_words(home)
    )
    stages.run("check --deep", lambda: t4sa("check", home, "--deep"), lambda _: "every byte and every picture sound")
    loaded = stages.run("load_dataset", lambda: load(home), lambda made: f"{len(made)} configs: {', '.join(made)}")

    import quickstart

    splits = loaded["b-t4sa"]
    losses, accuracy = stages.run(
        "training",
        lambda: quickstart.train(splits["train"], splits["test"], num_steps=NUM_STEPS),
        lambda r: f"loss {r[0][0]:.2f} -> {r[0][-1]:.2f} in {len(r[0])} steps, {r[1]:.0%} right on the test split",
    )
    picture = out / "overview.png"
    stages.run("picture", lambda: draw_overview(picture, splits["train"], losses, accuracy), lambda _: str(picture))
    run = out / "run"
    stages.run("train.py", lambda: fine_tune(home, run), lambda right: f"{right:.0%} right on the test split")
    print("\n" + stages.table())
    print(f"\nreport of train.py: {run / 'report.md'}\nits figure:         {run / 'curves.png'}")


if __name__ == "__main__":
    main()
