"""The catalog: sums, nesting, order of the tables, sources; and that its numbers stand nowhere else."""

import ast
import importlib
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from t4sa_data import catalog
from t4sa_data.catalog import CLASSES, CONFIGS, IMAGE_LAYERS, PACKAGES, PUBLISHED, SPLIT_SIZES, SPLITS

ROOT = Path(__file__).parent.parent
MODULES = ("configs", "counts", "facts", "packages", "results", "twitter_testing")


@pytest.mark.parametrize("name", PUBLISHED)
def test_class_counts_sum_to_the_published_total(name: str) -> None:
    count = PUBLISHED[name]
    assert tuple(count.by_class()) == CLASSES
    assert sum(count.by_class().values()) == count.total


def test_balanced_is_the_smallest_class() -> None:
    assert set(PUBLISHED["balanced"].by_class().values()) == {min(PUBLISHED["unique"].by_class().values())}
    for larger, smaller in (("images", "unique"), ("unique", "balanced")):
        for name in CLASSES:
            assert PUBLISHED[larger].by_class()[name] >= PUBLISHED[smaller].by_class()[name]


@pytest.mark.parametrize(("config", "key"), [("b-t4sa", "balanced"), ("t4sa-unique", "unique"), ("t4sa", "images")])
def test_splits_sum_to_totals(config: str, key: str) -> None:
    counts = [catalog.published_count(config, split) for split in SPLITS]
    assert sum(count or 0 for count in counts) == PUBLISHED[key].total
    for split, count in zip(SPLITS, counts, strict=True):
        by_class = catalog.published_class_counts(config, split)
        assert by_class is not None and tuple(by_class) == CLASSES and sum(by_class.values()) == count
    assert counts[1:] == [SPLIT_SIZES["validation"], SPLIT_SIZES["test"]]


def test_split_sizes() -> None:
    assert SPLIT_SIZES == {"train": 122_862 * 3, "validation": 17_000 * 3, "test": 17_000 * 3}
    iterations = catalog.TRAINING["iterations_per_epoch"].value
    assert (iterations, catalog.TRAINING["released_snapshot"].value) == (5_760, 6 * 5_760)
    assert catalog.TRAINING["batch_size"].value * catalog.TRAINING["accumulation"].value == 64


def test_counts_that_are_not_published() -> None:
    assert catalog.published_count("raw-text", "train") is None
    assert catalog.published_count("miniature", "train") is None
    assert catalog.published_count("b-t4sa", "nothing") is None
    assert catalog.published_count("t4sa-text", "train") == PUBLISHED["tweets"].total
    assert catalog.published_count("twitter-testing", "test") == 1_269
    assert catalog.published_class_counts("raw-text", "train") is None
    assert catalog.published_class_counts("twitter-testing", "test") == {"negative": 500, "neutral": 0, "positive": 769}


def test_image_configs_nest() -> None:
    parts = {
        name: {split: CONFIGS[name].splits[split] for split in SPLITS} for name in ("b-t4sa", "t4sa-unique", "t4sa")
    }
    for split in ("validation", "test"):
        assert {parts[name][split] for name in parts} == {(("b-t4sa", split),)}
    for depth, name in enumerate(parts, start=1):
        assert parts[name]["train"] == tuple((layer, "train") for layer in IMAGE_LAYERS[:depth])
        assert CONFIGS[name].layers == IMAGE_LAYERS[:depth]


def test_configs() -> None:
    assert list(CONFIGS) == [
        "b-t4sa",
        "t4sa-unique",
        "t4sa",
        "raw-text",
        "t4sa-text",
        "b-t4sa-256",
        "twitter-testing",
        "miniature",
    ]
    assert catalog.DEFAULT_CONFIG in CONFIGS
    assert [name for name, config in CONFIGS.items() if not config.built_by_prepare] == ["miniature"]
    for name, config in CONFIGS.items():
        assert config.name == name
        assert set(config.splits) <= set(SPLITS)
        assert config.description.endswith(".") and config.needs.startswith("Needs ")
    assert set(catalog.OFFICIAL_LISTS) == set(SPLITS)
    assert all(re.fullmatch(r"\d+-[1-4]", key) for key in catalog.KNOWN_BAD)


def test_table_1() -> None:
    assert [row.system for row in catalog.TABLE_1] == [
        "Random",
        "CNN",
        "PCNN",
        "Hybrid-T4SA FT-F",
        "Hybrid-T4SA FT-A",
        "VGG-T4SA FT-F",
        "VGG-T4SA FT-A",
    ]
    known = [row for row in catalog.TABLE_1 if "T4SA" in row.system]
    assert [row.five_agree for row in known] == [76.6, 74.1, 76.8, 78.5]
    assert [row.b_t4sa for row in known] == [49.9, 49.1, 50.6, 51.3]


def test_table_2() -> None:
    without = [row.system for row in catalog.TABLE_2 if row.group == "without intermediate fine-tuning"]
    with_it = [row.system for row in catalog.TABLE_2 if row.group == "with intermediate fine-tuning"]
    assert without == [
        "GCH",
        "SentiBank",
        "LCH",
        "GCH+BoW",
        "LCH+BoW",
        "Sentribute",
        "CNN",
        "AlexNet",
        "PlaceCNN",
        "GoogleNet",
        "HybridNet",
        "VGG-19",
    ]
    assert with_it == [
        "PCNN",
        "DeepSentiBank",
        "MVSO [EN]",
        "Hybrid-T4SA FT-A",
        "Hybrid-T4SA FT-F",
        "VGG-T4SA FT-F",
        "VGG-T4SA FT-A",
    ]
    assert [row.system for row in catalog.TABLE_2] == without + with_it
    assert all(row.b_t4sa is None for row in catalog.TABLE_2)


@pytest.mark.parametrize("row", [*catalog.TABLE_1, *catalog.TABLE_2], ids=lambda row: f"{row.group}: {row.system}")
def test_no_cell_without_a_source(row: catalog.Row) -> None:
    cells = [getattr(row, cell) for cell in catalog.CELLS]
    assert row.block in catalog.LEGEND and row.source and row.published_by
    assert (row.certainty == "unknown") == all(cell is None for cell in cells)
    for cell, value in zip(catalog.CELLS, cells, strict=True):
        assert (value is None) == (row.certainty_of(cell) == "unknown")
        assert value is None or 0 < value < 100


def test_reproductions_are_near_the_paper() -> None:
    reproduced = [result for result in catalog.REPRODUCTIONS if result.of_row]
    assert len(reproduced) == 6
    for result in reproduced:
        row = catalog.paper_row(1, result.of_row or "")
        assert result.five_agree and row.five_agree and abs(result.five_agree - row.five_agree) < 4
        assert result.b_t4sa and row.b_t4sa and abs(result.b_t4sa - row.b_t4sa) < 1.5
    assert [result.five_agree for result in catalog.SYSTEMS_SINCE][-1] == 87.8
    with pytest.raises(KeyError, match="no system 'VGG'"):
        catalog.paper_row(2, "VGG")


def test_floors() -> None:
    assert [round(catalog.FLOORS[cell], 1) for cell in catalog.CELLS] == [65.9, 61.7, 60.6, 33.3]
    assert {name: agreement.total for name, agreement in catalog.TWITTER_TESTING.items()} == {
        "five": 882,
        "four": 1_116,
        "three": 1_269,
    }


def _walk(value: Any) -> list[Any]:
    """All dataclass instances in a module's value."""
    if isinstance(value, dict):
        return [found for item in value.values() for found in _walk(item)]
    if isinstance(value, (tuple, list)):
        return [found for item in value for found in _walk(item)]
    return [value] if is_dataclass(value) and not isinstance(value, type) else []


def test_everything_has_a_source_and_a_certainty() -> None:
    records = []
    for name in MODULES:
        module = importlib.import_module(f"t4sa_data.catalog.{name}")
        records += [record for value in vars(module).values() for record in _walk(value)]
    sourced = [record for record in records if hasattr(record, "certainty")]
    assert sum(isinstance(record, catalog.Fact) for record in sourced) > 40
    for record in sourced:
        assert record.source.strip(), record
        assert record.certainty in get_args(catalog.Certainty), record
        if isinstance(record, catalog.Fact):
            assert (record.value is None) == (record.certainty == "unknown"), record


def test_records_are_frozen() -> None:
    for record in (catalog.LICENSE, CONFIGS["t4sa"], PACKAGES["b-t4sa"], catalog.TABLE_1[0], PUBLISHED["images"]):
        with pytest.raises(FrozenInstanceError):
            setattr(record, fields(record)[0].name, None)


def test_packages() -> None:
    assert list(PACKAGES)[:3] == ["b-t4sa", "text-sentiment", "raw-text"] == list(catalog.PREPARE_PACKAGES)
    assert catalog.MODELS == ("hybrid-ft-a", "hybrid-ft-f", "vgg19-ft-a", "vgg19-ft-f")
    assert len(PACKAGES) == 3 + 4 + 4
    assert len({package.filename for package in PACKAGES.values()}) == len(PACKAGES)
    for name, package in PACKAGES.items():
        assert package.name == name and package.url.endswith("/" + package.filename)
        assert (package.num_bytes is None) == (package.size_certainty == "unknown")
    assert PACKAGES["vgg19-ft-f"].filename == "vgg19_finetuned_fc6+.tar.gz"
    torch = catalog.expand(["models-pytorch"])
    assert [package.filename for package in torch] == [
        "hybrid_finetuned_all.pth",
        "hybrid_finetuned_fc6+.pth",
        "vgg19_finetuned_all.pth",
        "vgg19_finetuned_fc6+.pth",
    ]
    assert all(package.url.startswith("https://github.com/") and not package.needs_credentials for package in torch)
    with pytest.raises(KeyError, match="unknown package 'b-t4as'"):
        catalog.expand(["b-t4as"])
    member, label = catalog.SPLIT_LINE_EXAMPLE.split(" ")
    assert member == catalog.MEMBER_PATTERN.format(prefix="76772", tweet_id="767724493873516544", image_index=1)
    assert 0 <= int(label) < len(CLASSES)


def test_citation() -> None:
    assert catalog.PAPER_DOI in catalog.CITATION and catalog.PAPER_DOI in catalog.PAPER
    assert catalog.CITATION.count("{") == catalog.CITATION.count("}")
    assert all(name in catalog.CITATION for name in ("Vadicamo", "Dell'Orletta", "Tesconi", "308--317"))


def test_imports_the_standard_library_only() -> None:
    package = Path(str(catalog.__file__)).parent.parent
    code = (
        "import sys, types; before = set(sys.modules)\n"
        f"parent = sys.modules['t4sa_data'] = types.ModuleType('t4sa_data'); parent.__path__ = [{str(package)!r}]\n"
        "import t4sa_data.catalog as catalog\n"
        "assert 't4sa_data.catalog.results' not in sys.modules, 'the tables load late'\n"
        "assert catalog.results.TABLE_1 is catalog.TABLE_1 and all(hasattr(catalog, x) for x in catalog.__all__)\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"t4sa_data"} <= sys.stdlib_module_names


def _published_numbers() -> set[int]:
    numbers = {number for count in PUBLISHED.values() for number in (*count.by_class().values(), count.total)}
    return numbers | {SPLIT_SIZES["train"], 122_862}


def test_published_numbers_stand_nowhere_else() -> None:
    wanted = _published_numbers()
    strays = []
    for folder in ("t4sa_data", "builders", "hub_scripts", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "catalog" in path.relative_to(ROOT).parts:
                continue
            for row, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                found = {int(re.sub(r"\D", "", text)) for text in re.findall(r"\d{1,3}(?:[,_. ]\d{3})+|\d+", line)}
                strays += [f"{path.relative_to(ROOT)}:{row}: {number}" for number in found & wanted]
    assert not strays, "published numbers belong into t4sa_data.catalog: " + "; ".join(strays)


def test_modules_are_short_and_say_what_they_are() -> None:
    for name in MODULES:
        module = importlib.import_module(f"t4sa_data.catalog.{name}")
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400
        assert ast.get_docstring(ast.parse(text))
