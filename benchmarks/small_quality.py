"""Which JPEG quality for `b-t4sa-256`? PSNR and SSIM against the resized pixels, and bytes, for several.

`python benchmarks/small_quality.py [--photos DIR] [--most N]` prints Markdown for RESULTS.md.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from pathlib import Path

import common
import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(common.ROOT))
from builders.small import encode, resize
from t4sa_data.pixels import decode_rgb

CHOICES = [(q, "4:2:0") for q in (75, 80, 85, 90, 95)] + [(q, "4:4:4") for q in (85, 90, 95)]
Pixels = npt.NDArray[np.float64]


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal to noise over all channels, dB."""
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((one - other) ** 2))))


def _blur(plane_HW: Pixels) -> Pixels:
    """An 11-tap Gaussian of sigma 1.5, only where it fits."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    for axis in (0, 1):
        plane_HW = np.lib.stride_tricks.sliding_window_view(plane_HW, 11, axis) @ taps
    return plane_HW


def ssim(one_HW: Pixels, other_HW: Pixels) -> float:
    """Structural similarity of two grey pictures (Z. Wang et al., IEEE TIP 13(4), 2004; K1 = 0.01, K2 = 0.03)."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(one_HW), _blur(other_HW)
    var_a, var_b = _blur(one_HW**2) - mean_a**2, _blur(other_HW**2) - mean_b**2
    both = _blur(one_HW * other_HW) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float(np.mean(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=common.PHOTOS)
    parser.add_argument("--most", type=int, default=300)
    given = parser.parse_args()
    photos = common.load_photos(given.photos)
    photos = photos[:: max(1, len(photos) // given.most)][: given.most]
    decoded = [decode_rgb(data) for data in photos]
    start = time.process_time()
    small = [resize(picture) for picture in decoded]
    resize_ms = (time.process_time() - start) / len(small) * 1e3
    print(f"{common.describe_machine(('pillow', 'numpy'))}")
    mean = sum(map(len, photos)) / len(photos)
    sides = statistics.median(min(picture.size) for picture in decoded)
    print(f"Input: {len(photos)} photos, {mean / 1e3:.1f} KB on average, short side {sides:.0f} px in the middle.")
    print(f"Resize: {resize_ms:.1f} ms an image.\n")
    print(
        "| quality | subsampling | KB, mean | of the original "
        "| PSNR, dB: median (5 %) | SSIM: median (5 %) | encode, ms |"
    )
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for quality, subsampling in CHOICES:
        start = time.process_time()
        files = [encode(picture, quality, subsampling) for picture in small]
        encode_ms = (time.process_time() - start) / len(files) * 1e3
        psnrs, ssims = [], []
        for picture, data in zip(small, files, strict=True):
            with Image.open(io.BytesIO(data)) as again:
                psnrs.append(psnr(np.asarray(picture, np.float64), np.asarray(again, np.float64)))
                ssims.append(ssim(*(np.asarray(p.convert("L"), np.float64) for p in (picture, again))))
        num_bytes = sum(map(len, files)) / len(files)
        print(
            f"| {quality} | {subsampling} | {num_bytes / 1e3:.1f} | {num_bytes / mean:.3f} "
            f"| {np.median(psnrs):.1f} ({np.percentile(psnrs, 5):.1f}) "
            f"| {np.median(ssims):.4f} ({np.percentile(ssims, 5):.4f}) | {encode_ms:.1f} |"
        )


if __name__ == "__main__":
    main()
