"""Figures, the paper's grid and its page: whole, deterministic, and nothing on them that nobody asked for."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

pytest.importorskip("matplotlib")
from examples.evaluation import figures, grid
from examples.evaluation.predictions import make_table, read_truth
from examples.evaluation.report import evaluate_predictions
from t4sa_data.reading import open_release

# isort: split
from tests.evaluation_helpers import made_up, truth_of


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    truth = truth_of(300)
    return evaluate_predictions({"b-t4sa": make_table(truth, *made_up(truth))}, system="VGG-T4SA FT-F")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pixels, less time."""
    monkeypatch.setattr(figures, "DPI", 50)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


TRAIN = [
    {"step": k, "loss": 1.1 - k / 200, "accuracy": 0.3 + k / 400, "lr": 0.1 if k < 60 else 0.01} for k in range(100)
]
VAL = [{"step": k, "loss": 1.0, "accuracy": 0.4} for k in (50, 99)]


def draw(name: str, results: dict[str, Any], path: Path) -> None:
    entry = results["b-t4sa"]
    if name == "confusion":
        figures.confusion_figure(entry["confusion"], entry["classes"], path, title="test")
    elif name == "reliability":
        figures.reliability_figure(entry["reliability"], path, ece=entry["ece"])
    elif name == "confidence":
        figures.confidence_figure(entry["by_text_confidence"], path, accuracy=entry["accuracy"], floor=entry["floor"])
    elif name == "paper":
        figures.paper_figure(results, path)
    else:
        figures.curves_figure(TRAIN, VAL, path)


@pytest.mark.parametrize("name", ["confusion", "reliability", "confidence", "paper", "curves"])
def test_equal_input_gives_equal_bytes(name: str, results: dict[str, Any], tmp_path: Path) -> None:
    draw(name, results, tmp_path / "a.png")
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):  # the user's own style does not get in
        draw(name, results, tmp_path / "b.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in data
    assert pixels(tmp_path / "a.png").std() > 5


def test_drops_of_the_learning_rate_and_unusual_curves(tmp_path: Path) -> None:
    figures.curves_figure(TRAIN, VAL, tmp_path / "drop.png")
    steady = [{**row, "lr": 0.1} for row in TRAIN]
    figures.curves_figure(steady, VAL, tmp_path / "steady.png")
    assert not np.array_equal(pixels(tmp_path / "drop.png"), pixels(tmp_path / "steady.png"))
    broken = [{"step": 0, "loss": math.nan, "accuracy": 0.1}, TRAIN[1]]
    figures.curves_figure(broken, [], tmp_path / "nan.png", num_classes=2)
    figures.curves_figure([], VAL, tmp_path / "none.png")


def test_a_model_that_is_always_right_or_never(tmp_path: Path) -> None:
    truth = truth_of(30)
    sure = np.eye(3)[truth["label"].to_numpy()]
    for k, p in enumerate((sure, np.roll(sure, 1, axis=1))):
        results = evaluate_predictions({"b-t4sa": make_table(truth, p)})
        draw(("reliability", "confidence")[k], results, tmp_path / f"{k}.png")


@pytest.fixture(scope="module")
def predicted(releases: Path) -> pa.Table:
    truth = read_truth(open_release(releases), "b-t4sa", "train")
    return make_table(truth, *made_up(truth, skill=0.3))


def test_the_most_confident_of_each_pair() -> None:
    truth = pa.table({"key": list("abcde"), "label": [0, 0, 0, 2, 0]})
    p = np.array([[0.6, 0.2, 0.2], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [0.1, 0.8, 0.1]])
    found = grid.most_confident(make_table(truth, p), 2)
    assert found[0, 0] == (3, [1, 0])  # equal ones: the first in release order
    assert found[2, 0] == (1, [3])
    assert found[0, 1] == (1, [4])
    assert found[1, 1] == (0, [])


def test_the_grid_as_png_and_page(releases: Path, predicted: pa.Table, tmp_path: Path) -> None:
    release = open_release(releases)
    cells = grid.read_cells(release, predicted, split="train", num=2)
    assert [(cell.truth, cell.predicted) for cell in cells[:2]] == [("negative", "negative"), ("negative", "neutral")]
    assert sum(cell.n for cell in cells) == predicted.num_rows
    for cell in cells:
        assert len(cell.shown) == min(2, cell.n)
        assert [one.probability for one in cell.shown] == sorted((one.probability for one in cell.shown), reverse=True)
    grid.write_grid(cells, tmp_path / "grid.png", title="test")
    assert pixels(tmp_path / "grid.png").shape[1] > 3 * 2 * grid.PICTURE_PX
    grid.write_page(cells, tmp_path / "grid.html", title="a < b", about={"n": "1"})
    page = (tmp_path / "grid.html").read_text()
    assert page.count("<img ") == sum(len(cell.shown) for cell in cells)
    sources = re.findall(r'(?:src|href|action)="([^"]*)', page)
    assert sources
    assert all(one.startswith("data:image/jpeg;base64,") for one in sources)
    assert "Content warning" in page
    assert "a &lt; b" in page
    assert "default-src 'none'" in page
    without_data = re.sub(r'src="data:[^"]*"', "", page)
    assert not re.search(r"https?:|url\(|@import|<script", without_data)
    assert not any(key in page for key in predicted["key"].to_pylist())


def test_texts_only_when_asked_for_and_blur_for_good(releases: Path, predicted: pa.Table, tmp_path: Path) -> None:
    release = open_release(releases)
    texts = read_truth(release, "b-t4sa", "train", columns=("text",))["text"].to_pylist()
    shown = {}
    for name, options in {"plain": {}, "texts": {"texts": True}, "blur": {"blur": True}}.items():
        shown[name] = grid.read_cells(release, predicted, split="train", num=1, **options)
        grid.write_page(shown[name], tmp_path / f"{name}.html", title=name)
    words = [html.escape(text) for text in texts if text]
    assert words
    assert not any(text in (tmp_path / "plain.html").read_text() for text in words)
    assert any(text in (tmp_path / "texts.html").read_text() for text in words)
    for plain, blurred in zip(shown["plain"], shown["blur"], strict=True):
        for one, other in zip(plain.shown, blurred.shown, strict=True):
            rough, smooth = (np.abs(np.diff(np.asarray(x.picture).astype(int), axis=0)).mean() for x in (one, other))
            assert smooth < rough
