"""The systems of the paper's tables: folds, kept predictions, features against independent ones, heads over scores."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.errors import Needs, PredictionsError
from examples.systems import bow, chance, colour, linear, scores
from examples.systems import protocol as rules
from examples.systems.data import Floats, Ints, Pictures, groups_of, joined, make_pictures, open_pictures
from examples.systems.protocol import FOLDS, Options, cross_validate, fold_rows
from examples.systems.registry import SYSTEMS, systems_of
from t4sa_data.catalog import TABLES
from t4sa_data.testing import make_release

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
NUM = 60


def photos(num: int) -> list[Image.Image]:
    """Real photographs."""
    found = sorted((PHOTOS / "varied").glob("*.jp*g"))[:num]
    if not found:
        pytest.skip("../shared/data/photos is not here")
    return [Image.open(path).convert("RGB") for path in found]


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def coloured(num: int = NUM, *, flat: bool = False) -> Pictures:
    """Positive pictures are warm, negative ones cold, one in eight the other way; the first two are twins."""
    rng = np.random.default_rng(0)
    label = (rng.random(num) < 0.6).astype(np.int64)
    label[:2] = 1
    files = []
    for row in range(num):
        warm = bool(label[row]) ^ (row % 8 == 7)
        noise = rng.integers(0, 1 if flat else 200, (40, 48, 3))
        files.append(png(Image.fromarray(np.uint8(noise // 4 + np.array([180, 90, 20] if warm else [20, 90, 180])))))
    group = np.arange(num)
    group[1] = 0
    files[1] = files[0]
    published = np.arange(num) % 5 + 1
    published[-2:] = 0
    return make_pictures(
        keys=[f"{row}-1" for row in range(num)],
        label=label,
        group=group,
        agreement=np.where(np.arange(num) % 10 < 7, 5, np.where(np.arange(num) % 10 < 9, 4, 3)),
        folds={3: published},
        content="drawn",
        read=files.__getitem__,
    )


# Rows of the tables


def test_the_registry_has_the_pages_rows_in_its_order() -> None:
    assert [len(systems_of(table)) for table in (1, 2)] == [7, 19]
    for table, rows in TABLES.items():
        assert [(one.name, one.block) for one in systems_of(table)] == [(row.system, row.group) for row in rows]
    assert {one.level for one in SYSTEMS} == {"-", "low", "mid", "deep"}


# Pictures


def test_pictures_of_a_release_are_two_way_and_by_the_rule(tmp_path: Path) -> None:
    make_release(tmp_path, 60, formats=("parquet",))
    data = open_pictures(tmp_path, "b-t4sa", "train")
    from t4sa_data import load_dataset

    rows = {row["key"]: row for row in load_dataset(str(tmp_path), "b-t4sa", split="train") if row["label"] != 1}
    assert sorted(data.keys) == sorted(rows)
    for row in (0, len(data) - 1):
        one = rows[data.keys[row]]
        assert data.label[row] == one["label"] // 2
        assert np.array_equal(np.asarray(data.rgb(row)), np.asarray(one["image"].convert("RGB")))


def test_groups_are_closed() -> None:
    assert groups_of(["a", "b", "c", "b"], [1, 2, 2, 3], ["x", "y", "z", "x"]).tolist() == [0, 0, 0, 0]


def test_joined_pictures_are_the_firsts_then_the_seconds() -> None:
    one, other = coloured(6), coloured(4)
    both = joined(one, other)
    assert both.label.tolist() == [*one.label, *other.label]
    assert both.read(7) == other.read(1)
    assert len(set(both.keys)) == 10
    assert set(both.group[:6]).isdisjoint(both.group[6:])


# Folds and protocol


@pytest.mark.parametrize("folds", FOLDS)
def test_each_image_is_tested_once_and_never_trained_on(folds: rules.Folds) -> None:
    data = coloured()
    tested: list[int] = []
    for train, test in fold_rows(data, 3, folds):
        assert not set(train) & set(test)
        tested += test.tolist()
    assert sorted(tested) == list(range(NUM - (2 if folds == "published" else 0)))


def test_leak_free_folds_keep_twins_together_at_every_level() -> None:
    data = coloured()
    for level in (5, 4, 3):
        for train, test in fold_rows(data, level, "leak-free"):
            assert not set(data.group[train]) & set(data.group[test])
    assert any(set(data.group[train]) & set(data.group[test]) for train, test in fold_rows(data, 3, "published"))


def test_no_published_folds_is_said() -> None:
    with pytest.raises(Needs, match="no published folds"):
        fold_rows(coloured(), 5, "published")


def oracle(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
    """Right but for every tenth row; another seed, other tenths."""
    return np.array([abs(data.label[row] - ((row + options.seed) % 10 == 0)) for row in test], dtype=np.float64)


def test_pooled_numbers_are_those_counted_by_hand(tmp_path: Path) -> None:
    data, options = coloured(), Options(work=tmp_path, system="one")
    found = cross_validate(oracle, data, options, level=3, folds="leak-free", seeds=[0, 1])
    assert (found.accuracy, found.n, found.num_seeds) == (0.9, 60, 2)
    assert (found.low, found.high) == pytest.approx((0.79854, 0.95336), abs=1e-4), "Wilson's interval of 54 in 60"
    assert found.floor == pytest.approx(max(data.label.mean(), 1 - data.label.mean()))
    assert found.seed_sd == 0


def test_kept_predictions_are_not_computed_again(tmp_path: Path) -> None:
    data, options, calls = coloured(), Options(work=tmp_path, system="one"), []

    def system(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
        calls.append(options.seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.full(len(test), 0.75)

    def ask(**change: object) -> rules.Result:
        own = replace(options, **change)  # type: ignore[arg-type]
        return cross_validate(system, data, own, level=3, folds="leak-free", seeds=[0])

    with pytest.raises(KeyboardInterrupt):
        ask()
    first = ask()
    assert len(calls) == 3 + 3, "the two folds that were done stay done"
    assert ask().is_right == first.is_right
    assert len(calls) == 6
    (tmp_path / "scores.csv").write_text("key,a\n")
    for number, change in enumerate(({"system": "two"}, {"smoke": True}, {"init": tmp_path / "scores.csv"}), 1):
        ask(**change)
        assert len(calls) == 6 + 5 * number
    (tmp_path / "scores.csv").write_text("key,b\n")
    ask(init=tmp_path / "scores.csv")
    assert len(calls) == 26, "another file, other predictions"


@pytest.mark.parametrize("bad", [np.zeros(3), np.full(12, np.nan), np.full(12, 1.5)])
def test_what_is_no_probability_for_each_row_is_refused(bad: Floats, tmp_path: Path) -> None:
    def system(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
        return bad

    with pytest.raises(ValueError, match="probabilities"):
        rules.kept_prediction(system, coloured(), np.arange(12), np.arange(12), Options(work=tmp_path))


def test_mcnemar_is_of_the_images_both_were_tested_on(tmp_path: Path) -> None:
    data = coloured()
    one = cross_validate(oracle, data, Options(work=tmp_path, system="a"), level=3, folds="published", seeds=[0])
    other = cross_validate(oracle, data, Options(work=tmp_path, system="a"), level=3, folds="leak-free", seeds=[1])
    only, only_other, p = rules.against(one, other)
    assert (only, only_other) == (5, 6), "row 59 is in no published fold, and rows 9, 19, ... err with seed 1"
    assert p == pytest.approx(1.0)


# Features, against independent computations


def test_colour_histograms_equal_opencvs_on_photos() -> None:
    cv2 = pytest.importorskip("cv2")
    for picture in photos(12):
        pixels = np.asarray(picture)
        whole = cv2.calcHist([pixels], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3).ravel() / pixels[..., 0].size
        assert np.allclose(colour.gch(picture), whole, atol=1e-7)
        height, width = pixels.shape[:2]
        cells = []
        for i in range(4):
            for j in range(4):
                box = (width * j // 4, height * i // 4, width * (j + 1) // 4, height * (i + 1) // 4)
                cell = np.ascontiguousarray(np.asarray(picture.crop(box)))
                cells.append(cv2.calcHist([cell], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3).ravel() / cell[..., 0].size)
        assert np.allclose(colour.lch(picture), np.concatenate(cells) / 16, atol=1e-7)


def test_colour_histograms_of_slivers_sum_to_one() -> None:
    for size in ((1, 1), (3, 1), (1, 500), (2, 2)):
        picture = Image.new("RGB", size, (255, 128, 0))
        assert colour.gch(picture).sum() == pytest.approx(1)
        assert colour.lch(picture).sum() == pytest.approx(1)


def test_a_bag_of_words_equals_a_slow_one_on_photos(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    shown = photos(4)
    files = [png(picture) for picture in shown]
    data = make_pictures(keys=list("abcd"), label=np.array([0, 1, 0, 1]), content="p", read=files.__getitem__)
    all_of = bow.Descriptors(data, Options(work=tmp_path))
    words = bow.find_words(all_of, np.array([0, 1]), 20, seed=0)
    found = bow.histograms(all_of, words, 4)
    for row, picture in enumerate(shown):
        scale = 256 / min(picture.size)
        small = picture.convert("L").resize(tuple(round(side * scale) for side in picture.size), Image.BILINEAR)
        raw = cv2.SIFT_create(nfeatures=500).detectAndCompute(np.asarray(small), None)[1]
        unit = np.sqrt(raw / raw.sum(axis=1, keepdims=True))
        nearest = ((unit[:, None].astype(np.float64) - words.cluster_centers_) ** 2).sum(axis=2).argmin(axis=1)
        assert 20 < len(raw) <= 510
        assert np.abs(found[row] - np.bincount(nearest, minlength=20) / len(raw)).sum() < 0.01


def test_words_come_from_the_training_rows_only(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    files = [png(Image.fromarray(np.uint8(rng.integers(0, 256, (64, 64, 3))))) for _ in range(4)]

    def words(files: list[bytes], content: str) -> Floats:
        data = make_pictures(keys=list("abcd"), label=np.array([0, 1, 0, 1]), content=content, read=files.__getitem__)
        all_of = bow.Descriptors(data, Options(work=tmp_path))
        return np.asarray(bow.find_words(all_of, np.array([0, 1]), 8, seed=0).cluster_centers_)

    same = words([*files[:2], files[3], files[2]], "other tests")
    assert np.array_equal(words(files, "one"), same)
    assert not np.array_equal(words(files[::-1], "other training"), same)


@pytest.mark.parametrize("flat", [True, False])
def test_pictures_without_key_points_stay(flat: bool, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    data = coloured(30, flat=flat)
    options = Options(work=tmp_path, smoke=True, system="GCH+BoW")
    all_of = bow.Descriptors(data, options)
    if flat:
        assert len(all_of.raw) == 0
        assert bow.histograms(all_of, bow.find_words(all_of, np.arange(20), 8, seed=0), 30).sum() == 0
    assert bow.fit_predict(data, np.arange(20), np.arange(20, 30), options).shape == (10,)


# Systems learn


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("GCH", colour.fit_predict),
        ("LCH", colour.fit_predict),
        ("LCH+BoW", bow.fit_predict),
        ("SentiBank", scores.fit_predict),
    ],
)
def test_a_system_finds_what_was_planted(name: str, system: rules.FitPredict, tmp_path: Path) -> None:
    if "BoW" in name:
        pytest.importorskip("cv2")
    options = Options(work=tmp_path, smoke=True, system=name)
    found = cross_validate(system, coloured(), options, level=3, folds="leak-free", seeds=[0])
    assert 0.8 <= found.accuracy <= 0.9, "seven of eight can be told by colour"


def test_chance_is_chance_and_depends_on_the_key_only(tmp_path: Path) -> None:
    data = coloured(2000, flat=True)
    found = chance.fit_predict(data, np.arange(0), np.arange(2000), Options(work=tmp_path))
    assert abs((found > 0.5).mean() - 0.5) < 0.04
    assert np.array_equal(chance.fit_predict(data, np.arange(9), np.arange(5, 9), Options(work=tmp_path)), found[5:9])


def test_the_svm_does_with_few_of_a_class() -> None:
    values = np.array([[0.0], [0.1], [0.2], [1.0]])
    svm = linear.fit_svm(values, np.array([0, 0, 0, 1]), seed=0)
    positive = linear.positive_of(svm, np.array([[-9.0], [9.0]]))
    assert positive[0] < 0.5 < positive[1]


# Tables of scores


def tables(keys: list[str], values: Floats) -> dict[str, Callable[[Path], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"key": keys, **{f"s{k}": values[:, k] for k in range(values.shape[1])}})
    lines = [",".join(table.column_names)] + [
        f"{k},{','.join(map(repr, v.tolist()))}" for k, v in zip(keys, values, strict=True)
    ]
    return {
        "npz": lambda path: np.savez(path, keys=np.array(keys), scores=values),
        "parquet": lambda path: pq.write_table(table, path),
        "csv": lambda path: path.write_text("\n".join(lines)) and None,
    }


@pytest.mark.parametrize("kind", ["npz", "parquet", "csv"])
def test_scores_go_by_key_whatever_their_order(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 3))
    path = tmp_path / f"scores.{kind}"
    tables(["d", "a", "c", "b"], values)[kind](path)
    assert np.allclose(scores.read_scores(path, ["a", "b", "d"]), values[[1, 3, 0]])
    with pytest.raises(PredictionsError, match="lack pictures"):
        scores.read_scores(path, ["a", "e"])


def test_scores_that_are_not_sound_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    with pytest.raises(Needs, match="not there"):
        scores.read_scores(path, ["a"])
    for keys, values, words in (
        (["a", "a"], np.zeros((2, 2)), "twice"),
        (["a", "b"], np.full((2, 2), np.nan), "finite"),
        (["a", "b"], np.zeros((3, 2)), "cannot be read"),
    ):
        np.savez(path, keys=np.array(keys), scores=values)
        with pytest.raises(PredictionsError, match=words):
            scores.read_scores(path, ["a"])
    path.write_bytes(b"no archive")
    with pytest.raises(PredictionsError, match="cannot be read"):
        scores.read_scores(path, ["a"])


def test_a_brought_table_is_what_the_head_learns_from(tmp_path: Path) -> None:
    data = coloured()
    path = tmp_path / "scores.npz"
    noise = np.random.default_rng(0).normal(size=(NUM, 5))
    np.savez(path, keys=np.array(data.keys), scores=np.c_[noise, 1000 * data.label + 5])
    options = Options(work=tmp_path, system="SentiBank", init=path)
    found = cross_validate(scores.fit_predict, data, options, level=3, folds="leak-free", seeds=[0])
    assert found.accuracy == 1.0
    kept = [json.loads(one.read_text()) for one in (tmp_path / "predictions").glob("*.json")]
    assert len(kept) == 5
    assert {one["init"] for one in kept} == {rules.digest_of(path)}
