"""The networks of table 2: progressive selection by known probabilities, the CNN's shapes, fine-tuning on folds."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from examples.systems import progressive
from t4sa_data.errors import BadOption

# Progressive selection.


def test_the_rule_on_known_probabilities() -> None:
    for larger, expected in ((0.5, 1.0), (0.6, 2 - math.exp(0.2)), (0.75, 2 - math.exp(0.5)), (0.85, 0.0), (1.0, 0.0)):
        both = np.array([[larger, 1 - larger], [1 - larger, larger]])
        assert progressive.drop_probability(both) == pytest.approx([expected, expected], abs=1e-12)
    edge = (1 + math.log(2)) / 2  # where the difference is ln 2
    below, above = progressive.drop_probability(np.array([[edge - 1e-6, 1 - edge + 1e-6], [edge, 1 - edge]]))
    assert 0 < below < 1e-5 and above == pytest.approx(0.0, abs=1e-12)


def test_three_classes_go_by_the_two_largest() -> None:
    three = np.array([[0.45, 0.10, 0.45], [0.05, 0.60, 0.35], [0.9, 0.05, 0.05], [1 / 3, 1 / 3, 1 / 3]])
    expected = [1.0, 2 - math.exp(0.25), 0.0, 1.0]
    assert progressive.drop_probability(three) == pytest.approx(expected, abs=1e-12)


def test_as_many_stay_as_the_rule_says() -> None:
    num = 20_000
    d = np.linspace(0, 1, num)  # uniform differences: 1 - integral of 2 - exp(d) from 0 to ln 2 = 2 - 2 ln 2 stay
    both = np.stack([(1 + d) / 2, (1 - d) / 2], axis=1)
    keys = [f"{i}-1" for i in range(num)]
    kept = progressive.choose(both, keys, seed=3)
    assert kept.mean() == pytest.approx(2 - 2 * math.log(2), abs=0.012)
    assert kept[d >= math.log(2)].all() and not kept[0]
    ambiguous, clearer = kept[d < 0.1].mean(), kept[(d > 0.5) & (d < 0.6)].mean()
    assert ambiguous < 0.1 and clearer > 0.6


def test_a_draw_is_of_seed_and_key_alone() -> None:
    keys, both = [f"{i}-1" for i in range(500)], np.tile([0.65, 0.35], (500, 1))
    kept = progressive.choose(both, keys)
    assert (progressive.choose(both[::-1], keys[::-1]) == kept[::-1]).all()
    assert (progressive.choose(both[:100], keys[:100]) == kept[:100]).all()
    assert (progressive.choose(both, keys, seed=1) != kept).any()
    first = int.from_bytes(hashlib.sha256(b"0/0-1").digest()[:8], "big") / 2**64
    assert progressive.draws(["0-1"], 0)[0] == pytest.approx(first, abs=1e-15)


def test_the_kept_list_is_a_file(tmp_path: Path) -> None:
    sha256 = progressive.write_kept(tmp_path / "a" / "kept.txt", ["1-1", "2-1", "3-2"], np.array([True, False, True]))
    data = (tmp_path / "a" / "kept.txt").read_bytes()
    assert data == b"1-1\n3-2\n" and hashlib.sha256(data).hexdigest() == sha256


@pytest.mark.parametrize("bad", [[[0.5, 0.6]], [[1.0]], [[1.2, -0.2]], [[float("nan"), 0.5]], [0.5, 0.5]])
def test_what_is_no_probability_is_refused(bad: list[object]) -> None:
    with pytest.raises(BadOption, match="rows that sum to 1"):
        progressive.drop_probability(np.array(bad))
    with pytest.raises(BadOption, match="a row of probabilities for each key"):
        progressive.choose(np.array([[0.5, 0.5]]), ["1-1", "2-1"])
