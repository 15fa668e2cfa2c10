"""`register()`: plain `datasets.load_dataset("t4sa")` goes through this package, from any folder; never by import."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from t4sa_data import places

# `register` replaces the two public names of the function. The alternative, patching `dataset_module_factory`, reaches
# names imported earlier too, but it can only say where a dataset is: not fetch single splits, not check the disk, not
# stream in place; and it is an internal whose signature changes between versions of `datasets`.
_patch: dict[str, Any] = {}


def original() -> Callable[..., Any]:
    """`datasets.load_dataset` itself, whether registered or not."""
    import datasets

    return _patch["original"] if _patch else datasets.load_dataset  # type: ignore[no-any-return]


def register() -> None:
    """Make `datasets.load_dataset("t4sa")` resolve through this package, from any folder, in this process.

    Explicit and idempotent; `unregister` undoes it. Code that imported the function before (`from datasets import
    load_dataset`) keeps the one it has.
    """
    import datasets

    from t4sa_data import loading

    if _patch:
        return
    function = datasets.load_dataset
    parameters = inspect.signature(function)

    @functools.wraps(function)
    def patched(*args: Any, **kwargs: Any) -> Any:
        path = args[0] if args else kwargs.get("path")
        if not _patch or not isinstance(path, str | os.PathLike) or not places.is_ours(path):
            return function(*args, **kwargs)
        given = dict(parameters.bind(*args, **kwargs).arguments)
        return loading.load_dataset(**given.pop("config_kwargs", {}), **given)

    _patch.update(original=function, patched=patched)
    datasets.load_dataset = datasets.load.load_dataset = patched


def unregister() -> None:
    """Undo `register`; without it, do nothing."""
    if not _patch:
        return
    import datasets

    for module in (datasets, datasets.load):
        if module.load_dataset is _patch["patched"]:  # somebody else may have wrapped it since
            module.load_dataset = _patch["original"]
    _patch.clear()
