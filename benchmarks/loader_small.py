"""How much faster is `b-t4sa-256` than originals of about 1,000 px, in `t4sa_data.stream`?

    python benchmarks/loader_small.py [--samples 1500] [--rounds 5] [--photos DIR]

The originals are photos whose longer side is brought to 1,000 px and which are then encoded at the quality that gives
about 128 KB on average, the official images' mean being 134 KB; each has a comment of its own. `t4sa prepare` makes
both configs of them. Both are streamed to 224 x 224 in turn, each time in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import common

sys.path.insert(0, str(common.ROOT))
import loader_peers
from loader_input import make_release

SIDE_PX, MEAN_BYTES, GOAL = 1000, 128_000, 5.0
MOST_PHOTOS = 200
"""Distinct pictures; the rest repeats them."""
CONFIGS = ("b-t4sa", "b-t4sa-256")


def make_originals(photos: Path) -> tuple[list[bytes], str]:
    """Pictures of 1,000 px, and a line that says what they are."""
    from PIL import Image

    from t4sa_data.pixels import decode_rgb

    templates = common.load_photos(photos) or [common.draw_jpeg(seed, 500, 375, cells=150) for seed in range(64)]
    templates = templates[:: max(1, len(templates) // MOST_PHOTOS)][:MOST_PHOTOS]
    pictures = []
    for data in templates:
        picture = decode_rgb(data)
        scale = SIDE_PX / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        pictures.append(picture.resize(size, Image.Resampling.LANCZOS))

    def encoded(quality: int) -> list[bytes]:
        buffers = [io.BytesIO() for _ in pictures]
        for picture, buffer in zip(pictures, buffers, strict=True):
            picture.save(buffer, "JPEG", quality=quality)
        return [buffer.getvalue() for buffer in buffers]

    def mean(files: list[bytes]) -> float:
        return sum(map(len, files)) / len(files)

    quality, files = min(((q, encoded(q)) for q in range(70, 98, 3)), key=lambda one: abs(mean(one[1]) - MEAN_BYTES))
    line = f"{len(files)} photos resized to {SIDE_PX} px, quality {quality}, {mean(files) / 1e3:.0f} KB on average"
    return files, line


def repeated(files: list[bytes], num: int) -> Iterator[bytes]:
    """`num` of them, each with a comment of its own."""
    return (common.with_comment(files[i % len(files)], b"%d" % i) for i in range(num))


def be_contestant(folder: str, config: str, seconds: str) -> None:
    """Stream one config; prints samples a second, processor ms a sample, and the mean size of a picture in bytes."""
    import t4sa_data

    settings = {"batch_size": loader_peers.BATCH, "tail": "ragged", "config": config}
    stream = t4sa_data.stream(folder, **settings)
    told = loader_peers.measure(stream, "decode", stream.num_samples, float(seconds))
    cpu_ms = told["cpu"] / told["samples"] * 1e3
    print(told["samples"] / told["seconds"], cpu_ms, float(stream.selection.length.mean()))


def race(folder: Path, rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """Both configs in turn: what `be_contestant` printed, of each round."""
    found: dict[str, list[list[float]]] = {config: [] for config in CONFIGS}
    for number in range(rounds):
        for config in CONFIGS:
            command = [sys.executable, __file__, "--one", str(folder), config, str(seconds)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            found[config].append([float(word) for word in told[-3:]])
            print(f"round {number + 1}/{rounds}: {config}: {told[-3]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    if sys.argv[1:2] == ["--one"]:
        be_contestant(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1500, help="samples of train")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="that are timed of each, at least")
    parser.add_argument("--photos", type=Path, default=common.PHOTOS, help="folder of JPEGs")
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder)")
    chosen = parser.parse_args()
    machine = common.describe_machine(("t4sa-data", "torch", "torchvision", "torchcodec", "pillow"))
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as name:
        files, line = make_originals(chosen.photos)
        num = -(-chosen.samples * 9 // 7)
        make_release(Path(name), repeated(files, num), num, CONFIGS)
        found = race(Path(name) / "release" / "t4sa-wds", chosen.rounds, chosen.seconds)
    rates = {config: [one[0] for one in rounds] for config, rounds in found.items()}
    ratio = [b / a for a, b in zip(*rates.values(), strict=True)]
    rows = [
        [
            config,
            f"{found[config][0][2] / 1e3:.0f}",
            common.spread(rates[config], 0),
            common.spread(beside, 1),
            common.spread([one[1] for one in found[config]]),
        ]
        for config, beside in zip(CONFIGS, ([1.0] * len(ratio), ratio), strict=True)
    ]
    header = ["config", "KB, mean", "samples/s", "beside the originals", "processor ms a sample"]
    command = " ".join(["python benchmarks/loader_small.py", *sys.argv[1:]])
    print(f"{time.strftime('%Y-%m-%d')}.\n\nCommand: `{command}`\n\n{machine}")
    print(f"Input: {chosen.samples:,} samples: {line}; tar; {chosen.rounds} rounds.\n")
    print(common.markdown_table(header, rows))
    met = "met" if statistics.median(ratio) >= GOAL else "missed"
    print(f"\nGoal of {GOAL:g} times the originals' speed: {met} ({common.spread(ratio, 1)}).")


if __name__ == "__main__":
    main()
