"""Names: of entries, samples, branches and tags."""

from __future__ import annotations

import re

from storage.errors import InvalidName

Path = tuple[bytes, ...]

CONTROL = b".arborfs"
"""The reserved name: control files in a mount, the repository's folder, metadata in a tree."""

MAX_NAME = 255
MAX_KEY = 240

_TOO_LONG = 10**MAX_KEY

_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_SLASH, _NUL = 0x2F, 0x00


def check_name(name: bytes) -> bytes:
    """`name` if it can name an entry of a directory: 1 to 255 bytes, any but `/` and NUL; else InvalidName."""
    if not name or name in (b".", b".."):
        raise InvalidName(f"{name!r} cannot name an entry: a name is 1 to {MAX_NAME} bytes and not . or ..")
    if len(name) > MAX_NAME:
        raise InvalidName(f"a name has at most {MAX_NAME} bytes, {name[:32]!r}… has {len(name)}")
    if _SLASH in name or _NUL in name:
        raise InvalidName(f"{name!r} cannot name an entry: it holds / or NUL")
    if name == CONTROL:
        raise InvalidName(f"{CONTROL.decode()} is reserved for arborfs itself")
    return name


def check_key(key: object, what: str = "Sample name") -> str:
    """A sample's key as text: a str of at most 240 UTF-8 bytes without `/` and NUL, or a non-negative int of as many digits.

    An int is taken as its decimal digits. bool, float, the empty string, `.`, `..` and `.arborfs` raise InvalidName.
    Its text calls the key `what`.
    """
    if type(key) is int and key >= 0:
        if key >= _TOO_LONG:
            raise InvalidName(f"{what} of more than {MAX_KEY} digits is not suitable.")
        return str(key)
    if not isinstance(key, str):
        raise InvalidName(f"{what} `{key!r}` is not suitable: use a str or a non-negative int.")
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise InvalidName(f"{what} `{key!r}` is not suitable: it is not valid Unicode.") from error
    if not encoded or len(encoded) > MAX_KEY or "/" in key or "\0" in key or key in (".", "..", CONTROL.decode()):
        raise InvalidName(
            f"{what} `{key[:64]}` is not suitable: 1 to {MAX_KEY} bytes of UTF-8, "
            f"without / and NUL, and not ., .. or {CONTROL.decode()}."
        )
    return key


def check_ref_name(name: str) -> str:
    """`name` if it can name a branch or a tag: 1 to 64 of `A-Z a-z 0-9 . _ -`, not beginning with `.` or `-`."""
    if not isinstance(name, str) or not _REF.match(name):
        raise InvalidName(
            f"{name!r} cannot name a branch or tag: use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter, a digit or '_'"
        )
    if name == "HEAD":
        raise InvalidName("HEAD is the name of the default branch's pointer; choose another")
    return name


def path_text(path: Path) -> str:
    """A path for people: joined with `/`, undecodable bytes escaped; `.` is the root."""
    return b"/".join(path).decode("utf-8", "backslashreplace") or "."


def split_path(text: str) -> Path:
    """The path that a text names: components between `/`, empty ones left out."""
    return tuple(name for name in text.encode("utf-8", "surrogateescape").split(b"/") if name)


def meant_by(name: bytes) -> list[bytes]:
    """Names that a file may be given once it is written, told from the name that it is written under; likeliest first.

    Who replaces a file writes another one beside it before, with something around the name: `.NAME.XXXXXX` (rsync), `NAME.tmp`,
    `NAME.part`, `NAME.lock`, `NAME~`, `#NAME#`, `tmp.NAME`.
    """
    bare = name.strip(b".#~")
    parts = bare.split(b".")
    found = [bare, *(b".".join(parts[:-count]) for count in range(1, min(len(parts), 3))), b".".join(parts[1:])]
    return [each for each in dict.fromkeys(found) if each and each != name]
