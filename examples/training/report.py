"""What people look at: the inputs as the network sees them, curves, confusion, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from examples.models.folder import load_model, read_json
from examples.models.inputs import Input
from examples.training.checkpoint import BEST, Progress
from examples.training.config import Config
from examples.training.journal import METRICS, duration, read_metrics
from examples.training.machine import Machine
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import ConfigUnavailable, UnknownConfig
from t4sa_data.files import write_bytes
from t4sa_data.reading import open_release

INPUTS, EVALUATION = "inputs.png", "evaluation"
SHOWN = 9
OTHER_LABELS = "Learned from, and chosen by, the labels of `{}`. The test split below has the release's own labels."


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


def finish(config: Config, machine: Machine, progress: Progress) -> dict[str, Any]:
    """Evaluate the best weights once on the test split, and write figures and `report.md`; the results.

    All ranks take part in the evaluation, in float32 as `examples/evaluate.py --run` does; the main process writes.
    """
    from examples.evaluation import figures, writing
    from examples.evaluation.predicting import predict
    from examples.evaluation.report import evaluate_predictions

    tables: dict[str, Any] = {}
    missing = "No test split was asked for."
    if config.test_split != "none":
        try:
            tables[config.config] = predict(
                load_model(config.out / BEST),
                config.data,
                config=config.config,
                split=config.test_split,
                device=machine.device,
                batch_size=config.eval_batch_size,
                workers=config.workers or None,
            )
        except (ConfigUnavailable, UnknownConfig) as error:
            missing = str(error)
    if not machine.is_main:
        return {}
    rows = read_metrics(config.out)
    train, val = ([row for row in rows if row["kind"] == kind] for kind in ("train", "val"))
    figures.curves_figure(train, val, config.out / "curves.png", num_classes=len(CLASSES))
    results: dict[str, Any] = {}
    text = f"{missing}\n"
    if tables:
        system = config.paper_row or None
        release = open_release(config.data)
        about = {"run": config.out.name, **about_model(config.out), "content_digest": release.manifest.content_digest}
        results = evaluate_predictions(tables, split=config.test_split, system=system, about=about)
        text = writing.write_report(config.out / EVALUATION, release, tables, results)
        text = text.removeprefix("# Evaluation\n\n")
        figure = config.out / EVALUATION / f"confusion-{config.config}.png"
        write_bytes(config.out / "confusion.png", figure.read_bytes())
    write_bytes(config.out / "report.md", _report(config, progress, text, has_results=bool(results)).encode())
    return results


def about_model(out: Path) -> dict[str, Any]:
    """Of the best weights, what goes into results.json."""
    description = read_json(out / BEST)
    return {
        "architecture": description["architecture"],
        "weights_sha256": description["files"][description["weights"]],
        "view": description["input"]["view"],
        "amp": "none",
    }


def _report(config: Config, progress: Progress, evaluation: str, *, has_results: bool) -> str:
    """Text of `report.md`."""
    epochs = progress.step * config.global_batch / max(1, progress.num_samples)
    parts = [
        f"# {config.out.name}: {config.model}, {config.finetune}",
        f"{progress.step:,} steps of {config.global_batch} pictures ({epochs:.1f} epochs) in "
        f"{duration(progress.seconds)}; best on {config.eval_split}: {progress.best_accuracy:.2%} at step "
        f"{progress.best_step:,}. The numbers below are of those weights.",
        *([] if config.labels == Config.labels else [OTHER_LABELS.format(Path(config.labels).name)]),
        evaluation.rstrip(),
        "## Figures",
        "![Loss and accuracy](curves.png)",
        *(["![Pictures by truth and answer](confusion.png)"] if has_results else []),
        f"![First training inputs]({INPUTS})",
        "## Files",
        f"`best/` (weights), `last/` (checkpoint), `{METRICS}`, `config.toml`, `run.json`"
        + (f", `{EVALUATION}/` (predictions, results, figures, the most confident pictures)." if has_results else "."),
    ]
    return "\n\n".join(parts) + "\n"
