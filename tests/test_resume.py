"""`assert_resume_exact` itself: it passes an exact loader, and fails each kind of broken one with words that help."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t4sa_data.testing import assert_resume_exact

torch = pytest.importorskip("torch")


class Toy:
    """23 samples in global batches of 5, exact. `break_` says what is wrong with it."""

    def __init__(self, rank: int = 0, world_size: int = 1, *, break_: str = "") -> None:
        self.rank, self.world_size, self.break_, self.done = rank, world_size, break_, 0
        self.order = np.random.default_rng(0).permutation(23)
        if break_ == "unseeded":
            self.order = np.random.default_rng().permutation(23)

    def state_dict(self) -> dict[str, Any]:
        done = self.done
        if self.break_ == "repeats":
            done = max(0, done - 1)
        if self.break_ == "loses":
            done = min(5, done + 1)  # counted when made, not when taken
        state = {"done": done, "version": 1}
        return state | {"rank": self.rank} if self.break_ == "state of a rank" else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.break_ != "starts at 0":
            self.done = state["done"]
        if self.break_ == "restarts the second time":
            self.done, self.again = (0, True) if state.get("again") else (self.done, True)

    def __iter__(self) -> Iterator[Any]:
        count = 4 if self.break_ == "ranks of other lengths" and self.rank else 5
        for number in range(self.done, count):
            rows = self.order[number * 5 : number * 5 + 5]
            low, high = (len(rows) * r // self.world_size for r in (self.rank, self.rank + 1))
            self.done = number + 1
            yield self.batch(rows[low:high])

    def batch(self, rows: np.ndarray) -> Any:
        seeds = [(int(row), self.rank if self.break_ == "seeded by rank" else 0) for row in rows]
        noise = [np.random.default_rng(seed).integers(0, 256, (2, 3), dtype=np.uint8) for seed in seeds]
        image = torch.from_numpy(np.stack(noise)) if len(rows) else torch.empty((0, 2, 3), dtype=torch.uint8)
        if self.break_ == "one bit" and self.world_size == 3:
            image[:1, 0, 0] ^= 1
        return {"image": image, "weight": torch.full((len(rows),), 0.5), "key": [f"key {row}" for row in rows]}


class SecondTime(Toy):
    """datasets #7901: resumes once, but the state of a resumed loader counts from 0."""

    def __iter__(self) -> Iterator[Any]:
        start, self.taken = self.done, 0
        for batch in super().__iter__():
            self.taken += 1
            self.resumed = start > 0
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.taken if getattr(self, "resumed", False) else self.done}


def test_an_exact_loader_passes() -> None:
    assert_resume_exact(Toy)
    assert_resume_exact(Toy, world_sizes=(2,))
    assert_resume_exact(Toy, world_sizes=(1, 8), max_batches=3)
    assert_resume_exact(lambda **ranks: Toy(**ranks))
    assert_resume_exact(lambda: Toy())


@pytest.mark.parametrize(
    ("break_", "says"),
    [
        (
            "repeats",
            r"interrupted after 0 batches on 1 rank, .* again after 1 batch, .*: batch 1, field 'image', row 0: exp",
        ),
        ("loses", r"interrupted after 0 batches on 1 rank, .*: batch 0, field 'image', row 0: expected"),
        (
            "starts at 0",
            r"interrupted again after 1 batch, gone on with on 3 ranks: batch 1, field 'image', row 0",
        ),
        (
            "seeded by rank",
            r"without an interruption, on 2 ranks .*: batch 0, field 'image', row 2: expected torch.uint8 \[2, 3\]",
        ),
        ("one bit", r"without an interruption, on 3 ranks .*: batch 0, field 'image', row 0"),
        ("unseeded", r"without an interruption, on 1 rank|on 2 ranks"),
        ("ranks of other lengths", r"rank 1 has 4 batches, other ranks have more"),
        ("state of a rank", r"the state of rank 1 is not that of rank 0"),
    ],
)
def test_a_broken_loader_fails(break_: str, says: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_resume_exact(lambda rank, world_size: Toy(rank, world_size, break_=break_))
    assert re.search(says, str(caught.value)), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("break_", ["repeats", "loses", "starts at 0", "unseeded"])
def test_a_broken_loader_without_ranks_fails(break_: str) -> None:
    with pytest.raises(AssertionError, match="on 1 rank"):
        assert_resume_exact(lambda: Toy(break_=break_))


def test_a_resume_of_a_resume_that_is_wrong_fails() -> None:
    with pytest.raises(AssertionError, match="interrupted again after 1 batch"):
        assert_resume_exact(lambda: SecondTime())


def test_what_cannot_be_tested_is_no_pass() -> None:
    class Empty(Toy):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    with pytest.raises(AssertionError, match="gave no batch"):
        assert_resume_exact(Empty)
    with pytest.raises(ValueError, match="world_sizes"):
        assert_resume_exact(Toy, world_sizes=())


class Shaped(Toy):
    """Batches of another shape."""

    shape = staticmethod(lambda batch: batch)

    def batch(self, rows: np.ndarray) -> Any:
        return self.shape(super().batch(rows))


@pytest.mark.parametrize(
    "shape",
    [
        lambda batch: (batch["image"], batch["key"]),
        lambda batch: [batch["image"].numpy(), batch["weight"].numpy()],
        lambda batch: batch["image"].to(torch.bfloat16),
        lambda batch: {"list": list(batch["image"]), "bytes": [key.encode() for key in batch["key"]]},
    ],
)
def test_batches_of_any_shape(shape: Any) -> None:
    exact = type("Exact", (Shaped,), {"shape": staticmethod(shape)})
    assert_resume_exact(exact)
    with pytest.raises(AssertionError, match="on 2 ranks"):
        assert_resume_exact(lambda rank, world_size: exact(rank, world_size, break_="seeded by rank"))


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1.0, 1.0 + 2**-23), (2, 3)])
def test_the_bytes_decide(one: float, other: float) -> None:
    class Signed(Toy):
        def batch(self, rows: np.ndarray) -> Any:
            value = other if self.world_size == 2 else one
            return {"x": torch.full((len(rows),), value)}

    with pytest.raises(AssertionError, match="field 'x', row 0"):
        assert_resume_exact(Signed)


def test_loaders_of_torch(tmp_path: Path) -> None:
    """torchdata's, where it is installed: another library's loader, without ranks."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    data = list(range(10))
    assert_resume_exact(lambda: stateful.StatefulDataLoader(data, batch_size=3, num_workers=0))


def test_importing_the_helpers_does_not_import_torch() -> None:
    code = "import sys, t4sa_data.testing as t; t.assert_resume_exact; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
