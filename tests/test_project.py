"""The project's frame: contract between the wings, documents that say what is true, a quickstart that learns."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

from t4sa_data import catalog, errors, manifest, schema

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
PAGES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load_example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wings_are_held_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name} links to {target}"


def test_every_page_of_the_documentation_is_reached_from_its_index() -> None:
    seen, todo = set(), [ROOT / "docs/index.md"]
    while todo:
        page = todo.pop().resolve()
        if page not in seen and page.suffix == ".md" and page.exists():
            seen.add(page)
            links = re.findall(r"\]\(([^)\s:]+)\)", page.read_text(encoding="utf-8"))
            todo += [page.parent / link.split("#")[0] for link in links]
    assert {path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")} <= seen


@cache
def command_line() -> Any:
    import typer

    from t4sa_data.cli import app

    return typer.main.get_command(app)


@cache
def known_options(*words: str) -> tuple[frozenset[str], bool]:
    """Options of a command of `t4sa`, and whether there is such a command; a group's command is named by its words."""
    found = command_line()
    context = found.make_context("t4sa", [], resilient_parsing=True)
    for word in words:
        if found is not None and hasattr(found, "get_command"):
            found = found.get_command(context, word)
    if found is None:
        return frozenset(), False
    return frozenset(o for p in found.params for o in (*p.opts, *p.secondary_opts)) | {"--help"}, True


def shown_commands(text: str) -> Iterator[str]:
    """Every `t4sa ...` of a page: lines of code blocks, and code in the text."""
    for block in re.findall(r"^```(?:bash|console)?\n(.*?)^```", text, re.M | re.S):
        yield from (line.removeprefix("$ ") for line in block.splitlines() if re.match(r"(\$ )?t4sa ", line))
    yield from re.findall(r"`(t4sa [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    for line in shown_commands(page.read_text(encoding="utf-8")):
        words = shlex.split(line.replace("[", "").replace("]", "").replace("\\|", " "), comments=True)[1:]
        named = list(takewhile(lambda word: not word.startswith("-"), words))
        options, exists = known_options(*named)
        assert exists, f"{page.name} shows `{line}`"
        unknown = {word.split("=")[0] for word in words if word.startswith("--")} - options
        assert not unknown, f"{page.name} shows `{line}` with {unknown}"


def test_documented_options_of_prepare_are_those_of_the_command() -> None:
    options, _ = known_options("prepare")
    table = read("docs/reference/cli.md").split("## t4sa prepare")[1].split("## ")[0]
    documented = set(re.findall(r"^\| `(--[a-z-]+)", table, re.M))
    assert documented == {option for option in options if option.startswith("--")} - {"--help"}


def test_the_same_commands_stand_in_readme_makefile_ci_and_tasks() -> None:
    found = subprocess.run([sys.executable, "tasks.py"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2
    tasks = found.stderr.split()[-1].split("|")
    assert {"demo", "demo-rebuild", "test", "test-slow", "bench"} == set(tasks)
    for task in tasks:
        assert f"`make {task}` | `python tasks.py {task}`" in read("README.md")
        assert re.search(rf"^\.PHONY:.* {task}( |$)", read("Makefile"), re.M)
    assert "make test" in read(".ci/run")


def test_readme_says_what_every_extra_weighs() -> None:
    for extra in PROJECT["optional-dependencies"].keys() - {"all"}:
        assert f"| `[{extra}]` |" in read("README.md"), extra


def test_errors_page_lists_every_class() -> None:
    classes = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.T4SAError)}
    assert set(re.findall(r"^\| `(\w+)` \|", read("docs/reference/errors.md"), re.M)) == classes


def test_data_model_page_lists_every_column_and_config() -> None:
    page = read("docs/reference/data-model.md")
    listed = [
        name for row in re.findall(r"^\| (`[^|]+) \| [^|]+ \| [^|]+\|$", page, re.M) for name in row.split("`")[1::2]
    ]
    assert listed[: len(schema.SAMPLE.names)] == schema.SAMPLE.names
    for config in catalog.CONFIGS:
        assert f"`{config}`" in page


def test_manifest_fields_are_those_of_the_page() -> None:
    page = read("docs/reference/release-layout.md").split("## manifest.json")[1].split("## ")[0]
    listed = [name for row in re.findall(r"^\| (`[^|]+) \|", page, re.M) for name in row.split("`")[1::2]]
    import json

    made = json.loads(manifest.Manifest(format="wds", layers={}, files=(), toolchain={}).to_json())
    assert sorted(listed) == sorted(made)


def test_versions_agree() -> None:
    version = PROJECT["version"]
    first = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.M)
    assert first is not None and first[1] == version
    citation = yaml.safe_load(read("CITATION.cff"))
    assert str(citation["version"]) == version
    table = read("docs/reference/compatibility.md")
    line = version.rsplit(".", 1)[0]
    row = f"| {line}.x | {manifest.FORMAT_VERSION} | {catalog.DATA_VERSION} | "
    assert row in table and f"| `{catalog.RELEASE_LINE}` |" in table


def test_citation_names_the_paper() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    paper = citation["preferred-citation"]
    assert (paper["doi"], paper["title"]) == (catalog.PAPER_DOI, catalog.PAPER_TITLE)
    for author in paper["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in catalog.CITATION
        assert author["family-names"] in read("README.md")
    assert citation["cff-version"] and citation["message"] and citation["license"] == PROJECT["license"]


def test_license_is_the_whole_apache_2() -> None:
    text = read("LICENSE")
    assert text.split()[:3] == ["Apache", "License", "Version"]
    assert "END OF TERMS AND CONDITIONS" in text and text.count("\n") > 200
    assert "Copyright 2026 The t4sa-data authors" in text


def test_changelog_entries_bear_a_class() -> None:
    entries = re.findall(r"^- (\w+):", read("CHANGELOG.md"), re.M)
    assert entries and set(entries) <= {"DATA", "ORDER", "STATE", "API", "CLI", "FIX"}
    assert len(entries) == len(re.findall(r"^- ", read("CHANGELOG.md"), re.M))


def tracked_files() -> list[str]:
    """What git tracks or would track; the test is skipped outside a checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    return [name for name in found.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_host_of_packages() -> None:
    # Put together here, so that this file does not hold what it looks for.
    forbidden = [f"/{folder}/" for folder in ("work" + "/main", "root", "home" + "/[a-z]+", "tmp" + "/venv")]
    forbidden += ["pypi" + r"\.org", "files" + r"\.pythonhosted"]
    pattern = re.compile("|".join(forbidden))
    bad = []
    for name in tracked_files():
        lines = (ROOT / name).read_bytes().decode("utf-8", "replace").splitlines()
        bad += [f"{name}:{number}: {line.strip()[:80]}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    assert not bad


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of every config that `t4sa prepare` builds."""
    from builders.prepare import prepare
    from builders.run import PrepareConfig
    from t4sa_data.testing import make_official_archive, make_twitter_testing

    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("home")
    make_official_archive(raw, 60, num_extra=12)
    prepare(PrepareConfig(raw=raw, out=out, images=(raw / "t4sa_more_imgs.tar",), workers=1))
    make_twitter_testing(ttd := tmp_path_factory.mktemp("ttd"))
    prepare(PrepareConfig(raw=ttd, out=out, configs=("twitter-testing",), workers=1))
    return out


def label_model(folder: Path) -> Path:
    """A model of the text labeller, trained in a second."""
    from builders.label.folder import save_model
    from tests.label_helpers import tiny_svm

    save_model(tiny_svm(), folder)
    return folder


# webdataset leaves a tar open when its reader stops early, as the block does.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.values[0].read_text(encoding="utf-8")])
def test_python_code_of_the_pages_runs(page: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="some blocks need the extra [train]")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
    changes = {'"DIR': f'"{home}', ".show()": ".load()", "{00000..00063}-of-00064": "00000-of-00001"}
    if 'load_model("MODEL")' in code:
        pytest.importorskip("vaderSentiment", reason="some blocks need the extra [label]")
        changes['"MODEL"'] = repr(str(label_model(tmp_path / "model")))
    for shown, meant in changes.items():
        code = code.replace(shown, meant)
    monkeypatch.chdir(home)
    monkeypatch.setenv("T4SA_HOME", str(home))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    exec(compile(code, page.name, "exec"), {"__name__": page.stem})


def test_quickstart_loss_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("torch", reason="the quickstart needs the extra [train]")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    losses = load_example("quickstart").main(["--config", "miniature", "--steps", "25"])
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert "accuracy on the test split" in capsys.readouterr().out
