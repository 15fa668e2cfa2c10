"""Does the data keep the trainer's network busy? Training from shards beside the same steps on a batch that stays on
the device, and beside ImageFolder + DataLoader and webdataset feeding the very same steps.

    python benchmarks/train.py                                    # every recipe on a GPU; `smoke` alone without one
    python benchmarks/train.py --recipes vgg19-ft-a --rounds 5 --seconds 5 --compile

A step is `examples/train.py`'s own: 64 pictures in micro-batches of 32, mixed precision as `--amp auto` chooses. Every
contestant gives uint8 pictures that are squashed to 256, cropped and mirrored; peers decode and resize with
torchvision's fast functions in one worker process a core, and pin their batches. Rounds go in turn; ratios are taken
inside a round. Where decoding alone, with nothing done to the pictures, is slower than the network, the cores are what
limits, and the ratio to that rate is the one that counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT))
import loader_input
import synthetic
import torch

from examples.training import data
from examples.training.config import Config, load_recipe
from examples.training.journal import Journal
from examples.training.machine import Machine, choose_amp, choose_device, synchronize
from t4sa_data.catalog import CLASSES

RECIPES = ("vgg19-ft-a", "vgg19-ft-f", "hybrid-ft-a", "hybrid-ft-f", "googlenet", "convnext-tiny")
CONFIGS = ("b-t4sa-256", "b-t4sa")
GOALS = {"vgg19-ft-a": 0.97, "vgg19-ft-f": 0.97, "hybrid-ft-a": 0.90, "hybrid-ft-f": 0.90}
"""Of the steps alone, from b-t4sa-256, on one H100-class GPU."""
WARM_STEPS = 12
BUFFER = 1000
EPOCH = 100_000
"""Samples of an epoch: the real one has 368,586. Between epochs a loader empties and fills again (0.1 s here), which a
short one would show as waiting."""
Batches = Iterator[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """What a contestant gave in one round."""

    samples: float
    """A second."""
    waiting: float
    """Share of the time in which the device had nothing to do but wait for a batch."""


def forever(loader: Any) -> Batches:
    """Epoch after epoch."""
    while True:
        yield from loader


def timed(run: Any, batches: Batches, seconds: float) -> Rate:
    """Steps on batches for a while."""
    device, steps, waited = run.where.device, 0, 0.0
    for _ in range(WARM_STEPS):
        run.train_step(next(batches), 0.0)
    synchronize(device)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked if run.device_is_idle() else 0.0
        run.train_step(batch, 0.0)
        steps += 1
    synchronize(device)
    elapsed = time.perf_counter() - start
    return Rate(samples=steps * run.config.global_batch / elapsed, waiting=waited / elapsed)


def drained(batches: Batches, device: torch.device, seconds: float) -> Rate:
    """Batches that arrive, nothing done with them."""
    num = 0
    next(batches)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        num += len(next(batches)["label"])
    synchronize(device)
    return Rate(samples=num / (time.perf_counter() - start), waiting=1.0)


def decoded(data: bytes, resize_px: int, crop_px: int) -> torch.Tensor:
    """uint8 [3, crop, crop] of a picture's bytes, as torchvision's users write it for speed."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    image = v2.functional.resize(image, [resize_px, resize_px], antialias=True)
    return v2.RandomHorizontalFlip()(v2.RandomCrop(crop_px)(image))


def on_device(loader: Any, device: torch.device) -> Batches:
    """A peer's batches in the trainer's shape, copied without waiting."""
    for pictures, label in forever(loader):
        yield {
            "image": torch.as_tensor(pictures).to(device, non_blocking=True),
            "label": torch.as_tensor(label).to(device, non_blocking=True),
            "key": [""] * len(label),
        }


def workers() -> dict[str, Any]:
    """Worker processes for a peer: one a core, kept."""
    return {"num_workers": common.num_cores(), "persistent_workers": True}


def image_folder(folder: Path, run: Any) -> Batches:
    """torchvision's ImageFolder and PyTorch's DataLoader."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision.datasets import ImageFolder

    sizes = run.config.resize_px, run.model.input.side_px
    dataset = ImageFolder(folder, loader=lambda path: decoded(Path(path).read_bytes(), *sizes))
    pins = run.where.device.type == "cuda"
    batch = run.config.global_batch
    sampler = RandomSampler(dataset, replacement=True, num_samples=EPOCH)
    loader = DataLoader(dataset, batch_size=batch, sampler=sampler, drop_last=True, pin_memory=pins, **workers())
    return on_device(loader, run.where.device)


def webdataset(folder: Path, run: Any) -> Batches:
    """webdataset over tar files of its own, batches made in the workers."""
    import webdataset as wds

    sizes, batch = (run.config.resize_px, run.model.input.side_px), run.config.global_batch
    files = sorted(map(str, folder.glob("*.tar")))
    files *= max(1, EPOCH // len(list((folder.parent / folder.name.replace("tars", "jpegs")).rglob("*.jpg"))))
    made = wds.WebDataset(files, shardshuffle=100, empty_check=False)
    made = made.shuffle(BUFFER).to_tuple("jpg", "cls")
    made = made.map_tuple(lambda data: decoded(data, *sizes), int).batched(batch, partial=False)
    pins = run.where.device.type == "cuda"
    loader = wds.WebLoader(made, batch_size=None, pin_memory=pins, **workers())
    return on_device(loader, run.where.device)


PEERS: dict[str, tuple[str, Callable[[Path, Any], Batches]]] = {
    "ImageFolder + DataLoader": ("jpegs", image_folder),
    "webdataset": ("tars", webdataset),
}
"""Name -> folder of its files, and what makes its batches."""


def make_run(recipe: str, folder: Path, config: str, out: Path, chosen: argparse.Namespace) -> Any:
    """The trainer, set up as its command does, with weights of its own."""
    from examples.train import Run

    device = choose_device("auto")
    amp, reason = choose_amp(chosen.amp, device)
    made: Config = dataclasses.replace(
        load_recipe(recipe),
        data=str(folder / "release"),
        config=config,
        init="scratch",
        out=out / f"{recipe}-{config}",
        device=device.type,
        compile=chosen.compile,
        log_every=1_000_000,
        checkpoint_every=1_000_000,
    )
    # Nothing is evaluated here, and the input has no other split.
    data.eval_stream = lambda config, given, machine: data.train_stream(config, given.side_px, machine)
    run = Run(made, Machine(device=device, amp=amp, reason=reason))
    run.journal = Journal(made, run.where, first_step=1, total_steps=1 << 40)
    run.progress.step = 1  # no picture of the inputs
    run.model.network.train()
    return run


def race(recipe: str, folder: Path, out: Path, chosen: argparse.Namespace) -> dict[str, list[Rate]]:
    """One recipe: the steps alone, ours and the peers from both configs, in turn."""
    found: dict[str, list[Rate]] = {}
    run = make_run(recipe, folder, CONFIGS[0], out, chosen)
    kept = next(iter(run.batches))
    sources: dict[str, Callable[[], Rate]] = {"a batch that stays": lambda: timed(run, forever([kept]), chosen.seconds)}
    streams: list[Batches] = []
    for config in CONFIGS:
        ours = make_run(recipe, folder, config, out, chosen)
        batches = forever(ours.batches)
        streams.append(batches)
        sources[f"{config}: arriving alone"] = lambda b=batches: drained(b, run.where.device, chosen.seconds)
        sources[f"{config}: t4sa_data.stream"] = lambda b=batches: timed(run, b, chosen.seconds)
        for name, (kind, make) in PEERS.items():
            peer = make(folder / f"{kind}-{config}", run)
            streams.append(peer)
            sources[f"{config}: {name}"] = lambda b=peer: timed(run, b, chosen.seconds)
    for number in range(chosen.rounds):
        for name, measure in sources.items():
            found.setdefault(name, []).append(measure())
            words = f"{recipe}, round {number + 1}/{chosen.rounds}: {name}: {found[name][-1].samples:,.0f}/s"
            print(words, file=sys.stderr, flush=True)
    for batches in streams:
        batches.close()  # type: ignore[attr-defined]
    return found


def table(recipe: str, found: dict[str, list[Rate]]) -> str:
    """A recipe's figures."""
    alone = found["a batch that stays"]
    rows = []
    for name, rates in found.items():
        shares = [one.samples / limit.samples for one, limit in zip(rates, alone, strict=True)]
        config = name.partition(":")[0]
        arriving = found.get(f"{config}: arriving alone", alone)
        possible = [min(a.samples, limit.samples) for a, limit in zip(arriving, alone, strict=True)]
        of_possible = [one.samples / most for one, most in zip(rates, possible, strict=True)]
        rows.append(
            [
                name,
                common.spread([one.samples for one in rates], 0),
                common.spread(shares, 3),
                common.spread(of_possible, 3),
                common.spread([100 * one.waiting for one in rates], 1),
            ]
        )
    header = [recipe, "pictures/s", "of the steps alone", "of the lower of steps and decoding", "waiting, %"]
    return common.markdown_table(header, rows)


def judge(recipe: str, found: dict[str, list[Rate]], on_gpu: bool) -> str:
    """A line for the goal."""
    if recipe not in GOALS or not on_gpu:
        return ""
    alone, ours = found["a batch that stays"], found[f"{CONFIGS[0]}: t4sa_data.stream"]
    shares = sorted(one.samples / limit.samples for one, limit in zip(ours, alone, strict=True))
    median = shares[len(shares) // 2]
    met = "met" if median >= GOALS[recipe] else "missed"
    return f"Goal, {recipe} from {CONFIGS[0]}: {GOALS[recipe]} of the steps alone: {met} ({median:.3f}).\n"


def make_input(work: Path, num: int, photos: Path) -> str:
    """A release with both configs below `work`, whose epochs are long, and the same pictures as the peers want them; a
    line that says so."""
    from builders.small import make_small

    given, line = common.photo_images(num, photos)
    originals = list(given)
    num_distinct = len(common.load_photos(photos)) or num
    small = [make_small(one) for one in originals[:num_distinct]]
    pictures = {
        "b-t4sa": originals,
        "b-t4sa-256": [common.with_comment(small[i % num_distinct], b"%d" % i) for i in range(num)],
    }
    synthetic.make_shared(work / "release", dict.fromkeys(CONFIGS, EPOCH), pictures)
    for config in CONFIGS:
        samples = [(f"{i:06d}", i % len(CLASSES), data) for i, data in enumerate(pictures[config])]
        loader_input.write_jpegs(work / f"jpegs-{config}", samples)
        loader_input.write_tars(work / f"tars-{config}", samples)
    return f"{num:,} pictures of {line}; an epoch visits them until it has {EPOCH:,}"


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--recipes", default=",".join(RECIPES if on_gpu else ("smoke",)))
    parser.add_argument("--samples", type=int, default=4_000 if on_gpu else 1_000, help="pictures of the input")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="that are timed of each contestant, a round")
    parser.add_argument("--photos", type=Path, default=common.PHOTOS, help="folder of JPEGs")
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder)")
    parser.add_argument("--amp", default="auto")
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    machine = common.describe_machine(("t4sa-data", "torch", "torchvision", "torchcodec", "webdataset"))
    name = torch.cuda.get_device_name() if on_gpu else "no GPU"
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as work:
        line = make_input(Path(work), chosen.samples, chosen.photos)
        print(
            f"Command: `python benchmarks/train.py {' '.join(sys.argv[1:])}`\n\n{machine} {name}.\n\nInput: {line}.\n"
        )
        for recipe in chosen.recipes.split(","):
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            found = race(recipe, Path(work), Path(work), chosen)
            peak = f"Peak memory of the GPU: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB. " if on_gpu else ""
            print(f"{table(recipe, found)}\n\n{peak}{judge(recipe, found, on_gpu)}", flush=True)


if __name__ == "__main__":
    main()
