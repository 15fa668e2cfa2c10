"""Protocol buffers' text format, as Caffe's `.prototxt` files have it: text <-> dicts by the schema.

Reads `a: 1`, `a { }`, `a: { }`, `a < >`, `a: [1, 2]`, separators, `#` comments, adjacent strings. Fields the schema
does not have are skipped.

Format: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from examples.caffe.schema import ENUMS, MESSAGES, Field
from examples.errors import ModelFileError

MAX_CHARACTERS = 4 << 20
"""Of a text; GoogLeNet's has 60,000."""
MAX_DEPTH = 32
"""Messages within messages; Caffe's own have four."""
_TOKEN = re.compile(
    r"""(?P<space>[\s]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<word>[-+]?[A-Za-z0-9_.][A-Za-z0-9_.+-]*)
      | (?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(rb"""\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|([abfnrtv\\'"?]))""")
_PLAIN = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11, b"\\": 92, b"'": 39, b'"': 34, b"?": 63}


def parse(text: str, message: str = "NetParameter") -> dict[str, Any]:
    """Read a message.

    Args:
        text: of the file.
        message: its name in the schema.

    Raises:
        ModelFileError: not of this format; says the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ModelFileError("a prototxt longer than any network's", expected=f"<= {MAX_CHARACTERS}", got=len(text))
    return _Reader(text).message(message, None, 0)


class _Reader:
    """Tokens of a text, and what they make."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        self.at = 0
        place, line = 0, 1
        while place < len(text):
            found = _TOKEN.match(text, place)
            if not found:
                raise ModelFileError("not a prototxt", got=repr(text[place : place + 20]), where=f"line {line}")
            if found.lastgroup != "space":
                self.tokens.append((str(found.lastgroup), found.group(), line))
            line += found.group().count("\n")
            place = found.end()
        self.last_line = line

    def fail(self, expected: str) -> ModelFileError:
        """What to raise at this token."""
        _, got, line = self.peek()
        return ModelFileError("not a prototxt", expected=expected, got=got or "the end", where=f"line {line}")

    def peek(self) -> tuple[str, str, int]:
        """The next token."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "", self.last_line)

    def take(self, *marks: str) -> bool:
        """Pass one of these marks, if it comes next."""
        kind, token, _ = self.peek()
        if kind == "mark" and token in marks:
            self.at += 1
            return True
        return False

    def message(self, name: str | None, closing: str | None, depth: int) -> dict[str, Any]:
        """Fields up to the closing mark, or the end; `name` None: of a message that is not known, skipped."""
        if depth > MAX_DEPTH:
            raise self.fail(f"at most {MAX_DEPTH} messages within each other")
        fields = MESSAGES[name] if name else {}
        made: dict[str, Any] = {}
        while not (closing and self.take(closing)):
            kind, token, _ = self.peek()
            if kind == "end" and closing is None:
                break
            if kind != "word" or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", token):
                raise self.fail("the name of a field")
            self.at += 1
            field = fields.get(token)
            values = self.values(field, depth)
            if field is None:
                continue
            if field.repeated:
                made.setdefault(token, []).extend(values)
            elif len(values) != 1:
                raise ModelFileError("several values of a field that takes one", got=token)
            elif field.kind in MESSAGES and token in made:
                made[token] |= values[0]
            else:
                made[token] = values[0]
            while self.take(",", ";"):
                pass
        for key, value in made.items():
            if fields[key].packed and fields[key].kind in ("float", "double"):
                made[key] = np.array(value, dtype="<f4" if fields[key].kind == "float" else "<f8")
        return made

    def values(self, field: Field | None, depth: int) -> list[Any]:
        """What stands behind a field's name."""
        colon = self.take(":")
        if not self.take("["):
            return [self.value(field, depth, colon)]
        made: list[Any] = []
        while not self.take("]"):
            if made and not self.take(","):
                raise self.fail(", or ]")
            made.append(self.value(field, depth, colon))
        return made

    def value(self, field: Field | None, depth: int, colon: bool) -> Any:
        """One value of a field."""
        for opening, closing in ("{}", "<>"):
            if self.take(opening):
                if field is not None and field.kind not in MESSAGES:
                    raise ModelFileError(
                        "not a prototxt: a message where a value belongs", where=f"line {self.peek()[2]}"
                    )
                return self.message(field.kind if field else None, closing, depth + 1)
        kind, token, line = self.peek()
        if not colon or kind not in ("string", "word") or (field is not None and field.kind in MESSAGES):
            raise self.fail("a value")
        self.at += 1
        if kind == "string":
            pieces = [token]
            while self.peek()[0] == "string":
                pieces.append(self.peek()[1])
                self.at += 1
            token = "".join(_unescape(piece[1:-1], line) for piece in pieces)
        if field is None:
            return token
        return _scalar(token, field.kind, quoted=kind == "string", line=line)


def _unescape(text: str, line: int) -> str:
    """A string's characters."""

    def one(found: re.Match[bytes]) -> bytes:
        """An escape's byte."""
        octal, hexadecimal, plain = found.groups()
        return bytes([int(octal, 8) & 255 if octal else int(hexadecimal, 16) if hexadecimal else _PLAIN[plain]])

    try:
        return _ESCAPE.sub(one, text.encode()).decode()
    except UnicodeDecodeError as error:
        raise ModelFileError("a string that is no text", where=f"line {line}") from error


def _scalar(token: str, kind: str, *, quoted: bool, line: int) -> Any:
    """A token as a value of its kind."""
    try:
        if quoted != (kind == "string"):
            raise ValueError(kind)
        if kind == "string":
            return token
        if kind == "bool":
            return _BOOLS[token]
        if kind in ENUMS:
            return token if token in ENUMS[kind] else _enum_number(token, kind)
        if kind in ("int", "uint"):
            value = int(token, 8) if re.fullmatch("-?0[0-7]+", token) else int(token, 0)
            if not (0 if kind == "uint" else -(1 << 63)) <= value < 1 << (64 if kind == "uint" else 63):
                raise ValueError(kind)
            return value
        return float(token.rstrip("fF") if token[-1] in "fF" and token.strip("+-")[0] not in "iI" else token)
    except (ValueError, KeyError) as error:
        raise ModelFileError("value in a prototxt", expected=kind, got=repr(token), where=f"line {line}") from error


_BOOLS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}


def _enum_number(token: str, kind: str) -> Any:
    """An enum given by number: its name where it has one."""
    number = int(token)
    return next((name for name, value in ENUMS[kind].items() if value == number), number)


def write(value: Mapping[str, Any], message: str = "NetParameter", indent: str = "") -> str:
    """Write a message, fields in the order of the dict, two blanks for each depth.

    Args:
        value: as `parse` gives it.
        message: its name in the schema.
        indent: put before each line.

    Raises:
        ModelFileError: a field the schema does not have.
    """
    lines = []
    for name, given in value.items():
        field = MESSAGES[message].get(name)
        if field is None:
            raise ModelFileError("a field that cannot be written", got=f"{message}.{name}")
        for one in given if field.repeated else [given]:
            if field.kind in MESSAGES:
                inner = write(one, field.kind, indent + "  ")
                lines.append(f"{indent}{name} {{\n{inner}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_text(one, field.kind)}\n")
    return "".join(lines)


def _text(value: Any, kind: str) -> str:
    """A scalar as text."""
    if kind == "string":
        return '"' + "".join(_escaped(character) for character in value) + '"'
    if kind == "bool":
        return "true" if value else "false"
    if kind == "float" and isinstance(value, np.floating):
        return str(np.float32(value))
    return str(value)


def _escaped(character: str) -> str:
    """A character inside quotes.

    >>> _escaped('"'), _escaped("a")
    ('\\\\"', 'a')
    """
    if character in '"\\':
        return "\\" + character
    if character == "\n":
        return "\\n"
    return character if character.isprintable() else "".join(f"\\{byte:03o}" for byte in character.encode())
