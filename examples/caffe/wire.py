"""Protocol buffers' wire format (proto2), as far as Caffe's files need it: bytes <-> dicts by the schema.

A value is an int, float, bool or str; an enum is its name; a message a dict; a repeated field a list, a packed run of
floats an array that looks into the buffer (nothing is copied: a mapped file of half a GB is parsed in a millisecond).
Fields the schema does not have are skipped. Bytes written are those that protobuf itself would write.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.caffe.schema import ENUMS, MESSAGES, Field
from examples.errors import ModelFileError
from t4sa_data.errors import InputMissing

Buffer = bytes | memoryview | mmap.mmap
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOATS: dict[str, tuple[int, npt.DTypeLike]] = {"float": (_FIXED32, "<f4"), "double": (_FIXED64, "<f8")}


def map_file(path: Path) -> Buffer:
    """A file's bytes, mapped into memory.

    Raises:
        InputMissing: no such file.
        ModelFileError: it is empty.
    """
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise ModelFileError("an empty file", where=path)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputMissing(f"cannot read ({error.strerror})", where=path) from error


@contextmanager
def located(where: object) -> Iterator[None]:
    """Name the file in errors about what stands in it."""
    try:
        yield
    except ModelFileError as error:
        error.where = f"{where}: {error.where}" if error.where else where
        raise


def shortest(value: Any) -> float:
    """The float32 of a file as the shortest decimal that means it, as text files have it.

    >>> shortest(np.float32(0.0001)), float(np.float32(0.0001))
    (0.0001, 9.999999747378752e-05)
    """
    return float(str(np.float32(value)))


def decode(data: Buffer, message: str) -> dict[str, Any]:
    """Read a message.

    Args:
        data: all of it.
        message: its name in the schema.

    Raises:
        ModelFileError: truncated, damaged, or something else altogether; says the field and the byte.
    """
    return _decode(memoryview(data), 0, len(data), message)


def _decode(data: memoryview, start: int, stop: int, message: str) -> dict[str, Any]:
    """The message in data[start:stop]."""
    by_number = {field.number: (name, field) for name, field in MESSAGES[message].items()}
    made: dict[str, Any] = {}
    at = start
    while at < stop:
        tag_at = at
        tag, at = _varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        value, at = _raw(data, at, stop, wire, f"field {number} at byte {tag_at}")
        if number not in by_number:
            if number == 0:
                raise ModelFileError(f"field 0 at byte {tag_at}: not a Caffe file, or damaged")
            continue
        name, field = by_number[number]
        where = f"{message}.{name} at byte {tag_at}"
        if field.repeated:
            made.setdefault(name, []).extend(_several(data, value, wire, field, where))
        elif field.kind in MESSAGES and name in made:  # proto2 merges
            made[name] |= _single(data, value, wire, field.kind, where)
        else:
            made[name] = _single(data, value, wire, field.kind, where)
    return {name: _join(value, MESSAGES[message][name]) for name, value in made.items()}


def _varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven in a byte; and where it ends."""
    value = shift = 0
    begin = at
    while True:
        if at >= stop:
            raise ModelFileError(f"a number at byte {begin} runs past the end ({stop}): truncated file")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift > 63:
            raise ModelFileError(f"a number at byte {begin} has more than 64 bits: not a Caffe file, or damaged")


def _raw(data: memoryview, at: int, stop: int, wire: int, where: str) -> tuple[Any, int]:
    """A number, or the (start, stop) of bytes; and where the field ends."""
    if wire == _VARINT:
        return _varint(data, at, stop)
    if wire == _BYTES:
        size, at = _varint(data, at, stop)
    elif wire in (_FIXED32, _FIXED64):
        size = 4 if wire == _FIXED32 else 8
    else:
        raise ModelFileError(f"wire type {wire} ({where}): not a Caffe file, or damaged")
    if at + size > stop:
        raise ModelFileError(f"{where} runs past the end ({at + size} > {stop}): truncated file")
    return (at, at + size), at + size


def _single(data: memoryview, value: Any, wire: int, kind: str, where: str) -> Any:
    """The value of a field from what `_raw` gave."""
    wanted = _FLOATS[kind][0] if kind in _FLOATS else _BYTES if kind in MESSAGES or kind == "string" else _VARINT
    if wire != wanted:
        raise ModelFileError(f"{where}: not a Caffe file, or damaged", expected=f"wire type {wanted}", got=wire)
    if kind in MESSAGES:
        return _decode(data, value[0], value[1], kind)
    if kind == "string":
        try:
            return str(data[slice(*value)], "utf-8")
        except UnicodeDecodeError as error:
            raise ModelFileError(f"{where} is no text: not a Caffe file, or damaged") from error
    if kind in _FLOATS:
        number = struct.unpack("<f" if kind == "float" else "<d", data[slice(*value)])[0]
        return shortest(number) if kind == "float" else number
    return _of_varint(value, kind)


def _of_varint(value: int, kind: str) -> Any:
    """A varint as what it means."""
    if kind == "bool":
        return bool(value)
    signed = value - (1 << 64) if value >> 63 and kind != "uint" else value
    if kind in ENUMS:
        return next((name for name, number in ENUMS[kind].items() if number == signed), signed)
    return signed


def _several(data: memoryview, value: Any, wire: int, field: Field, where: str) -> list[Any]:
    """Elements of a repeated field: one, or a packed run; a run of floats is one array."""
    if wire == _BYTES and field.kind in _FLOATS:
        start, stop = value
        dtype = np.dtype(_FLOATS[field.kind][1])
        if (stop - start) % dtype.itemsize:
            raise ModelFileError(f"{where}: length of a run of numbers", expected=f"a multiple of {dtype.itemsize}")
        return [np.frombuffer(data[start:stop], dtype=dtype)]
    if wire == _BYTES and field.kind not in MESSAGES and field.kind != "string":
        start, stop = value
        numbers = []
        while start < stop:
            number, start = _varint(data, start, stop)
            numbers.append(_of_varint(number, field.kind))
        return numbers
    return [_single(data, value, wire, field.kind, where)]


def _join(value: Any, field: Field) -> Any:
    """Runs and single floats of one field together: an array where the schema packs them, else a list."""
    if not field.repeated or field.kind not in _FLOATS:
        return value
    dtype = np.dtype(_FLOATS[field.kind][1])
    if field.packed:
        if len(value) == 1 and isinstance(value[0], np.ndarray):
            return value[0]
        return np.concatenate([np.atleast_1d(np.asarray(one, dtype=dtype)) for one in value])
    return [one for part in value for one in (map(shortest, part) if isinstance(part, np.ndarray) else [part])]


def encode(value: Mapping[str, Any], message: str) -> bytes:
    """Write a message, fields by number, as protobuf does.

    Args:
        value: as `decode` gives it.
        message: its name in the schema.

    Raises:
        ModelFileError: a field the schema does not have, or a value that is not of its kind.
    """
    return b"".join(encode_parts(value, message))


def encode_parts(value: Mapping[str, Any], message: str) -> list[Any]:
    """`encode` in pieces, whose join it is: arrays of weights are passed on as they are, not copied."""
    fields = MESSAGES[message]
    unknown = value.keys() - fields.keys()
    if unknown:
        raise ModelFileError("a field that cannot be written", got=f"{message}.{min(unknown)}")
    parts: list[Any] = []
    for name in sorted(value, key=lambda name: fields[name].number):
        try:
            parts += _field_parts(value[name], fields[name])
        except (TypeError, ValueError, KeyError, struct.error) as error:
            raise ModelFileError(
                "a value that cannot be written", got=repr(error), where=f"{message}.{name}"
            ) from error
    return parts


def _field_parts(value: Any, field: Field) -> list[Any]:
    """One field with its tag or tags."""
    if not field.repeated:
        return _tagged(value, field)
    if not field.packed:
        return [part for one in value for part in _tagged(one, field)]
    if not len(value):
        return []
    if field.kind in _FLOATS:
        run: Any = np.ascontiguousarray(value, dtype=_FLOATS[field.kind][1]).data.cast("B")
    else:
        run = b"".join(_to_varint(_number(one, field.kind)) for one in value)
    return [_tag(field, _BYTES), _to_varint(len(run)), run]


def _tagged(value: Any, field: Field) -> list[Any]:
    """One element with its tag."""
    kind = field.kind
    if kind in MESSAGES:
        parts = encode_parts(value, kind)
        return [_tag(field, _BYTES), _to_varint(sum(map(len, parts))), *parts]
    if kind == "string":
        data = value.encode()
        return [_tag(field, _BYTES), _to_varint(len(data)), data]
    if kind in _FLOATS:
        wire, _ = _FLOATS[kind]
        return [_tag(field, wire), struct.pack("<f" if kind == "float" else "<d", value)]
    return [_tag(field, _VARINT), _to_varint(_number(value, kind))]


def _number(value: Any, kind: str) -> int:
    """An integer, bool or enum as a varint holds it."""
    number = ENUMS[kind][value] if kind in ENUMS and isinstance(value, str) else int(value)
    return number & 0xFFFF_FFFF_FFFF_FFFF


def _tag(field: Field, wire: int) -> bytes:
    return _to_varint(field.number << 3 | wire)


def _to_varint(value: int) -> bytes:
    """Seven bits in a byte, the lowest first.

    >>> _to_varint(300).hex()
    'ac02'
    """
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)
