"""The gate: shown, set, closed and opened again without an ungated moment; its form from a template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hub_scripts import client, gate
from hub_scripts.gate import Form, load_form, with_form
from hub_scripts.publish import publish
from t4sa_data import errors
from t4sa_data.manifest import MANIFEST_NAME, parse_manifest
from tests.hub_double import WritableHub
from tests.publish_helpers import READER, TOKEN, USERS, Commands, final, write_release

REPOSITORIES = ("ours/t4sa", "ours/t4sa-wds")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def double(tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A Hub with a release."""
    with WritableHub(tmp_path / "hub", users=USERS) as made:
        publish_at(made, release, monkeypatch)
        yield made


def publish_at(made: WritableHub, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    publish(release, namespace="ours", version="1.0.0", endpoint=made.url, token=TOKEN)
    made.log.clear()


@pytest.fixture
def ours(double: WritableHub) -> client.Hub:
    return client.Hub(namespace="ours", endpoint=double.url, token=TOKEN)


def writes(double: WritableHub) -> list[str]:
    return [f"{line.method} {line.path.rsplit('/', 1)[-1]}" for line in double.log if line.method in ("PUT", "POST")]


def test_the_mode_is_set_once(double: WritableHub, ours: client.Hub) -> None:
    assert gate.set_mode(ours, "ours/t4sa", "auto")
    assert not gate.set_mode(ours, "ours/t4sa", "auto")
    assert writes(double) == ["PUT settings"]
    assert (double.repos["ours/t4sa"].gated, double.repos["ours/t4sa"].private) == ("auto", False)


def test_closed_and_opened_again_with_its_gate(double: WritableHub, ours: client.Hub) -> None:
    assert gate.close(ours, "ours/t4sa") and not gate.close(ours, "ours/t4sa")
    repo = double.repos["ours/t4sa"]
    assert (repo.private, repo.gated) == (True, "manual")
    repo.gated = False  # a gate that somebody took away while it was closed
    assert gate.open_gated(ours, "ours/t4sa", "manual") and not gate.open_gated(ours, "ours/t4sa", "manual")
    assert (repo.private, repo.gated) == (False, "manual")
    assert double.opened() == []


def test_a_new_form_is_one_commit_and_the_manifest_knows_it(double: WritableHub, ours: client.Hub) -> None:
    form = replace(Form(), heading="Who are you?", fields=(("Role", "student | staff"), ("Country", "country")))
    form = replace(form, conditions=("I will sing",))
    before = final(double)["ours/t4sa"]
    assert gate.set_form(ours, "ours/t4sa", form) and not gate.set_form(ours, "ours/t4sa", form)
    repo = double.repos["ours/t4sa"]
    readme, data = (repo.files()[name].data or b"" for name in ("README.md", MANIFEST_NAME))
    entry = parse_manifest(data, "x").file("README.md")
    assert entry and (entry.bytes, entry.sha256) == (len(readme), hashlib.sha256(readme).hexdigest())
    told = repo.files()["croissant.json"].data or b""
    entry = parse_manifest(data, "x").file("croissant.json")
    assert entry and entry.sha256 == hashlib.sha256(told).hexdigest()
    assert json.loads(told)["usageInfo"] == "I will sing." and "- I will sing.\n\n## Removals" in readme.decode()
    head = yaml.safe_load(readme.decode().split("---\n")[1])
    assert head["extra_gated_fields"]["Role"] == {"type": "select", "options": ["student", "staff"]}
    assert gate.form_of(readme.decode()) == form.to_yaml()
    after = final(double)["ours/t4sa"]
    assert after["tags"] == before["tags"]
    assert after["commits"] == ["The form of the gate", *before["commits"]]


def test_a_form_that_is_the_cards_own_changes_no_byte(release: Path, tmp_path: Path) -> None:
    for folder in ("t4sa", "t4sa-wds"):
        readme = (release / folder / "README.md").read_text()
        assert with_form(readme, Form()) == readme
    path = tmp_path / "gate.toml"
    path.write_text(Form().to_toml())
    assert load_form(path) == Form()
    odd = Form(heading='a "b" \\ c', prompt="x\ny\u00e9", fields=(("A b", "text"),), conditions=("I will: x #1",))
    path.write_text(odd.to_toml())
    assert load_form(path) == odd


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('Purpose" = "text"', 'Purpose" = "file"'),
        ("heading = ", "# heading = "),
        ("heading = ", "color = 1\nheading = "),
        ("[fields]", "[fields"),
        ('button = "Agree and ask for access"', 'button = ""'),
    ],
)
def test_a_form_that_is_none(tmp_path: Path, old: str, new: str) -> None:
    path, text = tmp_path / "gate.toml", Form().to_toml()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(errors.FormError, match=r"gate\.toml"):
        load_form(path)


def test_what_is_not_there_or_not_ours(double: WritableHub, ours: client.Hub) -> None:
    with pytest.raises(errors.NotPublished):
        gate.set_mode(ours, "ours/other", "auto")
    reader = client.Hub(namespace="ours", endpoint=double.url, token=READER)
    with pytest.raises(errors.HubAccessError):
        gate.set_mode(reader, "ours/t4sa", "auto")
    with pytest.raises(errors.HubAccessError):
        gate.close(reader, "ours/t4sa")
    double.repos["ours/t4sa"].gated = False
    with pytest.raises(errors.OpenDoor):
        gate.set_form(ours, "ours/t4sa", Form())
    with pytest.raises(errors.FormError, match="no YAML head"):
        with_form("# T4SA\n", Form())


def test_the_command(t4sa_hub: Commands, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t4sa, double = t4sa_hub, t4sa_hub.hub
    publish_at(double, release, monkeypatch)
    assert t4sa.run("gate", "--namespace", "ours") == (
        0,
        "ours/t4sa: public, gate manual\nours/t4sa-wds: public, gate manual\n",
    )
    code, said = t4sa.run("gate", "--namespace", "ours", "--set", "auto", "--repository", "t4sa")
    assert (code, double.repos["ours/t4sa"].gated, double.repos["ours/t4sa-wds"].gated) == (0, "auto", "manual")
    assert "ours/t4sa: gate auto, was manual" in said
    template = tmp_path / "gate.toml"
    assert t4sa.run("gate", "--namespace", "ours", "--template", template)[0] == 0
    assert load_form(template) == Form()
    assert t4sa.run("gate", "--namespace", "ours", "--template", template)[0] == 2
    template.write_text(replace(Form(), heading="New").to_toml())
    code, said = t4sa.run("gate", "--namespace", "ours", "--form", template, "--close")
    assert code == 0 and said.count("closed") == 2 and said.count("new form") == 2
    assert all(repo.private for repo in double.repos.values())
    assert t4sa.run("gate", "--namespace", "ours", "--open")[0] == 0
    double.repos["ours/t4sa"].gated = False
    code, said = t4sa.run("gate", "--namespace", "ours")
    assert code == 1 and "everybody reads it" in said
