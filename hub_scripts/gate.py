"""The gate of a repository: how requests are answered (by hand, or all at once), and the form that people fill in.

The form stands in the card's YAML head. `publish` writes it there from `gate.toml` beside the release, `set_form` into
a card that is published already; without a file it is the package's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hub_scripts.client import Hub, RepositoryState, explain
from t4sa_data.card.jsonld import access_words, to_text
from t4sa_data.card.metadata import GATE_CONDITIONS, GATE_PROMPT
from t4sa_data.card.people import PROMISES, promised
from t4sa_data.errors import FormError, OpenDoor
from t4sa_data.manifest import MANIFEST_NAME, parse_manifest

FORM_NAME = "gate.toml"
Mode = Literal["manual", "auto"]
MODES: tuple[Mode, ...] = ("manual", "auto")
README = "README.md"
CROISSANT = "croissant.json"
_KINDS = ("text", "checkbox", "date_picker", "country")
"""Of a field, besides a choice (Hub documentation, datasets-gated, 2026-08)."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an applicant reads and fills in."""

    heading: str = "Ask for access to T4SA"
    prompt: str = GATE_PROMPT
    button: str = "Agree and ask for access"
    fields: tuple[tuple[str, str], ...] = (("Affiliation", "text"), ("Purpose", "text"))
    """(name, kind) of what is asked; a kind of several words with `|` between them is a choice."""
    conditions: tuple[str, ...] = GATE_CONDITIONS
    """What is ticked, one checkbox each."""

    def to_yaml(self) -> dict[str, Any]:
        """The keys of the card's YAML head, in the card's order."""
        made: dict[str, Any] = {}
        for name, kind in self.fields:
            choices = [part.strip() for part in kind.split("|")]
            made[name] = {"type": "select", "options": choices} if len(choices) > 1 else kind
        return {
            "extra_gated_heading": self.heading,
            "extra_gated_prompt": self.prompt,
            "extra_gated_fields": made | dict.fromkeys(self.conditions, "checkbox"),
            "extra_gated_button_content": self.button,
        }

    def to_toml(self) -> str:
        """A `gate.toml` that gives this form."""
        fields = "".join(f"{_quoted(name)} = {_quoted(kind)}\n" for name, kind in self.fields)
        conditions = "".join(f"    {_quoted(text)},\n" for text in self.conditions)
        return (
            f"# The form of the gate. Kinds of a field: {', '.join(_KINDS)}, or a choice: a | b | c\n"
            f"heading = {_quoted(self.heading)}\nprompt = {_quoted(self.prompt)}\nbutton = {_quoted(self.button)}\n"
            f"# One checkbox each.\nconditions = [\n{conditions}]\n\n[fields]\n{fields}"
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a TOML string is a JSON string


def load_form(path: Path) -> Form:
    """Read and verify a `gate.toml`.

    Raises:
        FormError: it is not there, no TOML, or lacks a part; it has a kind of field that the Hub does not know.
    """
    try:
        value = tomllib.loads(Path(path).read_bytes().decode())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormError("the form cannot be read", got=error, where=path) from error
    for name, kind in (("heading", str), ("prompt", str), ("button", str), ("conditions", list), ("fields", dict)):
        if not isinstance(value.get(name), kind) or not value[name]:
            raise FormError(f"{name} is missing or empty", got=value.get(name), where=path)
    if unknown := sorted(value.keys() - {"heading", "prompt", "button", "conditions", "fields"}):
        raise FormError("no such part of a form", got=unknown[0], where=path)
    for name, kind in value["fields"].items():
        if kind not in _KINDS and not (isinstance(kind, str) and "|" in kind):
            raise FormError(f"no such kind of field: {name}", expected=" | ".join(_KINDS), got=kind, where=path)
    if not all(isinstance(text, str) and text for text in value["conditions"]):
        raise FormError("a condition is no text", got=value["conditions"], where=path)
    return Form(
        heading=value["heading"],
        prompt=value["prompt"],
        button=value["button"],
        fields=tuple(value["fields"].items()),
        conditions=tuple(value["conditions"]),
    )


def with_form(readme: str, form: Form) -> str:
    """A card with another form; see `with_head`.

    Raises:
        FormError: the card has no YAML head.
    """
    return with_head(readme, form.to_yaml())


def with_head(readme: str, values: Mapping[str, Any]) -> str:
    """A card with other values in its YAML head, and the conditions of its form in its words; everything else keeps its
    bytes.

    Raises:
        FormError: the card has no YAML head.
    """
    import yaml
    from huggingface_hub import DatasetCardData

    match = re.match(r"---\n(.*?)\n---\n", readme, re.S)
    head = yaml.safe_load(match.group(1)) if match else None
    if match is None or not isinstance(head, dict):
        raise FormError("the card has no YAML head", where=README)
    data = json.loads(json.dumps(head | dict(values)))  # no shared objects: YAML would write anchors for them
    body, conditions = readme[match.end() :], _conditions(data)
    if conditions:
        listed = f"{PROMISES}\n\n{promised(conditions)}\n"
        body = re.sub(rf"{PROMISES}\n\n(- .*\n)+", lambda _: listed, body)
    return f"---\n{DatasetCardData(**data).to_yaml(original_order=list(data))}\n---\n{body}"


def croissant_with_head(croissant: str, values: Mapping[str, Any]) -> str:
    """A croissant.json whose words on access are those of a card's YAML head.

    Raises:
        FormError: it is none.
    """
    try:
        value = json.loads(croissant)
        words = access_words(values.get("extra_gated_prompt", ""), _conditions(values))
        return to_text({name: words.get(name, old) for name, old in value.items()})
    except (ValueError, AttributeError) as error:
        raise FormError("no Croissant to write the form into", got=error, where=CROISSANT) from error


def _conditions(head: Mapping[str, Any]) -> list[str]:
    """What is ticked in the form of a YAML head."""
    return [name for name, kind in (head.get("extra_gated_fields") or {}).items() if kind == "checkbox"]


def form_of(readme: str) -> dict[str, Any]:
    """The keys of the form in a card's YAML head."""
    import yaml

    match = re.match(r"---\n(.*?)\n---\n", readme, re.S)
    head = yaml.safe_load(match.group(1)) if match else None
    return {k: v for k, v in head.items() if k.startswith("extra_gated")} if isinstance(head, dict) else {}


def show(hub: Hub, formats: tuple[str, ...] = ("parquet", "wds")) -> dict[str, RepositoryState | None]:
    """What stands at each repository's address."""
    return {repo_id: hub.state(repo_id) for repo_id in map(hub.repository, formats)}


def set_mode(hub: Hub, repo_id: str, mode: Mode) -> bool:
    """Set how requests are answered; whether that was a change. Visibility stays as it is.

    Raises:
        NotPublished, HubAccessError, HubUnreachable: the Hub does not do it.
    """
    if hub.need_state(repo_id).gated == mode:
        return False
    with explain(repo_id):
        hub.api.update_repo_settings(repo_id, gated=mode, repo_type="dataset")
    return True


def close(hub: Hub, repo_id: str) -> bool:
    """Make a repository private, with its gate kept (an incident): nobody but its owners reads it; whether that was a
    change."""
    state = hub.need_state(repo_id)
    if state.private:
        return False
    with explain(repo_id):
        hub.api.update_repo_settings(repo_id, visibility="private", repo_type="dataset")
    return True


def open_gated(hub: Hub, repo_id: str, mode: Mode) -> bool:
    """Make a repository public and gated in one call, so that it is at no moment without its gate; whether that was a
    change. A gate that is there keeps its mode."""
    state = hub.need_state(repo_id)
    if not state.private and state.gated:
        return False
    gated: Any = state.gated or mode
    with explain(repo_id):
        hub.api.update_repo_settings(repo_id, gated=gated, visibility="public", repo_type="dataset")
    return True


def set_form(hub: Hub, repo_id: str, form: Form) -> bool:
    """Write a form into card and Croissant on main, and their new sha256 into the manifest, in one commit; whether that
    was a change. Tags keep the form that they were published with.

    Raises:
        OpenDoor: the repository has no gate.
        FormError: there is no card on main.
        HubConflict: somebody else changed main at the same time.
    """
    state = hub.need_state(repo_id)
    if state.is_open:
        raise open_door(repo_id)
    commit = state.branches["main"]
    old = {name: hub.read(repo_id, name, commit) for name in (README, CROISSANT, MANIFEST_NAME)}
    readme, manifest_json = old[README], old[MANIFEST_NAME]
    if readme is None or manifest_json is None:
        raise FormError("no release on main, so no card to write the form into", where=repo_id)
    made = {README: with_form(readme.decode(), form).encode()}
    if (croissant := old[CROISSANT]) is not None:
        made[CROISSANT] = croissant_with_head(croissant.decode(), form.to_yaml()).encode()
    if all(old[name] == data for name, data in made.items()):
        return False
    manifest = parse_manifest(manifest_json, repo_id)
    entries = [
        replace(f, bytes=len(made[f.name]), sha256=hashlib.sha256(made[f.name]).hexdigest()) if f.name in made else f
        for f in manifest.files
    ]
    made[MANIFEST_NAME] = manifest.with_files(entries).to_json()
    hub.commit(repo_id, "The form of the gate", files=made, parent=commit)
    return True


def open_door(repo_id: str) -> OpenDoor:
    """The error for a repository that everybody reads."""
    return OpenDoor(
        "this repository is public and has no gate",
        where=repo_id,
        hint="Close it now: `t4sa hub gate --close`; then set its gate: `t4sa hub gate --set manual`.",
    )


def describe(states: Mapping[str, RepositoryState | None]) -> str:
    """One line a repository."""
    lines = []
    for repo_id, state in states.items():
        if state is None:
            lines.append(f"{repo_id}: not there, or not for this account")
            continue
        visibility = "private" if state.private else "public"
        gate = f"gate {state.gated}" if state.gated else "no gate"
        warning = "  <- everybody reads it" if state.is_open else ""
        lines.append(f"{repo_id}: {visibility}, {gate}{warning}")
    return "\n".join(lines)
