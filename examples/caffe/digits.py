"""What a DIGITS archive holds, by role: members are found by info.json, else by their names.

DIGITS (caffe_train.py, views.py) writes flat archives whose order is that of a Python 2 dict, older versions fewer
files. Loose files and folders are taken the same way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from examples.caffe import prototxt, wire
from examples.caffe.archive import read_files
from examples.caffe.net import array_of, layers_of, upgrade, weights_of
from examples.caffe.wire import Buffer
from examples.errors import ModelFileError
from examples.models.graph import Layer

_ITERATION = re.compile(r"_iter_(\d+)\.caffemodel$")
_ROLES: dict[str, tuple[str, str]] = {  # role -> its key in info.json, pattern of names
    "deploy": ("deploy file", r"deploy.*\.prototxt$"),
    "snapshot": ("snapshot file", r"\.caffemodel$"),
    "mean": ("mean file", r"\.binaryproto$"),
    "labels": ("labels file", r"labels.*\.txt$"),
    "train_val": ("train_val file", r"train_val.*\.prototxt$"),
    "solver": ("solver file", r"solver.*\.prototxt$"),
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a train_val.prototxt says of the pictures; None and empty: nothing."""

    mean_file: str | None = None
    mean_values: tuple[float, ...] = ()
    crop_size: int | None = None
    mirror: bool | None = None
    scale: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Files of a trained Caffe net."""

    where: Path
    files: Mapping[str, Buffer]
    """By base name."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """DIGITS' info.json."""

    def name_of(self, role: str) -> str | None:
        """Name of the file of a role, None if there is none.

        Raises:
            ModelFileError: several could be it.
        """
        key, pattern = _ROLES[role]
        told = re.split(r"[/\\]", str(self.info.get(key, "")))[-1]
        if told in self.files:
            return told
        fitting = [name for name in self.files if re.search(pattern, name)]
        if role == "snapshot" and len(fitting) > 1 and all(map(_ITERATION.search, fitting)):
            fitting = [max(fitting, key=lambda name: int(_ITERATION.search(name)[1]))]  # type: ignore[index]
        if role == "deploy" and not fitting:
            prototxts = [name for name in self.files if name.endswith(".prototxt")]
            fitting = [name for name in prototxts if not re.search("train_val|solver|original", name)]
        if len(fitting) > 1:
            raise ModelFileError(
                f"several files could be the {role}", expected="one", got=", ".join(fitting), where=self.where
            )
        return fitting[0] if fitting else None

    def need(self, role: str, hint: str | None = None) -> tuple[str, Buffer]:
        """Name and bytes of a role's file.

        Raises:
            ModelFileError: there is none, or it is empty.
        """
        name = self.name_of(role)
        if name is None:
            if role == "snapshot" and any(name.endswith(".h5") for name in self.files):
                refuse_hdf5(self.where)
            missing = f"*{_ROLES[role][1].replace(chr(92), '').replace('.*', '*').rstrip('$')}"
            raise ModelFileError(
                f"no {role} file",
                expected=missing,
                got=", ".join(self.files) or "no files",
                where=self.where,
                hint=hint,
            )
        if not len(self.files[name]):
            raise ModelFileError("an empty file", got=name, where=self.where)
        return name, self.files[name]

    def text(self, role: str) -> str | None:
        """Text of a role's file, None if there is none.

        Raises:
            ModelFileError: it is no text.
        """
        if self.name_of(role) is None:
            return None
        name, data = self.need(role)
        try:
            return str(bytes(data), "utf-8-sig")
        except UnicodeDecodeError as error:
            raise ModelFileError("no text file", got=name, where=self.where) from error

    @cached_property
    def deploy(self) -> str:
        """Text of the deploy.prototxt.

        Raises:
            ModelFileError: there is none.
        """
        self.need("deploy")
        return self.text("deploy") or ""

    @cached_property
    def network(self) -> tuple[list[Layer], tuple[int, ...] | None]:
        """Layers of the deploy file and dims of its input."""
        with wire.located(f"{self.where}: {self.name_of('deploy')}"):
            return layers_of(prototxt.parse(self.deploy))

    def weights(self) -> dict[str, torch.Tensor]:
        """`<layer>.weight`, `<layer>.bias` -> float32."""
        name, data = self.need("snapshot")
        with wire.located(f"{self.where}: {name}"):
            return weights_of(wire.decode(data, "NetParameter"))

    def labels(self) -> list[str] | None:
        """Lines of labels.txt, None if there is none."""
        text = self.text("labels")
        return None if text is None else [line.strip() for line in text.strip().splitlines()]

    def mean_image(self) -> torch.Tensor | None:
        """float32 [3, H, W], BGR; None if there is no mean.binaryproto.

        Raises:
            ModelFileError: it is damaged, or not of three channels.
        """
        if self.name_of("mean") is None:
            return None
        name, data = self.need("mean")
        return read_mean(data, f"{self.where}: {name}")

    @cached_property
    def training(self) -> Training:
        """What train_val.prototxt says; of Data layers for TRAIN, or of those there are."""
        text = self.text("train_val")
        if text is None:
            return Training()
        layers = [layer for layer in upgrade(prototxt.parse(text)).get("layer", []) if layer.get("type") == "Data"]
        layers.sort(key=lambda layer: not any(rule.get("phase") == "TRAIN" for rule in layer.get("include", [])))
        merged: dict[str, Any] = {}
        for layer in layers:  # oldest files say it in data_param
            merged = {**layer.get("data_param", {}), **layer.get("transform_param", {}), **merged}
        return Training(
            mean_file=merged.get("mean_file"),
            mean_values=tuple(merged.get("mean_value", ())),
            crop_size=merged.get("crop_size"),
            mirror=merged.get("mirror"),
            scale=merged.get("scale"),
            batch_size=merged.get("batch_size"),
        )

    def solver(self) -> dict[str, Any]:
        """Fields of solver.prototxt; empty if there is none."""
        text = self.text("solver")
        return {} if text is None else prototxt.parse(text, "SolverParameter")

    def iteration(self) -> int | None:
        """Of the snapshot, by its name."""
        found = _ITERATION.search(self.name_of("snapshot") or "")
        return int(found[1]) if found else None

    def digests(self) -> dict[str, str]:
        """sha256 of each file."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(self.files.items())}


def read_archive(source: Path | Sequence[Path]) -> Archive:
    """The files of an archive, a folder, or loose ones.

    Raises:
        InputMissing, ArchiveError, ModelFileError: see `examples.caffe.archive.read_files`.
    """
    files = read_files(source)
    where = source if isinstance(source, Path) else source[0].parent
    info: Any = {}
    if "info.json" in files:
        try:
            info = json.loads(bytes(files["info.json"]))
        except ValueError as error:
            raise ModelFileError("info.json is no JSON", got=str(error), where=where) from error
        if not isinstance(info, dict):
            raise ModelFileError("info.json", expected="an object", got=type(info).__name__, where=where)
    return Archive(where=where, files=files, info=info)


def read_mean(data: Buffer, where: str) -> torch.Tensor:
    """A mean.binaryproto as float32 [3, H, W], BGR.

    Raises:
        ModelFileError: damaged, empty, or not of three channels.
    """
    with wire.located(where):
        array = array_of(wire.decode(data, "BlobProto"), 3)
    if array.shape[0] != 3 or array.size == 0:
        raise ModelFileError("mean image", expected="3 x height x width", got=array.shape, where=where)
    return torch.tensor(array, dtype=torch.float32)


def refuse_hdf5(where: Path) -> None:
    """Refuse Caffe's other format of snapshots.

    Raises:
        ModelFileError: always.
    """
    raise ModelFileError(
        "an HDF5 snapshot of Caffe, which is not read here",
        expected=".caffemodel",
        where=where,
        hint="Caffe writes .caffemodel with `snapshot_format: BINARYPROTO` in the solver.",
    )
