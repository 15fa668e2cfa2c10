"""Is decoding at a smaller scale (in the DCT domain) worth a `decode="scaled"`?

    python benchmarks/decode_scaled.py [--photos DIR] [--most 48] [--rounds 7]

The exact way decodes whole pictures (`FastDecoder`) and resizes them to 224 px (`fit`). The scaled ways let libjpeg
drop what is not needed: Pillow's draft mode (1/2, 1/4, 1/8) and, where installed, simplejpeg (halves only, which have
code of their own in libjpeg-turbo, or any eighth) and PyTurboJPEG (eighths), at the smallest scale whose sides are not
below 224 px; then the same `fit`. The rule: it is kept only if it
measures 1.3 times the exact way or more at 1,000 px on all cores; else it is recorded here, and left out. It is judged
by processor time, which other load disturbs less.

Contestants in turn in one process, as many threads as cores, then one; a ratio is taken inside a round.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
import numpy as np

SIZE = 224
GOAL = 1.3
GOAL_PX = 1000
LIBRARIES = ("t4sa-data", "torch", "torchcodec", "torchvision", "pillow", "simplejpeg", "PyTurboJPEG", "numpy")
SECONDS = 1.0
"""A measurement goes through the pictures again until so much time is over."""
Way = Callable[[bytes], Any]


def find_ways() -> dict[str, Way]:
    """Bytes to a picture of 224 px, by every way that is installed; the exact one first."""
    import torch

    from t4sa_data.streaming.images import Augment, FastDecoder, Geometry, fit

    geometry = Geometry(size=SIZE, resize="squash", augment=Augment())
    exact = FastDecoder()

    def fitted(decode: Callable[[bytes], Any]) -> Way:
        return lambda data: fit(decode(data), geometry, None)

    def of_pixels(decode: Callable[[bytes], Any]) -> Way:
        return fitted(lambda data: torch.from_numpy(decode(data)).permute(2, 0, 1))

    ways = {f"exact: {exact.name}": fitted(exact)}
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        ways["exact: torchvision"] = fitted(
            lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        )
    except (ImportError, RuntimeError):
        pass
    ways["exact: Pillow"] = of_pixels(lambda data: _pillow(data, is_scaled=False))
    ways["scaled: Pillow's draft"] = of_pixels(lambda data: _pillow(data, is_scaled=True))
    ways |= {f"{name}": of_pixels(decode) for name, decode in _turbo().items()}
    return ways


def _pillow(data: bytes, *, is_scaled: bool) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if is_scaled:
            image.draft("RGB", (SIZE, SIZE))
        return np.array(image.convert("RGB"))


def _turbo() -> dict[str, Callable[[bytes], Any]]:
    """What is installed of libjpeg-turbo's own bindings."""
    found: dict[str, Callable[[bytes], Any]] = {}
    try:
        import simplejpeg

        def halved(data: bytes) -> Any:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            down = next((one for one in (8, 4, 2) if min(height, width) >= one * SIZE), 1)
            return simplejpeg.decode_jpeg(data, "RGB", min_height=-(-height // down), min_width=-(-width // down))

        found["exact: simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
        found["scaled: simplejpeg, halves"] = halved
        found["scaled: simplejpeg, eighths"] = lambda data: simplejpeg.decode_jpeg(
            data, "RGB", min_height=SIZE, min_width=SIZE
        )
    except ImportError:
        pass
    try:
        from turbojpeg import TJPF_RGB, TurboJPEG

        turbo = TurboJPEG()
    except (ImportError, RuntimeError, OSError):  # it needs the system's library
        return found
    factors = sorted(turbo.scaling_factors, key=lambda factor: factor[0] / factor[1])

    def decode(data: bytes) -> Any:
        short = min(turbo.decode_header(data)[:2])
        scale = next(((a, b) for a, b in factors if -(-short * a // b) >= SIZE), (1, 1))
        return turbo.decode(data, TJPF_RGB, scaling_factor=min(scale, (1, 1), key=lambda s: s[0] / s[1]))

    found["scaled: PyTurboJPEG"] = decode
    return found


def pictures(photos: Sequence[bytes], long_px: int, most: int) -> tuple[list[bytes], str]:
    """JPEGs of about that size: photos as they are, where enough have it; else larger ones resized, or drawn ones.

    Returns:
        At most `most` pictures, and what they are.
    """
    from PIL import Image

    sides = [max(Image.open(io.BytesIO(data)).size) for data in photos]
    fitting = [data for data, side in zip(photos, sides, strict=True) if 0.8 * long_px <= side <= 1.28 * long_px]
    if len(fitting) >= most:
        return fitting[:: len(fitting) // most][:most], "photos as they are"
    larger = [data for data, side in zip(photos, sides, strict=True) if side >= 0.9 * long_px]
    if len(larger) < 8:
        return [common.draw_jpeg(seed, long_px, long_px * 3 // 4, cells=150) for seed in range(most)], "drawn pictures"
    made = []
    for data in larger[:most]:
        with Image.open(io.BytesIO(data)) as image:
            scale = long_px / max(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            buffer = io.BytesIO()
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
            made.append(buffer.getvalue())
    return made, "photos resized, quality 85"


def rate(way: Way, data: Sequence[bytes], threads: int) -> tuple[float, float]:
    """Images a second, and processor milliseconds an image."""
    import torch

    count, start, cpu = 0, time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while time.perf_counter() - start < SECONDS:
            count += sum(1 for _ in pool.map(way, data))
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count * 1e3


def differences(way: Way, exact: Way, data: Sequence[bytes]) -> tuple[float, int]:
    """Mean absolute difference of pixels, and the largest, of 255."""
    found = [np.abs(way(one).numpy().astype(np.int16) - exact(one).numpy().astype(np.int16)) for one in data]
    return float(np.mean([one.mean() for one in found])), int(max(one.max() for one in found))


def report(ways: dict[str, Way], data: Sequence[bytes], rounds: int, cores: int) -> tuple[str, dict[str, list[float]]]:
    """The table, and how many images a way gives for the processor time of one by the exact way, on all cores."""
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for threads in (cores, 1):
        for _ in range(rounds):
            for name, way in ways.items():
                seen.setdefault((name, threads), []).append(rate(way, data, threads))
    base = next(iter(ways))
    rows, ratios = [], {}
    for name, way in ways.items():
        row: list[object] = [name]
        for threads in (cores, 1):
            pairs = list(zip(seen[name, threads], seen[base, threads], strict=True))
            row += [common.spread([mine[0] for mine, _ in pairs], 0)]
            row += [common.spread([mine[0] / other[0] for mine, other in pairs])]
            if threads == cores:
                ratios[name] = [other[1] / mine[1] for mine, other in pairs]
                row += [common.spread([mine[1] for mine, _ in pairs], 1), common.spread(ratios[name])]
        mean, largest = differences(way, ways[base], data)
        rows.append([*row, f"{mean:.2f}", largest])
    header = ["decode, then resize to 224", f"images/s, {cores} cores", "beside the first", "processor ms", "beside"]
    header += ["images/s, 1 core", "beside", "mean difference, of 255", "largest"]
    return common.markdown_table(header, rows), ratios


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=common.PHOTOS, help="folder of JPEGs; drawn pictures without")
    parser.add_argument("--most", type=int, default=48, help="pictures of each size")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    from t4sa_data.streaming.options import parse_workers

    machine, cores = common.describe_machine(LIBRARIES), parse_workers(None)[0]
    photos, ways = common.load_photos(chosen.photos), find_ways()
    command = " ".join(["python benchmarks/decode_scaled.py", *sys.argv[1:]])
    print(f"Command: `{command}`\n\n{machine}\n")
    for long_px in (500, GOAL_PX):
        data, what = pictures(photos, long_px, chosen.most)
        table, ratios = report(ways, data, chosen.rounds, cores)
        mean = sum(map(len, data)) / len(data) / 1e3
        print(f"Input: {len(data)} {what}, long side about {long_px} px, {mean:.0f} KB on average; ", end="")
        print(f"{chosen.rounds} rounds.\n\n{table}\n")
        if long_px == GOAL_PX:
            for name, found in ratios.items():
                if name.startswith("scaled"):
                    word = "kept" if statistics.median(found) >= GOAL else "left out"
                    print(
                        f"- {name} at {GOAL_PX} px: {common.spread(found)} of the exact way for its processor time, ",
                        end="",
                    )
                    print(f"{GOAL} needed: {word}.")


if __name__ == "__main__":
    main()
