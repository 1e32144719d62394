"""What state files say to the index of labels, and how two versions of one are merged: see storage.labels, storage.mergers."""

from __future__ import annotations

import re

import msgspec

from storage.labels import Label, Marker
from storage.treants.state import STATE_NAME, State, decode_state, encode_state, merged

_KIND, _TAG = ("kind",), ("tag",)
_HDF5 = b"\x89HDF"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


def kept_of(data: bytes) -> bytes:
    """A state file's state in fewer bytes. DamagedState, NewerFormat."""
    state = decode_state(data)
    try:
        return _encoder.encode(state)
    except (OverflowError, UnicodeEncodeError):  # numbers and texts that MessagePack has not
        return encode_state(state)


def state_of(kept: bytes) -> State:
    """The state of which `kept_of` gave that."""
    return decode_state(kept) if kept.startswith(_HDF5) else _decoder.decode(kept)


def labels_of(kept: bytes) -> list[Label]:
    """Tags under `("tag",)`, the value of each category under `("category", name)`, the kind under `("kind",)`."""
    state = state_of(kept)
    found: list[Label] = [(_KIND, state.kind)]
    found += [(_TAG, tag) for tag in state.tags]
    found += [(("category", name), value) for name, value in state.categories.items()]
    return found


TREANTS = Marker("treant", re.compile(STATE_NAME.pattern.encode()), kept_of, state_of, labels_of)
"""Directories with a state file."""


def merge_files(base: bytes | None, ours: bytes, theirs: bytes) -> bytes | None:
    """The state file with what both sides changed; None where they contradict each other. DamagedState, NewerFormat."""
    before = None if base is None else decode_state(base)
    both = merged(before, decode_state(ours), decode_state(theirs))
    return None if both is None else encode_state(both)
