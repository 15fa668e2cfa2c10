"""Placeholder being written."""

from t4sa_data.manifest import Manifest


def readme(manifest: Manifest) -> str:
    return "# T4SA\n"


def croissant(manifest: Manifest) -> str:
    return "{}\n"
