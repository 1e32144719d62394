"""Values that are no arrays: a str is a .txt file in UTF-8, JSON a .json file, bytes the file itself."""

from __future__ import annotations

import codecs
import json
from typing import Any, Protocol

import msgspec

from storage.errors import InvalidSample, SchemaMismatch
from storage.model.format import MALFORMED

BLOCK = 1 << 20
"""Bytes of a text that are checked at once."""


class Readable(Protocol):
    """The contents of a file."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, size: int) -> bytes | bytearray | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""


def encode_value(holds: str, value: object, what: str) -> bytes:
    """The file form of a str, of bytes or of what JSON can say. SchemaMismatch for anything that would not read back equal."""
    if holds == "json":
        return _json_text(value, what)
    if holds == "bytes" and isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if holds != "str" or not isinstance(value, str):
        found = type(value).__name__
        raise SchemaMismatch(f"{what} is of type {found}, the dataset holds {holds}", expected=holds, found=found)
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise SchemaMismatch(f"{what} is not valid Unicode: {error}", expected="str", found="surrogates") from error


def decode_value(holds: str, payload: bytes | memoryview) -> Any:
    """The value whose file form that is. InvalidSample."""
    try:
        if holds == "bytes":
            return bytes(payload)
        text = str(payload, "utf-8")
        return text if holds == "str" else json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidSample(f"stored bytes are no {holds}: {error}", expected=holds) from error


def check_file(holds: str, source: Readable, what: str) -> None:
    """InvalidSample, with the reason, unless the contents are the file form of such a value."""
    try:
        if holds == "json":
            data = source.read(0, source.size)
            if not is_json(data):  # ten times faster, and takes nothing that the other does not take
                json.loads(str(data, "utf-8"), parse_constant=_no_number)
        elif holds == "str":
            decoder = codecs.getincrementaldecoder("utf-8")()
            for at in range(0, source.size, BLOCK):
                decoder.decode(bytes(source.read(at, BLOCK)), final=at + BLOCK >= source.size)
    except (ValueError, RecursionError) as error:
        name = "JSON" if holds == "json" else "text in UTF-8"
        raise InvalidSample(f"{what} is not {name}: {str(error)[:200]}", expected=holds) from error


def is_json(data: bytes | bytearray | memoryview) -> bool:
    """Whether that is JSON, told quickly; False may also mean that `check_file` has to look."""
    try:
        _decode_json(data)
    except MALFORMED:
        return False
    return True


_decode_json = msgspec.json.Decoder().decode


def _json_text(value: object, what: str) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        same = json.loads(text) == value
        encoded = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaMismatch(f"{what} cannot be written as JSON: {error}", expected="json") from error
    if not same:
        raise SchemaMismatch(
            f"{what} would not read back the same from JSON: use lists rather than tuples, and str as keys",
            expected="json",
        )
    return encoded


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
