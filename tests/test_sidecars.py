"""Sidecars of the tar shards, against `tarfile` and, where they are installed, the readers they are for."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path

import pytest
import yaml

from tests import sidecar_readers
from tests.sidecar_readers import SPLITS, braces, by_tarfile


@pytest.fixture(scope="module")
def layer(releases: Path) -> Path:
    return releases / "t4sa-wds" / "b-t4sa"


@pytest.fixture(scope="module")
def shards(layer: Path) -> dict[str, list[Path]]:
    return {split: sorted(layer.glob(f"{split}-*.tar")) for split in SPLITS}


def test_an_index_says_where_each_sample_begins_and_the_last_one_ends(shards: dict[str, list[Path]]) -> None:
    """So that one range is one sample, and a shard that was cut shows without being read."""
    for shard in (path for found in shards.values() for path in found):
        index = shard.with_name(f"{shard.name}.idx").read_bytes()
        places = struct.unpack(f"<{len(index) // 8}Q", index)
        with tarfile.open(shard) as tar:
            members = tar.getmembers()
        keys = [member.name.split(".")[0] for member in members]
        starts = [m.offset for i, m in enumerate(members) if i == 0 or keys[i] != keys[i - 1]]
        last = members[-1]
        assert list(places) == [*starts, last.offset_data + -(-last.size // 512) * 512]
        data = shard.read_bytes()
        assert len(data) >= places[-1] + 1024 and not any(data[places[-1] :])
        with tarfile.open(fileobj=io.BytesIO(data[places[0] : places[1]] + bytes(1024))) as tar:
            assert [name.split(".", 1)[1] for name in tar.getnames()] == ["jpg", "json", "cls"]


def test_counts_and_splits_are_those_of_the_shards(layer: Path, shards: dict[str, list[Path]]) -> None:
    counts = {path.name: len(by_tarfile([path])) for found in shards.values() for path in found}
    assert json.loads((layer / "sizes.json").read_bytes()) == counts
    energon = json.loads((layer / ".nv-meta" / ".info.json").read_bytes())
    assert list(energon["shard_counts"].items()) == list(counts.items())
    parts = yaml.safe_load((layer / ".nv-meta" / "split.yaml").read_bytes())
    assert parts == {"exclude": [], "split_parts": {SPLITS[s]: [p.name for p in found] for s, found in shards.items()}}
    for split, info in json.loads((layer / "_info.json").read_bytes())["splits"].items():
        assert info["name"] == split and info["filenames"] == [path.name for path in shards[split]]
        assert info["shard_lengths"] == [counts[name] for name in info["filenames"]]
        assert info["num_samples"] == sum(info["shard_lengths"])
    assert len(shards["train"]) > 1 and len(shards["test"]) == 1
    assert braces(shards["train"]).endswith(
        f"train-{{00000..{len(shards['train']) - 1:05d}}}-of-{len(shards['train']):05d}.tar"
    )


@pytest.mark.parametrize(
    ("reader", "package"), [("timm", "timm"), ("open_clip", "open_clip_train"), ("energon", "megatron")]
)
def test_the_readers_they_are_for(
    reader: str, package: str, layer: Path, shards: dict[str, list[Path]], tmp_path: Path
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: tests/sidecar_readers.py, run by hand, has it")
    extra = [tmp_path] if reader == "energon" else []
    assert getattr(sidecar_readers, f"check_{reader}")(layer, shards, *extra)
