"""How much room trees take, and how much of it they share."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from storage.disk.segments import RECORD_SIZE
from storage.engine import Engine
from storage.errors import Unsupported
from storage.maintenance.reachable import Reachable
from storage.model.digest import Digest
from storage.model.records import Entry, Kind
from storage.stores.contents import contents_digests
from storage.stores.objects import object_place
from storage.tree.node import EMPTY


@dataclass(frozen=True, slots=True)
class Room:
    """What a set of objects takes: how many, their bytes, and their bytes as stored, packed and with what finds them."""

    objects: int
    bytes: int
    stored: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two trees take: what only the first one needs, what only the other one needs, and what both do."""

    first: Room
    second: Room
    shared: Room


def room(engine: Engine, entry: Entry) -> Room:
    """What an entry of a commit takes in the repository, all below it included, equal contents counted once.

    A walk of its directories; sizes of contents come from the index. Small values lie in their directory's nodes: alone
    they take nothing. Unsupported for an entry that is staged.
    """
    return _room(engine, _digests(engine, entry))


def overlap(engine: Engine, first: Entry, second: Entry) -> Overlap:
    """What two entries of commits take, and how much of it they have in common: a walk of each."""
    one, other = _digests(engine, first), _digests(engine, second)
    return Overlap(_room(engine, one - other), _room(engine, other - one), _room(engine, one & other))


def _digests(engine: Engine, entry: Entry) -> set[Digest]:
    if entry.kind is Kind.STAGED or not isinstance(entry.value, bytes):
        raise Unsupported("only what is committed can be measured: commit it first")
    reachable = Reachable(engine.objects)
    if entry.kind is Kind.DIRECTORY:
        reachable.add_directories([entry.root] if entry.root != EMPTY else [])
    elif entry.kind is not Kind.SYMLINK:
        reachable.add_contents(contents_digests(engine.objects, entry.flags, entry.value))
    return reachable.digests


def _room(engine: Engine, digests: Set[Digest]) -> Room:
    index = engine.parts().index
    size = stored = 0
    with index.read() as txn:
        for digest in digests:
            row = txn.get(digest, db=index.objects)
            if row is not None:
                place, length, _ = object_place(row)
                size += length
                stored += place.length + RECORD_SIZE
    return Room(len(digests), size, stored)
