"""One rank of a small training: `python -m tests.rank_worker '{...}'`; the tests of ranks start several.

Every rank writes what it saw, rank 0 a checkpoint after each step that all ranks have done. `die` is a rank and a batch
at which it kills itself, in the middle of a step.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from t4sa_data import stream
from t4sa_data.streaming.ranks import sum_over_ranks

LOADER = {"batch_size": 7, "size": 16, "resize": "random_resized_crop", "augment": "flip", "tail": "wrap", "workers": 1}
EVALUATION = {"batch_size": 7, "size": 16, "shuffle": False, "workers": 1}


def seen(batch: dict[str, Any]) -> list[Any]:
    """A batch as JSON: for each sample its key, label and the sha256 of its pixels."""
    pixels = [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in batch["image"]]
    return [list(one) for one in zip(batch["key"], batch["label"].tolist(), pixels, strict=True)]


def sums(batch: dict[str, Any]) -> tuple[int, int, int]:
    """Integers whose sums over an evaluation are exact: pixels, labels, samples."""
    return int(batch["image"].sum()), int(batch["label"].sum()), len(batch["key"])


def main(path: str, out: str, checkpoint: str, die: list[int] | None) -> None:
    rank, folder = int(os.environ["RANK"]), Path(out)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=int(os.environ["WORLD_SIZE"])
    )
    loader = stream(path, **LOADER)
    saved = Path(checkpoint)
    if saved.exists():
        loader.load_state_dict(json.loads(saved.read_text()))
    with (folder / f"rank{rank}.jsonl").open("w") as log:
        for batch in loader:
            log.write(json.dumps(seen(batch)) + "\n")
            log.flush()
            if die == [rank, loader.state_dict()["batches"]]:
                os.kill(os.getpid(), signal.SIGKILL)
            (done,) = sum_over_ranks(len(batch["key"]))
            assert done == LOADER["batch_size"]
            if rank == 0:
                part = saved.with_suffix(".part")
                part.write_text(json.dumps(loader.state_dict()))
                part.replace(saved)
    total = torch.zeros(3, dtype=torch.int64)
    for batch in stream(path, split="validation", **EVALUATION):
        total += torch.tensor(sums(batch))
    summed = sum_over_ranks(*total.tolist())
    (folder / f"sums{rank}.json").write_text(json.dumps(summed))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
