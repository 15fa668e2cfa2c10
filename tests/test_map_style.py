"""`T4SA`: what torchvision's users do with a dataset, here with real workers."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torch.utils.data import DataLoader, Subset, WeightedRandomSampler, random_split  # noqa: E402

import t4sa_data  # noqa: E402
from t4sa_data.errors import BadImage, NotPublished, ReleaseNotFound, ShardError  # noqa: E402
from t4sa_data.pixels import decode_rgb  # noqa: E402
from tests.streaming_helpers import small  # noqa: E402


@pytest.fixture(scope="module")
def train(truth: pa.Table) -> list[dict[str, Any]]:
    return [row for row in truth.to_pylist() if row["split"] == "train"]


@pytest.mark.parametrize("folder", ["", "t4sa", "t4sa-wds"])
def test_pictures_and_labels_are_those_of_the_release(releases: Path, train: list[dict[str, Any]], folder: str) -> None:
    data = t4sa_data.T4SA(releases / folder)
    assert len(data) == len(train)
    assert data.samples == [(row["key"], row["label"]) for row in train]
    assert data.targets == [row["label"] for row in train]
    assert data.classes == ["negative", "neutral", "positive"]
    assert data.class_to_idx == {"negative": 0, "neutral": 1, "positive": 2}
    for index in (0, 5, len(train) - 1, -1, -len(train)):
        image, label = data[index]
        assert image.mode == "RGB"
        assert label == train[index]["label"]
        assert np.array_equal(np.asarray(image), np.asarray(decode_rgb(train[index]["bytes"])))
    for index in (len(train), -len(train) - 1):
        with pytest.raises(IndexError):
            data[index]
    assert len(list(data)) == len(train)  # IndexError ends an iteration
    data.close()


def test_transforms_where_and_repr(releases: Path, train: list[dict[str, Any]]) -> None:
    data = t4sa_data.T4SA(
        releases, "train", small, lambda label: label * 10, where={"classes": ("negative", "positive")}
    )
    assert data.classes == ["negative", "positive"]
    assert {label for _, label in (data[i] for i in range(len(data)))} == {0, 10}
    assert len(data) == sum(row["label"] != 1 for row in train)
    both = t4sa_data.T4SA(releases, transforms=lambda image, label: (image.size, -label))
    assert both[3] == ((train[3]["width"], train[3]["height"]), -train[3]["label"])
    words = repr(t4sa_data.T4SA(releases, "test", small))
    assert words.startswith("Dataset T4SA\n    Number of datapoints: ")
    assert "Split: test" in words
    assert "StandardTransform" in words
    data.close(), both.close()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_each_sample_once(releases: Path, train: list[dict[str, Any]], context: str) -> None:
    data = t4sa_data.T4SA(releases, transform=small)
    data[0]  # a reader is open when the workers are made
    num_workers = 2 if context == "fork" else 1  # each that is spawned imports torch
    loader = DataLoader(data, batch_size=5, num_workers=num_workers, multiprocessing_context=context)
    images = torch.cat([images for images, _ in loader])
    expected = torch.stack([small(decode_rgb(row["bytes"])) for row in train])
    assert torch.equal(images, expected)
    data.close()


def test_what_torch_offers_works(releases: Path, train: list[dict[str, Any]]) -> None:
    data = t4sa_data.T4SA(releases, transform=small)
    assert len(Subset(data, range(7))) == 7
    assert [len(part) for part in random_split(data, [len(train) - 5, 5])] == [len(train) - 5, 5]
    weights = [1.0 if label == 2 else 0.0 for label in data.targets]
    loader = DataLoader(data, batch_size=4, sampler=WeightedRandomSampler(weights, 12))
    assert {int(label) for _, labels in loader for label in labels} == {2}
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[2][0], data[2][0])
    data.close(), copy.close()


def test_a_fork_opens_its_own_files(releases: Path) -> None:
    data = t4sa_data.T4SA(releases, transform=small)
    expected = data[1][0]
    reader = data._source
    pid = os.fork()
    if pid == 0:
        os._exit(0 if torch.equal(data[1][0], expected) and data._source is not reader else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert data._source is reader
    data.close()


def test_damage_names_key_file_and_byte(releases: Path, tmp_path: Path) -> None:
    shutil.copytree(releases / "t4sa-wds", tmp_path / "t4sa-wds")
    data = t4sa_data.T4SA(tmp_path)
    row = data._selection.ranges(np.array([0]))[0]
    shard = tmp_path / "t4sa-wds" / row.file
    content = bytearray(shard.read_bytes())
    content[row.offset : row.offset + row.length] = bytes(row.length)
    shard.write_bytes(content)
    with pytest.raises(BadImage, match=rf"{data.samples[0][0]}, {row.file}, byte {row.offset}"):
        data[0]
    data.close()
    shard.write_bytes(content[:-1])
    with pytest.raises(ShardError, match="size"):
        t4sa_data.T4SA(tmp_path)[0]


def test_nothing_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReleaseNotFound, match=r"download=True.*t4sa get"):
        t4sa_data.T4SA(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_download_that_finds_no_repository_names_the_way(tmp_path: Path) -> None:
    """In a process of its own: the Hub's client reads its settings when it is imported."""
    import subprocess
    import sys

    from tests.hub_double import Hub

    with Hub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "T4SA_"))}
        script = f"import t4sa_data; t4sa_data.T4SA({str(tmp_path / 'root')!r}, download=True)"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**clean, **environment, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert NotPublished.__name__ in done.stderr
    assert "t4sa get" in done.stderr
