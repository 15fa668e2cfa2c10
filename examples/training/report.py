"""What people look at: the inputs as the network sees them, curves, confusion, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from examples.models.folder import load_model
from examples.models.inputs import Input
from examples.training.checkpoint import BEST
from examples.training.config import Config
from examples.training.journal import METRICS, read_metrics
from examples.training.machine import Machine
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import ConfigUnavailable, UnknownConfig
from t4sa_data.files import write_bytes

INPUTS = "inputs.png"
SHOWN = 9


def draw_inputs(x_BCSS: torch.Tensor, given: Input, keys: Sequence[str], labels: Sequence[int], path: Path) -> None:
    """A sheet of what the network is fed, turned back into pictures by the input's own rule.

    A wrong mean shows as a tint or as greyness, exchanged channels as blue faces.

    Args:
        x_BCSS: float, as the network gets it.
        given: the rule.
        keys: of the B pictures.
        labels: of the B pictures.
        path: of the PNG.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    x_BCSS = x_BCSS[:SHOWN].detach().float().cpu()
    scale, mean = (torch.tensor(one)[:, None, None] for one in (given.scale, given.mean))
    pixels = x_BCSS / scale + mean
    pixels = pixels.flip(1) if given.channels == "BGR" else pixels
    figure, axes = plt.subplots(3, 3, figsize=(7.5, 8.6), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, key, label in zip(axes.flat, pixels, keys, labels, strict=False):
        axis.imshow(picture.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
        axis.set_title(f"{CLASSES[label]}\n{key}", fontsize=8)
    ranges = "  ".join(
        f"{channel} {x_BCSS[:, c].min():.1f} to {x_BCSS[:, c].max():.1f}, mean {x_BCSS[:, c].mean():.1f}"
        for c, channel in enumerate(given.channels)
    )
    figure.suptitle(f"First training inputs, {given.side_px} x {given.side_px}, augmented\n{ranges}", fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def finish(config: Config, machine: Machine, progress: Any) -> dict[str, Any]:
    """Evaluate the best weights once on the test split, and write figures and `report.md`; the results.

    All ranks take part in the evaluation; the main process writes.
    """
    from examples.evaluation import figures
    from examples.evaluation.predicting import predict
    from examples.evaluation.report import evaluate_predictions, results_markdown

    best = load_model(config.out / BEST)
    tables: dict[str, Any] = {}
    missing = ""
    if config.test_split != "none":
        try:
            tables[config.config] = predict(
                best,
                config.data,
                config=config.config,
                split=config.test_split,
                device=str(machine.device),
                amp=machine.amp,
                workers=config.workers or None,
            )
        except (ConfigUnavailable, UnknownConfig) as error:
            missing = str(error)
    if not machine.is_main:
        return {}
    rows = read_metrics(config.out)
    train = [row for row in rows if row["kind"] == "train"]
    val = [row for row in rows if row["kind"] == "val"]
    figures.curves_figure(train, val, config.out / "curves.png", num_classes=len(CLASSES))
    results: dict[str, Any] = {}
    if tables:
        system = config.paper_row or None
        results = evaluate_predictions(tables, split=config.test_split, system=system, about={"run": config.out.name})
        found = results[config.config]
        title = f"{config.config}, split {config.test_split}, n = {found['n']:,}"
        figures.confusion_figure(found["confusion"], CLASSES, config.out / "confusion.png", title=title)
        _write_evaluation(config, tables, results)
    words = [
        f"# {config.out.name}: {config.model}, {config.finetune}",
        "",
        f"{progress.step:,} steps of {config.global_batch} pictures; best on {config.eval_split}: "
        f"{progress.best_accuracy:.2%} at step {progress.best_step:,}. The numbers below are of those weights.",
        "",
        *(
            [results_markdown(results, config.paper_row or None)]
            if results
            else [missing or "No test split was asked for."]
        ),
        "",
        "![Loss and accuracy](curves.png)",
        "",
        *(["![Pictures by truth and answer](confusion.png)", ""] if results else []),
        f"Files: `best/` (weights), `last/` (checkpoint), `{METRICS}`, `config.toml`, `run.json`, `{INPUTS}`, "
        "`evaluation/` (predictions, results.json).",
    ]
    write_bytes(config.out / "report.md", ("\n".join(words) + "\n").encode())
    return results


def _write_evaluation(config: Config, tables: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    from examples.evaluation.predictions import save_table
    from t4sa_data.files import write_json

    folder = config.out / "evaluation"
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        save_table(folder / f"predictions-{name}.parquet", table)
    write_json(folder / "results.json", results)
