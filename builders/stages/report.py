"""`report`: the build's page, its funnel, and the sheets of near-duplicates."""

from __future__ import annotations

from typing import Any

from builders.building import Build

NAME = "report"
VERSION = 1


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    return []


def run(build: Build) -> dict[str, Any]:
    """See `Stage`."""
    return {}
