"""The card of a model repository: what the model is, what it is fed, where it comes from, how well it does.

Made of `model.json`, and of a run's `run.json` and `results.json` where they are there; never edited by hand. Equal
input gives equal bytes. No path of this machine gets into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_scripts.model_folder import EVALUATION, MODEL_JSON, ModelFolder, parse_description
from t4sa_data import catalog
from t4sa_data.errors import BadOption, InputMissing, ModelFolderError

RUN_JSON, RESULTS_JSON = "run.json", "results.json"
NO_LICENSE = "unknown"
"""Value of `license:` where none is given (one of the Hub's own)."""
LIBRARY = "t4sa-data"
TAGS = ("t4sa", "image-sentiment", "sentiment-analysis")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a model besides itself."""

    run: Mapping[str, Any] | None = None
    """`run.json`."""
    results: Mapping[str, Any] | None = None
    """`results.json`; shares 0 to 1."""


def read_evidence(model: ModelFolder, run: Path | None) -> Evidence:
    """What a run says of a model; without a run, an evaluation that lies beside the model.

    Raises:
        InputMissing: there is no `run.json` in the run.
        ModelFolderError: a file is no JSON object.
        BadOption: they are of other weights.
    """
    results = _json(((run or model.folder) / EVALUATION) / RESULTS_JSON)
    evaluated = _mapping((results or {}).get("about")).get("weights_sha256")
    if results is not None and evaluated != model.weights_sha256:
        raise BadOption(
            f"{RESULTS_JSON} is of other weights",
            expected=model.weights_sha256,
            got=evaluated,
            where=(run or model.folder) / EVALUATION,
            hint="Evaluate this model: examples/evaluate.py --model DIR.",
        )
    if run is None:
        return Evidence(results=results)
    known = _json(run / RUN_JSON)
    if known is None:
        raise InputMissing("no run", expected=RUN_JSON, where=run, hint="--run is a folder of examples/train.py.")
    if results is None and model.weights_sha256 not in set(_weights_of(run)):
        raise BadOption(
            "the run is of other weights", expected=model.weights_sha256, where=run, hint="RUN/best is DIR."
        )
    return Evidence(run=known, results=results)


def _weights_of(run: Path) -> Iterator[str]:
    for name in ("best", "last"):
        if (path := run / name / MODEL_JSON).is_file():
            whole, _ = parse_description(path.read_bytes(), path)
            yield whole["files"][whole["weights"]]


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFolderError("no JSON", got=error, where=path) from error
    if not isinstance(value, dict):
        raise ModelFolderError("no JSON object", got=type(value).__name__, where=path)
    return value


def model_card(model: ModelFolder, evidence: Evidence, *, repo_id: str, tag: str, license_id: str | None) -> str:
    """The text of `README.md`, with its YAML head.

    Args:
        model: to describe.
        evidence: of a run and an evaluation.
        repo_id: NAMESPACE/NAME, for the lines that load it.
        tag: the same.
        license_id: one of the Hub's; None: `unknown`.

    Raises:
        ModelFolderError: `results.json` is not one of evaluate.py.
    """
    from huggingface_hub import ModelCardData

    dataset = f"{repo_id.partition('/')[0]}/{catalog.HUB_REPOSITORIES['parquet']}"
    head = ModelCardData(
        license=license_id or NO_LICENSE,
        library_name=LIBRARY,
        pipeline_tag="image-classification",
        datasets=[dataset],
        metrics=["accuracy"] if evidence.results else None,
        tags=list(TAGS),
    )
    about = model.description["source"]
    title = about.get("system") or f"{model.description['architecture']} on T4SA"
    parts = [
        f"# {_plain(title)}",
        "Tells whether the text of a tweet with this picture would be called negative, neutral or positive. The labels "
        "that it learned were read off tweets' texts by a machine: what it says of a picture is no fact about it, nor "
        "about whoever is in it or posted it.",
        *_network(model),
        *_origin(about),
        *_data(evidence),
        *_metrics(evidence.results),
        *_use(repo_id, tag),
        *_limits(license_id),
        f"## Citation\n\n```bibtex\n{catalog.CITATION.strip()}\n```",
    ]
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _network(model: ModelFolder) -> list[str]:
    it, given = model.description, model.description["input"]
    side, resize = given["side_px"], given.get("resize_px", given["side_px"])
    how = (
        f"resized straight to {side} x {side} px"
        if given.get("view", "squash") == "squash"
        else f"resized straight to {resize} x {resize} px, of which the middle {side} x {side} px are taken"
    )
    mean = f"the mean image `{it['mean_image']}`" if it.get("mean_image") else f"mean {_code(given.get('mean'))}"
    kind = "described by its `deploy.prototxt`" if it["architecture"] == "caffe" else f"`{it['architecture']}`"
    count = it.get("num_parameters")
    rows = [
        ("network", kind + (f", width {it['width']}" if it.get("width", 1.0) != 1.0 else "")),
        ("parameters", f"{count:,}" if isinstance(count, int) else "unknown"),
        ("outputs", "logits of " + ", ".join(_plain(name) for name in it["classes"]) + ", in this order"),
        ("picture", f"EXIF rotation applied, RGB, {how}"),
        ("input", f"`(pixels - mean) * scale`, pixels 0 to 255, channels {_plain(given.get('channels'))}"),
        ("mean, scale", f"{mean}, scale {_code(given.get('scale'))}, in the order of the channels"),
    ]
    files = [(f"`{name}`", f"{model.sizes[name]:,}", f"`{digest}`") for name, digest in model.files.items()]
    return ["## The model", _table(("", ""), rows), _table(("file", "bytes", "sha256"), files)]


def _origin(source: Mapping[str, Any]) -> list[str]:
    rows = [(name, _code(value)) for name, value in source.items() if not isinstance(value, dict)]
    for name, value in source.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {one}", _code(what)) for one, what in value.items() if what not in (None, "")]
    if source.get("archive"):
        words = "Converted from an archive in Caffe's format; `sha256` is the archive's."
    elif source.get("recipe"):
        words = "Trained with `examples/train.py`; `recipe` is the configuration."
    else:
        words = "Nothing is recorded of where the weights come from." if not rows else ""
    return ["## Where the weights come from", *filter(None, [words])] + ([_table(("", ""), rows)] if rows else [])


def _data(evidence: Evidence) -> list[str]:
    run, about = evidence.run or {}, _mapping((evidence.results or {}).get("about"))
    rows = [(f"digest, {name}", _code(value)) for name, value in _mapping(run.get("digests")).items()]
    if about.get("content_digest"):
        rows.append(("content digest of the release evaluated on", _code(about["content_digest"])))
    for name in ("git_revision", "python", "precision", "world_size"):
        if run.get(name) is not None:
            rows.append((name, _code(run[name])))
    for name, value in _mapping(run.get("packages")).items():
        rows.append((name, _code(value)))
    if not rows:
        return ["## Data", "No run is recorded, so no digest of the data that it learned from."]
    words = "Digests are over rows: equal for equal data, whatever the format (`t4sa info DIR` shows a release's)."
    return ["## Data and run", words, _table(("", ""), rows)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _metrics(results: Mapping[str, Any] | None) -> list[str]:
    if results is None:
        return ["## Evaluation", "None is recorded."]
    rows = []
    try:
        for config, entry in results.items():
            if config == "about":
                continue
            cells = {config: entry} if "accuracy" in entry else {f"{config}, {c}": e for c, e in entry.items()}
            rows += [_row(name, one) for name, one in cells.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFolderError(f"{RESULTS_JSON} is none of evaluate.py", got=repr(error)) from error
    split = _mapping(results.get("about")).get("split", "test")
    columns = (
        "data",
        "pictures",
        "accuracy, %",
        "95 % interval (Wilson), %",
        "macro F1, %",
        "always the largest class, %",
    )
    return ["## Evaluation", f"Split `{_plain(split)}`.", _table(columns, rows)]


def _row(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    values = {one: 100 * float(entry[one]) for one in ("accuracy", "low", "high", "macro_f1", "floor") if one in entry}
    if not 0 <= values["low"] <= values["accuracy"] <= values["high"] <= 100:
        raise ValueError(f"{name}: accuracy outside its interval")
    more = [f"{values[one]:.1f}" if one in values else "" for one in ("macro_f1", "floor")]
    interval = f"{values['low']:.1f} to {values['high']:.1f}"
    return (f"`{_plain(name)}`", f"{int(entry['n']):,}", f"{values['accuracy']:.1f}", interval, *more)


def _use(repo_id: str, tag: str) -> list[str]:
    return [
        "## Use",
        "Pinned to a tag or a commit, every file checked by its sha256; nothing in it is code, nothing is unpickled:",
        f"```python\nfrom hub_scripts.publish_model import fetch_model  # pip install t4sa-data\n\n"
        f'fetch_model("{repo_id}", "{tag}", "MODEL")\n```',
        "```bash\npython examples/predict.py photo.jpg --model MODEL   # in a clone of t4sa-data\n```",
    ]


def _limits(license_id: str | None) -> list[str]:
    stated = f"`{license_id}`" if license_id else "none is stated"
    return [
        "## Limits and terms",
        f"Licence of the weights: {stated}. It says nothing of the tweets: the pictures that the weights were learned "
        "from are their authors', T4SA states no licence, and initial weights (ImageNet, Places) have terms of their "
        "own. Not for decisions about people, for profiling, or for finding out who somebody is. A picture that is "
        "taken out of T4SA later stays in what these weights learned.",
    ]


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: object) -> str:
    """A text on one line, without what Markdown or HTML would read as more."""
    return "".join(c for c in " ".join(str(value).split()) if c not in "`<>[]|*")


def _code(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{' '.join(text.split()).replace('`', '')}`" if text.strip() else ""
