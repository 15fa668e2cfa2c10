"""One rank of an evaluation; `tests/test_evaluation_ranks.py` starts several."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
import torch.distributed as dist

from examples.evaluation.predicting import predict
from examples.evaluation.predictions import save_table
from examples.evaluation.report import evaluate_predictions
from examples.models.folder import load_model


def run(rank: int, world_size: int, model: Path, data: Path, out: Path, batch_size: int) -> None:
    """Evaluate on the training split, whose size none of these divides; rank 0 writes."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=world_size)
    table = predict(load_model(model), data, split="train", batch_size=batch_size, workers=1)
    assert (table is None) == (rank > 0)
    if table is not None:
        save_table(out / "predictions.parquet", table)
        (out / "results.json").write_text(json.dumps(evaluate_predictions({"b-t4sa": table})))
    if world_size > 1:
        dist.destroy_process_group()
