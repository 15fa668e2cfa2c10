"""T4SA and B-T4SA (Twitter for Sentiment Analysis): `load_dataset("t4sa")` and what stands behind it.

    >>> import t4sa_data
    >>> ds = t4sa_data.load_dataset("t4sa", split="test", streaming=True)  # doctest: +SKIP

Importing this package is cheap: `datasets`, torch and the like are imported by the functions that need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from t4sa_data.errors import MissingDependency, T4SAError

if TYPE_CHECKING:
    from t4sa_data import catalog, testing
    from t4sa_data.credentials import login, logout
    from t4sa_data.downloading import download
    from t4sa_data.loading import load_dataset, register, unregister
    from t4sa_data.manifest import Manifest, load_manifest
    from t4sa_data.streaming import stream
    from t4sa_data.streaming.map_style import T4SA
    from t4sa_data.streaming.wds import webdataset

    __version__: str

__all__ = [
    "T4SA",
    "Manifest",
    "T4SAError",
    "__version__",
    "catalog",
    "download",
    "load_dataset",
    "load_manifest",
    "login",
    "logout",
    "register",
    "stream",
    "testing",
    "unregister",
    "webdataset",
]

_HOMES = {
    "T4SA": "t4sa_data.streaming.map_style",
    "Manifest": "t4sa_data.manifest",
    "download": "t4sa_data.downloading",
    "load_dataset": "t4sa_data.loading",
    "load_manifest": "t4sa_data.manifest",
    "login": "t4sa_data.credentials",
    "logout": "t4sa_data.credentials",
    "register": "t4sa_data.loading",
    "stream": "t4sa_data.streaming",
    "unregister": "t4sa_data.loading",
    "webdataset": "t4sa_data.streaming.wds",
}
"""Public name -> the module it comes from, imported when first asked for."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("t4sa-data")
    if name in ("catalog", "testing"):
        return import_module(f"t4sa_data.{name}")
    if name in _HOMES:
        try:
            value = getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "torchvision"):
                raise
            raise MissingDependency(f"{name} needs {error.name}", hint='pip install "t4sa-data[torch]"') from error
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
