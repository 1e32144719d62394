"""Extended attributes: `user.*` as set, and those that arborfs derives from what it stores. Pure.

`security.*` and `system.*` are refused with ENOTSUP and not with ENODATA: programs such as ls then ask once in a run
instead of once for each file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fusefs.nodes import NoAttribute, NoRoom, NoXattrs
from storage.model.digest import Digest, blake
from storage.model.records import Entry, Kind, Schema
from storage.stores.contents import Content

USER = b"user."
DERIVED = b"user.arborfs."
DIGEST = DERIVED + b"digest"
DTYPE = DERIVED + b"dtype"
SHAPE = DERIVED + b"shape"
SCHEMA = DERIVED + b"schema"
COMMIT = DERIVED + b"commit"
MAX_VALUE = 65536
MAX_NAMES = 65536 - 256
"""What listxattr(2) can give out, and some room for the derived ones."""
MAX_VALUES = 1 << 20
"""All attributes of a file are written anew with each change of one."""


def check_name(name: bytes) -> None:
    """NoXattrs unless the name is in the user's namespace."""
    if not name.startswith(USER):
        raise NoXattrs("only extended attributes in the namespace user. are kept")


def kept_with(
    pairs: Iterable[tuple[bytes, bytes]], name: bytes, value: bytes | None
) -> tuple[tuple[bytes, bytes], ...]:
    """The attributes of a file with one more, one replaced, or (None) one less. NoAttribute, NoRoom."""
    kept = dict(pairs)
    if value is None:
        if kept.pop(name, None) is None:
            raise NoAttribute(f"there is no attribute {name!r}")
    else:
        kept[name] = value
        if len(value) > MAX_VALUE or sum(len(one) + 1 for one in kept) > MAX_NAMES:
            raise NoRoom(f"a file has no room for attributes with more than {MAX_NAMES} bytes of names")
        if sum(map(len, kept.values())) > MAX_VALUES:
            raise NoRoom(f"a file has no room for attributes with more than {MAX_VALUES} bytes of values")
    return tuple(sorted(kept.items()))


def is_derived(name: bytes) -> bool:
    """Whether arborfs makes the attribute: setting it is accepted and ignored, so that `cp -a` between trees works."""
    return name.startswith(DERIVED)


def names(entry: Entry, dataset: Schema | None, commit: Digest | None) -> list[bytes]:
    """The attributes of an entry in a directory with that schema, if it has one: those that `value` gives, no others."""
    if entry.kind is Kind.SYMLINK:
        return []  # The kernel gives out nothing of user. for links.
    found = [name for name, _ in entry.attributes.xattrs]
    if entry.kind is Kind.SAMPLE and dataset is not None:
        found += [DTYPE, SHAPE] if dataset.holds == "array" else [DTYPE]
    if entry.schema is not None:
        found += [DTYPE, SHAPE, SCHEMA] if entry.schema.holds == "array" else [DTYPE, SCHEMA]
    if entry.kind is not Kind.STAGED:
        found.append(DIGEST)
    if commit is not None:
        found.append(COMMIT)
    return found


def value(
    name: bytes,
    entry: Entry,
    dataset: Schema | None,
    content: Callable[[], Content] | None,
    commit: Digest | None,
) -> bytes:
    """The value of an entry's attribute. NoAttribute, NoXattrs."""
    check_name(name)
    if not is_derived(name):
        for known, kept in entry.attributes.xattrs:
            if known == name:
                return kept
        raise NoAttribute(f"there is no attribute {name!r}")
    text = _derived(name, entry, dataset, content, commit)
    if text is None:
        raise NoAttribute(f"there is no attribute {name!r}")
    return text.encode()


def _derived(
    name: bytes,
    entry: Entry,
    dataset: Schema | None,
    content: Callable[[], Content] | None,
    commit: Digest | None,
) -> str | None:
    schema = entry.schema or (dataset if entry.kind is Kind.SAMPLE else None)
    if name == DTYPE:
        return None if schema is None else schema.dtype if schema.holds == "array" else schema.holds
    if name == SHAPE:
        if schema is not None and schema.holds != "array":
            return None
        shape = entry.attributes.shape or (schema.shape if schema else None)
        return "x".join(map(str, shape)) if shape is not None else None
    if name == SCHEMA:
        return entry.schema.hash if entry.schema else None
    if name == COMMIT:
        return commit.hex() if commit else None
    if name == DIGEST:
        if entry.kind is Kind.DIRECTORY:
            return entry.root.hex()
        return content_digest(content()).hex() if content is not None else None
    return None


def content_digest(content: Content) -> Digest:
    """What tells contents apart: the BLAKE3 digest of a small file's payload; of a long one, that of its chunks' digests."""
    if not content.chunks:
        return blake(content.payload())
    if len(content.chunks) == 1:
        return content.chunks[0].digest
    return blake(b"".join(chunk.digest for chunk in content.chunks))
