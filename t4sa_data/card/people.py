"""What a card says of people: who is in the data, under which terms it may be used, how something is taken out, which
version this is and how to cite it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from t4sa_data import catalog
from t4sa_data.card.loading import first
from t4sa_data.card.markup import code, source, table
from t4sa_data.card.metadata import GATE_CONDITIONS
from t4sa_data.card.publisher import Publisher
from t4sa_data.manifest import FOLDERS, Manifest

WARNING = (
    "**Content warning.** Unfiltered social media: violence, nudity, hate, illness and death can occur, in images and "
    "in texts."
)
SUBJECTS = "The images show people, and the tweet ids lead to who posted them; nobody was asked."
MINORS = "Nobody's age is known, and none was checked: children can be among those who are shown and those who posted."
SENSITIVE = (
    "Sentiment says something about a person's state of mind; politics, health, faith or sexuality can be read off "
    "some images and texts."
)
PROMISES = "Whoever is given access promises:"
PROCEDURE = (
    "Name the tweet (its id or address) or the sample's `key`; do not send the picture. A removal takes the sample out "
    "of every config and both formats and publishes a new version; all versions before it are withdrawn and deleted. "
    "How many samples were removed is published, which ones is not."
)


def has_text(manifest: Manifest) -> bool | None:
    """Whether the rows hold tweets' texts, as the build was told; None where nothing is recorded."""
    said = {layer.provenance.get("settings", {}).get("text") for layer in manifest.layers.values()} - {None}
    return None if not said else said != {"none"}


def people(manifest: Manifest) -> list[str]:
    """Who is in the data."""
    texts = {
        None: "",
        True: " Their texts are in it.",
        False: " Their texts were left out of this copy: `text` is null.",
    }
    return [f"{SUBJECTS}{texts[has_text(manifest)]} {MINORS} {SENSITIVE}"]


def terms() -> list[str]:
    """What a user may do."""
    licence = catalog.LICENSE
    return [
        f"{licence.note} ({licence.certainty}; {source(licence.source)}) {PROMISES}",
        promised(GATE_CONDITIONS),
    ]


def promised(conditions: Iterable[str]) -> str:
    """The conditions of access as a list; in a card it follows `PROMISES`."""
    return "\n".join(f"- {condition.rstrip('.')}." for condition in conditions)


def removals(manifest: Manifest, publisher: Publisher | None) -> list[str]:
    """Whom to write to, what happens then, and what was removed so far."""
    if publisher is None:
        made = ["To have something removed, ask the maintainers of this copy. " + PROCEDURE]
    else:
        days = f"{publisher.response_days} day" + ("" if publisher.response_days == 1 else "s")
        made = [
            f"To have something removed, write to {publisher.address}; you get an answer within {days}. {PROCEDURE}"
        ]
    made.append(
        "Whoever holds a copy follows with `t4sa removals DIR --apply`; `load_dataset` and `stream` say when a newer "
        "list of removals is out."
    )
    if gone := removed(manifest):
        rows = [(f"`{name}`", f"{entry['rows']:,}", entry.get("updated", "-")) for name, entry in gone.items()]
        made += ["Removed so far:", table(("layer", "rows removed", "last"), rows)]
    return made


def removed(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """What was taken out of a layer after it was built: `rows`, and `updated` (YYYY-MM-DD) where it is known."""
    found = {name: layer.provenance.get("removals") for name, layer in manifest.layers.items()}
    return {name: dict(entry) for name, entry in found.items() if entry and entry.get("rows")}


def versions(manifest: Manifest) -> list[str]:
    """Which version this is, how to pin it, how to check it."""
    version, (config, splits) = manifest.data_version, first(manifest)
    pinned = f'load_dataset("{FOLDERS[manifest.format]}"{config}, split="{splits[-1]}", revision="v{version}")'
    return [
        f"This is version {version}. On the Hub its tag is `v{version}`, and a tag never moves; `releases.json` on "
        "main says which version is current, which one was withdrawn, and what takes its place. Without a `revision` "
        f"you get the newest of the line `{catalog.RELEASE_LINE}`; to pin one:",
        code("python", "from t4sa_data import load_dataset", "", f"{splits[-1]} = {pinned}"),
        "Size and sha256 of every file stand in `manifest.json` (and, for the shards, in `croissant.json`), the sha256 "
        "of every image in the column `sha256`. `t4sa check DIR` compares a copy with them.",
    ]


def citation(manifest: Manifest) -> list[str]:
    """How to cite."""
    return [
        f"Cite the paper, and say which data you used: version {manifest.data_version}, content digest "
        f"`{manifest.content_digest}`.",
        code("bibtex", catalog.CITATION.strip()),
    ]
