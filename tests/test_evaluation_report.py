"""From tables of predictions to results.json and results.md, and the rule of the verdict."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from examples.errors import PredictionsError
from examples.evaluation import metrics
from examples.evaluation.predictions import make_table
from examples.evaluation.report import evaluate_predictions, results_markdown, verdict

# isort: split
from tests.evaluation_helpers import made_up, truth_of

SYSTEM = "VGG-T4SA FT-A"


def table(n: int, *, twitter: bool = False, seed: int = 0, skill: float = 1.0) -> pa.Table:
    truth = truth_of(n, twitter=twitter)
    return make_table(truth, *made_up(truth, seed=seed, skill=skill))


def test_three_way() -> None:
    one = table(300)
    results = evaluate_predictions({"b-t4sa": one}, about={"view": "squash"})
    entry = results["b-t4sa"]
    label = one["label"].to_numpy()
    predicted = np.stack([one[f"logit_{c}"].to_numpy() for c in ("negative", "neutral", "positive")]).argmax(0)
    counts = metrics.confusion(label, predicted)
    assert results["about"] == {"split": "test", "system": None, "view": "squash"}
    assert entry["confusion"] == counts.tolist()
    assert entry["accuracy"] == np.mean(label == predicted)
    assert (entry["low"], entry["high"]) == metrics.wilson(int(np.trace(counts)), 300)
    assert (entry["n"], entry["n_published"], entry["comparable"]) == (300, 51_000, False)
    assert entry["floor"] == np.bincount(label).max() / 300
    assert list(entry["recall"]) == ["negative", "neutral", "positive"]
    assert sum(one["n"] for one in entry["reliability"]) == sum(one["n"] for one in entry["by_text_confidence"]) == 300
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_twitter_cells_are_those_of_the_agreement() -> None:
    one = table(400, twitter=True)
    cells = evaluate_predictions({"twitter-testing": one})["twitter-testing"]
    assert {cell: entry["n"] for cell, entry in cells.items()} == {
        "five_agree": 200,
        "four_agree": 300,
        "three_agree": 400,
    }
    assert [entry["n_published"] for entry in cells.values()] == [882, 1116, 1269]
    logits = np.stack([one[f"logit_{c}"].to_numpy() for c in ("negative", "neutral", "positive")], axis=1)
    inside = one["agreement"].to_numpy() == 5
    right = np.where(logits[:, 2] > logits[:, 0], 2, 0) == one["label"].to_numpy()
    assert cells["five_agree"]["accuracy"] == right[inside].mean()
    assert cells["five_agree"]["neutral_on_top"]["n"] == int((logits.argmax(1) == 1)[inside].sum())
    assert np.array(cells["five_agree"]["confusion"]).shape == (2, 2)
    only_five = one.filter(pa.array(inside))
    assert {e["n"] for e in evaluate_predictions({"twitter-testing": only_five})["twitter-testing"].values()} == {200}
    with pytest.raises(PredictionsError, match="not the Twitter Testing Dataset"):
        evaluate_predictions({"twitter-testing": table(30)})


def test_two_models_are_compared_row_by_row() -> None:
    ours, theirs = table(500, seed=1, skill=1.5), table(500, seed=2, skill=0.5)
    found = evaluate_predictions({"b-t4sa": ours}, against={"b-t4sa": theirs})["b-t4sa"]
    against = found["against"]
    assert against["difference"] == pytest.approx(found["accuracy"] - against["accuracy"])
    assert against["low"] < against["difference"] < against["high"]
    assert against["mcnemar_p"] < 0.001
    assert against["only_ours"] - against["only_theirs"] == round(500 * against["difference"])
    twins = table(400, twitter=True)
    cells = evaluate_predictions({"twitter-testing": twins}, against={"twitter-testing": twins})["twitter-testing"]
    assert {entry["against"]["mcnemar_p"] for entry in cells.values()} == {1.0}
    with pytest.raises(PredictionsError, match="other rows"):
        evaluate_predictions({"b-t4sa": ours}, against={"b-t4sa": theirs.slice(1)})


# The catalog: paper 51.3, reproductions 51.92 and 51.02; five agree 78.5, 78.80, 75.51.
@pytest.mark.parametrize(
    ("accuracy", "low", "high", "cell", "word"),
    [
        (51.3, 50.9, 51.7, "b_t4sa", "reproduced"),
        (51.0, 50.6, 51.26, "b_t4sa", "reproduced"),  # 51.3 may be 51.25
        (51.7, 51.34, 52.1, "b_t4sa", "reproduced"),  # and 51.35
        (51.0, 50.6, 51.24, "b_t4sa", "within the spread of published reproductions"),
        (52.0, 51.36, 52.4, "b_t4sa", "within the spread of published reproductions"),
        (51.0, 50.6, 51.02, "b_t4sa", "within the spread of published reproductions"),
        (50.6, 50.2, 51.01, "b_t4sa", "outside"),
        (52.4, 51.93, 52.8, "b_t4sa", "outside"),
        (76.0, 73.1, 78.44, "five_agree", "within the spread of published reproductions"),
        (76.0, 73.1, 78.46, "five_agree", "reproduced"),
        (74.0, 71.0, 76.61, "four_agree", "within the spread of published reproductions"),  # the paper's is unknown
        (74.0, 71.0, 76.60, "four_agree", "outside"),
    ],
)
def test_the_rule_of_the_verdict(accuracy: float, low: float, high: float, cell: str, word: str) -> None:
    found, sentence = verdict(accuracy, low, high, SYSTEM, cell)
    assert found == word
    assert f"{accuracy:.2f} % ({low:.2f} to {high:.2f})" in sentence
    if word == "outside":
        assert ("below" if accuracy < 51 or cell == "four_agree" else "above") in sentence


@pytest.mark.parametrize("system", [None, "no such system", "CNN"])
def test_nothing_to_compare_with(system: str | None) -> None:
    assert verdict(50.0, 49.0, 51.0, system)[0] == "nothing to compare with"


def test_a_row_without_reproductions_is_compared_with_the_paper_alone() -> None:
    assert verdict(33.5, 33.2, 33.9, "Random")[0] == "reproduced"
    assert verdict(35.0, 34.6, 35.4, "Random")[0] == "outside"


def test_the_report_shows_ours_beside_theirs() -> None:
    tables = {"b-t4sa": table(51_000, skill=0.55), "twitter-testing": table(400, twitter=True)}
    results = evaluate_predictions(tables, system=SYSTEM)
    text = results_markdown(results)
    entry = results["b-t4sa"]
    row = next(line for line in text.splitlines() if line.startswith("| B-T4SA"))
    for part in (f"**{100 * entry['accuracy']:.2f}**", "51,000 of 51,000", "51.3", "51.92 Serra, 51.02 Baskaran"):
        assert part in row
    assert entry["verdict"]["sentence"] in text
    assert entry["paper"] == 0.513
    assert "200 of 882 published samples: not comparable" in text
    assert "verdict" not in results["twitter-testing"]["five_agree"]
    assert results["twitter-testing"]["four_agree"]["paper"] is None
    widths = [line.count("|") for line in text.partition("\n\n- ")[0].splitlines() if line.startswith("|")]
    assert len(set(widths)) == 1


def test_without_a_system_all_rows_are_shown() -> None:
    text = results_markdown(evaluate_predictions({"b-t4sa": table(300)}))
    for name in ("Hybrid-T4SA FT-F", "VGG-T4SA FT-A, converted", "MobileNetV2 FT-A", "49.1 to 51.3"):
        assert name in text
    assert "verdict" not in text
    other = results_markdown(evaluate_predictions({"b-t4sa": table(300)}), SYSTEM)
    assert f"paper: {SYSTEM}" in other


def test_another_split_is_not_the_papers() -> None:
    results = evaluate_predictions({"b-t4sa": table(51_000)}, split="validation", system=SYSTEM)
    assert results["b-t4sa"]["comparable"] is False
    assert "verdict" not in results["b-t4sa"]
    assert "b-t4sa validation split" in results_markdown(results)
