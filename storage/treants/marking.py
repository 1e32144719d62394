"""What state files say to the index of labels: see storage.labels."""

from __future__ import annotations

import re

import msgspec

from storage.labels import Label, Marker
from storage.treants.state import STATE_NAME, State, decode_state, encode_state

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
