"""The card and the Croissant file: what they say is what the files hold, and the readers they are for read them."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from t4sa_data import card, catalog, release
from t4sa_data.files import sha256_file
from t4sa_data.manifest import FileEntry, Manifest, load_manifest
from t4sa_data.miniature import make_samples
from t4sa_data.schema import RECORD
from t4sa_data.testing.releases import make_release, record_table
from tests.card_helpers import image_layer, of_split, rows, run, text_layer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three releases: `plain` (make_release), `nested` (three image layers and a text layer), `raw/t4sa-inplace`."""
    root = tmp_path_factory.mktemp("card")
    make_release(root / "plain", 50)
    samples = make_samples(70, seed=1)
    further = [replace(sample, split="train") for sample in samples[50:]]
    layers = [
        image_layer("b-t4sa", samples[:50], root / "nested"),
        image_layer("unique", further[:8], root / "nested"),
        image_layer("duplicates", further[8:], root / "nested"),
        text_layer(record_table(samples[:20]), root / "nested"),
    ]
    for fmt in release.FORMATS:
        release.seal(root / "nested", fmt, layers)
    raw = root / "raw"
    raw.mkdir()
    (raw / "b-t4sa_imgs.tar").write_bytes(b"".join(sample.image for sample in samples[:50]))
    entry = FileEntry(
        name="b-t4sa_imgs.tar",
        bytes=(raw / "b-t4sa_imgs.tar").stat().st_size,
        sha256=sha256_file(raw / "b-t4sa_imgs.tar"),
    )
    release.seal_in_place(raw, layers[0], [entry.name] * 50, np.arange(50), [entry])
    return SimpleNamespace(root=root, plain=root / "plain", nested=root / "nested", raw=raw)


DATASETS = """
    import hashlib, io, json, shutil
    from pathlib import Path
    import datasets
    from PIL import Image
    from t4sa_data import card, catalog, schema
    datasets.disable_progress_bars()
    found = {}

    def of(ds, image="image", record=lambda row: row):
        key = lambda row: row.get("key") or row["__key__"]
        ds = ds.cast_column(image, datasets.Image(decode=False))
        return [[key(row), record(row)["split"], row["label" if image == "image" else "cls"],
                 hashlib.sha256(row[image]["bytes"]).hexdigest()] for row in ds]

    def of_tar(ds):
        return of(ds, "jpg", lambda row: row["json"])

    # Parquet, by name from the release's parent folder.
    whole = datasets.load_dataset("t4sa")
    found["parquet"] = {split: of(ds) for split, ds in whole.items()}
    found["config"] = whole["train"].info.config_name
    found["features"] = all(ds.features == schema.features() for ds in whole.values())
    found["num_examples"] = {split: info.num_examples for split, info in whole["train"].info.splits.items()}
    found["modes"] = sorted({row["image"].mode for row in whole["train"]})
    found["parquet streamed"] = of(datasets.load_dataset("t4sa", split="test", streaming=True))
    nested = datasets.load_dataset("../nested/t4sa", "t4sa", streaming=True)
    found["nested"] = {split: of(ds) for split, ds in nested.items()}
    found["text"] = [row["tweet_id"] for row in datasets.load_dataset("../nested/t4sa", "t4sa-text", split="train")]
    # Tar.
    whole = datasets.load_dataset("t4sa-wds")
    found["tar"] = {split: of_tar(ds) for split, ds in whole.items()}
    streamed = datasets.load_dataset("t4sa-wds", streaming=True)
    found["tar streamed"] = {split: of_tar(ds) for split, ds in streamed.items()}
    found["classes"] = [whole["test"].features["cls"].names, streamed["test"].features["cls"].names]
    row = whole["test"][0]
    found["json"] = [row["__key__"], row["json"]]
    found["jpg"] = row["jpg"].mode
    # The YAML serialisation is the one that datasets itself writes.
    wds = datasets.Features._from_yaml_list(card.features_yaml("b-t4sa", "wds"))
    found["yaml"] = [card.features_yaml(layer) == schema.features(layer)._to_yaml_list()
                     for layer in ("b-t4sa", "duplicates", "t4sa-text", "raw-text")]
    found["yaml"].append(card.features_yaml("b-t4sa", "wds") == wds._to_yaml_list())
    found["columns"] = [list(wds), list(whole["test"].features), list(wds["json"])]
    # A wrong number in the card is found out.
    shutil.copytree("t4sa", "wrong")
    text = Path("wrong/README.md").read_text()
    test_rows = len(found["parquet"]["test"])
    Path("wrong/README.md").write_text(text.replace(f"num_examples: {test_rows}\\n", "num_examples: 999\\n"))
    try:
        datasets.load_dataset("wrong")
    except datasets.exceptions.DatasetsError as error:
        found["wrong"] = type(error).__name__
    Path("result.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(made, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return run(DATASETS, made.plain, HF_HOME=cache, HF_DATASETS_CACHE=cache / "datasets")


def test_datasets_loads_parquet_by_its_name(made, loaded):
    expected = rows(made.plain / "t4sa", "b-t4sa")
    assert loaded["config"] == "b-t4sa"
    assert loaded["features"]
    assert list(loaded["parquet"]) == ["train", "validation", "test"]
    assert {s: len(r) for s, r in loaded["parquet"].items()} == loaded["num_examples"]
    assert [row for split in loaded["parquet"].values() for row in split] == expected
    assert loaded["parquet streamed"] == of_split(expected, "test")
    assert loaded["modes"] == ["RGB"]
    assert loaded["wrong"] == "NonMatchingSplitsSizesError"


def test_datasets_reads_layers_in_release_order(made, loaded):
    expected = rows(made.nested / "t4sa", "b-t4sa", "unique", "duplicates")
    for split in catalog.SPLITS:
        assert loaded["nested"][split] == of_split(expected, split)
    assert len(loaded["nested"]["train"]) == 20 + len(of_split(rows(made.nested / "t4sa", "b-t4sa"), "train"))
    assert len(loaded["text"]) == 20


def test_datasets_loads_tars_with_class_labels(made, loaded):
    expected = rows(made.plain / "t4sa-wds", "b-t4sa")
    for found in (loaded["tar"], loaded["tar streamed"]):
        assert [row for split in found.values() for row in split] == expected
    assert loaded["classes"] == [list(catalog.CLASSES)] * 2
    key, record = loaded["json"]
    assert record["key"] == key
    assert record["tweet_id"] == key.split("-")[0]
    assert loaded["jpg"] == "RGB"


def test_features_are_those_that_datasets_writes(loaded):
    assert loaded["yaml"] == [True] * 5
    declared, seen, record = loaded["columns"]
    assert declared == seen == ["jpg", "json", "cls", "__key__", "__url__"]
    assert record == RECORD.names


CROISSANT = """
    import hashlib, json
    from pathlib import Path
    import mlcroissant

    found = {}

    def open_(path, **more):
        dataset = mlcroissant.Dataset(jsonld=path, **more)
        issues = dataset.metadata.ctx.issues
        found.setdefault("issues", []).extend(map(str, [*issues.errors, *issues.warnings]))
        return dataset

    def of(dataset, config, **more):
        made = []
        for record in dataset.records(config, **more):
            record = {name.split("/")[1]: value for name, value in record.items()}
            image = hashlib.sha256(record["image"].fp.getvalue()).hexdigest() if "image" in record else None
            text = [record[name].decode() for name in ("key", "split")]
            made.append([*text, record["label"], image or record["sha256"].decode()])
        return made

    parquet = open_("t4sa/croissant.json")
    found["b-t4sa"] = of(parquet, "b-t4sa")
    found["test only"] = of(open_("t4sa/croissant.json"), "t4sa", filters={"t4sa/split": "test"})
    found["train only"] = of(open_("t4sa/croissant.json"), "t4sa-unique", filters={"t4sa-unique/split": "train"})
    mapped = open_(json.loads(Path("t4sa/croissant.json").read_text()), mapping={"repo": str(Path("t4sa").resolve())})
    found["t4sa"] = of(mapped, "t4sa")
    found["text"] = [r["t4sa-text/tweet_id"] for r in parquet.records("t4sa-text")]
    found["classes"] = [[r["classes/label"], r["classes/name"]] for r in parquet.records("classes")]
    tar = open_("t4sa-wds/croissant.json")
    found["tar b-t4sa"] = of(tar, "b-t4sa")
    found["tar t4sa"] = of(tar, "t4sa")
    found["in place"] = of(open_("../raw/t4sa-inplace/croissant.json"), "b-t4sa")
    found["responsible"] = {name: str(getattr(tar.metadata, name) or "")
                            for name in type(tar.metadata).__dataclass_fields__
                            if name.startswith(("data_", "annot", "machine_", "personal_"))}
    Path("result.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def records(made, tmp_path_factory):
    pytest.importorskip("mlcroissant")
    return run(CROISSANT, made.nested, CROISSANT_CACHE=tmp_path_factory.mktemp("croissant"))


def test_croissant_loads_every_record_of_parquet(made, records):
    expected = rows(made.nested / "t4sa", "b-t4sa", "unique", "duplicates")
    in_b_t4sa = rows(made.nested / "t4sa", "b-t4sa")
    in_unique = rows(made.nested / "t4sa", "b-t4sa", "unique")
    assert sorted(records["b-t4sa"]) == sorted(in_b_t4sa)
    assert sorted(records["t4sa"]) == sorted(expected)
    assert sorted(records["test only"]) == sorted(of_split(expected, "test"))
    assert sorted(records["train only"]) == sorted(of_split(in_unique, "train"))
    assert len(records["text"]) == 20
    assert records["classes"] == [[0, "negative"], [1, "neutral"], [2, "positive"]]


def test_croissant_loads_every_image_of_the_tars(made, records):
    assert sorted(records["tar b-t4sa"]) == sorted(rows(made.nested / "t4sa-wds", "b-t4sa"))
    assert sorted(records["tar t4sa"]) == sorted(rows(made.nested / "t4sa-wds", "b-t4sa", "unique", "duplicates"))
    assert sorted(records["in place"]) == sorted(rows(made.raw / "t4sa-inplace", "b-t4sa"))


def test_croissant_is_valid_without_a_warning(records):
    assert records["issues"] == []


def test_mlcroissant_reads_what_is_said_of_the_responsible_use(records):
    assert len(records["responsible"]) == 20
    assert [name for name, said in records["responsible"].items() if not said] == []
    assert "2016" in records["responsible"]["data_collection_timeframe"]


def front(text):
    from huggingface_hub import DatasetCard

    made = DatasetCard(text)
    assert str(made) == text  # parses, and writes the same again
    return made.data.to_dict()


@pytest.mark.parametrize("fmt", release.FORMATS)
def test_the_hub_reads_the_card_and_writes_it_again(made, fmt):
    folder = made.nested / {"parquet": "t4sa", "wds": "t4sa-wds"}[fmt]
    data, manifest = front((folder / "README.md").read_text()), load_manifest(folder)
    suffix = {"parquet": ".parquet", "wds": ".tar"}[fmt]
    configs = {config["config_name"]: config for config in data["configs"]}
    assert list(configs) == manifest.configs
    assert [name for name, config in configs.items() if config.get("default")] == ["b-t4sa"]
    files = {item["split"]: item["path"] for item in configs["t4sa"]["data_files"]}
    assert files["train"] == [f"{layer}/train-*{suffix}" for layer in catalog.IMAGE_LAYERS]
    assert files["test"] == f"b-t4sa/test-*{suffix}"
    for info in data["dataset_info"]:
        splits = {split["name"]: split for split in info["splits"]}
        assert {name: split["num_examples"] for name, split in splits.items()} == {
            name: entry.rows for name, entry in manifest.splits(info["config_name"]).items()
        }
        for name, split in splits.items():
            patterns = next(f["path"] for f in configs[info["config_name"]]["data_files"] if f["split"] == name)
            paths = [p for g in ([patterns] if isinstance(patterns, str) else patterns) for p in folder.glob(g)]
            assert split["num_bytes"] == sum(path.stat().st_size for path in paths) > 0
        assert info["download_size"] == info["dataset_size"] == sum(s["num_bytes"] for s in info["splits"])
    assert data["license"] == catalog.LICENSE_ID
    assert data["size_categories"] == ["n<1K"]
    assert list(data["extra_gated_fields"].values()) == ["text", "text"] + ["checkbox"] * 5
    assert data["extra_gated_prompt"] and data["extra_gated_button_content"]


def test_the_readme_counts_what_the_manifest_counts(made):
    manifest = load_manifest(made.nested / "t4sa")
    text = card.readme(manifest)
    rows_ = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    counted = {(row[0].strip("`"), row[1]): row[2:] for row in rows_ if len(row) == 9}
    for config in manifest.configs:
        for split, entry in manifest.splits(config).items():
            published, listed, released, left_out, *classes = counted.pop((config, split))
            assert published == f"{catalog.published_count(config, split):,}"
            assert listed == ("4" if split == "test" else "-")
            assert (released, left_out) == (str(entry.rows), str(len(entry.quarantined)))
            by_class = catalog.published_class_counts(config, split).values()
            assert classes == [f"{n} ({of:,})" for n, of in zip(entry.classes, by_class, strict=True)]
    assert counted == {}
    (bad,) = catalog.KNOWN_BAD
    assert f"- `{bad}`: " in text
    assert "| `b-t4sa` | test | 1 | 1 |" in text
    assert f"`{manifest.content_digest}`" in text and "| `b-t4sa_imgs.tar` | 12,345 | `" + "ab" * 32 in text
    assert "cd" * 32 in text and manifest.toolchain["pyarrow"] in text
    assert catalog.CITATION.strip() in text and "Content warning" in text
    assert all(rule in text for rule in catalog.COLLECTION_RULES)
    assert "\\<tweet_id>" in text  # in a table, not a tag


def test_equal_manifests_give_equal_cards_without_times_or_places(made):
    for folder in (made.plain / "t4sa", made.nested / "t4sa-wds", made.raw / "t4sa-inplace"):
        manifest = load_manifest(folder)
        assert card.readme(manifest) == (folder / "README.md").read_text()
        said = card.croissant(manifest)
        assert said == (folder / "croissant.json").read_text()
        assert said.startswith('{\n "@context"') and said.endswith("}\n")
        assert str(made.root) not in said + card.readme(manifest)


def test_brace_strings_name_the_tars(made):
    folder = made.nested / "t4sa-wds"
    text = (folder / "README.md").read_text()
    block = re.search(r"```\n(t4sa-wds/.*?)\n```", text, re.DOTALL)[1]
    names = []
    for pattern in block.splitlines():
        first, last = re.search(r"\{(\d+)\.\.(\d+)\}", pattern).groups() if "{" in pattern else (0, 0)
        names += [re.sub(r"\{.*\}", f"{i:05d}", pattern) for i in range(int(first), int(last) + 1)]
    assert names == [f"t4sa-wds/{file.name}" for file in load_manifest(folder).files if file.layer]
    assert any("{" in line for line in block.splitlines())


def test_a_release_in_place_offers_streaming_only(made):
    text = (made.raw / "t4sa-inplace" / "README.md").read_text()
    data = front(text)
    assert "configs" not in data and "extra_gated_prompt" not in data
    assert "streaming=True" in text and "## Loading" not in text
    assert len(text) < len((made.nested / "t4sa" / "README.md").read_text()) / 2


def test_an_empty_or_text_only_release_has_a_card_too(made):
    whole = load_manifest(made.nested / "t4sa")
    only = Manifest(
        format="parquet",
        layers={"t4sa-text": whole.layers["t4sa-text"]},
        files=tuple(file for file in whole.files if file.layer == "t4sa-text"),
        toolchain=whole.toolchain,
    )
    data = front(card.readme(only))
    assert [(config["config_name"], config.get("default")) for config in data["configs"]] == [("t4sa-text", None)]
    assert 'load_dataset("t4sa", "t4sa-text", split="train")' in card.readme(only)
    assert json.loads(card.croissant(only))["recordSet"][-1]["@id"] == "t4sa-text"
    nothing = Manifest(format="wds", layers={}, files=(), toolchain={})
    assert front(card.readme(nothing))["configs"] == []
    digest = hashlib.sha256().hexdigest()
    assert json.loads(card.croissant(nothing))["distribution"][0]["sha256"] == digest


def test_importing_the_card_is_light():
    code = (
        "import sys, t4sa_data.card; print([m for m in ('datasets', 'huggingface_hub', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
