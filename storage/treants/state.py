"""The state of a Treant or a Group: what its state file says. Values and pure functions; FORMAT.md describes the bytes.

The file is a real HDF5 file, for the tools that people have. What stands around the JSON text in it depends on the
text's length alone: it is made once for each length by h5py, so that writing or reading a state takes microseconds.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import h5py
import msgspec

from storage.errors import DamagedState, NewerFormat

Scalar = bool | int | float | str
"""What the value of a category may be."""

TREANT = "Treant"
GROUP = "Group"
STATE_NAME = re.compile(
    rf"(?P<kind>{TREANT}|{GROUP})\.(?P<uuid>[0-9a-f]{{8}}-[0-9a-f]{{4}}-4[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}})\.h5"
)
"""The whole name of a state file; to be used with `fullmatch`."""

FORMAT = 1
STEP = 64
"""Texts are padded with spaces to a multiple of this, so that there are few lengths."""

_DATASET = b"state"
# What h5py raises for files that are damaged.
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)

T = TypeVar("T")


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A Treant that a Group refers to: `path` is where it was last seen, from the top of the Group's tree, or an absolute path
    of the file system where it is elsewhere.
    """

    uuid: str
    kind: str
    path: str


class State(msgspec.Struct, frozen=True):
    """Who a Treant is and how it is labelled. `tags` are sorted and each there once; only Groups have `members`."""

    uuid: str
    kind: str = TREANT
    tags: tuple[str, ...] = ()
    categories: dict[str, Scalar] = {}
    members: tuple[Member, ...] = ()

    @property
    def file_name(self) -> str:
        """The name of its state file."""
        return f"{self.kind}.{self.uuid}.h5"


class _Stored(State, frozen=True):
    """A state as its JSON text has it."""

    format: int = FORMAT


_JSON = json.JSONEncoder(separators=(",", ":"))
_FAST = msgspec.json.Decoder(_Stored)


def encode_state(state: State) -> bytes:
    """The state file's bytes: the same for equal states."""
    fields = {
        "format": FORMAT,
        "kind": state.kind,
        "uuid": state.uuid,
        "tags": state.tags,
        "categories": state.categories,
    }
    if state.kind == GROUP:
        fields["members"] = [(member.uuid, member.kind, member.path) for member in state.members]
    text = _JSON.encode(fields).encode("ascii")
    length = -(-len(text) // STEP) * STEP
    return _around(length) + text.ljust(length)


def decode_state(data: bytes, where: str = "") -> State:
    """What a state file says, whoever wrote it. DamagedState naming the file (`where`) and the problem; NewerFormat."""
    try:
        stored = _stored(_text(data))
    except _UNREADABLE as error:  # what json and msgspec raise are ValueErrors
        raise DamagedState(str(error), where=where) from error
    if stored.format > FORMAT:
        raise NewerFormat(f"{where or 'the state file'} was written by a newer arborfs: format {stored.format}")
    if not STATE_NAME.fullmatch(stored.file_name):
        raise DamagedState(f"{stored.kind!r} with uuid {stored.uuid!r} is neither a Treant nor a Group", where=where)
    return State(stored.uuid, stored.kind, tuple(sorted(set(stored.tags))), stored.categories, stored.members)


def _stored(text: bytes) -> _Stored:
    try:
        return _FAST.decode(text)
    except msgspec.DecodeError:  # NaN, numbers beyond 64 bits, and what is wrong
        return msgspec.convert(json.loads(text), _Stored)


def _text(data: bytes) -> bytes:
    """The JSON text in an HDF5 file."""
    length = len(data) - len(_around(STEP))
    if length > 0 and length % STEP == 0 and data.startswith(_around(length)):
        return data[-length:]
    with h5py.File(io.BytesIO(data), "r") as file:
        found = file[_DATASET.decode()]
        if not isinstance(found, h5py.Dataset) or found.shape != ():
            raise ValueError("it holds no single text `state`")
        value = found[()]
    if not isinstance(value, bytes):
        raise TypeError(f"`state` is {found.dtype}, not text")
    return bytes(value)


@lru_cache(512)
def _around(length: int) -> bytes:
    """What stands before the text of that many bytes; nothing stands behind it."""
    memory = io.BytesIO()
    # Version 1.8's structures: the shortest that every HDF5 library since 2008 reads.
    with h5py.File(memory, "w", libver=("v108", "v108")) as file:
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(length)
        kind.set_strpad(h5py.h5t.STR_SPACEPAD)
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)
        dataset = h5py.h5d.create(file.id, _DATASET, kind, h5py.h5s.create(h5py.h5s.SCALAR), layout)
        offset = int(dataset.get_offset())
    return memory.getvalue()[:offset]


# Merging


def merged(base: State | None, ours: State, theirs: State) -> State | None:
    """Both sides' changes since `base`; None where they contradict each other: another Treant, or one category with two values.

    Tags, categories and members that one side added or removed are added or removed. `base` is None where both are new.
    """
    if (ours.uuid, ours.kind) != (theirs.uuid, theirs.kind):
        return None
    start = base if base is not None else State(ours.uuid, ours.kind)
    categories = _merged_values(start.categories, ours.categories, theirs.categories)
    if categories is None:
        return None
    tags = _merged_names(start.tags, ours.tags, theirs.tags)
    return State(ours.uuid, ours.kind, tuple(sorted(tags)), categories, _merged_members(start, ours, theirs))


def _merged_names(base: Iterable[str], ours: Iterable[str], theirs: Iterable[str]) -> set[str]:
    before, mine, yours = set(base), set(ours), set(theirs)
    return (mine & yours) | ((mine | yours) - before)


def _merged_values(
    base: Mapping[str, Scalar], ours: Mapping[str, Scalar], theirs: Mapping[str, Scalar]
) -> dict[str, Scalar] | None:
    result: dict[str, Scalar] = {}
    for key in dict.fromkeys((*ours, *theirs)):
        before, mine, yours = _known(base, key), _known(ours, key), _known(theirs, key)
        if mine != yours and before not in (mine, yours):
            return None
        if chosen := yours if mine == before else mine:
            result[key] = chosen[1]
    return result


def _known(values: Mapping[str, Scalar], key: str) -> tuple[str, Any] | None:
    """A value that is told apart from any other: 1, 1.0 and True are three, and nan is itself."""
    if key not in values:
        return None
    value = values[key]
    return f"{type(value).__name__} {value!r}", value


def _merged_members(base: State, ours: State, theirs: State) -> tuple[Member, ...]:
    """In the order of ours, then theirs; where a member has moved on one side, that is where it is."""
    before = {member.uuid: member for member in base.members}
    mine = {member.uuid: member for member in ours.members}
    yours = {member.uuid: member for member in theirs.members}
    kept = _merged_names(before, mine, yours)
    order = [uuid for uuid in dict.fromkeys((*mine, *yours)) if uuid in kept]
    return tuple(
        yours[uuid] if uuid not in mine or (uuid in yours and mine[uuid] == before.get(uuid)) else mine[uuid]
        for uuid in order
    )
