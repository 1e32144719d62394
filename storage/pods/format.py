"""What a POD is made of: its directory, names of files for keys, the order of keys, values as JSON.

A POD is a directory with a schema of kind `json`; a tracker's directory is marked (see storage.model.tasks, which also reads
how it stands with a task). Each key is a file `<name>.json`. The name of a str is the str itself, where that can be. Else,
and for ints and tuples, it is `=` and the key as JSON, a tuple as a list: `=5`, `=["a",[1]]`, `="a\\u002fb"`, `/` always
written as `\\u002f`. So every key has one name and every name is that of one key: a str that looks like the name of
another key is written as JSON, too (`="=5"`). No blank stands between the parts.

The extended attribute `user.pod.born` of a file is when its key was first inserted: decimal digits, ns since 1970, of which
a process never gives two alike to one POD. Keys are in that order; those without one are as old as their files are, by mtime,
and what is written over one of these keeps its place by getting that time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec

from storage.errors import InvalidName, NotJSON
from storage.model.format import MALFORMED
from storage.model.names import MAX_NAME

Key = str | int | tuple["Key", ...]
JSON = Any
"""What JSON can say: None, bool, int, float, str, list and dict of such."""

SUFFIX = ".json"
BORN = "pod.born"
"""The extended attribute, without `user.`."""

_MARK = "="
_LONGEST = MAX_NAME - len(SUFFIX)


def file_name(key: object) -> str:
    """The name of a key's file. InvalidName (a ValueError) for what is no key, and for one whose name would be too long."""
    if (
        type(key) is str
        and key.isascii()
        and len(key) <= _LONGEST
        and key[:1] != _MARK
        and "/" not in key
        and "\0" not in key
    ):
        return key + SUFFIX
    checked = _checked(key)
    name = checked if isinstance(checked, str) and _is_name(checked) else _MARK + _text(checked)
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError as error:
        raise InvalidName(f"{key!r} cannot be a key: it is not valid Unicode") from error
    if length > _LONGEST:
        raise InvalidName(f"a key's file name has at most {_LONGEST} bytes, that of {name[:32]!r}… has {length}")
    return name + SUFFIX


def key_of(name: str) -> Key:
    """The key whose file has that name, which ends with SUFFIX."""
    return _decoded(name[: -len(SUFFIX)])


def _is_name(key: str) -> bool:
    """Whether a str is the name of its own file."""
    return "/" not in key and "\0" not in key and _decoded(key) == key


def _decoded(stem: str) -> Key:
    if stem[:1] != _MARK:
        return stem
    try:
        key = _tupled(json.loads(stem[1:]))
    except (ValueError, RecursionError):
        return stem
    # Only what is written as this module writes it is the name of another key than itself.
    written = _text(key) == stem[1:] and not (isinstance(key, str) and _is_name(key))
    return key if written else stem


def _checked(key: object) -> Key:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    if isinstance(key, tuple):
        return tuple(_checked(part) for part in key)
    raise InvalidName(f"{key!r} cannot be a key: use a str, an int, or a tuple of these")


def _text(key: Key) -> str:
    return json.dumps(key, ensure_ascii=False, separators=(",", ":")).replace("/", "\\u002f")


def _tupled(value: JSON) -> Key:
    """JSON as a key. ValueError for what is none."""
    if type(value) in (str, int):
        key: Key = value
        return key
    if type(value) is not list:
        raise ValueError("no key")
    return tuple(map(_tupled, value))


# The order of keys


class Births:
    """Gives out times of birth. Not thread-safe."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """Nanoseconds since 1970, more each time."""
        now = time.time_ns()
        self._last = last = now if now > self._last else self._last + 1
        return last


def born(value: bytes | None, mtime: int) -> int:
    """When a key was first inserted: `value` is what its file's attribute BORN holds."""
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else mtime


# Values

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_SCALARS = frozenset((str, int, bool, type(None)))


def encode_value(value: object, key: Key) -> bytes:
    """A value as JSON, tuples as lists, keys of dicts as str. NotJSON (a TypeError) for what JSON cannot hold."""
    try:
        if type(value) in _SCALARS or _is_plain(value):
            return _encode(value)
    except (UnicodeEncodeError, RecursionError):
        pass  # told with its place below
    try:
        return _encode(_plain(value))
    except _NotPlain as found:
        place = "".join(f"[{step!r}]" for step in reversed(found.steps))
        raise NotJSON(f"{key!r}: {found.why}" + (f" at {place}" if place else ""), key=key, place=place) from None
    except RecursionError:
        raise NotJSON(f"{key!r}: the value is nested too deeply, or holds itself", key=key, place="") from None


def decode_value(data: bytes | memoryview) -> JSON:
    """The value whose JSON that is. ValueError."""
    try:
        return _decode(data)
    except MALFORMED as error:
        raise ValueError(str(error)) from error


def _is_plain(value: object) -> bool:
    """Whether a value is what reading its JSON gives, but for tuples."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or (type(item) not in _SCALARS and not _is_plain(item)):
                return False
        return True
    if kind is list or kind is tuple:
        return all(type(item) in _SCALARS or _is_plain(item) for item in value)  # type: ignore[attr-defined]
    return kind in _SCALARS or (kind is float and isfinite(value))  # type: ignore[arg-type]


class _NotPlain(Exception):
    def __init__(self, why: str) -> None:
        self.why = why
        self.steps: list[object] = []


def _plain(value: object) -> JSON:
    """The value with everything in it as JSON has it. _NotPlain, with the way to what cannot be."""
    if isinstance(value, str):
        return _unicode(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not isfinite(value):
            raise _NotPlain(f"JSON has no {value}")
        return float(value)
    if isinstance(value, dict):
        return _plain_dict(value)
    if isinstance(value, list | tuple):
        return [_within(step, _plain, item) for step, item in enumerate(value)]
    raise _NotPlain(f"JSON cannot hold a {type(value).__name__}")


def _plain_dict(value: dict[Any, Any]) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    for key, item in value.items():
        text = _within(key, _key_text, key)
        if text in found:
            raise _NotPlain(f"two keys of a dict would both become {text!r}")
        found[text] = _within(key, _plain, item)
    return found


def _key_text(key: object) -> str:
    """A dict's key as the json module writes it."""
    if isinstance(key, str):
        return _unicode(key)
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(_plain(key))
    raise _NotPlain(f"JSON cannot hold a {type(key).__name__} as the key of a dict")


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotPlain("a text is not valid Unicode") from None
    return str(text)


def _within(step: object, convert: Callable[[Any], Any], value: object) -> Any:
    try:
        return convert(value)
    except _NotPlain as found:
        found.steps.append(step)
        raise
