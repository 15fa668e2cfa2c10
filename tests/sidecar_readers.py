"""Are the sidecars what the readers they are for want? Too heavy for every test run, so by hand, beside `[torch]`:

    pip install timm open_clip_torch megatron-energon pandas
    python tests/sidecar_readers.py

Builds a drawn release and has each reader read each split, with nothing but the sidecars to go by; ends with an error
at the first difference. The table it prints stands in `docs/reference/release-layout.md`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from PIL import Image

from t4sa_data.testing import make_release

Sample = tuple[str, int, str]
"""Key, label, sha256 of the image's bytes."""
SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Ours -> Energon's."""


def by_tarfile(shards: list[Path]) -> dict[str, tuple[int, bytes]]:
    """Key -> label and image, in the order of the shards, read without our code."""
    made: dict[str, tuple[int, bytes]] = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name in members:
            if name.endswith(".jpg"):
                key = name.removesuffix(".jpg")
                made[key] = int(members[f"{key}.cls"]), members[name]
    return made


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pixels(image: Image.Image) -> str:
    return sha256(repr(image.size).encode() + image.convert("RGB").tobytes())


def braces(shards: list[Path]) -> str:
    """All shards of a split as one word, as the card has it."""
    return re.sub(r"-00000-", f"-{{00000..{len(shards) - 1:05d}}}-", str(shards[0]))


# Energon.
def energon_index(layer: Path, scratch: Path) -> str:
    """`.tar.idx` beside each tar: byte for byte what `energon prepare` writes; so are the splits and the counts."""
    for shard in layer.glob("*.tar"):
        shutil.copy(shard, scratch)
    names = {split: [path.name for path in sorted(scratch.glob(f"{split}-*.tar"))] for split in SPLITS}
    words = [f"{SPLITS[split]}:{name}" for split, found in names.items() for name in found]
    program = [str(Path(sys.executable).with_name("energon")), "prepare", str(scratch), "--non-interactive"]
    for word in words:
        program += ["--split-parts", word]
    done = subprocess.run(
        [*program, "--sample-type", "CrudeWebdataset", "--num-workers", "2"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    indices = sorted(scratch.glob("*.tar.idx"))
    assert len(indices) == len(words)
    for index in indices:
        assert index.read_bytes() == (layer / index.name).read_bytes(), index.name
    theirs, ours = (json.loads((folder / ".nv-meta/.info.json").read_bytes()) for folder in (scratch, layer))
    assert theirs["shard_counts"] == ours["shard_counts"]
    return (
        f"{len(indices)} of {len(indices)} `.tar.idx` equal those of `energon prepare`, byte for byte; so do the counts"
    )


def energon_split(layer: Path, split: str) -> Iterator[Sample]:
    from megatron.energon import (
        Cooker,
        CrudeSample,
        DefaultTaskEncoder,
        WorkerConfig,
        get_loader,
        get_train_dataset,
        get_val_dataset,
        stateless,
    )

    @stateless  # type: ignore[untyped-decorator]
    def cook(sample: Any) -> Any:
        return sample

    class Encoder(DefaultTaskEncoder[Any, Any, Any, Any]):  # type: ignore[misc]
        cookers = (Cooker(cook),)
        decoder = None

        def batch(self, samples: list[Any]) -> Any:
            return CrudeSample({"__key__": "batch", "__restore_key__": (), "samples": samples})

    config = WorkerConfig(rank=0, world_size=1, num_workers=0)
    options: dict[str, Any] = {"batch_size": 5, "worker_config": config, "task_encoder": Encoder()}
    if split == "train":
        options |= {"shuffle_buffer_size": None, "max_samples_per_sequence": None, "repeat": False}
        data = get_train_dataset(layer, split_part="train", **options)
    else:
        data = get_val_dataset(layer, split_part=split, **options)
    for batch in get_loader(data):
        for sample in batch["samples"]:
            yield sample["__key__"].rpartition("/")[2], int(sample["cls"]), sha256(sample["jpg"])


def check_energon(layer: Path, shards: dict[str, list[Path]], scratch: Path) -> list[tuple[str, str]]:
    rows = [("`.tar.idx`, `.nv-meta/.info.json`", energon_index(layer, scratch))]
    counts = []
    for split, name in SPLITS.items():
        expected = sorted((key, label, sha256(image)) for key, (label, image) in by_tarfile(shards[split]).items())
        assert sorted(energon_split(layer, name)) == expected, split
        counts.append(f"{name} {len(expected)} in {len(shards[split])} shard(s)")
    rows.append(("`.nv-meta/split.yaml`, `dataset.yaml`", f"{', '.join(counts)}: every key, label and image once"))
    return rows


# timm.
def check_timm(layer: Path, shards: dict[str, list[Path]]) -> list[tuple[str, str]]:
    from timm.data.readers import create_reader

    counts = []
    for split in SPLITS:
        expected = [
            (label, pixels(Image.open(io.BytesIO(image)))) for label, image in by_tarfile(shards[split]).values()
        ]
        reader = create_reader("wds/", str(layer), split=split)
        assert reader.num_samples == len(expected) == len(reader)
        assert [(target, pixels(image)) for image, target in reader] == expected
        by_hand = create_reader("wds/", str(layer), split=f"{Path(braces(shards[split])).name}|{len(expected)}")
        assert by_hand.num_samples == len(expected)
        assert [(target, pixels(image)) for image, target in by_hand] == expected
        train = create_reader("wds/", str(layer), split=split, is_training=True, batch_size=1)
        assert sorted((target, pixels(image)) for image, target in train) == sorted(expected)
        counts.append(f"{split} {len(expected)}")
    return [
        ("`_info.json`", f"{', '.join(counts)}: every label and picture once, in the release's order for evaluation")
    ]


# open_clip.
def check_open_clip(layer: Path, shards: dict[str, list[Path]]) -> list[tuple[str, str]]:
    from open_clip_train.data import get_dataset_size

    counts = []
    for split, found in shards.items():
        assert get_dataset_size(braces(found)) == (len(by_tarfile(found)), len(found))
        counts.append(f"{split} {len(by_tarfile(found))}")
    everything = "::".join(braces(found) for found in shards.values())
    total = sum(len(by_tarfile(found)) for found in shards.values())
    assert get_dataset_size(everything) == (total, sum(map(len, shards.values())))
    return [
        (
            "`sizes.json`",
            f"{', '.join(counts)}, all splits in one word {total}: the counts (its training also needs `.txt`)",
        )
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_release(Path(folder), 120, formats=("wds",), shard_bytes=60_000)
        layer, scratch = Path(folder, "t4sa-wds", "b-t4sa"), Path(folder, "scratch")
        scratch.mkdir()
        shards = {split: sorted(layer.glob(f"{split}-*.tar")) for split in SPLITS}
        assert len(shards["train"]) > 2 and len(shards["test"]) == 1
        print("| reader | sidecar | what was read |\n| --- | --- | --- |")
        for name, rows in (
            (f"Energon {version('megatron-energon')}", check_energon(layer, shards, scratch)),
            (f"timm {version('timm')}", check_timm(layer, shards)),
            (f"open_clip {version('open_clip_torch')}", check_open_clip(layer, shards)),
        ):
            for sidecar, said in rows:
                print(f"| {name} | {sidecar} | {said} |")


if __name__ == "__main__":
    main()
