"""The loader: the same bytes from every format, on any number of workers and ranks, and exact on resume."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

pytest.importorskip("torch")
import torch

from t4sa_data import stream
from t4sa_data.errors import BadOption, ShardedTwice, StateMismatch, UnseededTransform
from t4sa_data.pixels import decode_rgb
from t4sa_data.streaming.images import Augment
from t4sa_data.streaming.ranks import find_rank
from t4sa_data.testing import OfficialArchive, assert_resume_exact, make_release
from tests.helpers_release import build, layer_truth
from tests.streaming_helpers import (
    as_dict,
    epoch_of,
    frozen,
    global_noise,
    halved,
    keys_of,
    noisy,
    numpy_noise,
)

Row = dict[str, Any]
SIZE = 24
RANDOM = {"resize": "random_resized_crop", "augment": Augment(flip=True)}


@pytest.fixture(scope="module")
def places(archive: OfficialArchive, built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format -> where a release of the same samples lies."""
    raw = Path(shutil.copytree(archive.folder, tmp_path_factory.mktemp("place") / "raw"))
    build(raw, raw, in_place=True, images=())
    return {"parquet": built / "t4sa", "tar": built / "t4sa-wds", "in place": raw}


@pytest.fixture(scope="module")
def path(places: dict[str, Path]) -> Path:
    return places["parquet"]


@pytest.fixture(scope="module")
def truth(archive: OfficialArchive) -> dict[str, Row]:
    """Key -> what the archive says of the train images of B-T4SA."""
    return {key: row for key, row in layer_truth(archive, "b-t4sa").items() if row["split"] == "train"}


def loader_of(path: Path, **options: Any) -> Any:
    return stream(path, **{"batch_size": 8, "size": SIZE, "workers": 2, **options})


# One epoch, whatever holds it and whoever works on it.
@pytest.mark.parametrize(
    "options",
    [{}, RANDOM, {"shuffle": "block", "tail": "wrap"}, {"resize": "none", "shuffle": False}, {"decode": None}],
    ids=str,
)
def test_the_same_epoch_from_every_format(places: dict[str, Path], options: dict[str, Any]) -> None:
    made = {name: loader_of(path, columns=("text", "sha256"), **options) for name, path in places.items()}
    epochs = {name: epoch_of(loader) for name, loader in made.items()}
    assert epochs["parquet"] == epochs["tar"] == epochs["in place"]
    assert len(epochs["tar"]) == len(made["tar"]) > 4
    assert len({loader.plan_digest for loader in made.values()}) == 1


def test_batches_hold_what_the_archive_says(path: Path, truth: dict[str, Row]) -> None:
    seen = []
    for batch in loader_of(path, tail="ragged", resize="none", columns=("text", "tweet_id")):
        assert batch["label"].dtype == batch["position"].dtype == torch.int64
        assert batch["probabilities"].dtype == torch.float32 and batch["probabilities"].shape == (len(batch["key"]), 3)
        for i, key in enumerate(batch["key"]):
            row = truth[key]
            assert (batch["label"][i], batch["text"][i], batch["tweet_id"][i]) == (
                row["label"],
                row["text"],
                row["tweet_id"],
            )
            assert batch["probabilities"][i].tolist() == [row[name] for name in ("negative", "neutral", "positive")]
            assert np.array_equal(batch["image"][i].permute(1, 2, 0), np.asarray(decode_rgb(row["image"])))
        seen += batch["key"]
    assert sorted(seen) == sorted(truth)


def test_bytes_are_the_originals(path: Path, truth: dict[str, Row]) -> None:
    for batch in loader_of(path, decode=None):
        for key, data in zip(batch["key"], batch["image"], strict=True):
            assert hashlib.sha256(data).hexdigest() == truth[key]["sha256"]


@pytest.mark.parametrize("options", [RANDOM, {"transform": noisy, **RANDOM}], ids=["random", "transform"])
def test_the_same_epoch_from_any_workers(path: Path, options: dict[str, Any]) -> None:
    kinds = [1, 2, 5, None, *(["processes:1"] if "transform" in options else [])]
    made = [epoch_of(loader_of(path, workers=workers, **options)) for workers in kinds]
    assert all(one == made[0] for one in made)


@pytest.mark.parametrize("resize", ["squash", "center_crop", "random_resized_crop"])
@pytest.mark.parametrize("augment", [None, "flip", Augment(flip=True, crop=17), Augment(crop=SIZE)], ids=str)
def test_pictures_of_a_batch(path: Path, resize: str, augment: Any) -> None:
    """uint8, [B, 3, S, S], channels_last; another epoch draws anew; on the device, the same to the bit."""
    side = augment.crop if isinstance(augment, Augment) and augment.crop else SIZE
    options = {"resize": resize, "augment": augment, "shuffle": False, "tail": "drop"}
    one, two = loader_of(path, **options), loader_of(path, epoch=1, **options)
    batches = list(one)
    for batch in batches:
        assert batch["image"].shape == (8, 3, side, side) and batch["image"].dtype == torch.uint8
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    is_random = resize == "random_resized_crop" or (augment is not None and (augment == "flip" or augment.flip))
    assert (epoch_of(two) == [frozen(batch) for batch in batches]) == (not is_random)
    if augment is None:
        return
    kept = (
        {name: getattr(augment, name) for name in ("flip", "crop")} if isinstance(augment, Augment) else {"flip": True}
    )
    on_device = loader_of(path, **{**options, "augment": Augment(on_device=True, **kept)})
    for batch, raw, moved in zip(batches, on_device, on_device.to("cpu"), strict=True):
        assert raw["image"].shape[2:] == (SIZE, SIZE) and len(raw["flip"]) == len(raw["crop"]) == 8
        assert torch.equal(moved["image"], batch["image"]) and "flip" not in moved
        loop = [
            torch.stack([x[:, t : t + side, l : l + side].flip(2) if f else x[:, t : t + side, l : l + side]])
            for x, (t, l), f in zip(raw["image"], raw["crop"].tolist(), raw["flip"].tolist(), strict=True)  # noqa: E741
        ]
        assert torch.equal(torch.cat(loop), batch["image"])


def test_flips_are_half_of_them_and_of_each_sample_in_some_epoch(path: Path) -> None:
    plain = {k: x for b in loader_of(path, tail="ragged") for k, x in zip(b["key"], b["image"], strict=True)}
    flips: Counter[str] = Counter()
    for epoch in range(8):
        for batch in loader_of(path, tail="ragged", augment="flip", epoch=epoch):
            for key, image in zip(batch["key"], batch["image"], strict=True):
                is_flipped = not torch.equal(image, plain[key])
                assert torch.equal(image, plain[key].flip(2) if is_flipped else plain[key])
                flips[key] += is_flipped
    assert 0.35 < sum(flips.values()) / (8 * len(plain)) < 0.65
    assert len(set(flips.values())) > 3


def test_iterating_in_inference_mode(path: Path) -> None:
    """Whoever evaluates does; the threads that fill the batches are not in that mode."""
    expected = epoch_of(loader_of(path, shuffle=False))
    with torch.inference_mode():
        assert epoch_of(loader_of(path, shuffle=False)) == expected
        assert epoch_of(loader_of(path, shuffle=False).to("cpu")) == expected


def test_normalised_batches(path: Path) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    plain = loader_of(path)
    for batch, moved in zip(plain, loader_of(path).to("cpu", normalize=(mean, std)), strict=True):
        shaped = [torch.tensor(one)[:, None, None] for one in (mean, std)]
        assert torch.allclose(moved["image"], (batch["image"] / 255 - shaped[0]) / shaped[1], atol=1e-5)


# Transforms.
@pytest.mark.parametrize("workers", [2, pytest.param("processes:2", marks=pytest.mark.slow)])
def test_transforms(path: Path, workers: Any) -> None:
    plain = list(loader_of(path))
    for batch, made in zip(plain, loader_of(path, transform=halved, workers=workers), strict=True):
        assert torch.equal(made["image"], batch["image"][:, :, ::2, ::2].float() / 255)
    things = next(iter(loader_of(path, transform=as_dict, workers=workers)))["image"]
    assert [one["mean"] for one in things] == [float(x.float().mean()) for x in plain[0]["image"]]
    assert things[0]["half"].dtype == torch.bfloat16


def test_generator_is_of_seed_epoch_and_sample(path: Path) -> None:
    def by_key(**options: Any) -> dict[str, bytes]:
        loader = loader_of(path, transform=noisy, tail="ragged", **options)
        return {k: frozen(x)[2] for b in loader for k, x in zip(b["key"], b["image"], strict=True)}

    one = by_key()
    assert by_key(shuffle=False, batch_size=5) == one
    for other in (by_key(epoch=1), by_key(seed=1)):
        assert all(other[key] != value for key, value in one.items())
    assert len(set(one.values())) == len(one)


def test_threads_refuse_unseeded_transforms_and_processes_seed_them(path: Path) -> None:
    """pytorch #5059, #41329: the same numpy seed in every worker, or another one in every run."""
    for transform in (global_noise, numpy_noise):
        with pytest.raises(UnseededTransform, match="generator"):
            next(iter(loader_of(path, transform=transform)))


@pytest.mark.slow
def test_processes_seed_global_generators_for_each_sample(path: Path) -> None:
    one = loader_of(path, transform=global_noise, workers="processes:2")
    batches, states = zip(*((frozen(batch), one.state_dict()) for batch in one), strict=True)
    assert len({image for batch in batches for image in batch["image"][2:]}) == len(batches)
    other = loader_of(path, transform=global_noise, workers="processes:1")
    other.load_state_dict(states[1])
    assert epoch_of(other) == list(batches[2:])


# State.
def test_resume_is_exact_from_any_batch_to_any_ranks(path: Path) -> None:
    """All formats of random numbers at once; datasets #7901, PR #8408: also a resume of a resume."""
    workers = itertools.cycle([1, 2, 3])

    def make(rank: int, world_size: int) -> Any:
        ranks = {"rank": rank, "world_size": world_size}
        return loader_of(path, **RANDOM, **ranks, workers=next(workers), batch_size=13, tail="wrap")

    assert_resume_exact(make)


@pytest.mark.parametrize(
    ("tail", "options"),
    [
        ("wrap", {"weights": "balanced"}),
        ("ragged", {"shuffle": "block"}),
        *(
            pytest.param(tail, options, marks=pytest.mark.slow)
            for tail in ("drop", "wrap", "ragged")
            for options in ({}, {"weights": "balanced"}, {"shuffle": "block"})
        ),
    ],
    ids=str,
)
def test_resume_with_filters_weights_and_tails(path: Path, tail: str, options: dict[str, Any]) -> None:
    def make(rank: int, world_size: int) -> Any:
        where = {"classes": ["negative", "positive"], "expression": pc.field("width") > 80}
        ranks = {"rank": rank, "world_size": world_size}
        return loader_of(path, decode=None, batch_size=9, workers=1, tail=tail, where=where, **ranks, **options)

    assert_resume_exact(make, world_sizes=(1, 4, 11))


def test_state_goes_from_format_to_format(places: dict[str, Path]) -> None:
    states = {name: loader_of(path).state_dict() for name, path in places.items()}
    assert states["parquet"] == states["tar"] == states["in place"]
    whole = epoch_of(loader_of(places["tar"]))
    one = loader_of(places["parquet"])
    list(itertools.islice(one, 3))
    other = loader_of(places["tar"])
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert epoch_of(other) == whole[3:]


def test_state_is_a_few_numbers(path: Path) -> None:
    """meta-pytorch/data #1317: a state that is copied each step must be O(1), and counted at the consumer."""
    loader = loader_of(path, batch_size=np.int64(8), seed=np.int64(3), epoch=np.int32(2))
    for number, _ in enumerate(loader, 1):
        state = loader.state_dict()
        assert json.loads(json.dumps(state)) == state and len(json.dumps(state)) < 400
        assert (state["batches"], state["epoch"], state["seed"]) == (number, 2, 3)
    assert (loader.state_dict()["batches"], loader.state_dict()["epoch"]) == (0, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 7}, "batch size"),
        ({"shuffle": "block"}, "plan"),
        ({"tail": "wrap"}, "plan"),
        ({"where": {"fraction": 0.9}}, "plan"),
        ({"weights": "balanced"}, "plan"),
        ({"split": "validation", "batch_size": 2}, "plan"),
    ],
    ids=str,
)
def test_a_state_that_does_not_fit_shows_both_values(path: Path, change: dict[str, Any], word: str) -> None:
    """streaming #880, #437; litData #775: a state was loaded, and the loader began at 0 without a word."""
    base = {"batch_size": change.get("batch_size", 8)} if "split" in change else {}
    mine, other = loader_of(path, **base), loader_of(path, **change)
    with pytest.raises(StateMismatch) as caught:
        mine.load_state_dict(other.state_dict())
    field = {"batch size": "batch_size", "plan": "plan_digest"}.get(word, word)
    assert word in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert all(str(one.state_dict()[field]) in str(caught.value) for one in (mine, other))
    assert mine.state_dict()["batches"] == 0, "what was refused changes nothing"


@pytest.mark.parametrize(
    "damage",
    [{"version": 2}, {"batches": -1}, {"batches": 10**6}, {"batches": "3"}, {"epoch": None}, {"content_digest": "x"}],
    ids=str,
)
def test_damaged_states_are_refused(path: Path, damage: dict[str, Any]) -> None:
    loader = loader_of(path)
    with pytest.raises(StateMismatch):
        loader.load_state_dict(loader.state_dict() | damage)
    for name in loader.state_dict():
        with pytest.raises(StateMismatch, match=f"no {name}"):
            loader.load_state_dict({n: value for n, value in loader.state_dict().items() if n != name})


def test_accept_release_goes_on_with_the_next_epoch(path: Path, tmp_path: Path) -> None:
    make_release(tmp_path, 60, seed=5, formats=("parquet",))
    old, new = loader_of(path), loader_of(tmp_path)
    old.set_epoch(3)
    list(itertools.islice(old, 2))
    with pytest.raises(StateMismatch, match="accept_release=True"):
        new.load_state_dict(old.state_dict())
    new.load_state_dict(old.state_dict(), accept_release=True)
    assert (new.epoch, new.state_dict()["batches"]) == (4, 0)
    assert epoch_of(new) == epoch_of(loader_of(tmp_path, epoch=4))
    same = loader_of(path)
    same.load_state_dict(old.state_dict(), accept_release=True)  # of the same release: exactly where it was
    assert (same.epoch, same.state_dict()["batches"]) == (3, 2)
    with pytest.raises(StateMismatch, match="seed"):
        loader_of(tmp_path, seed=1).load_state_dict(old.state_dict(), accept_release=True)


# Epochs.
def test_epochs_follow_each_other_and_differ(path: Path) -> None:
    """webdataset #190, #502: the epoch is the main process's, and every pass has another order."""
    loader = loader_of(path)
    passes = [keys_of(loader) for _ in range(3)]
    assert loader.epoch == 3 and len({tuple(one) for one in passes}) == 3
    assert passes == [keys_of(loader_of(path, epoch=epoch)) for epoch in range(3)]
    loader.set_epoch(1)
    assert keys_of(loader) == passes[1] and loader.epoch == 2


def test_breaking_off_begins_the_epoch_anew_unless_a_state_says_so(path: Path) -> None:
    loader = loader_of(path)
    whole = keys_of(loader_of(path))
    for _ in loader:
        break
    assert loader.state_dict()["batches"] == 1 and loader.epoch == 0
    assert keys_of(loader) == whole
    loader.set_epoch(0)
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    loader.set_epoch(0)  # as training loops do before every epoch: goes on where it was
    assert keys_of(loader) == whole[8:]
    loader.set_epoch(0)
    list(itertools.islice(loader, 2))
    loader.load_state_dict(loader.state_dict())
    loader.set_epoch(5)
    assert keys_of(loader) == keys_of(loader_of(path, epoch=5)), "a state is of its epoch only"


def test_a_state_after_the_last_batch_gives_no_more_of_its_epoch(path: Path) -> None:
    loader = loader_of(path)
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)
    state = loader.state_dict()
    assert state["batches"] == len(loader)
    other = loader_of(path)
    other.load_state_dict(state)
    assert keys_of(other) == [] and keys_of(other) == keys_of(loader_of(path, epoch=1))
    iterator.close()


def test_who_stops_at_len_is_in_the_next_epoch_then(path: Path) -> None:
    """Lightning takes `len` batches and asks for no more: it saw one and the same epoch again and again."""
    loader = loader_of(path)
    for epoch in range(3):
        taken = [key for batch in itertools.islice(loader, len(loader)) for key in batch["key"]]
        assert taken == keys_of(loader_of(path, epoch=epoch)) and loader.epoch == epoch
    loader.set_epoch(2)  # asked for by name, it comes again
    assert keys_of(loader) == keys_of(loader_of(path, epoch=2)) and loader.epoch == 3


def test_two_iterations_at_once(path: Path) -> None:
    loader = loader_of(path)
    whole = epoch_of(loader_of(path))
    one, two = iter(loader), iter(loader)
    mixed = [(frozen(next(one)), frozen(next(two))) for _ in range(3)]
    assert mixed == [(batch, batch) for batch in whole[:3]]
    assert [frozen(batch) for batch in one] == whole[3:]
    assert loader.state_dict()["batches"] == 3, "the last one that began counts"
    assert [frozen(batch) for batch in two] == whole[3:] and loader.epoch == 1


@pytest.mark.parametrize("moved", ["set_epoch", "load_state_dict"])
def test_an_iteration_that_still_runs_does_not_move_a_loader_that_was_set_anew(path: Path, moved: str) -> None:
    loader = loader_of(path)
    state = loader.state_dict() | {"batches": 2, "epoch": 7}
    iterator = iter(loader)
    next(iterator)
    loader.set_epoch(7) if moved == "set_epoch" else loader.load_state_dict(state)
    next(iterator)
    assert loader.state_dict() == (state if moved == "load_state_dict" else state | {"batches": 0})
    assert keys_of(loader) == keys_of(loader_of(path, epoch=7))[16 if moved == "load_state_dict" else 0 :]
    iterator.close()


# Ranks and tails.
@pytest.mark.parametrize("tail", ["drop", "wrap", "ragged"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_have_equal_numbers_of_batches_and_each_sample_once(path: Path, tail: str, world_size: int) -> None:
    """webdataset #225, #194; streaming `orig.py`: lengths that differ hang DDP, padding repeats samples."""
    ranks = [
        loader_of(path, tail=tail, decode=None, rank=rank, world_size=world_size, workers=1)
        for rank in range(world_size)
    ]
    made = [list(rank) for rank in ranks]
    assert {len(one) for one in made} == {len(ranks[0])}
    keys = Counter(key for one in made for batch in one for key in batch["key"])
    count = ranks[0].num_samples
    if tail == "ragged":
        assert len(keys) == count and set(keys.values()) == {1}
    elif tail == "drop":
        assert len(keys) == count // 8 * 8 and set(keys.values()) == {1}
    else:
        assert len(keys) == count and sum(keys.values()) == -(-count // 8) * 8


def test_one_sample_and_sixteen_ranks(path: Path) -> None:
    """webdataset #188, #65: fewer shards than workers. A rank without a sample has an empty batch."""
    key = keys_of(loader_of(path))[0]
    ranks = [
        loader_of(path, where={"keys": [key]}, tail="ragged", batch_size=16, rank=rank, world_size=16, workers=16)
        for rank in range(16)
    ]
    made = [list(rank) for rank in ranks]
    assert [len(one) for one in made] == [1] * 16
    assert sorted(len(one[0]["key"]) for one in made) == [0] * 15 + [1]
    for (batch,) in made:
        count = len(batch["key"])
        assert batch["image"].shape == (count, 3, SIZE, SIZE) and batch["label"].shape == (count,)
        assert batch["probabilities"].shape == (count, 3)
    wrapped = loader_of(path, where={"keys": [key]}, tail="wrap", batch_size=4)
    assert keys_of(wrapped) == [key] * 4


def test_rank_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_rank(None, None) == (0, 1) and find_rank(2, 3) == (2, 3)
    whole, loader = keys_of(loader_of(path)), loader_of(path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_rank(None, None) == (1, 2)
    assert keys_of(loader) == [key for i, key in enumerate(whole) if i % 8 >= 4]
    for rank, world_size in ((None, 2), (2, 2), (-1, 2), (0, None)):
        with pytest.raises(BadOption, match="rank"):
            next(iter(loader_of(path, rank=rank, world_size=world_size)))
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(BadOption, match="RANK and WORLD_SIZE"):
        next(iter(loader_of(path)))


# A loader, and no dataset to be shared out again.
@pytest.mark.slow  # torch waits 5 s for each of its workers to end
def test_a_dataloader_with_workers_is_refused(path: Path) -> None:
    """Each worker would give the whole stream again."""
    with pytest.raises(ShardedTwice, match="DataLoader"):
        list(torch.utils.data.DataLoader(loader_of(path), batch_size=None, num_workers=2))


def test_a_dataloader_without_workers_passes_batches_on_and_nobody_indexes(path: Path) -> None:
    whole = keys_of(loader_of(path))
    assert keys_of(torch.utils.data.DataLoader(loader_of(path), batch_size=None, num_workers=0)) == whole
    for index in (0, slice(0, 3)):
        with pytest.raises(ShardedTwice):
            loader_of(path)[index]
    with pytest.raises(ShardedTwice):
        torch.utils.data.Subset(loader_of(path), [0])[0]


def test_a_stateful_dataloader_of_torchdata(path: Path) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def make() -> Any:
        return stateful(loader_of(path, workers=1), batch_size=None, num_workers=0)

    whole = keys_of(make())
    one = make()
    taken = [key for batch in itertools.islice(one, 3) for key in batch["key"]]
    other = make()
    other.load_state_dict(one.state_dict())
    assert taken + keys_of(other) == whole


def test_a_stream_can_be_sent_and_copied(path: Path) -> None:
    loader = loader_of(path, where={"classes": ["positive"]}, columns=("text",), batch_size=3)
    next(iter(loader))
    for other in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
        assert other.state_dict() == loader.state_dict()
        assert epoch_of(other) == epoch_of(
            loader_of(path, where={"classes": ["positive"]}, columns=("text",), batch_size=3)
        )


def test_what_a_stream_shows(path: Path) -> None:
    loader = loader_of(path, tail="ragged", epoch=2, where={"classes": ["positive", "negative"]})
    text = repr(loader)
    assert f"{len(loader.selection)} of {loader.selection.num_split} samples" in text and "epoch=2" in text
    assert str(path) in text and f"{len(loader)} batches of 8" in text and "tail=ragged" in text
    assert loader.classes == ("negative", "positive") and loader.num_samples == len(loader.selection)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"workers": 0},
        {"workers": "threads"},
        {"workers": "processes:x"},
        {"shuffle": "some"},
        {"tail": "keep"},
        {"augment": "mixup"},
        {"resize": "stretch"},
        {"size": 0},
        {"decode": "gpu"},
        {"augment": Augment(crop=SIZE + 1)},
        {"augment": Augment(crop=8), "resize": "none"},
        {"batch_size": 10**6},
        pytest.param({"workers": "processes:1", "transform": lambda image: image}, id="a lambda for processes"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOption) as caught:
        next(iter(loader_of(path, **wrong)))
    assert len(str(caught.value).splitlines()) == 1


def test_shuffle_true_is_full_and_tails_by_default(path: Path) -> None:
    assert keys_of(loader_of(path, shuffle=True)) == keys_of(loader_of(path, shuffle="full"))
    assert loader_of(path).options.tail == "drop" and loader_of(path, shuffle=False).options.tail == "ragged"
    in_order = loader_of(path, shuffle=False)
    assert [p for batch in in_order for p in batch["position"].tolist()] == list(range(in_order.num_samples))


def test_memory_does_not_grow_with_batches_that_are_kept_for_nobody(path: Path) -> None:
    """What is ahead is bounded: a consumer that stops pulling stops the readers."""
    loader = loader_of(path, batch_size=1, workers=1, weights="balanced", decode=None)
    reads: list[Any] = []
    source = loader.release.source()
    original = type(source).read

    def counted(self: Any, wanted: Any) -> bytes:
        reads.append(wanted)
        return original(self, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(source), "read", counted)
        patch.setattr("t4sa_data.streaming.options.CHUNKS_AHEAD", 1)
        patch.setattr("t4sa_data.streaming.options.CHUNK_BYTES", 4)
        iterator: Iterator[Any] = iter(loader)
        for _ in range(3):
            next(iterator)
        iterator.close()  # waits for what had begun
    assert 3 <= len(reads) <= 8 < len(loader)
