"""`rights.toml` beside the release: who granted the right to publish it, whether that covers the tweets' text, whom to
write to for a removal, and the record of a safety screen. Nothing is published without it.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t4sa_data.card.publisher import RESPONSE_DAYS
from t4sa_data.errors import RightsError
from t4sa_data.files import write_bytes

RIGHTS_NAME = "rights.toml"

TEMPLATE = """\
# What `t4sa hub publish` must know before a byte leaves this machine. Fill in every line.
# This file is not published; the contact is: it stands in the card. See docs/how-to/publish.md.

[rights]
granted_by = ""      # who gave the right to redistribute: person, role, institution
date = ""            # when, YYYY-MM-DD
scope = ""           # what was granted, in their words
covers_text = false  # true only if the grant names the tweets' text
previews = false     # true only if the grant lets the Hub show pictures on the dataset's page (may be left out)

[contact]
removals = ""        # address where people ask for a removal
response_days = 30   # they get an answer within so many days: the card promises it (may be left out: 30)

[screen]
tool = ""            # what the images were matched with for known illegal material
list_version = ""    # of the list they were matched against
date = ""            # when, YYYY-MM-DD
matched = 0          # images that matched; all of them must be gone from the release
"""


@dataclass(frozen=True, kw_only=True)
class Rights:
    """The content of `rights.toml`."""

    granted_by: str
    date: str
    """YYYY-MM-DD."""
    scope: str
    covers_text: bool
    removals: str
    """Where people ask for a removal."""
    screen_tool: str
    screen_list_version: str
    screen_date: str
    """YYYY-MM-DD."""
    screen_matched: int
    """Images that matched and were left out of the release."""
    previews: bool = False
    """Whether the Hub may show pictures on the dataset's page."""
    response_days: int = RESPONSE_DAYS
    """Days within which whoever asks for a removal gets an answer; the card says so."""


def write_template(folder: Path) -> Path:
    """Write an empty `rights.toml` into a folder, unless there is one; its path."""
    path = Path(folder) / RIGHTS_NAME
    if not path.exists():
        write_bytes(path, TEMPLATE.encode())
    return path


def load_rights(folder: Path) -> Rights:
    """Read and verify `folder/rights.toml`.

    Raises:
        RightsError: there is none (a template is written), or a line is empty or not what it should be.
        ReleaseNotFound: nor is there a release: nothing is written into a folder of another purpose.
    """
    path = Path(folder) / RIGHTS_NAME
    if not path.is_file():
        from t4sa_data.testing.check import find_folders

        find_folders(Path(folder))
        write_template(folder)
        raise RightsError(
            f"no {RIGHTS_NAME} beside the release",
            where=path,
            hint="A template was written there: fill it in and run the same command again.",
        )
    return parse_rights(path.read_bytes(), path)


def parse_rights(data: bytes, where: object = RIGHTS_NAME) -> Rights:
    """Verify the content of a `rights.toml`.

    Raises:
        RightsError: see `load_rights`.

    >>> parse_rights(TEMPLATE.encode())
    Traceback (most recent call last):
    ...
    t4sa_data.errors.RightsError: rights.granted_by is not filled in: expected text [rights.toml]
    """
    try:
        value = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RightsError("no TOML", got=error, where=where) from error
    get = _Getter(value, where)
    return Rights(
        granted_by=get.text("rights", "granted_by"),
        date=get.date("rights", "date"),
        scope=get.text("rights", "scope"),
        covers_text=get.kind("rights", "covers_text", bool, "true or false"),
        removals=get.text("contact", "removals"),
        screen_tool=get.text("screen", "tool"),
        screen_list_version=get.text("screen", "list_version"),
        screen_date=get.date("screen", "date"),
        screen_matched=get.count("screen", "matched"),
        previews=get.previews(),
        response_days=get.response_days(),
    )


@dataclass(frozen=True)
class _Getter:
    value: Mapping[str, Any]
    where: object

    def kind(self, table: str, name: str, kind: type, words: str) -> Any:
        part = self.value.get(table)
        found = part.get(name) if isinstance(part, dict) else None
        if type(found) is not kind:
            raise RightsError(f"{table}.{name} is not filled in", expected=words, got=found, where=self.where)
        return found

    def text(self, table: str, name: str) -> str:
        found: str = self.kind(table, name, str, "text")
        if not found.strip():
            raise RightsError(f"{table}.{name} is not filled in", expected="text", where=self.where)
        return found.strip()

    def date(self, table: str, name: str) -> str:
        part = self.value.get(table)
        found = part.get(name) if isinstance(part, dict) else None
        try:
            day = found if type(found) is datetime.date else datetime.date.fromisoformat(str(found))
        except ValueError:
            raise RightsError(
                f"{table}.{name} is not filled in", expected="a date, YYYY-MM-DD", got=found or None, where=self.where
            ) from None
        if day > datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1):
            raise RightsError(f"{table}.{name} is in the future", got=day, where=self.where)
        return day.isoformat()

    def count(self, table: str, name: str) -> int:
        found: int = self.kind(table, name, int, "a number")
        if found < 0:
            raise RightsError(f"{table}.{name} is negative", got=found, where=self.where)
        return found

    def _has(self, table: str, name: str) -> bool:
        part = self.value.get(table)
        return isinstance(part, dict) and name in part

    def previews(self) -> bool:
        return (
            bool(self.kind("rights", "previews", bool, "true or false")) if self._has("rights", "previews") else False
        )

    def response_days(self) -> int:
        if not self._has("contact", "response_days"):
            return RESPONSE_DAYS
        found = self.count("contact", "response_days")
        if found == 0:
            raise RightsError("contact.response_days is none", expected="a day or more", got=found, where=self.where)
        return found
