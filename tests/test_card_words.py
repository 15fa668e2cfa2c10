"""What card and Croissant must say for every kind of release, and that it is true of that release."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from huggingface_hub import DatasetCard

from hub_scripts import gate, rights, view
from t4sa_data import card, catalog, release, rewriting
from t4sa_data.errors import FormError, RightsError
from t4sa_data.files import sha256_file
from t4sa_data.manifest import FileEntry, load_manifest
from t4sa_data.miniature import make_samples
from t4sa_data.testing import check_release
from t4sa_data.testing.releases import record_table
from tests.card_helpers import by_people, image_layer, rows, run, text_layer

FOLDERS = [f"{kind}/{name}" for kind in ("every", "bare", "less") for name in ("t4sa", "t4sa-wds")]
EVERYWHERE = [*FOLDERS, "raw/t4sa-inplace"]
RAI = """dataCollection dataCollectionType dataCollectionMissingData dataCollectionRawData dataCollectionTimeframe
    dataImputationProtocol dataPreprocessingProtocol dataManipulationProtocol dataAnnotationProtocol
    dataAnnotationPlatform dataAnnotationAnalysis annotationsPerItem annotatorDemographics machineAnnotationTools
    dataBiases dataUseCases dataLimitations dataSocialImpact personalSensitiveInformation
    dataReleaseMaintenancePlan"""
"""Every property of the responsible-AI vocabulary (version 1.0)."""
PUBLISHER = card.Publisher(namespace="example-org", contact="removals@example.org", response_days=14)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`every`: all kinds of layers; `bare`: B-T4SA without text; `less`: `every` after a takedown; `raw`: in place."""
    root = tmp_path_factory.mktemp("words")
    samples = make_samples(40, seed=3)
    no_text = [replace(sample, text=None) for sample in samples]
    kinds = {
        "every": [
            image_layer("b-t4sa", samples, root / "every"),
            image_layer("b-t4sa-256", samples, root / "every", settings={"text": "full", "small": {"quality": 85}}),
            image_layer(
                "twitter-testing", samples[:9], root / "every", table=by_people(samples[:9]), settings={"a": 1}
            ),
            text_layer(record_table(samples), root / "every"),
        ],
        "bare": [image_layer("b-t4sa", no_text, root / "bare", settings={"text": "none"})],
    }
    for kind, layers in kinds.items():
        for fmt in release.FORMATS:
            release.seal(root / kind, fmt, layers)
    shutil.copytree(root / "every", root / "less")
    for name in ("t4sa", "t4sa-wds"):
        drop = {"b-t4sa": np.arange(40) < 3}
        rewriting.drop_rows(root / "less" / name, drop, note={"updated": "2026-02-03"}, data_version="1.0.1")
    raw = root / "raw"
    raw.mkdir()
    archive = raw / "b-t4sa_imgs.tar"
    archive.write_bytes(b"".join(sample.image for sample in samples))
    entry = FileEntry(name=archive.name, bytes=archive.stat().st_size, sha256=sha256_file(archive))
    release.seal_in_place(raw, kinds["every"][0], [entry.name] * 40, np.arange(40), [entry])
    return root


def croissant(folder):
    return json.loads((folder / "croissant.json").read_text())


def documents(folder):
    """README's words below its head, and all of the Croissant."""
    return (folder / "README.md").read_text().split("\n---\n", 1)[1], (folder / "croissant.json").read_text()


READERS = """
    import hashlib, json
    from pathlib import Path
    import mlcroissant

    found = {}
    for folder in %r:
        dataset = mlcroissant.Dataset(jsonld=f"{folder}/croissant.json")
        about, issues = dataset.metadata, dataset.metadata.ctx.issues
        told = found[folder] = {"issues": list(map(str, [*issues.errors, *issues.warnings])), "records": {}}
        names = [name for name in type(about).__dataclass_fields__
                 if name.startswith(("data_", "annot", "machine_", "personal_"))]
        told["responsible"] = {name: str(getattr(about, name) or "") for name in names}
        told["kept"] = [name for name in ("isAccessibleForFree", "conditionsOfAccess", "usageInfo", "publisher")
                        if name in str(about.to_json())]
        for one in about.record_sets:
            if one.data is None:
                rows = [{k.split("/")[1]: v for k, v in row.items()} for row in dataset.records(one.name)]
                image = lambda row: (hashlib.sha256(row["image"].fp.getvalue()).hexdigest() if "image" in row
                                     else row["sha256"].decode())
                told["records"][one.name] = [
                    [row["key"].decode(), row["split"].decode(), row.get("label"), image(row)]
                    if "key" in row else int(row["tweet_id"]) for row in rows]
    Path("result.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def read(made, tmp_path_factory):
    pytest.importorskip("mlcroissant")
    folders = ["every/t4sa", "less/t4sa", "less/t4sa-wds", "raw/t4sa-inplace"]
    return run(READERS % folders, made, CROISSANT_CACHE=tmp_path_factory.mktemp("croissant"))


@pytest.mark.slow
def test_mlcroissant_reads_every_record_and_every_statement(made, read):
    for folder, told in read.items():
        manifest = load_manifest(made / folder)
        assert told["issues"] == []
        assert len(told["responsible"]) == len(RAI.split())
        assert [name for name, value in told["responsible"].items() if not value] == []
        assert "2016" in told["responsible"]["data_collection_timeframe"]
        assert list(told["records"]) == manifest.configs
        for config, found in told["records"].items():
            if catalog.CONFIGS[config].kind == "text":
                assert len(found) == manifest.splits(config)["train"].rows
            else:
                assert sorted(found) == sorted(rows(made / folder, *catalog.CONFIGS[config].layers))
    assert set(read["less/t4sa"]["records"]) == {"b-t4sa", "b-t4sa-256", "twitter-testing", "t4sa-text"}
    assert len(read["less/t4sa"]["records"]["b-t4sa"]) == len(read["every/t4sa"]["records"]["b-t4sa"]) - 3


@pytest.mark.parametrize("folder", EVERYWHERE)
def test_croissant_says_what_is_required(made, folder):
    # mlcroissant lets most of these pass when they are missing.
    manifest, value = load_manifest(made / folder), croissant(made / folder)
    assert value["@type"] == "sc:Dataset"
    assert value["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
    assert value["name"] == folder.split("/")[1]
    assert value["version"] == manifest.data_version
    assert value["url"] == catalog.HOMEPAGE
    assert value["citeAs"] == catalog.CITATION.strip()
    assert [person["name"] for person in value["creator"]][:2] == ["Lucia Vadicamo", "Fabio Carrara"]
    assert len(value["creator"]) == 7
    assert value["license"]["url"] == catalog.HOMEPAGE
    assert value["datePublished"] == "2017"
    assert value["rai:dataCollectionTimeframe"] == value["rai:dataCollectionTimeFrame"] == ["2016-07-01", "2016-12-31"]
    assert value["isAccessibleForFree"] is True
    assert all(value[name] for name in ("description", "usageInfo", "keywords"))
    assert ("conditionsOfAccess" in value) == (manifest.format != "in-place")
    assert {f"rai:{name}" for name in RAI.split()} <= value.keys()
    assert [name for name, said in value.items() if name.startswith("rai:") and not (said and all(said))] == []
    objects = {item["@id"]: item for item in value["distribution"] if item["@type"] == "cr:FileObject"}
    shards = [file for file in manifest.files if file.layer or file.name.endswith("/index.parquet")]
    assert set(objects) == {"repo", *(file.name for file in shards)}
    for file in shards:
        said, path = objects[file.name], made / folder / objects[file.name]["contentUrl"]
        assert said["contentSize"] == f"{path.stat().st_size} B"
        assert said["sha256"] == sha256_file(path)
    assert [s["@id"] for s in value["recordSet"]] == ["classes", "splits", *manifest.configs]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_card_has_every_part(made, folder):
    text = (made / folder / "README.md").read_text()
    told = DatasetCard(text, ignore_metadata_errors=False)
    head, manifest = told.data.to_dict(), load_manifest(made / folder)
    assert (head["license"], head["license_name"], head["license_link"]) == ("other", "not-stated", catalog.HOMEPAGE)
    assert head["language"] == ["en"] and head["pretty_name"] and head["tags"] and head["task_ids"]
    assert head["annotations_creators"] == ["machine-generated"] + ["crowdsourced"] * (
        "twitter" in str(manifest.configs)
    )
    assert {info["config_name"] for info in head["dataset_info"]} == set(manifest.configs)
    assert head["viewer"] is False and "thumbnail" not in head
    assert not re.search(r"!\[|<img", text)  # no preview images
    parts = re.findall(r"^## (.+)$", told.text, re.M)
    assert parts == [
        "Configs, splits and classes",
        "Loading",
        "Fields",
        "Limits and label noise",
        "How it was made",
        "Images left out",
        "People in the data",
        "Terms",
        "Removals",
        "Versions and checksums",
        "Citation",
        "Provenance",
    ]
    assert told.text.index("**Content warning.**") < told.text.index("## Configs")
    for words in (
        "children can be among",
        "To have something removed",
        "No licence text",
        f"tag is `v{manifest.data_version}`",
    ):
        assert words in told.text
    assert all(f"- {condition}.\n" in told.text for condition in card.metadata.GATE_CONDITIONS)
    assert manifest.content_digest in told.text and "t4sa check DIR" in told.text and "@inproceedings" in told.text
    assert all(len(part.strip()) > 0 for part in re.split(r"^## .+$", told.text, flags=re.M))


def test_what_is_said_of_texts_small_pictures_and_people_is_true(made):
    every, bare = documents(made / "every" / "t4sa"), documents(made / "bare" / "t4sa")
    assert "Their texts are in it." in every[0] and "Texts are as posted." in every[1]
    assert "Their texts were left out" in bare[0] and "Texts were left out." in bare[1]
    assert "In `b-t4sa-256` the images were resized" in every[0]
    assert croissant(made / "every" / "t4sa")["rai:dataManipulationProtocol"].startswith(
        "B-T4SA with every image resized"
    )
    assert "The images are the original bytes. " in bare[0]
    assert croissant(made / "bare" / "t4sa")["rai:dataManipulationProtocol"].startswith("None")
    assert (
        "five in twitter-testing" in every[1]
        and "five" not in croissant(made / "bare" / "t4sa")["rai:annotationsPerItem"]
    )
    manifest = load_manifest(made / "every" / "t4sa")
    only = replace(manifest, layers={"b-t4sa-256": manifest.layers["b-t4sa-256"]})
    assert "All images were resized" in card.readme(only) and "original bytes" not in card.readme(only)


@pytest.mark.parametrize("name", ["t4sa", "t4sa-wds"])
def test_a_takedown_is_told(made, name):
    (before, _), (after, told) = documents(made / "every" / name), documents(made / "less" / name)
    assert "Removed so far" not in before
    assert "| `b-t4sa` | 3 | 2026-02-03 |" in after
    assert "This is version 1.0.1." in after
    assert "Removed so far: 3 rows." in json.loads(told)["rai:dataReleaseMaintenancePlan"]
    faults = check_release(made / "less").faults
    assert [fault for fault in faults if fault.file.endswith(("README.md", "croissant.json", "manifest.json"))] == []


def known_numbers(manifest):
    """Digits of everything that the catalog and the manifest say."""
    said = manifest.to_json().decode() + repr([getattr(catalog, name) for name in catalog.__all__])
    counts = [catalog.published_class_counts(c, s) for c in catalog.CONFIGS for s in catalog.SPLITS]
    counts += [catalog.published_count(c, s) for c in catalog.CONFIGS for s in catalog.SPLITS]
    sums = [sum(entry.rows for entry in manifest.splits(name).values()) for name in manifest.configs]
    return set(re.findall(r"\d+", (said + repr(counts) + repr(sums)).replace(",", "").replace("_", ""))) | set(
        re.findall(r"\d+", said)
    )


@pytest.mark.parametrize("folder", EVERYWHERE)
def test_every_number_stands_in_the_manifest_or_the_catalog(made, folder):
    known = known_numbers(load_manifest(made / folder))
    text, _ = documents(made / folder)
    value = {k: v for k, v in croissant(made / folder).items() if k not in ("@context", "distribution", "recordSet")}
    for words in (text, json.dumps(value)):
        found = {
            number.replace(",", "") for number in re.findall(r"(?<![\w.])\d{1,3}(?:,\d{3})+|(?<![\w.])\d{4,}", words)
        }
        assert len(found) > 5 and found - known == set()


def test_a_published_card_says_whose_it_is(made):
    manifest = load_manifest(made / "every" / "t4sa")
    text, value = card.readme(manifest, PUBLISHER), json.loads(card.croissant(manifest, PUBLISHER))
    assert "write to removals@example.org; you get an answer within 14 days." in text
    assert "T4SA_NAMESPACE=example-org" in text and 'datasets.load_dataset("example-org/t4sa", split=' in text
    tar = card.readme(load_manifest(made / "every" / "t4sa-wds"), PUBLISHER)
    assert 't4sa_data.stream("hf://datasets/example-org/t4sa-wds", batch_size=256)' in tar
    assert "maintainers of this copy" not in text + json.dumps(value)
    assert "removals@example.org" in value["rai:dataReleaseMaintenancePlan"]
    assert value["publisher"]["name"] == "example-org"
    assert "T4SA_NAMESPACE" not in card.readme(manifest, replace(PUBLISHER, namespace=catalog.HUB_NAMESPACE))
    shown = card.readme(manifest, replace(PUBLISHER, previews=True))
    assert "viewer" not in DatasetCard(shown).data.to_dict() and DatasetCard(text).data.to_dict()["viewer"] is False
    assert "within 1 day." in card.readme(manifest, replace(PUBLISHER, response_days=1))


def test_other_conditions_stand_in_words_and_croissant_too(made):
    folder = made / "every" / "t4sa"
    head = gate.Form(prompt="Read this.", conditions=("I will sing", "I will dance.")).to_yaml()
    text = gate.with_head((folder / "README.md").read_text(), head)
    assert "promises:\n\n- I will sing.\n- I will dance.\n\n## Removals" in text
    assert "non-commercial" not in text
    told = json.loads(gate.croissant_with_head((folder / "croissant.json").read_text(), head))
    assert told["usageInfo"] == "I will sing. I will dance."
    assert told["conditionsOfAccess"].endswith("Read this.")
    own = gate.Form().to_yaml()
    assert (
        gate.croissant_with_head((folder / "croissant.json").read_text(), own)
        == (folder / "croissant.json").read_text()
    )
    with pytest.raises(FormError, match="no Croissant"):
        gate.croissant_with_head("[]", own)


RIGHTS = rights.TEMPLATE.replace('""', '"x"').replace('date = "x"', 'date = "2026-01-02"').replace("= 30", "= 7")


def test_what_is_published_has_the_contact_of_its_rights(made):
    told = rights.parse_rights(RIGHTS.encode())
    assert (told.response_days, told.previews) == (7, False)
    made_views = view.views_of(made / "bare", "1.0.0", replace(told, removals="a@example.org"), namespace="example-org")
    for one in made_views:
        text = one.documents["README.md"].decode()
        assert "write to a@example.org; you get an answer within 7 days." in text
        assert yaml.safe_load(text.split("---\n")[1])["viewer"] is False
        assert "a@example.org" in one.documents["croissant.json"].decode()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("response_days = 7", "response_days = 0", "response_days is none"),
        ("response_days = 7", 'response_days = "7"', "response_days is not filled in"),
        ("response_days = 7", "response_days = -1", "response_days is negative"),
        ("previews = false", 'previews = "no"', "previews is not filled in"),
    ],
)
def test_rights_that_are_none(old, new, words):
    assert old in RIGHTS
    with pytest.raises(RightsError, match=words):
        rights.parse_rights(RIGHTS.replace(old, new).encode())


def test_rights_of_before_are_rights_still():
    lines = [line for line in RIGHTS.splitlines() if not line.startswith(("response_days", "previews"))]
    told = rights.parse_rights("\n".join(lines).encode())
    assert (told.response_days, told.previews) == (30, False)
