"""Evaluate a model, or anybody's predictions, with the paper's protocol: its numbers beside theirs.

    python examples/evaluate.py --run RUN --data DIR                    # RUN/best of examples/train.py
    python examples/evaluate.py --model MODEL --data DIR                # a folder of examples/convert.py
    python examples/evaluate.py --predictions FILE --data DIR           # Parquet or CSV of any framework: no torch
    torchrun --nproc-per-node 2 examples/evaluate.py --run RUN --data DIR

Writes predictions-<config>.parquet, results.json, results.md, figures, and the paper's grid of the most confident
pictures as PNG and as a page. Needs the extra [train].
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from examples.evaluation import predictions as tables
from examples.evaluation import writing
from examples.evaluation.predictions import B_T4SA, TWITTER
from examples.evaluation.report import evaluate_predictions
from examples.terminal import run
from t4sa_data import catalog
from t4sa_data.errors import BadOption, ConfigUnavailable, InputMissing
from t4sa_data.files import sha256_file
from t4sa_data.reading import open_release

SYSTEMS = [row.system for row in catalog.TABLE_1]
CONFIGS = (B_T4SA, "b-t4sa-256", TWITTER)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="a run of examples/train.py: its best model, report in RUN/evaluation")
    what.add_argument("--model", type=Path, help="a model folder")
    what.add_argument(
        "--predictions", type=Path, help="Parquet or CSV: key, negative, neutral, positive (probabilities)"
    )
    made.add_argument("--data", required=True, help="a release, as for t4sa_data.stream")
    made.add_argument(
        "--on",
        help=f"configs, with commas, of {', '.join(CONFIGS)}; default: what is there of {B_T4SA} (else its small "
        f"pictures) and {TWITTER}",
    )
    made.add_argument("--split", default="test", help="of b-t4sa; only test stands beside the paper")
    made.add_argument(
        "--against", type=Path, help="another run, its evaluation, or predictions: McNemar and paired bootstrap"
    )
    made.add_argument(
        "--system", help="row of the paper's table that the model reproduces; default: as its model.json says"
    )
    made.add_argument(
        "--out", type=Path, help="folder of the report; default: evaluation in the run, or beside the file"
    )
    made.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    made.add_argument("--amp", default="none", choices=("none", "bf16", "fp16"), help="precision; none: float32")
    made.add_argument(
        "--batch-size", type=int, help="pictures of a forward pass; default: eval_batch_size of the run, else 32"
    )
    made.add_argument("--workers", type=int, help="threads that decode; default: one a core")
    made.add_argument(
        "--view", choices=("squash", "center"), help="how a picture becomes the input; default: the model's"
    )
    made.add_argument(
        "--pictures", type=int, help="in each cell of the grid, 0: no grid; default: 4, of --predictions 0"
    )
    made.add_argument("--blur", action="store_true", help="blur the pictures of the grid")
    made.add_argument("--texts", action="store_true", help="tweets' texts in the page")
    return made


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """Evaluate, write the report, print its table; the results (None on ranks other than 0)."""
    options = parser().parse_args(argv)
    if options.system is not None and options.system not in SYSTEMS:
        raise BadOption("--system: not in the paper's table", expected=" | ".join(SYSTEMS), got=options.system)
    release = open_release(options.data)
    truths = {
        config: tables.read_truth(release, config, split_of(config, options.split))
        for config in chosen_configs(options, release)
    }
    file = tables.read_file(options.predictions) if options.predictions else None
    if file is not None and options.on is None:  # a file need not be about everything that the release holds
        truths = {name: truths[name] for name in tables.configs_in(file, truths) or truths}
    # Before the long part: what is wrong with it is said at once.
    others = read_others(options.against, truths) if options.against else None
    if file is not None:
        about: dict[str, Any] = {"predictions": options.predictions.name, "sha256": sha256_file(options.predictions)}
        system, found = options.system, tables.align(file, truths, options.predictions)
    else:
        system, about, found = from_model(options, tuple(truths))
    if not found:
        return None
    about["content_digest"] = release.manifest.content_digest
    results = evaluate_predictions(found, split=options.split, system=system, about=about, against=others)
    tell(options, release, found, results)
    return results


def read_others(path: Path, truths: dict[str, Any]) -> dict[str, Any]:
    """Predictions of another model, by config, for what it was evaluated on.

    Args:
        path: a file, or a folder with `predictions-<config>.parquet`: an evaluation, a run, a model.
        truths: by config, of `read_truth`.

    Raises:
        InputMissing: a folder without predictions.
        PredictionsError: they do not fit the samples.
    """
    if not path.is_dir():
        file = tables.read_file(path)
        return tables.align(file, {name: truths[name] for name in tables.configs_in(file, truths) or truths}, path)
    places = [(name, one / f"predictions-{name}.parquet") for one in (path / "evaluation", path) for name in truths]
    files = {name: place for name, place in places if place.is_file()}
    if not files:
        raise InputMissing(
            "--against: no predictions there",
            expected=" or ".join(f"predictions-{name}.parquet" for name in truths),
            where=path,
            hint="evaluate.py --run, or --model, writes them.",
        )
    return {
        name: tables.align(tables.read_file(place), {name: truths[name]}, place)[name] for name, place in files.items()
    }


def chosen_configs(options: argparse.Namespace, release: Any) -> list[str]:
    """What to evaluate on: as asked for, else what the release holds.

    Raises:
        ConfigUnavailable, UnknownConfig, BadOption: it does not hold what was asked for.
    """
    if options.on is None:
        held = release.manifest.configs
        pictures = B_T4SA if B_T4SA in held else f"{B_T4SA}-256"
        if found := [name for name in (pictures, TWITTER) if name in held]:
            return found
        raise ConfigUnavailable(
            "nothing to evaluate on",
            expected=f"{B_T4SA} or {TWITTER}",
            got=", ".join(release.manifest.configs),
            where=release.where,
        )
    names = list(dict.fromkeys(name.strip() for name in options.on.split(",")))
    if unknown := [name for name in names if name not in CONFIGS]:
        raise BadOption("--on: cannot be evaluated on", expected=" | ".join(CONFIGS), got=", ".join(unknown))
    for name in names:
        tables.require_config(release, name, split_of(name, options.split))
    return names


def split_of(config: str, split: str) -> str:
    """The split to evaluate on: the Twitter Testing Dataset has `test` only."""
    return "test" if config == TWITTER else split


def from_model(
    options: argparse.Namespace, configs: tuple[str, ...]
) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """The system that a model reproduces, what it is, and its predictions by config (none on ranks other than 0)."""
    import torch

    from examples.evaluation.predicting import all_ranks, find_device, predict
    from examples.models.folder import load_model, read_json

    folder = options.run / "best" if options.run else options.model
    model, device = load_model(folder), find_device(options.device)
    if options.view:
        model.input = dataclasses.replace(model.input, view=options.view)
    if device.type == "cuda":
        model.network.to(memory_format=torch.channels_last)
    description = read_json(folder)
    about = {
        "architecture": model.architecture,
        "weights_sha256": description["files"][description["weights"]],
        "view": model.input.view,
        "amp": options.amp,
    }
    settings = run_settings(options.run)
    found = {}
    with all_ranks(device):
        for config in configs:
            found[config] = predict(
                model,
                options.data,
                config=config,
                split=split_of(config, options.split),
                device=device,
                batch_size=options.batch_size or settings.get("eval_batch_size", 32),
                amp=options.amp,
                workers=options.workers,
            )
    system = options.system or paper_row(settings, model.source)
    return system, about, {config: table for config, table in found.items() if table is not None}


def run_settings(run: Path | None) -> dict[str, Any]:
    """`config.toml` of a run; empty without one."""
    path = run / "config.toml" if run is not None else None
    return tomllib.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}


def paper_row(settings: Mapping[str, Any], source: Mapping[str, Any]) -> str | None:
    """The row of the paper's table that a model is meant to reproduce, as its model.json or its run says."""
    named = source.get("system") or settings.get("paper_row")
    return named if named in SYSTEMS else None


def tell(options: argparse.Namespace, release: Any, found: dict[str, Any], results: dict[str, Any]) -> None:
    """Write all files of the report; print its table."""
    out = options.out or default_out(options)
    pictures = options.pictures if options.pictures is not None else 0 if options.predictions else writing.PICTURES
    text = writing.write_report(out, release, found, results, pictures=pictures, blur=options.blur, texts=options.texts)
    print(text.partition("\n## ")[0].strip())
    print(f"\nreport: {out / 'results.md'}")


def default_out(options: argparse.Namespace) -> Path:
    """RUN/evaluation, MODEL/evaluation, or FILE-evaluation."""
    if options.predictions:
        return Path(options.predictions.with_name(f"{options.predictions.stem}-evaluation"))
    return Path(options.run or options.model) / "evaluation"


if __name__ == "__main__":
    run(main)
