"""`benchmark_table.py --pretrained`: the authors' networks fetched, converted and set beside what others measured."""

from __future__ import annotations

import csv
import io
import pickle
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import benchmark_table
from examples.caffe.exporting import export_archive
from examples.errors import ModelFileError, WeightsMismatch
from examples.evaluation.predicting import predict
from examples.models import build, default_input
from examples.models.folder import JSON_NAME, Model, load_model, save_model
from examples.systems import beside, fetching, released
from examples.systems.data import open_pictures
from examples.systems.protocol import Options
from examples.systems.registry import MODERN
from t4sa_data import catalog
from t4sa_data.errors import BadOption, ReleaseNotFound, WrongContent
from t4sa_data.testing import make_release
from tests.site_double import OfficialSite

ROWS = tuple(row.system for row in catalog.TABLE_1 if "T4SA" in row.system)
CLASSES = catalog.CLASSES


def network(seed: int, name: str = "smoke", width: float = 1.0) -> Model:
    """A network whose answers differ from picture to picture, and from seed to seed."""
    torch.manual_seed(seed)
    net = build(name, width=width)
    with torch.no_grad():  # fresh weights answer one class to everything
        head = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
        head.weight.mul_(200)
    return Model(network=net.eval(), architecture=name, width=width, input=default_input(name))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with B-T4SA and the Twitter Testing Dataset, drawn."""
    return benchmark_table.make_miniature(tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    """Row -> network."""
    return {system: network(seed) for seed, system in enumerate(ROWS)}


@pytest.fixture(scope="module")
def archives(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The released files, by name, as our exporter writes them."""
    folder = tmp_path_factory.mktemp("archives")
    packages = fetching.packages_of("released")
    for system, model in models.items():
        export_archive(model, folder / packages[system].filename)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def site(archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[OfficialSite]:
    with OfficialSite(dict(archives)) as found:
        monkeypatch.setenv("T4SA_BASE_URL", found.url)
        monkeypatch.setenv("T4SA_USER", found.user)
        monkeypatch.setenv("T4SA_PASSWORD", found.password)
        yield found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(data: Path, out: Path, *more: str) -> None:
    asked = ["--table", "1", "--data", str(data), "--out", str(out), "--device", "cpu", *more]
    benchmark_table.main([*asked, *(["--archives", str(out / "raw")] if "--pretrained" in more else [])])


def test_one_command_fetches_converts_and_evaluates_to_the_last_image(
    data: Path, models: dict[str, Model], site: OfficialSite, tmp_path: Path
) -> None:
    run(data, tmp_path, "--pretrained", "released")
    rows = {(row["system"], row["subset"]): row for row in rows_of(tmp_path / "table.csv")}
    asked = len(site.log)
    for system, package in fetching.packages_of("released").items():
        made = load_model(tmp_path / "models" / package.name)
        assert made.source["system"] == system
        options = Options(work=tmp_path / "work", init=tmp_path / "models" / package.name)
        for config in ("twitter-testing", "b-t4sa"):
            ours = released.predictions(data, config, options)
            theirs = predict(models[system], data, config=config, workers=1)
            assert theirs is not None and ours.equals(theirs), (system, config)
            logits = np.stack([ours[f"logit_{name}"].to_numpy() for name in CLASSES], axis=1)
            truth = ours["label"].to_numpy()
            if config == "b-t4sa":
                right = logits.argmax(axis=1) == truth
                assert len(set(logits.argmax(axis=1))) > 1, "a network that answers one class shows nothing"
                cells = {"b_t4sa": right}
            else:
                right = (logits[:, 2] > logits[:, 0]) == (truth == 2)
                agreement = ours["agreement"].to_numpy()
                names = {"five_agree": 5, "four_agree": 4, "three_agree": 3}
                cells = {name: right[agreement >= least] for name, least in names.items()}
            for name, inside in cells.items():
                row = rows[system, name]
                assert (int(row["n"]), row["ours"]) == (len(inside), f"{100 * inside.mean():.2f}")
    assert {row["how"] for (system, _), row in rows.items() if system in ("CNN", "PCNN")} == {"not asked for"}
    assert rows["Random", "b_t4sa"]["ours"]
    text = (tmp_path / "table.md").read_text()
    for number in ("78.91", "51.92", "74.04", "51.02"):  # Serra's conversions, Baskaran's retrainings
        assert number in text
    assert "not comparable" in text and "**reproduced**" not in text
    # Once more: nothing is fetched, converted or predicted again.
    files = [path for folder in ("raw", "models", "work") for path in (tmp_path / folder).rglob("*.*[a-z]")]
    times = {path: path.stat().st_mtime_ns for path in files if not path.name.startswith(".")}
    assert len(times) > 4 + 4 * 2 + 4 * 2
    run(data, tmp_path, "--pretrained", "released")
    assert len(site.log) == asked
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("hybrid", 1.0), ("vgg19", 0.25)])
def test_the_papers_networks_equal_to_the_last_image(name: str, width: float, data: Path, tmp_path: Path) -> None:
    model, package = network(1, name, width), fetching.packages_of("released")["VGG-T4SA FT-A"]
    path = export_archive(model, tmp_path / package.filename)
    save_model(tmp_path / "made", fetching.convert(path, package))
    for config in ("twitter-testing", "b-t4sa"):
        ours = released.predictions(data, config, Options(work=tmp_path / "work", init=tmp_path / "made"))
        theirs = predict(model, data, config=config, workers=1)
        assert theirs is not None and ours.equals(theirs)
        assert len(set(ours["logit_positive"].to_pylist())) > 0.8 * ours.num_rows, (
            "pictures that look alike show nothing"
        )


def test_another_archive_is_converted_anew_and_a_damaged_one_named(
    data: Path, site: OfficialSite, tmp_path: Path, models: dict[str, Model]
) -> None:
    system, name = "VGG-T4SA FT-A", "vgg19_finetuned_all.tar.gz"
    asked = ("--pretrained", "released", "--rows", system)
    run(data, tmp_path, *asked)
    folder = tmp_path / "models" / "vgg19-ft-a"
    first = (folder / JSON_NAME).read_bytes()
    other = tmp_path / "other"
    export_archive(network(17), other / "raw" / name)
    run(data, other, *asked)
    (other / "models").rename(tmp_path / "swapped")
    (tmp_path / "models").rename(other / "models")  # as if the archive had been exchanged below a converted folder
    run(data, other, *asked)
    assert (other / "models" / "vgg19-ft-a" / JSON_NAME).read_bytes() != first
    made = load_model(other / "models" / "vgg19-ft-a").network.state_dict()
    assert all(torch.equal(value, network(17).network.state_dict()[key]) for key, value in made.items())
    damaged = tmp_path / "damaged"
    (damaged / "raw").mkdir(parents=True)
    (damaged / "raw" / name).write_bytes(site.files[name][:-100])
    with pytest.raises(WrongContent, match=re.escape(name)):
        run(data, damaged, *asked)
    assert not (damaged / "table.md").exists()


@pytest.mark.slow
def test_the_pytorch_files_of_the_authors(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(3, "hybrid", width=1.0)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, value in model.network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        arrays.setdefault(layer, {})["weights" if kind == "weight" else "bias"] = value.numpy()
    with OfficialSite({"hybrid_finetuned_fc6+.pth": pickle.dumps(arrays, protocol=2)}, is_open=True) as found:
        monkeypatch.setenv("T4SA_BASE_URL", found.url)
        run(data, tmp_path, "--pretrained", "converted", "--rows", "Hybrid-T4SA FT-F")
    made = load_model(tmp_path / "models" / "pytorch-hybrid-ft-f")
    assert (made.architecture, made.source["system"]) == ("hybrid", "Hybrid-T4SA FT-F")
    theirs = made.network.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.network.state_dict().items())
    assert rows_of(tmp_path / "table.csv")[12]["ours"]


@pytest.mark.slow
def test_table_2_fine_tunes_them(data: Path, site: OfficialSite, tmp_path: Path) -> None:
    asked = ["--table", "2", "--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--levels", "5"]
    asked += ["--folds", "leak-free", "--archives", str(tmp_path / "raw")]
    benchmark_table.main([*asked, "--pretrained", "released", "--rows", "Hybrid-T4SA FT-A"])
    (row,) = [row for row in rows_of(tmp_path / "table.csv") if row["ours"]]
    assert (row["system"], int(row["n"])) == ("Hybrid-T4SA FT-A", len(open_pictures(data).rows(5)))
    assert row["how"].startswith("all weights fine-tuned on 4 folds; mean of folds ")
    assert len(list((tmp_path / "work" / "predictions").iterdir())) == 5


def test_an_archive_that_does_not_name_its_classes_says_what_to_do(
    data: Path, archives: dict[str, bytes], tmp_path: Path
) -> None:
    name = "vgg19_finetuned_all.tar.gz"
    (tmp_path / "raw").mkdir()
    with tarfile.open(fileobj=io.BytesIO(archives[name])) as old, tarfile.open(tmp_path / "raw" / name, "w:gz") as new:
        for member in old.getmembers():
            if member.name not in ("labels.txt", "info.json"):
                new.addfile(member, old.extractfile(member))
    with pytest.raises(ModelFileError, match=r"no labels.*examples/convert\.py .*--init \"VGG-T4SA FT-A=MODEL\""):
        run(data, tmp_path, "--pretrained", "released", "--rows", "VGG-T4SA FT-A")
    assert not (tmp_path / "models").exists()


def test_what_is_brought_is_not_fetched(data: Path, site: OfficialSite, tmp_path: Path) -> None:
    save_model(tmp_path / "own", network(5))
    brought = ("--init", f"VGG-T4SA FT-A={tmp_path / 'own'}", "--rows", "VGG-T4SA FT-A")
    run(data, tmp_path / "out", "--pretrained", "released", *brought)
    assert site.log == []
    assert not (tmp_path / "out" / "models").exists()


def test_a_three_way_cnn_fills_the_last_column(data: Path, tmp_path: Path) -> None:
    three, other = tmp_path / "runs" / "best", tmp_path / "other"
    save_model(three, network(2, "you_cnn", width=0.1))
    save_model(other, network(2))
    run(data, tmp_path / "out", "--rows", "CNN", "--init", f"CNN={three}")
    row = next(
        row for row in rows_of(tmp_path / "out" / "table.csv") if row["system"] == "CNN" and "b_" in row["subset"]
    )
    table = predict(load_model(three), data, config="b-t4sa", workers=1)
    assert table is not None
    logits = np.stack([table[f"logit_{name}"].to_numpy() for name in CLASSES], axis=1)
    assert row["ours"] == f"{100 * (logits.argmax(axis=1) == table['label'].to_numpy()).mean():.2f}"
    assert row["how"] == "re-implementation, begun with runs/best"
    with pytest.raises(WeightsMismatch, match="another network"):
        run(data, tmp_path / "out", "--rows", "CNN", "--init", f"CNN={other}")


def test_without_the_twitter_testing_dataset_its_columns_say_so(tmp_path: Path) -> None:
    make_release(tmp_path / "home", 60, formats=("parquet",))
    save_model(tmp_path / "best", network(9))
    asked = ("--rows", "Random", "CNN", "VGG-T4SA FT-A", "--init", f"VGG-T4SA FT-A={tmp_path / 'best'}")
    run(tmp_path / "home", tmp_path, *asked)
    rows = {(row["system"], row["subset"]): row for row in rows_of(tmp_path / "table.csv")}
    for system in ("Random", "VGG-T4SA FT-A"):
        assert rows[system, "b_t4sa"]["ours"]
        assert "twitter-testing is needed" in rows[system, "five_agree"]["how"]
    assert not any(rows["CNN", cell]["ours"] for cell in ("five_agree", "b_t4sa"))


def test_systems_since_stand_below_with_ours(data: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "best", network(9))
    run(data, tmp_path, "--rows", MODERN.name, "--init", f"{MODERN.name}={tmp_path / 'best'}")
    assert [row["system"] for row in rows_of(tmp_path / "table.csv")][::4] == [row.system for row in catalog.TABLE_1]
    rows = rows_of(tmp_path / "since.csv")
    assert {row["block"] for row in rows} == {"systems since"}
    published = [row for row in rows if row["system"] == "T4SA 2.0, ViT-L/16 (3.8)"]
    assert [row["paper"] for row in published] == ["87.8", "84.8", "81.9", ""]
    assert all(row["ours"] == "" and row["how"].startswith("published: ") for row in published)
    ours = [row for row in rows if row["system"] == MODERN.name]
    assert len(ours) == 4 and all(row["ours"] and not row["paper"] for row in ours)
    assert len(rows) == 4 * (1 + len(beside.published_since()) // 4)
    text = (tmp_path / "table.md").read_text()
    assert (
        text.index("## Systems since") < text.index("| T4SA 2.0, ViT-B/32 (3.1) |") < text.index(f"| {MODERN.name} |")
    )


def test_a_release_that_is_not_there_is_named_before_anything_is_fetched(site: OfficialSite, tmp_path: Path) -> None:
    with pytest.raises(ReleaseNotFound):
        run(tmp_path / "nowhere", tmp_path, "--pretrained", "released")
    assert site.log == []


def test_lists_go_with_smoke(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="--lists"):
        benchmark_table.main(["--table", "2", "--data", "x", "--lists", "y", "--out", str(tmp_path)])
