"""`examples/benchmark_table.py`: the page's rows, what each cell says, and that a stopped run goes on."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import benchmark_table
from examples.systems import cells as making
from examples.systems import registry
from examples.systems.beside import published_since
from examples.systems.data import open_pictures
from examples.systems.protocol import FOLDS, fold_rows
from examples.systems.rendering import COLUMNS
from t4sa_data import catalog
from t4sa_data.catalog import TABLES
from t4sa_data.errors import BadOption, InputMissing, MalformedRow
from t4sa_data.testing import draw_twitter_testing

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "tables.md"
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "twitter_testing"


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with B-T4SA and the Twitter Testing Dataset, drawn."""
    return benchmark_table.make_miniature(tmp_path_factory.mktemp("smoke"))


@pytest.fixture(autouse=True)
def _one_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for C is tested with the systems; here it is time."""
    monkeypatch.setattr("examples.systems.linear.C_CHOICES", (1.0,))


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check_files(out: Path, number: int) -> list[dict[str, str]]:
    """What holds of every table; its rows."""
    rows = table(out)
    assert tuple(rows[0]) == COLUMNS
    assert list(dict.fromkeys(row["system"] for row in rows)) == [row.system for row in TABLES[number]]
    for row in rows:
        ran = [row[name] != "" for name in ("ours", "low", "high", "n")]
        assert all(ran) or not any(ran)
        assert row["how"], "every cell says how it was made, or why it is empty"
        if all(ran):
            assert 0 <= float(row["low"]) <= float(row["ours"]) <= float(row["high"]) <= 100
    text = (out / "table.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in lines if "**" not in line}) == 1
    shown = re.findall(r"^\| ([^|*]+?) \| (?:low|mid|deep|-) \|", text, re.MULTILINE)
    assert shown == [row.system for row in TABLES[number]]
    with Image.open(out / "table.png") as image:
        assert image.width > 600
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    tex = (out / "table.tex").read_text()
    body = [line for line in tex.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert len({line.count("&") for line in body}) == 1
    since = len(published_since()) // 4 + 1 if number == 1 else 0
    assert len(body) == 1 + len(TABLES[number]) + since
    assert (out / "since.csv").exists() == (number == 1)
    return rows


def test_low_level_rows_and_a_comparison(miniature: Path, tmp_path: Path) -> None:
    asked = ["--rows", "GCH", "LCH", "--levels", "5", "--seeds", "2", "--against", "GCH", "--device", "cpu"]
    benchmark_table.main(["--table", "2", "--data", str(miniature), "--out", str(tmp_path), *asked])
    rows = check_files(tmp_path, 2)
    ran = [row for row in rows if row["ours"]]
    assert [(row["system"], row["protocol"]) for row in ran] == [
        ("GCH", "published"),
        ("GCH", "leak-free"),
        ("LCH", "published"),
        ("LCH", "leak-free"),
    ]
    assert all("sd of 2 seeds" in row["how"] and "SMOKE" not in row["how"] for row in ran)
    assert all(("not UPC's" in row["how"]) == (row["protocol"] == "published") for row in ran)
    assert [("McNemar" in row["how"]) for row in ran] == [False, False, True, True]
    shown = dict(
        re.findall(r"^\| (GCH|LCH) \|.*\| ([+-][\d.]+) \|$", (tmp_path / "table.md").read_text(), re.MULTILINE)
    )
    for name in ("GCH", "LCH"):
        published, clean = (float(row["ours"]) for row in ran if row["system"] == name)
        assert float(shown[name]) == pytest.approx(clean - published, abs=0.06)
    assert int(ran[1]["n"]) == len(open_pictures(miniature).rows(5))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "predictions").iterdir()}
    assert len(kept) == 2 * 2 * 5 * 2
    first = (tmp_path / "table.csv").read_bytes(), (tmp_path / "table.png").read_bytes()
    benchmark_table.main(["--table", "2", "--data", str(miniature), "--out", str(tmp_path), *asked])
    assert ((tmp_path / "table.csv").read_bytes(), (tmp_path / "table.png").read_bytes()) == first
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "nothing was computed again"


def test_a_row_without_its_file_says_which(miniature: Path, tmp_path: Path) -> None:
    asked = ["--rows", "SentiBank", "--levels", "5", "--device", "cpu"]
    benchmark_table.main(["--table", "2", "--data", str(miniature), "--out", str(tmp_path), *asked])
    (row, *_) = [row for row in table(tmp_path) if row["system"] == "SentiBank"]
    assert row["ours"] == ""
    assert "SentiBank's 1,200 scores" in row["how"]
    assert '--init "SentiBank=PATH"' in row["how"]


def test_a_substitute_never_passes_for_the_system(miniature: Path, tmp_path: Path) -> None:
    asked = ["--rows", "Sentribute", "--levels", "5", "--folds", "leak-free", "--substitute", "--device", "cpu"]
    benchmark_table.main(["--table", "2", "--data", str(miniature), "--out", str(tmp_path), *asked])
    (row,) = [row for row in table(tmp_path) if row["system"] == "Sentribute"]
    assert row["ours"]
    assert making.SUBSTITUTE in row["how"]
    assert re.search(r"\| Sentribute \| mid \| \? / [\d.]+ s \(", (tmp_path / "table.md").read_text())


def test_a_brought_table_of_scores_serves_any_row(miniature: Path, tmp_path: Path) -> None:
    data = open_pictures(miniature)
    np.savez(tmp_path / "own.npz", keys=np.array(data.keys), scores=np.c_[data.label, 1 - data.label])
    for name in ("SentiBank", "MVSO [EN]"):
        asked = ["--rows", name, "--levels", "3", "--folds", "leak-free", "--init", f"{name}={tmp_path / 'own.npz'}"]
        out = tmp_path / name[:4]
        benchmark_table.main(["--table", "2", "--data", str(miniature), "--out", str(out), *asked, "--device", "cpu"])
        (row,) = [row for row in table(out) if row["system"] == name]
        assert (float(row["ours"]), int(row["n"])) == (100, len(data))
        assert "scores in own.npz" in row["how"]


def test_table_1_with_networks_that_are_there(miniature: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from examples.systems import released
    from examples.systems.protocol import Options

    folder = released._untrained(tmp_path / "net")
    asked = ["--rows", "Random", "VGG-T4SA FT-A", "VGG-T4SA FT-F", "--init", f"VGG-T4SA FT-A={folder}"]
    benchmark_table.main(["--table", "1", "--data", str(miniature), "--out", str(tmp_path), *asked, "--device", "cpu"])
    rows = check_files(tmp_path, 1)
    by_place = {(row["system"], row["subset"]): row for row in rows}
    assert "bring a model folder" in by_place["VGG-T4SA FT-F", "b_t4sa"]["how"]
    assert by_place["VGG-T4SA FT-A", "five_agree"]["paper"] == "78.5"
    # Against the predictions themselves, counted here.
    found = released.predictions(miniature, "twitter-testing", Options(work=tmp_path / "other", init=folder))
    rows_of = found.to_pylist()
    for subset, level in (("five_agree", 5), ("four_agree", 4), ("three_agree", 3)):
        own = [row for row in rows_of if row["agreement"] >= level]
        right = sum((row["logit_positive"] > row["logit_negative"]) == (row["label"] == 2) for row in own)
        cell = by_place["VGG-T4SA FT-A", subset]
        assert (float(cell["ours"]), int(cell["n"])) == (round(100 * right / len(own), 2), len(own))
    three = released.predictions(miniature, "b-t4sa", Options(work=tmp_path / "other", init=folder)).to_pylist()
    names = ("negative", "neutral", "positive")
    right = sum(max(range(3), key=lambda k: row[f"logit_{names[k]}"]) == row["label"] for row in three)
    assert float(by_place["VGG-T4SA FT-A", "b_t4sa"]["ours"]) == round(100 * right / len(three), 2)


def test_a_two_way_system_learns_from_b_t4sa_and_has_no_three_way_answer(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples.systems import colour

    monkeypatch.setattr("examples.systems.cells.module_of", lambda *_: colour)
    monkeypatch.setattr(colour, "FEATURES", {"CNN": colour.gch})
    benchmark_table.main(
        ["--table", "1", "--data", str(miniature), "--out", str(tmp_path), "--rows", "CNN", "--device", "cpu"]
    )
    rows = {row["subset"]: row for row in table(tmp_path) if row["system"] == "CNN"}
    assert float(rows["three_agree"]["ours"]) > 80, "drawn pictures of a class look alike in both datasets"
    assert int(rows["three_agree"]["n"]) == benchmark_table.SMOKE_IMAGES
    assert rows["b_t4sa"]["how"].startswith("answers two ways only; bring one of three classes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "gch"], "no such row"),
        (["--init", "Nobody=x"], "no such row"),
        (["--init", "GCH"], "--init"),
        (["--seeds", "0"], "--seeds"),
        (["--archives", "x"], "--pretrained"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=said):
        benchmark_table.main(["--table", "2", "--data", "nowhere", "--out", str(tmp_path), *words])


def check_smoke(out: Path, number: int, names: Sequence[str]) -> list[dict[str, str]]:
    """Every row that was asked for has a number of real code, or names the file to bring."""
    rows = check_files(out, number)
    for system in registry.systems_of(number):
        own = [row for row in rows if row["system"] == system.name]
        ran = [row for row in own if row["ours"]]
        if system.name not in names:
            assert {row["how"] for row in own} == {"not asked for"}
            continue
        assert ran or all("not run: " in row["how"] for row in own)
        assert all(row["how"].startswith("SMOKE") for row in ran)
        assert ran or system.level == "deep"
    assert (out / "table.md").read_text().startswith("# SMOKE")
    return rows


def test_smoke_of_a_row_of_each_kind(tmp_path: Path) -> None:
    for number, names in ((1, ["Random", "VGG-T4SA FT-A"]), (2, ["GCH", "LCH+BoW", "SentiBank", "PCNN", "AlexNet"])):
        asked = ["--table", str(number), "--smoke", "--folds", "leak-free", "--rows", *names]
        benchmark_table.main([*asked, "--out", str(tmp_path)])
        check_smoke(tmp_path, number, names)


def test_ten_crops_are_another_number_with_its_own_file(miniature: Path, tmp_path: Path) -> None:
    from examples.systems import finetune
    from examples.systems.protocol import Crops, Options, kept_prediction

    data = open_pictures(miniature)
    train, test = np.arange(40), np.arange(40, 50)
    made = []
    asked: tuple[Crops, ...] = ("one", "ten", "ten")
    for crops in asked:
        options = Options(smoke=True, work=tmp_path, system="AlexNet", crops=crops)
        made.append(kept_prediction(finetune.fit_predict, data, train, test, options))
    assert len(list((tmp_path / "predictions").iterdir())) == 2
    assert not np.array_equal(made[0], made[1])
    assert np.array_equal(made[1], made[2])


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_smoke_gives_every_row_a_number_or_names_the_file(number: int, tmp_path: Path) -> None:
    lists = ["--lists", str(REAL)] if REAL.is_dir() else []
    benchmark_table.main(["--table", str(number), "--smoke", "--out", str(tmp_path), *lists])
    check_smoke(tmp_path, number, [row.system for row in TABLES[number]])
    if lists:
        assert masked((tmp_path / "table.md").read_text()) in masked(PAGE.read_text()), "the page shows another table"


def masked(text: str) -> str:
    """A table without our numbers, which another machine may have otherwise, and without marks of headings."""
    text = re.sub(r"\d+\.\d+( s)? \(\d+\.\d+ to \d+\.\d+\)", "N", text)
    text = re.sub(r"\| [+-]\d+\.\d+ ", "| D ", text)
    text = re.sub(r"mean of folds .*", "M", text)
    return re.sub(r"^#+ (SMOKE, drawn pictures\. )?", "# ", text, flags=re.MULTILINE).strip()


def test_the_real_lists_and_folds(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("../shared/data/twitter_testing is not here")
    asked = ["--table", "2", "--smoke", "--lists", str(REAL), "--rows", "GCH"]
    benchmark_table.main([*asked, "--out", str(tmp_path)])
    rows = [row for row in check_files(tmp_path, 2) if row["system"] == "GCH" and row["ours"]]
    published = catalog.TWITTER_TESTING["five"]
    assert [int(row["n"]) for row in rows] == [published.fold_images, published.total]
    assert not any("not UPC's" in row["how"] for row in rows)
    data = open_pictures(tmp_path / "smoke" / "home")
    torn = {}
    for level, name in ((5, "five"), (4, "four"), (3, "three")):
        for folds in FOLDS:
            of = {row: k for k, (_, test) in enumerate(fold_rows(data, level, folds)) for row in test.tolist()}
            known = catalog.TWITTER_TESTING[name]
            expected = known.fold_images if folds == "published" else known.total
            assert len(of) == sum(len(test) for _, test in fold_rows(data, level, folds)) == expected
            twins: dict[int, set[int]] = {}
            for row, fold in of.items():
                twins.setdefault(int(data.group[row]), set()).add(fold)
            torn[name, folds] = sum(len(inside) > 1 for inside in twins.values())
    assert all(torn[name, "leak-free"] == 0 for name in ("five", "four", "three"))
    for name in ("five", "four", "three"):  # one tweet has two pictures, which are a group, too
        twins_apart = catalog.TWITTER_TESTING[name].split_twins
        assert torn[name, "published"] in (twins_apart, twins_apart + 1)
    for line in (REAL / "upc_folds" / "five_agrees" / "test2" / "test.txt").read_text().splitlines():
        tweet = line.split("_")[1]
        assert any(data.folds[5][row] == 2 for row, key in enumerate(data.keys) if key.startswith(f"{tweet}-"))


def test_lists_that_are_not_there_or_no_lists(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no such label list"):
        draw_twitter_testing(tmp_path / "copy", tmp_path)
    for word in ("five", "four", "three"):
        (tmp_path / f"twitter_{word}_agrees.txt").write_text("1_428000000000000000_Ba.jpg 1\n1_42.jpg 1\n")
    with pytest.raises(MalformedRow, match=r"not a picture and its label.*twitter_three_agrees\.txt:2"):
        draw_twitter_testing(tmp_path / "copy", tmp_path)


def test_a_folder_that_smoke_did_not_make_stays(tmp_path: Path) -> None:
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "mine.txt").write_text("a training run")
    with pytest.raises(BadOption, match="was not made by --smoke"):
        benchmark_table.main(["--table", "2", "--smoke", "--out", str(tmp_path)])
    assert (tmp_path / "smoke" / "mine.txt").read_text() == "a training run"
