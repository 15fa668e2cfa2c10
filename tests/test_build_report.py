"""The report of a build: the funnel as a figure, tables beside the paper's, the collection on the card."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.build_report import BuildReport, as_html, as_markdown, write_build_report
from builders.ledger.figure import WIDTH_PX, figure, in_words
from builders.ledger.funnel import Funnel, as_json, funnels_of
from t4sa_data import card, catalog, release, removals
from t4sa_data.card.collection import REBUILT, collection, collection_of, summary
from t4sa_data.manifest import load_manifest
from t4sa_data.miniature import make_samples
from t4sa_data.testing import check_release
from tests.card_helpers import image_layer

GOLDEN = Path(__file__).parent / "golden_funnel.svg"
COUNTS: dict[str, dict[str, Any]] = {
    "tweet": {
        "candidates": 5000,
        "kept": {"t4sa-text/train": 900},
        "dropped": {
            "collect/no-image": 2500, "collect/retweet": 100, "label/empty-text": 3, "select/below-threshold": 1497,
        },
    },
    "image": {
        "candidates": 1200,
        "kept": {
            "b-t4sa/train": 480, "b-t4sa/validation": 60, "b-t4sa/test": 60, "unique/train": 300,
            "duplicates/train": 180,
        },
        "dropped": {"fetch/not-found": 100, "fetch/timeout": 2, "inspection/truncated": 18},
    },
}  # fmt: skip
HOSTILE = '<script>alert(1)</script> | `x` "q" ![i](http://h.example/x) &amp;'


@pytest.fixture(scope="module")
def funnels() -> tuple[Funnel, ...]:
    return funnels_of(COUNTS, of_build=True)


@pytest.fixture(scope="module")
def full(funnels: tuple[Funnel, ...]) -> BuildReport:
    row = {
        "config": "b-t4sa", "split": "test", "paper": catalog.published_count("b-t4sa", "test"), "listed": None,
        "released": 60, "quarantined": 0, "classes": [20, 20, 20], "paper_classes": [17000, 17000, 17000],
    }  # fmt: skip
    return BuildReport(
        funnels=funnels,
        counts=[
            row,
            {**row, "config": "raw-text", "split": "train", "paper": None, "classes": None, "paper_classes": None},
        ],
        input_counts={"lines": 5005, "- no JSON object": 5, "tweets": 5000},
        checks={
            "images per tweet": 1.3,
            "labels": {"count": 2, "examples": ["7-1"]},
            "formats": {"JPEG": 1180},
            "odd": HOSTILE,
        },
        quarantined=[{"key": f"{n}-1", "reason": "truncated", "detail": "never shown"} for n in range(100, 70, -1)],
        seconds={"collect": 1.25, "fetch": 3600.0},
        stage_bytes={"fetch": 123456789},
        settings={"seed": 7, "hostile": HOSTILE, "rule": {"threshold": 0.85}},
        toolchain={"numpy": "2.0", "pillow": HOSTILE},
        leak_report=f"tweets in two splits: 0\n{HOSTILE}\n```\n",
        duplicates_page="duplicates/pages & more.html",
    )


# The figure.
def test_the_figure_is_the_golden_one(funnels: tuple[Funnel, ...]) -> None:
    assert figure(funnels) == GOLDEN.read_text(encoding="utf-8")


def test_the_figure_is_whole_xml_that_can_be_read_out(funnels: tuple[Funnel, ...]) -> None:
    root = ET.fromstring(figure(funnels))
    name = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img" and root.get("aria-labelledby") == "funnel-title funnel-desc"
    title, desc = root.find(f"{name}title"), root.find(f"{name}desc")
    assert title is not None and desc is not None and title.get("id") == "funnel-title"
    assert desc.text == in_words(funnels) and "5,000 tweets: after collect 2,400" in in_words(funnels)
    assert {element.tag for element in root.iter()} <= {
        name + tag for tag in ("svg", "title", "desc", "style", "rect", "text", "path")
    }
    said = [element.text for element in root.iter(f"{name}text")]
    for number in ("5,000", "2,400", "\u22122,500", "1,200", "1,098", "180", "300", "480", "60", "600"):
        assert number in said


CELLS = st.dictionaries(st.sampled_from(["fetch/not-found", "inspection/x", "of-tomorrow/y"]), st.integers(1, 10**9))
PLACES = st.sampled_from(["b-t4sa/train", "b-t4sa/test", "unique/train", "duplicates/train", "collected"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(CELLS, st.dictionaries(PLACES, st.integers(1, 10**9)), st.booleans())
def test_everything_stands_inside_the_figure(dropped: dict[str, int], kept: dict[str, int], of_build: bool) -> None:
    counts = {"image": {"candidates": sum([*dropped.values(), *kept.values()]), "kept": kept, "dropped": dropped}}
    made = figure(funnels_of(counts, of_build=of_build))
    assert made == figure(funnels_of(counts, of_build=of_build))
    root = ET.fromstring(made)
    height = float(root.get("height") or 0)
    for element in root.iter():
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        width = float(element.get("width", 0))
        if element.tag.endswith("}text"):
            wide = 7.5 * len(element.text or "") * (1.4 if "big" in element.get("class", "") else 1)
            side = {"num": -1, "mid": -0.5}
            x += wide * next((at for name, at in side.items() if name in element.get("class", "").split()), 0)
            width = wide
        assert x >= 0 and x + width <= WIDTH_PX and 0 <= y <= height


# The report.
class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_escapes(full: BuildReport) -> None:
    page = as_html(full)
    parsed = Page(page)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "base"}
    links = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    assert links == ["duplicates/pages%20%26%20more.html"]
    assert not re.findall(r"(?:src|xlink:href)=|url\(|@import", page)
    assert parsed.text.count(" ".join(HOSTILE.split())) == 4  # check, setting, package, leak report: as they are
    assert "default-src 'none'" in page and figure(full.funnels).rstrip() in page


def test_the_report_says_it_all_and_no_more(full: BuildReport) -> None:
    for report in (as_markdown(full), Page(as_html(full)).text):
        for words in (
            "t4sa-text/train", "collect/retweet", "it is a retweet", "51,000", "17,000", "20 (17,000)",
            "3,600.0", "123,456,789", "71-1", "the picture ends too early", "2, as 7-1", "tweets in two splits: 0",
            "5,005", "1,473,394", "30 in all",
        ):  # fmt: skip
            assert words in report.replace("\\", ""), words
        assert "never shown" not in report and "91-1" not in report
    empty = as_markdown(BuildReport(funnels=()))
    assert re.findall(r"^## (.*)$", empty, re.M) == ["From raw tweets to splits"]


def test_nothing_is_markup_in_the_markdown(full: BuildReport) -> None:
    report = as_markdown(full)
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", report, flags=re.M | re.S)
    assert "<script>" not in outside.replace("\\<", "") and not re.search(r"(?<!\\)!\[i", outside.replace("!\\[", ""))
    rows = [line for line in outside.splitlines() if line.startswith("| hostile")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 3
    assert "````text" in report  # a fence longer than the one inside


def test_the_report_is_written_whole(full: BuildReport, tmp_path: Path) -> None:
    write_build_report(tmp_path / "build", full)
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "build").iterdir()}
    assert files == {"report.md": as_markdown(full), "report.html": as_html(full), "funnel.svg": figure(full.funnels)}


# The card.
@pytest.fixture
def released(tmp_path: Path, funnels: tuple[Funnel, ...]) -> Path:
    layer = image_layer("b-t4sa", make_samples(50), tmp_path)
    told = replace(layer, provenance={**layer.provenance, "collection": as_json(funnels)})
    for fmt in release.FORMATS:
        release.seal(tmp_path, fmt, [told])
    return tmp_path


def test_the_card_has_this_builds_numbers(released: Path) -> None:
    for folder in ("t4sa", "t4sa-wds"):
        text = (released / folder / "README.md").read_text(encoding="utf-8")
        for line in (
            "[ 5,000 tweets ]",
            "[ 1,200 images ]",
            "  +--> 480  b-t4sa train",
            "[ 600 drawn, classes balanced ]",
        ):
            assert f"\n{line}\n" in text
        assert re.search(r"^  \|  collect +- +2,500  no image$", text, re.M)
        assert re.search(r"^  \|  dedup +> +180  set aside in duplicates$", text, re.M)
        croissant = (released / folder / "croissant.json").read_text(encoding="utf-8")
        assert "5,000 tweets came in, after collect 2,400, after label 2,397, after select 900" in croissant
    report = check_release(released, deep=True)
    assert report.ok, report.faults


def test_a_card_without_such_numbers_is_as_it_was(released: Path) -> None:
    manifest = load_manifest(released / "t4sa")
    (layer,) = manifest.layers.values()
    bare = {name: value for name, value in layer.provenance.items() if name != "collection"}
    plain = replace(manifest, layers={"b-t4sa": replace(layer, provenance=bare)})
    assert collection_of(plain) is None and collection(plain) == [] and summary(plain) == ""
    said = card.readme(manifest)
    for part in (REBUILT, *collection(manifest)):
        assert said.count(f"\n\n{part}") == 1
        said = said.replace(f"\n\n{part}", "")
    assert said == card.readme(plain)


def test_the_numbers_outlive_a_removal(released: Path) -> None:
    key = next(iter(make_samples(50))).key
    removals.apply(removals.find(released, None, ids=[key], caches=False), None)
    manifest = load_manifest(released / "t4sa")
    assert manifest.layers["b-t4sa"].provenance["removals"]["rows"] == 1
    assert "[ 5,000 tweets ]" in (released / "t4sa/README.md").read_text(encoding="utf-8")
    assert check_release(released, deep=True).ok
